"""The last steps of every environment, as they came: what makes the loop on-policy."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import storage
from jaxrl.types import Buffer, PyTree, Sample, Transition


def recent(window: int, num_envs: int) -> Buffer:
    """A buffer of the last `window` steps; a sample is all of it, B = num_envs, lane b is environment b.

    window=1 is online Q-learning, 2 SARSA, n n-step, a rollout PQN. `sample` ignores its key; weights
    are 1; `batches` > 1 repeats the same windows; `fresh` has only the newest (steps=1).
    Raises ValueError if window or num_envs < 1, or if a step is added that is not like init's example.
    """
    checks.at_least("recent: num_envs", num_envs, 1)
    checks.at_least("recent: window", window, 1)
    ring = storage.make_ring("recent", window * num_envs, num_envs, window)

    def init(step: Transition) -> PyTree:
        return storage.empty(ring, step)

    def add(state: PyTree, step: Transition, clock: Array) -> PyTree:
        return storage.write(ring, state, step, clock)

    def sample(state: PyTree, key: Array, clock: Array, batches: int = 1) -> Sample:
        del key
        storage.check_clock(ring, clock)
        checks.at_least("recent: batches", batches, 1)
        lanes = Sample(
            window=storage.read_latest(ring, state, clock),
            index=storage.name(ring, clock - window, jnp.arange(num_envs, dtype=jnp.int32)),
            weight=jnp.ones(num_envs, jnp.float32),
        )
        if batches == 1:
            return lanes
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batches, *x.shape)), lanes)

    def update(state: PyTree, index: Array, priority: Array) -> PyTree:
        del index, priority
        return state

    def fresh(state: PyTree, clock: Array, steps: int) -> Sample:
        return storage.fresh(ring, state, clock, steps)

    return Buffer(init, add, sample, update, fresh, min_steps=window)
