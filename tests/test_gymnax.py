"""Code written for gymnax 1.0 runs on our environments, and gymnax's environments run as ours."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import spaces
from jaxrl.envs import gymnax as adapter

gymnax = pytest.importorskip("gymnax")
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper  # noqa: E402 # after the check that gymnax is there

OURS = ["CartPole-v1", "FrozenLake-v1", "Corridor-v0"]
THEIRS = [
    "Catch-bsuite",
    "Acrobot-v1",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "FourRooms-misc",
    "Breakout-MinAtar",
]


def gymnax_rollout(make, env_id, steps=40):
    """As gymnax's users write it: rewards [T], ends [T] and infos."""
    env, env_params = make(env_id)
    env = LogWrapper(FlattenObservationWrapper(env))
    rng = jax.random.key(0)
    rng, key_reset = jax.random.split(rng)
    obs, state = env.reset(key_reset, env_params)

    def body(carry, _):
        rng, state = carry
        rng, key_act, key_step = jax.random.split(rng, 3)
        action = env.action_space(env_params).sample(key_act)
        obs, state, reward, terminated, truncated, info = env.step(key_step, state, action, env_params)
        return (rng, state), (obs, reward, jnp.logical_or(terminated, truncated), info)

    _, (obs, reward, done, info) = jax.jit(lambda c: jax.lax.scan(body, c, None, steps))((rng, state))
    assert obs.shape[0] == steps
    assert env.num_actions == env.action_space(env_params).n
    return np.asarray(reward), np.asarray(done), info


@pytest.mark.parametrize(
    ("make", "env_id"),
    [(jaxrl.make, i) for i in OURS] + [(gymnax.make, i) for i in ("CartPole-v1", "FrozenLake-misc", "Catch-bsuite")],
)
def test_gymnax_code_runs_on_both(make, env_id):
    reward, done, info = gymnax_rollout(make, env_id)
    np.testing.assert_array_equal(info["returned_episode"], done)
    total = 0.0
    for t in range(len(done)):
        total += reward[t]
        if done[t]:
            np.testing.assert_allclose(info["returned_episode_returns"][t], total, rtol=1e-6)
            total = 0.0
    assert info["final_observation"].ndim == 2


def test_params_are_replaced_as_gymnaxs_are():
    env, params = jaxrl.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=1)
    *_, truncated, _ = env.step(jaxrl.key(0), env.reset(jaxrl.key(0), params)[1], 0, params)
    assert truncated


@pytest.mark.parametrize("env_id", THEIRS)
def test_gymnaxs_environments_step_as_in_gymnax(env_id):
    theirs, their_params = gymnax.make(env_id)
    env, params = jaxrl.make(f"gymnax:{env_id}")
    assert env.num_actions == theirs.num_actions
    key = jax.random.key(3)

    def roll(env, params):
        def body(state, key):
            act_key, step_key = jax.random.split(key)
            action = jax.random.randint(act_key, (), 0, env.num_actions)
            obs, state, reward, terminated, truncated, info = env.step(step_key, state, action, params)
            return state, (obs, reward, terminated, truncated, info["final_observation"])

        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, 30))[1]

    got, expected = jax.jit(lambda: roll(env, params))(), jax.jit(lambda: roll(theirs, their_params))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), got, expected)
    space = env.observation_space(params)
    assert got[0].shape[1:] == space.shape
    assert isinstance(env.action_space(params), spaces.Discrete)


def test_overrides_reach_constructor_and_params():
    env, params = jaxrl.make("gymnax:Catch-bsuite", rows=6, max_steps_in_episode=3)
    assert env.reset(jaxrl.key(0), params)[0].shape == (6, 5)
    assert env.default_params.max_steps_in_episode == 3
    assert jaxrl.envs.registry.signature("gymnax:Catch-bsuite") == {
        "rows": (int, 10),
        "columns": (int, 5),
        "max_steps_in_episode": (int, 1000),
    }


def test_spaces_are_converted():
    theirs = gymnax.environments.spaces
    box = theirs.Box(0, 1, (2,), jnp.float32)
    nested = theirs.Dict({"a": theirs.Discrete(3), "b": theirs.Tuple((box,))})
    expected = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple([spaces.Box(0.0, 1.0, (2,))])})
    assert adapter.from_gymnax(nested) == expected
    with pytest.raises(ValueError, match="no counterpart"):
        adapter.from_gymnax(object())


def test_unknown_id_and_absent_gymnax_are_refused_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'Catch-bsuite'") as error:
        jaxrl.make("gymnax:Catch-bsuit")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxrl\[gymnax\]'") as error:
        jaxrl.make("gymnax:Catch-bsuite")
    assert "\n" not in str(error.value)
