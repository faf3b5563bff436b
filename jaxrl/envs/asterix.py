"""Asterix-MinAtar: gather gold, keep clear of enemies. Young and Tian (2019), arXiv 1903.03176.

Eight rows hold one thing each at most, which comes in at a side and crosses over. Gold pays 1 where it is met, an enemy
ends the episode. Things come and move ever faster, until after nine rises, one every 102 steps, they do at each step.
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
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never

CHANNELS = ("player", "enemy", "trail", "gold")
MINIMAL = (minatar.NOTHING, minatar.LEFT, minatar.UP, minatar.RIGHT, minatar.DOWN)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`minimal_actions` is static; the numbers may be traced or vmapped."""

    minimal_actions: bool = dataclasses.field(default=True, metadata={"static": True})  # 5 actions instead of 6
    sticky_action_prob: float = 0.1  # that the last action is done again
    difficulty_ramping: bool = True
    ramp_interval: int = 100  # two less than the steps between two rises of the difficulty
    init_spawn_interval: int = 10  # steps from one thing's coming in to the next, one less at each rise
    init_move_interval: int = 5  # steps from one move of things to the next, one less at each second rise
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where everything is. Slot i, bits 4 * i to 4 * i + 3 of a word, is row i + 1's."""

    x: Array  # int32 [], the player's column
    y: Array  # int32 [], the player's row, 1..8
    columns: Array  # uint32 [], slots of 1 + the thing's column, 0 where there is none
    right: Array  # uint32 [], slots of 1 where the thing goes right, 0 left
    gold: Array  # uint32 [], slots of 1 where the thing is gold, 0 an enemy
    spawn_timer: Array  # int32 [], steps until the next thing comes in
    move_timer: Array  # int32 [], steps until things move
    last_action: Array  # int32 [], of the six
    time: Array  # int32 [], tells the difficulty too


class Spawn(NamedTuple):
    """What comes in, if its time has come."""

    right: Array  # bool [], from the left side, going right
    gold: Array  # bool []
    rank: Array  # uint32 [], its row's among the free rows, from the top


def reset(key: Array, params: Params) -> State:
    """The player in the middle, nothing else."""
    del key
    zero, empty = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32)
    return State(
        x=zero + 5,
        y=zero + 5,
        columns=empty,
        right=empty,
        gold=empty,
        spawn_timer=zero + params.init_spawn_interval,
        move_timer=zero + params.init_move_interval,
        last_action=zero,
        time=zero,
    )


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move, by the action or, as chance has it, the last one again; what comes in is drawn."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    action = minatar.full(action, MINIMAL, params)
    action = minatar.sticky(words[0], action, state.last_action, params.sticky_action_prob)
    free_rows = _running_sums(minatar.ONES ^ minatar.filled(state.columns)) >> 28
    chosen = (words[1] >> 6) * (6 * free_rows) >> 26  # among 6 * free_rows, uniform to one part in a million
    return play(state, action, Spawn(chosen % 2 == 0, chosen % 3 == 0, chosen // 6), params)


def play(state: State, action: Array, spawn: Spawn, params: Params) -> tuple[State, Array, Array]:
    """The move when `action`, of the six, is what is done and `spawn` is what comes in."""
    rises = jax.lax.div(state.time, jnp.asarray(params.ramp_interval + 2, jnp.int32))
    rises = jnp.where(params.difficulty_ramping, rises, 0)
    spawn_interval = jnp.maximum(params.init_spawn_interval - rises, 1)
    move_interval = jnp.maximum(params.init_move_interval - (rises >> 1), 1)

    free = minatar.ONES ^ minatar.filled(state.columns)
    at_rank = free & ~minatar.filled(_running_sums(free) ^ (spawn.rank + 1) * minatar.ONES)
    spawns = state.spawn_timer == 0
    slot = jnp.where(spawns, at_rank, jnp.uint32(0))
    columns = state.columns | slot * jnp.where(spawn.right, jnp.uint32(1), jnp.uint32(10))
    right = jnp.where(spawn.right, state.right | slot, state.right & ~slot)
    gold = jnp.where(spawn.gold, state.gold | slot, state.gold & ~slot)

    to_left, up, to_right, down = ((action == one).astype(jnp.int32) for one in MINIMAL[1:])
    x = jnp.clip(state.x + to_right - to_left, 0, 9)
    y = jnp.clip(state.y + down - up, 1, 8)
    place = jnp.uint32(1) << (4 * (y - 1)).astype(jnp.uint32)
    player = place * (x + 1).astype(jnp.uint32)
    pays = (gold & place) != 0

    def meet(columns: Array) -> tuple[Array, Array]:
        met = (columns & place * 15) == player
        return met, jnp.where(met & pays, columns & ~player, columns)

    moves = state.move_timer == 0
    met, columns = meet(columns)
    met_moved, moved = meet(_move(columns, right))
    met = met | (moves & met_moved)

    after = State(
        x=x,
        y=y,
        columns=jnp.where(moves, moved, columns),
        right=right,
        gold=gold,
        spawn_timer=jnp.where(spawns, spawn_interval, state.spawn_timer) - 1,
        move_timer=jnp.where(moves, move_interval, state.move_timer) - 1,
        last_action=action,
        time=state.time,
    )
    return after, (met & pays).astype(jnp.float32), met & ~pays


def observe(state: State, params: Params) -> Array:
    """bool [10, 10, 4]: player, enemies, the cells that things leave behind them, gold."""
    del params
    player = jnp.where(state.y == minatar.ROWS, 44 * (state.x + 1), 0).astype(jnp.uint32)
    thing = minatar.slots(state.columns) << 2 | minatar.slots(state.right << 1 | state.gold)
    return minatar.rows_of(LOOKS, player + thing)


def observation_space(params: Params) -> spaces.Box:
    """Bools [10, 10, 4]."""
    del params
    return minatar.observation_space(len(CHANNELS))


def action_space(params: Params) -> spaces.Discrete:
    """0 nothing, 1 left, 2 up, 3 right, 4 down; of all six, 5 is fire, which does nothing."""
    return minatar.action_space(MINIMAL, params)


def render(state: State, params: Params) -> str:
    """The cells: P player, E enemies, G gold, - behind things."""
    return minatar.text(observe(state, params), "PE-G")


def frame(state: State, params: Params) -> np.ndarray:
    """A colour for each channel."""
    return minatar.frame(observe(state, params))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    minatar.check(params)
    for name in ("ramp_interval", "init_spawn_interval", "init_move_interval"):
        if checks.is_number(getattr(params, name)):
            checks.at_least(name, getattr(params, name), 1)


def asterix(variant: str = "published") -> PureEnvironment:
    """The environment by the authors' rules; or as gymnax has it, 1,000 steps and no sticky actions."""
    return PureEnvironment(
        "Asterix-MinAtar",
        minatar.variant(variant, Params()),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # reset draws nothing
    )


def _looks() -> np.ndarray:
    """bool [11 * 44, 10, 4]: a row with no player or one in each column, with nothing or a thing in each column."""
    looks = np.zeros((11, 11, 2, 2, 10, 4), bool)
    for column in range(10):
        looks[column + 1, :, :, :, column, 0] = True
        for right in range(2):
            looks[:, column + 1, right, 0, column, 1] = looks[:, column + 1, right, 1, column, 3] = True
            behind = column + 1 - 2 * right
            if 0 <= behind < 10:
                looks[:, column + 1, right, :, behind, 2] = True
    return looks.reshape(-1, 10, 4)


LOOKS = _looks()


def _running_sums(ones: Array) -> Array:
    """Of slots of 0 or 1 each slot's with all before it; the last slot's is the total, at most 8."""
    return ones * minatar.ONES


def _move(columns: Array, right: Array) -> Array:
    """Each thing one column on; what leaves the board is gone, to the left by its slot's becoming 0."""
    filled = minatar.filled(columns)
    moved = columns + (filled & right) - (filled & ~right)
    gone = moved & moved >> 1 & moved >> 3 & minatar.ONES  # 11, the most that a slot can be: column 10
    return moved & ~(gone * 15)
