"""What the MinAtar games share: codes to observations, and settings; the games' own tests have the package's rules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_games import words

from jaxrl.envs import minatar


@pytest.mark.parametrize("channels", [4, 6, 7, 8, 10])
def test_observations_are_the_codes_bits(channels):
    dtype = np.uint8 if channels <= 8 else np.uint16
    codes = np.random.default_rng(channels).integers(0, 1 << channels, (50, 100)).astype(dtype)
    got = jax.jit(jax.vmap(minatar.observation, (0, None)), static_argnums=1)(codes, channels)
    expected = codes.reshape(50, 10, 10, 1) >> np.arange(channels, dtype=dtype) & 1 != 0
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == minatar.observation_space(channels).dtype == bool
    assert minatar.observation_space(channels).contains(got[0])


def test_boards_hold_a_bit_a_cell():
    boards = np.random.default_rng(0).random((200, 10, 10)) < 0.3
    got = jax.vmap(minatar.is_set)(tuple(map(jnp.asarray, words(boards))))
    np.testing.assert_array_equal(got, boards.reshape(200, 100))


def test_marks_lie_one_over_the_other():
    cells, bits = jnp.array([7, 99, 7, 100]), np.array([1, 2, 4, 8], np.uint8)
    expected = np.zeros(100, np.uint8)
    expected[7], expected[99] = 5, 2
    np.testing.assert_array_equal(minatar.merge(minatar.marks(cells, bits)), expected)


def test_text_has_a_letter_for_the_first_channel_set():
    board = np.zeros((10, 10, 3), bool)
    board[0, 0] = True
    board[0, 1, 1:] = True
    board[9, 9, 2] = True
    assert minatar.text(board, "abc") == "ab........\n" + 8 * "..........\n" + ".........c"


def test_minimal_actions_count_a_games_own():
    @dataclasses.dataclass
    class Params:
        minimal_actions: bool

    minimal = (minatar.NOTHING, minatar.UP, minatar.DOWN, minatar.FIRE)
    got = [int(minatar.full(action, minimal, Params(True))) for action in range(4)]
    assert got == list(minimal)
    assert [int(minatar.full(action, minimal, Params(False))) for action in range(6)] == list(range(6))
    assert minatar.action_space(minimal, Params(True)).n == 4
    assert minatar.action_space(minimal, Params(False)).n == 6


def test_an_action_sticks_by_the_upper_24_bits():
    """The others are left for the game."""
    probability = 0.25
    edge = int(probability * 2**24)
    for word, sticks in ((edge << 8, False), (edge - 1 << 8, True), ((edge - 1 << 8) + 255, True), (2**32 - 1, False)):
        done = minatar.sticky(jnp.uint32(word), 3, jnp.int32(1), probability)
        assert (int(done), done.dtype) == (1 if sticks else 3, jnp.int32)
    assert int(minatar.sticky(jnp.uint32(2**32 - 1), 3, jnp.int32(1), 1.0)) == 1
    assert int(minatar.sticky(jnp.uint32(0), 3, jnp.int32(1), 0.0)) == 3
