"""Monte Carlo through windows, against lists of episodes, hand arithmetic and exact evaluation."""

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

LANES, HORIZON, UNROLL, PHASES = 3, 5, 7, 40
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


def logged(agent, process=None, phases=PHASES, warmup=HORIZON - 1, horizon=HORIZON, lanes=LANES):
    """A run's agent state, its metrics, and every step it took as rows [time, lanes]."""
    env = tabular_env(mdp() if process is None else process, HORIZON)
    buffer = jaxrl.recent(UNROLL + horizon - 1, lanes)
    run = jaxrl.make_run(env, env.default_params, agent, buffer, jaxrl.LoopConfig(lanes, UNROLL, warmup=warmup))

    def body(state, _):
        state, metrics = run.step(state)
        window = buffer.sample(state.buffer, jaxrl.key(0), state.clock).window
        return state, (metrics, window._replace(carry=()))

    state, (metrics, windows) = jax.jit(lambda key: jax.lax.scan(body, run.warmup(run.init(key)), None, phases))(
        jaxrl.key(3)
    )
    windows = jax.tree.map(np.asarray, windows)
    old = jax.tree.map(lambda x: np.moveaxis(x[0, :, : horizon - 1], 1, 0), windows)
    new = jax.tree.map(lambda x: np.moveaxis(x[:, :, horizon - 1 :], 2, 1).reshape(phases * UNROLL, lanes), windows)
    steps = jax.tree.map(lambda a, b: np.concatenate([a, b]), old, new)
    return state.agent, {name: float(jnp.sum(x)) for name, x in metrics.items()}, steps


def episodes(steps, learned_from=HORIZON - 1):
    """Whole episodes, lists of (s, a, r), and whether each was cut, without those that ended before `learned_from`."""
    for lane in range(steps.reward.shape[1]):
        episode = []
        for t in range(len(steps.reward)):
            episode.append((int(steps.obs[t, lane]), int(steps.action[t, lane]), float(steps.reward[t, lane])))
            if steps.terminated[t, lane] or steps.truncated[t, lane]:
                if t >= learned_from:
                    yield episode, not steps.terminated[t, lane]
                episode = []


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


@pytest.mark.parametrize(
    ("visit", "cut", "warmup"),
    [("first", "drop", 4), ("every", "drop", 4), ("first", "keep", 4), ("every", "keep", 11)],
)
def test_windows_average_every_episode_once(visit, cut, warmup):
    agent = monte_carlo(4, 2, horizon=HORIZON, gamma=0.9, visit=visit, cut=cut, alpha=1.0, alpha_power=1.0, epsilon=0.5)
    state, metrics, steps = logged(agent, warmup=warmup)
    total, count = np.zeros((4, 2)), np.zeros((4, 2))
    whole = list(episodes(steps))
    for episode, was_cut in whole:
        for s, a, g, _ in [] if was_cut and cut == "drop" else visits(episode, 0.9, visit == "first"):
            total[s, a] += g
            count[s, a] += 1
    cuts = sum(was_cut for _, was_cut in whole)
    assert 20 < cuts < len(whole) - 20 and count[:3].min() > 10
    np.testing.assert_array_equal(state.visits, count)
    np.testing.assert_allclose(state.q, total / np.maximum(count, 1), atol=1e-5)
    assert metrics["cut_episodes"] == cuts and metrics["long_episodes"] == 0
    assert metrics["learned_episodes"] == len(whole) - (cuts if cut == "drop" else 0)


def window(obs, action, reward, terminated=(), truncated=()):
    """One lane; `terminated` and `truncated` are the rows that end so."""
    rows = np.arange(len(obs))
    leaves = (obs, action, np.float32(reward), np.isin(rows, terminated), np.isin(rows, truncated), obs)
    step = Transition(*(jnp.asarray(leaf)[None] for leaf in leaves))
    return Sample(step, jnp.zeros(1, jnp.int32), jnp.ones(1))


def learned(sample, **options):
    agent = monte_carlo(3, 2, **{"alpha": 1.0, "alpha_power": 1.0, **options})
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    state, _, metrics = jax.jit(agent.update)(state, sample, jaxrl.key(0), jnp.float32(0))
    return np.asarray(state.q), np.asarray(state.visits), metrics


def test_first_and_every_visit_by_hand():
    # s0 a1 +1, s0 a1 +2, s2 a0 +4, s0 a1 +8: returns 15, 14, 12, 8 without a discount
    sample = window([0, 0, 2, 0], [1, 1, 0, 1], [1, 2, 4, 8], terminated=[3])
    q, visits, _ = learned(sample, horizon=4)
    np.testing.assert_array_equal(q, [[0, 15], [0, 0], [12, 0]])
    np.testing.assert_array_equal(visits, [[0, 1], [0, 0], [1, 0]])
    q, visits, _ = learned(sample, horizon=4, visit="every")
    np.testing.assert_allclose(q, [[0, 37 / 3], [0, 0], [12, 0]], rtol=1e-6)
    np.testing.assert_array_equal(visits, [[0, 3], [0, 0], [1, 0]])
    q, _, _ = learned(sample, horizon=4, gamma=0.5, visit="first")
    np.testing.assert_array_equal(q, [[0, 4], [0, 0], [8, 0]])  # 1 + 1 + 1 + 1 and 4 + 4
    # V of a policy: states alone are visited, and s0's first visit is the first row
    q, visits, _ = learned(
        window([0, 0, 2, 0], [0, 1, 0, 1], [1, 2, 4, 8], [3]), horizon=4, policy=np.full((3, 2), 0.5)
    )
    np.testing.assert_array_equal(q, [[15], [0], [12]])
    np.testing.assert_array_equal(visits, [[1], [0], [1]])


def test_a_constant_step_by_hand():
    sample = window([0, 1, 0], [1, 1, 1], [1, 2, 4], terminated=[0, 2])
    q, _, _ = learned(sample, horizon=1, alpha=0.5, alpha_power=0.0, initial=10.0)
    np.testing.assert_array_equal(q, [[10, 5.5], [10, 10], [10, 10]])  # the second episode is longer than the horizon


def test_which_episodes_of_a_window_are_learned_from():
    # horizon 3, so rows 2.. are new: the end in row 1 was learned before, the running episode at the end is yet to be
    sample = window([0, 1, 1, 2, 2, 0], [0] * 6, [1, 2, 4, 8, 16, 32], terminated=[1, 3])
    q, visits, metrics = learned(sample, horizon=3)
    np.testing.assert_array_equal(q[:, 0], [0, 12, 8])
    np.testing.assert_array_equal(visits[:, 0], [0, 1, 1])
    assert metrics["learned_episodes"] == 1
    # an episode as long as the horizon that begins in row 0
    q, _, _ = learned(window([0, 1, 2, 0], [0] * 4, [1, 2, 4, 8], terminated=[2]), horizon=3)
    np.testing.assert_array_equal(q[:, 0], [7, 6, 4])
    # one that is longer than the horizon, begun in the window or before it
    for ends in ([4], [0, 4]):
        q, visits, metrics = learned(window([0, 1, 2, 0, 1], [0] * 5, [1, 2, 4, 8, 16], ends), horizon=3)
        assert not q.any() and not visits.any() and metrics["long_episodes"] == 1
    # cut at row 2, dropped or kept, and an end that is both
    cut = window([0, 1, 2, 0], [0] * 4, [1, 2, 4, 8], truncated=[2], terminated=[3])
    q, _, metrics = learned(cut, horizon=3)
    np.testing.assert_array_equal(q[:, 0], [8, 0, 0])
    assert metrics["cut_episodes"] == 1 and metrics["learned_episodes"] == 1
    q, _, metrics = learned(cut, horizon=3, cut="keep")
    np.testing.assert_array_equal(q[:, 0], [7.5, 6, 4])
    assert metrics["cut_episodes"] == 1 and metrics["learned_episodes"] == 2
    q, _, metrics = learned(window([0, 1, 2], [0] * 3, [1, 2, 4], truncated=[2], terminated=[2]), horizon=3)
    np.testing.assert_array_equal(q[:, 0], [7, 6, 4])
    assert metrics["cut_episodes"] == 0


@pytest.mark.parametrize("weighting", ["weighted", "ordinary"])
@pytest.mark.parametrize("visit", ["first", "every"])
def test_importance_sampling_against_lists(weighting, visit):
    agent = off_policy_monte_carlo(
        4,
        2,
        horizon=HORIZON,
        target=TARGET,
        behaviour=behaviour.fixed(PLAY),
        weighting=weighting,
        gamma=0.9,
        visit=visit,
    )
    state, _, steps = logged(agent)
    q, weight, count = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for episode, was_cut in episodes(steps):
        for s, a, g, rho in [] if was_cut else visits(episode, 0.9, visit == "first", TARGET / PLAY):
            count[s, a] += 1
            weight[s, a] += rho
            if weighting == "weighted":
                q[s, a] += rho / weight[s, a] * (g - q[s, a])
            else:
                q[s, a] += (rho * g - q[s, a]) / count[s, a]
    np.testing.assert_array_equal(state.visits, count)
    np.testing.assert_allclose(state.q, q, atol=1e-5)
    if weighting == "weighted":
        np.testing.assert_allclose(state.memory.total, weight, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["weighted", "ordinary"])
def test_importance_sampling_finds_the_targets_values(weighting):
    process = chain()
    agent = off_policy_monte_carlo(
        4, 2, horizon=HORIZON, target=TARGET, behaviour=behaviour.fixed(PLAY), weighting=weighting
    )
    state, _, _ = logged(agent, process, phases=400, lanes=32)
    exact = np.asarray(planning.evaluate(process, 1.0, TARGET).q)
    played = np.asarray(planning.evaluate(process, 1.0, PLAY).q)
    assert abs(exact - played)[0].min() > 0.3
    count = np.asarray(state.visits)[:3]
    # returns lie in a span of 3, and ratios are below 4: five standard deviations of a mean of visits
    assert (abs(np.asarray(state.q) - exact)[:3] < 5 * 3 / np.sqrt(count)).all() and count.min() > 3000


def test_a_target_that_never_does_it_weighs_nothing():
    agent = off_policy_monte_carlo(
        3, 2, horizon=2, target=np.eye(2)[[0, 0, 0]], behaviour=behaviour.fixed(np.full((3, 2), 0.5)), initial=3.0
    )
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    sample = window([0, 1, 2, 1, 2, 0], [0, 1, 1, 0, 0, 0], [1, 2, 4, 8, 16, 32], terminated=[1, 3, 5])
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
        (lambda: learned(window([0, 1], [0, 0], [1, 2]), horizon=3), "windows of 2 steps, shorter than its horizon 3"),
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
