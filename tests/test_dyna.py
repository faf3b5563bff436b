"""Planning in a learned model, against the book's pseudocode in plain Python and exact planning."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import masked_env

import jaxrl
from jaxrl import planning
from jaxrl.agents import dyna
from jaxrl.agents.q_learning import q_learning
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.dyna_maze import Params, dyna_maze
from jaxrl.envs.tabular import tabular_env
from jaxrl.types import Agent, Sample, Transition

MAZE = ("S.W.", "....", ".W.G")


def batch(*steps):
    """Windows of one step (s, a, r, terminated, truncated, s')."""
    s, a, r, terminated, truncated, following = (jnp.asarray(x)[:, None] for x in zip(*steps, strict=True))
    window = Transition(s, a, r.astype(jnp.float32), terminated, truncated, following)
    return Sample(window, jnp.arange(len(steps)), jnp.ones(len(steps)))


def walk(seed, steps, desc=MAZE):
    """Random steps of a small deterministic maze."""
    mdp = jaxrl.tabular_mdp(dyna_maze(), Params(desc))
    rng, s, found = np.random.default_rng(seed), int(np.argmax(mdp.start)), []
    for _ in range(steps):
        a = int(rng.integers(4))
        following = int(np.argmax(mdp.P[s, a]))
        end = bool(mdp.terminal[following])
        found.append((s, a, float(mdp.R[s, a]), end, False, following))
        s = int(np.argmax(mdp.start)) if end else following
    return found


def run(agent, env, iterations, num_envs=1, params=None):
    params = env.default_params if params is None else params
    loop = jaxrl.make_run(env, params, agent, jaxrl.recent(1, num_envs), jaxrl.LoopConfig(num_envs))
    return jax.jit(lambda key: jaxrl.advance(loop, loop.init(key), iterations))(jax.random.key(3))


@pytest.mark.parametrize("model", ["last", "counts"])
def test_without_planning_it_is_q_learning_to_the_bit(model):
    plain = run(q_learning(54, 4, gamma=0.95), dyna_maze(), 3000)[0].agent
    none = run(dyna.dyna_q(54, 4, gamma=0.95, planning=0, model=model), dyna_maze(), 3000)[0].agent
    assert float(jnp.max(plain.q)) > 0
    np.testing.assert_array_equal(plain.q, none.q)
    np.testing.assert_array_equal(plain.visits, none.visits)


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_dyna_q_is_the_books(power):
    agent = dyna.dyna_q(12, 4, gamma=0.9, planning=8, alpha=0.5, alpha_power=power)
    state, update = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32)), jax.jit(agent.update)
    q, visits, model = np.zeros((12, 4)), np.zeros((12, 4), int), {}

    def learn(s, a, r, following):
        step = 0.5 * visits[s, a] ** -power
        q[s, a] += step * (r + 0.9 * (0 if following is None else q[following].max()) - q[s, a])

    for t, (s, a, r, end, _, following) in enumerate(walk(0, 300)):
        key = jax.random.key(t)
        state, _, _ = update(state, batch((s, a, r, end, False, following)), key, 0.0)
        visits[s, a] += 1
        model[s, a] = r, None if end else following
        learn(s, a, *model[s, a])
        for pair in np.asarray(dyna.seen_pairs(jax.random.split(key, 3)[1], jnp.asarray(visits), 8)):
            learn(*divmod(pair, 4), *model[divmod(pair, 4)])
        np.testing.assert_allclose(state.q, q, atol=1e-6)
    assert q.max() > 0.5
    np.testing.assert_array_equal(state.visits, visits)


def test_prioritized_sweeping_is_the_books():
    agent = dyna.prioritized_sweeping(12, 4, gamma=0.9, planning=6, theta=1e-3, alpha=0.5)
    state, update = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32)), jax.jit(agent.update)
    q, queue, model, total = np.zeros((12, 4), np.float32), {}, {}, 0

    def target(s, a):
        r, following = model[s, a]
        return np.float32(r) + np.float32(0.9) * (0 if following is None else q[following].max())

    def insert(pair):
        error = abs(target(*pair) - q[pair])
        if error > 1e-3:
            queue[pair] = max(queue.get(pair, 0), error)

    for s, a, r, end, _, following in walk(1, 600):
        state, _, metrics = update(state, batch((s, a, r, end, False, following)), jax.random.key(0), 0.0)
        model[s, a] = r, None if end else following
        insert((s, a))
        done = 0
        while queue and done < 6:
            pair = min(queue, key=lambda pair: (-queue[pair], pair))
            del queue[pair]
            q[pair] += np.float32(0.5) * (target(*pair) - q[pair])
            for other, (_, leads) in model.items():
                if leads == pair[0]:
                    insert(other)
            done += 1
        total += done
        assert int(metrics["backups"]) == done
        np.testing.assert_allclose(state.q, q, atol=1e-6)
    assert total > 50 and q.max() > 0.5
    assert int(jnp.sum(state.visits)) == 600


def random_mdp():
    rng = np.random.default_rng(0)
    P = rng.exponential(size=(6, 2, 6)) ** 2
    P /= P.sum(-1, keepdims=True)
    terminal = np.arange(6) == 5
    P[5], R = np.eye(6)[5], rng.normal(size=(6, 2)) * ~terminal[:, None]
    return TabularMDP(P, R, terminal, np.eye(6)[0])


@pytest.mark.parametrize("num_envs", [1, 16])
def test_counts_lead_to_the_exact_values(num_envs):
    mdp = random_mdp()
    agent = dyna.prioritized_sweeping(6, 2, gamma=0.9, planning=20, model="counts", epsilon=1.0, theta=1e-4)
    state = run(agent, tabular_env(mdp), 80_000 // num_envs, num_envs)[0].agent
    exact = np.asarray(planning.q_learning(mdp, 0.9).q)[:5]
    assert np.abs(state.q[:5] - exact).max() < 0.02 * np.ptp(exact)
    counts, visits = np.asarray(state.memory.following), np.asarray(state.visits)
    assert visits.sum() == 80_000 and (counts[:, :, 5] == 0).all()
    ended = 1 - counts.sum(-1)[:5] / visits[:5]
    np.testing.assert_allclose(ended, mdp.P[:5, :, 5], atol=0.02)
    np.testing.assert_allclose(state.memory.reward, mdp.R, atol=1e-4)
    model = state.memory.reward + 0.9 * (counts / np.maximum(visits, 1)[..., None]) @ np.max(state.q, axis=1)
    assert (np.abs(model - state.q) <= state.memory.priority + 1e-4).all()  # no error is forgotten


def test_dyna_q_draws_from_the_counts():
    mdp = random_mdp()
    agent = dyna.dyna_q(6, 2, gamma=0.9, planning=5, model="counts", epsilon=1.0, alpha=0.005)
    state = run(agent, tabular_env(mdp), 20_000)[0].agent
    exact = np.asarray(planning.q_learning(mdp, 0.9).q)[:5]
    assert np.abs(state.q[:5] - exact).max() < 0.1 * np.ptp(exact)
    count = 20_000
    visits = jnp.array([[4, 0]])
    model = dyna.Model(jnp.array([[[3], [0]]]), jnp.array([[2.0, 0.0]]), None, jnp.zeros((1, 2)))
    steps = dyna.imagine(model, visits, jnp.zeros(count, jnp.int32), jax.random.key(0), lambda m, n: jnp.float32(1))
    assert abs(float(jnp.mean(steps.following)) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / count)  # 1 is an end


def test_pairs_are_drawn_uniformly_among_those_seen():
    visits = jnp.array([[0, 9, 1], [0, 0, 0], [2, 0, 500], [1, 0, 0]])
    drawn = np.bincount(dyna.seen_pairs(jax.random.key(1), visits, 50_000), minlength=12)
    seen = np.asarray(visits).ravel() > 0
    assert drawn[~seen].sum() == 0 and len(drawn) == 12
    assert ((drawn[seen] - 10_000) ** 2 / 10_000).sum() < 23.5  # chi-squared of 4, 1 in 10 000


def test_planning_finds_the_way_in_far_fewer_steps():
    finished = {}
    for name, agent in {
        "none": dyna.dyna_q(54, 4, gamma=0.95, planning=0),
        "dyna": dyna.dyna_q(54, 4, gamma=0.95, planning=50),
        "sweeping": dyna.prioritized_sweeping(54, 4, gamma=0.95, planning=50),
    }.items():
        finished[name] = float(run(agent, dyna_maze(), 2000)[1]["episodes"])
    assert finished["dyna"] > 3 * finished["none"] > 0
    assert finished["sweeping"] > 3 * finished["none"]


@pytest.mark.parametrize("make", [dyna.dyna_q, dyna.prioritized_sweeping])
def test_several_environments_at_one_pair(make):
    steps = ((0, 1, 1.0, False, False, 2), (0, 1, 3.0, True, False, 1), (0, 1, 5.0, False, True, 2))
    for model in ("last", "counts"):
        agent = make(3, 2, gamma=0.9, planning=2, model=model)
        state, update = agent.init(jax.random.key(0), jnp.zeros(3, jnp.int32)), jax.jit(agent.update)
        for weight in ([0.0, 0, 0], [1.0, 1, 1]):  # a weight of 0 is no step
            sample = batch(*steps)._replace(weight=jnp.asarray(weight))
            state, _, _ = update(state, sample, jax.random.key(0), jnp.float32(0))
            if not any(weight):
                assert not np.any(state.memory.reward) and not np.any(state.memory.following) and not np.any(state.q)
        assert state.visits.tolist() == [[0, 3], [0, 0], [0, 0]]
        if model == "last":
            assert (int(state.memory.following[0, 1]), float(state.memory.reward[0, 1])) == (2, 5.0)
        else:
            assert state.memory.following[0, 1].tolist() == [0, 0, 2]  # a time limit is no end
            assert float(state.memory.reward[0, 1]) == pytest.approx(3.0)


@pytest.mark.parametrize("make", [dyna.dyna_q, dyna.prioritized_sweeping])
def test_forbidden_actions_are_not_planned_with(make):
    state = run(make(4, 3, gamma=0.5, epsilon=1.0, alpha=0.5, initial=50.0), masked_env(), 500)[0].agent
    forbidden = np.arange(3) == (np.arange(4)[:, None] + 1) % 3  # never tried: they stay as good as they looked
    assert (np.asarray(state.q)[forbidden] == 50).all()
    assert 1.5 < np.asarray(state.q)[~forbidden].max() < 2.01


def test_a_pair_that_waits_keeps_its_higher_priority():
    model = dyna.Model(jnp.array([[1], [2]]), jnp.array([[0.0], [1.0]]), None, jnp.array([[5.0], [10.0]]))
    arguments = (jnp.array([[1, 1]]).T, 1, 1.0, 0.0, lambda m, n: 1.0)
    q, priority, done = dyna.sweep(jnp.array([[0.9], [0.0]]), model, model.priority, *arguments)
    assert (float(q[1, 0]), priority.tolist(), int(done)) == (1.0, [[5.0], [0.0]], 1)


def test_bad_input_is_refused():
    make: Callable[..., Agent]
    for make in (dyna.dyna_q, dyna.prioritized_sweeping):
        for options, message in (
            ({"planning": -1}, "planning"),
            ({"model": "count"}, "did you mean 'counts'"),
            ({"policy": np.ones((3, 2)) / 2}, "leave policy out"),
            ({"average": 0.0}, "leave average out"),
            ({"gamma": 2}, "gamma"),
        ):
            with pytest.raises(ValueError, match=message):
                make(3, 2, **options)
        with pytest.raises(ValueError, match="4 active indices"):
            make(3, 2).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        with pytest.raises(ValueError, match="next states needs"):
            make(1_000_000, 2, model="counts").init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match="theta"):
        dyna.prioritized_sweeping(3, 2, theta=-1)
    with pytest.raises(ValueError, match="learns by nothing else"):
        dyna.prioritized_sweeping(3, 2, planning=0)
