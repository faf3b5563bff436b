"""The off-line lambda-return against lists of episodes and the returns' definition as a mixture of n-step returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.agents.lambda_return import lambda_return
from jaxrl.agents.monte_carlo import monte_carlo
from jaxrl.types import Masked, Sample, Transition

S, A, GAMMA, LAMBDA, ALPHA = 6, 3, 0.9, 0.8, 0.3
TARGETS = ["sarsa", "watkins", "peng"]
START = np.random.default_rng(7).normal(size=(S, A))
START.setflags(write=False)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def features(obs, action):
    x = np.zeros((S, A))
    np.add.at(x, (np.atleast_1d(obs), action), 1)
    return x


def log(seed, lengths, tiles=None):
    """Transitions of episodes of these lengths, every second truncated; the last one has not ended."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(lengths)[:-1] - 1
    total, shape = sum(lengths), () if tiles is None else (len(tiles),)
    offset = np.zeros(shape, int) if tiles is None else np.concatenate([[0], np.cumsum(tiles)[:-1]])
    high = S if tiles is None else np.asarray(tiles)
    obs = rng.integers(high, size=(total, *shape)) + offset
    next_obs = np.roll(obs, -1, axis=0)
    for end in ends:
        next_obs[end] = rng.integers(high, size=shape) + offset
    terminated, truncated = np.isin(np.arange(total), ends[::2]), np.isin(np.arange(total), ends[1::2])
    action, reward = rng.integers(A, size=total).astype(np.int32), rng.normal(size=total)
    return Transition(obs.astype(np.int32), action, reward, terminated, truncated, next_obs.astype(np.int32))


def book(steps, first, end, w, target, lam, alpha):
    """One episode, rows first..end, by equations 12.2 to 12.4: the table after it."""

    def q(obs, action):
        return (features(obs, action) * w).sum()

    def value(t):
        """What is beyond step t, and whether the returns may go on."""
        ahead = [q(steps.next_obs[t], a) for a in range(A)]
        if steps.terminated[t]:
            return 0.0, False
        action = int(np.argmax(ahead)) if t == end else steps.action[t + 1]  # epsilon is 0
        greedy = ahead[action] == max(ahead)
        return (ahead[action] if target == "sarsa" else max(ahead)), t < end and (target != "watkins" or greedy)

    new = w
    for t in range(first, end + 1):
        goal, n, rewards, weight = 0.0, 0, 0.0, 1.0
        while True:
            beyond, on = value(t + n)
            rewards += GAMMA**n * steps.reward[t + n]
            n += 1
            of_n = rewards + GAMMA**n * beyond
            if not on:
                goal += weight * of_n
                break
            goal += weight * (1 - lam) * of_n
            weight *= lam
        x = features(steps.obs[t], steps.action[t])
        new = new + alpha / x.sum() * (goal - (x * new).sum()) * x
    return new


def sample(*lanes):
    window = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *lanes)
    return Sample(window, jnp.arange(len(lanes)), jnp.ones(len(lanes)))


def updated(agent, batch, start=START):
    state = agent.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[:, 0], batch.window.obs))
    state = state._replace(q=jnp.asarray(start[:, : state.q.shape[1]], state.q.dtype))
    state, _, metrics = jax.jit(agent.update)(state, batch, jax.random.key(1), jnp.float32(0))
    return state, {name: float(value) for name, value in metrics.items()}


def make(target, **options):
    options = {"horizon": 9, "gamma": GAMMA, "lambda_": LAMBDA, "alpha": ALPHA, "epsilon": 0.0, **options}
    return lambda_return(S, A, target=target, **options)


@pytest.mark.parametrize("tiles", [None, (3, 3)])
@pytest.mark.parametrize("target", TARGETS)
def test_episodes_in_turn_are_the_book(target, tiles, x64):
    # of 5 + 6 + 9 + 4 + 10 + 3 + 2 steps: the first ends too early to be new, the fifth is too long, the last runs on
    steps = log(3, (5, 6, 9, 4, 10, 3, 2), tiles)
    w = START
    for first, end in ((5, 10), (11, 19), (20, 23), (34, 36)):
        w = book(steps, first, end, w, target, LAMBDA, ALPHA)
    state, metrics = updated(make(target), sample(steps))
    np.testing.assert_allclose(state.q, w, atol=1e-12)
    assert int(state.visits.sum()) == 22 * len(tiles or (1,))
    assert (metrics["learned_episodes"], metrics["cut_episodes"], metrics["long_episodes"]) == (4, 3, 1)


def test_thousands_of_settings_are_one_call(x64):
    steps = log(5, (9, 7, 4, 2))
    batch = sample(steps)
    lambdas, alphas = np.linspace(0, 1, 11), np.linspace(0.1, 0.9, 11)

    def learned(lambda_, alpha):
        agent = make("watkins", lambda_=lambda_, alpha=alpha)
        state = agent.init(jax.random.key(0), batch.window.obs[:, 0])._replace(q=jnp.asarray(START))
        return agent.update(state, batch, jax.random.key(1), jnp.float32(0))[0].q

    tables = jax.jit(jax.vmap(learned))(lambdas, alphas)
    for table, lambda_, alpha in zip(tables, lambdas, alphas):
        w = book(steps, 9, 15, START, "watkins", lambda_, alpha)
        np.testing.assert_allclose(table, book(steps, 16, 19, w, "watkins", lambda_, alpha), atol=1e-12)


def test_one_environment_in_the_loop_is_the_books_prediction():
    env, params = jaxrl.make("RandomWalk-v0", length=4, max_steps_in_episode=9)
    unroll, horizon = 6, 8
    agent = make("sarsa", horizon=horizon, policy=np.ones((S, 1)))
    buffer = jaxrl.recent(unroll + horizon, 1)
    run = jaxrl.make_run(env, params, agent, buffer, jaxrl.LoopConfig(1, unroll, warmup=horizon))

    @jax.jit
    def learned(key):
        def body(state, _):
            state, metrics = run.step(state)
            return state, (buffer.sample(state.buffer, key, state.clock).window._replace(carry=()), metrics)

        state = run.warmup(run.init(key))
        return jax.lax.scan(body, state._replace(agent=state.agent._replace(q=jnp.float32(START[:, :1]))), None, 60)

    state, (windows, metrics) = jax.device_get(learned(jaxrl.key(0)))
    steps = jax.tree.map(lambda x: np.concatenate([x[0, 0, :horizon], x[:, 0, horizon:].ravel()]), windows)
    w = np.where(np.arange(A) == 0, START, -100)  # so that only column 0 is best
    first, known, long = 0, 0, 0
    for end in np.flatnonzero(steps.terminated | steps.truncated):
        if end >= horizon and end - first < horizon:
            w, known = book(steps, first, end, w, "sarsa", LAMBDA, ALPHA), known + 1
        long += end >= horizon and end - first >= horizon
        first = end + 1
    assert known > 30 and long > 10 and steps.truncated.sum() > 3
    np.testing.assert_allclose(state.agent.q[:, 0], w[:, 0], atol=2e-5)
    assert metrics["learned_episodes"].sum() == known and metrics["long_episodes"].sum() == long


def test_lambda_one_is_monte_carlo_of_every_visit(x64):
    """Also from several environments, for averages of all returns: ends that are real, entries that meet."""
    lanes = [log(seed, (9, *lengths)) for seed, lengths in enumerate([(7, 4, 3), (3, 9, 2), (6, 6, 2), (2, 5, 7)])]
    lanes = [steps._replace(terminated=steps.terminated | steps.truncated) for steps in lanes]
    lanes = [steps._replace(truncated=np.zeros_like(steps.truncated)) for steps in lanes]
    options = {"horizon": 9, "gamma": GAMMA, "alpha": 1.0, "alpha_power": 1.0}
    expected, counts = updated(monte_carlo(S, A, visit="every", **options), sample(*lanes))
    for target in ("sarsa", "peng"):
        state, metrics = updated(lambda_return(S, A, lambda_=1.0, target=target, **options), sample(*lanes))
        np.testing.assert_allclose(state.q, expected.q, rtol=1e-12)
        np.testing.assert_array_equal(state.visits, expected.visits)
        assert metrics["learned_episodes"] == counts["learned_episodes"] == 8


def test_environments_that_meet_take_the_mean_of_one_time():
    """Both in state 0 at the first step of an episode, one of them also at its second; rewards alone, lambda 1."""

    def lane(obs, reward):
        obs, end = np.array([5, 5, *obs]), np.arange(4)
        steps = (obs, np.zeros(4, int), np.float32([0, 0, *reward]), (end == 1) | (end == 3), end > 9, obs)
        return Transition(*steps)

    both = sample(lane([0, 0], [2, 6]), lane([0, 1], [4, 8]), lane([0, 1], [50, 50]))
    both = both._replace(weight=jnp.float32([1, 1, 0]))  # the third is no window
    agent = lambda_return(S, A, horizon=2, gamma=0.5, lambda_=1.0, alpha=0.5)
    state, metrics = updated(agent, both, np.zeros((S, A)))
    first = 0.5 * (5 + 8) / 2  # goals 2 + 0.5 x 6 and 4 + 0.5 x 8
    np.testing.assert_allclose(state.q[:2, 0], [first + 0.5 * (6 - first), 0.5 * 8], rtol=1e-6)
    assert state.visits[0, 0] == 3 and metrics["learned_episodes"] == 2
    np.testing.assert_allclose(metrics["loss"], (25 + 64 + (6 - first) ** 2 + 64) / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics["q"], first / 4, rtol=1e-6)


def test_at_a_cut_the_next_action_is_drawn_from_the_policy_there():
    """One of two, by state 4's chances; the table tells which."""
    chances = np.full((S, A), 1 / 3)
    chances[4] = [0.25, 0, 0.75]
    steps = log(0, (2, 2))._replace(truncated=np.arange(4) == 3, terminated=np.arange(4) == 1)
    steps = steps._replace(next_obs=np.where(np.arange(4) == 3, 4, steps.next_obs), reward=np.zeros(4, np.float32))
    agent = lambda_return(S, A, horizon=2, alpha=1.0, behaviour=jaxrl.behaviour.fixed(chances), gamma=1.0, lambda_=0.5)
    start = np.zeros((S, A))
    start[4] = [10, 20, 30]
    batch = jax.tree.map(lambda leaf: jnp.repeat(leaf, 400, axis=0), sample(steps))
    state = agent.init(jaxrl.key(0), jnp.zeros(400, jnp.int32))._replace(q=jnp.float32(start))
    q = jax.jit(agent.update)(state, batch, jaxrl.key(2), jnp.float32(0))[0].q
    s, a = steps.obs[3], steps.action[3]
    share = (q[s, a] - 10) / 20  # of the environments that drew the third
    assert s != 4 and abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 400)


def test_an_end_that_allows_no_action_and_a_best_that_is_forbidden():
    steps = log(0, (3, 3, 2))._replace(terminated=np.isin(np.arange(8), [2, 5]), truncated=np.zeros(8, bool))
    allowed = np.ones((8, A), bool)
    allowed[np.arange(8), np.argmax(START[steps.next_obs], axis=1)] = False
    allowed[5] = False
    masked = steps._replace(obs=Masked(steps.obs, np.ones((8, A), bool)), next_obs=Masked(steps.next_obs, allowed))
    state, _ = updated(make("peng", horizon=3, alpha=1.0), sample(masked))
    expected, g = START.copy(), 0.0
    for t in (5, 4, 3):
        second = np.sort(START[steps.next_obs[t]])[-2]
        g = steps.reward[t] + (0 if t == 5 else GAMMA * ((1 - LAMBDA) * second + LAMBDA * g))
        expected[steps.obs[t], steps.action[t]] = g
    assert (expected != START).sum() == 3
    np.testing.assert_allclose(state.q, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": None}, r"lambda_return got no horizon \(horizon=None\).*wrappers.time_limit"),
        ({"horizon": 0}, "horizon is 0"),
        ({"lambda_": 1.5}, "lambda_ is 1.5"),
        ({"gamma": -0.1}, "gamma is -0.1"),
        ({"target": "watkin"}, "unknown target 'watkin'; did you mean 'watkins'"),
    ],
)
def test_bad_input_says_so(options, message):
    with pytest.raises(ValueError, match=message) as error:
        lambda_return(S, A, **{"horizon": 9, **options})
    assert "\n" not in str(error.value)


def test_windows_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match=r"windows of 9 steps .* of 9 began; use recent\(unroll \+ horizon"):
        updated(make("peng"), sample(log(0, (5, 4))))
    env, params = jaxrl.make("RandomWalk-v0")
    with pytest.raises(ValueError, match=r"recent\(13, 2\)"):
        jaxrl.make_run(env, params, make("peng"), jaxrl.recent(12, 2), jaxrl.LoopConfig(2, 4, warmup=9))
