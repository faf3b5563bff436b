"""Wrappers that give observations another form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl import checks, spaces
from jaxrl.envs.wrappers.base import (
    Wrapped,
    as_float,
    bind,
    finite_box,
    inside,
    number,
    require_box,
    require_environment,
    unchanged,
)
from jaxrl.types import Masked, PyTree


def flatten(env: Any) -> Wrapped:
    """Any observation as a vector, as `spaces.flatten`: arrays raveled, choices one-hot, members in order."""
    require_environment("flatten", env)
    space = env.observation_space()
    return Wrapped(
        env, flatten, observe_fn=bind(_vector, space), tabular_fn=unchanged, observations=_vector_space(space)
    )


def frame_stack(env: Any, k: int, axis: int = -1) -> Wrapped:
    """The last `k` observations on a new axis, the newest last; at an episode's start the first one, k times.

    `axis` is by default the last, as in Dopamine and for convolutions that read channels last; gymnasium's
    FrameStackObservation has it first. Discrete observations become MultiDiscrete [k]. Raises ValueError for k below
    1, an axis out of range, and a space that is neither Box nor Discrete.
    """
    require_environment("frame_stack", env)
    checks.at_least("k of frame_stack", k, 1)
    space = env.observation_space()
    if not isinstance(space, spaces.Box | spaces.Discrete):
        raise ValueError(f"frame_stack needs a Box or Discrete space, but {env.name} has {space}; flatten it first")
    rank = len(space.shape) + 1
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ValueError(f"axis of frame_stack is {axis!r}; a stack of {space} has axes {-rank} to {rank - 1}")
    axis = axis % rank
    if isinstance(space, spaces.Box):
        low, high = (np.stack([bound] * k, axis) for bound in (space.low, space.high))
        stacked = spaces.Box(low, high, dtype=space.dtype)
    else:
        stacked = spaces.MultiDiscrete((space.n,) * k)
    return Wrapped(
        env,
        frame_stack,
        (int(k), axis),
        observe_fn=bind(_stack, axis),
        start_fn=bind(_first_frames, int(k)),
        advance_fn=_next_frames,
        observations=stacked,
        recalls=True,
    )


def rescale_observation(env: Any, low: float = -1.0, high: float = 1.0, bounds: Any = None) -> Wrapped:
    """A Box observation mapped linearly, so that its limits come to lie on `low` and `high`.

    `bounds`, (low, high), replace the limits of the space: Dopamine maps CartPole's (2.4, 5, pi/12, 2 pi) and their
    negatives to 1 and -1. What is beyond them is mapped beyond. Floats keep their dtype, integers become float32.
    Raises ValueError for a space that is no Box and limits that are not finite.
    """
    space = require_box("rescale_observation", env, "observation")
    limits = finite_box("rescale_observation", env, space, bounds)
    low, high = number("low of rescale_observation", low), number("high of rescale_observation", high)
    if not low < high:
        raise ValueError(f"low and high of rescale_observation are {low} and {high}; low must be below high")
    return Wrapped(
        env,
        rescale_observation,
        (low, high, None if bounds is None else limits),
        observe_fn=bind(_rescale, limits, low, high),
        tabular_fn=unchanged,
        observations=_rescaled_space(space, limits, low, high, bounds is None),
    )


def _vector(space: Any, obs: PyTree, memory: PyTree, params: Any) -> PyTree:
    del memory, params
    return inside(obs, lambda x: spaces.flatten(space, x))


def _vector_space(space: Any) -> spaces.Box:
    """The space of flattened elements."""
    bounds = [_limits(leaf) for leaf in _leaves(space)]
    low, high = (np.concatenate([np.zeros(0), *side]) for side in zip(*bounds, strict=True)) if bounds else ((), ())
    dtype = jax.eval_shape(lambda: spaces.flatten(space, space.sample(jax.random.key(0)))).dtype
    return spaces.Box(low, high, (spaces.flatdim(space),), dtype)


def _leaves(space: Any) -> list[Any]:
    """The members of a space that have none themselves, in order."""
    if isinstance(space, spaces.Tuple):
        return [leaf for member in space for leaf in _leaves(member)]
    if isinstance(space, spaces.Dict):
        return [leaf for _, member in space.items for leaf in _leaves(member)]
    return [space]


def _limits(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Limits of a flattened element of a space without members, float64: those of a choice are one-hot's."""
    if isinstance(space, spaces.Box):
        return space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    return np.zeros(spaces.flatdim(space)), np.ones(spaces.flatdim(space))


def _first_frames(k: int, obs: PyTree) -> tuple[PyTree, ...]:
    return (obs,) * k


def _next_frames(
    memory: tuple[PyTree, ...], action: Any, obs: PyTree, reward: Array, ended: Array
) -> tuple[PyTree, ...]:
    del action, reward, ended
    return (*memory[1:], obs)


def _stack(axis: int, obs: PyTree, memory: tuple[PyTree, ...], params: Any) -> PyTree:
    del obs, params
    frames = [frame.observation if isinstance(frame, Masked) else frame for frame in memory]
    return inside(memory[-1], lambda _: jnp.stack(frames, axis))


def _rescale(limits: spaces.Box, low: float, high: float, obs: PyTree, memory: PyTree, params: Any) -> PyTree:
    del memory, params

    def rescale(x: Array) -> Array:
        x = as_float(x)
        origin = limits.low.astype(x.dtype)
        scale = (high - low) / (limits.high.astype(x.dtype) - origin).astype(np.float64)
        scale = np.nextafter(scale.astype(x.dtype), np.zeros((), x.dtype))  # rounding must not lead beyond `high`
        return (x - origin) * scale + low

    return inside(obs, rescale)


def _rescaled_space(space: spaces.Box, limits: spaces.Box, low: float, high: float, own: bool) -> spaces.Box:
    """Where the elements of `space` are mapped, a little wider where `limits` are not its own."""
    dtype = space.dtype if jnp.issubdtype(space.dtype, jnp.floating) else np.dtype(np.float32)
    if own:
        return spaces.Box(low, high, space.shape, dtype)
    scale = (high - low) / (limits.high - limits.low)
    ends = [(bound.astype(np.float64) - limits.low) * scale + low for bound in (space.low, space.high)]
    ends = [end + sign * 1e-6 * (1 + np.abs(end)) for sign, end in zip((-1, 1), ends, strict=True)]
    largest = float(jnp.finfo(dtype).max)
    return spaces.Box(*(np.where(np.abs(end) > largest, np.copysign(np.inf, end), end) for end in ends), dtype=dtype)
