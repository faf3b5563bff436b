"""The one layout of replay: a time-major ring that stores each observation once.

Buffers know it through the functions below only. Steps are named by their number, the `clock` of the add that wrote
them; step s of every environment lies in row s % R, so a write is one contiguous slice update. After `clock` adds the
steps max(0, clock - C) to clock - 1 are held, and a window is complete if all of its steps are among these.

Observations lie in one pool: R rows of N, then a bounded side store. Row s holds obs of step s, and so next_obs of
step s - 1 wherever no episode ended; `add` writes next_obs into the row ahead, so that the newest step can be sampled
at once. Where an episode ended, its true final observation lies in the side store, in order of time; its place is the
number stored before its word of lanes plus the set bits below its own. When the side store is full, the next_obs of a
terminated step is a copy of its obs, which no discount lets matter, and a truncated step cannot be drawn; both are
counted. Where every row may end (`ends` = 1) a second ring of next_obs takes the place of both.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxrl import checks, memory
from jaxrl.buffers import bits
from jaxrl.types import Masked, PyTree, Sample, Transition

TERMINATED, TRUNCATED, LOST, BASE = range(4)  # the planes of Store.ends
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


class Store(NamedTuple):
    """A ring's arrays."""

    pool: PyTree  # observations or their newest frames: row r of lane e at r * N + e, then K (or R * N) next_obs
    action: Array  # [R * N, ...]
    reward: Array  # [R * N]
    ends: Array  # [R * words, 4] uint32: bits of terminated, truncated, lost; finals stored before the word
    carry: PyTree  # [starts, N, ...] at window starts only
    stored: Array  # [] uint32, final observations stored so far, modulo a multiple of K
    copied: Array  # [] int32, terminated steps whose next_obs is a copy of obs
    cut: Array  # [] int32, truncated steps that cannot be drawn


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


def empty(ring: Ring, step: Transition) -> Store:
    """A ring of zeros for steps like `step` [N, ...]; ValueError if a leaf has not N rows."""
    check_lanes(ring, step)
    in_rows = ring.rows * ring.num_envs
    places = in_rows + (in_rows if ring.finals is None else ring.finals)

    def pool(x: Array, stacked: bool) -> bits.Leaf:
        if stacked and x.shape[-1:] != (ring.stack,):
            raise ValueError(
                f"Buffer.init: an observation of shape {x.shape[1:]} is no stack of {ring.stack} frames on its last "
                "axis; give `stack` the k of frame_stack, or leave it at 1"
            )
        return bits.zeros(places, x.shape[1:-1] if stacked else x.shape[1:], x.dtype)

    starts = (ring.steps + ring.stride - 2) // ring.stride + 1
    store = Store(
        pool=_over_observation(ring, pool, step.obs),
        action=jnp.zeros((in_rows, *step.action.shape[1:]), step.action.dtype),
        reward=jnp.zeros((in_rows, *step.reward.shape[1:]), step.reward.dtype),
        ends=jnp.zeros((ring.rows * bits.words(ring.num_envs), 4), jnp.uint32),
        carry=jax.tree.map(lambda x: jnp.zeros((starts, *x.shape), x.dtype), step.carry if ring.carry else ()),
        stored=jnp.zeros((), jnp.uint32),
        copied=jnp.zeros((), jnp.int32),
        cut=jnp.zeros((), jnp.int32),
    )
    _check_step(ring, store, step)
    return store


def write(ring: Ring, store: Store, step: Transition, clock: Array) -> Store:
    """Writes step [N, ...] as number `clock`, in place; ValueError if it is not like `empty`'s example."""
    _check_step(ring, store, step)
    lanes, in_rows = ring.num_envs, ring.rows * ring.num_envs
    row, ahead = clock % ring.rows, (clock + 1) % ring.rows
    width = bits.words(lanes)
    store = store._replace(ends=_write(store.ends, _new_ends(ring, store, step, clock), row * width))
    # What follows reads the row that was written, never the ring of before, which would have to be kept for it.
    ends = jax.lax.dynamic_slice_in_dim(store.ends, row * width, width)
    kept = (ends[:, TERMINATED] | ends[:, TRUNCATED]) & ~ends[:, LOST]
    place = in_rows + (bits.ranks(kept, ends[:, BASE], lanes) % (ring.finals or 1)).astype(jnp.int32)
    place = jnp.where(bits.unpack_lanes(kept, lanes), place, jnp.iinfo(jnp.int32).max)

    def put(leaf: bits.Leaf, obs: Array, next_obs: Array, stacked: bool) -> bits.Leaf:
        newest = (lambda x: x[..., -1]) if stacked else (lambda x: x)
        items, final = bits.data(leaf), bits.encode(leaf, newest(next_obs))
        items = _write(items, bits.encode(leaf, newest(obs)), row * lanes)
        if ring.finals is None:
            return bits.with_data(leaf, _write(items, final, in_rows + row * lanes))
        items = _write(items, final, ahead * lanes)
        return bits.with_data(leaf, items.at[place].set(final, mode="drop"))

    at = -(-clock // ring.stride)  # the last of the steps that write here is a start
    carry = step.carry if ring.carry else ()
    return store._replace(
        pool=_over_observation(ring, put, store.pool, step.obs, step.next_obs),
        action=_write(store.action, step.action, row * lanes),
        reward=_write(store.reward, step.reward, row * lanes),
        carry=jax.tree.map(lambda leaf, x: write_row(leaf, x, at % leaf.shape[0]), store.carry, carry),
        stored=(ends[-1, BASE] + jax.lax.population_count(kept[-1])) % _rounds(ring),
        copied=store.copied + bits.count(ends[:, LOST] & ends[:, TERMINATED]),
        cut=store.cut + bits.count(ends[:, LOST] & ~ends[:, TERMINATED]),
    )


def _new_ends(ring: Ring, store: Store, step: Transition, clock: Array) -> Array:
    """[words, 4]: the row of `Store.ends` that a step becomes."""
    terminated, truncated = bits.pack_lanes(step.terminated), bits.pack_lanes(step.truncated)
    ended = terminated | truncated
    if ring.finals is None:
        nothing = jnp.zeros_like(ended)
        return jnp.stack([terminated, truncated, nothing, nothing], axis=-1)
    oldest = jnp.maximum(clock - ring.steps + 1, 0)
    before = store.ends[oldest % ring.rows * bits.words(ring.num_envs), BASE]
    before = jnp.where(oldest == clock, store.stored, before)
    held = (store.stored + (_rounds(ring) - before)) % _rounds(ring)
    free = ring.finals - held
    base = bits.before(ended)
    rank = bits.ranks(ended, base, ring.num_envs)
    lost = ended & bits.pack_lanes(rank >= free)
    return jnp.stack([terminated, truncated, lost, store.stored + jnp.minimum(base, free)], axis=-1)


def write_row(leaf: Array, row: Array, i: Array) -> Array:
    """Sets leaf[i] = row for an index within bounds: a slice update, not a scatter, also under vmap."""
    return _write(leaf, row[None], i)


def read(ring: Ring, store: Store, start: Array, env: Array) -> Transition:
    """The windows that start at steps `start` of environments `env`: [...] gives leaves [..., T, ...]."""
    past = ring.stack - 1
    number = _count(start, -past, ring.window)
    lane = jnp.broadcast_to(env[..., None], number.shape)
    terminated, truncated, lost, kept = _ends(ring, store, number, lane)
    own = _place(ring, number, lane)
    if ring.finals is None:
        after = ring.rows * ring.num_envs + own
    else:
        after = jnp.where(lost, own, jnp.where(terminated | truncated, kept, _place(ring, number + 1, lane)))
    frames = own[..., None]
    if past:
        oldest = _first_frames(ring, number, terminated | truncated)
        shown = _count(number[..., past:], -past, 1)  # [..., T, stack]
        frames = _place(ring, jnp.maximum(shown, oldest[..., None]), env[..., None, None])
    number, lane, own, after, terminated, truncated = (
        x[..., past:] for x in (number, lane, own, after, terminated, truncated)
    )
    own, after, frames = (once(x) for x in (own, after, frames))
    next_frames = jnp.concatenate([frames[..., 1:], after[..., None]], axis=-1)

    def observe(newest: Array, frames: Array) -> PyTree:
        def take(leaf: bits.Leaf, stacked: bool) -> Array:
            return jnp.moveaxis(_take(leaf, frames), newest.ndim, -1) if stacked else _take(leaf, newest)

        return _over_observation(ring, take, store.pool)

    return Transition(
        obs=observe(own, frames),
        action=_gather(store.action, own),
        reward=_gather(store.reward, own),
        terminated=terminated,
        truncated=truncated,
        next_obs=observe(after, next_frames),
        carry=jax.tree.map(lambda x: _gather(x, start // ring.stride % x.shape[0], env), store.carry),
    )


def usable(ring: Ring, store: Store, start: Array, env: Array) -> Array:
    """Whether the complete windows that start at `start` of `env` may be drawn, bool of their shape."""
    if ring.finals is None and ring.crossing:
        return jnp.ones(jnp.broadcast_shapes(start.shape, env.shape), bool)
    number = _count(start, 0, ring.window)
    terminated, truncated, lost, _ = _ends(ring, store, number, jnp.broadcast_to(env[..., None], number.shape))
    wrong = jnp.any(lost & ~terminated, axis=-1)
    return ~(wrong if ring.crossing else wrong | jnp.any((terminated | truncated)[..., :-1], axis=-1))


def usable_lanes(ring: Ring, store: Store, start: Array) -> Array:
    """[N] bool: the environments whose complete window from step `start` [] on may be drawn."""
    row = _row(ring, start + jnp.arange(ring.window, dtype=jnp.int32))
    width = bits.words(ring.num_envs)
    ends = _gather(store.ends, row[:, None] * width + jnp.arange(width, dtype=jnp.int32)[None])  # [T, words, 4]
    wrong = ends[..., LOST] & ~ends[..., TERMINATED]
    if not ring.crossing:
        within = (ends[..., TERMINATED] | ends[..., TRUNCATED])[:-1]
        wrong = jnp.concatenate([wrong, within])
    return ~bits.unpack_lanes(jnp.bitwise_or.reduce(wrong, axis=0), ring.num_envs)


def contents(ring: Ring, store: Store, clock: Array | int) -> Transition:
    """Every step held, oldest first: leaves [n, N, ...], carry (). `clock` is concrete."""
    end = int(clock)
    start = jnp.arange(max(0, end - ring.steps), end, dtype=jnp.int32)[:, None]
    start, env = jnp.broadcast_arrays(start, jnp.arange(ring.num_envs, dtype=jnp.int32)[None])
    steps = read(ring._replace(window=1), store._replace(carry=()), start, env)
    return jax.tree.map(lambda x: x[:, :, 0], steps)


def counts(store: Store) -> dict[str, Array]:
    """What was lost to a full side store so far: see `Store`."""
    return {"copied": store.copied, "cut": store.cut}


def starts(ring: Ring, clock: Array) -> tuple[Array, Array]:
    """(first, count): the complete windows start at (first + i) * stride, i < count, in every environment."""
    first = -(-jnp.maximum(clock - ring.steps, 0) // ring.stride)
    last = (clock - ring.window) // ring.stride
    return first, last - first + 1


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


def name(ring: Ring, start: Array, env: Array) -> Array:
    """The int32 index of the window that starts at step `start`; a row's next window has another."""
    return unsigned_divmod(start, ring.numbers)[1] * ring.num_envs + env


def locate(ring: Ring, index: Array, clock: Array) -> tuple[Array, Array, Array]:
    """(start % C, env, alive) of a name; alive: its window is complete after `clock` adds and not overwritten."""
    number, env = unsigned_divmod(index, ring.num_envs)
    age = clock % ring.numbers - number
    age = jnp.where(age < 0, age + ring.numbers, age)
    return unsigned_divmod(number, ring.steps)[1], env, (index >= 0) & (age >= ring.window) & (age <= ring.steps)


def newest(ring: Ring, row: Array, clock: Array) -> Array:
    """The last step whose number is `row` modulo C, of those before `clock`."""
    last = (clock - 1) % ring.steps
    return clock - 1 - last + row - jnp.where(row > last, ring.steps, 0)


def fresh(ring: Ring, store: Store, clock: Array, steps: int) -> Sample:
    """The windows that the last `steps` adds completed, oldest first; B = ceil(steps / stride) * N.

    Lane j * N + e is environment e. Where there are fewer (the first adds complete none; `steps` need not be
    a multiple of `stride`), the last lanes have weight 0 and index -1, which Buffer.update ignores; their
    content repeats the newest window, or is zeros while none is complete. So have windows that cannot be drawn.
    Raises ValueError if the ring cannot hold all of them.
    """
    checks.at_least("Buffer.fresh: steps", steps, 1)
    if steps + ring.window - 1 > ring.steps:
        raise ValueError(
            f"Buffer.fresh: steps={steps} of window={ring.window} needs {steps + ring.window - 1} rows, but "
            f"the ring has {ring.steps}; raise capacity or ask for fewer steps"
        )
    last = (clock - ring.window) // ring.stride  # -1 or less while no window is complete
    first = jnp.maximum(-(-(clock - ring.window - steps + 1) // ring.stride), 0)
    number = jnp.repeat(first + jnp.arange(-(-steps // ring.stride), dtype=jnp.int32), ring.num_envs)
    env = jnp.arange(number.size, dtype=jnp.int32) % ring.num_envs
    start = jnp.clip(number, 0, jnp.maximum(last, 0)) * ring.stride
    return sample(ring, store, start, env, number <= last)


def sample(ring: Ring, store: Store, start: Array, env: Array, known: Array | bool = True) -> Sample:
    """The windows at (start, env) with weight 1; weight 0 and index -1 where not `known` or not `usable`."""
    known = jnp.logical_and(usable(ring, store, start, env), known)
    index = jnp.where(known, name(ring, start, env), -1)
    return Sample(read(ring, store, start, env), index, known.astype(jnp.float32))


def _write(leaf: Array, rows: Array, at: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(leaf, rows, at, axis=0)


def once(index: Array) -> Array:
    """`index` as it is, by a scatter, which XLA does not fuse: else it is computed again for every number gathered."""
    flat = index.reshape(-1)
    here = jnp.arange(flat.size, dtype=jnp.uint32)
    scattered = jnp.zeros_like(flat).at[here].set(flat, mode="promise_in_bounds", unique_indices=True)
    return scattered.reshape(index.shape)


def unsigned_divmod(x: Array, by: int) -> tuple[Array, Array]:
    """(x // by, x % by) of int32 x >= 0, as the one operation each that XLA needs where there is no sign."""
    x, divisor = x.astype(jnp.uint32), jnp.uint32(by)
    return jax.lax.div(x, divisor).astype(jnp.int32), jax.lax.rem(x, divisor).astype(jnp.int32)


def _rounds(ring: Ring) -> int:
    return (2**31 - 1) // (ring.finals or 1) * (ring.finals or 1)


def _count(start: Array, low: int, high: int) -> Array:
    """start + [low, ..., high - 1] on a new last axis."""
    return start[..., None] + low + jax.lax.broadcasted_iota(jnp.int32, (*start.shape, high - low), start.ndim)


def _place(ring: Ring, number: Array, lane: Array) -> Array:
    return _row(ring, number) * ring.num_envs + lane


def _row(ring: Ring, number: Array) -> Array:
    # Unsigned, so that a remainder is one operation; numbers from before the first step wrap to rows never read.
    return jax.lax.rem(number.astype(jnp.uint32) + jnp.uint32(ring.rows), jnp.uint32(ring.rows)).astype(jnp.int32)


def _ends(ring: Ring, store: Store, number: Array, lane: Array) -> tuple[Array, Array, Array, Array]:
    """(terminated, truncated, lost, place of the final observation in the pool) of steps."""
    word, bit = bits.place(lane, ring.num_envs)
    ends = _gather(store.ends, _row(ring, number) * bits.words(ring.num_envs) + word)
    terminated, truncated, lost = (bits.bit_of(ends[..., i], bit) for i in (TERMINATED, TRUNCATED, LOST))
    before = bits.below((ends[..., TERMINATED] | ends[..., TRUNCATED]) & ~ends[..., LOST], bit)
    kept = ((ends[..., BASE] + before) % (ring.finals or 1)).astype(jnp.int32)
    return terminated, truncated, lost, ring.rows * ring.num_envs + kept


def _first_frames(ring: Ring, number: Array, ended: Array) -> Array:
    """[..., T]: the step that each window step's episode began with, or one from before its stack of frames."""
    began = jnp.where(ended, number + 1, jnp.where(number < 0, 0, number[..., :1]))
    return functools.reduce(jnp.maximum, (began[..., i : i + ring.window] for i in range(ring.stack - 1)))


def _over_observation(ring: Ring, function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """`function(*leaves, stacked)` over observations, where an action mask is no stack of frames."""

    def over(stacked: bool, *trees: PyTree) -> PyTree:
        return jax.tree.map(lambda *leaves: function(*leaves, stacked), *trees, is_leaf=bits.is_packed)

    stacked = ring.stack > 1
    if stacked and isinstance(trees[0], Masked):
        return Masked(*(over(part == 0, *(tree[part] for tree in trees)) for part in range(2)))
    return over(stacked, *trees)


def _take(leaf: bits.Leaf, index: Array) -> Array:
    """Items of a pool, decoded."""
    return bits.decode(leaf, _gather(bits.data(leaf), index))


def _gather(leaf: Array, *index: Array) -> Array:
    # A gather of single numbers makes XLA copy the ring in a loop that writes and reads once a turn.
    numbers = leaf.ndim == len(index)
    taken = (leaf[..., None] if numbers else leaf).at[index].get(mode="promise_in_bounds")
    return taken[..., 0] if numbers else taken


def _check_step(ring: Ring, store: Store, step: Transition) -> None:
    def given(leaf: bits.Leaf, stacked: bool) -> jax.ShapeDtypeStruct:
        shape, dtype = bits.item(leaf)
        return jax.ShapeDtypeStruct((ring.num_envs, *shape, ring.stack) if stacked else (ring.num_envs, *shape), dtype)

    def row(leaf: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((ring.num_envs, *leaf.shape[1:]), leaf.dtype)

    obs, flag = _over_observation(ring, given, store.pool), jax.ShapeDtypeStruct((ring.num_envs,), bool)
    carry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), store.carry)
    carry = carry if ring.carry else step.carry
    fields: Any = obs, row(store.action), row(store.reward), flag, flag, obs, carry
    check_like(step, Transition(*fields))
