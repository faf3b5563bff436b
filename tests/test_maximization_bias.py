"""Figure 6.5 of Sutton & Barto (2018): how often Q-learning and double Q-learning go left, against the book's text."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import OPTIMIZED

import jaxrl

RUNS, EPISODES, ALPHA, EPSILON, ARMS = 10_000, 300, 0.1, 0.1, 10
SHOWN = np.array([1, 10, 20, 50, 100, 200, 300]) - 1
LEARNERS = {"q_learning": jaxrl.q_learning, "double_q_learning": jaxrl.double_q_learning}


@partial(jax.jit, static_argnums=0, compiler_options=OPTIMIZED)
def lengths(name):
    """[RUNS, 2 EPISODES]: how long the episode was that ended with a step, 0 where none did."""
    env, params = jaxrl.make("MaximizationBias-v0")
    agent = LEARNERS[name](3, ARMS, gamma=1.0, alpha=ALPHA, epsilon=EPSILON)
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, 1), jaxrl.LoopConfig(1))

    def alone(key):
        def body(state, _):
            state, metrics = run.step(state)
            return state, metrics["length"].astype(jnp.int8)

        return jax.lax.scan(body, run.init(key), length=2 * EPISODES)[1]

    return jax.vmap(alone)(jax.random.split(jaxrl.key(0), RUNS))


@cache
def shares(name):
    """How many of the runs went left in each episode."""
    ended = np.asarray(lengths(name))
    length = np.stack([run[run > 0][:EPISODES] for run in ended])
    assert set(np.unique(length)) == {1, 2}  # 1 is right, 2 left and then an arm
    return (length == 2).mean(axis=0)


def choose(rng, q):
    """Epsilon-greedy in q [runs, actions], ties broken at random."""
    explored = rng.integers(q.shape[1], size=len(q))
    best = np.argmax(np.where(q == q.max(1, keepdims=True), rng.random(q.shape), -1), axis=1)
    return np.where(rng.random(len(q)) < EPSILON, explored, best)


def book(double):
    """Sections 6.5 and 6.7 for all runs at once: tables [2, runs, actions] of A, where 0 is left, and of B."""
    rng = np.random.default_rng(0)
    a, b = np.zeros((2, RUNS, 2)), np.zeros((2, RUNS, ARMS))
    shares = np.zeros(EPISODES)

    def moved():  # which table learns, and which one says what the next state is worth
        return rng.integers(2, size=RUNS) if double else np.zeros(RUNS, int)

    run = np.arange(RUNS)
    for episode in range(EPISODES):
        left = choose(rng, a[0] + a[1]) == 0
        shares[episode] = left.mean()
        table = moved()
        other = 1 - table if double else table
        # from A: right ends with 0, left goes to B with 0
        best = np.argmax(b[table, run], axis=1)  # the first: of ties in a target the book says nothing
        following = b[other, run, best]
        target = np.where(left, following, 0.0)
        action = np.where(left, 0, 1)
        a[table, run, action] += ALPHA * (target - a[table, run, action])
        # from B, of those who are there
        arm = choose(rng, b[0] + b[1])
        table = moved()
        reward = rng.normal(-0.1, 1.0, RUNS)
        b[table, run, arm] += left * ALPHA * (reward - b[table, run, arm])
    return shares


@pytest.mark.parametrize("name", LEARNERS)
def test_as_many_go_left_as_by_the_books_text(name):
    found, expected = shares(name)[SHOWN], book(name == "double_q_learning")[SHOWN]
    error = np.sqrt((found * (1 - found) + expected * (1 - expected)) / RUNS)
    assert (np.abs(found - expected) <= 4 * error).all(), (found, expected, (found - expected) / error)


def test_the_learners_can_be_told_apart():
    """And from the best that an epsilon-greedy one can do, epsilon / 2."""
    plain, double = (shares(name) for name in LEARNERS)
    assert plain[:100].max() > 0.6 > 0.55 > double[:100].max()
    assert plain[-50:].mean() > double[-50:].mean() + 0.02 > EPSILON / 2 + 0.02
