"""Convolutions, bases, precisions and noise of networks against numpy, formulas and published sizes."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import nets
from jaxrl.nets import layers

IMAGE = (10, 10, 4)
TORSOS = {
    "mlp": (nets.MLP, {"hidden": (8, 6)}, (4,)),
    "mlp_norm": (nets.MLP, {"hidden": (8,), "layer_norm": True}, (4,)),
    "minatar": (nets.MinAtarConv, {"width": 8}, IMAGE),
    "minatar_norm": (nets.MinAtarConv, {"width": 8, "layer_norm": True}, IMAGE),
    "nature": (nets.NatureConv, {"width": 8}, (36, 36, 1)),
    "impala": (nets.ImpalaConv, {"channels": (2,), "width": 8}, (5, 5, 2)),
}
CONVOLUTION = nets.Conv3x3(5), nn.Conv(5, (3, 3), padding="VALID"), (6, 7, 6, 3)
NARROW = layers.dense(3, False, nn.linear.default_kernel_init, None), nn.Dense(3), (6, 2, 7)


def leaves(params):
    """Parameters by their path, as saved files name them."""
    return {"/".join(k.key for k in path[1:]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def convolved(x, kernel):
    """A convolution without padding, by loops over its outputs."""
    height, width = x.shape[0] - 2, x.shape[1] - 2
    out = np.zeros((height, width, kernel.shape[-1]))
    for i, j in itertools.product(range(height), range(width)):
        out[i, j] = np.tensordot(x[i : i + 3, j : j + 3], kernel, 3)
    return out


@pytest.mark.parametrize("ours, theirs, shape", [CONVOLUTION, NARROW], ids=["convolution", "narrow"])
def test_a_layer_is_flaxs(ours, theirs, shape):
    """Values and gradients, vmapped, from the same parameters, which have the same start."""
    x = jax.random.normal(jax.random.key(1), shape)
    params = theirs.init(jax.random.key(0), x[0])
    jax.tree.map(np.testing.assert_array_equal, params, ours.init(jax.random.key(0), x[0]))
    params = jax.tree.map(lambda p: p + 0.1, params)

    def loss(layer):
        def mean(params, x):
            out = jax.vmap(layer.apply, (None, 0))(params, x)
            return jnp.mean(jnp.sin(out) ** 2), out

        return jax.jit(jax.value_and_grad(mean, (0, 1), has_aux=True))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), loss(ours), loss(theirs))


@pytest.mark.parametrize("way", [layers._slices, layers._convolution])
def test_both_ways_to_convolve_are_the_loops(way):
    x, kernel = np.random.default_rng(0).normal(size=(5, 4, 2)), np.random.default_rng(1).normal(size=(3, 3, 2, 3))
    found = way(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(found, convolved(x, kernel), atol=1e-5)


@pytest.mark.parametrize(("platform", "convolutions", "turned"), [("cpu", 0, 4), ("cuda", 2, 0)])
def test_the_platform_chooses_how_to_multiply(platform, convolutions, turned):
    """Forward and gradient of a batch hold one way alone: on a GPU one convolution each, on a CPU turned kernels."""
    network = nets.MinAtarConv(width=4)
    obs = jnp.zeros((6, *IMAGE), bool)
    params = jax.eval_shape(network.init, jax.random.key(0), obs[0])

    def loss(params, obs):
        return jnp.mean(jax.vmap(network.apply, (None, 0))(params, obs))

    lowered = jax.jit(jax.grad(loss)).trace(params, obs).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("stablehlo.convolution") == convolutions
    assert lowered.as_text().count("stablehlo.optimization_barrier") == turned


def test_saved_parameters_keep_their_names():
    network = nets.QNetwork(3, nets.MinAtarConv(width=8, layer_norm=True))
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(IMAGE, bool))
    assert {name: leaf.shape for name, leaf in leaves(params).items()} == {
        "torso/Conv_0/kernel": (3, 3, 4, 16),
        "torso/Conv_0/bias": (16,),
        "torso/LayerNorm_0/scale": (16,),
        "torso/LayerNorm_0/bias": (16,),
        "torso/Dense_0/kernel": (1024, 8),
        "torso/Dense_0/bias": (8,),
        "torso/LayerNorm_1/scale": (8,),
        "torso/LayerNorm_1/bias": (8,),
        "q/kernel": (8, 3),
        "q/bias": (3,),
    }


def test_impala_is_the_published_size():
    """626,256 parameters with a policy of 15 actions and a value, for the 64 x 64 x 3 images of Procgen."""
    network, obs = nets.QNetwork(16, nets.ImpalaConv()), jnp.zeros((64, 64, 3), jnp.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), obs)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 626_256
    wide = jax.eval_shape(nets.ImpalaConv(width=512).init, jax.random.key(0), jnp.zeros((84, 84, 4), jnp.uint8))
    assert leaves(wide)["Dense_0/kernel"].shape == (11 * 11 * 32, 512)


def test_impala_by_loops():
    torso = nets.ImpalaConv(channels=(2,), width=3)
    image = np.random.default_rng(0).normal(size=(5, 5, 2))
    params = jax.jit(torso.init)(jaxrl.key(0), jnp.asarray(image, jnp.float32))
    params = jax.tree.map(lambda p: p + 0.1, params)
    p = jax.tree.map(lambda x: np.asarray(x, float), params["params"])

    def convolve(x, i):
        return convolved(np.pad(x, ((1, 1), (1, 1), (0, 0))), p[f"Conv_{i}"]["kernel"]) + p[f"Conv_{i}"]["bias"]

    x = np.pad(convolve(image, 0), ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = np.array([[x[i : i + 3, j : j + 3].max(axis=(0, 1)) for j in (0, 2, 4)] for i in (0, 2, 4)])
    for i in (1, 3):
        x = x + convolve(np.maximum(convolve(np.maximum(x, 0), i), 0), i + 1)
    expected = np.maximum(np.maximum(x, 0).ravel() @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    np.testing.assert_allclose(jax.jit(torso.apply)(params, jnp.asarray(image, jnp.float32)), expected, rtol=1e-4)


def test_an_mlp_takes_another_activation():
    torso, x = nets.MLP((3, 2), activation=jnp.tanh), np.array([0.5, -1.0])
    params = jax.jit(torso.init)(jaxrl.key(0), jnp.asarray(x, jnp.float32))
    p = jax.tree.map(lambda x: np.asarray(x, float), params["params"])
    for i in range(2):
        x = np.tanh(x @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"])
    np.testing.assert_allclose(jax.jit(torso.apply)(params, jnp.array([0.5, -1.0])), x, rtol=1e-5)


def test_fourier_features_by_formula():
    low, high, x = (-1.0, 0.0, 2.0), (1.0, 4.0, 3.0), np.array([0.5, 3.0, 2.1])
    found = nets.Fourier(low, high, order=2).apply({}, jnp.asarray(x, jnp.float32))
    scaled = [(x[i] - low[i]) / (high[i] - low[i]) for i in range(3)]
    expected = [
        np.cos(np.pi * (a * scaled[0] + b * scaled[1] + c * scaled[2]))
        for a in range(3)
        for b in range(3)
        for c in range(3)
        if (a, b, c) != (0, 0, 0)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_mlp_stands_on_a_basis():
    basis, x = nets.Fourier((0.0, 0.0), (1.0, 2.0), 1), jnp.array([0.5, 0.4])
    torso = nets.MLP((3,), basis=basis)
    params = jax.jit(torso.init)(jaxrl.key(0), x)
    np.testing.assert_allclose(torso.apply(params, x), nets.MLP((3,)).apply(params, basis.apply({}, x)), rtol=1e-6)
    assert params["params"]["Dense_0"]["kernel"].shape == (3, 3)


def test_a_linear_head_may_have_no_bias():
    network = nets.QNetwork(3, nets.Fourier((0.0, 0.0), (1.0, 1.0)), use_bias=False)
    assert {k: v.shape for k, v in leaves(network.init(jaxrl.key(0), jnp.zeros(2))).items()} == {"q/kernel": (15, 3)}


@pytest.mark.parametrize(
    ("low", "high", "order", "message"),
    [
        ((0.0,), (1.0, 1.0), 3, "1 lower and 2 upper limits for an observation of 2"),
        ((0.0,), (1.0,), 3, "1 lower and 1 upper limits for an observation of 2"),
        ((0.0, 0.0), (1.0, float("inf")), 3, "finite"),
        ((0.0, 1.0), (1.0, 1.0), 3, "low below high"),
        ((0.0, 0.0), (1.0, 1.0), 0, "order is 0"),
    ],
)
def test_fourier_refuses_what_is_no_limit(low, high, order, message):
    with pytest.raises(ValueError, match=message):
        nets.Fourier(low, high, order).init(jaxrl.key(0), jnp.zeros(2))


@pytest.mark.parametrize("kind", TORSOS)
def test_an_initialiser_is_of_every_kernel(kind):
    torso, options, shape = TORSOS[kind]
    start = nn.initializers.constant(0.25)
    network = nets.QNetwork(2, torso(**options, kernel_init=start), dueling=True, kernel_init=start)
    params = jax.jit(network.init)(jaxrl.key(0), jnp.zeros(shape))
    kernels = [leaf for name, leaf in leaves(params).items() if name.endswith("kernel")]
    assert len(kernels) > 2
    for kernel in kernels:
        np.testing.assert_array_equal(kernel, 0.25)


def products(jaxpr):
    """The dtypes of every matrix product and convolution of a program, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (x.aval.dtype for x in (*equation.invars, *equation.outvars))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("kind", TORSOS)
def test_bfloat16_computes_in_it_and_answers_in_float32(kind):
    torso, options, shape = TORSOS[kind]
    noisy = kind == "mlp"

    def network(dtype):
        inside = torso(**options, dtype=dtype, noisy=noisy)
        return nets.QNetwork(2, inside, dueling=True, atoms=3, noisy=noisy, dtype=dtype)

    obs = jax.random.normal(jaxrl.key(1), shape)
    params = jax.eval_shape(network(jnp.bfloat16).init, jaxrl.key(0), obs)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}

    def apply(dtype):
        rngs = {"noise": jaxrl.key(2)} if noisy else None
        return lambda params, obs: network(dtype).apply(params, obs, rngs=rngs)

    assert set(products(jax.make_jaxpr(apply(jnp.bfloat16))(params, obs).jaxpr)) == {jnp.dtype(jnp.bfloat16)}
    assert jax.eval_shape(apply(jnp.bfloat16), params, obs).dtype == jnp.float32
    if kind in ("mlp", "minatar_norm"):
        params = jax.jit(network(None).init)(jaxrl.key(0), obs)
        half, full = (jax.jit(apply(dtype))(params, obs) for dtype in (jnp.bfloat16, None))
        assert 0 < np.abs(half - full).max() < 0.03 * np.abs(full).max()


def test_implicit_quantiles_in_bfloat16():
    obs, fractions = jnp.array([0.5, -1.0]), jnp.array([0.1, 0.7])

    def network(dtype):
        return nets.ImplicitQuantiles(3, nets.MLP((32,), dtype=dtype), proposals=4, dtype=dtype)

    params = jax.jit(network(None).init)(jaxrl.key(0), obs)
    half, full = (jax.jit(network(dtype).apply)(params, obs, fractions) for dtype in (jnp.bfloat16, None))
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.03 * np.abs(full).max()
    ends, quantiles = jax.eval_shape(network(jnp.bfloat16).apply, params, obs)
    assert ends.dtype == quantiles.dtype == jnp.float32
