"""Monte Carlo through windows, against lists of episodes, hand arithmetic and exact evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import behaviour, planning
from jaxrl.agents.monte_carlo import monte_carlo, off_policy_monte_carlo
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.tabular import tabular_env
from jaxrl.types import NO_LIMIT, Sample, Transition

LANES, HORIZON, UNROLL, STEPS = 32, 5, 7, 700
AVERAGE = {"alpha": 1.0, "alpha_power": 1.0}
PLAY = np.array([[0.3, 0.7], [0.5, 0.5], [0.8, 0.2], [0.5, 0.5]])
TARGET = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


def mdp():
    """Four states, the last terminal; about every second episode is cut after five steps."""
    P = np.random.default_rng(1).dirichlet([1.0, 1.0, 1.0, 0.7], (4, 2))
    R = np.random.default_rng(2).normal(size=(4, 2))
    P[3], R[3] = np.eye(4)[3], 0
    return TabularMDP(P, R, np.arange(4) == 3, np.array([0.5, 0.3, 0.2, 0]))


def chain():
    """No state comes twice and no episode is longer than two steps."""
    P = np.zeros((4, 2, 4))
    P[0, 0], P[0, 1], P[1:, :, 3] = [0, 0.8, 0.1, 0.1], [0, 0.2, 0.8, 0], 1
    R = np.array([[0.5, -0.5], [1.0, -1.0], [3.0, 0.0], [0, 0]])
    return TabularMDP(P, R, np.arange(4) == 3, np.eye(4)[0])


@functools.cache
def runner():
    """Compiled: process -> windows [phases, N, T] of a run that follows PLAY, its last agent state."""
    buffer = jaxrl.recent(UNROLL + HORIZON, LANES)
    agent = monte_carlo(4, 2, horizon=HORIZON, visit="every", policy=PLAY, gamma=0.9, **AVERAGE)

    @jax.jit
    def learn(params):
        config = jaxrl.LoopConfig(LANES, UNROLL, warmup=HORIZON)
        run = jaxrl.make_run(tabular_env(mdp(), HORIZON), params, agent, buffer, config)

        def body(state, _):
            state, _ = run.step(state)
            return state, buffer.sample(state.buffer, jaxrl.key(0), state.clock).window._replace(carry=())

        state, windows = jax.lax.scan(body, run.warmup(run.init(jaxrl.key(3))), None, STEPS // UNROLL)
        return windows, state.agent

    return learn


@functools.cache
def played(process):
    """Windows of a run that follows PLAY, and what it learned."""
    return jax.device_get(runner()(tabular_env(process(), HORIZON).default_params))


@functools.cache
def replayer(make, **options):
    """Compiled: (windows, gamma) -> the state of an agent that learned from all of them, the sums of its metrics."""

    @jax.jit
    def learn(windows, gamma):
        agent = make(4, 2, gamma=gamma, **options)
        lanes = windows.reward.shape[1]

        def body(state, window):
            sample = Sample(window, jnp.arange(lanes), jnp.ones(lanes))
            state, _, metrics = agent.update(state, sample, jaxrl.key(0), jnp.float32(0))
            return state, metrics

        state, metrics = jax.lax.scan(body, agent.init(jaxrl.key(0), windows.obs[0, :, 0]), windows)
        return state, jax.tree.map(jnp.sum, metrics)

    return lambda windows, gamma=0.9: jax.device_get(learn(windows, gamma))


def steps_of(windows, horizon):
    """All steps [time, N] of which windows [phases, N, T] were made."""
    old = jax.tree.map(lambda x: np.moveaxis(x[0, :, :horizon], 1, 0), windows)
    new = jax.tree.map(lambda x: np.moveaxis(x[:, :, horizon:], 2, 1).reshape(-1, x.shape[1]), windows)
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), old, new)


@functools.cache
def episodes(process, horizon=HORIZON):
    """Whole episodes, lists of (s, a, r), and whether each was cut, without those that end in the first rows."""
    steps, found = steps_of(played(process)[0], HORIZON), []
    lanes = zip(*(leaf.T.tolist() for leaf in steps[:5]))
    for lane in lanes:
        episode = []
        for t, (s, a, r, terminated, truncated) in enumerate(zip(*lane)):
            episode.append((s, a, r))
            if terminated or truncated:
                found += [(episode, not terminated)] if t >= horizon else []
                episode = []
    return found


def visits(episode, gamma, first, ratio=None):
    """(s, a, return, product of the later ratios) of what is learned from."""
    g, product, found = 0.0, 1.0, []
    for t in reversed(range(len(episode))):
        s, a, r = episode[t]
        g = r + gamma * g
        if not first or (s, a) not in [(x, y) for x, y, _ in episode[:t]]:
            found.append((s, a, g, product))
        product *= 1.0 if ratio is None else ratio[s, a]
    return found


def averages(whole, visit, horizon):
    """The mean return and the visits of every entry."""
    total, count = np.zeros((4, 2)), np.zeros((4, 2))
    for episode in whole:
        for s, a, g, _ in visits(episode, 0.9, visit == "first") if len(episode) <= horizon else []:
            total[s, a] += g
            count[s, a] += 1
    return total / np.maximum(count, 1), count


@pytest.mark.parametrize(("visit", "cut"), [("first", "drop"), ("every", "keep")])
def test_windows_average_every_episode_once(visit, cut):
    state, metrics = replayer(monte_carlo, horizon=HORIZON, visit=visit, cut=cut, **AVERAGE)(played(mdp)[0])
    whole = episodes(mdp)
    mean, count = averages([e for e, was_cut in whole if cut == "keep" or not was_cut], visit, HORIZON)
    cuts = sum(was_cut for _, was_cut in whole)
    assert 500 < cuts < len(whole) - 500 and count[:3].min() > 100
    np.testing.assert_array_equal(state.visits, count)
    np.testing.assert_allclose(state.q, mean, atol=1e-5)
    assert metrics["cut_episodes"] == cuts and metrics["long_episodes"] == 0
    assert metrics["learned_episodes"] == len(whole) - (cuts if cut == "drop" else 0)


def test_in_the_loop_it_averages_what_follows_each_state():
    state = played(mdp)[1]
    total, count = np.zeros(4), np.zeros(4)
    for episode, was_cut in episodes(mdp):
        for s, _, g, _ in [] if was_cut else visits(episode, 0.9, first=False):
            total[s] += g
            count[s] += 1
    np.testing.assert_array_equal(state.visits[:, 0], count)
    np.testing.assert_allclose(state.q[:, 0], total / np.maximum(count, 1), atol=1e-5)


@pytest.mark.parametrize("unroll", [1, 6])
def test_no_part_of_an_episode_beyond_the_horizon_is_taken_for_one(unroll):
    steps = steps_of(played(mdp)[0], HORIZON)
    starts = np.arange(0, len(steps.reward) - 3 - unroll + 1, unroll)
    rows = starts[:, None] + np.arange(3 + unroll)
    windows = jax.tree.map(lambda leaf: np.moveaxis(leaf[rows], 2, 1), steps)
    state, metrics = replayer(monte_carlo, horizon=3, visit="every", cut="keep", **AVERAGE)(windows)
    whole = [episode for episode, _ in episodes(mdp, horizon=3)]
    mean, count = averages(whole, "every", 3)
    lengths = np.bincount([len(episode) for episode in whole])
    assert lengths[3:].min() > 300 and len(lengths) == HORIZON + 1
    np.testing.assert_array_equal(state.visits, count)
    np.testing.assert_allclose(state.q, mean, atol=1e-5)
    assert metrics["learned_episodes"] == lengths[:4].sum() and metrics["long_episodes"] == lengths[4:].sum()


ROWS = 7  # of the windows by hand; horizon 3 leaves four new ones


def window(obs, action, reward, terminated=(), truncated=()):
    """One lane that ends with an episode which runs on; `terminated` and `truncated` are the rows that end so."""
    rows = np.arange(ROWS)
    more = ROWS - len(obs)
    obs = np.concatenate([obs, np.zeros(more, int)])
    leaves = (obs, np.int32([*action, *[0] * more]), np.float32([*reward, *[99] * more]))
    step = Transition(*leaves, np.isin(rows, terminated), np.isin(rows, truncated), obs)
    return Sample(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], step), jnp.zeros(1, jnp.int32), jnp.ones(1))


@functools.cache
def update(**options):
    """A fresh table and the compiled update of it."""
    agent = monte_carlo(3, 2, **{"alpha": 1.0, "alpha_power": 1.0, **options})
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    return state, jax.jit(lambda sample: agent.update(state, sample, jaxrl.key(0), jnp.float32(0)))


def learned(sample, **options):
    state, _, metrics = update(**options)[1](sample)
    return np.asarray(state.q), np.asarray(state.visits), metrics


def test_first_and_every_visit_by_hand():
    # after an end: s0 a1 +1, s2 a0 +2, s0 a1 +4: returns 7, 6, 4 without a discount
    sample = window([1, 0, 2, 0], [0, 1, 0, 1], [9, 1, 2, 4], terminated=[0, 3])
    q, visits, _ = learned(sample, horizon=3)
    np.testing.assert_array_equal(q, [[0, 7], [0, 0], [6, 0]])
    np.testing.assert_array_equal(visits, [[0, 1], [0, 0], [1, 0]])
    q, visits, _ = learned(sample, horizon=3, visit="every", gamma=0.5)  # 1 + 1 + 1 and 4, 2 + 2
    np.testing.assert_array_equal(q, [[0, 3.5], [0, 0], [4, 0]])
    np.testing.assert_array_equal(visits, [[0, 2], [0, 0], [1, 0]])
    # V of a policy: states alone are visited, and s0's first visit is its episode's first row
    q, visits, _ = learned(
        sample, horizon=3, alpha=0.5, alpha_power=0.0, initial=10.0, policy=lambda obs: jnp.full(2, 0.5)
    )
    np.testing.assert_array_equal(q, [[8.5], [10], [8]])
    np.testing.assert_array_equal(visits, [[1], [0], [1]])


def test_an_average_of_the_table_is_moved_by_what_is_learned_from():
    """Also where rows that are not learned from show the same entry, before and after."""
    state, learn = update(horizon=3, average=1.0, initial=3.0)
    sample = window([0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [64, 1, 2, 4, 8], terminated=[0, 3])
    moved, _, _ = learn(sample)
    np.testing.assert_array_equal(moved.q[:2, 0], [7, 6])
    np.testing.assert_array_equal(moved.average, moved.q)  # the first update counts (1 + 1) / (1 + 1)
    assert (state.q == 3).all()


def test_which_episodes_of_a_window_are_learned_from():
    # rows 3.. are new: the end in row 2 was learned before, the running episode at the end is yet to be
    sample = window([2, 0, 1, 1, 2], [0] * 5, [64, 1, 2, 4, 8], terminated=[2, 4])
    q, visits, metrics = learned(sample, horizon=3)
    np.testing.assert_array_equal(q[:, 0], [0, 12, 8])
    np.testing.assert_array_equal(visits[:, 0], [0, 1, 1])
    assert metrics["learned_episodes"] == 1 and metrics["long_episodes"] == 0
    # an episode as long as the horizon, as early as can be
    q, _, _ = learned(window([0, 0, 1, 2], [0] * 4, [64, 1, 2, 4], terminated=[0, 3]), horizon=3)
    np.testing.assert_array_equal(q[:, 0], [7, 6, 4])
    # one that is longer than the horizon: begun before the window or in row 0, in it, and in the new rows
    for ends in ([3], [0, 4], [1, 6]):
        q, visits, metrics = learned(window([0, 1, 2, 0, 1, 2, 0], [0] * 7, range(7), ends), horizon=3)
        assert not q.any() and not visits.any() and metrics["long_episodes"] == 1
    # cut at row 3, dropped or kept, and an end that is both
    cut = window([0, 0, 1, 2, 0], [0] * 5, [64, 1, 2, 4, 8], terminated=[0, 4], truncated=[3])
    q, _, metrics = learned(cut, horizon=3)
    np.testing.assert_array_equal(q[:, 0], [8, 0, 0])
    assert metrics["cut_episodes"] == 1 and metrics["learned_episodes"] == 1
    q, _, metrics = learned(cut, horizon=3, cut="keep")
    np.testing.assert_array_equal(q[:, 0], [7.5, 6, 4])
    assert metrics["cut_episodes"] == 1 and metrics["learned_episodes"] == 2
    q, _, metrics = learned(window([0, 0, 1, 2], [0] * 4, [64, 1, 2, 4], [0, 3], truncated=[3]), horizon=3)
    np.testing.assert_array_equal(q[:, 0], [7, 6, 4])
    assert metrics["cut_episodes"] == 0


@functools.cache
def sampler(weighting, visit):
    def make(states, actions, **options):
        return off_policy_monte_carlo(states, actions, target=TARGET, behaviour=behaviour.fixed(PLAY), **options)

    return replayer(make, horizon=HORIZON, weighting=weighting, visit=visit)


SAMPLERS = pytest.mark.parametrize(("weighting", "visit"), [("weighted", "every"), ("ordinary", "first")])


@SAMPLERS
def test_importance_sampling_against_lists(weighting, visit):
    state, _ = sampler(weighting, visit)(played(mdp)[0])
    q, weight, count = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for episode, was_cut in episodes(mdp):
        for s, a, g, rho in [] if was_cut else visits(episode, 0.9, visit == "first", TARGET / PLAY):
            count[s, a] += 1
            weight[s, a] += rho
            if weighting == "weighted":
                q[s, a] += rho / weight[s, a] * (g - q[s, a])
            else:
                q[s, a] += (rho * g - q[s, a]) / count[s, a]
    np.testing.assert_array_equal(state.visits, count)
    np.testing.assert_allclose(state.q, q, atol=1e-4)
    if weighting == "weighted":
        np.testing.assert_allclose(state.memory.total, weight, rtol=1e-4)


@SAMPLERS
def test_importance_sampling_finds_the_targets_values(weighting, visit):
    state, _ = sampler(weighting, visit)(played(chain)[0], 1.0)
    exact, other = (np.asarray(planning.evaluate(chain(), 1.0, policy).q) for policy in (TARGET, PLAY))
    assert abs(exact - other)[0].min() > 0.3
    count = np.asarray(state.visits)[:3]
    # returns lie in a span of 3, and ratios are below 4: five standard deviations of a mean of visits
    assert (abs(np.asarray(state.q) - exact)[:3] < 5 * 3 / np.sqrt(count)).all() and count.min() > 1000


def test_a_target_that_never_does_it_weighs_nothing():
    agent = off_policy_monte_carlo(
        3, 2, horizon=2, target=np.eye(2)[[0, 0, 0]], behaviour=behaviour.fixed(np.full((3, 2), 0.5)), initial=3.0
    )
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    sample = window([0, 0, 1, 2, 1, 2, 0], [0, 0, 1, 1, 0, 0, 0], [64, 1, 2, 4, 8, 16, 32], terminated=[0, 2, 4, 6])
    state, _, _ = jax.jit(agent.update)(state, sample, jaxrl.key(0), jnp.float32(0))
    # the first return has ratio 0, those of (2, 1) and (2, 0) ratio 2, last steps ratio 1
    np.testing.assert_array_equal(state.q, [[32, 3], [8, 2], [48, 12]])
    np.testing.assert_array_equal(state.memory.total, [[1, 0], [1, 1], [2, 2]])


PLAYED = {"target": PLAY, "behaviour": behaviour.fixed(PLAY), "horizon": 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: monte_carlo(4, 2, horizon=None), "horizon=None.*wrappers.time_limit"),
        (lambda: monte_carlo(4, 2, horizon=NO_LIMIT), "wrappers.time_limit"),
        (lambda: monte_carlo(4, 2, horizon=0), "horizon is 0"),
        (lambda: monte_carlo(4, 2, horizon=3, gamma=1.5), "gamma is 1.5"),
        (lambda: monte_carlo(4, 2, horizon=3, visit="frist"), "did you mean 'first'"),
        (lambda: monte_carlo(4, 2, horizon=3, cut="dorp"), "did you mean 'drop'"),
        (
            lambda: learned(window([0], [0], [1]), horizon=7),
            r"windows of 7 steps .* recent\(unroll \+ horizon, num_envs\)",
        ),
        (lambda: off_policy_monte_carlo(4, 2, **PLAYED, weighting="weight"), "did you mean 'weighted'"),
        (lambda: off_policy_monte_carlo(4, 2, **{**PLAYED, "horizon": None}), "off_policy_monte_carlo got no horizon"),
        (
            lambda: off_policy_monte_carlo(4, 2, **{**PLAYED, "behaviour": behaviour.epsilon_greedy(0.1)}).init(
                jaxrl.key(0), jnp.zeros(1, jnp.int32)
            ),
            "behaviour.fixed",
        ),
        (lambda: off_policy_monte_carlo(4, 2, **{**PLAYED, "target": PLAY * 2}), "must sum to 1"),
    ],
)
def test_bad_input_says_so(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
