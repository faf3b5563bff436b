"""Catch-bsuite: move a paddle under a falling ball. Osband et al. (2020), bsuite's `environments/catch.py`.

The ball falls a row a step, so its row is the clock. As in bsuite there is no time limit. Observations are bool
where bsuite's are 0 and 1 in float32.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`rows` and `columns` are static: they fix shapes."""

    rows: int = dataclasses.field(default=10, metadata={"static": True})
    columns: int = dataclasses.field(default=5, metadata={"static": True})
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Ball and paddle; the ball's row is `time`."""

    ball: Array  # int32 [], its column
    paddle: Array  # int32 [], its column
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """A ball at the top of any column, the paddle in the middle of the lowest row."""
    ball = jax.random.bits(key, (), jnp.uint32) % np.uint32(params.columns)  # the remainder's bias is below 2**-29
    paddle = jnp.full((), params.columns // 2, jnp.int32)
    return State(ball.astype(jnp.int32), paddle, time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """The paddle moves, then the ball falls: in the lowest row 1 for a catch and -1 for a miss."""
    del key
    paddle = jnp.clip(state.paddle + jnp.asarray(action, jnp.int32) - 1, 0, params.columns - 1)
    landed = state.time + 1 == params.rows - 1
    reward = jnp.where(landed, jnp.where(paddle == state.ball, 1.0, -1.0), 0.0)
    return State(state.ball, paddle, state.time), reward.astype(jnp.float32), landed


def observe(state: State, params: Params) -> Array:
    """bool [rows, columns]: where ball or paddle is."""
    cells = np.arange(params.rows * params.columns, dtype=np.int32)
    ball = state.time * params.columns + state.ball
    paddle = (params.rows - 1) * params.columns + state.paddle
    board = (cells == ball) | (cells == paddle)
    return board.reshape(params.rows, params.columns)


def observation_space(params: Params) -> spaces.Box:
    """The board."""
    return spaces.Box(False, True, (params.rows, params.columns), np.bool_)


def action_space(params: Params) -> spaces.Discrete:
    """0 left, 1 stay, 2 right."""
    del params
    return spaces.Discrete(3)


def render(state: State, params: Params) -> str:
    """The board, `o` the ball and `=` the paddle, `@` where they meet."""
    return "\n".join("".join(row) for row in _letters(state, params))


def frame(state: State, params: Params) -> np.ndarray:
    """The board seen from above."""
    palette = {".": raster.BLACK, "o": raster.YELLOW, "=": raster.BLUE, "@": raster.GREEN}
    return raster.board(["".join(row) for row in _letters(state, params)], palette)


def check(params: Params) -> None:
    """Raises ValueError for a board too small."""
    checks.at_least("rows", params.rows, 2)
    checks.at_least("columns", params.columns, 1)


def catch() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Catch-bsuite",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # only a reset draws
    )


def _letters(state: State, params: Params) -> list[list[str]]:
    board = [["."] * params.columns for _ in range(params.rows)]
    board[int(state.time)][int(state.ball)] = "o"
    board[-1][int(state.paddle)] = "@" if board[-1][int(state.paddle)] == "o" else "="
    return board
