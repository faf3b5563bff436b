"""What XLA's compiler for CPUs must be told; elsewhere it does nothing."""

import os

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.types import PyTree


def compiled(lowered: jax.stages.Lowered, brief: bool = False) -> jax.stages.Compiled:
    """The program, compiled for no longer than it is worth; `brief`: it runs a few times only.

    LLVM's first level makes programs as fast as those of its third, in a sixth less time; for a brief one the older
    code generator takes two thirds of the rest. A level that XLA_FLAGS sets stays.
    """
    if jax.default_backend() != "cpu":
        return lowered.compile()
    level = "xla_backend_optimization_level"
    options: dict[str, str | bool] = {} if level in os.environ.get("XLA_FLAGS", "") else {level: "1"}
    if brief:
        try:
            return lowered.compile(compiler_options={**options, "xla_cpu_use_fusion_emitters": False})
        except jax.errors.JaxRuntimeError:  # an XLA without a choice
            pass
    return lowered.compile(compiler_options=options)


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
