"""Freeway-MinAtar against the `minatar` package, move by move from the same states with the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_games import Game, column, play

import jaxrl
from jaxrl.envs import freeway, minatar
from jaxrl.envs.freeway import Params, State

GAME = "Freeway-MinAtar"
OBSERVE = jax.jit(jax.vmap(freeway.observe, (0, None)))


def slots(numbers: np.ndarray) -> np.ndarray:
    """Numbers below 16, [..., 8], as words, uint32 [...]."""
    return (np.asarray(numbers, np.uint64) << 4 * np.arange(8, dtype=np.uint64)).sum(-1).astype(np.uint32)


def kinds(speeds: np.ndarray) -> np.ndarray:
    """Speeds with a sign as `State.cars`."""
    return slots(np.abs(speeds) + 8 * (np.asarray(speeds) > 0))


def ours(attributes: list[dict], last_action: np.ndarray) -> State:
    """The package's states as ours, [moves]."""
    cars = np.array([one["cars"] for one in attributes])
    assert (cars[..., 1] == np.arange(1, 9)).all()
    return State(
        y=column_of(attributes, "pos"),
        wait=column_of(attributes, "move_timer"),
        columns=slots(1 + cars[..., 0]),
        waits=slots(cars[..., 2]),
        cars=kinds(cars[..., 3]),
        last_action=np.asarray(last_action, np.int32),
        time=2500 - column_of(attributes, "terminate_timer"),
    )


def column_of(attributes: list[dict], name: str) -> np.ndarray:
    return np.array([one[name] for one in attributes], np.int32)


def drawn(draws: list) -> np.ndarray:
    """The signed speeds [8] of one drawing of the package: a speed each, then a uniform for each sign."""
    assert [(draw.method, draw.arguments) for draw in draws] == [("randint", (1, 6, 8)), ("rand", (8,))]
    return np.asarray(draws[0].result) * np.where(np.asarray(draws[1].result) < 0.5, -1, 1)


def upwards(now, random):
    """Mostly up, so that the lanes are crossed."""
    return 2 if random.rand() < 0.9 else random.randint(6)


def anywhere(now, random):
    """A start in any lane, the cars anywhere."""
    cars = []
    for lane in range(1, 9):
        speed = random.randint(1, 6)
        cars.append([random.randint(10), lane, random.randint(speed + 1), int(random.choice([-1, 1])) * speed])
    return {
        "pos": random.randint(1, 10),
        "move_timer": random.randint(4),
        "cars": cars,
        "terminate_timer": random.randint(60),
    }


@pytest.fixture(scope="module")
def record():
    return [
        *play("freeway", 6_000, seed=0),
        *play("freeway", 10_000, seed=10, policy=upwards),
        *play("freeway", 6_000, seed=20, policy=upwards, starts=anywhere),
    ]


def test_moves_are_the_packages(record):
    before = ours([move.before for move in record], column(record, "last"))
    expected = ours([move.after for move in record], column(record, "done"))
    crossings = np.array([len(move.draws) > 0 for move in record])
    new_cars = np.array([kinds(drawn(move.draws)) if move.draws else 0 for move in record], np.uint32)
    step = jax.jit(jax.vmap(freeway.play, (0, 0, 0, None)))
    got, reward, terminated = step(before, column(record, "done", np.int32), new_cars, Params())
    for name in set(State._fields) - {"time"}:
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)
        assert getattr(got, name).dtype == getattr(expected, name).dtype, name
    np.testing.assert_array_equal(reward, column(record, "reward"))
    np.testing.assert_array_equal(reward, crossings)
    truncated = expected.time >= Params().max_steps_in_episode
    np.testing.assert_array_equal(terminated | truncated, column(record, "terminated"))
    observation = OBSERVE(got, Params())
    np.testing.assert_array_equal(observation, column(record, "observation"))
    assert observation.dtype == bool
    assert (reward.dtype, terminated.dtype) == (np.float32, bool)
    assert crossings.sum() > 100
    assert truncated.sum() > 100
    back = (np.asarray(got.y) == 9) & (before.y < 9) & ~crossings
    assert back.sum() > 500


def test_the_clock_truncates_where_the_package_ends():
    env, params = jaxrl.make(GAME)
    game, steps = Game("freeway"), 1
    while not game.move(0).terminated:
        steps += 1
    assert params.max_steps_in_episode == steps
    state = env.reset(jaxrl.key(0))[1]._replace(time=jnp.int32(steps - 2))
    _, state, _, terminated, truncated, _ = env.step(jaxrl.key(1), state, 0)
    assert not truncated
    _, state, _, terminated, truncated, _ = env.step(jaxrl.key(2), state, 0)
    assert truncated
    assert not terminated
    assert state.time == 0


def test_an_episode_starts_as_the_packages():
    keys = jax.random.split(jaxrl.key(0), 200)
    obs, states = jax.jit(jax.vmap(jaxrl.make(GAME)[0].reset))(keys)
    game, attributes = Game("freeway"), []
    for _ in keys:
        drawn(game.reset())
        attributes.append(game.attributes())
    theirs = ours(attributes, np.zeros(len(keys)))
    for name in ("y", "wait", "columns", "last_action", "time"):
        np.testing.assert_array_equal(getattr(states, name), getattr(theirs, name), name)
        assert getattr(states, name).dtype == getattr(theirs, name).dtype, name
    np.testing.assert_array_equal(states.waits, np.asarray(states.cars) & 0x77777777)
    game.inject(cars=[[0, i + 1, *_speed(int(states.cars[0]) >> 4 * i & 15)] for i in range(8)])
    np.testing.assert_array_equal(obs[0], game.observe())


def _speed(kind: int) -> tuple[int, int]:
    return kind & 7, (kind & 7) if kind & 8 else -(kind & 7)


@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_traffic_is_uniform(make_key):
    """At a start and after a crossing; every lane by itself, and each two neighbours together."""
    keys = jax.random.split(make_key(1), 20_000)
    fresh = jax.jit(jax.vmap(freeway.reset, (0, None)))(keys, Params())
    below = freeway.reset(make_key(0), Params())._replace(
        y=jnp.int32(1), wait=jnp.int32(0), columns=jnp.asarray(slots(np.full(8, 9)))
    )
    up = jnp.int32(1)
    crossed, reward, _ = jax.jit(jax.vmap(freeway.step, (0, None, None, None)))(
        keys, below, up, Params(sticky_action_prob=0.0)
    )
    assert np.all(reward)
    for cars in (fresh.cars, crossed.cars):
        kind = np.asarray(cars)[:, None] >> (4 * np.arange(8, dtype=np.uint32)) & 15
        assert set(np.unique(kind)) == {1, 2, 3, 4, 5, 9, 10, 11, 12, 13}
        digit = np.where(kind > 8, kind - 4, kind - 1)
        counts = np.stack([np.bincount(lane, minlength=10) for lane in digit.T])
        assert ((counts - 2000) ** 2 / 2000).sum(1).max() < 32  # 9 degrees of freedom, 8 lanes, p = 0.002
        pairs = np.stack([np.bincount(10 * digit[:, i] + digit[:, (i + 1) % 8], minlength=100) for i in range(8)])
        assert ((pairs - 200) ** 2 / 200).sum(1).max() < 162  # 99 degrees of freedom, 8 pairs, p = 0.0005


def test_the_last_crossing_and_the_next_start_draw_apart():
    env, params = jaxrl.make(GAME, sticky_action_prob=0.0)
    state = env.reset(jaxrl.key(0))[1]._replace(
        y=jnp.int32(1), wait=jnp.int32(0), time=jnp.int32(params.max_steps_in_episode - 1)
    )
    keys = jax.random.split(jaxrl.key(1), 500)
    _, after, reward, _, truncated, info = jax.vmap(env.step, (0, None, None, None))(keys, state, 1, params)
    assert np.all(reward)
    assert np.all(truncated)
    ours_at_start = np.asarray(OBSERVE(after, params))[..., 2:].any(2)  # [N, row, speed]
    same = (ours_at_start & np.asarray(info["final_observation"])[..., 2:].any(2))[:, 1:9].sum((1, 2))
    assert abs(same.mean() / 8 - 1 / 5) < 0.03


def test_last_action_sticks():
    start = freeway.reset(jaxrl.key(0), Params())._replace(
        last_action=jnp.int32(minatar.UP), wait=jnp.int32(0), columns=jnp.asarray(slots(np.full(8, 9)))
    )
    keys = jax.random.split(jaxrl.key(3), 10_000)
    step = jax.jit(jax.vmap(freeway.step, (0, None, None, None)))
    for probability, low, high in ((0.0, 0, 0), (0.1, 0.09, 0.11), (1.0, 1, 1)):
        after = step(keys, start, 0, Params(sticky_action_prob=probability))[0]
        assert low <= (np.asarray(after.y) == 8).mean() <= high
        np.testing.assert_array_equal(after.last_action == minatar.UP, after.y == 8)


def test_action_sets_and_spaces():
    env, params = jaxrl.make(GAME)
    assert env.action_space(params).n == env.num_actions == 3
    assert list(freeway.MINIMAL) == Game("freeway").now.minimal_action_set()
    every, all_params = jaxrl.make(GAME, minimal_actions=False)
    assert every.action_space(all_params).n == every.num_actions == 6
    obs, state = env.reset(jaxrl.key(0))
    state = state._replace(y=jnp.int32(5), wait=jnp.int32(0), columns=jnp.asarray(slots(np.full(8, 9))))
    for one, rows in ((env, [5, 4, 6]), (every, [5, 5, 4, 5, 6, 5])):
        one_params = one.default_params.replace(sticky_action_prob=0.0)
        after = jax.vmap(one.step, (None, None, 0, None))(jaxrl.key(9), state, jnp.arange(len(rows)), one_params)[1]
        np.testing.assert_array_equal(after.y, rows)
    assert env.observation_space(params).contains(obs)


def test_x64_changes_no_dtype():
    env, params = jaxrl.make(GAME)
    with jax.enable_x64(True):
        state = env.reset(jaxrl.key(0))[1]
        obs, after, reward, *_ = env.step(jaxrl.key(0), state, 1, params)
    dtypes = ["int32"] * 2 + ["uint32"] * 3 + ["int32"] * 2
    assert [leaf.dtype for leaf in state] == [leaf.dtype for leaf in after] == dtypes
    assert (obs.dtype, reward.dtype) == (bool, np.float32)


def test_variants_differ_in_limit_and_stickiness():
    assert jaxrl.make(GAME)[1] == Params()
    _, params = jaxrl.make(GAME, variant="gymnax")
    assert (params.sticky_action_prob, params.max_steps_in_episode) == (0.0, 2500)


def test_pictures_show_the_board():
    env, params = jaxrl.make(GAME)
    state = env.reset(jaxrl.key(0))[1]._replace(
        y=jnp.int32(3),
        columns=jnp.asarray(slots(np.array([4, 1, 10, 3, 3, 3, 3, 3]))),
        cars=jnp.asarray(kinds(np.array([5, 2, -1, 3, 3, 3, 3, -4]))),
    )
    lines = env.render(state, params).split("\n")
    assert lines[0] == lines[9] == ".........."
    assert lines[1] == "..5#......"
    assert lines[2] == "#........2"
    assert lines[3] == "1...C....#"
    assert lines[8] == "..#4......"
    assert env.frame(state, params).shape[-1] == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"variant": "gymnaz"}, "did you mean 'gymnax'"),
        ({"sticky_action_prob": -0.1}, "sticky_action_prob is -0.1"),
        ({"player_speed": 0}, "player_speed is 0"),
        ({"max_steps_in_episode": 0}, "max_steps_in_episode is 0"),
        ({"minimal_actions": 1}, "of type bool"),
        ({"player_sped": 2}, "did you mean 'player_speed'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(GAME, **overrides)
    assert "\n" not in str(error.value)
