"""Behaviours: how an agent with a table chooses, given the values of a state and how often they were learned from.

A behaviour is for ONE observation. Learners ask for its chances too, as SARSA does where an episode is cut.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxrl import checks, explore
from jaxrl.types import PyTree, Schedule


class Choose(Protocol):
    """(q [A], visits [A], obs, carry, steps, key) -> (action [], carry)."""

    def __call__(
        self, q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike, key: Array
    ) -> tuple[Array, PyTree]: ...


class Behaviour(NamedTuple):
    """A way to choose; `visits` is how often each action of the state was learned from."""

    chances: Callable[[Array, Array, PyTree, PyTree, ArrayLike], Array]  # (q, visits, obs, carry, steps) -> [A]
    choose: Choose
    carry: Callable[[int], PyTree] = lambda num_envs: ()  # (num_envs) -> its memory at an episode's start [N, ...]


def greedy() -> Behaviour:
    """The best action, ties broken at random."""
    return epsilon_greedy(0.0)


def epsilon_greedy(epsilon: ArrayLike | Schedule) -> Behaviour:
    """Epsilon-greedy, for a number, a schedule, or [N] numbers, one for each environment, as `explore.ladder` gives."""
    if not callable(epsilon) and np.ndim(epsilon) == 1:
        for value in () if isinstance(epsilon, Tracer) else np.asarray(epsilon):
            checks.in_range("an epsilon of each environment", value, 0, 1)
        return _ladder(jnp.asarray(epsilon, jnp.float32))
    schedule = explore.epsilon_schedule(epsilon)

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del visits, carry
        return explore.epsilon_greedy_probabilities(q, schedule(steps), explore.split_mask(obs)[1])

    def choose(
        q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike, key: Array
    ) -> tuple[Array, PyTree]:
        del visits
        return explore.epsilon_greedy(q, schedule(steps), key, explore.split_mask(obs)[1]), carry

    return Behaviour(chances, choose)


def count_based(n0: ArrayLike = 100.0) -> Behaviour:
    """Epsilon-greedy with N0 / (N0 + N(s)), N(s) the visits of the state (Silver 2015, lecture 5's Easy21)."""
    checks.in_range("n0 of count-based exploration", n0, 0, float("inf"), open_low=True, open_high=True)

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del carry, steps
        epsilon = n0 / (n0 + jnp.sum(visits, dtype=q.dtype))
        return explore.epsilon_greedy_probabilities(q, epsilon, explore.split_mask(obs)[1])

    return _drawn(chances)


def ucb(c: ArrayLike = 1.0) -> Behaviour:
    """The best of q(s, a) + c sqrt(ln N(s) / N(s, a)), actions never tried first (Sutton & Barto 2018, eq. 2.10)."""
    checks.in_range("c of UCB", c, 0, float("inf"), open_high=True)

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del carry, steps
        total = jnp.maximum(jnp.sum(visits, dtype=q.dtype), 1)
        bonus = c * jnp.sqrt(jnp.log(total) / jnp.maximum(visits, 1))
        score = jnp.where(visits > 0, q + bonus, jnp.inf)
        return explore.epsilon_greedy_probabilities(score, 0.0, explore.split_mask(obs)[1])

    return _drawn(chances)


def boltzmann(temperature: ArrayLike | Schedule) -> Behaviour:
    """Chances proportional to exp(q / temperature) (Sutton & Barto 2018, equation 2.11's softmax)."""
    schedule: Schedule
    if callable(temperature):
        schedule = temperature
    else:
        checks.in_range("temperature", temperature, 0, float("inf"), open_low=True, open_high=True)
        schedule = explore.constant(temperature)

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del visits, carry
        return jax.nn.softmax(explore.tempered(q, schedule(steps), explore.split_mask(obs)[1]))

    return _drawn(chances)


def fixed(policy: ArrayLike | Callable[[PyTree], Array]) -> Behaviour:
    """A policy that does not learn: chances [S, A] by the observation's index, or a function from observation to [A].

    Raises ValueError for a table whose rows are no chances.
    """
    follow = policy if callable(policy) else _rows(policy)

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del q, visits, carry, steps
        return follow(explore.split_mask(obs)[0])

    return _drawn(chances)


def exploring_starts(then: Behaviour | None = None) -> Behaviour:
    """Any action in an episode's first step, each as likely, and `then`, by default greedy, from there on.

    Sutton & Barto (2018), section 5.3; the environment must start in every state now and then.
    """
    then = then or greedy()

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        return then.chances(q, visits, obs, carry[1], steps)  # learners ask for what comes next, which is no start

    def choose(
        q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike, key: Array
    ) -> tuple[Array, PyTree]:
        any_key, then_key = jax.random.split(key)
        first, memory = carry
        explored = explore.epsilon_greedy(q, 1.0, any_key, explore.split_mask(obs)[1])
        chosen, memory = then.choose(q, visits, obs, memory, steps, then_key)
        return jnp.where(first, explored, chosen), (jnp.zeros((), bool), memory)

    return Behaviour(chances, choose, lambda num_envs: (jnp.ones(num_envs, bool), then.carry(num_envs)))


def _ladder(epsilons: Array) -> Behaviour:
    """Epsilon-greedy with an epsilon of its own in every environment, kept in the agent's memory of the episode."""

    def chances(q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike) -> Array:
        del visits, steps
        return explore.epsilon_greedy_probabilities(q, carry, explore.split_mask(obs)[1])

    def choose(
        q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike, key: Array
    ) -> tuple[Array, PyTree]:
        del visits, steps
        return explore.epsilon_greedy(q, carry, key, explore.split_mask(obs)[1]), carry

    def carry(num_envs: int) -> Array:
        if num_envs != len(epsilons):
            raise ValueError(f"{len(epsilons)} epsilons for {num_envs} environments; give one for each")
        return epsilons

    return Behaviour(chances, choose, carry)


def _drawn(chances: Callable[..., Array]) -> Behaviour:
    """A behaviour whose choice is drawn from its chances."""

    def choose(
        q: Array, visits: Array, obs: PyTree, carry: PyTree, steps: ArrayLike, key: Array
    ) -> tuple[Array, PyTree]:
        return explore.draw(chances(q, visits, obs, carry, steps), key), carry

    return Behaviour(chances, choose)


def _rows(policy: ArrayLike) -> Callable[[PyTree], Array]:
    """A table of chances as a function of the observation."""
    if not isinstance(policy, Tracer):
        _require_chances(np.asarray(policy))
    table = jnp.asarray(policy, jnp.float32)
    return lambda obs: table[obs]


def _require_chances(policy: np.ndarray) -> None:
    if policy.ndim != 2:
        raise ValueError(f"a fixed policy has shape {list(policy.shape)}; it must be chances [S, A], or a function")
    bad = np.argwhere((np.abs(policy.sum(1) - 1) > 1e-6) | (policy < 0).any(1))
    if len(bad):
        state = int(bad[0, 0])
        raise ValueError(f"a fixed policy's chances in state {state} are {policy[state].tolist()}; they must sum to 1")
