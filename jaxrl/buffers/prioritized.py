"""Replay that draws windows in proportion to their priority."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.buffers import storage
from jaxrl.types import Buffer, PyTree, Sample, Transition

EPS = 1e-6  # added to every priority, so that a window without error stays in the draw
LEAST, MOST = 1e-30, 1e30  # bounds of a mass: none vanishes in float32, and no sum of them overflows


class PrioritizedState(NamedTuple):
    """A ring and the mass of each start in it."""

    store: PyTree  # the ring, [C, N, ...]
    mass: Array  # [C, N] float32: (priority + EPS)^alpha of the window that starts there, else 0
    largest: Array  # [] float32: the largest mass so far, with which new windows enter
    clock: Array  # [] int32: that after the last add; only to tell windows that were overwritten meanwhile
    invalid: Array  # [] int32: priorities so far that were NaN, infinite or negative


def prioritized(
    capacity: int,
    batch_size: int,
    num_envs: int,
    window: int = 1,
    stride: int = 1,
    alpha: ArrayLike = 0.6,
    beta: ArrayLike = 0.4,
    stale_priorities: bool = False,
    *,
    crossing: bool = True,
    ends: float = storage.ENDS,
    stack: int = 1,
    carry: bool = True,
) -> Buffer:
    """A replay that draws window i with probability P(i) = m_i / sum m, where m = (priority + EPS)^alpha.

    Schaul et al. (2016), proportional and stratified: sec. 3.3, eq. 1, algorithm 1. The weight (n P(i))^-beta
    is divided by the largest of its batch. New windows enter with the largest mass so far, 1 at first.
    `update` takes priorities >= 0 (say |TD error|): one that is NaN, infinite or negative counts as the
    largest and in `state.invalid`; of duplicates the largest stays; one for a window that was overwritten
    meanwhile is dropped. alpha and beta may be traced. Several `batches` in one draw all see the priorities
    from before their first update: allowed with stale_priorities=True only.
    Raises ValueError as `uniform` does, and if alpha < 0, beta is outside [0, 1], or batches > 1 without
    stale_priorities.
    """
    ring = storage.make_ring(
        "prioritized", capacity, num_envs, window, stride, crossing=crossing, ends=ends, stack=stack, carry=carry
    )
    checks.at_least("prioritized: batch_size", batch_size, 1)
    checks.in_range("prioritized: alpha", alpha, 0, math.inf, open_high=True)
    checks.in_range("prioritized: beta", beta, 0, 1)

    def init(step: Transition) -> PrioritizedState:
        return PrioritizedState(
            store=storage.empty(ring, step),
            mass=jnp.zeros((ring.steps, num_envs), jnp.float32),
            largest=jnp.ones((), jnp.float32),
            clock=jnp.zeros((), jnp.int32),
            invalid=jnp.zeros((), jnp.int32),
        )

    def add(state: PrioritizedState, step: Transition, clock: Array) -> PrioritizedState:
        start = clock - window + 1  # of the windows that this step completes
        enters = (start >= 0) & (start % stride == 0)
        mass = storage.write_row(state.mass, jnp.zeros(num_envs, jnp.float32), clock % ring.steps)
        store = storage.write(ring, state.store, step, clock)
        enters &= storage.usable_lanes(ring, store, start)
        entry = jnp.where(enters, state.largest, 0)
        return state._replace(
            store=store,
            mass=storage.write_row(mass, entry, start % ring.steps),
            clock=jnp.asarray(clock + 1, jnp.int32),
        )

    def sample(state: PrioritizedState, key: Array, clock: Array, batches: int = 1) -> Sample:
        storage.check_clock(ring, clock)
        checks.at_least("prioritized: batches", batches, 1)
        if batches > 1 and not stale_priorities:
            raise ValueError(
                f"prioritized: batches={batches} in one draw must be 1, or later batches miss the priorities "
                "that earlier ones set; sample one at a time or set stale_priorities=True"
            )
        shape = (batch_size,) if batches == 1 else (batches, batch_size)
        mass = state.mass.reshape(-1)
        drawn = _draw(mass, jax.random.uniform(key, shape))
        row, env = drawn // num_envs, drawn % num_envs
        start = clock - 1 - (clock - 1 - row) % ring.steps
        lightest = jnp.min(mass[drawn], axis=-1, keepdims=True)
        return Sample(
            window=storage.read(ring, state.store, start, env),
            index=storage.name(ring, start, env),
            weight=(lightest / mass[drawn]) ** jnp.asarray(beta, jnp.float32),  # n and sum m cancel
        )

    def update(state: PrioritizedState, index: Array, priority: Array) -> PrioritizedState:
        chex.assert_equal_shape([index, priority])
        row, env, alive = storage.locate(ring, index, state.clock)
        valid = jnp.isfinite(priority) & (priority >= 0)
        mass = (jnp.where(valid, priority, 0) + EPS).astype(jnp.float32) ** jnp.asarray(alpha, jnp.float32)
        mass = jnp.where(valid, jnp.clip(mass, LEAST, MOST), state.largest)
        row = jnp.where(alive, row, ring.steps)  # outside: dropped
        cleared = state.mass.at[row, env].set(0, mode="drop")  # then max: duplicates in any order
        return state._replace(
            mass=cleared.at[row, env].max(mass, mode="drop"),
            largest=jnp.maximum(state.largest, jnp.max(jnp.where(alive, mass, 0))),
            invalid=state.invalid + jnp.sum(~valid & (index >= 0), dtype=jnp.int32),
        )

    def fresh(state: PrioritizedState, clock: Array, steps: int) -> Sample:
        return storage.fresh(ring, state.store, clock, steps)

    init, nbytes = storage.allocator("prioritized", ring, init)
    return Buffer(
        init,
        add,
        sample,
        update,
        fresh,
        window,
        nbytes,
        lambda state: storage.counts(state.store) | {"invalid": state.invalid},
        lambda state, clock: storage.contents(ring, state.store, clock),
        ahead=stale_priorities,
    )


def _draw(mass: Array, unit: Array) -> Array:
    """The index of mass [M] on which each of unit [..., B] in [0, 1) falls; each of the B has its stratum.

    A zero mass is never drawn: its sum is set to that before it, since rounding could make it larger, and u
    stays below the total.
    """
    sums = jax.lax.cummax(jnp.where(mass > 0, jnp.cumsum(mass), 0))
    strata = unit.shape[-1]
    quantile = (jnp.broadcast_to(jnp.arange(strata), unit.shape) + unit) / strata
    u = jnp.minimum(quantile * sums[-1], jnp.nextafter(sums[-1], jnp.zeros_like(sums[-1])))
    return jnp.searchsorted(sums, u, side="right").astype(jnp.int32)
