"""The one layout of replay: a time-major ring that stores each observation once.

Buffers know it through the functions below only. Observations lie in one pool: R rows of N, then a bounded side store.
Row s holds obs of step s, and so next_obs of step s - 1 wherever no episode ended; `add` writes next_obs into the row
ahead, so that the newest step can be sampled at once. Where an episode ended, its true final observation lies in the
side store, in order of time; its place is the number stored before its word of lanes plus the set bits below its own.
When the side store is full, the next_obs of a terminated step is a copy of its obs, which no discount lets matter, and
a truncated step cannot be drawn; both are counted. Where every row may end (`ends` = 1) a second ring of next_obs takes
the place of both.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks
from jaxrl.buffers import bits, rings
from jaxrl.types import Buffer, Masked, PyTree, Sample, SampleFn, Transition

TERMINATED, TRUNCATED, LOST, BASE = range(4)  # the planes of Store.ends


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


def empty(ring: rings.Ring, step: Transition) -> Store:
    """A ring of zeros for steps like `step` [N, ...]; ValueError if a leaf has not N rows."""
    rings.check_lanes(ring, step)
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


def write(ring: rings.Ring, store: Store, step: Transition, clock: Array) -> Store:
    """Writes step [N, ...] as number `clock`, in place; ValueError if it is not like `empty`'s example."""
    _check_step(ring, store, step)
    lanes, in_rows = ring.num_envs, ring.rows * ring.num_envs
    row, ahead = clock % ring.rows, (clock + 1) % ring.rows
    width = bits.words(lanes)
    store = store._replace(ends=rings.write_at(store.ends, _new_ends(ring, store, step, clock), row * width))
    # What follows reads the row that was written, never the ring of before, which would have to be kept for it.
    ends = jax.lax.dynamic_slice_in_dim(store.ends, row * width, width)
    kept = (ends[:, TERMINATED] | ends[:, TRUNCATED]) & ~ends[:, LOST]
    place = in_rows + (bits.ranks(kept, ends[:, BASE], lanes) % (ring.finals or 1)).astype(jnp.int32)
    place = jnp.where(bits.unpack_lanes(kept, lanes), place, jnp.iinfo(jnp.int32).max)

    def put(leaf: bits.Leaf, obs: Array, next_obs: Array, stacked: bool) -> bits.Leaf:
        frame = (lambda x: x[..., -1]) if stacked else (lambda x: x)
        items, final = bits.data(leaf), bits.encode(leaf, frame(next_obs))
        items = rings.write_at(items, bits.encode(leaf, frame(obs)), row * lanes)
        if ring.finals is None:
            return bits.with_data(leaf, rings.write_at(items, final, in_rows + row * lanes))
        items = rings.write_at(items, final, ahead * lanes)
        return bits.with_data(leaf, items.at[place].set(final, mode="drop"))

    at = -(-clock // ring.stride)  # the last of the steps that write here is a start
    carry = step.carry if ring.carry else ()
    return store._replace(
        pool=_over_observation(ring, put, store.pool, step.obs, step.next_obs),
        action=rings.write_at(store.action, step.action, row * lanes),
        reward=rings.write_at(store.reward, step.reward, row * lanes),
        carry=jax.tree.map(lambda leaf, x: rings.write_row(leaf, x, at % leaf.shape[0]), store.carry, carry),
        stored=(ends[-1, BASE] + jax.lax.population_count(kept[-1])) % _rounds(ring),
        copied=store.copied + bits.count(ends[:, LOST] & ends[:, TERMINATED]),
        cut=store.cut + bits.count(ends[:, LOST] & ~ends[:, TERMINATED]),
    )


def _new_ends(ring: rings.Ring, store: Store, step: Transition, clock: Array) -> Array:
    """[words, 4]: the row of `Store.ends` that a step becomes."""
    terminated, truncated = bits.pack_lanes(step.terminated), bits.pack_lanes(step.truncated)
    ended = terminated | truncated
    if ring.finals is None:
        nothing = jnp.zeros_like(ended)
        return jnp.stack([terminated, truncated, nothing, nothing], axis=-1)
    oldest = jnp.maximum(clock - ring.steps + 1, 0)
    before = store.ends[oldest % ring.rows * bits.words(ring.num_envs), BASE]
    held = (store.stored + (_rounds(ring) - before)) % _rounds(ring)
    free = ring.finals - held
    base = bits.before(ended)
    rank = bits.ranks(ended, base, ring.num_envs)
    lost = ended & bits.pack_lanes(rank >= free)
    return jnp.stack([terminated, truncated, lost, store.stored + jnp.minimum(base, free)], axis=-1)


def read(ring: rings.Ring, store: Store, start: Array, env: Array) -> Transition:
    """The windows that start at steps `start` of environments `env`: [...] gives leaves [..., T, ...]."""
    past = ring.stack - 1
    number = rings.count(start, -past, ring.window)
    lane = jnp.broadcast_to(env[..., None], number.shape)
    terminated, truncated, lost, kept = _ends(ring, store, number, lane)
    own = rings.place(ring, number, lane)
    if ring.finals is None:
        after = ring.rows * ring.num_envs + own
    else:
        after = jnp.where(lost, own, jnp.where(terminated | truncated, kept, rings.place(ring, number + 1, lane)))
    frames = own[..., None]
    if past:
        oldest = _first_frames(ring, number, terminated | truncated)
        shown = rings.count(number[..., past:], -past, 1)  # [..., T, stack]
        frames = rings.place(ring, jnp.maximum(shown, oldest[..., None]), env[..., None, None])
    number, lane, own, after, terminated, truncated = (
        x[..., past:] for x in (number, lane, own, after, terminated, truncated)
    )
    own, after, frames = (rings.once(x) for x in (own, after, frames))
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


def usable(ring: rings.Ring, store: Store, start: Array, env: Array) -> Array:
    """Whether the complete windows that start at `start` of `env` may be drawn, bool of their shape."""
    if ring.finals is None and ring.crossing:
        return jnp.ones(jnp.broadcast_shapes(start.shape, env.shape), bool)
    number = rings.count(start, 0, ring.window)
    terminated, truncated, lost, _ = _ends(ring, store, number, jnp.broadcast_to(env[..., None], number.shape))
    wrong = jnp.any(lost & ~terminated, axis=-1)
    return ~(wrong if ring.crossing else wrong | jnp.any((terminated | truncated)[..., :-1], axis=-1))


def usable_lanes(ring: rings.Ring, store: Store, start: Array) -> Array:
    """[N] bool: the environments whose complete window from step `start` [] on may be drawn."""
    row = rings.row_of(ring, start + jnp.arange(ring.window, dtype=jnp.int32))
    width = bits.words(ring.num_envs)
    ends = _gather(store.ends, row[:, None] * width + jnp.arange(width, dtype=jnp.int32)[None])  # [T, words, 4]
    wrong = ends[..., LOST] & ~ends[..., TERMINATED]
    if not ring.crossing:
        within = (ends[..., TERMINATED] | ends[..., TRUNCATED])[:-1]
        wrong = jnp.concatenate([wrong, within])
    return ~bits.unpack_lanes(jnp.bitwise_or.reduce(wrong, axis=0), ring.num_envs)


def contents(ring: rings.Ring, store: Store, clock: Array | int) -> Transition:
    """Every step held, oldest first: leaves [n, N, ...], carry (). `clock` is concrete.

    Where `counts` is not 0, the next_obs of some ends may be a copy of their obs.
    """
    end = int(clock)
    start = jnp.arange(max(0, end - ring.steps), end, dtype=jnp.int32)[:, None]
    start, env = jnp.broadcast_arrays(start, jnp.arange(ring.num_envs, dtype=jnp.int32)[None])
    steps = read(ring._replace(window=1), store._replace(carry=()), start, env)
    return jax.tree.map(lambda x: x[:, :, 0], steps)


def counts(store: Store) -> dict[str, Array]:
    """What was lost to a full side store so far: see `Store`."""
    return {"copied": store.copied, "cut": store.cut}


def fresh(ring: rings.Ring, store: Store, clock: Array, steps: int) -> Sample:
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


def sample(ring: rings.Ring, store: Store, start: Array, env: Array, known: Array | bool = True) -> Sample:
    """The windows at (start, env) with weight 1; weight 0 and index -1 where not `known` or not `usable`."""
    known = jnp.logical_and(usable(ring, store, start, env), known)
    index = jnp.where(known, rings.name(ring, start, env), -1)
    return Sample(read(ring, store, start, env), index, known.astype(jnp.float32))


def buffer(name: str, ring: rings.Ring, draw: SampleFn, min_steps: int) -> Buffer:
    """A buffer of this layout whose windows have no priorities; `draw` is its sample."""

    def update(store: Store, index: Array, priority: Array) -> Store:
        del index, priority
        return store

    init, nbytes = rings.allocator(name, ring, functools.partial(empty, ring))
    return Buffer(
        init=init,
        add=functools.partial(write, ring),
        sample=draw,
        update=update,
        fresh=functools.partial(fresh, ring),
        min_steps=min_steps,
        capacity=ring.steps * ring.num_envs,
        nbytes=nbytes,
        counts=counts,
        contents=functools.partial(contents, ring),
    )


def _rounds(ring: rings.Ring) -> int:
    return (2**31 - 1) // (ring.finals or 1) * (ring.finals or 1)


def _ends(ring: rings.Ring, store: Store, number: Array, lane: Array) -> tuple[Array, Array, Array, Array]:
    """(terminated, truncated, lost, place of the final observation in the pool) of steps."""
    word, bit = bits.place(lane, ring.num_envs)
    ends = _gather(store.ends, rings.row_of(ring, number) * bits.words(ring.num_envs) + word)
    terminated, truncated, lost = (bits.bit_of(ends[..., i], bit) for i in (TERMINATED, TRUNCATED, LOST))
    before = bits.below(ends[..., TERMINATED] | ends[..., TRUNCATED], bit)  # none of these is lost, if this one is kept
    kept = ((ends[..., BASE] + before) % (ring.finals or 1)).astype(jnp.int32)
    return terminated, truncated, lost, ring.rows * ring.num_envs + kept


def _first_frames(ring: rings.Ring, number: Array, ended: Array) -> Array:
    """[..., T]: the step that each window step's episode began with, or one from before its stack of frames."""
    began = jnp.where(ended, number + 1, jnp.where(number < 0, 0, number[..., :1]))
    return functools.reduce(jnp.maximum, (began[..., i : i + ring.window] for i in range(ring.stack - 1)))


def _over_observation(ring: rings.Ring, function: Callable[..., Any], *trees: PyTree) -> PyTree:
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


def _check_step(ring: rings.Ring, store: Store, step: Transition) -> None:
    def given(leaf: bits.Leaf, stacked: bool) -> jax.ShapeDtypeStruct:
        shape, dtype = bits.item(leaf)
        return jax.ShapeDtypeStruct((ring.num_envs, *shape, ring.stack) if stacked else (ring.num_envs, *shape), dtype)

    def row(leaf: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((ring.num_envs, *leaf.shape[1:]), leaf.dtype)

    obs, flag = _over_observation(ring, given, store.pool), jax.ShapeDtypeStruct((ring.num_envs,), bool)
    carry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), store.carry)
    carry = carry if ring.carry else step.carry
    fields: Any = obs, row(store.action), row(store.reward), flag, flag, obs, carry
    rings.check_like(step, Transition(*fields))
