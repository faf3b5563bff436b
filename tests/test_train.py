"""The loop against what it promises: cadence, both kinds of end, host-driven halves, memory in place."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import compiled, copies_of

import jaxrl
from jaxrl import nets, xla
from jaxrl.agents import value
from jaxrl.train import LoopConfig, decide, make_learn, make_run, record, vmap_run
from jaxrl.types import Agent

NET = nets.QNetwork(2, nets.MLP((8,)))


def cartpole_run(num_envs=4, loop=None, window=3, agent=None):
    env, params = jaxrl.make("CartPole-v1")
    agent = agent or jaxrl.dqn(NET, optax.adam(1e-3), epsilon=0.5)
    loop = loop or LoopConfig(num_envs, warmup=8)
    return make_run(env, params, agent, jaxrl.uniform(64, 8, num_envs, window=window), loop), env, params, agent


@pytest.mark.parametrize(("unroll", "updates", "warmup"), [(1, 1, 0), (3, 1, 4), (1, 4, 2), (2, 3, 1)])
def test_cadence_is_exact(unroll, updates, warmup):
    env, params = jaxrl.make("Corridor-v0")
    agent = remembering_agent()._replace(
        init=lambda key, obs: jnp.zeros((), jnp.int32),
        update=lambda state, sample, key, steps: (state + 1, jnp.zeros(4), {}),
    )
    run = make_run(env, params, agent, jaxrl.recent(1, 4), LoopConfig(4, unroll, updates, warmup))
    state = jax.jit(lambda key: run.warmup(run.init(key)))(jaxrl.key(0))
    assert int(state.clock) == warmup
    assert int(state.agent) == 0
    state, metrics = jax.jit(lambda state: jaxrl.advance(run, state, 5))(state)
    assert int(state.clock) == warmup + 5 * unroll
    assert int(state.agent) == 5 * updates
    assert float(metrics["updates"]) == 5 * updates


def test_host_driven_halves_give_the_same_bits():
    """`decide` and `record` around numpy arithmetic are `make_run`."""
    env, params = jaxrl.make("Corridor-v0", length=5, max_steps_in_episode=7, one_hot=True)
    agent, buffer = jaxrl.dqn(NET, optax.adam(1e-3), epsilon=0.5), jaxrl.uniform(64, 8, 4, window=3)
    run = make_run(env, params, agent, buffer, LoopConfig(4, unroll=2, updates=1, warmup=4))
    learn = jax.jit(make_learn(agent, buffer, 1))
    jit_decide = jax.jit(lambda *args: decide(agent, *args))
    jit_record = jax.jit(lambda *args: record(agent, *args))
    state = jax.jit(run.init)(jaxrl.key(2))

    def collect(state):
        key, act_key, env_key = jax.random.split(state.key, 3)
        action, carry = jit_decide(state.agent, state.carry, state.obs, act_key, jnp.float32(state.clock * 4))
        del env_key  # nothing here is random
        cell = np.clip(state.env_state.cell + np.where(np.asarray(action) == 1, 1, -1), 0, 4).astype(np.int32)
        time = np.asarray(state.env_state.time) + 1
        terminated, truncated = cell == 4, time >= 7
        done, reward = terminated | truncated, terminated.astype(np.float32)
        one_hot = np.eye(5, dtype=np.float32)
        ends = jnp.asarray(terminated), jnp.asarray(truncated)
        transition, carry = jit_record(state.obs, action, state.carry, carry, reward, *ends, one_hot[cell])
        cell, time = np.where(done, 0, cell), np.where(done, 0, time)
        return state._replace(
            clock=state.clock + 1,
            key=key,
            env_state=state.env_state._replace(cell=cell, time=time),
            obs=one_hot[cell],
            carry=carry,
            buffer=buffer.add(state.buffer, transition, state.clock),
            episode_return=np.where(done, 0, state.episode_return + reward),
            episode_length=np.where(done, 0, state.episode_length + 1),
        )

    hosted = state
    for _ in range(4):
        hosted = collect(hosted)
    for _ in range(15):
        hosted = collect(collect(hosted))
        key, learn_key = jax.random.split(hosted.key)
        agent_state, memory, _ = learn(
            learn_key, hosted.agent, hosted.buffer, hosted.clock, jnp.float32(hosted.clock * 4)
        )
        hosted = hosted._replace(key=key, agent=agent_state, buffer=memory)

    whole = jax.jit(run.warmup)(state)
    step = jax.jit(run.step)
    for _ in range(15):
        whole, _ = step(whole)
    for a, b in zip(jax.tree.leaves(hosted), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(
            *(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        )


@pytest.mark.parametrize("deep", [False, True], ids=["table", "network"])
def test_truncation_is_not_death(deep):
    """A chain that pays 1 a step for ever and is only cut: every value is 1 / (1 - gamma), not less."""
    env, params = jaxrl.make("Corridor-v0", terminal=False, max_steps_in_episode=4, length=3)
    gamma = 0.8
    states = env.observation_space(params).n
    if deep:
        network = nets.QNetwork(2, nets.MLP((16,), one_hot=states))
        agent = jaxrl.dqn(network, optax.adam(1e-2), gamma=gamma, epsilon=1.0, target_update=value.polyak(0.05))
        buffer = jaxrl.uniform(1000, 32, 8, window=3)
    else:
        agent = jaxrl.q_learning(states, 2, gamma=gamma, alpha=0.2, epsilon=1.0)
        buffer = jaxrl.recent(3, 8)
    run = make_run(env, params, agent, buffer, LoopConfig(8, warmup=8))
    state, metrics = jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 1500))(jaxrl.key(0))
    assert float(metrics["length"]) == 4 * float(metrics["episodes"])
    q = jax.vmap(lambda s: network.apply(state.agent.params, s))(jnp.arange(states)) if deep else state.agent.q
    np.testing.assert_allclose(q, 1 / (1 - gamma), rtol=0.02 if deep else 1e-3)


def test_transitions_hold_the_true_next_observation():
    env, params = jaxrl.make("Corridor-v0", max_steps_in_episode=3, length=10)
    agent = jaxrl.q_learning(10, 2, epsilon=1.0)
    buffer = jaxrl.recent(8, 2)
    run = make_run(env, params, agent, buffer, LoopConfig(2, warmup=7))
    state, _ = jax.jit(lambda key: run.step(run.warmup(run.init(key))))(jaxrl.key(0))
    window = buffer.sample(state.buffer, jaxrl.key(0), state.clock).window
    moved = np.clip(np.asarray(window.obs) + np.where(np.asarray(window.action) == 1, 1, -1), 0, 9)
    np.testing.assert_array_equal(window.next_obs, moved)
    np.testing.assert_array_equal(window.truncated, [[False, False, True] * 2 + [False] * 2] * 2)
    assert not np.asarray(window.terminated).any()
    np.testing.assert_array_equal(window.obs[:, 3], window.obs[:, 0])


def remembering_agent() -> Agent:
    """Counts its own steps in its carry and chooses by their parity."""

    def act(state, carry, obs, key, steps, greedy=False):
        del state, obs, key, steps, greedy
        return carry % 2, carry + 1

    return Agent(
        init=lambda key, obs: (),
        carry=lambda num_envs: jnp.full(num_envs, 10, jnp.int32),
        act=act,
        update=lambda state, sample, key, steps: (state, jnp.zeros(sample.weight.shape), {}),
    )


def test_carry_is_stored_as_the_agent_had_it_and_starts_anew_with_each_episode():
    env, params = jaxrl.make("Corridor-v0", max_steps_in_episode=3, length=10)
    buffer = jaxrl.recent(1, 2)
    run = make_run(env, params, remembering_agent(), buffer, LoopConfig(2))
    state, held, step = run.init(jaxrl.key(0)), [], jax.jit(run.step)
    for _ in range(7):
        state, _ = step(state)
        held.append(buffer.sample(state.buffer, jaxrl.key(0), state.clock).window.carry.tolist())
    assert held == [[10 + i % 3] * 2 for i in range(7)]


def test_an_actors_own_priorities_enter_the_buffer():
    env, params = jaxrl.make("Corridor-v0")
    agent = remembering_agent()._replace(
        priority=lambda state, window: 100.0 + jnp.arange(window.reward.shape[0]),
    )
    buffer = jaxrl.prioritized(64, 4, 4, window=2, alpha=1.0)
    run = make_run(env, params, agent, buffer, LoopConfig(4, unroll=2, warmup=3))
    state, _ = jax.jit(lambda key: run.step(run.warmup(run.init(key))))(jaxrl.key(0))
    mass = np.asarray(state.buffer.tree[0]).reshape(16, 4)
    learned = mass < 0.01  # the windows drawn, whose update gave priority 0, and those not complete
    expected = np.zeros((16, 4))
    expected[:2] = 1.0  # completed in warm-up, so at the largest priority of then
    expected[2:4] = 100.0 + np.arange(8).reshape(2, 4)  # completed by the two steps of the collect phase
    np.testing.assert_allclose(mass, np.where(learned, mass, expected), rtol=1e-5)
    assert learned[:4].sum() <= 4
    assert learned[4:].all()


@pytest.mark.parametrize(
    ("seeds", "unroll", "updates", "window"), [(0, 1, 1, 3), (0, 1, 1, 1), (0, 2, 1, 3), (0, 1, 2, 3), (3, 1, 1, 3)]
)
def test_the_ring_is_written_in_place(seeds, unroll, updates, window):
    """Every leaf of the ring, at every cadence: slices written in place, no copy of the whole.

    Only the final observations of episodes, whose places depend on data, are scattered.
    """
    run, *_ = cartpole_run(7, loop=LoopConfig(7, unroll, updates, warmup=8), window=window)
    key = jaxrl.key(0)
    if seeds:
        run, key = vmap_run(run), jax.vmap(jaxrl.key)(jnp.arange(seeds))
    state = jax.eval_shape(lambda key: run.warmup(run.init(key)), key)
    chunk = jax.jit(lambda state: jaxrl.advance(run, state, 3), donate_argnums=0)
    text = compiled(chunk, state).as_text()
    rings = {leaf.shape for leaf in jax.tree.leaves(state.buffer) if leaf.ndim > bool(seeds)}
    assert len(rings) == 3  # observations, actions and rewards, ends
    for ring in rings:
        assert not copies_of(text, ring), ring
        dims = ",".join(map(str, ring))
        written = [line for line in text.splitlines() if f"[{dims}]" in line.partition("(")[0]]
        assert any("dynamic-update-slice" in line for line in written), ring
        assert not any(" scatter(" in line for line in written) or ring == state.buffer.pool.shape, ring


def test_the_reader_of_copies_sees_one():
    def planted(ring, row):
        def body(ring, i):
            new = jax.lax.dynamic_update_slice_in_dim(ring, row[None], i, axis=0)
            old = ring.reshape(-1)[new[3].sum().astype(jnp.int32)]  # the ring of before is read after the write
            return new, old

        return jax.lax.scan(body, ring, jnp.arange(3))

    text = compiled(jax.jit(planted, donate_argnums=0), jnp.zeros((16, 4, 4)), jnp.zeros((4, 4))).as_text()
    assert copies_of(text, (16, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0; it must be an integer of at least 1"),
        ({"unroll": 0}, "unroll is 0"),
        ({"updates": 1.5}, "updates is 1.5"),
        ({"warmup": -1}, "warmup is -1"),
        ({"warmup": 1}, "set warmup to at least 2"),
    ],
)
def test_bad_loops_are_refused_while_building(change, message):
    with pytest.raises(ValueError, match=message):
        cartpole_run(loop=LoopConfig(**{"num_envs": 4, "warmup": 2, **change}))


def test_continuous_actions_are_refused():
    gymnax = pytest.importorskip("gymnax")
    env, params = gymnax.make("Pendulum-v1")
    with pytest.raises(ValueError, match="action space of Pendulum-v1 is Box"):
        make_run(env, params, jaxrl.dqn(NET), jaxrl.uniform(64, 8, 4), LoopConfig(4, warmup=8))


def test_hyper_parameters_sweep_in_one_program():
    """Learning rate, gamma and seed vmapped: building the run inside is all it takes."""
    env, params = jaxrl.make("CartPole-v1")

    def train(key, learning_rate, gamma):
        agent = jaxrl.dqn(NET, optax.adam(learning_rate), gamma=gamma, epsilon=1.0)
        run = make_run(env, params, agent, jaxrl.uniform(64, 8, 4), LoopConfig(4, warmup=8))
        state, _ = jaxrl.advance(run, run.warmup(run.init(key)), 10)
        return state.agent.params

    rates, gammas = jnp.array([1e-3, 0.0]), jnp.array([0.9, 0.5])
    keys = jnp.stack([jaxrl.key(1), jaxrl.key(1)])
    swept = jax.jit(jax.vmap(train))(keys, rates, gammas)
    for i in range(2):
        alone = jax.jit(train)(keys[i], rates[i], gammas[i])
        for a, b in zip(jax.tree.leaves(swept), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6)
    first = jax.tree.leaves(swept)[1]
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(
    ("factory", "window", "updates"),
    [
        (jaxrl.sarsa_lambda, 2, 2),
        (jaxrl.sarsa_lambda, 3, 1),
        (partial(jaxrl.q_lambda, variant="peng"), 2, 1),
        (partial(jaxrl.monte_carlo, horizon=5), 5, 1),
        (partial(jaxrl.lambda_return, horizon=5), 6, 2),
    ],
)
def test_learners_that_must_see_each_step_once_refuse_other_windows(factory, window, updates):
    env, params = jaxrl.make("FrozenLake-v1")
    loop = jaxrl.LoopConfig(2, updates=updates, warmup=window - 1)
    with pytest.raises(ValueError, match=r"learns from each step once.* use updates=1 and recent\(\d, 2\)"):
        jaxrl.make_run(env, params, factory(16, 4), jaxrl.recent(window, 2), loop)


def test_once_changes_nothing():
    tree = {"number": jnp.float32(1.5), "flags": jnp.array([True, False]), "keys": jax.random.split(jaxrl.key(3), 2)}
    after = jax.jit(xla.once)(tree, jnp.int32(7))
    assert float(after["number"]) == 1.5 and after["flags"].tolist() == [True, False]
    np.testing.assert_array_equal(*(jax.random.key_data(keys["keys"]) for keys in (tree, after)))


@pytest.mark.parametrize("flags, level", [("", "1"), ("--xla_backend_optimization_level=2", None)])
def test_compiled_as_long_as_it_is_worth_and_as_the_user_says(flags, level, monkeypatch):
    class Lowered:
        asked: list[dict] = []

        def compile(self, compiler_options):
            self.asked.append(compiler_options)
            if "xla_cpu_use_fusion_emitters" in compiler_options:
                raise jax.errors.JaxRuntimeError("no such option")

    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    xla.compiled(Lowered(), brief=True)  # type: ignore[arg-type] # it needs no more
    usual = {} if level is None else {"xla_backend_optimization_level": level}
    assert Lowered.asked[-2:] == [usual | {"xla_cpu_use_fusion_emitters": False}, usual]


@pytest.mark.parametrize("brief", [False, True])
def test_compiled_computes_the_same(brief):
    def sums(x):
        return jax.lax.fori_loop(0, 10, lambda i, y: y * 0.5 + jnp.tanh(x + i), x)

    x = jnp.linspace(-1, 1, 100)
    np.testing.assert_allclose(xla.compiled(jax.jit(sums).lower(x), brief)(x), jax.jit(sums)(x), rtol=1e-6)
