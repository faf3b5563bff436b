"""The newest windows of a replay, in order."""

import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import rings, storage
from jaxrl.types import Buffer, Sample


def latest(batch_size: int, num_envs: int, window: int = 1, stride: int = 1) -> Buffer:
    """A buffer whose sample is the `batch_size` newest windows, the newest first; it ignores its key.

    Place j is environment j % num_envs. Where there are fewer yet, the last places have weight 0 and index -1.
    `batches` > 1 repeats them. Raises ValueError as `uniform` does.
    """
    checks.at_least("latest: batch_size", batch_size, 1)
    checks.at_least("latest: num_envs", num_envs, 1)
    checks.at_least("latest: window", window, 1)
    checks.at_least("latest: stride", stride, 1)
    starts = -(-batch_size // num_envs)  # in every environment
    ring = rings.make_ring("latest", (window + starts * stride - 1) * num_envs, num_envs, window, stride)

    def sample(state: storage.Store, key: Array, clock: Array, batches: int = 1) -> Sample:
        del key
        rings.check_clock(ring, clock)
        checks.at_least("latest: batches", batches, 1)
        back, env = jnp.divmod(jnp.arange(batch_size, dtype=jnp.int32), num_envs)
        number = (clock - window) // stride - back
        newest = storage.sample(ring, state, jnp.maximum(number, 0) * stride, env, number >= 0)
        return rings.repeated(newest, batches)

    return storage.buffer("latest", ring, sample, window)
