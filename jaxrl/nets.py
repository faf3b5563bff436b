"""Networks (flax linen) for ONE observation; the agent vmaps them over a batch.

Any object with flax's `init(key, obs) -> params` and `apply(params, obs) -> q [A]` serves in their place.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.types import PyTree


def as_floats(obs: PyTree) -> Array:
    """An observation as float32: a pytree is flattened and joined, unsigned bytes are scaled to [0, 1]."""
    leaves = jax.tree.leaves(obs)
    floats = [leaf.astype(jnp.float32) / (255.0 if leaf.dtype == jnp.uint8 else 1.0) for leaf in leaves]
    return floats[0] if len(floats) == 1 else jnp.concatenate([leaf.ravel() for leaf in floats])


class MLP(nn.Module):
    """Fully connected layers with ReLU: any observation -> [hidden[-1]].

    With `one_hot` the observation is an integer below it, as of a Discrete space. With `layer_norm` each layer is
    normalised before its ReLU (Gallici et al. 2024).
    """

    hidden: Sequence[int] = (120, 84)
    one_hot: int | None = None
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = as_floats(obs).ravel() if self.one_hot is None else jax.nn.one_hot(obs, self.one_hot)
        for width in self.hidden:
            x = nn.Dense(width)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return x


class MinAtarConv(nn.Module):
    """One 3x3 convolution of 16 channels and a dense layer, for [10, 10, C] (Young & Tian 2019, section 4).

    With `layer_norm` both are normalised over their channels before the ReLU and start from He's initialiser, as in the
    code of Gallici et al. (2024).
    """

    width: int = 128
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        init = nn.initializers.he_normal() if self.layer_norm else nn.initializers.lecun_normal()
        x = nn.Conv(16, (3, 3), padding="VALID", kernel_init=init)(as_floats(obs))
        x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        x = nn.Dense(self.width, kernel_init=init)(x.ravel())
        return nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)


class NatureConv(nn.Module):
    """The torso of Mnih et al. (2015) for [84, 84, stack] images."""

    width: int = 512

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = as_floats(obs)
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(channels, (size, size), (stride, stride), padding="VALID")(x))
        return nn.relu(nn.Dense(self.width)(x.ravel()))


class NoisyDense(nn.Module):
    """A dense layer with factorised Gaussian noise on its weights (Fortunato et al. 2018, equations 9 to 11).

    Each call with `rngs={"noise": key}` draws its own noise, every layer another; without, the weights are their means.
    `sigma` is the noise's scale at the start, over the square root of the inputs.
    """

    features: int
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        reach = inputs**-0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -reach, reach)

        scale = nn.initializers.constant(self.sigma * reach)
        kernel = self.param("kernel", uniform, (inputs, self.features))
        bias = self.param("bias", uniform, (self.features,))
        kernel_scale = self.param("kernel_scale", scale, (inputs, self.features))
        bias_scale = self.param("bias_scale", scale, (self.features,))
        y = x @ kernel + bias
        if not self.has_rng("noise"):
            return y
        noise = jax.random.normal(self.make_rng("noise"), (inputs + self.features,))
        noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
        into, out = noise[:inputs], noise[inputs:]
        return y + ((x * into) @ kernel_scale) * out + bias_scale * out


class QNetwork(nn.Module):
    """Action values q [A] of one observation: a torso, then a linear head.

    With `dueling` the head is v + a - mean(a) (Wang et al. 2016, equation 9). With `atoms` it gives [A, atoms]: logits
    of a categorical return, or quantiles. With `noisy` its layers are `NoisyDense`; a torso's own are its business.
    """

    num_actions: int
    torso: nn.Module = MLP()
    dueling: bool = False
    atoms: int | None = None
    noisy: bool = False

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = self.torso(obs)
        dense, atoms = NoisyDense if self.noisy else nn.Dense, self.atoms or 1
        advantage = dense(self.num_actions * atoms, name="advantage" if self.dueling else "q")(x)
        advantage = advantage.reshape(self.num_actions, atoms)
        if self.dueling:
            advantage += dense(atoms, name="value")(x)[None] - jnp.mean(advantage, axis=0, keepdims=True)
        return advantage if self.atoms else advantage[:, 0]


class ImplicitQuantiles(nn.Module):
    """Quantiles of the return of each action at any fractions (Dabney, Ostrovski et al. 2018, equation 4).

    (obs, fractions [K]) -> [K, A]: the torso's features times a ReLU layer of cos(pi i fraction), i below `cosines`;
    the head is a `QNetwork`. Without fractions, as at initialisation, it takes one half. With `proposals` N it then
    proposes its own: ends of intervals [N + 1] from 0 to 1, and the quantiles [N, A] at their middles (Yang et al.
    2019); what proposes learns nothing from the quantiles, and they nothing from it.
    """

    num_actions: int
    torso: nn.Module = MLP()
    hidden: Sequence[int] = ()
    cosines: int = 64
    dueling: bool = False
    noisy: bool = False
    proposals: int | None = None

    @nn.compact
    def __call__(self, obs: PyTree, fractions: Array | None = None) -> Array | tuple[Array, Array]:
        features = self.torso(obs)
        ends = None
        if fractions is None and self.proposals:
            even = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")
            logits = nn.Dense(self.proposals, kernel_init=even, name="fractions")(jax.lax.stop_gradient(features))
            ends = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(logits))])
            fractions = jax.lax.stop_gradient((ends[1:] + ends[:-1]) / 2)
        fractions = jnp.full(1, 0.5) if fractions is None else fractions
        angles = jnp.pi * jnp.arange(self.cosines)[None] * fractions[:, None]
        embedding = nn.relu(nn.Dense(features.shape[-1], name="embedding")(jnp.cos(angles)))
        head = QNetwork(self.num_actions, MLP(self.hidden), self.dueling, noisy=self.noisy, name="head")
        quantiles = jax.vmap(head)(features[None] * embedding)
        return quantiles if ends is None else (ends, quantiles)
