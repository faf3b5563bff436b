import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import behaviour, explore

DRAWS = 4000


def frequencies(choose, num_actions):
    actions = jax.vmap(choose)(jax.random.split(jax.random.key(1), DRAWS))
    assert actions.dtype == jnp.int32
    return np.bincount(actions, minlength=num_actions) / DRAWS


def close(measured, expected):  # five standard deviations of a frequency
    expected = np.asarray(expected)
    assert np.all(np.abs(measured - expected) <= 5 * np.sqrt(expected * (1 - expected) / DRAWS)), measured


def test_schedules_by_hand():
    linear = explore.linear(1.0, 0.1, 100)
    assert [round(float(linear(n)), 6) for n in (0, 50, 100, 1000)] == [1.0, 0.55, 0.1, 0.1]
    exponential = explore.exponential(1.0, 0.2, 10)
    assert [round(float(exponential(n)), 6) for n in (0, 10, 20)] == [1.0, 0.6, 0.4]
    glie = explore.glie(10)
    assert [round(float(glie(n)), 6) for n in (0, 9, 10, 20, 990)] == [1.0, 1.0, 0.5, round(1 / 3, 6), 0.01]
    assert float(explore.glie(10, floor=0.3)(1000)) == pytest.approx(0.3)
    assert float(explore.epsilon_schedule(0.25)(7)) == 0.25
    assert explore.epsilon_schedule(glie) is glie
    with pytest.raises(ValueError, match=r"epsilon is 1.5; it must be a finite number in \[0, 1\]"):
        explore.epsilon_schedule(1.5)


def test_ladder_has_the_published_values():
    golden = [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]
    np.testing.assert_allclose(explore.ladder(8), golden, rtol=1e-6)
    with pytest.raises(ValueError, match="num_envs of an epsilon ladder is 1"):
        explore.ladder(1)


def test_greedy_takes_the_first_of_ties_or_any_at_random():
    q = jnp.array([1.0, 3.0, 3.0, 0.0])
    assert int(explore.greedy(q)) == 1
    close(frequencies(lambda key: explore.greedy(q, key), 4), [0, 0.5, 0.5, 0])
    assert int(explore.greedy(q, mask=jnp.array([True, False, False, True]))) == 0


@pytest.mark.parametrize("mask", [None, [True, False, True, True]])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_draws_what_its_probabilities_say(epsilon, mask):
    q = jnp.array([1.0, 5.0, 3.0, 3.0])
    mask = None if mask is None else jnp.array(mask)
    probabilities = explore.epsilon_greedy_probabilities(q, epsilon, mask)
    best = [0, 1, 0, 0] if mask is None else [0, 0, 0.5, 0.5]
    uniform = [0.25] * 4 if mask is None else [1 / 3, 0, 1 / 3, 1 / 3]
    by_hand = epsilon * np.array(uniform) + (1 - epsilon) * np.array(best)
    np.testing.assert_allclose(probabilities, by_hand, atol=1e-6)
    close(frequencies(lambda key: explore.epsilon_greedy(q, epsilon, key, mask), 4), by_hand)


def test_epsilon_greedy_acts_on_the_last_axis():
    q = jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
    assert explore.epsilon_greedy(q, 0.0, jax.random.key(0)).tolist() == [1, 0, 1]


def test_boltzmann_follows_its_softmax():
    q, mask = jnp.array([0.0, 1.0, 2.0]), jnp.array([True, True, False])
    by_hand = np.exp([0.0, 0.5, 1.0])
    close(frequencies(lambda key: explore.boltzmann(q, 2.0, key), 3), by_hand / by_hand.sum())
    by_hand[2] = 0
    close(frequencies(lambda key: explore.boltzmann(q, 2.0, key, mask), 3), by_hand / by_hand.sum())
    with pytest.raises(ValueError, match="temperature is 0"):
        explore.boltzmann(q, 0.0, jax.random.key(0))


@pytest.mark.parametrize("temperature", [0.0, 1e-39, 1e-6])
def test_a_softmax_that_cools_down_becomes_greedy(temperature):
    """Without an overflow on the way: a schedule may end at 0, or halve until it is."""
    q, mask = jnp.array([1.0, 5.0, 9.0, 5.0]), jnp.array([True, True, False, True])
    cooled = jax.jit(jax.vmap(lambda key: explore.boltzmann(q, explore.constant(temperature)(0), key, mask)))
    found = np.bincount(cooled(jax.random.split(jaxrl.key(0), 400)), minlength=4)
    assert found[0] == found[2] == 0 and found[1] + found[3] == 400
    assert abs(found[1] - 200) < 5 * 10
    chances = behaviour.boltzmann(explore.constant(temperature)).chances(q, q, q, (), 0)
    np.testing.assert_array_equal(chances, [0, 0, 1, 0])
