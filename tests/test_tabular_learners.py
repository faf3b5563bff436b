"""Each tabular learner goes to the exact fixed point of its own operator, as planning finds it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import OPTIMIZED
from test_tabular import random_mdp

import jaxrl
from jaxrl import behaviour, planning
from jaxrl.envs.tabular import tabular_env
from jaxrl.types import NO_LIMIT, Sample, Transition

GAMMA, EPSILON, LAMBDA, HORIZON = 0.9, 0.5, 0.5, 100
MDP = random_mdp(1)
POLICY = np.random.default_rng(0).dirichlet(np.full(3, 3.0), 7) * 0.7 + 0.1
TARGET = np.random.default_rng(1).dirichlet(np.ones(3), 7)
SEEDS, LANES, UPDATES, UNROLL = 4, 64, 400_000, 100
sarsa_point = planning.sarsa(MDP, GAMMA, EPSILON)
best_point = planning.q_learning(MDP, GAMMA)
followed = planning.evaluate(MDP, GAMMA, POLICY)
exploring, soft, following = {"epsilon": 1.0}, {"epsilon": EPSILON}, {"behaviour": behaviour.fixed(POLICY)}
about = {"epsilon": 1.0, "target": behaviour.fixed(TARGET)}
model = {"epsilon": 1.0, "model": "counts", "alpha_power": 0.75, "average": None}
whole = {"horizon": HORIZON, "visit": "every", **following}
# name -> (factory, window where it may be any, options, the exact q [S, A])
LEARNERS = {
    "q_learning": (jaxrl.q_learning, 1, exploring, best_point.q),
    "double_q_learning": (jaxrl.double_q_learning, 1, exploring, best_point.q),
    "q_learning, 3 steps": (jaxrl.q_learning, 3, following, planning.n_step_q(MDP, GAMMA, 3, POLICY).q),
    "sarsa": (jaxrl.sarsa, 2, soft, sarsa_point.q),
    "sarsa, 3 steps": (jaxrl.sarsa, 4, soft, sarsa_point.q),
    "expected_sarsa": (jaxrl.expected_sarsa, 1, soft, sarsa_point.q),
    "expected_sarsa, fixed": (jaxrl.expected_sarsa, 1, about, planning.evaluate(MDP, GAMMA, TARGET).q),
    "tree_backup": (jaxrl.tree_backup, 3, exploring, best_point.q),
    "tree_backup, fixed": (jaxrl.tree_backup, 3, about, planning.tree_backup(MDP, GAMMA, TARGET).q),
    "sarsa_lambda, accumulating": (partial(jaxrl.sarsa_lambda, lambda_=LAMBDA), 0, soft, sarsa_point.q),
    "sarsa_lambda, replacing": (
        partial(jaxrl.sarsa_lambda, lambda_=LAMBDA, trace="replacing"),
        0,
        soft,
        sarsa_point.q,
    ),
    "sarsa_lambda, dutch": (partial(jaxrl.sarsa_lambda, lambda_=LAMBDA, trace="dutch"), 0, soft, sarsa_point.q),
    "q_lambda, watkins": (partial(jaxrl.q_lambda, lambda_=LAMBDA), 0, exploring, best_point.q),
    "q_lambda, peng": (
        partial(jaxrl.q_lambda, lambda_=LAMBDA, variant="peng"),
        0,
        soft,
        planning.peng(MDP, GAMMA, LAMBDA, EPSILON).q,
    ),
    "monte_carlo": (jaxrl.monte_carlo, 0, whole, followed.q),
    "dyna_q": (jaxrl.dyna_q, 1, model, best_point.q),
    "prioritized_sweeping": (jaxrl.prioritized_sweeping, 1, model, best_point.q),
    "td": (jaxrl.q_learning, 1, {"policy": POLICY}, followed.values[:, None]),
    "td, 3 steps": (jaxrl.q_learning, 3, {"policy": POLICY}, followed.values[:, None]),
}


@partial(jax.jit, static_argnums=0, compiler_options=OPTIMIZED)
def learned(name, key):
    factory, window, options, _ = LEARNERS[name]
    unroll = UNROLL if "horizon" in options else 1
    # a cut shortens n-step returns, which the composed operator does not know
    env = tabular_env(MDP, max_steps=HORIZON if "horizon" in options else NO_LIMIT)
    agent = factory(7, 3, gamma=GAMMA, **{"alpha": 1.0, "alpha_power": 0.7, "average": 1.0, **options})
    rows = window if agent.rows is None else agent.rows(unroll)
    loop = jaxrl.LoopConfig(LANES, unroll, warmup=rows - unroll)
    run = jaxrl.make_run(env, env.default_params, agent, jaxrl.recent(rows, LANES), loop)
    return jaxrl.advance(run, run.warmup(run.init(key)), UPDATES // (LANES * unroll))[0].agent


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_reach_the_fixed_point_of_their_own_operator(name):
    exact = np.asarray(LEARNERS[name][-1])
    states = jax.vmap(lambda key: learned(name, key))(jax.vmap(jaxrl.key)(jnp.arange(SEEDS)))
    table = np.asarray(states.q if isinstance(states.average, tuple) else states.average)
    seen = np.asarray(states.visits) >= 1000
    assert seen.sum() >= SEEDS * 0.6 * (~MDP.terminal).sum() * exact.shape[1]
    error = np.where(seen, np.abs(table - exact), 0).max((1, 2))
    size = np.ptp(followed.q if exact.shape[1] == 1 else exact)
    assert (error <= 0.02 * size).all(), error / size


def test_the_fixed_points_can_be_told_apart():
    """Else a learner that goes to another's would pass."""
    names = ("q_learning", "sarsa", "expected_sarsa, fixed", "q_learning, 3 steps", "q_lambda, peng", "monte_carlo")
    points = [LEARNERS[name][-1] for name in names]
    for i, a in enumerate(points):
        for b in points[:i]:
            assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0.04 * np.ptp(a)


def steps(action, reward, terminated=(), truncated=()):
    """A window over states 0, 1, 2, ...; ends at the steps named."""
    length = len(reward)
    place = np.arange(length)
    leaves = (place, action, np.float32(reward), np.isin(place, terminated), np.isin(place, truncated), place + 1)
    return Transition(*(jnp.asarray(leaf)[None] for leaf in leaves))


Q = np.arange(12.0).reshape(6, 2) ** 1.5


def updated(factory, window, **options):
    """What Q(0, a) is moved towards."""
    agent = factory(6, 2, gamma=0.5, alpha=1.0, epsilon=0.0, **options)
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))._replace(q=jnp.asarray(Q, jnp.float32))
    sample = Sample(window, jnp.zeros(1, jnp.int32), jnp.ones(1))
    return float(agent.update(state, sample, jaxrl.key(1), jnp.float32(0))[0].q[0, window.action[0, 0]])


def test_tree_backup_by_hand():
    """Two actions, a target of 0.25 and 0.75: equation 7.16 written out."""
    pi = behaviour.fixed(np.tile([0.25, 0.75], (6, 1)))
    mean = Q @ [0.25, 0.75]
    last = 4 + 0.5 * mean[3]
    middle = 2 + 0.5 * (0.75 * Q[2, 1] + 0.25 * last)  # action 0 was taken in state 2
    first = 1 + 0.5 * (0.25 * Q[1, 0] + 0.75 * middle)  # action 1 in state 1
    assert updated(jaxrl.tree_backup, steps([0, 1, 0], [1, 2, 4]), target=pi) == pytest.approx(first, rel=1e-6)
    cut = 1 + 0.5 * (0.25 * Q[1, 0] + 0.75 * (2 + 0.5 * mean[2]))
    window = steps([0, 1, 0], [1, 2, 4], truncated=[1])
    assert updated(jaxrl.tree_backup, window, target=pi) == pytest.approx(cut, rel=1e-6)
    ended = 1 + 0.5 * (0.25 * Q[1, 0] + 0.75 * 2)
    window = steps([0, 1, 0], [1, 2, 4], terminated=[1])
    assert updated(jaxrl.tree_backup, window, target=pi) == pytest.approx(ended, rel=1e-6)


def test_n_step_sarsa_by_hand():
    assert updated(jaxrl.sarsa, steps([0, 1, 0], [1, 2, 4])) == pytest.approx(1 + 0.5 * 2 + 0.25 * Q[2, 0])
    window = steps([0, 1, 0], [1, 2, 4], truncated=[0])  # drawn greedily at state 1, whatever was done elsewhere
    assert updated(jaxrl.sarsa, window) == pytest.approx(1 + 0.5 * Q[1, 1])
    assert updated(jaxrl.sarsa, steps([0, 1, 0], [1, 2, 4], terminated=[1])) == pytest.approx(2.0)


def test_double_q_moves_one_table_by_the_other():
    agent = jaxrl.double_q_learning(3, 2, gamma=0.5, alpha=0.5)
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    tables = jnp.array([[1.0, 2], [5, 3], [0, 0], [7, 8], [4, 9], [0, 0]])
    state = state._replace(memory=state.memory._replace(q=tables))
    sample = Sample(steps([1], [1.0]), jnp.zeros(1, jnp.int32), jnp.ones(1))
    after = jax.vmap(lambda key: agent.update(state, sample, key, jnp.float32(0))[0])(
        jax.random.split(jaxrl.key(0), 64)
    )
    first = tables.at[0, 1].add(0.5 * (1 + 0.5 * 4 - 2))  # the first chooses action 0, the second values it
    second = tables.at[3, 1].add(0.5 * (1 + 0.5 * 3 - 8))
    kinds = [(np.abs(np.asarray(after.memory.q) - np.asarray(table)).max((1, 2)) < 1e-6) for table in (first, second)]
    assert (kinds[0] ^ kinds[1]).all() and 10 < kinds[0].sum() < 54
    np.testing.assert_allclose(after.q, (after.memory.q[:, :3] + after.memory.q[:, 3:]) / 2)
    np.testing.assert_array_equal(after.visits[:, 0, 1], 1)


def test_averages_are_weighted_as_said_and_acted_on():
    agent = jaxrl.q_learning(2, 2, gamma=0.0, alpha=0.5, average=1.0)
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    q, mean = 0.0, 0.0
    for n, reward in enumerate([4.0, 8.0, 1.0, -40.0], 1):
        sample = Sample(steps([1], [reward], terminated=[0]), jnp.zeros(1, jnp.int32), jnp.ones(1))
        state, *_ = agent.update(state, sample, jaxrl.key(0), jnp.float32(0))
        q += 0.5 * (reward - q)
        mean += min(1.0, 2 / (n + 1)) * (q - mean)
        assert float(state.average[0, 1]) == pytest.approx(mean, rel=1e-6)
    state = state._replace(average=state.average.at[0].set(jnp.array([0.0, 1.0])))
    assert float(state.q[0, 1]) < 0
    assert int(agent.act(state, (), jnp.int32(0), jaxrl.key(0), 0.0, greedy=True)[0]) == 1
