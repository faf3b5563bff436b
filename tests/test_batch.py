"""A batch learned from until nothing changes: TD goes to the most likely model's values, Monte Carlo to mean returns.

Sutton & Barto (2018), section 6.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import planning
from jaxrl.envs.api import TabularMDP
from jaxrl.types import Sample, Transition

# example 6.4: A pays 0 and leads to B, once; from B six episodes of 1 and one more of 0
PREDICTOR = [[(0, 0, 1), (1, 0, 2)]] + 6 * [[(1, 1, 2)]] + [[(1, 0, 2)]]
HORIZON = 40


def walks(number, seed=0):
    """Episodes of the random walk of seven states: lists of (state, reward, next state)."""
    rng, episodes = np.random.default_rng(seed), []
    while len(episodes) < number:
        state, episode = 3, []
        while 0 < state < 6:
            following = state + rng.choice([-1, 1])
            episode.append((state, int(following == 6), following))
            state = following
        if len(episode) <= HORIZON:
            episodes.append(episode)
    return episodes


BATCHES = {"predictor": (PREDICTOR, 3), "one walk": (walks(1), 7), "walks": (walks(30), 7)}


def transitions(episodes):
    """Of all steps [B], one after the other."""
    steps = [(s, r, after, i + 1 == len(e)) for e in episodes for i, (s, r, after) in enumerate(e)]
    s, r, after, end = map(np.asarray, zip(*steps, strict=True))
    s, after = s.astype(np.int32), after.astype(np.int32)
    leaves = (s, np.zeros_like(s), r.astype(np.float32), end, np.zeros_like(end), after)
    return Transition(*map(jnp.asarray, leaves))


def most_likely(episodes, states):
    """The process whose chances and mean rewards are the batch's; what it never saw ends at once."""
    count, pay = np.zeros((states, states)), np.zeros(states)
    for s, r, after in (step for episode in episodes for step in episode):
        count[s, after] += 1
        pay[s] += r
    visits = count.sum(1)
    P = np.where(visits[:, None] > 0, count / np.maximum(visits, 1)[:, None], np.eye(states))
    return TabularMDP(P[:, None], (pay / np.maximum(visits, 1))[:, None], visits == 0, np.eye(states)[0]), visits > 0


def batch_td(episodes, states, alpha, gamma, unseen=5):
    """V when no update changes it any more; `unseen` more steps of weight 0 are in the batch, as yet to come."""
    agent = jaxrl.q_learning(states, 1, gamma=gamma, alpha=alpha, policy=np.ones((states, 1)), initial=0.3)
    steps = transitions(episodes)
    later = jax.tree.map(lambda leaf: jnp.resize(leaf[::-1], (unseen,)), steps)._replace(reward=jnp.full(unseen, 50.0))
    window = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[:, None], steps, later)
    weight = jnp.concatenate([jnp.ones(len(steps.reward)), jnp.zeros(unseen)])
    sample = Sample(window, jnp.where(weight > 0, 0, -1), weight)

    def again(carry):
        state, _ = carry
        after = agent.update(state, sample, jaxrl.key(0), jnp.zeros(()))[0]
        return after, jnp.max(jnp.abs(after.q - state.q))

    @jax.jit
    def settled(state):
        return jax.lax.while_loop(lambda carry: carry[1] > 1e-8, again, (state, jnp.ones(())))[0]

    return np.asarray(settled(agent.init(jaxrl.key(0), window.obs[:, 0])).q[:, 0])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 1.0), (0.3, 1.0), (0.7, 0.8)])
def test_batch_td_is_certainty_equivalence(batch, alpha, gamma):
    episodes, states = BATCHES[batch]
    with jax.enable_x64():  # float32 sums of hundreds of errors never come to rest
        values = batch_td(episodes, states, alpha, gamma)
        mdp, seen = most_likely(episodes, states)
        exact = np.asarray(planning.evaluate(mdp, gamma, np.ones((states, 1))).values)
    np.testing.assert_allclose(values, np.where(seen, exact, 0.3), atol=1e-5)


def test_you_are_the_predictor():
    """V(B) = 6/8 for both; A led to B, so that TD says 3/4 of it too, but what came after it was 0."""
    with jax.enable_x64():
        assert batch_td(PREDICTOR, 3, 1.0, 1.0)[:2] == pytest.approx([0.75, 0.75], abs=1e-5)
    assert batch_mc(PREDICTOR, 3, 1.0)[:2] == pytest.approx([0, 0.75], abs=1e-6)


def batch_mc(episodes, states, gamma):
    """V after every episode came once, each in a window of its own: the mean of all returns."""
    agent = jaxrl.monte_carlo(
        states, 1, horizon=HORIZON, gamma=gamma, visit="every", alpha=1.0, alpha_power=1.0, policy=np.ones((states, 1))
    )

    def window(episode):
        """It ends in the last row; another ended before it began."""
        before = HORIZON + 1 - len(episode)
        return transitions([before * [(0, 0, 0)], episode])

    @jax.jit
    def learn(state, window):
        sample = Sample(jax.tree.map(lambda leaf: leaf[None], window), jnp.zeros(1, jnp.int32), jnp.ones(1))
        return agent.update(state, sample, jaxrl.key(0), jnp.zeros(()))[0]

    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    for episode in episodes:
        state = learn(state, window(episode))
    return np.asarray(state.q[:, 0])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_batch_monte_carlo_is_the_mean_of_returns(batch, gamma):
    episodes, states = BATCHES[batch]
    returns = [[] for _ in range(states)]
    for episode in episodes:
        g = 0.0
        for s, r, _ in reversed(episode):
            g = r + gamma * g
            returns[s].append(g)
    mean = np.array([np.mean(g) if g else 0.0 for g in returns])
    np.testing.assert_allclose(batch_mc(episodes, states, gamma), mean, atol=1e-5)
