"""SpaceInvaders-MinAtar against the `minatar` package, move by move from the same states, and against gymnax's."""

import gymnax
import jax
import jax.numpy as jnp
import minatar as package
import numpy as np
import pytest
from minatar_games import Game, beside_gymnax, column, play, words

import jaxrl
from jaxrl.envs import minatar, space_invaders
from jaxrl.envs.api import NO_LIMIT
from jaxrl.envs.space_invaders import Params, State

GAME = "SpaceInvaders-MinAtar"
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
        *play("space_invaders", 4_000, seed=0),
        *play("space_invaders", 4_000, seed=10, policy=shoots),
        *play("space_invaders", 6_000, seed=20, starts=anything),
        *play("space_invaders", 2_000, seed=30, starts=anything, difficulty_ramping=False),
    ]


def test_moves_are_the_packages(record):
    before = ours([move.before for move in record], column(record, "last"))
    expected = ours([move.after for move in record], column(record, "done"))
    ramping = np.array([move.before["ramping"] for move in record])
    params = Params(difficulty_ramping=ramping)
    axes = jax.tree.map(lambda _: None, Params()).replace(difficulty_ramping=0)
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
    cleared = np.array([24 == np.sum(move.after["alien_map"]) > np.sum(move.before["alien_map"]) for move in record])
    assert (cleared & ramping & (got.ramp_index > before.ramp_index)).sum() > 20
    assert (cleared & ~ramping & (before.interval > space_invaders.FASTEST)).sum() > 5
    assert (np.asarray(reward) > 1).sum() > 20
    assert terminated.sum() > 300
    assert (got.right != before.right).sum() > 200


def test_start_is_the_packages():
    game = Game("space_invaders")
    env, params = jaxrl.make(GAME)
    observation, state = env.reset(jaxrl.key(0), params)
    for name, got, expected in zip(State._fields, state, ours([game.attributes()], np.zeros(1)), strict=True):
        np.testing.assert_array_equal(np.array(got), np.squeeze(expected), name)
        assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, expected), name
    np.testing.assert_array_equal(observation, game.observe())
    assert (observation.shape, observation.dtype) == ((10, 10, 6), bool)


def test_the_gymnax_variant_is_gymnaxs():
    def dodge(action, state):
        above = state.bombs[2] | state.bombs[2] >> 10 | state.bombs[2] >> 20
        return jnp.where(
            above >> state.cannon.astype(jnp.uint32) & 1, 1 + action % 2, jnp.where(action == 0, 3, action)
        )

    ours, theirs, first = beside_gymnax(GAME, 64, 600, dodge)
    for name, got, expected in zip(ours._fields, ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(got)[first], np.asarray(expected)[first], name)
    assert (theirs.terminated & first).sum() > 20
    assert (np.asarray(theirs.reward) * first).sum(0).max() > 24  # a second wave


def test_variants():
    _, params = jaxrl.make(GAME)
    assert (params.max_steps_in_episode, params.sticky_action_prob) == (NO_LIMIT, 0.1)
    _, params = jaxrl.make(GAME, variant="gymnax")
    peer = gymnax.make(GAME)[1]
    for name in ("max_steps_in_episode", "shot_cool_down", "enemy_move_interval", "enemy_shot_interval"):
        assert getattr(params, name) == getattr(peer, name)
    assert params.sticky_action_prob == 0


def test_intervals_are_the_params():
    env, params = jaxrl.make(
        GAME, sticky_action_prob=0.0, shot_cool_down=2, enemy_move_interval=3, enemy_shot_interval=4
    )
    state, shots, moves, bombs = env.reset(jaxrl.key(0), params)[1], [], [], []
    step = jax.jit(env.step_env)
    for time in range(9):
        before, state = state, step(jaxrl.key(0), state, 3, params)[1]
        shots += [time] * int(state.bullets[2] >> 20 != 0)  # in the row over the cannon
        moves += [time] * (before.move_timer < state.move_timer).item()
        bombs += [time] * (before.bomb_timer < state.bomb_timer).item()
    assert (shots, moves, bombs) == ([0, 2, 4, 6, 8], [3, 6], [4, 8])


def test_sticking_and_action_sets():
    assert list(space_invaders.MINIMAL) == package.Environment("space_invaders").minimal_action_set()
    for minimal, right in (True, 2), (False, minatar.RIGHT):
        env, params = jaxrl.make(GAME, minimal_actions=minimal)
        assert env.num_actions == (4 if minimal else 6)
        start = env.reset(jaxrl.key(0), params)[1]._replace(last_action=jnp.int32(minatar.LEFT))
        step = jax.jit(jax.vmap(env.step_env, (0, None, None, None)))
        state = step(jax.random.split(jaxrl.key(1), 10_000), start, right, params)[1]
        assert set(state.cannon.tolist()) == {4, 6}
        assert abs((state.cannon == 4).mean() - 0.1) < 0.01
        np.testing.assert_array_equal(state.last_action, np.where(state.cannon == 4, minatar.LEFT, minatar.RIGHT))


def test_x64_changes_no_dtype():
    env, params = jaxrl.make(GAME)
    types = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            state = env.reset(jaxrl.key(0), params)[1]
            types.append(jax.tree.map(lambda leaf: leaf.dtype, env.step(jaxrl.key(0), state, 1, params)))
    assert types[0] == types[1]


def test_pictures():
    env, params = jaxrl.make(GAME)
    bullet, bomb = (words([np.arange(100).reshape(10, 10) == cell]) for cell in (62, 85))
    state = env.reset(jaxrl.key(0), params)[1]._replace(bullets=bullet, bombs=bomb)
    state = jax.tree.map(np.squeeze, state)
    wave, empty = 4 * ["..<<<<<<.."], ".........."
    below = [empty, empty, "..^.......", empty, ".....v....", ".....P...."]
    assert env.render(state, params).split("\n") == wave + below
    assert env.render(state._replace(right=np.True_), params).split("\n")[0] == "..>>>>>>.."
    picture = env.frame(state, params)
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    cells = picture[8::16, 8::16].reshape(-1, 3)
    assert len({tuple(cells[cell]) for cell in (0, 2, 62, 85, 95)}) == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"variant": "atari"}, "unknown variant 'atari'"),
        ({"sticky_action_prob": 2.0}, "sticky_action_prob is 2.0"),
        ({"shot_cool_down": 0}, "shot_cool_down is 0"),
        ({"enemy_move_interval": -1}, "enemy_move_interval is -1"),
        ({"enemy_shot_interval": 0}, "enemy_shot_interval is 0"),
        ({"enemy_shot_interval": 2.5}, "of type int"),
        ({"difficulty_ramping": 1}, "of type bool"),
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"shot_cooldown": 3}, "did you mean 'shot_cool_down'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(GAME, **overrides)
    assert "\n" not in str(error.value)
