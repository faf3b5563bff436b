"""Asterix-MinAtar against the `minatar` package, move by move from the same states with the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_games import Game, column, play

import jaxrl
from jaxrl.envs import asterix, minatar
from jaxrl.envs.asterix import Params, Spawn, State

GAME = "Asterix-MinAtar"
MOVES = jax.jit(jax.vmap(asterix.play, (0, 0, 0, None)))
OBSERVE = jax.jit(jax.vmap(asterix.observe, (0, None)))


def slots(numbers) -> np.uint32:
    """Eight numbers below 16 as one word."""
    return np.uint32(sum(int(number) << 4 * i for i, number in enumerate(numbers)))


def ours(attributes: list[dict], last_action: np.ndarray, time: np.ndarray | None = None) -> State:
    """The package's states as ours, [moves]; `time` None: the first at which the difficulty is theirs."""
    get = {name: np.array([one[name] for one in attributes]) for name in attributes[0] if name != "entities"}
    rows = [one["entities"] for one in attributes]
    for row in rows:
        assert all(thing is None or (thing[1] == i + 1 and 0 <= thing[0] <= 9) for i, thing in enumerate(row))

    def of(number):
        return np.array([slots([thing is not None and number(thing) for thing in row]) for row in rows])

    if time is None:
        time = 102 * get["ramp_index"] + 100 - get["ramp_timer"]
    return State(
        x=get["player_x"].astype(np.int32),
        y=get["player_y"].astype(np.int32),
        columns=of(lambda thing: 1 + thing[0]),
        right=of(lambda thing: thing[2]),
        gold=of(lambda thing: thing[3]),
        spawn_timer=get["spawn_timer"].astype(np.int32),
        move_timer=get["move_timer"].astype(np.int32),
        last_action=np.asarray(last_action, np.int32),
        time=np.asarray(time, np.int32),
    )


def spawns(record) -> Spawn:
    """What the package drew, where it drew: a uniform for the side, one for the kind, a rank among the free rows."""
    drawn = [move.draws for move in record]
    for move in record:
        free = sum(thing is None for thing in move.before["entities"])
        methods = [(draw.method, draw.arguments) for draw in move.draws]
        assert methods in ([], [("rand", ())] * 2, [("rand", ()), ("rand", ()), ("randint", (free,))])
    side, kind, rank = (np.array([draws[i].result if len(draws) > i else 0 for draws in drawn]) for i in range(3))
    return Spawn(right=side < 0.5, gold=kind < 1 / 3, rank=rank.astype(np.uint32))


def careful(now, random):
    """Into a row without an enemy where it can, so that episodes are long; sometimes anywhere."""
    here = now.entities[now.player_y - 1]
    if random.rand() < 0.1 or here is None or here[3]:
        return random.choice(6) if random.rand() < 0.1 else 0
    for action, row in ((2, now.player_y - 1), (4, now.player_y + 1)):
        if 1 <= row <= 8 and (now.entities[row - 1] is None or now.entities[row - 1][3]):
            return action
    return random.choice(6)


def anywhere(now, random):
    """A start at some difficulty, with things in most rows."""
    level, share = random.randint(10), random.choice([0.5, 1.0])
    things = [[random.randint(10), i + 1, bool(random.randint(2)), random.rand() < 0.6] for i in range(8)]
    return {
        "ramp_index": level,
        "ramp_timer": 100 if level == 9 else random.randint(-1, 101),
        "spawn_speed": 10 - level,
        "move_speed": 5 - level // 2,
        "spawn_timer": random.randint(0, 10 - level),
        "move_timer": random.randint(0, 5 - level // 2),
        "entities": [thing if random.rand() < share else None for thing in things],
        "player_x": random.randint(10),
        "player_y": random.randint(1, 9),
    }


@pytest.fixture(scope="module")
def record():
    return [
        *play("asterix", 10_000, seed=0),
        *play("asterix", 6_000, seed=10, policy=careful),
        *play("asterix", 6_000, seed=20, starts=anywhere),
    ]


def test_moves_are_the_packages(record):
    before = ours([move.before for move in record], column(record, "last"))
    expected = ours([move.after for move in record], column(record, "done"))
    got, reward, terminated = MOVES(before, column(record, "done", np.int32), spawns(record), Params())
    there = minatar.filled(got.columns) * 1
    got = got._replace(right=got.right & there, gold=got.gold & there)  # of empty slots the rest may be anything
    for name in set(State._fields) - {"time"}:
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)
        assert getattr(got, name).dtype == getattr(expected, name).dtype, name
    np.testing.assert_array_equal(got.time, before.time)
    np.testing.assert_array_equal(reward, column(record, "reward"))
    np.testing.assert_array_equal(terminated, column(record, "terminated"))
    observation = OBSERVE(got, Params())
    np.testing.assert_array_equal(observation, column(record, "observation"))
    assert observation.dtype == bool
    assert (reward.dtype, terminated.dtype) == (np.float32, bool)
    assert (np.asarray(reward) > 0).sum() > 200
    assert np.asarray(terminated).sum() > 300
    full = np.array([None not in move.before["entities"] and move.before["spawn_timer"] == 0 for move in record])
    assert full.sum() > 10


def test_whole_episodes_are_the_packages(record):
    """From our own starts by our own states, the clock kept as the engine keeps it."""
    moves = record[:16_000]
    begins = np.array([True, *(move.terminated for move in moves[:-1])])
    begins[10_000] = True

    def body(state, given):
        begins, done, spawn = given
        fresh = asterix.reset(jaxrl.key(0), Params())
        state = jax.tree.map(lambda new, old: jnp.where(begins, new, old), fresh, state)
        state, reward, terminated = asterix.play(state, done, spawn, Params())
        state = state._replace(time=state.time + 1)
        return state, (asterix.observe(state, Params()), reward, terminated)

    given = (begins, column(moves, "done", np.int32), spawns(moves))
    start = asterix.reset(jaxrl.key(0), Params())
    got = jax.jit(lambda given: jax.lax.scan(body, start, given)[1])(given)
    for ours_, name in zip(got, ("observation", "reward", "terminated"), strict=True):
        np.testing.assert_array_equal(ours_, column(moves, name), name)
    assert max(move.after["ramp_index"] for move in moves) >= 2


@pytest.mark.parametrize("ramping", [True, False])
def test_difficulty_rises_with_time_as_in_the_package(ramping):
    """The player's row is kept clear, for so long that the difficulty is at its top."""
    moves = []
    game = Game("asterix", 5, difficulty_ramping=ramping)
    for _ in range(1_200):
        game.inject(entities=[None, *game.now.entities[1:]], player_y=1)
        moves.append(game.move(0))
    params = Params(difficulty_ramping=ramping)
    before = ours([move.before for move in moves], column(moves, "last"), np.arange(len(moves)))
    got, reward, _ = MOVES(before, column(moves, "done", np.int32), spawns(moves), params)
    expected = ours([move.after for move in moves], column(moves, "done"))
    for name in ("columns", "spawn_timer", "move_timer"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)
    assert not np.any(reward)
    assert moves[-1].after["ramp_index"] == (9 if ramping else 0)
    assert {move.after["move_speed"] for move in moves} == (set(range(1, 6)) if ramping else {5})


@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_what_comes_in_is_uniform(make_key):
    """Every pair of side and kind in every free row, a third of them gold; the package draws so too."""
    taken = [1, 4, 5]  # slots
    columns = slots([5 if i in taken else 0 for i in range(8)])
    start = asterix.reset(make_key(0), Params())._replace(columns=jnp.asarray(columns), spawn_timer=jnp.int32(0))
    keys = jax.random.split(make_key(1), 30_000)
    after = jax.jit(jax.vmap(asterix.step, (0, None, None, None)))(keys, start, 0, Params())[0]
    board = np.asarray(OBSERVE(after, Params()))
    came = (board[:, 1:9] & ~np.asarray(asterix.observe(start, Params()))[1:9])[..., [1, 3]].sum(2)  # [N, 8, kind]
    assert (came.sum((1, 2)) == 1).all()
    row, gold = came.sum(2).argmax(1), came[:, :, 1].any(1)
    right = np.asarray(after.right >> (4 * row).astype(np.uint32) & 1)
    counts = np.zeros((8, 2, 2))
    np.add.at(counts, (row, gold.astype(int), right), 1)
    free = [i for i in range(8) if i not in taken]
    assert counts[taken].sum() == 0
    expected = len(keys) / 5 / 2 * np.array([2 / 3, 1 / 3])[None, :, None]
    assert ((counts[free] - expected) ** 2 / expected).sum() < 43.8  # 19 degrees of freedom, p = 0.001
    column = np.where(right, 0, 9)
    assert board[np.arange(len(row)), row + 1, column][:, [1, 3]].any(1).all()

    game, theirs = Game("asterix", 7), np.zeros(2)
    for _ in range(600):
        game.inject(entities=[None] * 8, spawn_timer=0)
        game.move(0)
        theirs[int(next(thing for thing in game.now.entities if thing is not None)[3])] += 1
    assert ((theirs - [400, 200]) ** 2 / [400, 200]).sum() < 10.8


def test_last_action_sticks():
    start = asterix.reset(jaxrl.key(0), Params())._replace(last_action=jnp.int32(minatar.RIGHT))
    keys = jax.random.split(jaxrl.key(3), 10_000)
    step = jax.jit(jax.vmap(asterix.step, (0, None, None, None)))
    for probability, low, high in ((0.0, 0, 0), (0.1, 0.09, 0.11), (1.0, 1, 1)):
        after = step(keys, start, minatar.LEFT, Params(sticky_action_prob=probability))[0]
        assert low <= (np.asarray(after.x) == 6).mean() <= high
        np.testing.assert_array_equal(after.last_action == minatar.RIGHT, after.x == 6)


def test_an_episode_starts_as_the_packages():
    obs, state = jaxrl.make(GAME)[0].reset(jaxrl.key(0))
    game = Game("asterix")
    np.testing.assert_array_equal(obs, game.observe())
    theirs = jax.tree.map(lambda x: x[0], ours([game.attributes()], np.zeros(1)))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(x == y) and x.dtype == y.dtype, state, theirs))


def test_action_sets_and_spaces():
    env, params = jaxrl.make(GAME)
    assert env.action_space(params).n == env.num_actions == len(asterix.MINIMAL) == 5
    assert list(asterix.MINIMAL) == Game("asterix").now.minimal_action_set()
    every, all_params = jaxrl.make(GAME, minimal_actions=False)
    assert every.action_space(all_params).n == every.num_actions == 6
    state = env.reset(jaxrl.key(0))[1]
    for action, place in enumerate([(5, 5), (4, 5), (5, 4), (6, 5), (5, 6)]):
        for one in (env, every):
            after = one.step(jaxrl.key(9), state, action, one.default_params.replace(sticky_action_prob=0.0))[1]
            assert (after.x, after.y) == place
    after = every.step(jaxrl.key(9), state, minatar.FIRE, all_params.replace(sticky_action_prob=0.0))[1]
    assert (after.x, after.y, after.last_action) == (5, 5, minatar.FIRE)
    assert env.observation_space(params).contains(env.reset(jaxrl.key(0))[0])


def test_x64_changes_no_dtype():
    env, params = jaxrl.make(GAME)
    with jax.enable_x64(True):
        state = env.reset(jaxrl.key(0))[1]
        obs, after, reward, *_ = env.step(jaxrl.key(0), state, 1, params)
    dtypes = ["int32"] * 2 + ["uint32"] * 3 + ["int32"] * 4
    assert [leaf.dtype for leaf in state] == [leaf.dtype for leaf in after] == dtypes
    assert (obs.dtype, reward.dtype) == (bool, np.float32)


def test_variants_differ_in_limit_and_stickiness():
    assert jaxrl.make(GAME)[1] == Params()
    _, params = jaxrl.make(GAME, variant="gymnax")
    assert (params.sticky_action_prob, params.max_steps_in_episode) == (0.0, 1000)


def test_pictures_show_the_board():
    env, params = jaxrl.make(GAME)
    state = env.reset(jaxrl.key(0))[1]._replace(
        columns=slots([4, 0, 1, 0, 0, 0, 0, 10]), right=slots([1, 0, 1]), gold=slots([1])
    )
    lines = env.render(state, params).split("\n")
    assert lines[1] == "..-G......"
    assert lines[3] == "E........."
    assert lines[5] == ".....P...."
    assert lines[8] == ".........E"
    assert env.frame(state, params).shape[-1] == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"variant": "gymnaz"}, "did you mean 'gymnax'"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob is 1.5"),
        ({"ramp_interval": 0}, "ramp_interval is 0"),
        ({"init_spawn_interval": 0}, "init_spawn_interval is 0"),
        ({"init_move_interval": -1}, "init_move_interval is -1"),
        ({"max_steps_in_episode": 0}, "max_steps_in_episode is 0"),
        ({"minimal_actions": 1}, "of type bool"),
        ({"difficulty_ramp": False}, "did you mean 'difficulty_ramping'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(GAME, **overrides)
    assert "\n" not in str(error.value)
