"""Wrappers that watch an episode: its clock, its return, its mistakes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import checkify
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs.api import NO_LIMIT
from jaxrl.envs.wrappers.base import Wrapped, as_float, bind, inside, require_box, require_environment, unchanged
from jaxrl.types import PyTree


class Statistics(NamedTuple):
    """What `episode_statistics` remembers."""

    episode_return: Array  # float32 [], of the running episode
    episode_length: Array  # int32 []
    returned_episode_returns: Array  # float32 [], of the last episode that ended; 0 before
    returned_episode_lengths: Array  # int32 []
    returned_episode: Array  # bool []: whether the last step ended one


def time_limit(env: Any, steps: int) -> Wrapped:
    """Truncates, never terminates, after `steps` steps; an earlier limit inside still holds.

    Raises ValueError for steps below 1, and around `episode_statistics`, which would miss these ends.
    """
    require_environment("time_limit", env)
    checks.at_least("steps of time_limit", steps, 1)
    if any(layer.report_fn is not None for layer in _layers(env)):
        raise ValueError("time_limit around episode_statistics would go unseen by it; put episode_statistics outside")
    return Wrapped(
        env, time_limit, (int(steps),), start_fn=_zero, advance_fn=_tick, tabular_fn=unchanged, limit=int(steps)
    )


def time_aware(env: Any) -> Wrapped:
    """Appends the elapsed fraction of the time limit, 0 to 1, to a vector.

    The limit is the earliest of `params.max_steps_in_episode` and the `time_limit`s inside. Integers become float32.
    Raises ValueError for a space that is no Box of one dimension, and without a limit.
    """
    space = require_box("time_aware", env, "observation")
    if len(space.shape) != 1:
        raise ValueError(f"time_aware appends to a vector, but {env.name} has {space}; flatten it first")
    if checks.is_number(limit := _limit(env, env.default_params)) and limit >= NO_LIMIT:
        raise ValueError(f"{env.name} has no time limit to take a fraction of; wrap it in time_limit first")
    low, high = (np.append(bound, end) for bound, end in ((space.low, 0), (space.high, 1)))
    dtype = space.dtype if jnp.issubdtype(space.dtype, jnp.floating) else np.float32
    return Wrapped(
        env,
        time_aware,
        observe_fn=bind(_append_fraction, env),
        start_fn=_zero,
        advance_fn=_tick,
        observations=spaces.Box(low, high, dtype=dtype),
    )


def episode_statistics(env: Any) -> Wrapped:
    """Adds to info what gymnax's LogWrapper does: the last finished episode's return and length, and when one ended.

    `returned_episode_returns` float32, `returned_episode_lengths` int32 (both 0 before the first end), and
    `returned_episode`, true on the step that terminated or truncated one. Rewards are those of the environment inside.
    """
    require_environment("episode_statistics", env)
    return Wrapped(
        env,
        episode_statistics,
        start_fn=_no_statistics,
        advance_fn=_count,
        report_fn=_report,
        tabular_fn=unchanged,
        lasts=True,
    )


def checked(env: Any) -> Wrapped:
    """Makes an error of an action outside the space, and of a reward or true next observation that is not finite.

    `error, out = checkify.checkify(env.step)(key, state, action, params); error.throw()`, of `jax.experimental`,
    raises ValueError that names environment and value; a `jax.vmap(env.step)`, a scan or a whole run is given to
    checkify likewise. Called with plain arrays, `env.step` raises by itself. An action of a wrong shape or dtype
    is refused while tracing.
    """
    require_environment("checked", env)
    name = _escaped(env.name)
    return Wrapped(
        env,
        checked,
        act_fn=bind(_check_action, name, env.action_space()),
        check_fn=bind(_check_outcome, name),
        tabular_fn=unchanged,
    )


def _zero(obs: PyTree) -> Array:
    del obs
    return jnp.zeros((), jnp.int32)


def _tick(memory: Array, action: Any, obs: PyTree, reward: Array, ended: Array) -> Array:
    del action, obs, reward, ended
    return memory + 1


def _layers(env: Any) -> list[Wrapped]:
    """The wrappers of an environment, the outermost first."""
    return [env, *_layers(env.env)] if isinstance(env, Wrapped) else []


def _limit(env: Any, params: Any) -> Any:
    """Steps after which an episode is truncated; NO_LIMIT where it never is."""
    steps = min((layer.limit for layer in _layers(env) if layer.limit is not None), default=NO_LIMIT)
    own = getattr(params, "max_steps_in_episode", NO_LIMIT)
    return min(steps, own) if checks.is_number(own) else jnp.minimum(steps, own)


def _append_fraction(env: Any, obs: PyTree, memory: Array, params: Any) -> PyTree:
    def append(x: Array) -> Array:
        x = as_float(x)
        fraction = memory.astype(x.dtype) / jnp.asarray(_limit(env, params)).astype(x.dtype)
        return jnp.append(x, fraction)

    return inside(obs, append)


def _no_statistics(obs: PyTree) -> Statistics:
    del obs
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return Statistics(zero, none, zero, none, jnp.zeros((), bool))


def _count(memory: Statistics, action: Any, obs: PyTree, reward: ArrayLike, ended: Array) -> Statistics:
    del action, obs
    total, length = memory.episode_return + jnp.asarray(reward, jnp.float32), memory.episode_length + 1
    return Statistics(
        jnp.where(ended, 0.0, total),
        jnp.where(ended, 0, length),
        jnp.where(ended, total, memory.returned_episode_returns),
        jnp.where(ended, length, memory.returned_episode_lengths),
        ended,
    )


def _report(memory: Statistics) -> dict[str, Array]:
    names = ("returned_episode_returns", "returned_episode_lengths", "returned_episode")
    return {name: getattr(memory, name) for name in names}


def _check_action(name: str, space: Any, key: Array, action: Any, memory: PyTree) -> Any:
    del key, memory
    allowed = space.contains(action)
    if allowed is False:
        action = jnp.asarray(action)
        raise ValueError(f"{name}: an action {action.dtype}{list(action.shape)} is no element of {space}")
    legal = _escaped(str(space))
    checkify.check(jnp.asarray(allowed), f"{name}: action {{value}} is outside {legal}", value=jnp.asarray(action))
    return action


def _check_outcome(name: str, obs: PyTree, reward: ArrayLike) -> None:
    for what, tree in (("reward", reward), ("observation", obs)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            leaf = jnp.asarray(leaf)
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                where = _escaped(what + jax.tree_util.keystr(path))
                checkify.check(jnp.isfinite(leaf).all(), f"{name}: {where} {{value}} is not finite", value=leaf)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
