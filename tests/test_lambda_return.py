"""The off-line lambda-return against lists of episodes and the returns' definition as a mixture of n-step returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents.lambda_return import lambda_return
from jaxrl.types import Sample, Transition

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
