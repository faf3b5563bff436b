import os

import jaxlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if jaxlib.__version__.startswith("0.10."):  # an XLA that does not know a flag stops
    # XLA's older code generator compiles in two thirds of the time; `XLA_FLAGS= pytest` takes the usual one everywhere
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return jax.random.key(0)
