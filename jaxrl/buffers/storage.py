"""The one layout that every buffer shares: a time-major ring [C, N, ...] for each leaf of a Transition.

Buffers know the ring through the functions below only. Steps are named by their number, the `clock` of the
add that wrote them; step s of every environment lies in row s % C, so a write is one contiguous slice update.
After `clock` adds the ring holds the steps max(0, clock - C) to clock - 1, and a window is complete if all of
its steps are among these.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxrl import checks
from jaxrl.types import PyTree, Sample, Transition

Store = PyTree  # secret: whatever `empty` returns


class Ring(NamedTuple):
    """The static sizes of a ring; `make_ring` checks them."""

    rows: int  # C
    num_envs: int  # N
    window: int  # T
    stride: int  # windows start at steps that are multiples of it

    @property
    def numbers(self) -> int:
        """Names of windows count steps modulo this, a multiple of C: at least two rounds of the ring."""
        return (2**31 - 1) // (self.rows * self.num_envs) * self.rows


def make_ring(buffer: str, capacity: int, num_envs: int, window: int = 1, stride: int = 1) -> Ring:
    """A ring of ceil(capacity / num_envs) rows; ValueError if it cannot hold a window at every moment."""
    checks.at_least(f"{buffer}: capacity", capacity, 1)
    checks.at_least(f"{buffer}: num_envs", num_envs, 1)
    checks.at_least(f"{buffer}: window", window, 1)
    checks.at_least(f"{buffer}: stride", stride, 1)
    rows = -(-capacity // num_envs)
    needed = window + stride - 1  # the longest stretch that may be needed to hold a whole window
    if rows < needed:
        raise ValueError(
            f"{buffer}: capacity={capacity} is {rows} rows of num_envs={num_envs}, but window={window} and "
            f"stride={stride} need {needed} rows; raise capacity to {needed * num_envs} or shorten the window"
        )
    if rows * num_envs >= 2**30:
        raise ValueError(f"{buffer}: capacity={capacity} must be < 2**30, the most an int32 index can name; lower it")
    return Ring(rows, num_envs, window, stride)


def empty(ring: Ring, step: Transition) -> Store:
    """A ring of zeros for steps like `step` [N, ...]; ValueError if a leaf has not N rows."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(step):
        if leaf.shape[:1] != (ring.num_envs,):
            raise ValueError(
                f"Buffer.init: step{jax.tree_util.keystr(path)} has shape {leaf.shape}, but its first axis "
                f"must be num_envs={ring.num_envs}; build the buffer with the number of environments you step"
            )
    return jax.tree.map(lambda x: jnp.zeros((ring.rows, *x.shape), x.dtype), step)


def write(ring: Ring, store: Store, step: Transition, clock: Array) -> Store:
    """Writes step [N, ...] as number `clock`, in place; ValueError if it is not like `empty`'s example."""
    _check_like(store, step)
    return jax.tree.map(lambda ring_leaf, x: write_row(ring_leaf, x, clock % ring.rows), store, step)


def write_row(leaf: Array, row: Array, i: Array) -> Array:
    """Sets leaf[i] = row for an index within bounds: a slice update, not a scatter, also under vmap."""
    return jax.lax.dynamic_update_slice_in_dim(leaf, row[None], i, axis=0)


def read(ring: Ring, store: Store, start: Array, env: Array) -> Transition:
    """The windows that start at steps `start` of environments `env`: [...] gives leaves [..., T, ...]."""
    offset = jax.lax.broadcasted_iota(jnp.int32, (*start.shape, ring.window), start.ndim)
    rows = (start[..., None] + offset) % ring.rows
    lanes = jnp.broadcast_to(env[..., None], rows.shape)
    window = jax.tree.map(_take(rows, lanes), store._replace(carry=()))
    return window._replace(carry=jax.tree.map(_take(rows[..., 0], env), store.carry))


def read_latest(ring: Ring, store: Store, clock: Array) -> Transition:
    """The last C steps of every environment in order of time: leaves [N, C, ...], carry [N, ...]."""
    head = clock % ring.rows
    window = jax.tree.map(lambda x: jnp.moveaxis(jnp.roll(x, -head, axis=0), 0, 1), store._replace(carry=()))
    return window._replace(carry=jax.tree.map(lambda x: x[head], store.carry))


def starts(ring: Ring, clock: Array) -> tuple[Array, Array]:
    """(first, count): the complete windows start at (first + i) * stride, i < count, in every environment."""
    first = -(-jnp.maximum(clock - ring.rows, 0) // ring.stride)
    last = (clock - ring.window) // ring.stride
    return first, last - first + 1


def check_clock(ring: Ring, clock: Array) -> None:
    """Raises ValueError if the ring holds no window yet; a traced clock passes."""
    if not isinstance(clock, Tracer) and int(clock) < ring.window:
        raise ValueError(
            f"Buffer.sample: clock={clock} must be at least min_steps={ring.window}; add more steps before"
        )


def name(ring: Ring, start: Array, env: Array) -> Array:
    """The int32 index of the window that starts at step `start`; a row's next window has another."""
    return (start % ring.numbers) * ring.num_envs + env


def locate(ring: Ring, index: Array, clock: Array) -> tuple[Array, Array, Array]:
    """(row, env, alive) of a name; alive: its window is complete after `clock` adds and not overwritten."""
    number, env = index // ring.num_envs, index % ring.num_envs
    age = (clock - number) % ring.numbers
    return number % ring.rows, env, (index >= 0) & (age >= ring.window) & (age <= ring.rows)


def fresh(ring: Ring, store: Store, clock: Array, steps: int) -> Sample:
    """The windows that the last `steps` adds completed, oldest first; B = ceil(steps / stride) * N.

    Lane j * N + e is environment e. Where there are fewer (the first adds complete none; `steps` need not be
    a multiple of `stride`), the last lanes have weight 0 and index -1, which Buffer.update ignores; their
    content repeats the newest window, or is zeros while none is complete.
    Raises ValueError if the ring cannot hold all of them.
    """
    checks.at_least("Buffer.fresh: steps", steps, 1)
    if steps + ring.window - 1 > ring.rows:
        raise ValueError(
            f"Buffer.fresh: steps={steps} of window={ring.window} needs {steps + ring.window - 1} rows, but "
            f"the ring has {ring.rows}; raise capacity or ask for fewer steps"
        )
    last = (clock - ring.window) // ring.stride  # -1 or less while no window is complete
    first = jnp.maximum(-(-(clock - ring.window - steps + 1) // ring.stride), 0)
    number = jnp.repeat(first + jnp.arange(-(-steps // ring.stride), dtype=jnp.int32), ring.num_envs)
    env = jnp.arange(number.size, dtype=jnp.int32) % ring.num_envs
    known = number <= last
    start = jnp.clip(number, 0, jnp.maximum(last, 0)) * ring.stride
    index = jnp.where(known, name(ring, start, env), -1)
    return Sample(read(ring, store, start, env), index, known.astype(jnp.float32))


def _take(rows: Array, lanes: Array) -> Callable[[Array], Array]:
    def take(leaf: Array) -> Array:
        # A gather of single numbers from [C, N] makes XLA copy the ring in a loop that writes and reads once a turn.
        slices = leaf[..., None] if leaf.ndim == 2 else leaf
        taken = slices.at[rows, lanes].get(mode="promise_in_bounds")
        return taken[..., 0] if leaf.ndim == 2 else taken

    return take


def _check_like(store: Store, step: Transition) -> None:
    if jax.tree.structure(step) != jax.tree.structure(store):
        raise ValueError(
            f"Buffer.add: step is {jax.tree.structure(step)}, but init was given "
            f"{jax.tree.structure(store)}; init the buffer with an example of what you add"
        )
    paths = jax.tree_util.tree_leaves_with_path(step)
    for (path, x), leaf in zip(paths, jax.tree.leaves(store), strict=True):
        if (x.shape, x.dtype) != (leaf.shape[1:], leaf.dtype):
            raise ValueError(
                f"Buffer.add: step{jax.tree_util.keystr(path)} is {x.dtype}{list(x.shape)}, but init was "
                f"given {leaf.dtype}{list(leaf.shape[1:])}; init the buffer with an example of what you add"
            )
