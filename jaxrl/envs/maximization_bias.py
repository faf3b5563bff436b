"""MaximizationBias-v0: noise that looks like a reward. Sutton & Barto (2018), example 6.7, figure 6.5.

In A, right ends with 0 and left goes to B with 0; in B each of `num_arms` actions ends with N(-0.1, 1). A has two
actions, so observations are `Masked`: what is not allowed in A is taken as right, the nearest that is.
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
from jaxrl.types import Masked

A, B, END = range(3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`num_arms` is static; the numbers may be traced or vmapped."""

    num_arms: int = dataclasses.field(default=10, metadata={"static": True})  # the book says "many"
    mean: float = -0.1  # of the reward of leaving B
    std: float = 1.0
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where one is."""

    place: Array  # int32 []: 0 A, 1 B, 2 ended
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """A."""
    del key, params
    return State(jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """From A to B or the end, from B to the end."""
    place = jnp.where((state.place == A) & (jnp.asarray(action) == 0), B, END).astype(jnp.int32)
    drawn = params.mean + params.std * jax.random.normal(key, (), jnp.float32)
    reward = jnp.where(state.place == B, drawn, 0.0)
    return State(place, state.time), reward.astype(jnp.float32), place == END


def tabular(params: Params) -> TabularMDP:
    """The exact process of A, B and the end; in A every action but left is right."""
    P, R = np.zeros((3, params.num_arms, 3)), np.zeros((3, params.num_arms))
    P[:, :, END] = 1
    P[A, 0] = [0, 1, 0]
    R[B] = params.mean
    return TabularMDP(P, R, np.array([False, False, True]), np.array([1.0, 0.0, 0.0]))


def observe(state: State, params: Params) -> Masked:
    """The place, int32 [], and which actions it allows, bool [num_arms]."""
    return Masked(state.place, (state.place != A) | (np.arange(params.num_arms) < 2))


def observation_space(params: Params) -> spaces.Discrete:
    """A, B and the end: of the observation inside the mask."""
    del params
    return spaces.Discrete(3)


def action_space(params: Params) -> spaces.Discrete:
    """In A 0 left, 1 right; in B the arms."""
    return spaces.Discrete(params.num_arms)


def render(state: State, params: Params) -> str:
    """The three places, the present one on red."""
    del params
    names = ["A", "B", "end"]
    names[int(state.place)] = f"\x1b[41m{names[int(state.place)]}\x1b[0m"
    return f"{names[B]} <- {names[A]} -> {names[END]}"


def frame(state: State, params: Params) -> np.ndarray:
    """B on the left, A in the middle, the end on the right."""
    del params
    palette = {"A": raster.WHITE, "B": raster.ICE, "E": raster.GREY}
    return raster.board(["BAE"], palette, (0, "BAE".index("ABE"[int(state.place)])))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("num_arms", params.num_arms, 2)
    checks.in_range("mean", params.mean, -float("inf"), float("inf"))
    checks.in_range("std", params.std, 0, float("inf"))


def maximization_bias() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "MaximizationBias-v0",
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
