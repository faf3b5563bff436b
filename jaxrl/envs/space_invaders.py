"""SpaceInvaders-MinAtar: shoot the aliens before they land. Young and Tian (2019), arXiv 1903.03176.

The aliens march as one, sideways until one is at the edge, then a row down and back; fewer are faster. The one
nearest to the cannon fires. A shot alien pays 1; a bullet or an alien that meets the cannon, or one in the last
row when they turn, ends the episode. A new wave follows the last alien, with `difficulty_ramping` a faster one.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import minatar
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never
from jaxrl.envs.minatar import FIRE, LEFT, NOTHING, RIGHT

CHANNELS = ("cannon", "alien", "alien_left", "alien_right", "friendly_bullet", "enemy_bullet")
MINIMAL = (NOTHING, LEFT, RIGHT, FIRE)
FASTEST = 6  # the interval at which ramping stops
_ROW, _THREE = (1 << 10) - 1, (1 << 30) - 1  # all cells of one row, of a word of three
_WAVE = (0x3F << 2) * (1 + (1 << 10) + (1 << 20)), 0x3F << 2, 0, 0  # columns 2 to 7 of rows 0 to 3

Board = tuple[Array, ...]  # four uint32 []: cells as bits, `minatar.BOARD`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`minimal_actions` is static; the others may be traced or vmapped. Times are in steps."""

    minimal_actions: bool = dataclasses.field(default=True, metadata={"static": True})  # 4 actions instead of 6
    sticky_action_prob: float = 0.1  # that the last action is done again
    difficulty_ramping: bool = True  # each wave marches faster than the one before
    shot_cool_down: int = 5  # between the cannon's shots
    enemy_move_interval: int = 12  # between the aliens' moves, while they are many
    enemy_shot_interval: int = 10
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where everything is, and what runs down."""

    cannon: Array  # int32 [], column
    bullets: Board  # the cannon's
    bombs: Board  # the aliens'
    aliens: Board
    right: Array  # bool [], the aliens march right, else left
    interval: Array  # int32 [], of the aliens' moves in this wave
    move_timer: Array  # int32 []
    bomb_timer: Array  # int32 []
    shot_timer: Array  # int32 []
    ramp_index: Array  # int32 [], how many waves were faster than the one before
    last_action: Array  # int32 [], of the six
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """A wave of 24 aliens, the cannon in column 5."""
    del key
    zero = jnp.zeros((), jnp.int32)
    return State(
        cannon=zero + 5,
        bullets=_board(0, 0, 0, 0),
        bombs=_board(0, 0, 0, 0),
        aliens=_board(*_WAVE),
        right=jnp.zeros((), bool),
        interval=zero + params.enemy_move_interval,
        move_timer=zero + params.enemy_move_interval,
        bomb_timer=zero + params.enemy_shot_interval,
        shot_timer=zero,
        ramp_index=zero,
        last_action=zero,
        time=zero,
    )


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step, by the action or, as chance has it, the last one again."""
    action = minatar.full(action, MINIMAL, params)
    action = minatar.sticky(minatar.word(key), action, state.last_action, params.sticky_action_prob)
    return play(state, action, params)


def play(state: State, action: Array, params: Params) -> tuple[State, Array, Array]:
    """The step when `action`, of the six, is what is done."""
    fires = (action == FIRE) & (state.shot_timer == 0)
    shot_timer = jnp.where(fires, params.shot_cool_down, state.shot_timer)
    bullets = _up((*state.bullets[:3], state.bullets[3] | jnp.where(fires, _bit(state.cannon), 0)))
    cannon = jnp.clip(state.cannon + (action == RIGHT) - (action == LEFT), 0, 9)
    place = _bit(cannon)
    bombs = _down(state.bombs)
    dies = ((bombs[3] | state.aliens[3]) & place) != 0

    moves = state.move_timer == 0
    turns = (_columns(state.aliens) & jnp.where(state.right, 1 << 9, 1)) != 0
    lands = moves & turns & (state.aliens[3] != 0)
    move_timer = jnp.where(moves, jnp.minimum(_count(state.aliens), state.interval), state.move_timer)
    under = _down(state.aliens)
    under = (under[0] | state.aliens[3], *under[1:])  # the last row comes out at the top, as the authors' roll has it
    aliens = tuple(
        jnp.where(moves, jnp.where(turns, down, jnp.where(state.right, here << 1, here >> 1)), here)
        for here, down in zip(state.aliens, under, strict=True)
    )
    right = state.right ^ (moves & turns)
    dies = dies | lands | ((aliens[3] & place) != 0)
    bombs_away = state.bomb_timer == 0
    bomb_timer = jnp.where(bombs_away, params.enemy_shot_interval, state.bomb_timer)
    bombs = tuple(old | jnp.where(bombs_away, new, 0) for old, new in zip(bombs, _nearest(aliens, cannon), strict=True))

    hits = tuple(alien & bullet for alien, bullet in zip(aliens, bullets, strict=True))
    aliens = tuple(alien ^ hit for alien, hit in zip(aliens, hits, strict=True))
    bullets = tuple(bullet ^ hit for bullet, hit in zip(bullets, hits, strict=True))
    cleared = (aliens[0] | aliens[1] | aliens[2] | aliens[3]) == 0
    faster = (cleared & params.difficulty_ramping & (state.interval > FASTEST)).astype(jnp.int32)

    after = State(
        cannon=cannon,
        bullets=bullets,
        bombs=bombs,
        aliens=tuple(jnp.where(cleared, new, alien) for new, alien in zip(_board(*_WAVE), aliens, strict=True)),
        right=right,
        interval=state.interval - faster,
        move_timer=move_timer - 1,
        bomb_timer=bomb_timer - 1,
        shot_timer=shot_timer - (shot_timer > 0),
        ramp_index=state.ramp_index + faster,
        last_action=action,
        time=state.time,
    )
    return after, _count(hits).astype(jnp.float32), dies


def observe(state: State, params: Params) -> Array:
    """bool [10, 10, 6]: cannon, aliens, the same if they march left, if right, the cannon's bullets, the aliens'."""
    del params
    code = (90 + state.cannon == minatar.CELLS).astype(jnp.uint8)
    marching = jnp.where(state.right, np.uint8(2 + 8), np.uint8(2 + 4))
    for board, bits in (state.aliens, marching), (state.bullets, np.uint8(16)), (state.bombs, np.uint8(32)):
        code = code | jnp.where(minatar.is_set(board), bits, np.uint8(0))
    return minatar.observation(code, len(CHANNELS))


def observation_space(params: Params) -> spaces.Box:
    """Bools [10, 10, 6]."""
    del params
    return minatar.observation_space(len(CHANNELS))


def action_space(params: Params) -> spaces.Discrete:
    """0 nothing, 1 left, 2 right, 3 fire; or with all six 0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire."""
    return minatar.action_space(MINIMAL, params)


def render(state: State, params: Params) -> str:
    """The cells: P cannon, < or > aliens by their direction, ^ its bullets, v theirs."""
    board = np.asarray(observe(state, params))
    return minatar.text(board[..., [0, 2, 3, 4, 5]], "P<>^v")


def frame(state: State, params: Params) -> np.ndarray:
    """A colour for each channel."""
    return minatar.frame(observe(state, params))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    minatar.check(params)
    for name in ("shot_cool_down", "enemy_move_interval", "enemy_shot_interval"):
        if checks.is_number(getattr(params, name)):
            checks.at_least(name, getattr(params, name), 1)


def space_invaders(variant: str = "published") -> PureEnvironment:
    """The environment by the authors' rules; or as gymnax has it, 1,000 steps and no sticky actions."""
    return PureEnvironment(
        "SpaceInvaders-MinAtar",
        minatar.variant(variant, Params()),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # the start is not random
    )


def _board(*words: int) -> Board:
    return tuple(jnp.full((), word, jnp.uint32) for word in words)


def _bit(column: Array) -> Array:
    return jnp.uint32(1) << column.astype(jnp.uint32)


def _up(board: Board) -> Board:
    """Every cell a row up; the first row is lost."""
    a, b, c, d = board
    return (a >> 10) | (b & _ROW) << 20, (b >> 10) | (c & _ROW) << 20, (c >> 10) | d << 20, jnp.zeros_like(d)


def _down(board: Board) -> Board:
    """Every cell a row down; the last row is lost."""
    a, b, c, _ = board
    return (a << 10) & _THREE, ((b << 10) & _THREE) | a >> 20, ((c << 10) & _THREE) | b >> 20, c >> 20


def _columns(board: Board) -> Array:
    """uint32 []: bit c says whether there is any cell in column c."""
    a, b, c, d = board
    three = a | b | c
    return (three | three >> 10 | three >> 20 | d) & _ROW


def _count(board: Board) -> Array:
    """int32 []: how many cells."""
    return functools.reduce(jnp.add, map(lax.population_count, board)).astype(jnp.int32)


def _nearest(aliens: Board, cannon: Array) -> Board:
    """The lowest alien of the column that has any and is nearest to the cannon's, of two the left one."""
    columns = _columns(aliens)
    left = columns & ((_bit(cannon) << 1) - 1)
    right = columns & ~left
    for shift in (1, 2, 4, 8):
        left = left | left >> shift
    left = left ^ left >> 1  # its highest bit
    right = right & (~right + 1)  # its lowest bit
    # bit `cannon` is the geometric mean of bits at equal distances on its two sides
    nearer = (left != 0) & ((right == 0) | (left * right >= _bit(cannon) * _bit(cannon)))
    column = jnp.where(nearer, left, right)
    found, lowest = jnp.zeros((), bool), []
    for word in aliens[::-1]:
        rows = word & (column | column << 10 | column << 20)
        lowest.append(jnp.where(found, 0, rows & ~(rows >> 10 | rows >> 20)))
        found = found | (rows != 0)
    return tuple(lowest[::-1])
