"""The shell that every tabular learner shares: w += step * error; each learner brings its bootstrap value.

A tabular observation is k active indices: an integer [] for a table, [k] for tile coding, with
Q(s, a) = sum_j w[index_j, a] (Sutton & Barto 2018, sections 6.5 and 9.5).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore
from jaxrl.types import Agent, Metrics, PyTree, Sample, Schedule, Transition

# (q, window [T, ...], key, epsilon) -> target []: q maps an observation to its action values [A]
Target = Callable[[Callable[[PyTree], Array], Transition, Array, Array], Array]


class TableState(NamedTuple):
    """What a tabular agent learns."""

    q: Array  # [S, A] float32
    visits: Array  # [S, A] int32, how often each entry was learned from


def tabular_agent(
    num_states: int,
    num_actions: int,
    target: Target,
    *,
    alpha: ArrayLike = 0.1,
    alpha_power: ArrayLike = 0.0,
    epsilon: ArrayLike | Schedule = 0.1,
    initial: ArrayLike = 0.0,
) -> Agent:
    """A table moved towards `target(q, window, key, epsilon)` at the window's first state and action.

    With `alpha_power` 0 the step size is alpha, and entries that several environments hit at once move by the mean of
    their errors. Otherwise it is m alpha / visits^alpha_power, at most 1, for m hits: alpha = alpha_power = 1
    is the sample average exactly. `epsilon` is a number or a schedule. Observations must be below num_states: jax
    clamps what is read beyond a table and drops what is written. Raises ValueError for sizes below 1, alpha
    outside (0, 1], alpha_power outside [0, 1].
    """
    checks.at_least("num_states", num_states, 1)
    checks.at_least("num_actions", num_actions, 1)
    checks.in_range("alpha", alpha, 0, 1, open_low=True)
    checks.in_range("alpha_power", alpha_power, 0, 1)
    epsilon = explore.epsilon_schedule(epsilon)

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        observation, _ = explore.split_mask(obs)
        _check_tabular(observation)
        q = jnp.full((num_states, num_actions), initial, jnp.float32)
        return TableState(q, jnp.zeros(q.shape, jnp.int32))

    def act(
        state: TableState, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]:
        observation, mask = explore.split_mask(obs)
        q = action_values(state.q, observation)
        if greedy:
            return explore.greedy(q, mask=mask), carry
        return explore.epsilon_greedy(q, epsilon(steps), key, mask), carry

    def update(state: TableState, sample: Sample, key: Array, steps: Array) -> tuple[TableState, Array, Metrics]:
        def q(obs: PyTree) -> Array:
            return action_values(state.q, explore.split_mask(obs)[0])

        def error_of(window: Transition, key: Array) -> tuple[Array, Array, Array, Array]:
            first = jax.tree.map(lambda leaf: leaf[0], window._replace(carry=()))
            predicted = q(first.obs)[first.action]
            active = jnp.atleast_1d(explore.split_mask(first.obs)[0])
            error = target(q, window, key, epsilon(steps)) - predicted
            return active, first.action, error, predicted

        batch = sample.weight.shape[0]
        active, action, error, predicted = jax.vmap(error_of)(sample.window, jax.random.split(key, batch))
        entry = (active, action[:, None])  # [B, k] and [B, 1]: k entries an item
        counted = (sample.weight > 0)[:, None].astype(state.visits.dtype)  # a weight of 0 says that there is no window
        hits = jnp.zeros_like(state.visits).at[entry].add(counted)
        visits = state.visits + hits
        m, n = hits[entry], visits[entry]
        decayed = jnp.minimum(1.0, m * alpha * jnp.maximum(n, 1).astype(jnp.float32) ** -jnp.asarray(alpha_power))
        step = jnp.where(jnp.asarray(alpha_power) > 0, decayed, alpha) / active.shape[1]
        table = state.q.at[entry].add(
            (step / jnp.maximum(m, 1) * (sample.weight * error)[:, None]).astype(state.q.dtype)
        )
        metrics = {"loss": jnp.mean(jnp.square(error)), "q": jnp.mean(predicted)}
        return TableState(table, visits), jnp.abs(error), metrics

    return Agent(init, lambda num_envs: (), act, update)


def action_values(table: Array, observation: Array) -> Array:
    """Q(s, .) [A] of one observation, the sum over its active rows of table [S, A]."""
    return jnp.sum(table[jnp.atleast_1d(observation)], axis=0)


def _check_tabular(observation: PyTree) -> None:
    leaves = jax.tree.leaves(observation)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.integer) or leaves[0].ndim not in (1, 2):
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves)
        raise ValueError(
            f"a tabular agent got an observation of {shapes}; it needs one integer, or a vector of active "
            "indices: use an environment with a Discrete observation, or a deep agent such as dqn"
        )
