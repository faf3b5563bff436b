"""FrozenLake-v1: cross a slippery lake without falling into a hole, as gymnasium's `toy_text/frozen_lake.py`.

The map's letters are S start, F frozen, H hole, G goal; several starts are drawn uniformly, as there.
"""

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import PureEnvironment, TabularMDP
from jaxrl.envs.layout import Layout, on_map

MAPS = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}
_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # row, column: left, down, right, up
_FROZEN, _GOAL, _HOLE, _ENDED = range(4)  # what a move arrives at; _ENDED: it started on a goal or hole, and stays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`desc` and `is_slippery` are static; the numbers may be traced or vmapped."""

    desc: tuple[str, ...] = dataclasses.field(default=MAPS["4x4"], metadata={"static": True})
    is_slippery: bool = dataclasses.field(default=True, metadata={"static": True})
    success_rate: float = 1.0 / 3.0  # of going where one wants; the two perpendicular directions share the rest
    reward_schedule: tuple[float, float, float] = (1.0, 0.0, 0.0)  # for arriving at goal, hole, frozen
    max_steps_in_episode: int = 100

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    position: Array  # int32 [], row * columns + column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """On a start."""
    starts = _starts(params.desc)
    drawn = starts[0] if len(starts) == 1 else jnp.asarray(starts)[jax.random.randint(key, (), 0, len(starts))]
    return State(jnp.asarray(drawn, jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move, which slips to a perpendicular direction where the lake is slippery; a border holds."""
    direction = jnp.asarray(action, jnp.int32)
    if params.is_slippery:
        slip = (1.0 - params.success_rate) / 2.0
        u = jax.random.uniform(key, (), jnp.float32)
        direction = direction - 1 + (u >= slip) + (u >= slip + params.success_rate)
    arrival = jnp.asarray(_arrivals(params.desc).ravel())[state.position * 4 + (direction & 3)]
    kind = arrival & 3
    goal, hole, frozen = params.reward_schedule
    end = jnp.where(kind == _GOAL, goal, jnp.where(kind == _HOLE, hole, 0.0))
    reward = jnp.where(kind == _FROZEN, frozen, end)  # nested, for jnp.select takes an argmax, which is slow
    return State(arrival >> 2, state.time), reward.astype(jnp.float32), kind != _FROZEN


def tabular(params: Params) -> TabularMDP:
    """The exact process; equal outcomes are added up in gymnasium's order, so that its P is met bit for bit."""
    goal, hole, frozen = params.reward_schedule
    rewards = {_FROZEN: frozen, _GOAL: goal, _HOLE: hole, _ENDED: 0.0}
    arrivals = _arrivals(params.desc)
    slip = (1.0 - params.success_rate) / 2.0
    P = np.zeros((len(arrivals), 4, len(arrivals)))
    R = np.zeros((len(arrivals), 4))
    for state in range(len(arrivals)):
        for action in range(4):
            certain = not params.is_slippery or arrivals[state, action] % 4 == _ENDED
            outcomes = [(1.0, 0)] if certain else [(slip, -1), (params.success_rate, 0), (slip, 1)]
            for chance, turn in outcomes:
                next_state, kind = divmod(int(arrivals[state, (action + turn) % 4]), 4)
                P[state, action, next_state] += chance
                R[state, action] += chance * rewards[kind]
    letters = np.array(list("".join(params.desc)))
    starts = letters == "S"
    return TabularMDP(P, R, np.isin(letters, ["G", "H"]), starts / starts.sum())


def observe(state: State, params: Params) -> Array:
    """int32 []: the position."""
    del params
    return state.position


def observation_space(params: Params) -> spaces.Discrete:
    """The cells, row by row."""
    return spaces.Discrete(len(params.desc) * len(params.desc[0]))


def action_space(params: Params) -> spaces.Discrete:
    """0 left, 1 down, 2 right, 3 up."""
    del params
    return spaces.Discrete(4)


def render(state: State, params: Params) -> str:
    """The map, the walker's cell on red."""
    row, column = divmod(int(state.position), len(params.desc[0]))
    lines = list(params.desc)
    line = lines[row]
    lines[row] = f"{line[:column]}\x1b[41m{line[column]}\x1b[0m{line[column + 1 :]}"
    return "\n".join(lines)


def frame(state: State, params: Params) -> np.ndarray:
    """The map seen from above."""
    palette = {"S": raster.GREEN, "F": raster.ICE, "H": raster.BLUE, "G": raster.YELLOW}
    return raster.board(params.desc, palette, divmod(int(state.position), len(params.desc[0])))


def layout(params: Params) -> Layout:
    """The map."""
    return on_map([row.replace("F", ".") for row in params.desc], _MOVES)


def check(params: Params) -> None:
    """Raises ValueError for a bad map or a concrete value out of range."""
    desc = params.desc
    if not desc or not all(isinstance(row, str) for row in desc) or not desc[0] or len(set(map(len, desc))) != 1:
        raise ValueError(f"desc is {desc!r}; it must be rows of one length, such as ['SFF', 'FHG']")
    letters = set("".join(desc))
    if letters - set("SFHG"):
        raise ValueError(
            f"desc has the letter {min(letters - set('SFHG'))!r}; allowed: S start, F frozen, H hole, G goal"
        )
    for letter, what in (("S", "start"), ("G", "goal")):
        if letter not in letters:
            raise ValueError(
                f"desc is {list(desc)} without a {letter}; it must have at least one {what}: put a {letter}"
            )
    checks.in_range("success_rate", params.success_rate, 0, 1)
    if len(params.reward_schedule) != 3:
        raise ValueError(
            f"reward_schedule is {params.reward_schedule!r}; it must be three numbers: for goal, hole, frozen"
        )
    for reward in params.reward_schedule:
        checks.in_range("reward_schedule", reward, -float("inf"), float("inf"))
    if not _solvable(desc):
        warnings.warn(f"desc is {list(desc)}: from some S no path around the holes leads to a G", stacklevel=2)


def generate_random_map(key: Array, size: int = 8, p: float = 0.8) -> tuple[str, ...]:
    """A solvable map of `size` x `size` from corner to corner, on the host; every other cell is frozen with chance `p`.

    Redrawn until there is a path, as gymnasium's. Raises ValueError where 10,000 draws have none.
    """
    checks.at_least("size", size, 2)
    checks.in_range("p", p, 0, 1, open_low=True)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    for _ in range(10_000):
        letters = np.where(generator.random((size, size)) < p, "F", "H")
        letters[0, 0], letters[-1, -1] = "S", "G"
        desc = tuple("".join(row) for row in letters)
        if _solvable(desc):
            return desc
    raise ValueError(f"10,000 maps of size {size} with p={p} have no path from S to G; raise p")


def frozen_lake(map_name: str = "4x4") -> PureEnvironment:
    """The environment on a named map, which a `desc` given to `make` replaces; 100 steps, as in gymnasium."""
    checks.one_of("map_name", map_name, MAPS)
    return PureEnvironment(
        "FrozenLake-v1",
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
        splits_fn=_splits,
    )


def frozen_lake_8x8() -> PureEnvironment:
    """FrozenLake8x8-v1: the larger map and 200 steps."""
    params = Params(MAPS["8x8"], max_steps_in_episode=200)
    return dataclasses.replace(frozen_lake(), name="FrozenLake8x8-v1", default_params=params)


def _splits(params: Params) -> bool:
    return params.is_slippery and len(_starts(params.desc)) > 1


@functools.cache
def _starts(desc: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(i for i, letter in enumerate("".join(desc)) if letter == "S")


def _solvable(desc: tuple[str, ...]) -> bool:
    """Whether a path around the holes leads from every start to a goal."""
    letters = np.array([list(row) for row in desc])
    reaches, grown = np.zeros(letters.shape, bool), letters == "G"
    while (grown != reaches).any():
        reaches = grown.copy()
        grown[1:] |= reaches[:-1]
        grown[:-1] |= reaches[1:]
        grown[:, 1:] |= reaches[:, :-1]
        grown[:, :-1] |= reaches[:, 1:]
        grown &= letters != "H"
    return bool(reaches[letters == "S"].all())


@functools.cache
def _arrivals(desc: tuple[str, ...]) -> np.ndarray:
    """int32 [S, 4]: for each cell and direction 4 * next cell + what is there: a step looks up one number."""
    rows, columns = len(desc), len(desc[0])
    table = np.zeros((rows * columns, 4), np.int32)
    kinds: dict[Any, int] = {"S": _FROZEN, "F": _FROZEN, "G": _GOAL, "H": _HOLE}
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        for direction, (down, right) in enumerate(_MOVES):
            r, c = min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)
            stays = desc[row][column] in "GH"
            table[cell, direction] = cell * 4 + _ENDED if stays else (r * columns + c) * 4 + kinds[desc[r][c]]
    return table
