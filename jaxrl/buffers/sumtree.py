"""An exact sum tree: leaves are drawn in proportion to their mass, and changed, a batch at a time.

A tree is a tuple of levels, the leaves first. A level holds the masses of the children of every node in turn, so that
entry i of a level is the sum of entries i * FAN to i * FAN + FAN - 1 of the level before it. A node is always computed
anew from its children, left to right: sums do not drift, and trees of the same leaves have the same bits.

XLA writes a level in place only if every read of its old content surely comes before. So a draw reads each level once,
what it reads decides what it reads next, and a write waits for the sums that earlier writes have read.
"""

from functools import reduce
from itertools import accumulate

import chex
import jax
import jax.numpy as jnp
from jax import Array

SumTree = tuple[Array, ...]  # levels [nodes * FAN] float32
FAN = 8  # children of a node


def zeros(leaves: int) -> SumTree:
    """A tree of `leaves` masses of zero: about 1.15 floats a leaf."""
    levels = []
    while not levels or leaves > 1:
        leaves = -(-leaves // FAN)
        levels.append(jnp.zeros(leaves * FAN, jnp.float32))
    return tuple(levels)


def total(tree: SumTree) -> Array:
    """The sum of all masses []."""
    return _sums(tree[-1])[0]


def set_block(tree: SumTree, first: Array, mass: Array) -> SumTree:
    """Sets the leaves from number `first` on to mass [N]: slices alone, also under vmap if `first` is unbatched."""
    chex.assert_rank([first, mass], [0, 1])
    mass = jnp.where(total(tree) >= 0, mass, 0)  # always true: orders the writes below after all reads of the tree
    levels = []
    for level in tree:
        level = jax.lax.dynamic_update_slice(level, mass, (first,))
        levels.append(level)
        nodes = level.size // FAN
        touched = min((mass.size + FAN - 2) // FAN + 1, nodes)  # at most, wherever the block starts
        first = jnp.minimum(first // FAN, nodes - touched)
        mass = _sums(jax.lax.dynamic_slice(level, (first * FAN,), (touched * FAN,)))
    return tuple(levels)


def set_leaves(tree: SumTree, leaf: Array, mass: Array, live: Array) -> SumTree:
    """Sets leaf [B] to mass [B] where live [B]; of duplicates the largest mass stays."""
    chex.assert_rank([leaf, mass, live], 1)
    chex.assert_equal_shape([leaf, mass, live])
    live &= total(tree) >= 0  # as above
    at = jnp.where(live, leaf, tree[0].size)  # outside: dropped
    levels = [tree[0].at[at].set(0, mode="drop").at[at].max(mass, mode="drop")]
    # A node computed once more does no harm. Unsigned, so that XLA divides by a shift wherever it computes the index.
    node = jnp.where(live, leaf, 0).astype(jnp.uint32)
    for level in tree[1:]:
        node = node // FAN
        levels.append(level.at[node].set(_sums(_children(levels[-1], node)), mode="promise_in_bounds"))
    return tuple(levels)


def draw(tree: SumTree, unit: Array, dither: Array) -> tuple[Array, Array]:
    """The leaf under each quantile (b + u) / B of the total, and its mass; b < B is the place on the last axis.

    `unit` and `dither` [..., B] in [0, 1) are the leading and the further bits of u, since a float32 quantile takes
    only 16 values in each of 2^20 leaves. A leaf of mass zero is drawn only if all are zero: leaf 0 then.

    The children of a node share its width, B strata at the root, in proportion to their masses, rounded to the last
    bit of the width. Then each difference below is exact and P(leaf) is a product of shares: a child's is right to
    2^-23 of its node, so that one of a smaller part than that may never be drawn.
    """
    chex.assert_equal_shape([unit, dither])
    shape, strata = unit.shape, unit.shape[-1]
    step = 2.0 ** ((strata - 1).bit_length() - 23)  # between the float32 numbers below `strata`
    high = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 1) + jnp.floor(unit / step) * step
    high, low = high.reshape(-1), (dither * step).reshape(-1)  # their sum: from the node's left end to the quantile
    width = jnp.full_like(high, strata)
    node = jnp.zeros(high.shape, jnp.int32)
    mass = jnp.zeros_like(high)
    for level in reversed(tree):
        children = _children(level, node)
        upto = jnp.stack(list(accumulate(children[:, j] for j in range(FAN))), axis=1)
        whole, wide = upto[:, -1:], width[:, None]
        ends = (upto * jnp.where(whole > 0, wide / whole, 0) + wide) - wide
        ends = jnp.pad(jnp.where(upto == whole, wide, ends), ((0, 0), (1, 0)))
        child = jnp.sum(low[:, None] >= ends[:, 1:FAN] - high[:, None], axis=1, dtype=jnp.int32)
        left, right = jnp.unstack(jax.vmap(_two)(ends, child), axis=1)
        mass = jnp.take_along_axis(children, child[:, None], 1)[:, 0]
        high, width, node = high - left, right - left, node * FAN + child
    return node.reshape(shape), mass.reshape(shape)


def _children(level: Array, node: Array) -> Array:
    """The masses of the children of nodes [B]: [B, FAN]."""
    return level.reshape(-1, FAN).at[node].get(mode="promise_in_bounds")


def _two(x: Array, i: Array) -> Array:
    return jax.lax.dynamic_slice(x, (i,), (2,))


def _sums(level: Array) -> Array:
    """The sum of each FAN entries, in the one order in which all are added."""
    level = level.reshape(-1, FAN)
    return reduce(jnp.add, (level[:, j] for j in range(FAN)))
