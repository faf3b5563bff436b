"""Corridor: a row of cells, walked left and right. Its values are known exactly, which tests learners.

With `terminal=True` the last cell pays 1 and ends the episode, so V*(cell) = gamma^(length - 2 - cell). With
`terminal=False` every step pays 1 and only the time limit ends the episode: a learner that
bootstraps at truncation, as it must, learns V = 1 / (1 - gamma) everywhere.
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
from jaxrl.envs.api import PureEnvironment, TabularMDP, never
from jaxrl.envs.layout import Layout, on_map


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`length`, `terminal` and `one_hot` are static: they fix shapes and the program."""

    length: int = dataclasses.field(default=10, metadata={"static": True})  # cells
    terminal: bool = dataclasses.field(default=True, metadata={"static": True})
    one_hot: bool = dataclasses.field(default=False, metadata={"static": True})  # observations for networks
    max_steps_in_episode: int = 100

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    cell: Array  # int32 [], 0..length-1
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """The leftmost cell."""
    del key, params
    return State(jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One cell to the left or right; a wall holds."""
    del key
    move = jnp.where(jnp.asarray(action) == 1, 1, -1)
    cell = jnp.clip(state.cell + move, 0, params.length - 1).astype(jnp.int32)
    if not params.terminal:
        return State(cell, state.time), jnp.ones((), jnp.float32), jnp.zeros((), bool)
    arrived = cell == params.length - 1
    return State(cell, state.time), (arrived & (state.cell != cell)).astype(jnp.float32), arrived


def tabular(params: Params) -> TabularMDP:
    """The exact process of the cells."""
    cells = np.arange(params.length)
    P, R = np.zeros((params.length, 2, params.length)), np.zeros((params.length, 2))
    P[cells, 0, np.maximum(cells - 1, 0)] = P[cells, 1, np.minimum(cells + 1, params.length - 1)] = 1
    terminal = (cells == params.length - 1) & params.terminal
    R[:] = 0 if params.terminal else 1
    R[-2, 1] = 1
    P[terminal] = np.eye(params.length)[terminal, None]
    return TabularMDP(P, R, terminal, (cells == 0).astype(float))


def observe(state: State, params: Params) -> Array:
    """int32 []: the cell; float32 [length]: one-hot."""
    return jax.nn.one_hot(state.cell, params.length, dtype=jnp.float32) if params.one_hot else state.cell


def observation_space(params: Params) -> spaces.Space:
    """The cells."""
    return spaces.Box(0.0, 1.0, (params.length,)) if params.one_hot else spaces.Discrete(params.length)


def action_space(params: Params) -> spaces.Discrete:
    """0 left, 1 right."""
    del params
    return spaces.Discrete(2)


def render(state: State, params: Params) -> str:
    """One line, the walker's cell highlighted."""
    row = ["."] * params.length
    row[-1] = "G" if params.terminal else "."
    row[int(state.cell)] = f"\x1b[41m{row[int(state.cell)]}\x1b[0m"
    return "".join(row)


def frame(state: State, params: Params) -> np.ndarray:
    """One row of cells."""
    cells = "." * (params.length - 1) + ("G" if params.terminal else ".")
    return raster.board([cells], {".": raster.WHITE, "G": raster.YELLOW}, (0, int(state.cell)))


def layout(params: Params) -> Layout:
    """The row of cells."""
    return on_map(["S" + "." * (params.length - 2) + ("G" if params.terminal else ".")], ((0, -1), (0, 1)))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("length", params.length, 2)


def corridor() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Corridor-v0",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        tabular_fn=tabular,
        layout_fn=layout,
        check_fn=check,
        splits_fn=never,  # nothing is random
    )
