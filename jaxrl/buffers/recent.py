"""The last steps of every environment, as they came: what makes the loop on-policy."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import rings
from jaxrl.types import Buffer, Sample, Transition


def recent(window: int, num_envs: int) -> Buffer:
    """A buffer of the last `window` steps; a sample is all of it, B = num_envs, lane b is environment b.

    window=1 is online Q-learning, 2 SARSA, n n-step, a rollout PQN. `sample` ignores its key; weights
    are 1; `batches` > 1 repeats the same windows; `fresh` has only the newest (steps=1). Steps are kept as they
    came, both observations whole: each is learned from at once.
    Raises ValueError if window or num_envs < 1, or if a step is added that is not like init's example.
    """
    checks.at_least("recent: num_envs", num_envs, 1)
    checks.at_least("recent: window", window, 1)
    ring = rings.make_ring("recent", window * num_envs, num_envs, window)

    def empty(step: Transition) -> Transition:
        rings.check_lanes(ring, step)
        return jax.tree.map(lambda x: jnp.zeros((window, *x.shape), x.dtype), step)

    def add(state: Transition, step: Transition, clock: Array) -> Transition:
        rings.check_like(step, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state))
        return jax.tree.map(lambda leaf, x: rings.write_row(leaf, x, clock % window), state, step)

    def newest(state: Transition, clock: Array) -> Sample:
        head = clock % window
        in_order = (lambda x: x) if window == 1 else (lambda x: jnp.roll(x, -head, axis=0))
        steps = jax.tree.map(lambda x: jnp.moveaxis(in_order(x), 0, 1), state._replace(carry=()))
        return Sample(
            window=steps._replace(carry=jax.tree.map(lambda x: x[head], state.carry)),
            index=rings.name(ring, clock - window, jnp.arange(num_envs, dtype=jnp.int32)),
            weight=jnp.ones(num_envs, jnp.float32),
        )

    def sample(state: Transition, key: Array, clock: Array, batches: int = 1) -> Sample:
        del key
        rings.check_clock(ring, clock)
        checks.at_least("recent: batches", batches, 1)
        return rings.repeated(newest(state, clock), batches)

    def update(state: Transition, index: Array, priority: Array) -> Transition:
        del index, priority
        return state

    def fresh(state: Transition, clock: Array, steps: int) -> Sample:
        if steps != 1:
            raise ValueError(f"recent: fresh with steps={steps}, but only the newest window is held; use steps=1")
        lanes, known = newest(state, clock), clock >= window
        return lanes._replace(index=jnp.where(known, lanes.index, -1), weight=lanes.weight * known)

    def contents(state: Transition, clock: Array) -> Transition:
        steps = newest(state._replace(carry=()), clock).window
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[max(0, window - int(clock)) :], steps)

    init, nbytes = rings.allocator("recent", ring, empty)
    return Buffer(
        init=init,
        add=add,
        sample=sample,
        update=update,
        fresh=fresh,
        min_steps=window,
        capacity=window * num_envs,
        nbytes=nbytes,
        counts=lambda state: {},
        contents=contents,
    )
