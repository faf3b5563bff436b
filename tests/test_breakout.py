"""Breakout-MinAtar against the `minatar` package, move by move from the same states, and against gymnax's."""

import jax
import numpy as np
import pytest
from minatar_games import column, play, words

from jaxrl.envs import breakout
from jaxrl.envs.breakout import State

GAME = "Breakout-MinAtar"


def ours(attributes: list[dict], last_action: np.ndarray) -> State:
    """The package's states as ours, [moves]."""
    get = {name: np.array([one[name] for one in attributes], np.int32) for name in attributes[0] if name != "brick_map"}
    bricks, *elsewhere = words(np.roll(one["brick_map"], -1, axis=0) for one in attributes)
    assert not np.any(elsewhere)
    return State(
        paddle=get["pos"],
        x=get["ball_x"],
        y=get["ball_y"],
        right=(get["ball_dir"] == 1) | (get["ball_dir"] == 2),  # clockwise from up and left
        down=get["ball_dir"] >= 2,
        trail=10 * get["last_y"] + get["last_x"],
        bricks=bricks,
        struck=get["strike"] == 1,
        last_action=np.asarray(last_action, np.int32),
        time=np.zeros(len(attributes), np.int32),
    )


def follows(now, random):
    """Mostly under the ball, so that episodes are long."""
    towards = 1 if now.ball_x < now.pos else 3 if now.ball_x > now.pos else 0
    return towards if random.rand() < 0.9 else random.randint(6)


def few_bricks(now, random):
    """A start with a handful of bricks, so that the wall is rebuilt."""
    return {"brick_map": now.brick_map * (random.rand(10, 10) < 0.07)}


@pytest.fixture(scope="module")
def record():
    return [
        *play("breakout", 10_000, seed=0),
        *play("breakout", 10_000, seed=10, policy=follows),
        *play("breakout", 5_000, seed=20, policy=follows, starts=few_bricks),
    ]


def test_moves_are_the_packages(record):
    before = ours([move.before for move in record], column(record, "last"))
    expected = ours([move.after for move in record], column(record, "done"))
    step = jax.jit(jax.vmap(breakout.play))
    got, reward, terminated = step(before, column(record, "done", np.int32))
    for name, ours_, theirs in zip(State._fields, got, expected, strict=True):
        np.testing.assert_array_equal(ours_, theirs, name)
        assert ours_.dtype == theirs.dtype, name
    np.testing.assert_array_equal(reward, column(record, "reward"))
    np.testing.assert_array_equal(terminated, column(record, "terminated"))
    observation = jax.jit(jax.vmap(breakout.observe, (0, None)))(got, breakout.Params())
    np.testing.assert_array_equal(observation, column(record, "observation"))
    assert observation.dtype == bool
    assert (reward.dtype, terminated.dtype) == (np.float32, bool)
    rebuilt = (before.bricks < breakout.WALL) & (np.asarray(got.bricks) == breakout.WALL)
    assert rebuilt.sum() > 20
    assert (np.asarray(reward) > 0).sum() > 1000
    assert np.asarray(terminated).sum() > 300
