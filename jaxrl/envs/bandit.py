"""Bandit-v0: the k-armed testbed. Sutton & Barto (2018), section 2.3.

Arm a pays N(means[a], 1) and ends the episode. The testbed's 2,000 bandits are one vmap: over `testbed`'s keys for the
params, then over these params.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP, never


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Every number may be traced or vmapped; the default means are one example."""

    means: tuple[float, ...] = (0.2, -0.8, 1.5, 0.4, 1.2, -1.5, -0.1, -1.0, 0.8, -0.5)  # an arm each; or an array [A]
    std: float = 1.0
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Nothing but whether an arm was pulled."""

    time: Array  # int32 []


def testbed(key: Array, k: int = 10) -> Params:
    """A bandit whose `k` means are drawn from N(0, 1). Raises ValueError for k below 1."""
    checks.at_least("k", k, 1)
    return Params(means=tuple(jax.random.normal(key, (k,), jnp.float32)))


def reset(key: Array, params: Params) -> State:
    """No arm pulled."""
    del key, params
    return State(time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """The arm's reward, and the end."""
    pulled = np.arange(len(params.means)) == jnp.asarray(action)
    mean = jnp.sum(jnp.where(pulled, jnp.asarray(params.means), 0.0))
    reward = mean + params.std * jax.random.normal(key, (), jnp.float32)
    return state, reward.astype(jnp.float32), jnp.ones((), bool)


def tabular(params: Params) -> TabularMDP:
    """The exact process: 0 before, 1 after the pull."""
    P = np.zeros((2, len(params.means), 2))
    P[:, :, 1] = 1
    R = np.stack([np.asarray(params.means, float), np.zeros(len(params.means))])
    return TabularMDP(P, R, np.array([False, True]), np.array([1.0, 0.0]))


def observe(state: State, params: Params) -> Array:
    """int32 []: 0 before, 1 after the pull."""
    del params
    return jnp.minimum(state.time, 1)


def observation_space(params: Params) -> spaces.Discrete:
    """Before and after the pull."""
    del params
    return spaces.Discrete(2)


def action_space(params: Params) -> spaces.Discrete:
    """The arms."""
    return spaces.Discrete(len(params.means))


def render(state: State, params: Params) -> str:
    """The arms' means."""
    del state
    return "  ".join(f"{arm}: {float(mean):+.2f}" for arm, mean in enumerate(params.means))


def frame(state: State, params: Params) -> np.ndarray:
    """A column an arm: one standard deviation around its mean."""
    del state
    means, std = np.asarray(params.means, float), float(params.std)
    low, high = min(float(means.min()) - 2 * std, -0.1), max(float(means.max()) + 2 * std, 0.1)
    canvas = raster.Canvas(32 * len(means), 160, (0, len(means)), (low, high))
    line = (high - low) / 160
    for arm, mean in enumerate(means):
        canvas.rectangle((arm + 0.2, mean - std), (arm + 0.8, mean + std), raster.ICE)
        canvas.rectangle((arm + 0.2, mean - line), (arm + 0.8, mean + line), raster.BLUE)
    canvas.rectangle((0, -line / 2), (len(means), line / 2), raster.GREY)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    if len(params.means) == 0:
        raise ValueError("means is (); it must be one number for each arm, such as (0.2, -0.8)")
    for mean in params.means:
        checks.in_range("means", mean, -float("inf"), float("inf"))
    checks.in_range("std", params.std, 0, float("inf"))


def bandit() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Bandit-v0",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        tabular_fn=tabular,
        check_fn=check,
        splits_fn=never,  # a reset draws nothing
    )
