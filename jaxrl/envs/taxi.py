"""Taxi-v4: fetch a passenger and drop them where they want to go, as gymnasium 1.3's `toy_text/taxi.py`.

Dietterich (2000), JAIR 13, 227-303. The observation is the index of (taxi, passenger, destination) and a mask of the
actions that change something.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import PureEnvironment, TabularMDP
from jaxrl.envs.layout import Layout
from jaxrl.types import Masked

_MAP = ("+---------+", "|R: | : :G|", "| : | : : |", "| : : : : |", "| | : | : |", "|Y| : |B: |", "+---------+")
_CELLS = (0, 4, 20, 23)  # of the places R, G, Y, B; a cell is row * 5 + column
_TAXI = 4  # the place of a passenger who rides


def _open(direction: int) -> int:
    """The cells that can be left in a direction, as a bit mask."""
    walls = [_MAP[1 + row][2 * column : 2 * column + 3] for row in range(5) for column in range(5)]  # west, cell, east
    free = (
        [cell < 20 for cell in range(25)],
        [cell > 4 for cell in range(25)],
        [wall[2] == ":" for wall in walls],
        [wall[0] == ":" for wall in walls],
    )[direction]
    return sum(1 << cell for cell in range(25) if free[cell])


_OPEN = tuple(map(_open, range(4)))
_PLACES = sum(1 << cell for cell in _CELLS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """The booleans are static; the numbers may be traced or vmapped."""

    is_rainy: bool = dataclasses.field(default=False, metadata={"static": True})
    fickle_passenger: bool = dataclasses.field(default=False, metadata={"static": True})
    action_mask: bool = dataclasses.field(default=True, metadata={"static": True})  # False: observe the index alone
    rainy_probability: float = 0.8  # of going where one wants in the rain; the two sides share the rest
    fickle_probability: float = 0.3  # of another destination after the first move of the ride
    max_steps_in_episode: int = 200

    replace = dataclasses.replace


class State(NamedTuple):
    """Where everybody is."""

    cell: Array  # int32 [], row * 5 + column of the taxi
    passenger: Array  # int32 [], 0..3 the places R, G, Y, B, 4 in the taxi
    destination: Array  # int32 [], 0..3
    fickle: Array  # bool []: the destination changes with the next move of the ride
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """Uniform over the 300 states in which the passenger waits elsewhere than at the destination."""
    word = jax.random.bits(key, (), jnp.uint32)  # its remainder tells nothing of its size
    index = (word % 300).astype(jnp.int32)
    passenger = index // 3 % 4
    fickle = jnp.zeros((), bool)
    if params.fickle_passenger:
        fickle = (word >> 8).astype(jnp.float32) * 2.0**-24 < params.fickle_probability
    time = jnp.zeros((), jnp.int32)
    return State(index // 12, passenger, (passenger + 1 + index % 3) % 4, fickle, time)


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move, pickup or drop-off: -1, 20 for the passenger delivered, -10 for picking up or dropping amiss."""
    action = direction = jnp.asarray(action, jnp.int32)
    u = jax.random.uniform(key, (2,), jnp.float32) if _splits(params) else jnp.zeros(2, jnp.float32)
    if params.is_rainy:
        side = (action < 2) * 2 + (u[0] >= (1.0 + params.rainy_probability) / 2.0)
        turns = (u[0] >= params.rainy_probability) & _leaves(state.cell, action)  # no drift against a wall
        direction = jnp.where(turns, side, action)
    cell, passenger, reward, delivered = _outcome(state.cell, state.passenger, state.destination, direction)
    destination, fickle = state.destination, state.fickle
    if params.fickle_passenger:
        changes = fickle & (state.passenger == _TAXI) & (cell != state.cell)
        other = (destination + 1 + (u[1] * 3).astype(jnp.int32)) % 4
        destination, fickle = jnp.where(changes, other, destination), fickle & ~changes
    return State(cell, passenger, destination, fickle, state.time), reward, delivered


def _has(mask: int, cell: Any) -> Any:
    """Whether the bit of a cell is set."""
    return (mask >> cell) & 1 == 1


def _leaves(cell: Array, action: Array) -> Array:
    """Whether an action moves the taxi."""
    moves = [(action == direction) & _has(_OPEN[direction], cell) for direction in range(4)]
    return moves[0] | moves[1] | moves[2] | moves[3]


def _at(cell: Array, place: Array) -> Array:
    """Whether a place is here: never where the passenger rides."""
    return cell == jnp.select([place == i for i in range(4)], _CELLS, -1)


def _outcome(cell: Array, passenger: Array, destination: Array, action: Array) -> tuple[Array, Array, Array, Array]:
    """(cell, passenger, reward float32, delivered) after an action that goes as intended; arrays of one shape."""
    offset = jnp.select([action == 0, action == 1, action == 2, action == 3], [5, -5, 1, -1], 0)
    after = cell + jnp.where(_leaves(cell, action), offset, 0)
    picks = (action == 4) & _at(cell, passenger)
    drops = (action == 5) & (passenger == _TAXI) & _has(_PLACES, cell)
    delivered = drops & _at(cell, destination)
    here = jnp.select([cell == place for place in _CELLS], [0, 1, 2, 3], _TAXI)
    reward = jnp.where(delivered, 20.0, jnp.where((action >= 4) & ~picks & ~drops, -10.0, -1.0))
    after_passenger = jnp.where(picks, _TAXI, jnp.where(drops, here, passenger))
    return after, after_passenger, reward.astype(jnp.float32), delivered


def tabular(params: Params) -> TabularMDP:
    """The exact process of the observation's index, plus 500 while a fickle passenger has yet to change their mind.

    Terminal and absorbing are the states that a delivery leads to, taxi and passenger at the destination; every other
    row is gymnasium's. No episode reaches those in which the passenger waits at the destination without the taxi.
    """
    count = 1000 if params.fickle_passenger else 500
    shape = (count // 500, 25, 5, 4)
    _, cell, passenger, destination = (jnp.asarray(x.ravel(), jnp.int32) for x in np.indices(shape))
    states, fickle = np.arange(count), np.arange(count) >= 500
    P, R = np.zeros((count, 6, count)), np.zeros((count, 6))
    for action in range(6):
        directions, chances = [np.full(count, action)], [np.ones(count)]
        if params.is_rainy and action < 4:
            drifts = np.asarray(_leaves(cell, jnp.full(count, action)))
            lateral = drifts * ((1.0 - params.rainy_probability) / 2.0)
            directions += [np.full(count, side) for side in ((2, 3) if action < 2 else (0, 1))]
            chances = [np.where(drifts, params.rainy_probability, 1.0), lateral, lateral]
        for direction, chance in zip(directions, chances):
            outcome = _outcome(cell, passenger, destination, jnp.asarray(direction, jnp.int32))
            after, with_passenger, reward, _ = map(np.asarray, outcome)
            R[:, action] += chance * reward
            changes = fickle & (np.asarray(passenger) == _TAXI) & (after != np.asarray(cell))
            for turn in range(4):
                share = np.where(changes, 1 / 3 if turn else 0.0, 0.0 if turn else 1.0)
                place = (after * 5 + with_passenger) * 4 + (np.asarray(destination) + turn) % 4
                P[states, action, place + 500 * (fickle & ~changes)] += chance * share
    terminal = np.asarray((passenger == destination) & _at(cell, destination))
    P[terminal], R[terminal] = np.eye(count)[terminal, None], 0
    start = np.asarray((passenger != destination) & (passenger != _TAXI)) / 300
    if params.fickle_passenger:
        start = start * np.where(fickle, params.fickle_probability, 1.0 - params.fickle_probability)
    return TabularMDP(P, R, terminal, start)


def observe(state: State, params: Params) -> Masked | Array:
    """int32 []: ((row * 5 + column) * 5 + passenger) * 4 + destination; with bool [6], what the actions change."""
    index = (state.cell * 5 + state.passenger) * 4 + state.destination
    if not params.action_mask:
        return index
    return Masked(index, jnp.asarray(_masks())[index])  # to stack six answers would compute the state six times


@functools.cache
def _masks() -> np.ndarray:
    """bool [500, 6]: which actions change the state of an index."""
    cell, passenger = np.arange(500) // 20, np.arange(500) // 4 % 5
    moves = [_has(mask, cell) for mask in _OPEN]
    picks = cell == np.array([*_CELLS, -1])[passenger]
    return np.stack([*moves, picks, (passenger == _TAXI) & _has(_PLACES, cell)], axis=1)


def observation_space(params: Params) -> spaces.Discrete:
    """The indices."""
    del params
    return spaces.Discrete(500)


def action_space(params: Params) -> spaces.Discrete:
    """0 south, 1 north, 2 east, 3 west, 4 picks up, 5 drops off."""
    del params
    return spaces.Discrete(6)


def render(state: State, params: Params) -> str:
    """The map: the taxi on yellow, green when taken; the passenger blue, the destination magenta."""
    del params
    letters = [list(row) for row in _MAP]

    def paint(cell: int, code: str, blank: str = " ") -> None:
        row, column = 1 + cell // 5, 2 * (cell % 5) + 1
        letters[row][column] = f"\x1b[{code}m{letters[row][column].replace(' ', blank)}\x1b[0m"

    if int(state.passenger) == _TAXI:
        paint(int(state.cell), "42", blank="_")
    else:
        paint(int(state.cell), "43")
        paint(_CELLS[int(state.passenger)], "34;1")
    paint(_CELLS[int(state.destination)], "35")
    return "\n".join(map("".join, letters))


def frame(state: State, params: Params) -> np.ndarray:
    """The map seen from above: the taxi a disc, the passenger blue, the destination purple."""
    del params
    palette = (
        dict.fromkeys("+-|", raster.GREY) | dict.fromkeys(": ", raster.WHITE) | dict.fromkeys("RGYB", raster.LIGHT)
    )
    letters = [list(row) for row in _MAP]
    passenger, destination = int(state.passenger), int(state.destination)
    for letter, place in (("d", destination), *([] if passenger == _TAXI else [("p", passenger)])):
        letters[1 + _CELLS[place] // 5][2 * (_CELLS[place] % 5) + 1] = letter
    row, column = divmod(int(state.cell), 5)
    color = raster.GREEN if passenger == _TAXI else raster.YELLOW
    palette |= {"p": raster.BLUE, "d": raster.PURPLE}
    return raster.board(["".join(line) for line in letters], palette, (1 + row, 2 * column + 1), color=color)


def layout(params: Params) -> Layout:
    """The map for each destination and each place of the passenger elsewhere."""
    names = "RGYB"
    trips = [(place, to) for to in range(4) for place in range(5) if place != to]
    states = np.stack([(np.arange(25) * 5 + place) * 4 + to for place, to in trips]).reshape(-1, 5, 5)
    marks = np.full(25, "")
    marks[list(_CELLS)] = list(names)
    walls = [((r, c), (r, c + 1)) for r in range(5) for c in range(4) if _MAP[1 + r][2 * c + 2] == "|"]
    titles = [f"{'riding' if place == _TAXI else 'waiting at ' + names[place]}, to {names[to]}" for place, to in trips]
    return Layout(
        states,
        marks.reshape(5, 5),
        ((1, 0), (-1, 0), (0, 1), (0, -1), "pick up", "drop off"),
        tuple(titles),
        walls=tuple(walls),
        allowed=_masks() if params.action_mask else None,
    )


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.in_range("rainy_probability", params.rainy_probability, 0, 1)
    checks.in_range("fickle_probability", params.fickle_probability, 0, 1)


def _splits(params: Params) -> bool:
    return params.is_rainy or params.fickle_passenger


def taxi() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Taxi-v4",
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
        splits_fn=_splits,
    )
