"""Freeway-MinAtar: cross eight lanes of traffic. Young and Tian (2019), arXiv 1903.03176.

The chicken starts at the bottom and can move every third step; at the top it is paid 1, put back, and the cars get new
speeds. A car that meets it puts it back too. Only the clock ends an episode, so that its end is a truncation.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import minatar
from jaxrl.envs.api import PureEnvironment

CHANNELS = ("chicken", "car", "speed1", "speed2", "speed3", "speed4", "speed5")
MINIMAL = (minatar.NOTHING, minatar.UP, minatar.DOWN)
COLUMN = 4  # the chicken's
SPEED = np.uint32(0x77777777)  # of `State.cars` what is no direction


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`minimal_actions` is static; the numbers may be traced or vmapped."""

    minimal_actions: bool = dataclasses.field(default=True, metadata={"static": True})  # 3 actions instead of 6
    sticky_action_prob: float = 0.1  # that the last action is done again
    player_speed: int = 3  # steps from one move of the chicken to the next
    max_steps_in_episode: int = 2501  # the paper's 2,500, and one that the authors' program takes until it says so

    replace = dataclasses.replace


class State(NamedTuple):
    """Where everything is. Slot i, bits 4 * i to 4 * i + 3 of a word, is the car's in row i + 1."""

    y: Array  # int32 [], the chicken's row
    wait: Array  # int32 [], steps until it can move
    columns: Array  # uint32 [], slots of 1 + the car's column
    waits: Array  # uint32 [], slots of the steps that the car stays
    cars: Array  # uint32 [], slots of the steps from one move to the next, 1..5, plus 8 where the car goes right
    last_action: Array  # int32 [], of the six
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """The chicken at the bottom, every car at the left side."""
    cars = traffic(jax.random.bits(key, (2,), jnp.uint32))
    zero = jnp.zeros((), jnp.int32)
    return State(
        y=zero + 9,
        wait=zero + params.player_speed,
        columns=jnp.full((), minatar.ONES, jnp.uint32),
        waits=cars & SPEED,
        cars=cars,
        last_action=zero,
        time=zero,
    )


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move, by the action or, as chance has it, the last one again; the cars of a next round are drawn."""
    words = jax.random.bits(key, (3,), jnp.uint32)
    action = minatar.full(action, MINIMAL, params)
    action = minatar.sticky(words[2], action, state.last_action, params.sticky_action_prob)
    return play(state, action, traffic(words[:2]), params)


def play(state: State, action: Array, new_cars: Array, params: Params) -> tuple[State, Array, Array]:
    """The move when `action`, of the six, is what is done and a crossing brings `new_cars`, slots as `State.cars`."""
    up, down = ((action == one) & (state.wait == 0) for one in (minatar.UP, minatar.DOWN))
    y = jnp.clip(state.y + down.astype(jnp.int32) - up.astype(jnp.int32), 0, 9)
    wait = jnp.where(up | down, params.player_speed, state.wait)
    crossed = y == 0
    y = jnp.where(crossed, 9, y)
    cars = jnp.where(crossed, new_cars, state.cars)
    waits = jnp.where(crossed, new_cars & SPEED, state.waits)

    moves = minatar.ONES ^ minatar.filled(waits)
    waits = (waits - (minatar.ONES ^ moves)) | cars & SPEED & moves * 15
    right = cars >> 3 & moves
    columns = state.columns + right - (moves ^ right)
    left_out, right_out = minatar.ONES ^ minatar.filled(columns), columns & columns >> 1 & columns >> 3 & minatar.ONES
    columns = columns + left_out * 10 - right_out * 10  # from slots of 0 and of 11

    lane = jnp.uint32(15) << (4 * (y - 1) & 31).astype(jnp.uint32)
    below = lane & minatar.ONES * (COLUMN + 1)
    hit = ((state.columns & lane) == below) | ((columns & lane) == below)  # before the cars move, or after
    y = jnp.where(hit, 9, y)

    wait = jnp.maximum(wait - 1, 0)
    after = State(y, wait, columns, waits, cars, action, state.time)
    return after, crossed.astype(jnp.float32), jnp.zeros((), bool)


def traffic(words: Array) -> Array:
    """Slots as `State.cars` from random uint32 [2], 4 cars each: one of 5 speeds in one of 2 directions."""
    rest, slots = words >> 4, jnp.zeros((2,), jnp.uint32)
    for i in range(4):  # digits of base 10, uniform to four parts in 100,000
        rest = (rest & 0xFFFFFFF) * 10
        digit = rest >> 28
        slots = slots | (jnp.where(digit < 5, digit + 1, digit + 4)) << 4 * i
    return slots[0] | slots[1] << 16


def observe(state: State, params: Params) -> Array:
    """bool [10, 10, 7]: chicken, cars, and behind each car a mark in the channel of its speed, 1 the fastest."""
    del params
    chicken = jnp.where(state.y == minatar.ROWS, jnp.uint32(256), jnp.uint32(0))
    return minatar.rows_of(LOOKS, chicken | minatar.slots(state.columns) << 4 | minatar.slots(state.cars))


def observation_space(params: Params) -> spaces.Box:
    """Bools [10, 10, 7]."""
    del params
    return minatar.observation_space(len(CHANNELS))


def action_space(params: Params) -> spaces.Discrete:
    """0 nothing, 1 up, 2 down; or with all six 0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire."""
    return minatar.action_space(MINIMAL, params)


def render(state: State, params: Params) -> str:
    """The cells: C the chicken, # cars, behind them the steps they take to move."""
    return minatar.text(observe(state, params), "C#12345")


def frame(state: State, params: Params) -> np.ndarray:
    """A colour for each channel."""
    return minatar.frame(observe(state, params))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    minatar.check(params)
    if checks.is_number(params.player_speed):
        checks.at_least("player_speed", params.player_speed, 1)


def freeway(variant: str = "published") -> PureEnvironment:
    """The environment by the authors' rules; or as gymnax has it, 2,500 steps and no sticky actions."""
    params = minatar.variant(variant, Params())
    if variant == "gymnax":
        params = params.replace(max_steps_in_episode=2500)
    return PureEnvironment(
        "Freeway-MinAtar",
        params,
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=check,
    )


def _looks() -> np.ndarray:
    """bool [2 * 256, 10, 7]: a row without and with the chicken, without a car and with each in each column."""
    looks = np.zeros((2, 16, 16, 10, len(CHANNELS)), bool)
    looks[1, :, :, COLUMN, 0] = True
    for column in range(10):
        looks[:, column + 1, :, column, 1] = True
        for speed in range(1, 6):
            looks[:, column + 1, speed, (column + 1) % 10, 1 + speed] = True
            looks[:, column + 1, speed + 8, (column - 1) % 10, 1 + speed] = True
    return looks.reshape(-1, 10, len(CHANNELS))


LOOKS = _looks()
