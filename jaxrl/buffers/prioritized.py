"""Replay that draws windows in proportion to their priority, or to a power of its rank."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.experimental import checkify
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.buffers import rings, storage, sumtree
from jaxrl.types import Buffer, Sample, Schedule, Transition

EPS = 1e-6  # added to every priority, so that a window without error stays in the draw
LEAST, MOST = 1e-30, 1e30  # bounds of a mass: none vanishes in float32, and no sum of them overflows
VARIANTS = "proportional", "rank"


class PrioritizedState(NamedTuple):
    """A ring and the mass of each window in it."""

    store: storage.Store
    tree: sumtree.SumTree  # leaf s % C * N + e: the mass of the window from step s of environment e, 0 if not to draw
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
    beta: ArrayLike | Schedule = 0.4,
    stale_priorities: bool = False,
    *,
    variant: str = "proportional",
    crossing: bool = True,
    ends: float = rings.ENDS,
    stack: int = 1,
    carry: bool = True,
) -> Buffer:
    """A replay that draws window i with probability P(i) = m_i / sum m, where m = (priority + EPS)^alpha.

    Schaul et al. (2016), stratified: sec. 3.3, eq. 1, algorithm 1. With `variant` "rank" m = 1 / rank^alpha, 1 for
    the largest priority, by a sort of all C * N of them at each draw. The weight (n P(i))^-beta is divided by the
    largest of its batch; beta may be a schedule. New windows enter with the largest priority so far, 1 at first.
    `update` takes priorities >= 0 (say |TD error|): of duplicates the largest stays; one for a window that was
    overwritten meanwhile is dropped; one that is NaN, infinite or negative counts as the largest so far and in
    `counts`, is an error of `jax.experimental.checkify` there, and a ValueError outside of jit.
    alpha and beta may be traced. Several `batches` in one draw all see the priorities from before their first
    update: allowed with stale_priorities=True only. While no window may be drawn (see `uniform` for `crossing`,
    `ends`, `stack` and `carry`), weights are 0 and indices -1.
    Raises ValueError as `uniform` does, and if alpha < 0, beta is outside [0, 1], the variant is unknown, or
    batches > 1 without stale_priorities.
    """
    ring = rings.make_ring(
        "prioritized", capacity, num_envs, window, stride, crossing=crossing, ends=ends, stack=stack, carry=carry
    )
    checks.at_least("prioritized: batch_size", batch_size, 1)
    checks.in_range("prioritized: alpha", alpha, 0, math.inf, open_high=True)
    checks.one_of("variant of prioritized", variant, VARIANTS)
    if not callable(beta):
        checks.in_range("prioritized: beta", beta, 0, 1)
    leaves, ranked = ring.steps * num_envs, variant == "rank"

    def empty(step: Transition) -> PrioritizedState:
        tree = sumtree.zeros(leaves)
        return PrioritizedState(
            store=storage.empty(ring, step),
            tree=tree[:1] if ranked else tree,
            largest=jnp.ones((), jnp.float32),
            clock=jnp.zeros((), jnp.int32),
            invalid=jnp.zeros((), jnp.int32),
        )

    def add(state: PrioritizedState, step: Transition, clock: Array) -> PrioritizedState:
        start = clock - window + 1  # of the windows that this step completes
        store = storage.write(ring, state.store, step, clock)
        enters = storage.usable_lanes(ring, store, start) & (start >= 0) & (start % stride == 0)
        entry = jnp.where(enters, state.largest, 0)
        tree = state.tree
        if window > 1:  # the window that began with the step overwritten
            tree = sumtree.set_block(tree, clock % ring.steps * num_envs, jnp.zeros_like(entry))
        tree = sumtree.set_block(tree, start % ring.steps * num_envs, entry)
        return state._replace(store=store, tree=tree, clock=jnp.asarray(clock + 1, jnp.int32))

    def sample(state: PrioritizedState, key: Array, clock: Array, batches: int = 1) -> Sample:
        rings.check_clock(ring, clock)
        checks.at_least("prioritized: batches", batches, 1)
        if batches > 1 and not stale_priorities:
            raise ValueError(
                f"prioritized: batches={batches} in one draw must be 1, or later batches miss the priorities "
                "that earlier ones set; sample one at a time or set stale_priorities=True"
            )
        shape = (batch_size,) if batches == 1 else (batches, batch_size)
        unit, dither = jax.random.uniform(key, (2, *shape))
        if ranked:
            order, tree = _ranks(state.tree[0], alpha)
            drawn, mass = sumtree.draw(tree, unit, dither)
            drawn = order.at[drawn].get(mode="promise_in_bounds")
        else:
            drawn, mass = sumtree.draw(state.tree, unit, dither)
        known = mass > 0  # all, unless nothing may be drawn
        row, env = rings.unsigned_divmod(rings.once(drawn), num_envs)
        start = rings.newest(ring, row, clock)
        mass = jnp.where(known, mass, 1)
        share = jnp.min(mass, axis=-1, keepdims=True) / mass  # n and sum m cancel
        now = beta(clock.astype(jnp.float32) * num_envs) if callable(beta) else jnp.asarray(beta, jnp.float32)
        return Sample(
            window=storage.read(ring, state.store, start, env),
            index=jnp.where(known, rings.name(ring, start, env), -1),
            weight=jnp.where(known, share**now, 0),
        )

    def update(state: PrioritizedState, index: Array, priority: Array) -> PrioritizedState:
        chex.assert_equal_shape([index, priority])
        row, env, alive = rings.locate(ring, index, state.clock)
        valid = jnp.isfinite(priority) & (priority >= 0)
        _refuse(priority, valid | (index < 0))
        mass = (jnp.where(valid, priority, 0) + EPS).astype(jnp.float32)
        mass = mass if ranked else mass ** jnp.asarray(alpha, jnp.float32)
        mass = jnp.where(valid, jnp.clip(mass, LEAST, MOST), state.largest)
        return state._replace(
            tree=sumtree.set_leaves(state.tree, row * num_envs + env, mass, alive),
            largest=jnp.maximum(state.largest, jnp.max(jnp.where(alive, mass, 0))),
            invalid=state.invalid + jnp.sum(~valid & (index >= 0), dtype=jnp.int32),
        )

    def fresh(state: PrioritizedState, clock: Array, steps: int) -> Sample:
        return storage.fresh(ring, state.store, clock, steps)

    init, nbytes = rings.allocator("prioritized", ring, empty)
    return Buffer(
        init=init,
        add=add,
        sample=sample,
        update=update,
        fresh=fresh,
        min_steps=window,
        capacity=leaves,
        nbytes=nbytes,
        counts=lambda state: storage.counts(state.store) | {"invalid": state.invalid},
        contents=lambda state, clock: storage.contents(ring, state.store, clock),
        ahead=stale_priorities,
    )


def _ranks(mass: Array, alpha: ArrayLike) -> tuple[Array, sumtree.SumTree]:
    """(order, tree): the places of mass [M], largest first, and a tree of 1 / rank^alpha over the positive ones."""
    order = jnp.argsort(mass, descending=True, stable=True)
    rank = jnp.arange(mass.size, dtype=jnp.float32)
    share = jnp.where(rank < jnp.sum(mass > 0), (rank + 1) ** -jnp.asarray(alpha, jnp.float32), 0)
    return order, sumtree.set_block(sumtree.zeros(mass.size), jnp.int32(0), share)


def _refuse(priority: Array, right: Array) -> None:
    """A ValueError that names the first priority that is not `right`; under jit only where checkify sees it."""
    text = "prioritized: priority {0} must be finite and at least 0, as |TD error| is; look for what diverged"
    first = jnp.ravel(priority)[jnp.argmin(jnp.ravel(right))]
    if isinstance(right, Tracer):
        checkify.debug_check(jnp.all(right), text.replace("{0}", "{value}"), value=first)
    elif not np.all(right):
        raise ValueError(text.format(first))
