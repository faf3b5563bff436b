import os

import jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compiling: it goes without LLVM's optimisations and, where an XLA still knows of it (one
# that does not know a flag stops), by the older code generator. `XLA_FLAGS= pytest` takes what users have everywhere.
if jaxlib.__version__.startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
else:
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return jax.random.key(0)
