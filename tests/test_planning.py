"""Dynamic programming against published values, linear programs, brute force, simulation and iterations written anew."""

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import planning


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


FROZEN_LAKE = {  # map, slippery -> gamma -> V*(start)
    ("4x4", True): {0.9: 0.068891, 0.95: 0.180472, 0.99: 0.542026},
    ("4x4", False): {0.9: 0.590490, 0.95: 0.773781, 0.99: 0.950990},
    ("8x8", True): {0.9: 0.006411, 0.95: 0.048250, 0.99: 0.414640},
    ("8x8", False): {0.9: 0.254187, 0.95: 0.513342, 0.99: 0.877521},
}


def process(env_id, **settings):
    return jaxrl.tabular_mdp(*jaxrl.make(env_id, **settings))


@pytest.mark.parametrize("name, slippery", FROZEN_LAKE)
def test_frozen_lake(x64, name, slippery):
    mdp = process("FrozenLake-v1", map_name=name, is_slippery=slippery)
    for gamma, value in FROZEN_LAKE[name, slippery].items():
        np.testing.assert_allclose(planning.value_iteration(mdp, gamma).values[0], value, atol=1.5e-6)
