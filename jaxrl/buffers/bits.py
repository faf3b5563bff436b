"""Booleans packed: eight of an observation to a byte, thirty-two lanes to a word.

Both packings are planar: bit j of byte (word) i is element j * width + i, so that packing and unpacking are shifts of
contiguous slices, which compilers vectorise. Bytes, not words, since XLA on CPU would undo a word element by element.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

LANES = 32  # to a word


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """Boolean arrays of one shape, each as ceil(size / 8) bytes."""

    data: Array  # [items, bytes] uint8
    shape: tuple[int, ...] = field(metadata={"static": True})


Leaf = Array | Packed  # what a stored array is


def is_packed(leaf: Any) -> bool:
    """For `jax.tree.map(..., is_leaf=is_packed)`."""
    return isinstance(leaf, Packed)


def data(leaf: Leaf) -> Array:
    """The array that holds the items of a leaf along its first axis."""
    return leaf.data if isinstance(leaf, Packed) else leaf


def with_data(leaf: Leaf, new: Array) -> Leaf:
    """A leaf whose items are `new`."""
    return Packed(new, leaf.shape) if isinstance(leaf, Packed) else new


def zeros(items: int, shape: tuple[int, ...], dtype: Any) -> Leaf:
    """`items` arrays of `shape`, packed if they are boolean and more than one number each."""
    size = math.prod(shape)
    if jnp.issubdtype(dtype, jnp.bool_) and size > 1:
        return Packed(jnp.zeros((items, -(-size // 8)), jnp.uint8), shape)
    return jnp.zeros((items, *shape), dtype)


def item(leaf: Leaf) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of one item as it was given."""
    return (leaf.shape, jnp.dtype(bool)) if isinstance(leaf, Packed) else (leaf.shape[1:], leaf.dtype)


def encode(leaf: Leaf, x: Array) -> Array:
    """Items x [N, *shape] as `leaf` stores them: [N, bytes] where it packs."""
    if not isinstance(leaf, Packed):
        return x
    size, width = math.prod(leaf.shape), leaf.data.shape[-1]
    flat = jnp.pad(x.reshape(-1, size), ((0, 0), (0, 8 * width - size)))
    planes = flat.reshape(-1, 8, width).astype(jnp.uint8) << jnp.arange(8, dtype=jnp.uint8)[None, :, None]
    return jnp.sum(planes, axis=1, dtype=jnp.uint8)  # a reduction: XLA would unroll a fold of slices into its users


def decode(leaf: Leaf, taken: Array) -> Array:
    """Stored items [..., bytes] as they were given: [..., *shape]."""
    if not isinstance(leaf, Packed):
        return taken
    size, width = math.prod(leaf.shape), leaf.data.shape[-1]
    # Made boolean plane by plane: XLA fuses what follows the concatenation with the reshape, number by number.
    planes = [((taken[..., : min(width, size - low)] >> low // width) & 1) != 0 for low in range(0, size, width)]
    return jnp.concatenate(planes, axis=-1).reshape(*taken.shape[:-1], *leaf.shape)


def words(num_lanes: int) -> int:
    """Words that hold a bit of every lane."""
    return -(-num_lanes // LANES)


def pack_lanes(flags: Array) -> Array:
    """[N] bool -> [words] uint32; lane e is bit e // words of word e % words."""
    width = words(flags.shape[0])
    planes = jnp.pad(flags, (0, LANES * width - flags.shape[0])).reshape(LANES, width).astype(jnp.uint32)
    return jnp.sum(planes << _bits()[:, None], axis=0, dtype=jnp.uint32)


def unpack_lanes(packed: Array, num_lanes: int) -> Array:
    """[words] uint32 -> [N] bool."""
    return (((packed[None] >> _bits()[:, None]) & 1) != 0).reshape(-1)[:num_lanes]


def before(packed: Array) -> Array:
    """[words] uint32: how many lanes are set in the words before each."""
    counts = jax.lax.population_count(packed)
    return jnp.cumsum(counts, dtype=jnp.uint32) - counts


def ranks(packed: Array, base: Array, num_lanes: int) -> Array:
    """[N] uint32: base of a lane's word plus the bits set in it below the lane's own."""
    return (base[None] + below(packed[None], _bits()[:, None])).reshape(-1)[:num_lanes]


def count(packed: Array) -> Array:
    """[] int32: how many lanes are set."""
    return jnp.sum(jax.lax.population_count(packed), dtype=jnp.int32)


def below(word: Array, bit: Array) -> Array:
    """uint32: how many bits of `word` are set below `bit`."""
    return jax.lax.population_count(word & ((jnp.uint32(1) << bit) - 1))


def bit_of(word: Array, bit: Array) -> Array:
    """bool: whether `bit` of `word` is set."""
    return ((word >> bit) & 1) != 0


def place(lane: Array, num_lanes: int) -> tuple[Array, Array]:
    """(word, bit) of a lane."""
    width = words(num_lanes)
    return lane % width, (lane // width).astype(jnp.uint32)


def _bits() -> Array:
    return jnp.arange(LANES, dtype=jnp.uint32)
