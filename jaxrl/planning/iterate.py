"""Sweeps to a fixed point: how far it may still be, when to stop, what is returned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl.planning import inputs

LIMIT = 100_000
# Only rounding is left after so many sweeps that change no less than one before, and so many last places at most.
_STALE, _PLACES = 4, 16
# So many sweeps in turn are one loop: XLA would else compute the last anew for whatever looks at its result.
_CHECKED = 4
Sweep = Callable[[Array], Array]


class Plan(NamedTuple):
    """What a planner found."""

    values: Array  # [S], 0 in terminal states
    q: Array  # [S, A], 0 in terminal states
    policy: Array  # int32 [S], greedy in q
    residual: Array  # [], the most that one more sweep changes
    iterations: Array  # int32 []: sweeps, or improvements of the policy
    converged: Array  # bool []


class _State(NamedTuple):
    x: Array  # where to go on from
    best: Array  # the estimate
    error: Array  # [], its distance to the fixed point at most
    size: Array  # [], the largest change of the last sweep
    rate: Array  # [], that by the one before it
    least: Array  # [], the least uncertain change so far
    stale: Array  # int32 []: sweeps since then, while changes are mere rounding
    sweeps: Array  # int32 []


def to_fixed_point(
    sweep: Sweep,
    x: Array,
    modulus: ArrayLike,
    tolerance: ArrayLike,
    limit: int,
    operator: Sweep | None = None,
    steps: int = 1,
) -> tuple[Array, Array, Array]:
    """Repeats `sweep` from `x` until the estimate is within `tolerance`: (estimate, sweeps, whether it got there).

    The operator T must be monotone with T(x + c) <= T x + m c, m the modulus, as means and maxima over successors
    are. With d = T x - x the fixed point is then between T x + m/(1-m) min d and T x + m/(1-m) max d (MacQueen 1966;
    Porteus 1971; Puterman 1994, section 6.6.3); where d has one sign everywhere the estimate is their middle. At m = 1
    the distance is judged from the observed rate of contraction, the slower of two sweeps. It also stops where only
    rounding is left. `sweep` is T itself, or where `operator` is T goes further, as far as `steps` applications of it.
    Under vmap, what is done stays as it is while others go on.
    """
    dtype = x.dtype
    modulus, tolerance = jnp.asarray(modulus, dtype), jnp.asarray(tolerance, dtype)
    reach = _series(modulus)

    def once(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return sweep(carry[0]), carry[0]

    def body(state: _State) -> _State:
        onward, x = jax.lax.fori_loop(0, _CHECKED, once, (state.x, state.x))
        new = onward if operator is None else operator(x)
        low, high = jnp.min(new - x), jnp.max(new - x)
        size = jnp.maximum(high, -low)
        rate = jnp.where(jnp.isfinite(state.size), (size / state.size) ** (1 / (_CHECKED * steps)), 1)
        together = (modulus < 1) & ((low > 0) | (high < 0))  # never where a state is terminal
        shift = jnp.where(together, reach * (low + high) / 2, 0)
        width = jnp.where(together, (high - low) / 2, size)
        longer = jnp.where(modulus < 1, reach, _series(jnp.maximum(rate, state.rate)))
        error = jnp.where(width > 0, width * longer, width)
        rounding = width <= _PLACES * jnp.finfo(dtype).eps * jnp.max(jnp.abs(new))
        stale = state.stale + (rounding & (width >= state.least))
        least = jnp.minimum(width, state.least)
        onward = onward + modulus ** (steps - 1) * shift
        return _State(onward, new + shift, error, size, rate, least, stale, state.sweeps + _CHECKED)

    def going(state: _State) -> Array:
        return (state.error > tolerance) & (state.stale < _STALE)

    infinite, none = jnp.full((), jnp.inf, dtype), jnp.zeros((), jnp.int32)
    first = _State(x, x, infinite, infinite, jnp.ones((), dtype), infinite, none, none)
    last = jax.lax.while_loop(lambda state: going(state) & (state.sweeps < limit), body, first)
    return last.best, last.sweeps, ~going(last) & jnp.isfinite(last.size)


def finish(values: Array, q: Array, residual: Array, iterations: Array, converged: Array, tolerance: ArrayLike) -> Plan:
    """A `Plan`, converged only where its true residual is small too."""
    rounding = 64 * jnp.finfo(q.dtype).eps * jnp.max(jnp.abs(q))
    converged = converged & (residual <= jnp.maximum(2 * jnp.asarray(tolerance, q.dtype), rounding))
    return Plan(values, q, jnp.argmax(q, axis=1).astype(jnp.int32), residual, iterations, converged)


def require(plan: Plan, name: str, limit: int) -> Plan:
    """The plan. Raises ValueError where it is concrete and did not converge."""
    if inputs.concrete(plan) and not np.asarray(plan.converged).all():
        residual, iterations = float(np.max(plan.residual)), int(np.max(plan.iterations))
        raise ValueError(
            f"{name} did not converge: residual {residual:.3g} after {iterations} iterations of at most {limit}; raise "
            "limit or tolerance, or use gamma below 1 where rewards may add up for ever"
        )
    return plan


def _series(rate: Array) -> Array:
    """rate + rate^2 + ..., infinite from 1 on."""
    return jnp.where(rate < 1, rate / jnp.where(rate < 1, 1 - rate, 1), jnp.inf)
