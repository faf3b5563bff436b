"""DynaMaze-v0: a maze for planning. Sutton & Barto (2018), example 8.1 (figure 8.2); the changing mazes of 8.2 and 8.3.

The map's letters are S start, G goal, W wall, . free. The book's changing mazes are pairs of maps of one shape: a
state of "blocking" or "shortcut" goes on in "blocking-later" or "shortcut-later", whose `step` takes it as it is.
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


def _changing(wall: str) -> tuple[str, ...]:
    return ("........G", ".........", ".........", wall, ".........", "...S.....")


MAPS = {
    "dyna": (
        ".......WG",
        "..W....W.",
        "S.W....W.",
        "..W......",
        ".....W...",
        ".........",
    ),
    "blocking": _changing("WWWWWWWW."),  # figure 8.4
    "blocking-later": _changing(".WWWWWWWW"),
    "shortcut": _changing(".WWWWWWWW"),  # figure 8.5
    "shortcut-later": _changing(".WWWWWWW."),
}
_MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1))  # row, column: up, down, right, left


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`desc` is static; the numbers may be traced or vmapped."""

    desc: tuple[str, ...] = dataclasses.field(default=MAPS["dyna"], metadata={"static": True})
    goal_reward: float = 1.0
    max_steps_in_episode: int = 10_000  # ours: a greedy policy may walk in circles

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    position: Array  # int32 [], row * columns + column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """On the start."""
    del key
    return State(jnp.full((), "".join(params.desc).index("S"), jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One cell; a wall and the border hold. Arriving at the goal pays and ends."""
    del key
    position = jnp.asarray(_arrivals(params.desc).ravel())[state.position * 4 + jnp.asarray(action, jnp.int32)]
    arrived = position == "".join(params.desc).index("G")
    return State(position, state.time), jnp.where(arrived, params.goal_reward, 0.0).astype(jnp.float32), arrived


def tabular(params: Params) -> TabularMDP:
    """The exact process of the cells; a wall is one that nothing enters and that nothing leaves."""
    arrivals, letters = _arrivals(params.desc), np.array(list("".join(params.desc)))
    cells = np.eye(len(letters))
    goal = letters == "G"
    stays = goal | (letters == "W")
    P = np.where(stays[:, None, None], cells[:, None], cells[arrivals])
    return TabularMDP(
        P, np.where(goal[arrivals] & ~stays[:, None], params.goal_reward, 0.0), goal, 1.0 * (letters == "S")
    )


def observe(state: State, params: Params) -> Array:
    """int32 []: the position."""
    del params
    return state.position


def observation_space(params: Params) -> spaces.Discrete:
    """The cells, row by row, walls among them."""
    return spaces.Discrete(len(params.desc) * len(params.desc[0]))


def action_space(params: Params) -> spaces.Discrete:
    """0 up, 1 down, 2 right, 3 left."""
    del params
    return spaces.Discrete(4)


def render(state: State, params: Params) -> str:
    """The map, the walker's cell on red."""
    lines = [list(line) for line in params.desc]
    row, column = divmod(int(state.position), len(params.desc[0]))
    lines[row][column] = f"\x1b[41m{lines[row][column]}\x1b[0m"
    return "\n".join(map("".join, lines))


def frame(state: State, params: Params) -> np.ndarray:
    """The map seen from above."""
    palette = {"S": raster.GREEN, "G": raster.YELLOW, "W": raster.GREY, ".": raster.WHITE}
    return raster.board(params.desc, palette, divmod(int(state.position), len(params.desc[0])))


def layout(params: Params) -> Layout:
    """The map."""
    return on_map(params.desc, _MOVES)


def check(params: Params) -> None:
    """Raises ValueError for a bad map or a concrete value out of range."""
    desc = params.desc
    if not desc or not all(isinstance(row, str) for row in desc) or not desc[0] or len(set(map(len, desc))) != 1:
        raise ValueError(f"desc is {desc!r}; it must be rows of one length, such as ['S.W', '..G']")
    letters = "".join(desc)
    if set(letters) - set("SGW."):
        raise ValueError(
            f"desc has the letter {min(set(letters) - set('SGW.'))!r}; allowed: S start, G goal, W wall, ."
        )
    for letter, what in (("S", "start"), ("G", "goal")):
        if letters.count(letter) != 1:
            raise ValueError(f"desc is {list(desc)} with {letters.count(letter)} {letter}; it must have one {what}")
    checks.in_range("goal_reward", params.goal_reward, -float("inf"), float("inf"))


def dyna_maze(map_name: str = "dyna") -> PureEnvironment:
    """The environment on a named map, which a `desc` given to `make` replaces."""
    checks.one_of("map_name", map_name, MAPS)
    return PureEnvironment(
        "DynaMaze-v0",
        Params(MAPS[map_name]),
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


@functools.cache
def _arrivals(desc: tuple[str, ...]) -> np.ndarray:
    """int32 [S, 4]: the next cell."""
    rows, columns = len(desc), len(desc[0])
    table = np.zeros((rows * columns, 4), np.int32)
    for cell, action in np.ndindex(table.shape):
        row, column = cell // columns + _MOVES[action][0], cell % columns + _MOVES[action][1]
        free = 0 <= row < rows and 0 <= column < columns and desc[row][column] != "W"
        table[cell, action] = row * columns + column if free else cell
    return table
