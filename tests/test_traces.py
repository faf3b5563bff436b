"""Eligibility traces against the books' pseudocode in numpy, and against the forward views that they stand for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import memory
from jaxrl.agents.lambda_return import lambda_return
from jaxrl.agents.q_learning import q_learning
from jaxrl.agents.sarsa import sarsa
from jaxrl.agents.traces import q_lambda, sarsa_lambda
from jaxrl.types import Sample, Transition

S, A, GAMMA, LAMBDA, ALPHA = 6, 3, 0.9, 0.8, 0.3
START = np.random.default_rng(7).normal(size=(S, A))
KINDS = ["accumulating", "replacing", "dutch", "watkins", "peng"]
START.setflags(write=False)


def log(seed=0, lengths=(9, 7), tiles=None):
    """Transitions of episodes of these lengths, the first terminated, the second truncated and so on, [t, ...]."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(lengths) - 1
    total = ends[-1] + 1
    shape = () if tiles is None else (len(tiles),)
    offset = np.zeros(shape, int) if tiles is None else np.concatenate([[0], np.cumsum(tiles)[:-1]])
    high = S if tiles is None else np.asarray(tiles)
    obs = rng.integers(high, size=(total, *shape)) + offset
    next_obs = np.roll(obs, -1, axis=0)
    for end in ends:
        next_obs[end] = rng.integers(high, size=shape) + offset
    terminated, truncated = np.isin(np.arange(total), ends[::2]), np.isin(np.arange(total), ends[1::2])
    action, reward = rng.integers(A, size=total).astype(np.int32), rng.normal(size=total)
    return Transition(obs.astype(np.int32), action, reward, terminated, truncated, next_obs.astype(np.int32))


def make(kind, **options):
    options = {"gamma": GAMMA, "lambda_": LAMBDA, "alpha": ALPHA, "epsilon": 0.0, **options}
    if kind in ("watkins", "peng"):
        return q_lambda(S, A, variant=kind, **options)
    return sarsa_lambda(S, A, trace=kind, **options)


def rows_of(kind):
    return 1 if kind in ("peng", "q_learning") else 2


def plain(kind, **options):
    options = {name: value for name, value in options.items() if name != "lambda_"}
    return {"q_learning": q_learning, "sarsa": sarsa}[kind](S, A, gamma=GAMMA, epsilon=0.0, **options)


@functools.cache
def learner(kind, **options):
    """Compiled once for all logs of a shape: the states [phases, ...] after each batch of windows."""

    @jax.jit
    def learn(windows, start, numbers):
        agent = (plain if kind in ("q_learning", "sarsa") else make)(kind, **options, **numbers)
        lanes = windows.reward.shape[1]

        def body(state, window):
            sample = Sample(window, jnp.arange(lanes), jnp.ones(lanes))
            state = agent.update(state, sample, jax.random.key(1), jnp.float32(0))[0]
            return state, state

        state = agent.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0, :, 0], windows.obs))
        state = state._replace(q=start[:, : state.q.shape[1]].astype(state.q.dtype))
        return jax.lax.scan(body, state, windows)[1]

    return learn


def learned(kind, lanes, start=START, alpha=ALPHA, lambda_=LAMBDA, unroll=1, **options):
    """The states after each `unroll` steps of `lanes`, logs of one length: leaves [t / unroll, ...]."""
    steps = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *lanes)  # [t, N]
    rows = np.arange(0, len(steps.reward), unroll)[:, None] + np.arange(rows_of(kind) + unroll - 1)
    windows = jax.tree.map(lambda leaf: np.moveaxis(leaf[rows % len(leaf)], 2, 1), steps)
    return jax.device_get(learner(kind, **options)(windows, start, {"alpha": alpha, "lambda_": lambda_}))


def following_action(log, t, q):
    """a' of S&B's SARSA: what was done, or at a truncated end what the greedy policy would do."""
    ended = log.terminated[t] or log.truncated[t]
    return np.argmax(q[log.next_obs[t]].reshape(-1, A).sum(0)) if ended else log.action[t + 1]


def book(kind, log, lam=LAMBDA, alpha=ALPHA, start=START):
    """S&B section 12.7 (accumulating, replacing), p. 307 (dutch), figure 7.14 of 1998 (watkins), Peng & Williams."""
    q, e, q_old, tables = start.copy(), np.zeros((S, A)), 0.0, []
    for t in range(len(log.action)):
        s, a, r, after = log.obs[t], log.action[t], log.reward[t], log.next_obs[t]
        ended = log.terminated[t] or log.truncated[t]
        a2 = following_action(log, t, q)
        ahead = 0.0 if log.terminated[t] else q[after, a2]
        best = 0.0 if log.terminated[t] else max(q[after])
        if kind == "dutch":
            value, x = q[s, a], np.zeros((S, A))
            x[s, a] = 1
            delta = r + GAMMA * ahead - value
            e = GAMMA * lam * e + (1 - alpha * GAMMA * lam * (e * x).sum()) * x
            q = q + alpha * (delta + value - q_old) * e - alpha * (value - q_old) * x
            q_old = ahead
        elif kind == "peng":
            own, every = r + GAMMA * best - q[s, a], r + GAMMA * best - max(q[s])
            e = GAMMA * lam * e
            q = q + alpha * every * e
            q[s, a] += alpha * own
            e[s, a] += 1
        else:
            delta = r + GAMMA * (best if kind == "watkins" else ahead) - q[s, a]
            keep = kind != "watkins" or q[after, a2] == max(q[after])
            e[s, a] = 1 if kind == "replacing" else e[s, a] + 1
            q = q + alpha * delta * e
            e = GAMMA * lam * e * keep
        if ended:
            e, q_old = np.zeros((S, A)), 0.0
        tables.append(q)
    return np.array(tables)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_are_the_books_pseudocode(kind, x64):
    for seed in range(4):
        steps = log(seed, (13, 8, 3))
        states = learned(kind, [steps])
        np.testing.assert_allclose(states.q, book(kind, steps), atol=1e-12)
        ends = states.memory.trace[steps.terminated | steps.truncated]
        assert len(ends) == 3 and not ends.any()
        assert states.memory.trace.any((1, 2, 3)).mean() > 0.2
        count = np.zeros((S, A))
        np.add.at(count, (steps.obs, steps.action), 1)
        np.testing.assert_array_equal(states.visits[-1], count)


def test_float32_is_the_book_to_1e_6():
    steps = log(5, (6, 5, 13))
    np.testing.assert_allclose(learned("dutch", [steps]).q[:11], book("dutch", steps)[:11], rtol=2e-6, atol=2e-6)


def test_steps_of_a_longer_unroll_are_learned_from_in_order(x64):
    steps = log(1, (13, 8, 3))
    one, four = learned("dutch", [steps]), learned("dutch", [steps], unroll=4)
    at_ends = jax.tree.map(lambda leaf: leaf[3::4], one)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-14), four, at_ends)


@pytest.mark.parametrize(
    ("kind", "counted"),
    [("replacing", False), ("dutch", True), ("peng", False)],
)
def test_lambda_zero_is_one_step_learning(kind, counted, x64):
    """Also where several environments meet, with visit counts and averages."""
    lanes = [log(seed, (12, 9)) for seed in range(8)]
    options = {"alpha_power": 0.8, "average": 2.0} if counted else {}
    alpha = 1.0 if counted else ALPHA
    one_step = "q_learning" if kind in ("watkins", "peng") else "sarsa"
    expected, got = (learned(name, lanes, alpha=alpha, lambda_=0.0, **options) for name in (one_step, kind))
    close = functools.partial(np.testing.assert_allclose, atol=1e-12)
    jax.tree.map(close, got._replace(memory=()), expected._replace(memory=()))


@functools.cache
def forward(target):
    """Compiled: (window [T, ...], alpha) -> the table that the forward view makes of START."""

    @jax.jit
    def learn(window, alpha):
        agent = lambda_return(S, A, horizon=12, gamma=GAMMA, lambda_=LAMBDA, target=target, alpha=alpha, epsilon=0.0)
        sample = Sample(jax.tree.map(lambda leaf: leaf[None], window), jnp.zeros(1, jnp.int32), jnp.ones(1))
        state = agent.init(jax.random.key(0), sample.window.obs[:, 0])._replace(q=jnp.asarray(START))
        return agent.update(state, sample, jax.random.key(1), jnp.float32(0))[0].q

    return learn


def off_line(change):
    """What `change`, of a step size, is per step size as that goes to 0: all updates of one table."""
    tiny = 1e-5
    return 2 * change(tiny / 2) / (tiny / 2) - change(tiny) / tiny


@pytest.mark.parametrize("kind", ["accumulating", "watkins", "peng"])
def test_backward_view_is_the_forward_view_off_line(kind, x64):
    """sum_t alpha delta_t e_t = sum_t alpha (G_t - Q) x_t (Sutton & Barto 2018, exercise 12.4), by agents and lists."""
    target = "sarsa" if kind == "accumulating" else kind
    for seed in range(3):
        steps = log(seed, (3, 12, 9))  # of which the first is learned from before the forward view's window

        def backward(alpha, steps=steps):
            tables = learned(kind, [steps], alpha=alpha).q
            return tables[-1] - tables[2]

        expected, g = np.zeros((S, A)), 0.0
        for t in reversed(range(3, 24)):
            s, a, after, end = steps.obs[t], steps.action[t], steps.next_obs[t], t in (14, 23)
            a2 = following_action(steps, t, START)
            value = START[after, a2] if kind == "accumulating" else max(START[after])
            lam = LAMBDA * (not end) * (kind != "watkins" or START[after, a2] == max(START[after]))
            g = steps.reward[t] + GAMMA * (not steps.terminated[t]) * ((1 - lam) * value + lam * g)
            expected[s, a] += g - START[s, a]
        by_agent = off_line(lambda alpha, steps=steps: forward(target)(steps, alpha) - START)
        np.testing.assert_allclose(off_line(backward), expected, atol=1e-7)
        np.testing.assert_allclose(by_agent, expected, atol=1e-7)
        assert abs(expected).max() > 1


def online_forward_view(steps, x, lam, alpha):
    """S&B section 12.4: after every step, all updates of the episode anew with the returns known by then."""
    final, episode = START.ravel().copy(), 0
    tables = []
    for end in [*np.flatnonzero(steps.terminated | steps.truncated)]:
        weights = [final]  # weights[h]: w_h^h
        actions = list(steps.action[episode : end + 1])
        for h in range(1, end - episode + 2):
            last = episode + h - 1
            if last == end:
                q = weights[h - 1].reshape(S, A)
                actions.append(following_action(steps, end, q))

            def value(n, w, last=last, actions=actions, episode=episode):
                """q(S_n, A_n, w), n from the episode's start."""
                obs = steps.next_obs[episode + n - 1]
                return 0.0 if steps.terminated[episode + n - 1] else x(obs, actions[n]) @ w

            w = weights[0]
            for t in range(h):
                returns = []
                for n in range(1, h - t + 1):
                    rewards = sum(GAMMA**i * steps.reward[episode + t + i] for i in range(n))
                    returns.append(rewards + GAMMA**n * value(t + n, weights[t + n - 1]))
                g = (1 - lam) * sum(lam**i * one for i, one in enumerate(returns[:-1])) + lam ** (h - t - 1) * returns[
                    -1
                ]
                features = x(steps.obs[episode + t], actions[t])
                w = w + alpha * (g - features @ w) * features
            weights.append(w)
        tables += weights[1:]
        final, episode = weights[-1], end + 1
    return np.array(tables).reshape(-1, S, A)


def features(obs, action):
    x = np.zeros((S, A))
    np.add.at(x, (np.atleast_1d(obs), action), 1)
    return x.ravel()


@pytest.mark.parametrize("tiles", [None, (2, 2, 2)])
def test_true_online_is_the_online_forward_view(tiles, x64):
    steps = log(4, (9, 8, 7), tiles=tiles)
    states = learned("dutch", [steps])
    expected = online_forward_view(steps, features, LAMBDA, ALPHA / len(tiles or (1,)))
    np.testing.assert_allclose(states.q, expected, atol=1e-11)
    if tiles is None:
        assert abs(learned("accumulating", [steps]).q - expected).max() > 1e-3


def test_tile_coded_traces(x64):
    """Peng and SARSA by hand over vectors of features, alpha / k an index."""
    steps = log(6, (14, 10), tiles=(3, 3))
    for kind in ("replacing", "peng"):
        w, e = START.ravel().copy(), np.zeros(S * A)
        for t in range(len(steps.action)):
            ended = steps.terminated[t] or steps.truncated[t]
            here, there = ([features(o, a) @ w for a in range(A)] for o in (steps.obs[t], steps.next_obs[t]))
            a2 = np.argmax(there) if ended else steps.action[t + 1]
            x = features(steps.obs[t], steps.action[t])
            value = there[a2] if kind == "replacing" else max(there)
            target = steps.reward[t] + GAMMA * (not steps.terminated[t]) * value
            e = GAMMA * LAMBDA * e
            if kind == "peng":
                w = w + ALPHA / 2 * ((target - max(here)) * e + (target - x @ w) * x)
                e = e + x
            else:
                e = np.where(x > 0, 1, e) if kind == "replacing" else e + x
                w = w + ALPHA / 2 * (target - x @ w) * e
            if ended:
                e = np.zeros(S * A)
        np.testing.assert_allclose(learned(kind, [steps]).q[-1].ravel(), w, atol=1e-12)


def test_a_fixed_policy_makes_it_td_lambda(x64):
    steps = log(8, (14, 10))
    policy = np.random.default_rng(0).dirichlet(np.ones(A), S)
    states = learned("dutch", [steps], policy=lambda obs: jnp.asarray(policy)[obs])
    one_action = steps._replace(action=np.zeros_like(steps.action))
    wide = np.repeat(START[:, :1], A, axis=1) - 100 * np.arange(A)  # so that a' at the truncated end is 0
    np.testing.assert_allclose(states.q[..., 0], book("dutch", one_action, start=wide)[..., 0], atol=1e-12)
    assert states.memory.trace.shape == (24, 1, S, 1)


def test_environments_that_meet():
    """Two in one state, one of them a step behind: e = (gamma lambda + 1, 1) there, errors d = (4, 1)."""
    one = log(0, (2,))._replace(
        obs=np.array([0, 0]), next_obs=np.array([0, 5]), action=np.array([0, 0]), reward=np.array([0.0, 4.0])
    )
    two = one._replace(obs=np.array([1, 0]), reward=np.array([0.0, 1.0]))
    one, two = (x._replace(terminated=np.array([False, True]), truncated=np.zeros(2, bool)) for x in (one, two))
    zeros = np.zeros((S, A))
    q = learned("accumulating", [one, two], zeros, 0.5, 0.5 / GAMMA).q[-1]
    np.testing.assert_allclose(q[0, 0], 0.5 * (4 * 1.5 + 1) * 1.5 / 2.5, rtol=1e-6)
    np.testing.assert_allclose(q[1, 0], 0.5 * 1 * 0.5, rtol=1e-6)
    for alpha in (0.2, 1.0):
        states = learned("accumulating", [one, two], zeros, alpha, 0.5 / GAMMA, alpha_power=0.1, average=0.0)
        expected = min(1.0, alpha * 2.5 / 3**0.1) * 7 / 2.5
        np.testing.assert_allclose(states.q[-1][0, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(states.average[-1][0, 0], expected * 2.5 / 3, rtol=1e-6)


@pytest.mark.parametrize(("kind", "unroll"), [("dutch", 1), ("watkins", 3)])
def test_in_the_loop_it_learns_and_ends_its_traces(kind, unroll):
    env, params = jaxrl.make("FrozenLake-v1")
    params = params.replace(success_rate=1.0)
    options = {"gamma": 0.95, "lambda_": 0.7, "alpha": 0.3, "epsilon": 0.3}
    agent = sarsa_lambda(16, 4, trace=kind, **options) if kind == "dutch" else q_lambda(16, 4, variant=kind, **options)
    rows = unroll + 1
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(rows, 4), jaxrl.LoopConfig(4, unroll, warmup=1))

    @jax.jit
    def train(key):
        def body(state, _):
            state, metrics = run.step(state)
            done = state.buffer.terminated | state.buffer.truncated  # [T, N]
            learned = done[(state.clock + rows - 2) % rows]  # the newest step but one
            traces = jnp.sum(jnp.abs(state.agent.memory.trace), axis=(1, 2))
            return state, (learned, traces, metrics["return"])

        return jax.lax.scan(body, run.warmup(run.init(key)), length=6000 // unroll)

    state, (ended, traces, returns) = train(jaxrl.key(0))
    assert ended.sum() > 100
    assert not np.asarray(traces)[np.asarray(ended)].any()
    assert (np.asarray(traces) > 0).mean() > 0.3
    assert np.isfinite(state.agent.q).all()
    assert returns[-1000:].sum() > 100
    np.testing.assert_allclose(np.max(state.agent.q[14]), 1.0, atol=0.05)


def test_bad_input():
    for make in (sarsa_lambda, q_lambda):
        for value in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match=r"lambda_ is .* in \[0, 1\]"):
                make(S, A, lambda_=value)
        with pytest.raises(ValueError, match="gamma is 2"):
            make(S, A, gamma=2)
    with pytest.raises(ValueError, match="unknown trace 'duch'; did you mean 'dutch'"):
        sarsa_lambda(S, A, trace="duch")
    with pytest.raises(ValueError, match="unknown variant 'watkin'; did you mean 'watkins'"):
        q_lambda(S, A, variant="watkin")


def test_windows_without_the_next_step_are_refused():
    step = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1])[:, None], log())
    agent = make("dutch")
    with pytest.raises(ValueError, match=r"1 windows of 1 steps .* use recent\(unroll \+ 1, 1\)") as error:
        agent.update(agent.init(None, step.obs[:, 0]), Sample(step, jnp.arange(1), jnp.ones(1)), jax.random.key(0), 0)
    assert "\n" not in str(error.value)


def test_batches_that_are_not_one_of_each_environment_are_refused():
    agent = make("peng")
    step = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], log())  # 16 windows of one step
    with pytest.raises(ValueError, match="16 windows of 1 steps for 3 environments"):
        agent.update(
            agent.init(None, step.obs[:3, 0]), Sample(step, jnp.arange(16), jnp.ones(16)), jax.random.key(0), 0
        )


@pytest.mark.parametrize(
    ("kind", "rows", "updates", "needed"), [("dutch", 2, 1, 4), ("peng", 1, 1, 3), ("peng", 3, 2, 3)]
)
def test_a_loop_that_would_skip_or_repeat_steps_is_refused(kind, rows, updates, needed):
    env, params = jaxrl.make("FrozenLake-v1")
    with pytest.raises(ValueError, match=rf"each step once.*recent\({needed}, 2\)"):
        jaxrl.make_run(env, params, make(kind), jaxrl.recent(rows, 2), jaxrl.LoopConfig(2, 3, updates, warmup=8))


def test_traces_beyond_memory_are_refused(monkeypatch):
    agent = make("dutch")
    monkeypatch.setattr(memory, "available", lambda device=None: 1000)
    agent.init(jax.random.key(0), jnp.zeros(13, jnp.int32))
    with pytest.raises(ValueError, match=r"traces of 14 environments x 6 x 3 needs 1008 bytes .* fewer environments"):
        agent.init(jax.random.key(0), jnp.zeros(14, jnp.int32))
