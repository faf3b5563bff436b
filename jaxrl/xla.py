"""What XLA's compiler for CPUs must be told; elsewhere it does nothing."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.types import PyTree


def once(tree: PyTree, count: Array) -> PyTree:
    """The same arrays or keys, computed before they are used; `count` is any traced integer of at least 0.

    XLA on CPU computes a cheap value anew in each of its uses: a choice of actions, which makes a table's loop three
    times as slow, or a chain of keys, over which its compiler may sit for minutes. It fuses nothing across a loop; this
    one, as far as it can tell, might run.
    """

    def barrier(tree: PyTree, count: Array) -> PyTree:
        return jax.lax.while_loop(lambda x: x[1] < 0, lambda x: (_changed(x[0]), x[1] + 1), (tree, count))[0]

    return jax.lax.platform_dependent(tree, count, cpu=barrier, default=lambda tree, count: tree)


def _changed(tree: PyTree) -> PyTree:
    """Another tree like it."""
    return jax.tree.map(lambda x: jax.random.fold_in(x, 0) if _is_key(x) else x + 1, tree)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
