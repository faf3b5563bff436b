"""GridWorld-v0: 5 x 5 cells, two of which throw the walker elsewhere. Sutton & Barto (2018), example 3.5.

Every action in A leads to A' and pays 10, in B to B' and pays 5; a move off the grid stays and costs 1. The task never
ends and has no start: an episode begins anywhere, and only the step limit cuts it.
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

_MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1))  # row, column: up, down, right, left


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`shape` and the cells (row, column) are static; the numbers may be traced or vmapped."""

    shape: tuple[int, int] = dataclasses.field(default=(5, 5), metadata={"static": True})  # rows, columns
    a: tuple[int, int] = dataclasses.field(default=(0, 1), metadata={"static": True})
    a_prime: tuple[int, int] = dataclasses.field(default=(4, 1), metadata={"static": True})
    b: tuple[int, int] = dataclasses.field(default=(0, 3), metadata={"static": True})
    b_prime: tuple[int, int] = dataclasses.field(default=(2, 3), metadata={"static": True})
    reward_a: float = 10.0
    reward_b: float = 5.0
    reward_off_grid: float = -1.0
    max_steps_in_episode: int = 100  # ours: the book's task is one endless episode

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    position: Array  # int32 [], row * columns + column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """On any cell."""
    cells = params.shape[0] * params.shape[1]
    position = jax.random.bits(key, (), jnp.uint32) % np.uint32(cells)  # the remainder's bias is cells / 2**32
    return State(position.astype(jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move; nothing ends."""
    del key
    arrival = jnp.asarray(_arrivals(params).ravel())[state.position * 4 + jnp.asarray(action, jnp.int32)]
    kind = arrival % 4
    pays = [params.reward_off_grid, params.reward_a, params.reward_b]
    reward = jnp.select([kind == 1, kind == 2, kind == 3], pays, 0.0)
    return State(arrival // 4, state.time), reward.astype(jnp.float32), jnp.zeros((), bool)


def tabular(params: Params) -> TabularMDP:
    """The exact process of the cells."""
    arrivals, kinds = np.divmod(_arrivals(params), 4)
    rewards = np.array([0.0, params.reward_off_grid, params.reward_a, params.reward_b])
    cells = len(arrivals)
    return TabularMDP(np.eye(cells)[arrivals], rewards[kinds], np.zeros(cells, bool), np.full(cells, 1 / cells))


def observe(state: State, params: Params) -> Array:
    """int32 []: the position."""
    del params
    return state.position


def observation_space(params: Params) -> spaces.Discrete:
    """The cells, row by row."""
    return spaces.Discrete(params.shape[0] * params.shape[1])


def action_space(params: Params) -> spaces.Discrete:
    """0 up, 1 down, 2 right, 3 left."""
    del params
    return spaces.Discrete(4)


def render(state: State, params: Params) -> str:
    """The grid, `a` and `b` for A' and B', the walker's cell on red."""
    lines = [list(line) for line in _letters(params)]
    row, column = divmod(int(state.position), params.shape[1])
    lines[row][column] = f"\x1b[41m{lines[row][column]}\x1b[0m"
    return "\n".join(map("".join, lines))


def frame(state: State, params: Params) -> np.ndarray:
    """The grid seen from above, A in green and B in blue."""
    palette = {".": raster.WHITE, "A": raster.GREEN, "a": raster.ICE, "B": raster.BLUE, "b": raster.ICE}
    return raster.board(_letters(params), palette, divmod(int(state.position), params.shape[1]))


def layout(params: Params) -> Layout:
    """The map."""
    return on_map(_letters(params), _MOVES, {".": "", "a": "A'", "b": "B'"})


def check(params: Params) -> None:
    """Raises ValueError for a cell outside the grid, A on B, or a concrete value out of range."""
    if len(params.shape) != 2 or min(params.shape) < 1:
        raise ValueError(f"shape is {params.shape!r}; it must be two numbers of at least 1: rows, columns")
    for name in ("a", "a_prime", "b", "b_prime"):
        cell = getattr(params, name)
        if len(cell) != 2 or not all(0 <= i < n for i, n in zip(cell, params.shape, strict=True)):
            raise ValueError(f"{name} is {cell!r}; it must be a (row, column) inside the grid of shape {params.shape}")
    if params.a == params.b:
        raise ValueError(f"a and b are both {params.a!r}; they must be two cells")
    for name in ("reward_a", "reward_b", "reward_off_grid"):
        checks.in_range(name, getattr(params, name), -float("inf"), float("inf"))


def grid_world() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "GridWorld-v0",
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
        splits_fn=never,  # only a reset draws
    )


def _letters(params: Params) -> list[str]:
    letters = np.full(params.shape, ".")
    for letter, cell in (("b", params.b_prime), ("a", params.a_prime), ("B", params.b), ("A", params.a)):
        letters[cell] = letter
    return ["".join(row) for row in letters]


def _arrivals(params: Params) -> np.ndarray:
    return _table(params.shape, ((params.a, params.a_prime, 2), (params.b, params.b_prime, 3)))


@functools.cache
def _table(shape: tuple[int, int], jumps: tuple[tuple[tuple[int, int], tuple[int, int], int], ...]) -> np.ndarray:
    """int32 [S, 4]: 4 * next cell + what the move was: 0 plain, 1 off the grid, 2 from A, 3 from B."""
    table = np.zeros((shape[0] * shape[1], 4), np.int32)
    for cell, action in np.ndindex(table.shape):
        start = divmod(cell, shape[1])
        wanted = (start[0] + _MOVES[action][0], start[1] + _MOVES[action][1])
        inside = 0 <= wanted[0] < shape[0] and 0 <= wanted[1] < shape[1]
        (row, column), kind = (wanted, 0) if inside else (start, 1)
        for at, to, jump in jumps:
            if start == at:
                (row, column), kind = to, jump
        table[cell, action] = (row * shape[1] + column) * 4 + kind
    return table
