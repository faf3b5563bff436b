"""A wrapper that shows an agent what it did last and what that was worth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl import spaces
from jaxrl.envs.wrappers.base import Wrapped, as_float, bind, inside, require_box
from jaxrl.types import PyTree


class Previous(NamedTuple):
    """What `previous_step` remembers."""

    action: Array  # int32 [], -1 at an episode's start
    reward: Array  # float32 [], 0 at an episode's start


def previous_step(env: Any) -> Wrapped:
    """Appends the last action, one-hot, and the last reward to a vector; zeros where an episode starts.

    R2D2's network sees them (Kapturowski et al. 2019, section 2.3). The reward is that of the environment inside, in
    what numbers the vector has; integers become float32. Raises ValueError for a space that is no Box of one dimension
    and for actions that are not Discrete.
    """
    space, actions = require_box("previous_step", env, "observation"), env.action_space()
    if len(space.shape) != 1:
        raise ValueError(f"previous_step appends to a vector, but {env.name} has {space}; flatten it first")
    if not hasattr(actions, "n"):
        raise ValueError(f"previous_step needs Discrete actions, but {env.name} has {actions}")
    low = np.concatenate([space.low, np.zeros(actions.n), [-np.inf]])
    high = np.concatenate([space.high, np.ones(actions.n), [np.inf]])
    dtype = space.dtype if jnp.issubdtype(space.dtype, jnp.floating) else np.float32
    return Wrapped(
        env,
        previous_step,
        observe_fn=bind(_append, int(actions.n)),
        start_fn=_nothing,
        advance_fn=_remember,
        observations=spaces.Box(low, high, dtype=dtype),
    )


def _append(actions: int, obs: PyTree, memory: Previous, params: Any) -> PyTree:
    del params

    def append(x: Array) -> Array:
        x = as_float(x)
        chosen = jax.nn.one_hot(memory.action, actions, dtype=x.dtype)
        return jnp.concatenate([x, chosen, memory.reward.astype(x.dtype)[None]])

    return inside(obs, append)


def _nothing(obs: PyTree) -> Previous:
    del obs
    return Previous(jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.float32))


def _remember(memory: Previous, action: Any, obs: PyTree, reward: Array, ended: Array) -> Previous:
    del memory, obs, ended
    return Previous(jnp.asarray(action, jnp.int32), jnp.asarray(reward, jnp.float32))
