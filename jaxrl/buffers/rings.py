"""What all rings share: time-major rows, named by the number of the step that wrote them.

A step's number is the `clock` of the add that wrote it; step s of every environment lies in row s % R, so a write is
one contiguous slice update. After `clock` adds the steps max(0, clock - C) to clock - 1 are held, and a window is
complete if all of its steps are among these.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxrl import checks, memory
from jaxrl.types import PyTree, Sample, Transition

ENDS = 1 / 8  # places for final observations, as a share of the steps held: enough for random play of most games


class Ring(NamedTuple):
    """The static sizes of a ring; `make_ring` checks them."""

    steps: int  # C, of every environment
    num_envs: int  # N
    window: int = 1  # T
    stride: int = 1  # windows start at steps that are multiples of it
    finals: int | None = None  # K, places in the side store; None: next_obs has a ring of its own
    stack: int = 1  # frames that an observation is made of
    crossing: bool = True  # whether a window may run on after an episode's end
    carry: bool = True  # whether the agent's carry is kept

    @property
    def rows(self) -> int:
        """R: the steps held, the row ahead, and the frames that the oldest step's stack needs."""
        return self.steps + self.stack

    @property
    def numbers(self) -> int:
        """Names of windows count steps modulo this, a multiple of C: at least two rounds of the ring."""
        return (2**31 - 1) // (self.steps * self.num_envs) * self.steps


def make_ring(
    buffer: str,
    capacity: int,
    num_envs: int,
    window: int = 1,
    stride: int = 1,
    *,
    crossing: bool = True,
    ends: float = 1.0,
    stack: int = 1,
    carry: bool = True,
) -> Ring:
    """A ring of ceil(capacity / num_envs) steps; ValueError if it cannot hold a window at every moment.

    `ends` is the side store's size as a share of the steps held, one row at least: make it the largest share of
    steps that end an episode, or 1 to store both observations of every step. With `stack` = k, observations are k
    frames on their last axis, the newest last and the first repeated where an episode begins (`frame_stack`'s form);
    one of them is stored. Without `carry` the agent's memory is left out.
    """
    checks.at_least(f"{buffer}: capacity", capacity, 1)
    checks.at_least(f"{buffer}: num_envs", num_envs, 1)
    checks.at_least(f"{buffer}: window", window, 1)
    checks.at_least(f"{buffer}: stride", stride, 1)
    checks.at_least(f"{buffer}: stack", stack, 1)
    checks.in_range(f"{buffer}: ends", ends, 0, 1)
    steps = -(-capacity // num_envs)
    needed = window + stride - 1  # the longest stretch that may be needed to hold a whole window
    if steps < needed:
        raise ValueError(
            f"{buffer}: capacity={capacity} is {steps} rows of num_envs={num_envs}, but window={window} and "
            f"stride={stride} need {needed} rows; raise capacity to {needed * num_envs} or shorten the window"
        )
    if (steps + stack) * num_envs >= 2**30:
        raise ValueError(f"{buffer}: capacity={capacity} must be < 2**30, the most an int32 index can name; lower it")
    finals = max(math.ceil(ends * steps * num_envs), num_envs)
    both = finals >= steps * num_envs
    return Ring(steps, num_envs, window, stride, None if both else finals, stack, crossing, carry)


def allocator(
    buffer: str, ring: Ring, empty: Callable[[Transition], PyTree]
) -> tuple[Callable[[Transition], PyTree], Callable[[Transition], int]]:
    """(init, nbytes) of a buffer; init raises ValueError, before it allocates, where memory does not suffice."""

    def nbytes(step: Transition) -> int:
        return memory.bytes_of(jax.eval_shape(empty, step))

    def init(step: Transition) -> PyTree:
        held, needed = ring.steps * ring.num_envs, nbytes(step)
        memory.require(f"{buffer}: capacity={held}", needed, f"; a transition takes {needed / held:.1f}: lower it")
        return empty(step)

    return init, nbytes


def starts(ring: Ring, clock: Array) -> tuple[Array, Array]:
    """(first, count): the complete windows start at (first + i) * stride, i < count, in every environment."""
    first = -(-jnp.maximum(clock - ring.steps, 0) // ring.stride)
    last = (clock - ring.window) // ring.stride
    return first, last - first + 1


def newest(ring: Ring, row: Array, clock: Array) -> Array:
    """The last step whose number is `row` modulo C, of those before `clock`."""
    last = (clock - 1) % ring.steps
    return clock - 1 - last + row - jnp.where(row > last, ring.steps, 0)


def name(ring: Ring, start: Array, env: Array) -> Array:
    """The int32 index of the window that starts at step `start`; a row's next window has another."""
    return unsigned_divmod(start, ring.numbers)[1] * ring.num_envs + env


def locate(ring: Ring, index: Array, clock: Array) -> tuple[Array, Array, Array]:
    """(start % C, env, alive) of a name; alive: its window is complete after `clock` adds and not overwritten."""
    number, env = unsigned_divmod(index, ring.num_envs)
    age = clock % ring.numbers - number
    age = jnp.where(age < 0, age + ring.numbers, age)
    return unsigned_divmod(number, ring.steps)[1], env, (index >= 0) & (age >= ring.window) & (age <= ring.steps)


def place(ring: Ring, number: Array, lane: Array) -> Array:
    return row_of(ring, number) * ring.num_envs + lane


def row_of(ring: Ring, number: Array) -> Array:
    # A number from before the first step gives some row, of which nothing is used.
    return unsigned_divmod(number, ring.rows)[1]


def count(start: Array, low: int, high: int) -> Array:
    """start + [low, ..., high - 1] on a new last axis."""
    return start[..., None] + low + jax.lax.broadcasted_iota(jnp.int32, (*start.shape, high - low), start.ndim)


def unsigned_divmod(x: Array, by: int) -> tuple[Array, Array]:
    """(x // by, x % by) of int32 x >= 0, as the one operation each that XLA needs where there is no sign."""
    x, divisor = jnp.asarray(x, jnp.uint32), jnp.uint32(by)
    return jax.lax.div(x, divisor).astype(jnp.int32), jax.lax.rem(x, divisor).astype(jnp.int32)


def once(index: Array) -> Array:
    """`index` as it is, by a scatter, which XLA does not fuse: else it is computed again for every number gathered."""
    flat = index.reshape(-1)
    here = jnp.arange(flat.size, dtype=jnp.uint32)
    scattered = jnp.zeros_like(flat).at[here].set(flat, mode="promise_in_bounds", unique_indices=True)
    return scattered.reshape(index.shape)


def write_at(leaf: Array, rows: Array, at: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(leaf, rows, at, axis=0)


def write_row(leaf: Array, row: Array, i: Array) -> Array:
    """Sets leaf[i] = row for an index within bounds: a slice update, not a scatter, also under vmap."""
    return write_at(leaf, row[None], i)


def repeated(sample: Sample, batches: int) -> Sample:
    """The same windows `batches` times, on a leading axis where that is not 1."""
    return sample if batches == 1 else jax.tree.map(lambda x: jnp.broadcast_to(x, (batches, *x.shape)), sample)


def check_clock(ring: Ring, clock: Array, min_steps: int | None = None) -> None:
    """Raises ValueError if the ring holds too little yet; a traced clock passes."""
    least = ring.window if min_steps is None else min_steps
    if not isinstance(clock, Tracer) and int(clock) < least:
        raise ValueError(f"Buffer.sample: clock={clock} must be at least min_steps={least}; add more steps before")


def check_lanes(ring: Ring, step: Transition) -> None:
    """Raises ValueError if a leaf of `step` has not N rows."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(step):
        if leaf.shape[:1] != (ring.num_envs,):
            raise ValueError(
                f"Buffer.init: step{jax.tree_util.keystr(path)} has shape {leaf.shape}, but its first axis "
                f"must be num_envs={ring.num_envs}; build the buffer with the number of environments you step"
            )


def check_like(step: Transition, like: Transition) -> None:
    """Raises ValueError if a step differs in structure, shape or dtype from those that a buffer was made for."""
    if jax.tree.structure(step) != jax.tree.structure(like):
        raise ValueError(
            f"Buffer.add: step is {jax.tree.structure(step)}, but init was given "
            f"{jax.tree.structure(like)}; init the buffer with an example of what you add"
        )
    paths = jax.tree_util.tree_leaves_with_path(step)
    for (path, x), wanted in zip(paths, jax.tree.leaves(like), strict=True):
        if (x.shape, x.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"Buffer.add: step{jax.tree_util.keystr(path)} is {x.dtype}{list(x.shape)}, but init was "
                f"given {wanted.dtype}{list(wanted.shape)}; init the buffer with an example of what you add"
            )
