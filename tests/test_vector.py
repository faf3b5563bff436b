"""N environments at once: rollouts lane by lane, params of their own, both kinds of auto-reset by exact chances."""

from functools import partial
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import OPTIMIZED
from jax.tree_util import Partial

import jaxrl
from jaxrl import spaces
from jaxrl.envs.api import NO_LIMIT, PureEnvironment
from jaxrl.vector import make_vector, params_axes, rollout


class Params(NamedTuple):
    owner: int = 7
    ends: float = 0.3
    max_steps_in_episode: int = NO_LIMIT


class State(NamedTuple):
    ticket: jax.Array  # uint32 []: drawn at the reset, so that two episodes never share one
    owner: jax.Array  # int32 []
    time: jax.Array


def tickets() -> PureEnvironment:
    """Each episode holds a random number and its params' owner, and ends with chance `ends` a step."""

    def reset(key, params):
        return State(jax.random.bits(key), jnp.asarray(params.owner, jnp.int32), jnp.zeros((), jnp.int32))

    def step(key, state, action, params):
        return state, jnp.float32(1), jax.random.uniform(key) < params.ends

    return PureEnvironment(
        "Tickets-v0",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=lambda state, params: jnp.stack([state.ticket, state.owner.astype(jnp.uint32)]),
        observation_space_fn=lambda params: spaces.Box(0, 2**32 - 1, (2,), np.uint32),
        action_space_fn=lambda params: spaces.Discrete(2),
    )


def starts(trajectory) -> np.ndarray:
    """The tickets of the episodes that began within a trajectory, and of those it began with."""
    ticket, done = np.asarray(trajectory.obs[..., 0]), np.asarray(trajectory.terminated)
    return np.concatenate([ticket[0], ticket[1:][done[:-1]]])


def test_a_rollout_is_what_its_steps_are():
    env, params = jaxrl.make("CartPole-v1", max_steps_in_episode=12)

    def lean(key):
        return rollout(env, params, lambda obs, key: (obs[2] > 0).astype(jnp.int32), key, 8, 60)

    out = jax.jit(lean, compiler_options=OPTIMIZED)(jaxrl.key(1))  # what it gives twice is the same to the bit
    flow = out.trajectory
    done = np.asarray(flow.terminated | flow.truncated)
    assert flow.obs.shape == (60, 8, 4) and flow.reward.shape == (60, 8)
    np.testing.assert_array_equal(flow.action, flow.obs[..., 2] > 0)
    np.testing.assert_array_equal(flow.obs[1:][~done[:-1]], flow.next_obs[:-1][~done[:-1]])
    np.testing.assert_array_equal(out.obs[~done[-1]], flow.next_obs[-1][~done[-1]])
    np.testing.assert_array_equal(out.state.x, out.obs[:, 0])
    assert np.abs(flow.obs[1:][done[:-1]]).max() <= 0.05  # episodes begin near rest
    assert np.abs(flow.next_obs[done]).max() > 0.2  # and end far from it
    assert flow.truncated.any()
    state = jax.vmap(env.reset)(jax.random.split(jaxrl.key(0), 480))[1]._replace(
        **dict(zip(("x", "x_dot", "theta", "theta_dot"), flow.obs.reshape(-1, 4).T))
    )
    after = jax.vmap(env.step_env, (None, 0, 0, None))(jaxrl.key(0), state, flow.action.ravel(), params)[0]
    np.testing.assert_allclose(after, flow.next_obs.reshape(-1, 4), rtol=1e-5, atol=1e-6)


def test_random_policy_is_uniform_and_lanes_differ():
    env, params = jaxrl.make("FrozenLake-v1")
    actions = np.asarray(rollout(env, params, None, jaxrl.key(0), 64, 500).trajectory.action)
    counts = np.bincount(actions.ravel(), minlength=4)
    assert ((counts - 8000) ** 2 / 8000).sum() < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001
    assert len({tuple(lane) for lane in actions.T}) == 64
    lagged = np.corrcoef(actions[:-1].ravel(), actions[1:].ravel())[0, 1]
    assert abs(lagged) < 0.025


def test_a_lane_with_its_own_key_is_the_same_alone():
    env, params = jaxrl.make("FrozenLake-v1")
    keys = jax.random.split(jaxrl.key(3), 5)
    many = rollout(env, params, None, keys, 5, 40).trajectory
    for i in range(5):
        one = rollout(env, params, None, keys[i : i + 1], 1, 40).trajectory
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[:, i], b[:, 0]), many, one)


def test_1024_pole_lengths_are_1024_single_rollouts():
    env, params = jaxrl.make("CartPole-v1")
    lengths, keys = jnp.linspace(0.1, 3.0, 1024), jax.random.split(jaxrl.key(4), 1024)
    many = rollout(env, params.replace(length=lengths), None, keys, 1024, 32).trajectory
    single = partial(rollout, env, policy=None, num_envs=1, steps=32)
    for i in range(1024):
        one = single(params.replace(length=lengths[i]), key=keys[i : i + 1]).trajectory
        np.testing.assert_allclose(many.next_obs[:, i], one.next_obs[:, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(many.terminated[:, i], one.terminated[:, 0])
    assert len(np.unique(np.asarray(many.next_obs)[5, :, 3])) > 1000


def test_a_rollout_goes_on_and_compiles_once():
    env, params = jaxrl.make("CartPole-v1")

    def lean(weight, obs, key):
        del key
        return (obs[2] * weight > 0).astype(jnp.int32)

    policy = Partial(lean, jnp.float32(1))
    first = rollout(env, params, policy, jaxrl.key(0), 4, 10)
    second = rollout(env, params, policy, jaxrl.key(1), 4, 10, start=(first.obs, first.state))
    np.testing.assert_array_equal(second.trajectory.obs[0], first.obs)
    compiled = jaxrl.vector._rollout._cache_size()
    other = rollout(env, params, Partial(lean, jnp.float32(-1)), jaxrl.key(0), 4, 10)
    assert jaxrl.vector._rollout._cache_size() == compiled
    assert (np.asarray(other.trajectory.action) != first.trajectory.action).any()


@pytest.mark.parametrize("pool", [0, 300, 5])
def test_states_have_the_chances_of_the_exact_process(pool):
    """A lake with two starts, walked at random with resets: after t steps each cell has its exact chance."""
    env, params = jaxrl.make("FrozenLake-v1", desc=("SFH", "FFF", "HFS", "FFG"), max_steps_in_episode=10**6)
    P, _, terminal, start = env.tabular_mdp(params)
    walk = P.mean(1)
    walk = walk * ~terminal + (walk * terminal).sum(1, keepdims=True) * start
    exact = start @ np.linalg.matrix_power(walk, 12)
    number = 8192
    last = np.asarray(rollout(env, params, None, jaxrl.key(pool), number, 12, pool=pool, refill_every=3).obs)
    expected = exact * number
    live = expected > 0
    counts = np.bincount(last, minlength=len(exact))
    assert not counts[~live].any()
    chi2 = ((counts - expected)[live] ** 2 / expected[live]).sum()
    freedom = live.sum() - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(("pool", "short"), [(0, False), (100_000, False), (2, True)])
def test_fresh_episodes_are_uniform_and_used_once(pool, short):
    env = tickets()
    out = rollout(env, env.default_params, None, jaxrl.key(8), 64, 320, pool=pool, refill_every=4)
    began = starts(out.trajectory)
    ended = int(out.trajectory.terminated.sum())
    assert len(began) == 64 + int(out.trajectory.terminated[:-1].sum()) > 5000
    assert len(set(began.tolist())) == len(began)
    counts = np.bincount(began >> 28, minlength=16)
    mean = len(began) / 16
    assert ((counts - mean) ** 2 / mean).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001
    if pool:
        overflow = int(out.state.overflow)
        assert overflow == (ended - 2 * 80 if short else 0)  # two rows a refill, every one of them handed out


def test_what_a_pool_holds_is_handed_out_by_rank():
    env = tickets()
    vector = make_vector(env, env.default_params._replace(ends=1.0), 4, pool=3)
    _, state = vector.reset(jax.random.split(jaxrl.key(0), 4))
    state = vector.refill(jaxrl.key(1), state)
    waiting = np.asarray(state.fresh[1].ticket)[0]
    _, after, *_ = vector.step(jax.random.split(jaxrl.key(2), 4), state, jnp.zeros(4, jnp.int32))
    np.testing.assert_array_equal(after.env.ticket[:3], waiting)
    assert after.env.ticket[3] not in waiting
    assert (int(after.overflow), after.used.tolist()) == (1, [3])


@pytest.mark.parametrize("pool", [0, 8, 64])
def test_a_fresh_episode_has_its_lanes_params(pool):
    env = tickets()
    params = env.default_params._replace(owner=jnp.arange(8))
    out = rollout(env, params, None, jaxrl.key(0), 8, 48, pool=pool, refill_every=4)
    assert (np.asarray(out.trajectory.obs[..., 1]) == np.arange(8)).all()
    began = starts(out.trajectory)
    assert len(set(began.tolist())) == len(began) > 60


@pytest.mark.parametrize("pool", [0, 16])
def test_pools_serve_runs(pool):
    env, params = jaxrl.make("FrozenLake-v1", desc=("SFH", "FFF", "HFS", "FFG"))
    agent = jaxrl.q_learning(12, 4)
    loop = jaxrl.LoopConfig(num_envs=8, unroll=4, warmup=10, reset_pool=pool)
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, 8), loop)
    state, metrics = jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 20))(jaxrl.key(0))
    assert int(state.clock) == 90
    assert float(metrics["env_steps"]) == 20 * 4 * 8
    assert float(metrics["episodes"]) > 50
    assert metrics.get("reset_overflow", 0) == 0
    seeds = jaxrl.vmap_run(run)
    many = jax.jit(lambda keys: jaxrl.advance(seeds, seeds.warmup(seeds.init(keys)), 20))(jaxrl.key(0)[None])[0]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), many.env_state, state.env_state)


def test_pool_overflow_is_a_metric():
    env, params = jaxrl.make("Corridor-v0", length=2, max_steps_in_episode=1)  # every step ends an episode
    loop = jaxrl.LoopConfig(num_envs=8, unroll=2, reset_pool=6)
    run = jaxrl.make_run(env, params, jaxrl.q_learning(2, 2), jaxrl.recent(1, 8), loop)
    _, metrics = jaxrl.advance(run, run.init(jaxrl.key(0)), 5)
    assert float(metrics["reset_overflow"]) == 5 * (16 - 6)


def test_runs_and_evaluation_take_params_for_each_environment():
    env, params = jaxrl.make("Corridor-v0", terminal=False)
    limits = jnp.array([5, 10, 20, 40])
    own = params.replace(max_steps_in_episode=limits)
    agent = jaxrl.q_learning(10, 2)
    run = jaxrl.make_run(env, own, agent, jaxrl.recent(1, 4), jaxrl.LoopConfig(4))
    state, metrics = jax.jit(lambda key: jaxrl.advance(run, run.init(key), 40))(jaxrl.key(0))
    assert float(metrics["episodes"]) == 8 + 4 + 2 + 1
    result = jaxrl.evaluate(env, own, agent, state.agent, jaxrl.key(0), 4)
    np.testing.assert_array_equal(result.lengths, limits)
    assert result.ended.all()


@pytest.mark.parametrize("pool", [0, 64])
def test_gymnax_environments_roll_out(pool):
    env, params = gymnax.make("CartPole-v1")
    flow = rollout(env, params, None, jax.random.key(0), 16, 64, pool=pool, refill_every=8).trajectory
    done = np.asarray(flow.terminated)
    assert done.any()
    np.testing.assert_array_equal(flow.obs[1:][~done[:-1]], flow.next_obs[:-1][~done[:-1]])
    assert np.abs(flow.obs[1:][done[:-1]]).max() <= 0.05
    assert len(np.unique(np.asarray(flow.obs)[1:][done[:-1]][:, 0])) == done[:-1].sum()


def bad(**changes):
    env, params = jaxrl.make("CartPole-v1")
    arguments = dict(env=env, params=params, policy=None, key=jaxrl.key(0), num_envs=4, steps=8)
    return rollout(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"key": jax.random.split(jaxrl.key(0), 3)}, "one for each of 4 environments"),
        ({"pool": -1}, "pool is -1"),
        ({"pool": 4, "refill_every": 3}, "multiple of refill_every"),
        ({"pool": 4, "refill_every": 0}, "refill_every is 0"),
        ({"pool": 4, "refill_every": 4, "key": jax.random.split(jaxrl.key(0), 4)}, "a pool needs one key"),
        ({"params": jaxrl.make("FrozenLake-v1")[1]}, "params of CartPole-v1"),
        ({"params": jaxrl.make("CartPole-v1")[1].replace(length=jnp.ones(3))}, r"length.*\(4,\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        bad(**changes)
    assert "\n" not in str(error.value)


def test_another_environments_params_are_refused():
    env, _ = jaxrl.make("CartPole-v1")
    with pytest.raises(ValueError, match="must be a jaxrl.envs.cartpole.Params"):
        env.reset(jaxrl.key(0), jaxrl.make("Corridor-v0")[1])
    with pytest.raises(ValueError, match="must be a jaxrl.envs.cartpole.Params"):
        env.step(jaxrl.key(0), env.reset(jaxrl.key(0))[1], 0, {"gravity": 9.8})


def test_params_axes_name_what_varies():
    env, params = jaxrl.make("CartPole-v1")
    assert params_axes(env, params, 3) is None
    assert params_axes(env, None, 3) is None
    axes = params_axes(env, params.replace(tau=jnp.ones(3)), 3)
    assert (axes.tau, axes.gravity) == (0, None)
