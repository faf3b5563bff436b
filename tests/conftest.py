import os

import jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compiling: without LLVM's optimisations, and by XLA's older code generator where an XLA
# still knows of it (one that does not know a flag stops). `XLA_FLAGS= pytest` takes what users have everywhere.
_older = " --xla_cpu_use_fusion_emitters=false" if jaxlib.__version__.startswith("0.10.") else ""
os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0{_older}")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return jax.random.key(0)
