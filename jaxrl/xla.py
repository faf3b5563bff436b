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

    def other(x: Array) -> Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jax.random.key_data(x) + 1, impl=jax.random.key_impl(x))
        return ~x if x.dtype == bool else x + 1

    return jax.tree.map(other, tree)
