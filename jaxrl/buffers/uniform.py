"""Replay that draws every stored window with the same probability."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import rings, storage
from jaxrl.buffers.prioritized import prioritized
from jaxrl.types import Buffer, Sample


def uniform(
    capacity: int,
    batch_size: int,
    num_envs: int,
    window: int = 1,
    stride: int = 1,
    *,
    crossing: bool = True,
    replace: bool = True,
    ends: float = rings.ENDS,
    stack: int = 1,
    carry: bool = True,
) -> Buffer:
    """A replay of the last ceil(capacity / num_envs) steps of every environment, drawn uniformly.

    Lin (1992), Mnih et al. (2015). All `batches` of a call come from one draw and one gather; without `replace` no
    window is twice in a batch. Steps are added as an environment makes them: next_obs is the obs of its next add unless
    the episode ended, and is stored as that. Windows are complete: none spans the write head or reads a row never
    written. They run on over the ends of episodes unless `crossing` is False. `ends`, `stack` and `carry` are about
    memory: see `rings.make_ring`. Weights are 1, but 0 for a window with a truncation whose final observation was lost.
    Raises ValueError if a size is < 1, if the steps held are fewer than window + stride - 1 or cannot fill a batch
    without replacement, if memory does not suffice, or if a step is added that is not like init's example.
    """
    ring = rings.make_ring(
        "uniform", capacity, num_envs, window, stride, crossing=crossing, ends=ends, stack=stack, carry=carry
    )
    checks.at_least("uniform: batch_size", batch_size, 1)
    if not crossing:  # a choice among few: a tree of masses finds them, here all alike
        if not replace:
            raise ValueError("uniform: replace=False needs crossing=True; leave one of the two as it is")
        options = {"crossing": False, "ends": ends, "stack": stack, "carry": carry, "stale_priorities": True}
        return prioritized(capacity, batch_size, num_envs, window, stride, alpha=0.0, beta=0.0, **options)
    min_steps = window
    if not replace:
        starts = -(-batch_size // num_envs)  # in every environment
        min_steps, needed = window + (starts - 1) * stride, window + starts * stride - 1
        if ring.steps < needed:
            raise ValueError(
                f"uniform: capacity={capacity} cannot fill batch_size={batch_size} without replacement; raise "
                f"capacity to {needed * num_envs}, shrink the batch or set replace=True"
            )

    def sample(state: storage.Store, key: Array, clock: Array, batches: int = 1) -> Sample:
        rings.check_clock(ring, clock, min_steps)
        checks.at_least("uniform: batches", batches, 1)
        shape = (batch_size,) if batches == 1 else (batches, batch_size)
        first, count = rings.starts(ring, clock)
        drawn = (_drawn if replace else _distinct)(key, shape, count * num_envs)
        number, env = rings.unsigned_divmod(drawn, num_envs)
        return storage.sample(ring, state, (first + number) * stride, env)

    return storage.buffer("uniform", ring, sample, min_steps)


def _drawn(key: Array, shape: tuple[int, ...], number: Array) -> Array:
    return rings.once(jax.random.randint(key, shape, 0, number, jnp.int32))


def _distinct(key: Array, shape: tuple[int, ...], number: Array) -> Array:
    """`_drawn`, again wherever an earlier place of the batch has the same: by symmetry every set is as likely.

    Where there are fewer numbers than places, what is drawn first stays.
    """

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, drawn, twice = state
        key, draw_key = jax.random.split(key)
        drawn = jnp.where(twice, _drawn(draw_key, shape, number), drawn)
        return key, drawn, _repeated(drawn)

    start = key, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool)
    enough = number >= shape[-1]
    return jax.lax.while_loop(lambda state: jnp.any(state[2]) & (enough | jnp.all(state[2])), again, start)[1]


def _repeated(drawn: Array) -> Array:
    """Whether an earlier place of the last axis holds the same number."""
    order = jnp.argsort(drawn, axis=-1, stable=True)
    ranked = jnp.take_along_axis(drawn, order, axis=-1)
    same = jnp.pad(ranked[..., 1:] == ranked[..., :-1], [(0, 0)] * (drawn.ndim - 1) + [(1, 0)])
    return jnp.put_along_axis(jnp.zeros(drawn.shape, bool), order, same, axis=-1, inplace=False)
