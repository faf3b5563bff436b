"""Wrappers of actions and rewards."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import spaces
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.wrappers.base import (
    Wrapped,
    bind,
    counts,
    finite_box,
    number,
    require_box,
    require_environment,
    strides,
)
from jaxrl.types import Masked, PyTree


class Executed(NamedTuple):
    """What `sticky_action` remembers."""

    action: Array  # as of the action space: the one last executed
    repeatable: Array  # bool []: false at an episode's start, and where the action mask forbids the action


def sticky_action(env: Any, prob: float = 0.25) -> Wrapped:
    """Executes the action executed before once more with chance `prob` (Machado et al. 2018, section 5.2).

    Never at an episode's first step, nor against an action mask. Raises ValueError for prob outside [0, 1].
    """
    require_environment("sticky_action", env)
    prob = number("prob of sticky_action", prob, 0, 1)
    return Wrapped(
        env,
        sticky_action,
        (prob,),
        act_fn=bind(_stick, prob),
        start_fn=bind(_nothing_executed, env.action_space()),
        advance_fn=_executed,
        draws=True,
    )


def discretize_action(env: Any, bins: Any, ends: bool = False) -> Wrapped:
    """A Box action as a Discrete one: a grid of `bins`, one number or one for each dimension, the last one fastest.

    An index stands for its bin's centre, as in gymnasium's DiscretizeAction; with `ends` the grid goes from limit to
    limit. Raises ValueError for a space that is no Box or not finite, and bins below 1, with `ends` below 2.
    """
    space = require_box("discretize_action", env, "action")
    limits = finite_box("discretize_action", env, space)
    bins = counts("bins of discretize_action", bins, math.prod(space.shape))
    if ends and min(bins) < 2:
        raise ValueError(f"bins of discretize_action are {bins}; from limit to limit takes at least 2")
    if math.prod(bins) >= 2**31:
        raise ValueError(f"bins of discretize_action are {bins}, {math.prod(bins)} actions; at most 2**31-1 work")
    return Wrapped(
        env,
        discretize_action,
        (bins, bool(ends)),
        act_fn=bind(_grid_point, limits, np.dtype(space.dtype), bins, bool(ends)),
        actions=spaces.Discrete(math.prod(bins)),
    )


def decouple_action(env: Any, bins: Any = 3) -> Wrapped:
    """A Box action as a MultiDiscrete one: for each dimension one of its `bins` points from limit to limit.

    Each dimension is chosen for itself, as decoupled Q-networks do (Seyde et al. 2023); 3 bins are full, nothing and
    full again. `bins` is one number or one for each dimension. Raises ValueError for a space that is no Box or not
    finite, and bins below 2.
    """
    space = require_box("decouple_action", env, "action")
    limits = finite_box("decouple_action", env, space)
    bins = counts("bins of decouple_action", bins, math.prod(space.shape))
    if min(bins, default=0) < 2:
        raise ValueError(f"bins of decouple_action are {bins}; from limit to limit takes at least 2 a dimension")
    return Wrapped(
        env,
        decouple_action,
        (bins,),
        act_fn=bind(_coordinates_point, limits, np.dtype(space.dtype), bins),
        actions=spaces.MultiDiscrete(bins),
    )


def mask_action(env: Any, allowed: Callable[[PyTree], Array]) -> Wrapped:
    """Shows with each observation which actions are allowed there, `allowed(observation) -> bool [A]`.

    Agents honour it in exploration, greedy choice and bootstrap; at least one action must be allowed wherever an
    episode goes on. Nothing keeps others from the environment. A mask that is there already holds too. Raises
    ValueError for actions that are not Discrete and where `allowed` gives something else.
    """
    require_environment("mask_action", env)
    actions = env.action_space()
    if not hasattr(actions, "n"):
        raise ValueError(f"mask_action needs Discrete actions, but {env.name} has {actions}")
    shape = jax.eval_shape(lambda: _mask(allowed, env.reset_env(jax.random.key(0), env.default_params)[0], (), None))
    mask = shape.action_mask
    if (mask.shape, mask.dtype) != ((actions.n,), jnp.bool_):
        raise ValueError(
            f"allowed of mask_action gives {mask.dtype}{list(mask.shape)} for an observation of {env.name}; it must "
            f"give one bool for each of its actions, [{actions.n}]"
        )
    return Wrapped(env, mask_action, (allowed,), observe_fn=bind(_mask, allowed))


def clip_reward(env: Any, low: float = -1.0, high: float = 1.0) -> Wrapped:
    """Rewards cut to [low, high]; either may be infinite. Raises ValueError unless low is below high."""
    require_environment("clip_reward", env)
    try:
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        raise ValueError(f"limits of clip_reward are {low!r} and {high!r}; they must be numbers") from None
    if not low < high:
        raise ValueError(f"limits of clip_reward are {low} and {high}; low must be below high")
    return Wrapped(env, clip_reward, (low, high), reward_fn=bind(_clip, low, high))


def scale_reward(env: Any, factor: float) -> Wrapped:
    """Rewards times `factor`. Raises ValueError unless it is a finite number."""
    require_environment("scale_reward", env)
    factor = number("factor of scale_reward", factor)
    return Wrapped(env, scale_reward, (factor,), reward_fn=bind(_scale, factor), tabular_fn=bind(_scale_table, factor))


def _mask(allowed: Callable[[PyTree], Array], obs: PyTree, memory: PyTree, params: Any) -> Masked:
    del memory, params
    if isinstance(obs, Masked):
        return Masked(obs.observation, obs.action_mask & allowed(obs.observation))
    return Masked(obs, allowed(obs))


def _nothing_executed(space: Any, obs: PyTree) -> Executed:
    del obs
    return Executed(jnp.zeros(space.shape, jax.dtypes.canonicalize_dtype(space.dtype)), jnp.zeros((), bool))


def _stick(prob: float, key: Array, action: ArrayLike, memory: Executed) -> Array:
    sticks = memory.repeatable & jax.random.bernoulli(key, prob)
    return jnp.where(sticks, memory.action, jnp.asarray(action, memory.action.dtype))


def _executed(memory: Executed, action: Array, obs: PyTree, reward: Array, ended: Array) -> Executed:
    del memory, reward, ended
    repeatable = obs.action_mask[action] if isinstance(obs, Masked) else jnp.ones((), bool)
    return Executed(action, repeatable)


def _grid_point(
    limits: spaces.Box,
    dtype: Any,
    bins: tuple[int, ...],
    ends: bool,
    key: Array,
    action: ArrayLike,
    memory: PyTree,
) -> Array:
    """The action [*shape] that an index stands for."""
    del key, memory
    index = jnp.clip(jnp.asarray(action, jnp.int32), 0, math.prod(bins) - 1)
    coordinates = index // np.asarray(strides(bins), np.int32) % np.asarray(bins, np.int32)
    return _point(limits, dtype, bins, ends, coordinates)


def _coordinates_point(
    limits: spaces.Box, dtype: Any, bins: tuple[int, ...], key: Array, action: ArrayLike, memory: PyTree
) -> Array:
    """The action [*shape] that a bin for each dimension stands for."""
    del key, memory
    coordinates = jnp.clip(jnp.asarray(action, jnp.int32), 0, np.asarray(bins, np.int32) - 1)
    return _point(limits, dtype, bins, True, coordinates)


def _point(limits: spaces.Box, dtype: Any, bins: tuple[int, ...], ends: bool, coordinates: Array) -> Array:
    """The action [*shape] in the middle of a bin of each dimension, with `ends` from limit to limit."""
    count = np.asarray(bins, np.int32)
    low, high = limits.low.ravel(), limits.high.ravel()
    width = (high - low) / (count - 1 if ends else count)
    first = low if ends else low + width / 2
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    kind = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    point = coordinates.astype(kind) * width.astype(kind) + first.astype(kind)
    return jnp.clip(point, low.astype(kind), high.astype(kind)).astype(dtype).reshape(limits.shape)


def _clip(low: float, high: float, reward: ArrayLike) -> Array:
    return jnp.clip(jnp.asarray(reward, jnp.float32), low, high)


def _scale(factor: float, reward: ArrayLike) -> Array:
    return jnp.asarray(reward, jnp.float32) * factor


def _scale_table(factor: float, mdp: TabularMDP) -> TabularMDP:
    return mdp._replace(R=mdp.R * factor)
