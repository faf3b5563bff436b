"""Bellman's operators, and the ways in which the action values of a state become one number.

Such a way, a backup, is a function q [S, A] -> [S]; one with numbers of its own is a Partial, so that new numbers
compile nothing anew.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from jaxrl.planning import inputs, model
from jaxrl.planning.model import MDP

Backup = Callable[[Array], Array]


def expectation(mdp: MDP, gamma: ArrayLike, policy: Array, v: Array) -> Array:
    """(T_pi v)(s) = sum_a pi(a|s) sum_s' p(s'|s, a) [R + gamma v(s')] (Sutton & Barto 2018, equations 4.4 and 4.5).

    Shapes: policy [S, A] chances, v [S], result [S]; 0 in terminal states.
    """
    chex.assert_rank([policy, v], [2, 1])
    return jnp.sum(policy * action_values(mdp, gamma, v), axis=1)


def optimality(mdp: MDP, gamma: ArrayLike, v: Array) -> Array:
    """(T v)(s) = max_a sum_s' p(s'|s, a) [R + gamma v(s')] (Sutton & Barto 2018, equations 4.1 and 4.10).

    Shapes: v [S], result [S]; 0 in terminal states.
    """
    return best(action_values(mdp, gamma, v))


def action_values(mdp: MDP, gamma: ArrayLike, v: Array) -> Array:
    """q [S, A], q(s, a) = sum_s' p(s'|s, a) [R + gamma v(s')] for v [S] (Sutton & Barto 2018, equation 4.6)."""
    chex.assert_rank(v, 1)
    return model.lookahead(mdp, gamma)(v)


def improve(q: Array) -> Array:
    """int32 [S]: the first of the best actions of q [S, A] (Sutton & Barto 2018, equation 4.9)."""
    chex.assert_rank(q, 2)
    return jnp.argmax(q, axis=1).astype(jnp.int32)


def best(q: Array) -> Array:
    """max_a q(s, a) [S]."""
    chex.assert_rank(q, 2)
    return jnp.max(q, axis=1)


def soft(epsilon: ArrayLike) -> Partial:
    """The mean of q under its epsilon-greedy policy, (1 - epsilon) max_a q(s, a) + epsilon / A sum_a q(s, a)."""
    inputs.number("epsilon", epsilon)
    return Partial(_soft, epsilon)


def mean(policy: ArrayLike) -> Partial:
    """The mean of q under `policy` [S, A], sum_a pi(a|s) q(s, a)."""
    return Partial(_mean, policy)


def epsilon_greedy(epsilon: ArrayLike) -> Partial:
    """q [S, A] -> the chances [S, A] of its epsilon-greedy policy, ties shared evenly."""
    inputs.number("epsilon", epsilon)
    return Partial(_epsilon_greedy, epsilon)


def chances(policy: ArrayLike, num_actions: int) -> Array:
    """A policy as chances [S, A]: itself, or the actions [S] that it takes."""
    policy = jnp.asarray(policy)
    return jax.nn.one_hot(policy, num_actions, dtype=float) if policy.ndim == 1 else policy


def partial(function: Any) -> Partial:
    """A function as what jit can be given."""
    return function if isinstance(function, Partial) else Partial(function)


def _soft(epsilon: ArrayLike, q: Array) -> Array:
    epsilon = jnp.asarray(epsilon, q.dtype)
    return (1 - epsilon) * jnp.max(q, axis=1) + epsilon * jnp.mean(q, axis=1)


def _mean(policy: ArrayLike, q: Array) -> Array:
    return jnp.sum(jnp.asarray(policy, q.dtype) * q, axis=1)


def _epsilon_greedy(epsilon: ArrayLike, q: Array) -> Array:
    epsilon = jnp.asarray(epsilon, q.dtype)
    ties = q >= jnp.max(q, axis=1, keepdims=True)
    return (1 - epsilon) * ties / jnp.sum(ties, axis=1, keepdims=True) + epsilon / q.shape[1]
