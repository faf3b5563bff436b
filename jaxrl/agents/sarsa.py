"""SARSA (Rummery & Niranjan 1994) and expected SARSA (van Seijen et al. 2009)."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents.tabular import tabular_agent
from jaxrl.types import Agent, Transition


def sarsa(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Moves Q(s, a) towards r + gamma Q(s', a'), a' the action taken next (Sutton & Barto 2018, equation 6.7).

    It learns from windows of two steps: `recent(2, num_envs)`. At a truncated end no action was taken, so a' is drawn
    from the current policy at the true next observation. `options` are those of `tabular_agent`.
    """
    checks.in_range("gamma", gamma, 0, 1)

    def target(q, window: Transition, key: Array, epsilon: Array) -> Array:
        if window.reward.shape[0] != 2:
            raise ValueError(f"sarsa got windows of {window.reward.shape[0]} steps; use a buffer with window=2")
        first = jax.tree.map(lambda leaf: leaf[0], window._replace(carry=()))
        next_q = q(first.next_obs)
        _, mask = explore.split_mask(first.next_obs)
        drawn = explore.epsilon_greedy(next_q, epsilon, key, mask)
        action = jnp.where(first.truncated, drawn, window.action[1])
        return first.reward + gamma * (1.0 - first.terminated) * next_q[action]

    return tabular_agent(num_states, num_actions, target, **options)


def expected_sarsa(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Moves Q(s, a) towards r + gamma sum_a' pi(a'|s') Q(s', a') (Sutton & Barto 2018, equation 6.9).

    pi is the current epsilon-greedy policy. `options` are those of `tabular_agent`.
    """
    checks.in_range("gamma", gamma, 0, 1)

    def target(q, window: Transition, key: Array, epsilon: Array) -> Array:
        del key
        step = returns.n_step(window, gamma)
        next_q = q(step.next_obs)
        _, mask = explore.split_mask(step.next_obs)
        policy = explore.epsilon_greedy_probabilities(next_q, epsilon, mask)
        return step.reward + step.discount * jnp.sum(policy * next_q)

    return tabular_agent(num_states, num_actions, target, **options)
