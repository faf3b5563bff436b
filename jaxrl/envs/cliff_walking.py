"""CliffWalking-v1: walk along a cliff, as gymnasium's `toy_text/cliffwalking.py`. Sutton and Barto (2018), example 6.6.

Four rows of twelve cells: the start is the lower left corner, the goal the lower right one, the cliff lies between.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP, never
from jaxrl.envs.layout import Layout, on_map

_ROWS, _COLUMNS = 4, 12
_START, _GOAL = 36, 47
_MAP = ("oooooooooooo",) * 3 + ("oCCCCCCCCCCT",)  # gymnasium's letters


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`is_slippery` is static."""

    is_slippery: bool = dataclasses.field(default=False, metadata={"static": True})  # a third to each side
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    position: Array  # int32 [], row * 12 + column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """On the start."""
    del key, params
    return State(jnp.asarray(_START, jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move, -1; a border holds, and a step into the cliff costs 100 and leads back to the start."""
    direction = jnp.asarray(action, jnp.int32)
    if params.is_slippery:
        u = jax.random.uniform(key, (), jnp.float32)
        direction = (direction - 1 + (u >= 1 / 3) + (u >= 2 / 3)) % 4
    position, reward = _move(state.position, direction)
    return State(position, state.time), reward, position == _GOAL


def _move(position: Array, direction: Array) -> tuple[Array, Array]:
    """(position after one move, reward float32), for arrays of one shape."""
    row, column = position // _COLUMNS, position % _COLUMNS
    row = jnp.clip(row + (direction == 2) - (direction == 0), 0, _ROWS - 1)
    column = jnp.clip(column + (direction == 1) - (direction == 3), 0, _COLUMNS - 1)
    falls = (row == _ROWS - 1) & (column > 0) & (column < _COLUMNS - 1)
    after = jnp.where(falls, _START, row * _COLUMNS + column)
    return after, jnp.where(falls, -100.0, -1.0).astype(jnp.float32)


def tabular(params: Params) -> TabularMDP:
    """The exact process. The goal is absorbing; every other row is gymnasium's, those inside the cliff too."""
    cells = np.arange(_ROWS * _COLUMNS)
    P, R = np.zeros((len(cells), 4, len(cells))), np.zeros((len(cells), 4))
    turns = (-1, 0, 1) if params.is_slippery else (0,)
    for action in range(4):
        for turn in turns:
            after, reward = map(np.asarray, _move(jnp.asarray(cells), jnp.full(cells.shape, (action + turn) % 4)))
            P[cells, action, after] += 1 / len(turns)
            R[:, action] += reward.astype(float) * (1 / len(turns))
    P[_GOAL], R[_GOAL] = cells == _GOAL, 0
    return TabularMDP(P, R, cells == _GOAL, (cells == _START).astype(float))


def observe(state: State, params: Params) -> Array:
    """int32 []: the position."""
    del params
    return state.position


def observation_space(params: Params) -> spaces.Discrete:
    """The cells, row by row."""
    del params
    return spaces.Discrete(_ROWS * _COLUMNS)


def action_space(params: Params) -> spaces.Discrete:
    """0 up, 1 right, 2 down, 3 left."""
    del params
    return spaces.Discrete(4)


def render(state: State, params: Params) -> str:
    """The map, with x where the walker is."""
    del params
    letters = list("".join(_MAP))
    letters[int(state.position)] = "x"
    return "\n".join("  ".join(letters[i : i + _COLUMNS]) for i in range(0, len(letters), _COLUMNS))


def frame(state: State, params: Params) -> np.ndarray:
    """The map seen from above."""
    del params
    palette = {"o": raster.LIGHT, "C": raster.BROWN, "T": raster.GREEN}
    return raster.board(_MAP, palette, divmod(int(state.position), _COLUMNS))


def layout(params: Params) -> Layout:
    """The map."""
    del params
    rows = [*_MAP[:-1], "S" + _MAP[-1][1:]]
    return on_map(rows, ((-1, 0), (0, 1), (1, 0), (0, -1)), {"o": "", "S": "start", "C": "hole", "T": "goal"})


def cliff_walking() -> PureEnvironment:
    """The environment; every setting is a field of `Params`. Without a step limit, as in gymnasium."""
    return PureEnvironment(
        "CliffWalking-v1",
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
        splits_fn=never,  # the start is one cell
    )


def cliff_walking_slippery() -> PureEnvironment:
    """CliffWalkingSlippery-v1: two moves in three go to a side."""
    params = Params(is_slippery=True)
    return dataclasses.replace(cliff_walking(), name="CliffWalkingSlippery-v1", default_params=params)
