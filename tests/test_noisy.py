"""Noisy networks: the layer by its equations, and whose noise is whose."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import jaxrl
from jaxrl import nets
from jaxrl.agents.c51 import c51
from jaxrl.types import Sample, Transition

INPUTS, FEATURES, DRAWS = 4, 3, 2000
E_SIZE = np.sqrt(2 / np.pi)  # the mean of |e|, e normal, so the variance of sgn(e) sqrt|e|


@pytest.fixture(scope="module")
def layer():
    """A layer's parameters, and by probing with 0 and unit vectors the weights and biases of many calls."""
    network = nets.NoisyDense(FEATURES, sigma=0.5)
    params = jax.jit(network.init)(jaxrl.key(0), jnp.zeros(INPUTS))
    probes = jnp.concatenate([jnp.zeros((1, INPUTS)), jnp.eye(INPUTS)])

    def one(key):
        return jax.vmap(lambda x: network.apply(params, x, rngs={"noise": key}))(probes)

    outputs = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jaxrl.key(1), DRAWS)), np.float64)
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params["params"].items()}
    return p, outputs[:, 1:] - outputs[:, :1], outputs[:, 0]


def test_it_starts_as_the_paper_says(layer):
    """mu uniform within 1 / sqrt(p), sigma 0.5 / sqrt(p) (section 3.2)."""
    p, _, _ = layer
    assert p["kernel_scale"] == pytest.approx(0.25)
    assert p["bias_scale"] == pytest.approx(0.25)
    wide = jax.jit(nets.NoisyDense(200, sigma=0.1).init)(jaxrl.key(0), jnp.zeros(50))["params"]
    reach = 50**-0.5
    assert stats.kstest(np.ravel(wide["kernel"]), stats.uniform(-reach, 2 * reach).cdf).pvalue > 1e-3
    assert stats.kstest(np.ravel(wide["bias"]), stats.uniform(-reach, 2 * reach).cdf).pvalue > 1e-3
    np.testing.assert_allclose(wide["kernel_scale"], 0.1 * reach, rtol=1e-6)


def test_noise_is_factorised(layer):
    """The noise of a weight is f(e_i) f(e_j), that of a bias f(e_j), f(e) = sgn(e) sqrt|e| of normal e."""
    p, weights, biases = layer
    out = (biases - p["bias"]) / p["bias_scale"]  # [draws, features]
    both = (weights - p["kernel"]) / p["kernel_scale"]  # [draws, inputs, features]
    into = both[:, :, 0] / out[:, :1]
    clear = np.abs(out[:, 0]) > 0.1
    np.testing.assert_allclose(both[clear], into[clear, :, None] * out[clear, None], atol=1e-3)
    for f in (out, into[clear]):
        e = np.sign(f) * f**2
        assert stats.kstest(e[:, 1], stats.norm.cdf).pvalue > 1e-3
    columns = np.concatenate([out, into], axis=1)[clear]
    correlation = np.corrcoef(np.sign(columns).T) - np.eye(INPUTS + FEATURES)
    assert np.abs(correlation).max() < 5 / np.sqrt(clear.sum())


def test_the_outputs_variance_at_the_start(layer):
    """Of x = e_i: sigma^2 (v^2 + v), v = E|e|: a weight's noise and a bias's, which have f(e_j) in common."""
    _, weights, biases = layer
    seen = np.var(weights[:, 0] + biases, axis=0)
    np.testing.assert_allclose(seen, 0.25**2 * (E_SIZE**2 + E_SIZE), rtol=0.15)


def test_without_a_key_it_is_its_mean(layer):
    p, weights, biases = layer
    network = nets.NoisyDense(FEATURES)
    quiet = network.apply({"params": p}, jnp.ones(INPUTS))
    np.testing.assert_allclose(quiet, p["kernel"].sum(axis=0) + p["bias"], rtol=1e-5)
    np.testing.assert_allclose(weights.mean(axis=0), p["kernel"], atol=5 * 0.25 * E_SIZE / np.sqrt(DRAWS))
    np.testing.assert_allclose(biases.mean(axis=0), p["bias"], atol=5 * 0.25 * np.sqrt(E_SIZE / DRAWS))


def test_every_layer_has_noise_of_its_own():
    """Two layers of the same shape in one network: over draws their noises do not go together."""
    network = nets.QNetwork(1, nets.MLP(()), dueling=True, noisy=True, atoms=1)
    zero = jnp.zeros(2)
    params = jax.jit(network.init)(jaxrl.key(0), zero)

    def one(key):
        _, seen = network.apply(params, zero, rngs={"noise": key}, capture_intermediates=True)
        return [seen["intermediates"][name]["__call__"][0][0] for name in ("advantage", "value")]

    advantage, worth = jax.jit(jax.vmap(one))(jax.random.split(jaxrl.key(1), DRAWS))
    signs = [np.sign(x - params["params"][n]["bias"][0]) for x, n in ((advantage, "advantage"), (worth, "value"))]
    assert abs(np.mean(signs[0] * signs[1])) < 5 / np.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("torso", "obs"),
    [(nets.MLP((3, 3), noisy=True), jnp.zeros(3)), (nets.MinAtarConv(width=3, noisy=True), jnp.zeros((3, 3, 1)))],
)
def test_a_torsos_layers_have_noise_of_their_own_too(torso, obs):
    """With means of 0 all that a layer adds is its bias's noise: no two layers' go together, nor two calls'."""
    network = nets.QNetwork(3, torso, noisy=True)
    params = jax.jit(network.init)(jaxrl.key(0), obs)
    quiet = {"kernel", "bias", "kernel_scale"}
    params = jax.tree_util.tree_map_with_path(lambda path, x: 0 * x if path[-1].key in quiet else x, params)

    def one(key):
        _, seen = network.apply(params, obs, rngs={"noise": key}, capture_intermediates=True)
        seen = seen["intermediates"]
        inside = [x["__call__"][0] for name, x in seen["torso"].items() if name.startswith("Noisy")]
        return jnp.stack([*inside, seen["q"]["__call__"][0]])

    signs = np.sign(jax.jit(jax.vmap(one))(jax.random.split(jaxrl.key(1), DRAWS)))
    assert signs.shape[1] == (3 if isinstance(torso, nets.MLP) else 2)
    assert np.all(signs != 0)
    columns = signs.reshape(DRAWS, -1)
    assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 5 / np.sqrt(DRAWS)
    np.testing.assert_array_equal(jax.jit(network.apply)(params, obs), 0)


@pytest.mark.parametrize("network", [nets.QNetwork, nets.ImplicitQuantiles])
def test_a_noisy_torso_below_a_quiet_head_is_refused(network):
    with pytest.raises(ValueError, match="give the head noisy=True"):
        network(2, nets.MLP((3,), noisy=True)).init(jaxrl.key(0), jnp.zeros(2))


def test_noisy_layers_have_a_bias():
    with pytest.raises(ValueError, match="use_bias=True, or noisy=False"):
        nets.QNetwork(2, noisy=True, use_bias=False).init(jaxrl.key(0), jnp.zeros(2))


def test_all_fractions_of_an_item_have_the_same_noise():
    network = nets.ImplicitQuantiles(2, nets.MLP((3,)), noisy=True)
    params = jax.jit(network.init)(jaxrl.key(0), jnp.ones(2))
    quantiles = jax.jit(network.apply)(params, jnp.ones(2), jnp.full(4, 0.3), rngs={"noise": jaxrl.key(1)})
    np.testing.assert_allclose(quantiles, jnp.broadcast_to(quantiles[:1], (4, 2)), rtol=1e-6)


class Lone:
    """One observation, one action: a value of 0 to which each call adds its noise."""

    noisy = True

    def init(self, key, obs, /):
        return jnp.zeros(1)

    def apply(self, params, obs, /, rngs=None):
        return params if rngs is None else params + jax.random.normal(rngs["noise"], (1,))


def sizes(agent, params, reward, draws):
    """The sizes of the errors [draws, 2] of two equal items, learned with so many keys."""
    items = Transition(*(np.full((2, 1), x) for x in (0, 0, np.float32(reward), False, False, 0)))
    state = agent.init(jaxrl.key(0), np.zeros((1, 2)))._replace(params=params, target=params)
    sample = Sample(items, np.arange(2), np.ones(2, np.float32))
    keys = jax.random.split(jaxrl.key(3), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: agent.update(state, sample, key, 0.0)[1]))(keys))


@pytest.mark.parametrize("double", [False, True])
def test_noise_is_each_updates_and_each_networks_own(double):
    """With gamma 1 and no reward the error is target noise minus online noise: normal, of variance 2, all a batch's."""
    agent = jaxrl.dqn(Lone(), optax.sgd(0.0), gamma=1.0, double=double)
    size = sizes(agent, np.zeros(1), 0, 1000)
    np.testing.assert_array_equal(size[:, 0], size[:, 1])
    assert stats.kstest(size[:, 0], stats.halfnorm(scale=np.sqrt(2)).cdf).pvalue > 1e-3


def test_the_double_choice_has_noise_of_its_own():
    """The chooser's argmax must not know the noise that it is valued with: that would be the largest of two."""

    class Pair(Lone):
        def init(self, key, obs, /):
            return jnp.zeros(2)

        def apply(self, params, obs, /, rngs=None):
            return params if rngs is None else params + jax.random.normal(rngs["noise"], (2,))

    for double, mean in ((True, 0.0), (False, 1 / np.sqrt(np.pi))):
        agent = jaxrl.dqn(Pair(), optax.sgd(0.0), gamma=1.0, double=double)
        size = sizes(agent, np.zeros(2), 100, 2000)[:, 0]
        assert abs(np.mean(size) - 100 - mean) < 5 * np.sqrt(2 / 2000)


def test_it_explores_by_noise_and_is_quiet_where_greedy():
    """All means are 0: noise chooses either action, for each key another; the greedy choice is the first, always."""
    agent = c51(nets.QNetwork(2, nets.MLP(()), atoms=3, noisy=True), atoms=3, epsilon=0.0)
    state = jax.jit(agent.init)(jaxrl.key(0), jnp.ones((8, 2)))
    layer = state.params["params"]["q"]
    layer = {name: leaf if "scale" in name else 0 * leaf for name, leaf in layer.items()}
    state = state._replace(params={"params": {"q": layer}})
    keys = jax.random.split(jaxrl.key(1), 500)

    def choose(greedy):
        return jax.jit(jax.vmap(lambda key: agent.act(state, (), jnp.ones(2), key, 0.0, greedy)[0]))(keys)

    chosen = choose(greedy=False)
    assert abs(np.mean(chosen) - 0.5) < 5 * 0.5 / np.sqrt(500)
    assert abs(np.corrcoef(chosen[1:], chosen[:-1])[0, 1]) < 5 / np.sqrt(500)
    np.testing.assert_array_equal(choose(greedy=True), 0)
