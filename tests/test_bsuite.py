"""bsuite's tasks against its published rules, restated here as plain Python, one class a task."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import catch, deep_sea, discounting_chain, memory_chain, umbrella_chain

P_001 = {1: 10.8, 4: 18.5}  # chi-squared's quantiles at p = 0.001 by degrees of freedom


def step_all(env, params, states, actions, seed=0):
    """`step_env` of every lane, as numpy: (obs, state, reward, terminated)."""
    keys = jax.random.split(jaxrl.key(seed), len(actions))
    many = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))
    return jax.device_get(many(keys, jax.tree.map(jnp.asarray, states), jnp.asarray(actions), params)[:4])


def play(env, params, states, actions, seed=0):
    """Episodes never reset from `states` [N] by `actions` [T, N]: (first obs [N], obs, reward, ends [T, N])."""

    def run(states, actions, keys):
        def body(states, xs):
            obs, states, reward, terminated, _ = jax.vmap(env.step_env, (0, 0, 0, None))(xs[0], states, xs[1], params)
            return states, (obs, reward, terminated)

        return jax.vmap(env.get_obs, (0, None))(states, params), jax.lax.scan(body, states, (keys, actions))[1]

    keys = jax.random.split(jaxrl.key(seed), np.shape(actions))
    first, rest = jax.device_get(jax.jit(run)(jax.tree.map(jnp.asarray, states), jnp.asarray(actions), keys))
    return first, *rest


def columns(rows):
    """A list of tuples as int32 arrays, one a field."""
    return (np.array(column, np.int32) for column in zip(*rows, strict=True))


def chi_squared(counts):
    """Of counts that should be equal."""
    counts = np.asarray(counts, float)
    return ((counts - counts.mean()) ** 2 / counts.mean()).sum()


# Catch


@pytest.mark.parametrize(("rows", "width"), [(10, 5), (2, 1), (4, 3)])
def test_catch_everywhere(rows, width):
    env, params = jaxrl.make("Catch-bsuite", rows=rows, columns=width)
    cases = list(itertools.product(range(width), range(width), range(rows - 1), range(3)))
    ball, paddle, time, action = columns(cases)
    obs, after, reward, terminated = step_all(env, params, catch.State(ball, paddle, time), action)
    for i, (ball, paddle, row, action) in enumerate(cases):
        paddle += {0: -1, 1: 0, 2: 1}[action]
        paddle = 0 if paddle < 0 else width - 1 if paddle == width else paddle
        row += 1
        board = np.zeros((rows, width))
        board[row][ball] = board[rows - 1][paddle] = 1
        np.testing.assert_array_equal(obs[i], board)
        landed = row == rows - 1
        assert (reward[i], terminated[i]) == (((1 if ball == paddle else -1) if landed else 0), landed)
        assert (after.ball[i], after.paddle[i], after.time[i]) == (ball, paddle, row)


def test_catch_starts_in_any_column():
    env, params = jaxrl.make("Catch-bsuite")
    obs, _ = jax.vmap(env.reset)(jax.random.split(jaxrl.key(0), 5000))
    assert (obs.shape, obs.dtype) == ((5000, 10, 5), bool)
    assert chi_squared(obs[:, 0].sum(0)) < P_001[4]
    np.testing.assert_array_equal(obs[:, 9].sum(0), [0, 0, 5000, 0, 0])
    assert obs.sum() == 10_000
    assert params == catch.Params()


def test_catch_is_drawn():
    env, params = jaxrl.make("Catch-bsuite", rows=3, columns=3)
    assert env.render(catch.State(0, 1, 1), params) == "...\no..\n.=."
    assert env.render(catch.State(1, 1, 2), params) == "...\n...\n.@."
    assert (env.frame(catch.State(0, 1, 1), params)[36, 12] == env.frame(catch.State(0, 2, 1), params)[36, 12]).all()
    assert (env.frame(catch.State(0, 1, 1), params) != env.frame(catch.State(0, 2, 1), params)).any()


# DeepSea


def layout(size, seed=42):
    return np.random.RandomState(seed).binomial(1, 0.5, [size, size])  # bsuite's own draw


@pytest.mark.parametrize(("size", "seed", "randomize"), [(2, 0, True), (3, 1, True), (8, 42, True), (5, 7, False)])
def test_deep_sea_everywhere(size, seed, randomize):
    env, params = jaxrl.make("DeepSea-bsuite", size=size, mapping_seed=seed, randomize_actions=randomize)
    rights = layout(size, seed) if randomize else np.ones((size, size), int)
    cases = list(itertools.product(range(size), range(size), range(2)))
    row, column, action = columns(cases)
    obs, after, reward, terminated = step_all(env, params, deep_sea.State(column, row), action)
    for i, (row, column, action) in enumerate(cases):
        expected = 0.0
        if action == rights[row][column]:
            expected = (1 if column == size - 1 else 0) - 0.01 / size
            column = min(column + 1, size - 1)
        else:
            column = max(column - 1, 0)
        sea = np.zeros((size, size))
        if row + 1 < size:
            sea[row + 1][column] = 1
        np.testing.assert_array_equal(obs[i], sea)
        np.testing.assert_allclose(reward[i], expected, rtol=1e-6)
        assert (after.column[i], terminated[i]) == (column, row + 1 == size)


def test_deep_sea_has_one_best_dive():
    env, params = jaxrl.make("DeepSea-bsuite", size=6, unscaled_move_cost=0.06)
    dives = np.array(list(itertools.product(range(2), repeat=6)), np.int32).T
    zeros = np.zeros(64, np.int32)
    first, _, reward, ends = play(env, params, deep_sea.State(zeros, zeros), dives)
    returns = reward.sum(0)
    assert (returns > 0).sum() == 1
    np.testing.assert_allclose(returns.max(), 1 - 0.06, rtol=1e-5)
    np.testing.assert_array_equal(dives[:, returns.argmax()], layout(6).diagonal())
    np.testing.assert_array_equal(ends.sum(0), 1)
    assert ends[-1].all()
    assert first[:, 0, 0].all()


def test_stochastic_deep_sea_slips_and_adds_noise():
    size, draws = 4, 4000
    env, params = jaxrl.make("DeepSea-bsuite", size=size, deterministic=False)
    rights = layout(size)
    cases = list(itertools.product(((1, 1), (3, 0), (3, 1), (3, 3)), (0, 1)))
    row, column, action = columns((*cell, action) for cell, action in cases for _ in range(draws))
    _, after, reward, _ = step_all(env, params, deep_sea.State(column, row), action)
    for i, ((row, column), action) in enumerate(cases):
        arrived, paid = after.column[i * draws :][:draws], reward[i * draws :][:draws]
        moved = arrived != column
        right = action == rights[row, column]
        z = paid - right * ((column == 3) - 0.01 / size)
        if row == 3 and column in (0, 3):  # N(0, 1)
            assert abs(z.mean()) < 0.06
            assert abs(z.std() - 1) < 0.05
            assert abs((z**4).mean() - 3) < 0.6
            assert not 0 < moved.mean() < 1 or abs(np.corrcoef(z, moved)[0, 1]) < 0.06
        else:
            assert np.abs(z).max() < 1e-6
        if right and column < 3:
            assert abs(moved.mean() - 3 / 4) < 0.025
            assert (arrived[moved] == column + 1).all()
        elif not right:
            assert (arrived == max(column - 1, 0)).all()


@pytest.mark.parametrize("deterministic", [True, False])
def test_deep_sea_table(deterministic):
    """Always right is worth bsuite's `optimal_return`, and the table's rows are what `step` does."""
    size = 5
    env, params = jaxrl.make("DeepSea-bsuite", size=size, deterministic=deterministic, mapping_seed=3)
    P, R, terminal, start = env.tabular_mdp(params)
    np.testing.assert_allclose(P.sum(2), 1, atol=1e-12)
    assert terminal.tolist() == [False] * 25 + [True]
    assert start.tolist() == [1.0] + [0.0] * 25
    right = np.append(layout(size, 3).ravel(), 0)
    policy_P, policy_R = P[range(26), right], R[range(26), right]
    value = np.linalg.solve(np.eye(26) - policy_P * ~terminal[None, :], policy_R)
    chance = 1 if deterministic else (1 - 1 / size) ** (size - 1)
    np.testing.assert_allclose(value[0], chance - 0.01, rtol=1e-9)
    if deterministic:
        row, column, action = columns(itertools.product(range(size), range(size), range(2)))
        _, after, reward, _ = step_all(env, params, deep_sea.State(column, row), action)
        to = np.where(row + 1 < size, (row + 1) * size + after.column, 25)
        np.testing.assert_array_equal(P[row * size + column, action, to], 1)
        np.testing.assert_allclose(R[row * size + column, action], reward, atol=1e-7)


def test_deep_sea_is_drawn():
    env, params = jaxrl.make("DeepSea-bsuite", size=3)
    upper, middle, lower = ("".join(map(str, row)) for row in layout(3))
    marked = f"{middle[0]}\x1b[41m{middle[1]}\x1b[0m{middle[2]}"
    assert env.render(deep_sea.State(1, 1), params) == f"{upper}\n{marked}\n{lower}"
    assert env.render(deep_sea.State(1, 3), params) == f"{upper}\n{middle}\n{lower}"
    assert (env.frame(deep_sea.State(1, 1), params) != env.frame(deep_sea.State(1, 3), params)).any()


# MemoryChain


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (2, 3), (5, 2)])
def test_memory_chain_whole_episodes(length, bits):
    env, params = jaxrl.make("MemoryChain-bsuite", memory_length=length, num_bits=bits)
    cases = list(itertools.product(itertools.product(range(2), repeat=bits), range(bits), range(2)))
    context = np.array([c for c, _, _ in cases], np.int32)
    query, answer = (np.array([case[i] for case in cases], np.int32) for i in (1, 2))
    actions = np.random.default_rng(0).integers(0, 2, (length + 1, len(cases)))
    actions[-1] = answer
    first, obs, reward, ends = play(env, params, memory_chain.State(context, query, query * 0), actions)

    def seen(context, query, time):
        shown = [1 - time / length, query if time == length - 1 else 0]
        return shown + [2 * bit - 1 if time == 0 else 0 for bit in context]

    for i, (context, query, answer) in enumerate(cases):
        np.testing.assert_allclose(first[i], seen(context, query, 0), atol=1e-6)
        for t in range(length + 1):  # what a step shows is what was there before it
            np.testing.assert_allclose(obs[t, i], seen(context, query, t), atol=1e-6)
        assert (reward[:-1, i] == 0).all()
        assert reward[-1, i] == (1 if answer == context[query] else -1)
    assert ends.tolist() == [[t == length] * len(cases) for t in range(length + 1)]


def test_memory_chain_starts_are_fair():
    env, _ = jaxrl.make("MemoryChain-bsuite", num_bits=5)
    _, state = jax.vmap(env.reset)(jax.random.split(jaxrl.key(1), 4000))
    assert chi_squared(np.bincount(state.query, minlength=5)) < P_001[4]
    codes = np.bincount(np.asarray(state.context) @ (1 << np.arange(5)), minlength=32)
    assert chi_squared(codes) < 61.1  # 31 degrees of freedom
    assert np.abs(np.corrcoef(np.c_[state.context, state.query].T) - np.eye(6)).max() < 0.06


# UmbrellaChain


@pytest.mark.parametrize(("length", "distractors"), [(1, 0), (2, 3), (5, 40)])
def test_umbrella_chain_whole_episodes(length, distractors):
    env, params = jaxrl.make("UmbrellaChain-bsuite", chain_length=length, n_distractor=distractors)
    cases = list(itertools.product(range(2), range(2), range(2)))
    need, has, take = columns(cases)
    actions = np.random.default_rng(0).integers(0, 2, (length, 8))
    actions[0] = take
    noise = np.asarray(env.reset(jaxrl.key(0))[1].noise)
    first, obs, reward, ends = play(
        env, params, umbrella_chain.State(need, has, np.tile(noise, (8, 1)), need * 0), actions
    )
    for i, (need, has, take) in enumerate(cases):
        np.testing.assert_allclose(first[i, :3], [need, has, 1], atol=1e-6)
        for t in range(length):
            np.testing.assert_allclose(obs[t, i, :3], [need, take, 1 - (t + 1) / length], atol=1e-6)
        assert reward[-1, i] == (1 if take == need else -1)
    assert obs.shape == (length, 8, 3 + distractors)
    assert set(np.unique(reward)) == {-1, 1}
    assert set(np.unique(obs[..., 3:])) <= {0, 1}
    assert ends.tolist() == [[t == length - 1] * 8 for t in range(length)]


def test_umbrella_chain_coins_are_fair_and_apart():
    """Need, has, distractors at the start; the reward and the distractors of steps: all fair, all uncorrelated."""
    env, params = jaxrl.make("UmbrellaChain-bsuite", n_distractor=33)
    first, start = jax.vmap(env.reset)(jax.random.split(jaxrl.key(2), 4000))
    _, obs, reward, _ = play(env, params, start, np.zeros((2, 4000), int), seed=3)
    coins = np.c_[first[:, [0, 1]], first[:, 3:], obs[0, :, 3:], obs[1, :, 3:], reward.T > 0]
    assert np.abs(coins.mean(0) - 0.5).max() < 0.04
    assert np.abs(np.corrcoef(coins.T) - np.eye(coins.shape[1])).max() < 0.08


def test_umbrella_chain_end_and_start_draw_apart():
    """`step` at an end resets: neither the last distractors nor the last reward may tell the new start."""
    env, _ = jaxrl.make("UmbrellaChain-bsuite", chain_length=1, n_distractor=4)
    state = env.reset(jaxrl.key(0))[1]
    obs, _, _, terminated, _, info = jax.vmap(env.step, (0, None, None))(jax.random.split(jaxrl.key(4), 4000), state, 1)
    assert terminated.all()
    coins = np.c_[info["final_observation"][:, 3:], obs[:, [0, 1]], obs[:, 3:]]
    assert np.abs(np.corrcoef(coins.T) - np.eye(10)).max() < 0.07


# DiscountingChain


@pytest.mark.parametrize(("seed", "best"), [(3, 3), (10, 0)])
def test_discounting_chain_whole_episodes(seed, best):
    env, params = jaxrl.make("DiscountingChain-bsuite", mapping_seed=seed)
    actions = np.random.default_rng(0).integers(0, 5, (100, 5))
    actions[0] = range(5)
    start = discounting_chain.State(np.full(5, -1, np.int32), np.zeros(5, np.int32))
    first, obs, reward, ends = play(env, params, start, actions)
    np.testing.assert_array_equal(first, np.tile([-1.0, 0.0], (5, 1)))
    for chain, when in enumerate([1, 3, 10, 30, 100]):
        expected = np.zeros(100)
        expected[when - 1] = 1.1 if chain == best else 1
        np.testing.assert_allclose(reward[:, chain], expected, rtol=1e-6)
        np.testing.assert_allclose(obs[:, chain], np.c_[np.full(100, chain), np.arange(1, 101) / 100], atol=1e-6)
    assert not ends[:-1].any()
    assert ends[-1].all()


def test_discounting_chains_may_be_vmapped():
    """The twenty settings of bsuite's experiment in one program."""
    env, params = jaxrl.make("DiscountingChain-bsuite")
    axes = jax.tree.map(lambda _: None, params).replace(mapping_seed=0)
    sweep = params.replace(mapping_seed=jnp.arange(20))
    reward = jax.vmap(env.step, (None, None, None, axes))(jaxrl.key(0), env.reset(jaxrl.key(0))[1], 0, sweep)[2]
    np.testing.assert_allclose(reward, [1.1 if seed % 5 == 0 else 1 for seed in range(20)], rtol=1e-6)


# all of them

SHAPES = {
    "Catch-bsuite": (10, 5),
    "DeepSea-bsuite": (8, 8),
    "MemoryChain-bsuite": (3,),
    "UmbrellaChain-bsuite": (3,),
    "DiscountingChain-bsuite": (2,),
}
LENGTHS = {
    "Catch-bsuite": 9,
    "DeepSea-bsuite": 8,
    "MemoryChain-bsuite": 6,
    "UmbrellaChain-bsuite": 10,
    "DiscountingChain-bsuite": 100,
}


@pytest.mark.parametrize("env_id", SHAPES)
def test_shapes_spaces_lengths(env_id):
    env, params = jaxrl.make(env_id)
    space = env.observation_space(params)

    def body(state, key):
        obs, state, _, *ends, info = env.step(key, state, 1)
        return state, (obs, info["final_observation"], *ends)

    obs, state = env.reset(jaxrl.key(0))
    scan = jax.jit(lambda state: jax.lax.scan(body, state, jax.random.split(jaxrl.key(1), 200))[1])
    seen, final, terminated, truncated = scan(state)
    assert obs.shape == space.shape == SHAPES[env_id]
    assert obs.dtype == seen.dtype == final.dtype == space.dtype
    assert jax.vmap(space.contains)(jnp.concatenate([seen, final])).all()
    assert not truncated.any()
    assert np.flatnonzero(terminated)[0] + 1 == LENGTHS[env_id]
    assert terminated.sum() == 200 // LENGTHS[env_id]


@pytest.mark.parametrize("env_id", SHAPES)
def test_x64_changes_no_dtype(env_id):
    env, params = jaxrl.make(env_id)
    with jax.enable_x64(True):
        obs, state = env.reset(jaxrl.key(0))
        after, stepped, reward, terminated, *_ = env.step(jaxrl.key(0), state, 1)
    assert {str(x.dtype) for x in jax.tree.leaves((state, stepped))} <= {"int32", "uint32"}
    assert obs.dtype == after.dtype == (bool if obs.ndim == 2 else np.float32)
    assert (reward.dtype, terminated.dtype) == (np.float32, bool)


@pytest.mark.parametrize("env_id", SHAPES)
def test_frames_show_where_one_is(env_id):
    env, params = jaxrl.make(env_id)
    _, state = env.reset(jaxrl.key(0))
    first, then, last = (env.frame(state._replace(time=time), params) for time in (0, 1, LENGTHS[env_id]))
    assert first.dtype == then.dtype == last.dtype == np.uint8
    assert first.shape == then.shape == last.shape
    assert (first != then).any()
    assert (then != last).any()


@pytest.mark.parametrize(
    ("env_id", "overrides", "message"),
    [
        ("Catch-bsuite", {"rows": 1}, "rows is 1; it must be an integer of at least 2"),
        ("Catch-bsuite", {"columns": 0}, "columns is 0"),
        ("Catch-bsuite", {"max_steps_in_episode": 0}, "max_steps_in_episode is 0"),
        ("DeepSea-bsuite", {"size": 1}, "size is 1"),
        ("DeepSea-bsuite", {"mapping_seed": -1}, "mapping_seed is -1"),
        ("DeepSea-bsuite", {"unscaled_move_cost": -0.1}, "unscaled_move_cost is -0.1"),
        ("DeepSea-bsuite", {"deterministic": 1}, "of type bool"),
        ("MemoryChain-bsuite", {"memory_length": 0}, "memory_length is 0"),
        ("MemoryChain-bsuite", {"num_bits": 0}, "num_bits is 0"),
        ("UmbrellaChain-bsuite", {"chain_length": 0}, "chain_length is 0"),
        ("UmbrellaChain-bsuite", {"n_distractor": -1}, "n_distractor is -1"),
        ("DiscountingChain-bsuite", {"reward_timestep": ()}, "one step for each action"),
        ("DiscountingChain-bsuite", {"reward_timestep": (0, 3)}, "reward_timestep is 0"),
        ("DiscountingChain-bsuite", {"mapping_seed": -1}, "mapping_seed is -1"),
        ("DiscountingChain-bsuite", {"optimal_return": float("inf")}, "finite number"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(env_id, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(env_id, **overrides)
    assert "\n" not in str(error.value)
