"""Tables that learn continuous environments through tile coding (Sutton & Barto 2018, sections 9.5.4 and 10.1)."""

import jax

import jaxrl
from jaxrl.envs import wrappers


def greedy_return(env, params, agent, num_envs, steps, seed=0):
    """Mean return of 100 greedy episodes after `steps` environment steps."""
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, num_envs), jaxrl.LoopConfig(num_envs))

    @jax.jit
    def learn_and_play(key):
        state, _ = jaxrl.advance(run, run.init(key), steps // num_envs)
        return jaxrl.evaluate(env, params, agent, state.agent, jax.random.fold_in(key, 1), 100).returns.mean()

    return learn_and_play(jaxrl.key(seed))


def test_a_table_learns_cartpole():
    """Seeds 0 to 9: 411 to 500; a random policy comes to 22."""
    env, params = jaxrl.make("CartPole-v1")
    env = wrappers.tile_coding(env, tilings=16, bins=4, bounds=((-2.4, -3, -0.21, -3.5), (2.4, 3, 0.21, 3.5)))
    epsilon = jaxrl.explore.linear(1.0, 0.05, 50_000)
    agent = jaxrl.q_learning(wrappers.num_states(env), env.num_actions, alpha=0.3, epsilon=epsilon)
    assert greedy_return(env, params, agent, num_envs=16, steps=200_000) >= 300


def test_a_table_learns_mountain_car():
    """Seeds 0 to 9: -106 to -133; a random policy never arrives, which is -200."""
    env, params = jaxrl.make("MountainCar-v0")
    env = wrappers.tile_coding(env, tilings=8, bins=8)
    agent = jaxrl.q_learning(wrappers.num_states(env), env.num_actions, gamma=1.0, alpha=0.3, epsilon=0.05)
    assert greedy_return(env, params, agent, num_envs=8, steps=400_000) >= -160
