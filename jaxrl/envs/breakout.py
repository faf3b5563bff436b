"""Breakout-MinAtar: keep a ball in play and break three rows of bricks. Young and Tian (2019), arXiv 1903.03176.

The ball moves along diagonals; walls, bricks and the paddle turn it, and the floor ends the episode. A brick pays 1.
The bricks come back once all are gone and the ball is at the floor.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import spaces
from jaxrl.envs import minatar
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never

CHANNELS = ("paddle", "ball", "trail", "brick")
MINIMAL = (minatar.NOTHING, minatar.LEFT, minatar.RIGHT)
WALL = (1 << 30) - 1  # every brick
_PLACES = np.roll(minatar.BOARD[0], 10)  # uint32 [100], the bit of each cell in `bricks`: rows 1 to 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`minimal_actions` is static; the numbers may be traced or vmapped."""

    minimal_actions: bool = dataclasses.field(default=True, metadata={"static": True})  # 3 actions instead of 6
    sticky_action_prob: float = 0.1  # that the last action is done again
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where everything is; a cell is 10 * row + column."""

    paddle: Array  # int32 [], column
    x: Array  # int32 [], the ball's column
    y: Array  # int32 [], the ball's row
    right: Array  # bool [], the ball goes right, else left
    down: Array  # bool [], the ball goes down, else up
    trail: Array  # int32 [], the cell where the ball was
    bricks: Array  # uint32 [], bit 10 * (row - 1) + column
    struck: Array  # bool [], the ball's last move hit a brick, so this one breaks none
    last_action: Array  # int32 [], of the six
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """The ball in row 3 at a side, on its way inward and down."""
    del params
    right = (minatar.word(key) & 1) == 0  # `step` takes other bits of the same word
    zero = jnp.zeros((), jnp.int32)
    x = jnp.where(right, 0, 9).astype(jnp.int32)
    return State(
        paddle=zero + 4,
        x=x,
        y=zero + 3,
        right=right,
        down=jnp.ones((), bool),
        trail=30 + x,
        bricks=jnp.full((), WALL, jnp.uint32),
        struck=jnp.zeros((), bool),
        last_action=zero,
        time=zero,
    )


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One move of paddle and ball, by the action or, as chance has it, the last one again."""
    action = minatar.full(action, MINIMAL, params)
    action = minatar.sticky(minatar.word(key), action, state.last_action, params.sticky_action_prob)
    return play(state, action, params)


def play(state: State, action: Array, params: Params) -> tuple[State, Array, Array]:
    """The move when `action`, of the six, is what is done."""
    del params
    shift = (action == minatar.RIGHT).astype(jnp.int32) - (action == minatar.LEFT).astype(jnp.int32)
    paddle = jnp.clip(state.paddle + shift, 0, 9)

    x = state.x + jnp.where(state.right, 1, -1)
    y = state.y + jnp.where(state.down, 1, -1)
    side, top = (x < 0) | (x > 9), y < 0
    x, y = jnp.clip(x, 0, 9), jnp.maximum(y, 0)
    right, down = state.right ^ side, state.down ^ top

    place = 10 * y + x - 10
    bit = jnp.where((place >= 0) & (place < 30), jnp.uint32(1) << (place & 31).astype(jnp.uint32), jnp.uint32(0))
    touches = ~top & ((state.bricks & bit) != 0)
    breaks = touches & ~state.struck
    floor = ~touches & (y == 9)
    bricks = jnp.where(breaks, state.bricks & ~bit, state.bricks)
    bricks = jnp.where(floor & (bricks == 0), jnp.uint32(WALL), bricks)
    above, ahead = floor & (state.x == paddle), floor & (state.x != paddle) & (x == paddle)
    turns = breaks | above | ahead

    after = State(
        paddle=paddle,
        x=x,
        y=jnp.where(turns, state.y, y),
        right=right ^ ahead,
        down=down ^ turns,
        trail=10 * state.y + state.x,
        bricks=bricks,
        struck=touches,
        last_action=action,
        time=state.time,
    )
    return after, breaks.astype(jnp.float32), floor & ~above & ~ahead


def observe(state: State, params: Params) -> Array:
    """bool [10, 10, 4]: paddle, ball, where the ball was, bricks."""
    del params
    cells = jnp.stack([90 + state.paddle, 10 * state.y + state.x, state.trail])
    bricks = jnp.where((state.bricks & _PLACES) != 0, np.uint8(8), np.uint8(0))
    code = minatar.merge(minatar.marks(cells, np.array([1, 2, 4], np.uint8))) | bricks
    return minatar.observation(code, len(CHANNELS))


def observation_space(params: Params) -> spaces.Box:
    """Bools [10, 10, 4]."""
    del params
    return minatar.observation_space(len(CHANNELS))


def action_space(params: Params) -> spaces.Discrete:
    """0 nothing, 1 left, 2 right; or with all six 0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire."""
    return minatar.action_space(MINIMAL, params)


def render(state: State, params: Params) -> str:
    """The cells: P paddle, O ball, o where it was, B bricks."""
    return minatar.text(observe(state, params), "POoB")


def frame(state: State, params: Params) -> np.ndarray:
    """A colour for each channel."""
    return minatar.frame(observe(state, params))


def breakout(variant: str = "published") -> PureEnvironment:
    """The environment by the authors' rules; or as gymnax has it, 1,000 steps and no sticky actions."""
    return PureEnvironment(
        "Breakout-MinAtar",
        minatar.variant(variant, Params()),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=minatar.check,
        splits_fn=never,  # reset and step share one word
    )
