"""`check_env`: what is wrong with an environment, said while it is being written.

Each rule is a promise of `api.Environment` on which the loop, a buffer or an agent rests.
"""

import functools
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxrl import checks
from jaxrl.envs import api
from jaxrl.types import Masked, PyTree

_MEMBERS = "name default_params num_actions reset step reset_env step_env is_truncated observation_space action_space"
_RESET, _STEP_ENV = ("obs", "state"), ("obs", "state", "reward", "terminated", "info")
_STEP = ("obs", "state", "reward", "terminated", "truncated", "info")
_LANES = 8
_QUICKLY: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}  # the walk is short, its compilation the cost
_OUTSIDE = (jax.__path__[0], __file__, api.__file__)  # not the code that is checked
_MENDS = {
    "TracerBoolConversionError": "it uses if, while, and, or bool() on a traced value; use jnp.where, & and |",
    "TracerIntegerConversionError": "it uses a traced value as a Python integer; use jnp, and make sizes static",
    "TracerArrayConversionError": "it hands a traced value to numpy; use jax.numpy",
    "ConcretizationTypeError": "it asks for a traced number's value, as int() and float() do; use .astype",
    "NonConcreteBooleanIndexError": "it indexes by a boolean mask, whose result has no fixed shape; use jnp.where",
    "UnexpectedTracerError": "it keeps a traced value of an earlier call; put it into the state",
}


class _Broken(ValueError):
    """A finding after which nothing more can be looked at."""


def check_env(env: Any, params: Any = None, key: Array | None = None, steps: int = 200) -> None:
    """Walks `steps` random steps in 8 lanes. Raises ValueError: every broken promise found, one a line.

    Where `max_steps_in_episode` is a leaf of `params`, every other lane gets a short limit, so that it is met.
    """
    checks.at_least("steps", steps, 1)
    key = jax.random.key(0) if key is None else key
    found = list(_interface(env))
    try:
        params = env.default_params if params is None and not found else params
        for rules in (_data, _types, _walk):
            if not found:
                for line in rules(env, params, key, steps):
                    found.append(line)  # one by one, so that a _Broken leaves those before it
    except _Broken as finding:
        found.append(str(finding))
    if found:
        name = getattr(env, "name", type(env).__name__)
        raise ValueError("\n".join([f"{name} breaks {len(found)} promise(s) of an environment:", *found]))


def _interface(env: Any) -> Iterator[str]:
    for member in _MEMBERS.split():
        if not hasattr(env, member):
            yield f"it has no {member}; api.PureEnvironment brings every member that is needed"
    try:
        hash(env)
    except TypeError as error:
        yield f"it cannot be hashed, which jit needs ({error}); make it and its params frozen, with tuples for lists"


def _data(env: Any, params: Any, key: Array, steps: int) -> Iterator[str]:
    """Params and spaces."""
    del steps
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(leaf, bool | int | float | np.generic | np.ndarray | jax.Array):
            yield (
                f"params{jax.tree_util.keystr(path)} is a {type(leaf).__name__}, no number; register the class by "
                "jax.tree_util.register_dataclass, and mark what is no number metadata={'static': True}"
            )
    for name in ("observation_space", "action_space"):
        space = getattr(env, name)(params)
        if not (hasattr(space, "sample") and hasattr(space, "contains")):
            yield f"{name} is a {type(space).__name__}; it must be a space, as spaces.Discrete or spaces.Box"
        elif name == "action_space":
            action = space.sample(key)
            if not space.contains(action):
                yield f"action_space {space} does not contain {_short(action)}, which it sampled"
            count = space.n if hasattr(space, "n") else int(np.prod(space.shape))
            if env.num_actions != count:
                yield f"num_actions is {env.num_actions}, but action_space is {space}; it must be {count}"


def _types(env: Any, params: Any, key: Array, steps: int) -> Iterator[str]:
    """What tracing shows: how many values, structure, shapes, dtypes, and whether a second trace is the same."""
    del steps
    action = env.action_space(params).sample(key)
    start = _trace("reset_env", _RESET, lambda key: env.reset_env(key, params), key)
    after = _trace(
        "step_env", _STEP_ENV, lambda key, state: env.step_env(key, state, action, params), key, start["state"]
    )
    changes = [*_changes("obs", start["obs"], after["obs"]), *_changes("state", start["state"], after["state"])]
    yield from changes
    yield from _outcome("step_env", reward=after["reward"], terminated=after["terminated"])
    if isinstance(start["obs"], Masked):
        mask = start["obs"].action_mask
        if (mask.shape, mask.dtype) != ((env.num_actions,), np.bool_):
            yield f"obs.action_mask is {_type(mask)}; it must be bool[{env.num_actions}], one for each action"
    if changes:
        return  # step would fail where it selects between the two
    traced = "with params as arguments, so that their numbers are traced (mark a fixed field static),"
    start = _trace(f"reset {traced}", _RESET, env.reset, key, params)
    after = _trace(f"step {traced}", _STEP, env.step, key, start["state"], action, params)
    yield from _changes("obs", start["obs"], after["obs"])
    yield from _changes("state", start["state"], after["state"])
    yield from _outcome("step", **{name: after[name] for name in ("reward", "terminated", "truncated")})
    if not isinstance(after["info"], dict) or "final_observation" not in after["info"]:
        raise _Broken("info of step has no 'final_observation', the true next observation before any reset")
    yield from _changes("obs", start["obs"], after["info"]["final_observation"], "in info['final_observation']")


def _walk(env: Any, params: Any, key: Array, steps: int) -> Iterator[str]:
    """What a random walk shows: one compiled program, run twice."""
    limits = np.full(_LANES, getattr(params, "max_steps_in_episode", api.NO_LIMIT), np.int32)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    at = [i for i, (path, _) in enumerate(leaves) if jax.tree_util.keystr(path) == ".max_steps_in_episode"]
    if at:
        limits[1::2] = np.minimum(limits[1::2], max(steps // 4, 1))

    def lane(key: Array, limit: Any) -> dict[str, Any]:
        changed = treedef.unflatten([limit if [i] == at else leaf for i, (_, leaf) in enumerate(leaves)])
        return _lane(env, changed, spaces, limit, key, steps)

    spaces = env.action_space(params), env.observation_space(params)
    keys = jax.random.split(key, _LANES)
    try:
        program = jax.jit(jax.vmap(lane)).lower(keys, limits).compile(_QUICKLY)
        walk, again = program(keys, limits), program(keys, limits)
        jax.block_until_ready(again)
    except Exception as error:  # whatever the environment's code raises is what is to be told
        raise _Broken(f"reset and step cannot be vmapped and scanned: {_reason(error)}") from error
    if not _agree(walk, again, 0, exact=True):
        yield "the same compiled program gave two results from the same keys: a callback draws or remembers"
    yield from _facts(env, params, walk)
    (step_key, reset_key, state, action), *compiled = jax.tree.map(
        lambda x: x[0, -1], (walk["arguments"], walk["stepped"], walk["fresh"])
    )
    try:
        with jax.disable_jit():
            eager = env.step_env(step_key, state, action, params)[:4], env.reset_env(reset_key, params)
    except Exception as error:  # as above
        raise _Broken(f"it cannot run without jit: {_reason(error)}") from error
    for name, x, y in zip(("step_env", "reset_env"), compiled, eager, strict=True):
        if not _agree(x, y, 0):
            yield f"{name} gives another result without jit; it must depend on its arguments alone"


def _lane(env: Any, params: Any, spaces: tuple, limit: Array, key: Array, steps: int) -> dict[str, Any]:
    """One environment's random walk, leaves [steps, ...]: `step`, and beside it what it should be made of."""
    actions, observations = spaces

    def contains(obs: PyTree) -> Array:
        return jnp.asarray(observations.contains(obs.observation if isinstance(obs, Masked) else obs))

    def body(carry: tuple, key: Array) -> tuple:
        obs, state, length = carry
        action_key, key = jax.random.split(key)
        action = actions.sample(action_key)
        if isinstance(obs, Masked):
            draw = jax.random.uniform(action_key, obs.action_mask.shape)
            action = jnp.argmax(jnp.where(obs.action_mask, draw, -1)).astype(action.dtype)
        step_key, reset_key = jax.random.split(key) if _splits(env, params) else (key, key)
        next_obs, next_state, reward, terminated, truncated, info = env.step(key, state, action, params)
        final = info["final_observation"]
        stepped = env.step_env(step_key, state, action, params)[:4]
        ended = terminated | truncated
        length = length + 1
        return (next_obs, next_state, jnp.where(ended, 0, length)), {
            "arguments": (step_key, reset_key, state, action),
            "obs": obs,
            "obs inside": contains(obs),
            "next_obs": next_obs,
            "final": final,
            "final inside": contains(final),
            "outcome": (reward, terminated, truncated),
            "stepped": stepped,
            "stepped outcome": (*stepped[2:], env.is_truncated(stepped[1], params)),
            "fresh": env.reset_env(reset_key, params),
            "overrun": (length >= limit) & ~ended,
        }

    reset_key, key = jax.random.split(key)
    start = (*env.reset(reset_key, params), jnp.zeros((), jnp.int32))
    return jax.lax.scan(body, start, jax.random.split(key, steps))[1]


def _facts(env: Any, params: Any, walk: dict[str, Any]) -> Iterator[str]:
    """The rules of single steps, [lanes, steps]; for each that is broken the first step where it is."""
    obs, final = walk["obs"], walk["final"]
    reward, terminated, truncated = map(np.asarray, walk["outcome"])
    ended = terminated | truncated
    space = env.observation_space(params)
    rules = [
        (_each(np.isfinite, 2, final), "an observation is not finite", final),
        (np.isfinite(reward), "a reward is not finite", reward),
        (walk["obs inside"], f"observation_space {space} does not contain an observation", obs),
        (walk["final inside"], f"observation_space {space} does not contain a final observation", final),
        (_agree(final, walk["stepped"][0], 2), "info['final_observation'] is not the observation of step_env", final),
        (_agree(walk["outcome"], walk["stepped outcome"], 2), "step has not step_env's and is_truncated's outcome", ()),
        (ended | _agree(walk["next_obs"], final, 2), "obs is not final_observation, though the episode goes on", obs),
        (
            ~ended | _agree(walk["next_obs"], walk["fresh"][0], 2),
            "after an end obs is not a new episode's, reset_env's with the second key of the split",
            walk["next_obs"],
        ),
        (~walk["overrun"], "an episode goes on at max_steps_in_episode, where is_truncated must be true", ()),
    ]
    if isinstance(obs, Masked):
        rules.append((np.asarray(obs.action_mask).any(-1), "an action_mask allows no action", obs.action_mask))
        allowed = np.asarray(final.action_mask).any(-1) | terminated
        rules.append((allowed, "a final action_mask allows no action, though nothing terminated", final.action_mask))
    for good, message, value in rules:
        bad = np.argwhere(~np.asarray(good))
        if len(bad):
            lane, step = bad[0].tolist()
            shown = ", ".join(_short(x[lane, step]) for x in jax.tree.leaves(value))
            often = f"in {len(bad)} of {ended.size} steps, first at step {step} of lane {lane}"
            yield f"{message}: {shown or 'seen'} {often}"


def _trace(what: str, names: tuple[str, ...], function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The types of what a function returns, by name."""
    try:
        program, out = jax.make_jaxpr(lambda *a: function(*a), return_shape=True)(*arguments)
        again = jax.make_jaxpr(lambda *a: function(*a))(*arguments)
    except Exception as error:  # whatever the environment's code raises is what is to be told
        raise _Broken(f"{what} cannot be traced: {_reason(error)}") from error
    if any(isinstance(x, Tracer) for p in (program, again) for x in p.consts):
        raise _Broken(f"{what} cannot be traced: {_MENDS['UnexpectedTracerError']}")
    if not isinstance(out, tuple) or len(out) != len(names):
        count = len(out) if isinstance(out, tuple) else 1
        raise _Broken(f"{what} returns {count} value(s); it must return {len(names)}: {', '.join(names)}")
    texts = [re.sub("0x[0-9a-f]+", "", str(p)) for p in (program, again)]
    if texts[0] != texts[1] or not _agree(program.consts, again.consts, 0, exact=True):
        raise _Broken(
            f"{what} is another program each time it is traced; what it remembers or draws belongs into state"
        )
    return dict(zip(names, out, strict=True))


def _changes(name: str, before: PyTree, after: PyTree, where: str = "after step") -> Iterator[str]:
    """How the types of a scan's carry change."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        trees = (re.sub(r"^PyTreeDef\((.*)\)$", r"\1", str(jax.tree.structure(tree))) for tree in (before, after))
        yield "{} has the structure {} after reset and {} {}; it must keep it".format(name, *trees, where)
        return
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        leaf = f"{name}{jax.tree_util.keystr(path)}"
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            yield f"{leaf} is {_type(x)} after reset and {_type(y)} {where}; it must keep its type: cast by .astype"
        elif x.weak_type != y.weak_type:
            yield (
                f"{leaf} is {_type(x)} after reset and {_type(y)} {where}; make it of a Python number by "
                f"jnp.asarray(number, jnp.{x.dtype}), else every program is compiled twice"
            )


def _outcome(where: str, **scalars: Any) -> Iterator[str]:
    for name, x in scalars.items():
        wanted = "float32" if name == "reward" else "bool"
        if (x.shape, str(x.dtype)) != ((), wanted):
            yield f"{name} of {where} is {_type(x)}; it must be {wanted}[], as by .astype(jnp.{wanted}) of a scalar"


def _splits(env: Any, params: Any) -> bool:
    return getattr(env, "splits", api.always)(params)


def _each(test: Callable[..., Any], axes: int, *trees: PyTree) -> np.ndarray:
    """Whether the arrays of the trees pass, over all but the first `axes` axes."""

    def leaf(*xs: Any) -> np.ndarray:
        passed = test(*map(_numpy, xs))
        return passed.reshape(*passed.shape[:axes], -1).all(-1)

    return functools.reduce(np.logical_and, jax.tree.leaves(jax.tree.map(leaf, *trees)), np.asarray(True))


def _agree(x: PyTree, y: PyTree, axes: int, exact: bool = False) -> np.ndarray:
    """Where trees are the same, by default up to the rounding by which two programs may differ."""
    tolerance = 0 if exact else 1e-4
    return _each(lambda a, b: np.isclose(a, b, tolerance, tolerance, equal_nan=True), axes, x, y)


def _numpy(x: Any) -> np.ndarray:
    key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if key else x)


def _type(x: Any) -> str:
    return f"{'weak ' if x.weak_type else ''}{x.dtype}{list(x.shape)}"


def _short(x: Any) -> str:
    return " ".join(f"{np.array2string(np.asarray(x), threshold=8, precision=4)} ({x.dtype})".split())


def _reason(error: Exception) -> str:
    """One line: what to mend where it is known, and the line of the environment's code."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = (mend for name, mend in _MENDS.items() if name in names)
    reason = next(known, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OUTSIDE)]
    return f"{reason} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else reason
