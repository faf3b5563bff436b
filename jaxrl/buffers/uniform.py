"""Replay that draws every stored window with the same probability."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import storage
from jaxrl.types import Buffer, PyTree, Sample, Transition


def uniform(capacity: int, batch_size: int, num_envs: int, window: int = 1, stride: int = 1) -> Buffer:
    """A replay of the last ceil(capacity / num_envs) steps of every environment; draws are with replacement.

    Lin (1992), Mnih et al. (2015). All `batches` of a call come from one draw and one gather. Windows are
    complete: none spans the write head or reads a row never written; they may cross ends of episodes.
    Raises ValueError if an argument is < 1, if the rows are fewer than window + stride - 1, or if a step is
    added that is not like init's example.
    """
    ring = storage.make_ring("uniform", capacity, num_envs, window, stride)
    checks.at_least("uniform: batch_size", batch_size, 1)

    def init(step: Transition) -> PyTree:
        return storage.empty(ring, step)

    def add(state: PyTree, step: Transition, clock: Array) -> PyTree:
        return storage.write(ring, state, step, clock)

    def sample(state: PyTree, key: Array, clock: Array, batches: int = 1) -> Sample:
        storage.check_clock(ring, clock)
        checks.at_least("uniform: batches", batches, 1)
        shape = (batch_size,) if batches == 1 else (batches, batch_size)
        first, count = storage.starts(ring, clock)
        draw = jax.random.randint(key, shape, 0, count * num_envs, jnp.int32)
        start, env = (first + draw // num_envs) * stride, draw % num_envs
        return Sample(
            window=storage.read(ring, state, start, env),
            index=storage.name(ring, start, env),
            weight=jnp.ones(shape, jnp.float32),
        )

    def update(state: PyTree, index: Array, priority: Array) -> PyTree:
        del index, priority
        return state

    def fresh(state: PyTree, clock: Array, steps: int) -> Sample:
        return storage.fresh(ring, state, clock, steps)

    return Buffer(init, add, sample, update, fresh, min_steps=window)
