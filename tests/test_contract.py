"""Every agent against the contract of `types.Agent` and the loop: a new algorithm is a new row."""

from functools import cache, partial
from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import OPTIMIZED, masked_env

import jaxrl
from jaxrl import nets, spaces
from jaxrl.envs import wrappers
from jaxrl.train import RunState, vmap_run

SEEDS = jnp.arange(3)


class Row(NamedTuple):
    env: str
    agent: object  # (num_actions, num_states, options) -> Agent
    buffer: object
    loop: jaxrl.LoopConfig
    deep: bool
    overrides: dict = {}  # of the environment
    wrap: object = lambda env: env
    masked: object = masked_env
    exact: bool = True  # whether a vmapped table is the single one to the bit


def masked_choices():
    """`masked_env` with its action as the only one of a MultiDiscrete space."""
    return wrappers.Wrapped(
        masked_env(),
        masked_choices,
        observe_fn=lambda obs, memory, params: obs._replace(action_mask=obs.action_mask[None]),
        act_fn=lambda key, action, memory: action[0],
        actions=spaces.MultiDiscrete((3,)),
    )


def deep(buffer, factory=jaxrl.dqn, network=nets.QNetwork, loop=None):
    def agent(num_states, num_actions, **options):
        torso = nets.MLP((8,), one_hot=num_states)
        return factory(network(num_actions, torso), optax.adam(1e-3), **options)

    loop = loop or jaxrl.LoopConfig(4, unroll=2, updates=2, warmup=6)
    return Row("CartPole-v1", agent, buffer, loop, True)


def table(factory, window):
    return Row("FrozenLake-v1", factory, jaxrl.recent(window, 4), jaxrl.LoopConfig(4, warmup=window - 1), False)


def episodes(factory, horizon=6, unroll=2):
    buffer, loop = jaxrl.recent(unroll + horizon, 4), jaxrl.LoopConfig(4, unroll, warmup=horizon)
    options = {"max_steps_in_episode": horizon}
    return Row("FrozenLake-v1", partial(factory, horizon=horizon), buffer, loop, False, options)


ROWS = {
    "dqn": deep(jaxrl.uniform(64, 8, 4, window=3)),
    "apex": deep(jaxrl.prioritized(64, 8, 4, window=3), partial(jaxrl.apex, refresh=3)),
    "decqn": deep(jaxrl.uniform(64, 8, 4, window=3), jaxrl.decqn, partial(nets.QNetwork, atoms=3))._replace(
        env="Pendulum-v1", wrap=wrappers.decouple_action, masked=masked_choices
    ),
    "rainbow": deep(
        jaxrl.prioritized(64, 8, 4, window=3),
        partial(jaxrl.c51, atoms=5, v_max=100.0, double=True),
        partial(nets.QNetwork, dueling=True, atoms=5, noisy=True),
    ),
    "qr_dqn": deep(
        jaxrl.uniform(64, 8, 4), partial(jaxrl.qr_dqn, quantiles=4), partial(nets.QNetwork, atoms=4)
    )._replace(env="FrozenLake-v1"),
    "iqn": deep(
        jaxrl.uniform(64, 8, 4),
        partial(jaxrl.iqn, fractions=3, target_fractions=4, acting_fractions=5),
        nets.ImplicitQuantiles,
    ),
    "fqf": deep(jaxrl.uniform(64, 8, 4), jaxrl.fqf, partial(nets.ImplicitQuantiles, proposals=3)),
    "munchausen_dqn": deep(jaxrl.uniform(64, 8, 4, window=2), jaxrl.munchausen_dqn),
    "munchausen_iqn": deep(
        jaxrl.uniform(64, 8, 4),
        partial(jaxrl.munchausen_iqn, fractions=3, target_fractions=4, acting_fractions=5),
        nets.ImplicitQuantiles,
    ),
    "hl_gauss": deep(
        jaxrl.uniform(64, 8, 4), partial(jaxrl.hl_gauss, bins=5, v_max=100.0), partial(nets.QNetwork, atoms=5)
    ),
    "pqn": deep(jaxrl.recent(4, 4), partial(jaxrl.pqn, minibatches=2), loop=jaxrl.LoopConfig(4, unroll=4)),
    "r2d2": deep(
        jaxrl.prioritized(64, 8, 4, window=4, stride=2),
        partial(jaxrl.r2d2, burn_in=1),
        lambda num_actions, torso: nets.RecurrentQNetwork(num_actions, torso, nets.LSTM(4)),
    ),
    "recurrent_pqn": deep(
        jaxrl.recent(4, 4),
        partial(jaxrl.recurrent_pqn, minibatches=2),
        lambda num_actions, torso: nets.RecurrentQNetwork(num_actions, torso, nets.GRU(4)),
        jaxrl.LoopConfig(4, unroll=4),
    ),
    "q_learning": table(jaxrl.q_learning, 1),
    "sarsa": table(jaxrl.sarsa, 2),
    "expected_sarsa": table(jaxrl.expected_sarsa, 1),
    "double_q_learning": table(jaxrl.double_q_learning, 1),
    "tree_backup": table(jaxrl.tree_backup, 3),
    "sarsa_lambda": table(partial(jaxrl.sarsa_lambda, trace="dutch"), 2),
    "q_lambda": table(jaxrl.q_lambda, 2),
    "dyna_q": table(jaxrl.dyna_q, 1)._replace(exact=False),  # XLA rounds its loop of planning in two ways
    "prioritized_sweeping": table(partial(jaxrl.prioritized_sweeping, model="counts"), 1),
    "monte_carlo": episodes(partial(jaxrl.monte_carlo, cut="keep")),
    "lambda_return": episodes(partial(jaxrl.lambda_return, target="watkins")),
}
each_row = pytest.mark.parametrize("name", ROWS)
# programs of another row's kind, but for the target: what takes a compilation more is asked of that row alone
KIN = {"expected_sarsa", "double_q_learning", "tree_backup", "qr_dqn", "hl_gauss", "munchausen_dqn", "munchausen_iqn"}
KIN |= {"fqf", "decqn", "recurrent_pqn"}


class Case(NamedTuple):
    """A row built and its programs: each compiles once."""

    row: Row
    run: object
    agent: object
    begin: object  # key -> state after warm-up
    chunk: object  # state -> (state, metrics) of five steps
    traces: list


def compiled(row, run, agent, options=None):
    traces = []

    def chunk(state):
        traces.append(1)
        return jaxrl.advance(run, state, 5)

    begin = jax.jit(lambda key: run.warmup(run.init(key)), compiler_options=options)
    return Case(row, run, agent, begin, jax.jit(chunk, compiler_options=options), traces)


def make(name, **options):
    row = ROWS[name]
    env, params = jaxrl.make(row.env, **row.overrides)
    env = row.wrap(env)
    num_states = getattr(env.observation_space(params), "n", None)
    agent = row.agent(num_states, env.num_actions, **options)
    return jaxrl.make_run(env, params, agent, row.buffer, row.loop), agent, env, params


@cache
def built(name):
    """A run that always explores, so that its batches do not hang on the last bit of a network."""
    run, agent, *_ = make(name, epsilon=1.0)
    return compiled(ROWS[name], run, agent, to_the_bit(ROWS[name]) if name not in KIN else None)


def to_the_bit(row):
    """Options with which many seeds' environments take the single one's steps to the bit."""
    return OPTIMIZED if row.deep else None


def of(names):
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


@pytest.fixture(params=of(ROWS))
def case(request):
    return built(request.param)


@pytest.fixture(params=of(name for name in ROWS if name not in KIN))
def kind(request):
    return built(request.param)


def go(case, key, chunks):
    state = case.begin(key)
    for _ in range(chunks):
        state, _ = case.chunk(state)
    return state


def is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def leaves(tree):
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_runs_and_counts(case):
    loop = case.row.loop
    state, metrics = case.chunk(case.begin(jaxrl.key(0)))
    assert int(state.clock) == loop.warmup + 5 * loop.unroll
    assert float(metrics["env_steps"]) == 5 * loop.unroll * 4
    assert float(metrics["updates"]) == 5 * loop.updates
    assert all(np.isfinite(leaf).all() for leaf in leaves((state.agent, metrics)))
    assert {"loss", "q", "episodes", "return", "length"} <= metrics.keys()
    assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in metrics.values())


def test_same_seed_is_bitwise_the_same_and_others_differ(case):
    finals = [go(case, jaxrl.key(seed), 4) for seed in range(3)]
    assert_same(go(case, jaxrl.key(0), 4), finals[0])
    for i in range(3):
        for j in range(i):
            assert any((a != b).any() for a, b in zip(leaves(finals[i].agent), leaves(finals[j].agent)))
            assert not np.array_equal(*(jax.random.key_data(finals[k].key) for k in (i, j)))


def test_vmapped_seed_is_the_single_seed(kind):
    many = compiled(kind.row, vmap_run(kind.run), kind.agent, to_the_bit(kind.row))
    keys = jax.vmap(jaxrl.key)(SEEDS)
    chunks = 100 // (5 * kind.row.loop.updates)
    together = go(many, keys, chunks)
    assert together.clock.shape == ()
    for i, key in enumerate(keys):
        single = go(kind, key, chunks)
        this = RunState(*(f if a is None else jax.tree.map(itemgetter(i), f) for f, a in zip(together, kind.run.axes)))
        if not kind.row.deep and kind.row.exact:
            assert_same(this, single)
            continue
        assert_same((this.env_state, this.key), (single.env_state, single.key))
        of_vmapped, of_single = (
            leaves(agent.params if kind.row.deep else agent) for agent in (this.agent, single.agent)
        )
        gap = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(of_vmapped, of_single)))
        assert gap <= 1e-4 * np.sqrt(sum(np.sum(a**2) for a in of_single))


def test_second_call_does_not_recompile(case):
    go(case, jaxrl.key(7), 3)
    assert len(case.traces) == 1
    assert case.chunk._cache_size() == 1


def test_resumed_is_uninterrupted(case):
    half = go(case, jaxrl.key(3), 1)
    parts = [
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if is_key(leaf) else jnp.asarray(array)
        for array, leaf in zip(leaves(half), jax.tree.leaves(half))
    ]
    restored = jax.tree.unflatten(jax.tree.structure(half), parts)
    assert_same(case.chunk(restored)[0], go(case, jaxrl.key(3), 2))


def test_float64_runs_and_keeps_what_is_documented_as_float32(kind):
    with jax.enable_x64(True):
        state, metrics = jax.jit(lambda key: kind.run.step(kind.run.warmup(kind.run.init(key))))(jaxrl.key(0))
    assert state.episode_return.dtype == metrics["return"].dtype == jnp.float32
    assert np.isfinite(metrics["loss"])


def test_keys_are_used_once_and_may_be_threefry(case):
    with jax.debug_key_reuse(True):
        state = jax.jit(lambda key: case.run.step(case.run.warmup(case.run.init(key)))[0])(jax.random.key(0))
    assert jax.random.key_impl(state.key) == jax.random.key_impl(jax.random.key(0))


@pytest.mark.parametrize("name", ["dqn", "q_learning", "sarsa_lambda", "dyna_q", "monte_carlo"])  # one of each kind
def test_jit_is_no_jit(name):
    run, *_ = make(name, epsilon=1.0)
    iterations = 8 // ROWS[name].loop.unroll
    start = jax.jit(lambda key: run.warmup(run.init(key)))(jaxrl.key(5))
    jitted, _ = jax.jit(lambda state: jaxrl.advance(run, state, iterations))(start)
    eager = start
    with jax.disable_jit():
        for _ in range(iterations):
            eager, _ = run.step(eager)
    for a, b in zip(leaves(jitted), leaves(eager), strict=True):
        np.testing.assert_array_less(np.abs(a.astype(float) - b), 1e-6 * np.maximum(1, np.abs(b)) + 1e-12)


@each_row
def test_greedy_is_deterministic_and_evaluation_plays_whole_episodes(name):
    run, agent, env, params = make(name)
    state = jax.jit(run.init)(jaxrl.key(0))
    evaluate = jax.jit(lambda key: jaxrl.evaluate(env, params, agent, state.agent, key, 7))
    result = evaluate(jaxrl.key(1))
    assert result.ended.all()
    assert result.returns.shape == result.lengths.shape == (7,)
    assert (result.lengths >= 1).all()
    assert_same(result, evaluate(jaxrl.key(1)))
    carry, obs = jax.tree.map(lambda x: x[0], (state.carry, state.obs))
    act = partial(agent.act, state.agent, carry, obs, greedy=True)
    assert len({str(act(jaxrl.key(i), 0.0)[0]) for i in range(20)}) == 1


@each_row
def test_masks_are_honoured(name):
    """In exploration, in greedy choice and in the bootstrap: the forbidden action pays a million."""
    row = ROWS[name]
    env, params = row.masked(), row.masked().default_params
    options = {"gamma": 0.5} if row.deep else {"gamma": 0.5, "alpha": 0.5, "initial": 50.0}
    agent = row.agent(4, env.num_actions, epsilon=0.5, **options)
    run = jaxrl.make_run(env, params, agent, row.buffer, row.loop)
    state, metrics = jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 300))(jaxrl.key(0))
    assert float(metrics["return"]) < 5.5 * float(metrics["episodes"])  # five steps of at most 1
    result = jax.jit(lambda key: jaxrl.evaluate(env, params, agent, state.agent, key, 5))(jaxrl.key(1))
    assert (result.returns <= 5).all()
    if not row.deep:  # never updated, a forbidden entry stays at 50; through a bootstrap it would hold the others up
        q = np.asarray(state.agent.q)
        allowed = np.arange(3)[None] != (np.arange(4)[:, None] + 1) % 3
        assert (q[~allowed] == 50).all()
        assert (q[allowed] < 3).all()
