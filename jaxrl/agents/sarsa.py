"""SARSA (Rummery & Niranjan 1994), expected SARSA (van Seijen et al. 2009) and tree backup (Precup et al. 2000)."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import behaviour as behaviours
from jaxrl import checks, explore, returns
from jaxrl.agents.tabular import Rows, tabular_agent
from jaxrl.behaviour import Behaviour
from jaxrl.types import Agent, PyTree, Transition


def sarsa(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Moves Q(s, a) towards r_1 + ... + gamma^n Q(s_n, a_n), actions as taken (Sutton & Barto 2018, equation 7.4).

    It learns from windows of n + 1 steps, of two for SARSA itself (equation 6.7): `recent(2, num_envs)`. At a truncated
    end no action was taken, so one is drawn from the current policy at the true next observation. `options` are those
    of `tabular.shell`.
    """
    checks.in_range("gamma", gamma, 0, 1)

    def target(q: Rows, window: Transition, key: Array, policy: Rows) -> Array:
        if window.reward.shape[0] < 2:
            raise ValueError("sarsa got windows of 1 step; use a buffer with window=2, or n + 1 for n steps")
        step = returns.n_step(jax.tree.map(lambda leaf: leaf[:-1], window._replace(carry=())), gamma)
        drawn = explore.draw(policy(step.next_obs), key)
        cut = jnp.any((window.terminated | window.truncated)[:-1])
        return step.reward + step.discount * q(step.next_obs)[jnp.where(cut, drawn, window.action[-1])]

    return tabular_agent(num_states, num_actions, target, **options)


def expected_sarsa(
    num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, target: Behaviour | None = None, **options
) -> Agent:
    """Moves Q(s, a) towards r_1 + ... + gamma^n sum_a pi(a|s_n) Q(s_n, a) (Sutton & Barto 2018, equations 6.9, 7.7).

    pi is the behaviour, or with one-step windows any `target`. `options` are those of `tabular.shell`.
    """
    checks.in_range("gamma", gamma, 0, 1)

    def towards(q: Rows, window: Transition, key: Array, policy: Rows) -> Array:
        del key
        step = returns.n_step(window, gamma)
        return step.reward + step.discount * _expectation(q, _chances(target, q, policy), step.next_obs)

    return tabular_agent(num_states, num_actions, towards, **options)


def tree_backup(
    num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, target: Behaviour | None = None, **options
) -> Agent:
    """The n-step return that takes the expectation over the actions not taken (Sutton & Barto 2018, equation 7.16).

    Off policy without importance weights: n is the buffer's window, pi the `target`, by default greedy. `options` are
    those of `tabular.shell`.
    """
    checks.in_range("gamma", gamma, 0, 1)
    pi = target or behaviours.greedy()

    def towards(q: Rows, window: Transition, key: Array, policy: Rows) -> Array:
        del key
        chances = _chances(pi, q, policy)
        value = jax.vmap(lambda obs: _expectation(q, chances, obs))(window.next_obs)
        discount, trace = returns.cut(window, gamma, 1.0)
        following = jax.tree.map(lambda leaf: leaf[1:], (window.obs, window.action))
        taken, chance = jax.vmap(lambda obs, action: (q(obs)[action], chances(obs)[action]))(*following)
        none = jnp.zeros(1, taken.dtype)  # after the last step nothing was taken
        taken, chance = jnp.concatenate([taken, none]), jnp.concatenate([chance, none])
        return returns.off_policy_returns(window.reward, discount, value, taken, trace * chance)[0]

    return tabular_agent(num_states, num_actions, towards, **options)


def _chances(target: Behaviour | None, q: Rows, policy: Rows) -> Rows:
    if target is None:
        return policy
    return lambda obs: target.chances(q(obs), jnp.zeros_like(q(obs)), obs, (), 0.0)


def _expectation(q: Rows, chances: Rows, obs: PyTree) -> Array:
    """The mean value of an observation; an action of chance 0 does not count, whatever it is worth."""
    p = chances(obs)
    return jnp.sum(jnp.where(p > 0, p * q(obs), 0))
