"""N environments at once: `make_vector`, and `rollout` for those who want only environments.

An environment here is anything with the functions of the Environment protocol, gymnax 1.0's own included.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.types import PyTree, Step, Transition

Policy = Callable[[PyTree, Array], Array]  # (obs, key) -> action, for ONE environment


class Vector(NamedTuple):
    """N environments stepped together, auto-reset included; every array has a leading axis [N]."""

    reset: Callable[[Array], tuple[PyTree, PyTree]]  # (keys [N]) -> (obs, state)
    step: Callable[[Array, PyTree, PyTree], Step]  # (keys [N], state, action [N]) -> as Environment.step
    observe: Callable[[PyTree], PyTree] | None  # (state) -> obs; None where observations cannot be made again
    refill: Callable[[Array, PyTree], PyTree]  # (key, state) -> state; the state itself where there is no pool
    overflow: Callable[[PyTree], Array]  # (state) -> resets so far that found the pool empty, [] int32


class Pooled(NamedTuple):
    """Environments and the fresh episodes that wait for them; G groups share rows, one unless params are batched."""

    env: PyTree  # [N, ...]
    fresh: PyTree  # (obs, state), each [G, P, ...]
    used: Array  # [G] int32, rows handed out since the last refill
    overflow: Array  # [] int32


class Rollout(NamedTuple):
    """What happened, and where the environments now are."""

    trajectory: Transition  # [steps, N, ...]; next_obs is the true one, before any auto-reset
    obs: PyTree  # [N, ...]
    state: PyTree  # [N, ...]


def make_vector(env: Any, params: PyTree, num_envs: int, pool: int = 0) -> Vector:
    """`num_envs` copies of `env`; a leaf of `params` with one more axis than its default has a value for each.

    An episode's end is followed by a reset in the same step. With `pool=0` every step computes a reset for every
    environment and selects, best where a reset is cheap. With `pool=P` fresh episodes are drawn P at a time by `refill`
    and handed out by the rank of `done`, each once; where P do not suffice the reset is computed as without a
    pool, and counted. Both are exact in distribution. Raises ValueError for sizes out of range and params that
    do not fit.
    """
    checks.at_least("num_envs", num_envs, 1)
    checks.at_least("pool", pool, 0)
    axes = params_axes(env, params, num_envs)
    reset = jax.vmap(env.reset, (0, axes))
    get_obs: Any = jax.vmap(env.get_obs, (0, axes)) if getattr(env, "observable", False) else None
    if not pool:
        whole_step = jax.vmap(env.step, (0, 0, 0, axes))
        return Vector(
            reset=lambda keys: reset(keys, params),
            step=lambda keys, state, action: whole_step(keys, state, action, params),
            observe=get_obs and (lambda state: get_obs(state, params)),
            refill=lambda key, state: state,
            overflow=lambda state: jnp.zeros((), jnp.int32),
        )
    groups = 1 if axes is None else num_envs  # a fresh episode is one of the params that it was drawn with
    rows = -(-pool // groups)
    reset_env = jax.vmap(env.reset_env, (0, axes))
    step_env = jax.vmap(env.step_env, (0, 0, 0, axes))
    is_truncated = jax.vmap(env.is_truncated, (0, axes))
    choose = jax.vmap(getattr(env, "select", _select), (0, 0, 0, axes))

    def draw(key: Array) -> PyTree:
        many = jax.vmap(env.reset_env, (0, None))
        return jax.vmap(many, (0, axes))(jax.random.split(key, (groups, rows)), params)

    def first(keys: Array) -> tuple[PyTree, Pooled]:
        obs, state = reset(keys, params)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(draw, keys[0]))
        return obs, Pooled(state, empty, jnp.full(groups, rows, jnp.int32), jnp.zeros((), jnp.int32))

    def refill(key: Array, state: Pooled) -> Pooled:
        return state._replace(fresh=draw(key), used=jnp.zeros(groups, jnp.int32))

    def step(keys: Array, state: Pooled, action: PyTree) -> Step:
        step_keys, reset_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        obs, env_state, reward, terminated, info = step_env(step_keys, state.env, action, params)
        truncated = is_truncated(env_state, params)
        info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": obs}
        done = terminated | truncated
        count = jnp.cumsum(done.reshape(groups, -1), axis=1)
        slot = state.used[:, None] + count - 1
        short = done & (slot.ravel() >= rows)
        index = jnp.clip(slot, 0, rows - 1)
        rows_of = jax.vmap(jnp.take, (0, 0, None))
        given = jax.tree.map(lambda leaf: rows_of(leaf, index, 0).reshape(num_envs, *leaf.shape[2:]), state.fresh)
        chosen = choose(done, given, (obs, env_state), params)
        obs, env_state = jax.lax.cond(  # without a vmap over seeds the first branch is taken only when it must
            jnp.any(short), lambda: choose(short, reset_env(reset_keys, params), chosen, params), lambda: chosen
        )
        used = jnp.minimum(state.used + count[:, -1], rows)
        overflow = state.overflow + jnp.sum(short, dtype=jnp.int32)
        return obs, Pooled(env_state, state.fresh, used, overflow), reward, terminated, truncated, info

    observe = get_obs and (lambda state: get_obs(state.env, params))
    return Vector(first, step, observe, refill, lambda state: state.overflow)


def rollout(
    env: Any,
    params: PyTree,
    policy: Policy | None,
    key: Array,
    num_envs: int,
    steps: int,
    *,
    start: tuple[PyTree, PyTree] | None = None,
    pool: int = 0,
    refill_every: int = 16,
) -> Rollout:
    """`steps` steps of `num_envs` environments as one compiled scan, by `policy(obs, key) -> action`.

    `policy=None` draws actions uniformly from the action space. A policy with parameters is best given as
    `jax.tree_util.Partial(function, parameters)`: new parameters then compile nothing anew; any function will do.
    `params` may have one value an environment, and so may `key`: with keys [N] environment i does what it would do
    alone with key[i]. `start` is the (obs, state) where an earlier rollout stopped; by default episodes are new. With
    `pool` fresh episodes are drawn every `refill_every` steps (see `make_vector`), of which `steps` is a multiple.
    Raises ValueError for sizes below 1, keys that are not one or N, and what `make_vector` refuses.
    """
    checks.at_least("num_envs", num_envs, 1)
    checks.at_least("steps", steps, 1)
    checks.at_least("pool", pool, 0)
    if key.shape not in ((), (num_envs,)):
        raise ValueError(f"key has shape {key.shape}; it must be one key, or one for each of {num_envs} environments")
    if pool:
        checks.at_least("refill_every", refill_every, 1)
        if steps % refill_every or key.ndim:
            raise ValueError(
                f"steps is {steps}, refill_every {refill_every} and the shape of key {key.shape}; a pool needs one key "
                "and a multiple of refill_every steps"
            )
    if policy is not None and not isinstance(policy, jax.tree_util.Partial):
        policy = jax.tree_util.Partial(policy)
    return _rollout(env, params, policy, key, num_envs, steps, start, pool, refill_every if pool else steps)


@partial(jax.jit, static_argnames=("env", "num_envs", "steps", "pool", "block"))
def _rollout(
    env: Any, params: PyTree, policy: Any, key: Array, num_envs: int, steps: int, start: Any, pool: int, block: int
) -> Rollout:
    vector = make_vector(env, params, num_envs, pool)
    space = env.action_space()  # of the default params: under traced ones a space has no bounds
    choose = jax.vmap(policy or (lambda obs, key: space.sample(key)))
    pool_key, lanes = (None, key) if key.ndim else jax.random.split(key)
    lanes = lanes if key.ndim else jax.random.split(lanes, num_envs)
    reset_keys, act_keys, env_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(lanes), 1, 0)

    # To observe a state where it is used is faster than to carry observations along.
    observe = vector.observe or (lambda carry: carry[0])
    state_of = (lambda carry: carry) if vector.observe else (lambda carry: carry[1])
    carried = (lambda obs, state: state) if vector.observe else (lambda obs, state: (obs, state))

    def one(carry: PyTree, time: Array) -> tuple[PyTree, Transition]:
        fold = jax.vmap(jax.random.fold_in, (0, None))
        obs = observe(carry)
        action = choose(obs, fold(act_keys, time))
        after, state, reward, terminated, truncated, info = vector.step(fold(env_keys, time), state_of(carry), action)
        transition = Transition(obs, action, reward, terminated, truncated, info["final_observation"])
        return carried(after, state), transition

    def some(carry: PyTree, times: Array) -> tuple[PyTree, Transition]:
        if pool_key is not None:
            state = vector.refill(jax.random.fold_in(pool_key, times[0]), state_of(carry))
            carry = carried(None if vector.observe else carry[0], state)
        return jax.lax.scan(one, carry, times)

    times = jnp.arange(steps, dtype=jnp.uint32)
    carry = carried(*(vector.reset(reset_keys) if start is None else start))
    if block == steps:
        carry, trajectory = some(carry, times)
    else:
        carry, trajectory = jax.lax.scan(some, carry, times.reshape(-1, block))
        trajectory = jax.tree.map(lambda leaf: leaf.reshape(steps, *leaf.shape[2:]), trajectory)
    return Rollout(trajectory, observe(carry), state_of(carry))


def params_axes(env: Any, params: PyTree, num_envs: int) -> PyTree:
    """The `in_axes` of params for `num_envs` environments: 0 where a leaf has one more axis than its default.

    None where no leaf has. Raises ValueError for a leaf with neither the default's shape nor one value an environment.
    """
    if params is None:
        return None
    leaves, structure = jax.tree.flatten(params)
    defaults = jax.tree.leaves(env.default_params)
    if len(leaves) != len(defaults):
        raise ValueError(
            f"params of {env.name} is {type(params).__name__} with {len(leaves)} numbers; its own have "
            f"{len(defaults)}: use what make returned, changed by replace"
        )
    axes: list[int | None] = []
    for path_and_leaf, default in zip(jax.tree_util.tree_leaves_with_path(params), defaults, strict=True):
        path, leaf = path_and_leaf
        own, found = jnp.shape(default), jnp.shape(leaf)
        if found not in (own, (num_envs, *own)):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} of {env.name} has shape {found}; it must be {own}, or "
                f"{(num_envs, *own)} for one value in each of {num_envs} environments"
            )
        axes.append(None if found == own else 0)
    return jax.tree.unflatten(structure, axes) if 0 in axes else None


def _select(done: Array, fresh: PyTree, stepped: PyTree, params: PyTree) -> PyTree:
    """What environments without a `select` of their own do."""
    del params
    return jax.tree.map(partial(jnp.where, done), fresh, stepped)
