"""Behaviours: what is drawn has the chances that are told, and these are the published formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import behaviour, explore
from jaxrl.types import Masked

Q = jnp.array([1.0, 3.0, 3.0, 0.0])
VISITS = jnp.array([4.0, 1.0, 2.0, 9.0])
MASK = jnp.array([True, False, True, True])
POLICY = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]])
UCB = np.array(Q) + 0.5 * np.sqrt(np.log(16) / np.array(VISITS))
CASES = {
    "greedy": (behaviour.greedy(), None, [0, 0.5, 0.5, 0]),
    "epsilon": (behaviour.epsilon_greedy(0.2), None, [0.05, 0.45, 0.45, 0.05]),
    "schedule": (behaviour.epsilon_greedy(explore.linear(1.0, 0.0, 10)), None, [0.125, 0.375, 0.375, 0.125]),
    "masked": (behaviour.epsilon_greedy(0.3), MASK, [0.1, 0, 0.8, 0.1]),
    "count_based": (behaviour.count_based(4.0), None, [0.05, 0.45, 0.45, 0.05]),  # 4 / (4 + 16)
    "ucb": (behaviour.ucb(0.5), None, np.eye(4)[UCB.argmax()]),
    "boltzmann": (behaviour.boltzmann(2.0), None, np.exp(np.array(Q) / 2) / np.exp(np.array(Q) / 2).sum()),
    "fixed": (behaviour.fixed(POLICY), None, POLICY[0]),
    "function": (behaviour.fixed(lambda obs: jnp.asarray(POLICY)[1 - obs]), None, POLICY[1]),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_chances_that_are_told(name):
    chosen, mask, expected = CASES[name]
    obs = jnp.int32(0) if mask is None else Masked(jnp.int32(0), mask)
    np.testing.assert_allclose(chosen.chances(Q, VISITS, obs, (), 5.0), expected, atol=1e-6)
    draws = jax.jit(jax.vmap(lambda key: chosen.choose(Q, VISITS, obs, (), 5.0, key)[0]))
    count = np.bincount(draws(jax.random.split(jaxrl.key(0), 20_000)), minlength=4)
    expected = np.asarray(expected, float) * 20_000
    assert (count[expected == 0] == 0).all()
    kept = expected > 0
    assert ((count - expected)[kept] ** 2 / expected[kept]).sum() < 25


def test_ucb_tries_everything_first():
    untried = behaviour.ucb(0.0).chances(Q, jnp.array([3, 0, 5, 0]), jnp.int32(0), (), 0.0)
    np.testing.assert_allclose(untried, [0, 0.5, 0, 0.5])


def test_a_ladder_gives_each_environment_its_epsilon():
    epsilons = explore.ladder(3)
    chosen = behaviour.epsilon_greedy(epsilons)
    np.testing.assert_array_equal(chosen.carry(3), epsilons)
    chances = jax.vmap(lambda carry: chosen.chances(Q, VISITS, jnp.int32(0), carry, 0.0))(chosen.carry(3))
    np.testing.assert_allclose(chances[:, 0], epsilons / 4, rtol=1e-6)
    with pytest.raises(ValueError, match="3 epsilons for 4 environments"):
        chosen.carry(4)


def test_exploring_starts_explore_once():
    chosen = behaviour.exploring_starts()
    first, carry = jax.vmap(lambda c, key: chosen.choose(Q, VISITS, jnp.int32(0), c, 0.0, key))(
        chosen.carry(4000), jax.random.split(jaxrl.key(0), 4000)
    )
    assert (np.bincount(first, minlength=4) > 900).all()
    later, again = jax.vmap(lambda c, key: chosen.choose(Q, VISITS, jnp.int32(0), c, 0.0, key))(
        carry, jax.random.split(jaxrl.key(1), 4000)
    )
    assert set(np.unique(later)) == {1, 2}
    assert not np.asarray(again[0]).any()
    np.testing.assert_allclose(chosen.chances(Q, VISITS, jnp.int32(0), (True, ()), 0.0), [0, 0.5, 0.5, 0])


def test_an_agent_follows_its_behaviour_and_forgets_at_an_episodes_end():
    """Exploring starts in the loop: only the first action of each episode of a two-step walk leaves the greedy one."""
    env, params = jaxrl.make("FrozenLake-v1", is_slippery=False, max_steps_in_episode=2)
    agent = jaxrl.q_learning(16, 4, behaviour=behaviour.exploring_starts())
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(2, 500), jaxrl.LoopConfig(500, unroll=2))
    state = run.init(jaxrl.key(0))
    q = jnp.zeros((16, 4)).at[:, 3].set(1.0)
    state, _ = jax.jit(run.step)(state._replace(agent=state.agent._replace(q=q)))
    first, second = np.asarray(state.buffer.action)
    assert (np.bincount(first, minlength=4) > 80).all()
    assert (second == 3).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: behaviour.epsilon_greedy(1.5), "epsilon is 1.5"),
        (lambda: behaviour.epsilon_greedy([0.5, 1.5]), "an epsilon of each environment is 1.5"),
        (lambda: behaviour.count_based(0.0), "n0 of count-based exploration is 0.0"),
        (lambda: behaviour.ucb(-1.0), "c of UCB is -1.0"),
        (lambda: behaviour.boltzmann(0.0), "temperature is 0.0"),
        (lambda: behaviour.fixed(np.ones(3)), r"a fixed policy has shape \[3\]"),
        (lambda: behaviour.fixed(np.ones((2, 2))), r"chances in state 0 are \[1.0, 1.0\]; they must sum to 1"),
        (lambda: jaxrl.q_learning(2, 2, behaviour=behaviour.greedy(), policy=np.eye(2)), "both policy and behaviour"),
        (lambda: jaxrl.q_learning(2, 2, average=-1.0), "average is -1.0"),
        (lambda: jaxrl.q_learning(2**40, 2**10), "needs 9007199254740992 bytes"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
