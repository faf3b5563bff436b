"""What the five MinAtar games share. Young and Tian (2019), arXiv 1903.03176: Atari's games on 10 x 10 cells.

A game's `step` draws what is random and hands it to a pure `play(state, action, ..., params)`. An observation
starts as a code [100]: bit c of a cell, row by row, says whether channel c is set there (uint8 for up to eight
channels, else uint16). Two variants go by name: "published", the authors' rules, and "gymnax", which ends an
episode after 1,000 steps and has no sticky actions.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster

NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)  # the six actions, in the authors' order
VARIANTS = ("published", "gymnax")
CELLS = np.arange(100, dtype=np.uint8)
# uint32 [4, 100]: a board of bits in four words, three rows each, has cell c in word c // 30 as bit c % 30
BOARD = np.where(CELLS // 30 == np.arange(4)[:, None], np.uint32(1) << (CELLS % 30), 0).astype(np.uint32)

# a game with eight rows keeps a number below 16 for each in one uint32: row 1..8 has slot row - 1, bits 4 * slot and up
ONES = np.uint32(0x11111111)
ROWS = np.arange(10, dtype=np.int32)
SLOTS = (4 * (ROWS - 1) % 32).astype(np.uint32)  # where the slot of a row begins
SLOT = np.where((ROWS > 0) & (ROWS < 9), 15, 0).astype(np.uint32)  # what to keep of it: nothing of rows 0 and 9


def sticky(word: Array, action: ArrayLike, last: Array, probability: ArrayLike) -> Array:
    """The action done: with `probability` the last one again. Takes the upper 24 of the random `word`'s 32 bits.

    An episode begins with `NOTHING` as the last one; the authors' object carries it over from the episode before.
    """
    u = (word >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2**-24)
    return jnp.where(u < probability, last, action).astype(jnp.int32)


def full(action: ArrayLike, minimal: Sequence[int], params: Any) -> Array:
    """The action among the six, int32 []: where `params.minimal_actions` is set, `action` counts `minimal`'s."""
    action = jnp.asarray(action, jnp.int32)
    if not params.minimal_actions:
        return action
    packed = sum(number << 4 * i for i, number in enumerate(minimal))
    return (packed >> 4 * action) & 15


def action_space(minimal: Sequence[int], params: Any) -> spaces.Discrete:
    """The six actions, or those that the game uses."""
    return spaces.Discrete(len(minimal) if params.minimal_actions else 6)


def marks(cells: Array, bits: ArrayLike) -> Array:
    """Codes [K, 100]: layer k has `bits[k]` at `cells[k]`, 10 * row + column; nothing where that is in 100..255."""
    bits = jnp.asarray(bits)
    return jnp.where(cells.astype(jnp.uint8)[:, None] == CELLS[None], bits[:, None], bits.dtype.type(0))


def is_set(board: Sequence[Array]) -> Array:
    """bool [100]: the cells of a board of bits, uint32 [] words as in `BOARD`."""
    return functools.reduce(jnp.bitwise_or, [word & BOARD[i] for i, word in enumerate(board)]) != 0


def merge(layers: Array) -> Array:
    """The code [100] of codes [K, 100] one over the other.

    Build the layers by broadcasting, as `marks` does: a stack of finished ones compiles to a branch for every cell.
    """
    return lax.reduce(layers, layers.dtype.type(0), lax.bitwise_or, (0,))


def observation(code: Array, channels: int) -> Array:
    """bool [10, 10, channels] of a `code` [100].

    On CPUs so short a last axis is slow to write. XLA computes a reduced operand of a broadcast once, not once
    a channel; it vectorises a reduction over channels in fours; and copies a row of a table that has over 8 bytes.
    """
    code = merge(code[None] & np.array([[-1], [0]]).astype(code.dtype))
    if channels % 4 == 0:
        bits = (1 << np.arange(channels)).astype(code.dtype)
        return jnp.any((code[:, None, None] & np.stack([bits, 0 * bits])[None]) != 0, axis=1).reshape(10, 10, channels)
    if channels > 8:
        table = (np.arange(1 << channels)[:, None] >> np.arange(channels) & 1).astype(bool)
        return jnp.asarray(table).at[code.reshape(10, 10).astype(jnp.int32)].get(mode="promise_in_bounds")
    shifts = np.arange(channels, dtype=code.dtype)[None, None]
    return ((code.reshape(10, 10, 1) >> shifts) & 1).astype(bool)


def filled(slots: Array) -> Array:
    """1 in each of a word's slots that is not 0, uint32."""
    pairs = slots | slots >> 2
    return (pairs | pairs >> 1) & ONES


def slots(word: Array) -> Array:
    """uint32 [10]: the number in each row's slot, 0 in rows 0 and 9."""
    return word >> SLOTS & SLOT


def rows_of(looks: np.ndarray, look: Array) -> Array:
    """bool [10, 10, channels] where each row looks one of few ways: `look` [10], a row of `looks` [K, 10, channels].

    To copy a row takes a fraction of the time that its cells do; K rows should fit the first cache.
    """
    return jnp.asarray(looks).at[look].get(mode="promise_in_bounds")


def observation_space(channels: int) -> spaces.Box:
    """Bools [10, 10, channels]."""
    return spaces.Box(False, True, (10, 10, channels), np.bool_)


def text(board: ArrayLike, letters: str) -> str:
    """A bool [10, 10, channels] as ten lines: of each cell the letter of its first channel that is set, or a dot."""
    board = np.asarray(board, bool)
    first = np.where(board.any(-1), board.argmax(-1), len(letters))
    return "\n".join("".join(f"{letters}."[i] for i in row) for row in first)


def frame(board: ArrayLike) -> np.ndarray:
    """A bool [10, 10, channels] as a picture, a colour for each channel."""
    return raster.channels(np.asarray(board))


def variant(name: str, params: Any) -> Any:
    """`params` as the variant has them. Raises ValueError for an unknown one."""
    checks.one_of("variant", name, VARIANTS)
    return params if name == "published" else params.replace(sticky_action_prob=0.0, max_steps_in_episode=1000)


def check(params: Any) -> None:
    """Raises ValueError where a concrete value of the shared settings is out of range."""
    checks.in_range("sticky_action_prob", params.sticky_action_prob, 0, 1)


def word(key: Array) -> Array:
    """One random uint32 []."""
    return jax.random.bits(key, (), jnp.uint32)
