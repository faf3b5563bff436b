"""SpaceInvaders-MinAtar against the `minatar` package, move by move from the same states, and against gymnax's."""

import jax
import numpy as np
import pytest
from minatar_games import column, play, words

from jaxrl.envs import space_invaders
from jaxrl.envs.space_invaders import Params, State

NAMES = {  # ours: the package's
    "cannon": "pos",
    "interval": "enemy_move_interval",
    "move_timer": "alien_move_timer",
    "bomb_timer": "alien_shot_timer",
    "shot_timer": "shot_timer",
    "ramp_index": "ramp_index",
}
BOARDS = {"bullets": "f_bullet_map", "bombs": "e_bullet_map", "aliens": "alien_map"}


def ours(attributes: list[dict], last_action: np.ndarray) -> State:
    """The package's states as ours, [moves]."""
    return State(
        **{name: np.array([one[theirs] for one in attributes], np.int32) for name, theirs in NAMES.items()},
        **{name: words([one[theirs] for one in attributes]) for name, theirs in BOARDS.items()},
        right=np.array([one["alien_dir"] > 0 for one in attributes]),
        last_action=np.asarray(last_action, np.int32),
        time=np.zeros(len(attributes), np.int32),
    )


def shoots(now, random):
    """Dodges and shoots, so that waves are cleared."""
    if now.e_bullet_map[6:, now.pos].any() and random.rand() < 0.9:
        return random.choice([1, 3])
    return random.choice([5, 5, 1, 3])


def anything(now, random):
    """A board of any aliens and bullets, at any place, any timers."""
    few = random.choice([0.02, 0.1, 0.4])
    aliens = (random.rand(10, 10) < few) * (np.arange(10)[:, None] < random.randint(2, 11))
    if not aliens.any():
        aliens[0, random.randint(10)] = 1
    return {
        "pos": random.randint(10),
        "f_bullet_map": (random.rand(10, 10) < 0.15) * 1.0,
        "e_bullet_map": (random.rand(10, 10) < 0.05) * 1.0,
        "alien_map": aliens * 1.0,
        "alien_dir": random.choice([-1, 1]),
        "enemy_move_interval": random.randint(6, 13),
        "alien_move_timer": random.randint(3),
        "alien_shot_timer": random.randint(3),
        "shot_timer": random.randint(3),
        "ramp_index": random.randint(6),
    }


@pytest.fixture(scope="module")
def record():
    return [
        *play("space_invaders", 5_000, seed=0),
        *play("space_invaders", 10_000, seed=10, policy=shoots),
        *play("space_invaders", 10_000, seed=20, starts=anything),
        *play("space_invaders", 3_000, seed=30, starts=anything, difficulty_ramping=False),
    ]


def test_moves_are_the_packages(record):
    before = ours([move.before for move in record], column(record, "last"))
    expected = ours([move.after for move in record], column(record, "done"))
    ramping = np.array([move.before["ramping"] for move in record])
    params = Params(ramping=ramping)
    axes = jax.tree.map(lambda _: None, Params()).replace(ramping=0)
    step = jax.jit(jax.vmap(space_invaders.play, (0, 0, axes)))
    got, reward, terminated = step(before, column(record, "done", np.int32), params)
    for name, ours_, theirs in zip(State._fields, got, expected, strict=True):
        np.testing.assert_array_equal(ours_, theirs, name)
        assert jax.tree.map(lambda x: x.dtype, ours_) == jax.tree.map(lambda x: x.dtype, theirs), name
    np.testing.assert_array_equal(reward, column(record, "reward"))
    np.testing.assert_array_equal(terminated, column(record, "terminated"))
    observation = jax.jit(jax.vmap(space_invaders.observe, (0, None)))(got, Params())
    np.testing.assert_array_equal(observation, column(record, "observation"))
    assert (observation.dtype, reward.dtype, terminated.dtype) == (bool, np.float32, bool)
    assert (np.asarray(reward) > 0).sum() > 1000
    assert (np.asarray(reward) > 1).sum() > 20
    assert terminated.sum() > 500
    assert (got.ramp_index > before.ramp_index).sum() > 20
    assert (got.right != before.right).sum() > 200
