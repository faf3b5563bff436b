import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.types import NO_LIMIT, Agent


def walker(action: int) -> Agent:
    """Always the same action, or with -1: right only while its memory counts below 3."""

    def act(state, carry, obs, key, steps, greedy=False):
        del state, obs, key, steps
        assert greedy
        chosen = jnp.where(carry < 3, 1, 0) if action < 0 else jnp.int32(action)
        return chosen, carry + 1

    return Agent(lambda key, obs: (), lambda n: jnp.zeros(n, jnp.int32), act, lambda *args: args)


def test_one_whole_episode_a_lane():
    env, params = jaxrl.make("Corridor-v0", length=5, max_steps_in_episode=30)
    right = jaxrl.evaluate(env, params, walker(1), (), jaxrl.key(0), 3)
    np.testing.assert_array_equal(right.returns, [1, 1, 1])
    np.testing.assert_array_equal(right.lengths, [4, 4, 4])
    assert right.ended.all()
    left = jaxrl.evaluate(env, params, walker(0), (), jaxrl.key(0), 3)
    np.testing.assert_array_equal(left.returns, [0, 0, 0])
    np.testing.assert_array_equal(left.lengths, [30, 30, 30])
    assert left.ended.all()


def test_an_episode_that_only_max_steps_stops_has_not_ended():
    env, params = jaxrl.make("Corridor-v0", length=5, terminal=False, max_steps_in_episode=30)
    result = jaxrl.evaluate(env, params, walker(1), (), jaxrl.key(0), 2, max_steps=7)
    np.testing.assert_array_equal(result.returns, [7, 7])
    assert not result.ended.any()


def test_the_agents_memory_is_carried():
    env, params = jaxrl.make("Corridor-v0", length=5, max_steps_in_episode=9)
    result = jaxrl.evaluate(env, params, walker(-1), (), jaxrl.key(0), 2)
    np.testing.assert_array_equal(result.returns, [0, 0])


def test_lanes_start_apart():
    env, params = jaxrl.make("CartPole-v1")
    result = jaxrl.evaluate(env, params, walker(1), (), jaxrl.key(0), 50)
    assert len(np.unique(result.lengths)) > 1
    np.testing.assert_array_equal(result.lengths, result.returns)


def test_bad_requests():
    env, params = jaxrl.make("Corridor-v0")
    with pytest.raises(ValueError, match="episodes is 0"):
        jaxrl.evaluate(env, params, walker(0), (), jaxrl.key(0), 0)
    with pytest.raises(ValueError, match="has no step limit"):
        jaxrl.evaluate(env, object(), walker(0), (), jaxrl.key(0), 1)


@pytest.mark.parametrize("steps", [-3, 0, np.int32(0), jnp.int32(-1)])
def test_steps_below_one_are_refused_whatever_holds_them(steps):
    env, params = jaxrl.make("Corridor-v0")
    with pytest.raises(ValueError, match=r"max_steps is -?\d; it must be an integer of at least 1"):
        jaxrl.evaluate(env, params, walker(0), (), jaxrl.key(0), 1, steps)


def test_an_endless_environment_is_known_whatever_holds_its_limit():
    env, params = jaxrl.make("CartPole-v1", max_steps_in_episode=NO_LIMIT)
    for held in (params, jax.tree.map(jnp.asarray, params), jax.tree.map(np.asarray, params)):
        with pytest.raises(ValueError, match="has no step limit, so an episode may never end; give max_steps"):
            jaxrl.evaluate(env, held, walker(0), (), jaxrl.key(0), 1)
