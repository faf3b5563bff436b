import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import nets


@pytest.mark.parametrize(
    ("torso", "obs", "parameters"),
    [
        (nets.MLP((8, 6)), jnp.zeros(4), 4 * 8 + 8 + 8 * 6 + 6 + 6 * 3 + 3),
        (nets.MLP((8,), one_hot=5), jnp.int32(2), 5 * 8 + 8 + 8 * 3 + 3),
        (nets.MLP((8,)), {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3)}, 7 * 8 + 8 + 8 * 3 + 3),
        (nets.MinAtarConv(), jnp.zeros((10, 10, 4), bool), 9 * 4 * 16 + 16 + 1024 * 128 + 128 + 128 * 3 + 3),
    ],
)
def test_shapes_and_sizes(torso, obs, parameters):
    network = nets.QNetwork(3, torso)
    params = network.init(jax.random.key(0), obs)
    assert network.apply(params, obs).shape == (3,)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_nature_conv_is_the_published_size():
    network, obs = nets.QNetwork(4, nets.NatureConv()), jnp.zeros((84, 84, 4), jnp.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), obs)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_686_180


def test_dueling_is_value_plus_centred_advantage():
    network = nets.QNetwork(3, nets.MLP((4,)), dueling=True)
    obs = jnp.arange(2.0)
    params = network.init(jax.random.key(0), obs)
    p = jax.tree.map(np.asarray, params)["params"]
    hidden = np.maximum(np.arange(2.0) @ p["torso"]["Dense_0"]["kernel"] + p["torso"]["Dense_0"]["bias"], 0)
    value, advantage = (hidden @ p[name]["kernel"] + p[name]["bias"] for name in ("value", "advantage"))
    np.testing.assert_allclose(network.apply(params, obs), value + advantage - advantage.mean(), rtol=1e-5, atol=1e-6)


def test_bytes_are_scaled_and_numbers_are_not():
    np.testing.assert_allclose(nets.as_floats(jnp.array([0, 51, 255], jnp.uint8)), [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_array_equal(nets.as_floats(jnp.array([2, 3])), [2, 3])
    np.testing.assert_array_equal(nets.as_floats(jnp.array([True, False])), [1, 0])
