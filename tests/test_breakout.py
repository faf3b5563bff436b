"""Breakout-MinAtar against the `minatar` package, move by move from the same states, and against gymnax's."""

import jax
import jax.numpy as jnp
import minatar as package
import numpy as np
import pytest
from minatar_games import Game, beside_gymnax, column, play, words

import jaxrl
from jaxrl.envs import breakout, minatar
from jaxrl.envs.api import NO_LIMIT
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
    step = jax.jit(jax.vmap(breakout.play, (0, 0, None)))
    got, reward, terminated = step(before, column(record, "done", np.int32), breakout.Params())
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


def test_sticky_actions_are_the_packages(record):
    """The same uniform number decides the same."""
    word = np.array([int(move.uniform * 2**24) << 8 for move in record], np.uint32)
    asked, last = column(record, "action", np.int32), column(record, "last", np.int32)
    done = jax.vmap(minatar.sticky, (0, 0, 0, None))(word, asked, last, 0.1)
    np.testing.assert_array_equal(done, column(record, "done"))
    assert (np.asarray(done) != asked).sum() > 500


def test_starts_are_the_packages():
    game, starts = Game("breakout"), {}
    while len(starts) < 2:
        side = game.reset()[0].result
        starts[side] = ours([game.attributes()], np.zeros(1)), game.observe()
    env, params = jaxrl.make(GAME)
    observation, states = jax.vmap(env.reset, (0, None))(jax.random.split(jaxrl.key(0), 2000), params)
    side = np.asarray(states.x == 9).astype(int)
    assert abs(side.mean() - 0.5) < 0.04
    for name, got, *expected in zip(State._fields, states, starts[0][0], starts[1][0], strict=True):
        np.testing.assert_array_equal(got, np.concatenate(expected)[side], name)
        assert got.dtype == expected[0].dtype, name
    np.testing.assert_array_equal(observation, np.stack([starts[0][1], starts[1][1]])[side])


def losing(lanes: int) -> State:
    """The ball about to be lost at the right, the paddle in the middle, the last action left."""
    env, params = jaxrl.make(GAME)
    state = env.reset(jaxrl.key(0), params)[1]._replace(x=8, y=8, right=True, trail=77, last_action=minatar.LEFT)
    return jax.tree.map(lambda leaf: jnp.full(lanes, leaf, jnp.asarray(leaf).dtype), state)


def test_actions_stick_apart_from_the_next_start():
    """One word says both whether the last action is done again and where the next episode starts."""
    env, params = jaxrl.make(GAME)
    _, after, _, terminated, _, info = jax.vmap(env.step, (0, 0, None, None))(
        jax.random.split(jaxrl.key(3), 20_000), losing(20_000), 2, params
    )
    assert terminated.all()
    paddle = np.asarray(info["final_observation"])[:, 9, :, 0].argmax(1)
    counts = np.array([[((paddle == p) & (after.x == x)).sum() for x in (0, 9)] for p in (3, 5)])
    expected = np.array([[1000, 1000], [9000, 9000]])
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 3 degrees of freedom, p = 0.001


def test_the_chance_of_sticking_may_be_vmapped():
    env, params = jaxrl.make(GAME, minimal_actions=False)
    axes = jax.tree.map(lambda _: None, params).replace(sticky_action_prob=0)
    step = jax.jit(jax.vmap(jax.vmap(env.step_env, (0, 0, None, None)), (None, None, None, axes)))
    params = params.replace(sticky_action_prob=jnp.array([0.0, 0.5, 1.0]))
    state = step(jax.random.split(jaxrl.key(3), 2000), losing(2000), minatar.RIGHT, params)[1]
    np.testing.assert_allclose((np.asarray(state.paddle) == 3).mean(1), [0, 0.5, 1], atol=0.04)
    np.testing.assert_array_equal(state.last_action, np.where(state.paddle == 3, minatar.LEFT, minatar.RIGHT))


def test_action_sets():
    assert list(breakout.MINIMAL) == package.Environment("breakout").minimal_action_set()
    for minimal, expected in (True, [4, 3, 5, 5]), (False, [4, 3, 4, 5, 4, 4]):  # outside: as the nearest inside
        env, params = jaxrl.make(GAME, sticky_action_prob=0.0, minimal_actions=minimal)
        assert env.num_actions == (3 if minimal else 6)
        step = jax.jit(jax.vmap(env.step_env, (None, 0, 0, None)))
        after = step(jaxrl.key(0), losing(len(expected)), jnp.arange(len(expected)), params)[1]
        assert after.paddle.tolist() == expected


def test_the_gymnax_variant_is_gymnaxs():
    def follow(action, state):
        towards = jnp.where(state.x < state.paddle, 1, jnp.where(state.x > state.paddle, 2, 0))
        return jnp.where(state.down | (state.y < 6) | (state.time > 75), towards, action)

    def begin(theirs, ours):
        return theirs.replace(
            ball_x=ours.x, last_x=ours.x, ball_dir=jnp.where(ours.right, 2, 3).astype(theirs.ball_dir.dtype)
        )

    ours, theirs, first = beside_gymnax(GAME, 32, 1100, follow, begin)
    for name, got, expected in zip(ours._fields, ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(got)[first], np.asarray(expected)[first], name)
    assert (theirs.truncated & first).sum() > 3
    assert (theirs.terminated & first).sum() > 3
    assert (np.asarray(theirs.reward) * first).sum(0).max() > 60  # the wall was rebuilt


def test_variants():
    _, params = jaxrl.make(GAME)
    assert (params.max_steps_in_episode, params.sticky_action_prob) == (NO_LIMIT, 0.1)
    _, params = jaxrl.make(GAME, variant="gymnax")
    assert (params.max_steps_in_episode, params.sticky_action_prob) == (1000, 0.0)
    _, params = jaxrl.make(GAME, variant="gymnax", max_steps_in_episode=7)
    assert (params.max_steps_in_episode, params.sticky_action_prob) == (7, 0.0)


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
    state = jax.tree.map(lambda leaf: leaf[0], losing(1))
    empty, wall = "." * 10 + "\n", "B" * 10 + "\n"
    expected = empty + 3 * wall + 3 * empty + ".......o..\n" + "........O.\n" + "....P....."
    assert env.render(state, params) == expected
    picture = env.frame(state, params)
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    cells = picture[8::16, 8::16].reshape(-1, 3)
    assert len({tuple(cells[cell]) for cell in (0, 10, 77, 88, 94)}) == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"variant": "gym"}, "did you mean 'gymnax'"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob is 1.5"),
        ({"sticky_action_prob": -0.1}, "sticky_action_prob is -0.1"),
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"minimal_actions": 1}, "of type bool"),
        ({"sticky": 0.1}, "did you mean 'sticky_action_prob'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(GAME, **overrides)
    assert "\n" not in str(error.value)
