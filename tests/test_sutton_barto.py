"""Sutton & Barto's tabular tasks: the book's printed numbers, and its rules restated cell by cell."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import bandit, dyna_maze, grid_world, maximization_bias, random_walk, windy_grid_world

IDS = [
    "GridWorld-v0",
    "RandomWalk-v0",
    "RandomWalk19-v0",
    "WindyGridWorld-v0",
    "DynaMaze-v0",
    "MaximizationBias-v0",
    "Bandit-v0",
]
STEPS = {  # up, down, right, left, then the king's
    0: (-1, 0),
    1: (1, 0),
    2: (0, 1),
    3: (0, -1),
    4: (-1, 1),
    5: (-1, -1),
    6: (1, 1),
    7: (1, -1),
    8: (0, 0),
}


def step_all(env, params, state, actions, seed=0):
    """`step_env` of every lane, as numpy: (obs, state, reward, terminated)."""
    keys = jax.random.split(jaxrl.key(seed), len(actions))
    many = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))
    return jax.device_get(many(keys, jax.tree.map(jnp.asarray, state), jnp.asarray(actions), params)[:4])


def everywhere(env, params, make_state, draws=1):
    """Every state and action of the table, `draws` times each: (s, a, obs, reward, terminated)."""
    S, A = env.tabular_mdp(params).R.shape
    s, a, _ = (x.ravel().astype(np.int32) for x in np.meshgrid(range(S), range(A), range(draws), indexing="ij"))
    obs, _, reward, terminated = step_all(env, params, make_state(s, np.zeros_like(s)), a)
    return s, a, obs, reward, terminated


def values(mdp, gamma, policy=None):
    """V [S] of a policy [S, A], or the best there is, by value iteration to the last bit but few."""
    P, R, terminal, _ = mdp
    v = np.zeros(len(terminal))
    for _ in range(5000):
        q = R + gamma * P @ (v * ~terminal)
        new = q.max(1) if policy is None else (policy * q).sum(1)
        if np.abs(new - v).max() < 1e-13:
            return new
        v = new
    return v


def shortest(env, params, make_state):
    """Steps from the start to the goal by breadth-first search on what `step` does."""
    s, _, after, _, terminated = everywhere(env, params, make_state)
    start = int(env.reset(jaxrl.key(0), params)[0])
    distance, goals = {start: 0}, set(after[terminated].tolist())
    edge = [start]
    while edge and not goals & set(distance):
        reached = {int(n) for c in edge for n in after[s == c]} - set(distance)
        depth = distance[edge[0]] + 1
        distance |= dict.fromkeys(reached, depth)
        edge = sorted(reached)
    return max(distance.values())


@pytest.mark.parametrize("env_id", IDS)
def test_tables_are_sound(env_id):
    env, params = jaxrl.make(env_id)
    P, R, terminal, start = env.tabular_mdp(params)
    S, A = R.shape
    assert (P.shape, terminal.shape, start.shape) == ((S, A, S), (S,), (S,))
    assert (P.dtype, R.dtype, terminal.dtype, start.dtype) == (float, float, bool, float)
    np.testing.assert_allclose(P.sum(2), 1)
    np.testing.assert_allclose(start.sum(), 1)
    np.testing.assert_array_equal(P[terminal], np.broadcast_to(np.eye(S)[terminal, None], (terminal.sum(), A, S)))
    assert (R[terminal] == 0).all()
    assert (env.observation_space(params).n, env.action_space(params).n) == (S, A)


# GridWorld: figures 3.2 and 3.5

FIGURE_3_2 = """3.3 8.8 4.4 5.3 1.5
 1.5  3.0  2.3  1.9  0.5
 0.1  0.7  0.7  0.4 -0.4
-1.0 -0.4 -0.4 -0.6 -1.2
-1.9 -1.3 -1.2 -1.4 -2.0"""
FIGURE_3_5 = """22.0 24.4 22.0 19.4 17.5
19.8 22.0 19.8 17.8 16.0
17.8 19.8 17.8 16.0 14.4
16.0 17.8 16.0 14.4 13.0
14.4 16.0 14.4 13.0 11.7"""


def test_grid_world_has_the_books_values():
    env, params = jaxrl.make("GridWorld-v0")
    P, R, terminal, _ = mdp = env.tabular_mdp(params)
    random = np.linalg.solve(np.eye(25) - 0.9 * P.mean(1), R.mean(1))
    np.testing.assert_array_equal(np.round(random, 1), np.array(FIGURE_3_2.split(), float))
    np.testing.assert_array_equal(np.round(values(mdp, 0.9), 1), np.array(FIGURE_3_5.split(), float))
    assert not terminal.any()


def test_grid_world_everywhere():
    env, params = jaxrl.make("GridWorld-v0")
    P, R, *_ = env.tabular_mdp(params)
    for s, a, obs, reward, terminated in zip(*everywhere(env, params, grid_world.State), strict=True):
        row, column = divmod(s, 5)
        to = row + STEPS[a][0], column + STEPS[a][1]
        expected = (*to, 0)
        if (row, column) == (0, 1):
            expected = (4, 1, 10)
        elif (row, column) == (0, 3):
            expected = (2, 3, 5)
        elif -1 in to or 5 in to:
            expected = (row, column, -1)
        assert (*divmod(obs, 5), reward, terminated) == (*expected, False)
        assert (P[s, a, obs], R[s, a]) == (1, reward)


def test_grid_world_starts_anywhere_and_is_only_cut():
    env, params = jaxrl.make("GridWorld-v0", max_steps_in_episode=3)
    obs, state = jax.vmap(env.reset)(jax.random.split(jaxrl.key(0), 5000))
    counts = np.bincount(obs, minlength=25)
    assert ((counts - 200) ** 2 / 200).sum() < 51.2  # 24 degrees of freedom, p = 0.001
    step = jax.jit(jax.vmap(env.step, (None, 0, None)))
    for time in (1, 2, 3):
        _, state, _, terminated, truncated, _ = step(jaxrl.key(1), state, 2)
        assert not terminated.any()
        assert (truncated == (time == 3)).all()


def test_grid_world_of_another_shape():
    env, params = jaxrl.make("GridWorld-v0", shape=(1, 2), a=(0, 1), a_prime=(0, 0), b=(0, 0), b_prime=(0, 0))
    np.testing.assert_array_equal(env.tabular_mdp(params).R, [[5.0] * 4, [10.0] * 4])


# random walks: example 6.2 and figure 7.2


@pytest.mark.parametrize(("env_id", "count"), [("RandomWalk-v0", 5), ("RandomWalk19-v0", 19)])
def test_random_walk_has_the_books_values(env_id, count):
    env, params = jaxrl.make(env_id)
    P, R, terminal, start = env.tabular_mdp(params)
    solved = np.linalg.solve(np.eye(count) - P[1:-1, 0, 1:-1], R[1:-1, 0])
    books = [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6] if count == 5 else np.linspace(-0.9, 0.9, 19)
    np.testing.assert_allclose(solved, books, atol=1e-12)
    assert terminal.nonzero()[0].tolist() == [0, count + 1]
    assert start.argmax() == int(env.reset(jaxrl.key(0))[0]) == (3 if count == 5 else 10)
    assert env.name == env_id


def test_random_walk_steps():
    env, params = jaxrl.make("RandomWalk-v0", left_reward=-2.0)
    s, _, obs, reward, terminated = (x[800:-800] for x in everywhere(env, params, random_walk.State, draws=800))
    assert set((obs - s).tolist()) == {-1, 1}
    np.testing.assert_array_equal(reward, np.select([obs == 0, obs == 6], [-2, 1], 0))
    np.testing.assert_array_equal(terminated, (obs == 0) | (obs == 6))
    rights = np.bincount(s[obs > s], minlength=6)[1:]
    assert ((rights - 400) ** 2 / 200).sum() < 20.5  # 5 degrees of freedom, p = 0.001


# WindyGridWorld: example 6.5, exercises 6.9 and 6.10

WIND = "0001112210"


@pytest.mark.parametrize("moves", [4, 8, 9])
def test_windy_grid_world_everywhere(moves):
    env, params = jaxrl.make("WindyGridWorld-v0", moves=moves)
    P, R, *_ = env.tabular_mdp(params)
    for s, a, obs, reward, terminated in zip(*everywhere(env, params, windy_grid_world.State), strict=True):
        row, column = divmod(s, 10)
        row = row + STEPS[a][0] - int(WIND[column])
        row = 0 if row < 0 else 6 if row > 6 else row
        column = sorted((0, column + STEPS[a][1], 9))[1]
        assert (divmod(obs, 10), reward, terminated) == ((row, column), -1, (row, column) == (3, 7))
        if s != 37:
            assert (P[s, a, obs], R[s, a]) == (1, -1)


@pytest.mark.parametrize(("moves", "best"), [(4, 15), (8, 7), (9, 7)])
def test_windy_grid_world_has_the_books_best_episode(moves, best):
    env, params = jaxrl.make("WindyGridWorld-v0", moves=moves)
    assert shortest(env, params, windy_grid_world.State) == best
    assert values(env.tabular_mdp(params), 1.0)[30] == -best


def test_windy_grid_world_left_of_the_goal():
    """The book: one cell to the right of the goal, left takes you to the cell just above the goal."""
    env, params = jaxrl.make("WindyGridWorld-v0")
    obs, *_ = step_all(env, params, windy_grid_world.State(np.array([38]), np.array([0])), np.array([3]))
    assert obs[0] == 27


def test_stochastic_wind_has_the_tables_frequencies():
    env, params = jaxrl.make("WindyGridWorld-v0", moves=9, stochastic=True)
    draws = 300
    s, a, obs, _, _ = everywhere(env, params, windy_grid_world.State, draws)
    count = np.zeros((70, 9, 70))
    np.add.at(count, (s, a, obs), 1)
    expected = np.zeros((70, 9, 70))
    for s, a in itertools.product(range(70), range(9)):
        row, column = divmod(s, 10)
        wind = int(WIND[column])
        for lift in (wind - 1, wind, wind + 1) if wind else (0, 0, 0):
            r, c = row + STEPS[a][0] - lift, column + STEPS[a][1]
            expected[s, a, min(max(r, 0), 6) * 10 + min(max(c, 0), 9)] += draws / 3
    assert (count[expected == 0] == 0).all()
    chi2 = np.divide((count - expected) ** 2, expected, where=expected > 0, out=np.zeros(count.shape)).sum()
    freedom = ((expected > 0).sum(2) - 1).sum()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)
    inner = np.arange(70) != 37
    np.testing.assert_allclose(env.tabular_mdp(params).P[inner], expected[inner] / draws, atol=1e-12)


# DynaMaze: figures 8.2, 8.4 and 8.5

DYNA_WALLS = {(1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7)}
WALLS = {
    "dyna": DYNA_WALLS,
    "blocking": {(3, c) for c in range(0, 8)},
    "blocking-later": {(3, c) for c in range(1, 9)},
    "shortcut": {(3, c) for c in range(1, 9)},
    "shortcut-later": {(3, c) for c in range(1, 8)},
}
BEST = {"dyna": 14, "blocking": 10, "blocking-later": 16, "shortcut": 16, "shortcut-later": 10}


@pytest.mark.parametrize("name", WALLS)
def test_dyna_maze_everywhere(name):
    env, params = jaxrl.make("DynaMaze-v0", map_name=name)
    P, R, terminal, start = env.tabular_mdp(params)
    for s, a, obs, reward, terminated in zip(*everywhere(env, params, dyna_maze.State), strict=True):
        cell = divmod(s, 9)
        if cell in WALLS[name]:
            assert (P[s, a, s], R[s, a]) == (1, 0)
            continue
        row, column = cell[0] + STEPS[a][0], cell[1] + STEPS[a][1]
        if (row, column) in WALLS[name] or not (0 <= row < 6 and 0 <= column < 9):
            row, column = cell
        goal = (row, column) == (0, 8)
        assert (divmod(obs, 9), reward, terminated) == ((row, column), goal, goal)
        if cell != (0, 8):
            assert (P[s, a, obs], R[s, a]) == (1, goal)
    assert divmod(int(start.argmax()), 9) == ((2, 0) if name == "dyna" else (5, 3))
    assert terminal.nonzero()[0].tolist() == [8]


@pytest.mark.parametrize("name", WALLS)
def test_dyna_maze_best_paths(name):
    env, params = jaxrl.make("DynaMaze-v0", map_name=name)
    assert shortest(env, params, dyna_maze.State) == BEST[name]
    value = values(env.tabular_mdp(params), 0.95)
    np.testing.assert_allclose(value[int(env.reset(jaxrl.key(0))[0])], 0.95 ** (BEST[name] - 1))


def test_dyna_maze_has_47_states_and_may_change():
    assert 54 - len(DYNA_WALLS) == sum(letter != "W" for row in dyna_maze.MAPS["dyna"] for letter in row) == 47
    env, params = jaxrl.make("DynaMaze-v0", map_name="blocking")
    later = params.replace(desc=dyna_maze.MAPS["blocking-later"])
    state = dyna_maze.State(jnp.int32(4 * 9 + 8), jnp.int32(7))  # below the gap that closes
    assert [int(env.step(jaxrl.key(0), state, 0, p)[0]) for p in (params, later)] == [3 * 9 + 8, 4 * 9 + 8]


# MaximizationBias: example 6.7


def test_maximization_bias_everywhere():
    env, params = jaxrl.make("MaximizationBias-v0", num_arms=4, mean=-0.5, std=2.0)
    draws = 3000
    s, a, obs, reward, terminated = everywhere(env, params, maximization_bias.State, draws)
    left = (s == 0) & (a == 0)  # forbidden actions of A, 2 and 3, are right
    np.testing.assert_array_equal(obs.observation, np.where(left, 1, 2))
    np.testing.assert_array_equal(terminated, ~left)
    assert (reward[s != 1] == 0).all()
    for arm in range(4):
        z = (reward[(s == 1) & (a == arm)] + 0.5) / 2
        assert abs(z.mean()) < 0.06
        assert abs(z.std() - 1) < 0.05
        assert abs((z**4).mean() - 3) < 0.6
    mask = np.asarray(obs.action_mask)
    assert mask.all()
    np.testing.assert_array_equal(env.reset(jaxrl.key(0))[0].action_mask, [True, True, False, False])
    P, R, terminal, _ = mdp = env.tabular_mdp(params)
    np.testing.assert_array_equal(R, [[0] * 4, [-0.5] * 4, [0] * 4])
    np.testing.assert_array_equal(P.argmax(2), [[1, 2, 2, 2], [2] * 4, [2] * 4])
    assert values(mdp, 1.0).tolist() == [0, -0.5, 0]


def test_q_learning_is_biased_to_the_left():
    """Figure 6.5: at first it goes left far more often than the best 5%. What is masked it never uses."""
    env, params = jaxrl.make("MaximizationBias-v0")
    agent = jaxrl.q_learning(3, 10, gamma=1.0, alpha=0.1, epsilon=0.1)
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, 1), jaxrl.LoopConfig(1, 1, 1, 0))

    @jax.jit
    @jax.vmap
    def visits(key):
        return jaxrl.advance(run, run.init(key), 200)[0].agent.visits

    counts = np.asarray(visits(jax.random.split(jaxrl.key(0), 300))).sum(0)
    assert (counts[0, 2:] == 0).all()
    assert (counts[1] > 0).all()
    assert 0.2 < counts[0, 0] / counts[0].sum() < 0.8


# Bandit: section 2.3


def test_bandit_pays_its_arms():
    means = (-1.0, 0.0, 3.0)
    env, params = jaxrl.make("Bandit-v0", means=means, std=0.5)
    s, a, obs, reward, terminated = everywhere(env, params, lambda s, time: bandit.State(time), draws=3000)
    assert terminated.all()
    assert (obs == 1).all()
    for arm, mean in enumerate(means):
        z = (reward[(s == 0) & (a == arm)] - mean) / 0.5
        assert abs(z.mean()) < 0.06
        assert abs(z.std() - 1) < 0.05
        assert abs((z**4).mean() - 3) < 0.6
    np.testing.assert_array_equal(env.tabular_mdp(params).R, [means, [0] * 3])
    obs, state = env.reset(jaxrl.key(0))
    obs, state, _, terminated, truncated, info = env.step(jaxrl.key(0), state, 1)
    assert (obs, info["final_observation"], terminated, truncated, state.time) == (0, 1, True, False, 0)


def test_the_testbed_is_one_vmap():
    """2,000 bandits: the best arm's mean is 1.54 on average, the expected largest of ten N(0, 1)."""
    env, params = jaxrl.make("Bandit-v0")
    params = jax.vmap(bandit.testbed)(jax.random.split(jaxrl.key(0), 2000))
    means = np.stack(params.means, 1)
    assert means.shape == (2000, 10)
    assert abs(means.mean()) < 0.03
    assert abs(means.std() - 1) < 0.03
    assert abs(means.max(1).mean() - 1.5388) < 0.06

    def pull(key, params, arm):
        return env.step(key, env.reset(key, params)[1], arm, params)[2]

    keys = jax.random.split(jaxrl.key(1), 2000)
    noise = jax.jit(jax.vmap(pull))(keys, params, means.argmax(1)) - means.max(1)
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.06
    arrays = jax.jit(jax.vmap(pull))(keys, params.replace(means=means), means.argmax(1)) - means.max(1)
    np.testing.assert_allclose(arrays, noise, atol=1e-6)


# all of them


@pytest.mark.parametrize("env_id", IDS)
def test_x64_changes_no_dtype(env_id):
    env, params = jaxrl.make(env_id)
    with jax.enable_x64(True):
        obs, state, reward, terminated, *_ = env.step(jaxrl.key(0), env.reset(jaxrl.key(0))[1], 0)
    assert {str(x.dtype) for x in jax.tree.leaves(state)} == {"int32"}
    assert (jax.tree.leaves(obs)[0].dtype, reward.dtype, terminated.dtype) == ("int32", "float32", "bool")


RENDERED = {
    "GridWorld-v0": (grid_world.State(6, 0), ".A.B.\n.\x1b[41m.\x1b[0m...\n...b.\n.....\n.a..."),
    "RandomWalk-v0": (random_walk.State(0, 0), "\x1b[41m|\x1b[0m.....|"),
    "WindyGridWorld-v0": (
        windy_grid_world.State(37, 0),
        "..........\n" * 3 + "S......\x1b[41mG\x1b[0m..\n" + "..........\n" * 3 + WIND,
    ),
    "DynaMaze-v0": (
        dyna_maze.State(0, 0),
        "\x1b[41m.\x1b[0m......WG\n..W....W.\nS.W....W.\n..W......\n.....W...\n.........",
    ),
    "MaximizationBias-v0": (maximization_bias.State(1, 0), "\x1b[41mB\x1b[0m <- A -> end"),
}


@pytest.mark.parametrize("env_id", RENDERED)
def test_render_and_frame_show_where_one_is(env_id):
    env, params = jaxrl.make(env_id)
    state, text = RENDERED[env_id]
    assert env.render(state, params) == text
    here, there = env.frame(state, params), env.frame(env.reset(jaxrl.key(0))[1], params)
    assert here.dtype == np.uint8
    assert here.shape == there.shape
    assert (here != there).any()


def test_bandit_is_drawn():
    env, params = jaxrl.make("Bandit-v0", means=(1.0, -0.5))
    assert env.render(bandit.State(0), params) == "0: +1.00  1: -0.50"
    assert env.frame(bandit.State(0), params).shape == (160, 64, 3)


@pytest.mark.parametrize(
    ("env_id", "overrides", "message"),
    [
        ("GridWorld-v0", {"a": (5, 0)}, r"a is \(5, 0\); it must be a \(row, column\) inside"),
        ("GridWorld-v0", {"b": (0, 1)}, "two cells"),
        ("GridWorld-v0", {"shape": (5,)}, "rows, columns"),
        ("GridWorld-v0", {"reward_a": float("nan")}, "finite number"),
        ("GridWorld-v0", {"max_steps_in_episode": 0}, "max_steps_in_episode is 0"),
        ("RandomWalk-v0", {"length": 0}, "length is 0"),
        ("RandomWalk19-v0", {"left_reward": "no"}, "of type float"),
        ("WindyGridWorld-v0", {"moves": 5}, "moves is 5; it must be 4, 8"),
        ("WindyGridWorld-v0", {"wind": ()}, "one number for each column"),
        ("WindyGridWorld-v0", {"goal": (7, 0)}, "goal is"),
        ("WindyGridWorld-v0", {"start": (3, 7)}, "start and goal"),
        ("WindyGridWorld-v0", {"rows": 0}, "rows is 0"),
        ("DynaMaze-v0", {"map_name": "dina"}, "did you mean 'dyna'"),
        ("DynaMaze-v0", {"desc": ("S.", "G")}, "rows of one length"),
        ("DynaMaze-v0", {"desc": ("S.G", "..H")}, "the letter 'H'"),
        ("DynaMaze-v0", {"desc": ("SSG",)}, "with 2 S"),
        ("DynaMaze-v0", {"desc": ("S..",)}, "with 0 G"),
        ("MaximizationBias-v0", {"num_arms": 1}, "num_arms is 1"),
        ("MaximizationBias-v0", {"std": -1.0}, "std is -1.0"),
        ("Bandit-v0", {"means": ()}, "one number for each arm"),
        ("Bandit-v0", {"std": -1.0}, "std is -1.0"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(env_id, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(env_id, **overrides)
    assert "\n" not in str(error.value)
