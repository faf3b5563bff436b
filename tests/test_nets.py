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


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def test_layers_are_normalised_before_the_relu():
    torso = nets.MLP((5, 4), layer_norm=True)
    params = torso.init(jax.random.key(0), jnp.zeros(3))
    params = jax.tree.map(
        lambda x: x + jnp.linspace(-0.5, 1.0, x.size).reshape(x.shape), params
    )  # scales and biases too
    x = np.array([1.0, -2.0, 3.0])
    found = torso.apply(params, jnp.asarray(x, jnp.float32))
    p = jax.tree.map(np.asarray, params)["params"]
    for i in range(2):
        dense, norm = p[f"Dense_{i}"], p[f"LayerNorm_{i}"]
        x = np.maximum(normalised(x @ dense["kernel"] + dense["bias"]) * norm["scale"] + norm["bias"], 0)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)


def test_minatar_layers_are_normalised_over_their_channels_alone():
    torso = nets.MinAtarConv(width=6, layer_norm=True)
    obs = jax.random.bernoulli(jax.random.key(1), 0.3, (10, 10, 2))
    params = torso.init(jax.random.key(0), obs)
    p = jax.tree.map(np.asarray, params)["params"]
    kernel, image = p["Conv_0"]["kernel"], np.asarray(obs, float)
    patches = np.stack([image[i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=2)  # [8, 8, 9, 2]
    x = np.einsum("xypc,pcf->xyf", patches, kernel.reshape(9, 2, 16))
    x = np.maximum(normalised(x), 0).ravel() @ p["Dense_0"]["kernel"]
    np.testing.assert_allclose(torso.apply(params, obs), np.maximum(normalised(x), 0), rtol=1e-4, atol=1e-5)
    assert p["LayerNorm_0"]["scale"].shape == (16,)
    # He's initialiser: twice the variance of the plain torso's
    plain = nets.MinAtarConv(width=6).init(jax.random.key(0), obs)["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(p["Dense_0"]["kernel"], np.sqrt(2) * plain, rtol=1e-5)


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
