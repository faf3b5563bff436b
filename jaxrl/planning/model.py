"""Decision processes as planners read them, dense or by successors, and the one sweep that all planning repeats.

Either form may hold traced arrays and be vmapped over. Planning is done in the dtype of P and R: float64 where
jax_enable_x64 is on, else float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl.envs.api import TabularMDP

_UNROLL = 64  # up to so many products a state become straight code, which XLA fuses


class SparseMDP(NamedTuple):
    """A `TabularMDP` by successor lists, for spaces whose [S, A, S] is mostly zeros.

    A state has one list for all its actions: what they share, as in a grid, is read once a sweep.
    """

    next: ArrayLike  # [S, K] integer: the states that some action leads to; one may stand twice
    chance: ArrayLike  # [S, A, K]: of each, by action; 0 where a state has fewer than K
    R: ArrayLike  # [S, A], the mean reward
    terminal: ArrayLike  # [S] bool: arriving there ends the episode
    start: ArrayLike  # [S], the chance that an episode starts there


MDP = TabularMDP | SparseMDP


def dtype_of(mdp: MDP) -> Any:
    """The dtype in which a process is solved."""
    return jnp.result_type(mdp.P if isinstance(mdp, TabularMDP) else mdp.chance, mdp.R, float)


def lookahead(mdp: MDP, gamma: ArrayLike) -> Callable[[Array], Array]:
    """v [S] -> q [S, A], q(s, a) = R(s, a) + gamma sum_s' p(s'|s, a) v(s') (Sutton & Barto 2018, equation 4.6).

    v counts as 0 in terminal states, and q is 0 there. Prepare it outside a loop and apply it within. vmap over v or
    gamma makes one matrix product of a dense sweep: P [S A, S] times v [S, B].
    """
    dtype = dtype_of(mdp)
    terminal = jnp.asarray(mdp.terminal)
    R = jnp.where(terminal[:, None], 0, jnp.asarray(mdp.R, dtype))
    gamma = jnp.asarray(gamma, dtype)
    if isinstance(mdp, TabularMDP):
        P, factor = jnp.asarray(mdp.P, dtype), jnp.where(terminal, 0, gamma)

        def product(v: Array) -> Array:
            return R + jnp.where(terminal[:, None], 0, jnp.matmul(P, factor * v, precision="highest"))

        return product

    # One gather over all states per successor: with the states innermost XLA makes vector code of it.
    successors = jnp.asarray(mdp.next).T
    chance = jnp.transpose(jnp.asarray(mdp.chance, dtype), (1, 2, 0))
    chance = jnp.where((terminal[successors] | terminal[None])[None], 0, chance)
    actions, most, states = chance.shape

    def gather(v: Array) -> Array:
        def at(row: Array) -> Array:
            return v.at[row].get(mode="promise_in_bounds")

        if actions * most <= _UNROLL:
            near = [at(row) for row in successors]
            each = (r + gamma * sum(c * v for c, v in zip(rows, near)) for r, rows in zip(R.T, chance))
            return jnp.stack(list(each), axis=1)

        def add(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
            return total + row[1] * at(row[0])[None], None

        total, _ = jax.lax.scan(add, jnp.zeros((actions, states), dtype), (successors, jnp.swapaxes(chance, 0, 1)))
        return R + gamma * total.T

    return gather


def induced(mdp: MDP, policy: ArrayLike) -> MDP:
    """The process of one action that following a policy makes: R [S, 1] and P [S, 1, S] or chance [S, 1, K].

    `policy` is actions [S] or chances [S, A].
    """
    policy, dtype = jnp.asarray(policy), dtype_of(mdp)

    def follow(table: ArrayLike) -> Array:
        table = jnp.asarray(table, dtype)
        if policy.ndim == 1:
            return jnp.take_along_axis(table, policy.reshape(-1, *[1] * (table.ndim - 1)), axis=1)
        return jnp.einsum("sa,sa...->s...", policy.astype(dtype), table, precision="highest")[:, None]

    if isinstance(mdp, TabularMDP):
        return mdp._replace(P=follow(mdp.P), R=follow(mdp.R))
    return mdp._replace(chance=follow(mdp.chance), R=follow(mdp.R))


def matrix(mdp: MDP) -> Array:
    """P [S, S] of a process of one action, 0 in the rows and columns of terminal states."""
    alive = ~jnp.asarray(mdp.terminal)
    if isinstance(mdp, TabularMDP):
        P = jnp.asarray(mdp.P, dtype_of(mdp))[:, 0]
    else:
        states, chance = np.shape(mdp.next)[0], jnp.asarray(mdp.chance, dtype_of(mdp))[:, 0]
        P = jnp.zeros((states, states), chance.dtype).at[jnp.arange(states)[:, None], jnp.asarray(mdp.next)].add(chance)
    return jnp.where(alive[:, None] & alive[None], P, 0)


@jax.jit
def escape(mdp: MDP) -> tuple[Array, Array]:
    """Which states can reach a terminal one, bool [S], and in each an action that leads nearer to it, int32 [S].

    Following these actions ends every episode that starts in such a state with probability one.
    """
    terminal = jnp.asarray(mdp.terminal)
    arrives = lookahead(mdp._replace(R=jnp.zeros_like(mdp.R), terminal=jnp.zeros_like(terminal)), 1.0)

    def grow(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        ends, action, _ = state
        nearer = arrives(ends.astype(dtype_of(mdp))) > 0
        found = ~ends & jnp.any(nearer, axis=1)
        return ends | found, jnp.where(found, jnp.argmax(nearer, axis=1), action).astype(jnp.int32), jnp.any(found)

    first = (terminal, jnp.zeros(terminal.shape, jnp.int32), jnp.ones((), bool))
    ends, action, _ = jax.lax.while_loop(lambda state: state[2], grow, first)
    return ends, action


@jax.jit
def stuck(mdp: MDP, policy: ArrayLike | None) -> Array:
    """bool [S]: where rewards are earned from which no terminal state can be reached, following `policy` or any."""
    followed = mdp if policy is None else induced(mdp, policy)
    return ~escape(followed)[0] & jnp.any(jnp.asarray(followed.R) != 0, axis=1)
