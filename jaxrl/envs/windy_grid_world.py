"""WindyGridWorld-v0: a wind blows upwards across the way. Sutton & Barto (2018), example 6.5, exercises 6.9 and 6.10.

The move and the wind of the column it starts in add up; the border holds. Each step costs 1 until the goal.
"""

import dataclasses
import functools
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

# row, column: up, down, right, left, then the king's diagonals, then no move
_MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1), (1, 1), (1, -1), (0, 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """All but the numbers `step_reward` and `max_steps_in_episode` are static."""

    rows: int = dataclasses.field(default=7, metadata={"static": True})
    wind: tuple[int, ...] = dataclasses.field(default=(0, 0, 0, 1, 1, 1, 2, 2, 1, 0), metadata={"static": True})
    start: tuple[int, int] = dataclasses.field(default=(3, 0), metadata={"static": True})  # row, column
    goal: tuple[int, int] = dataclasses.field(default=(3, 7), metadata={"static": True})
    moves: int = dataclasses.field(default=4, metadata={"static": True})  # 8 with the diagonals, 9 with staying
    stochastic: bool = dataclasses.field(default=False, metadata={"static": True})  # -1, 0 or 1 more wind
    step_reward: float = -1.0
    max_steps_in_episode: int = 10_000  # ours: a greedy policy may walk in circles

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    position: Array  # int32 [], row * columns + column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """On the start."""
    del key
    return State(jnp.full((), _cell(params.start, params), jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move in the wind."""
    gust = jnp.ones((), jnp.int32)
    if params.stochastic:
        bits = jax.random.bits(key, (), jnp.uint32)
        gust = (bits % np.uint32(3)).astype(jnp.int32)  # the remainder's bias is below 2**-30
    move = (state.position * params.moves + jnp.asarray(action, jnp.int32)) * 3 + gust
    position = jnp.asarray(_arrivals(params).ravel())[move]
    reward = jnp.asarray(params.step_reward, jnp.float32)
    return State(position, state.time), reward, position == _cell(params.goal, params)


def tabular(params: Params) -> TabularMDP:
    """The exact process of the cells."""
    arrivals = _arrivals(params)
    cells = np.arange(len(arrivals))
    goal = cells == _cell(params.goal, params)
    gusts = [0, 1, 2] if params.stochastic else [1]
    P = np.eye(len(cells))[arrivals[:, :, gusts]].mean(2)
    P[goal] = np.eye(len(cells))[goal, None]
    R = np.where(goal[:, None], 0.0, np.full((len(cells), params.moves), float(params.step_reward)))
    return TabularMDP(P, R, goal, (cells == _cell(params.start, params)).astype(float))


def observe(state: State, params: Params) -> Array:
    """int32 []: the position."""
    del params
    return state.position


def observation_space(params: Params) -> spaces.Discrete:
    """The cells, row by row."""
    return spaces.Discrete(params.rows * len(params.wind))


def action_space(params: Params) -> spaces.Discrete:
    """0 up, 1 down, 2 right, 3 left, 4 up right, 5 up left, 6 down right, 7 down left, 8 stay: the first `moves`."""
    return spaces.Discrete(params.moves)


def render(state: State, params: Params) -> str:
    """The grid, the walker's cell on red, and the wind below."""
    lines = [list(line) for line in _letters(params)]
    row, column = divmod(int(state.position), len(params.wind))
    lines[row][column] = f"\x1b[41m{lines[row][column]}\x1b[0m"
    return "\n".join([*map("".join, lines), "".join(map(str, params.wind))])


def frame(state: State, params: Params) -> np.ndarray:
    """The grid seen from above, darker where the wind is stronger."""
    strength = "".join(str(min(abs(wind), 2)) for wind in params.wind)
    letters = ["".join(c if c in "SG" else s for c, s in zip(line, strength)) for line in _letters(params)]
    palette = {"0": raster.WHITE, "1": raster.ICE, "2": raster.CYAN, "S": raster.GREEN, "G": raster.YELLOW}
    return raster.board(letters, palette, divmod(int(state.position), len(params.wind)))


def layout(params: Params) -> Layout:
    """The map, each column with its wind."""
    actions = ("stay" if move == (0, 0) else move for move in _MOVES[: params.moves])
    return on_map(_letters(params), tuple(actions))._replace(axes=("", "wind upwards"), ticks=((), params.wind))


def check(params: Params) -> None:
    """Raises ValueError for a cell outside the grid or a concrete value out of range."""
    checks.at_least("rows", params.rows, 1)
    if len(params.wind) == 0:
        raise ValueError("wind is (); it must be one number for each column, such as (0, 1, 1, 0)")
    for name in ("start", "goal"):
        cell = getattr(params, name)
        shape = params.rows, len(params.wind)
        if len(cell) != 2 or not all(0 <= i < n for i, n in zip(cell, shape, strict=True)):
            raise ValueError(f"{name} is {cell!r}; it must be a (row, column) inside the grid of shape {shape}")
    if params.start == params.goal:
        raise ValueError(f"start and goal are both {params.start!r}; they must be two cells")
    if params.moves not in (4, 8, 9):
        raise ValueError(f"moves is {params.moves!r}; it must be 4, 8 (king's moves) or 9 (and staying)")
    checks.in_range("step_reward", params.step_reward, -float("inf"), float("inf"))


def windy_grid_world() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "WindyGridWorld-v0",
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
        splits_fn=never,  # a reset draws nothing
    )


def _cell(cell: tuple[int, int], params: Params) -> int:
    return cell[0] * len(params.wind) + cell[1]


def _letters(params: Params) -> list[str]:
    letters = np.full((params.rows, len(params.wind)), ".")
    letters[params.start], letters[params.goal] = "S", "G"
    return ["".join(row) for row in letters]


def _arrivals(params: Params) -> np.ndarray:
    return _table(params.rows, params.wind, params.moves)


@functools.cache
def _table(rows: int, wind: tuple[int, ...], moves: int) -> np.ndarray:
    """int32 [S, moves, 3]: the next cell, the wind weaker by one, as it is, stronger by one; none is always none."""
    table = np.zeros((rows * len(wind), moves, 3), np.int32)
    for cell, action, gust in np.ndindex(table.shape):
        row, column = divmod(cell, len(wind))
        lift = wind[column] + (gust - 1) * (wind[column] != 0)
        row = min(max(row + _MOVES[action][0] - lift, 0), rows - 1)
        column = min(max(column + _MOVES[action][1], 0), len(wind) - 1)
        table[cell, action, gust] = row * len(wind) + column
    return table
