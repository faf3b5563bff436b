"""Heads: a torso's features -> action values or their distribution, float32 whatever they compute in."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import Array

from jaxrl import checks
from jaxrl.nets.layers import dense
from jaxrl.nets.torsos import MLP
from jaxrl.types import PyTree


class QNetwork(nn.Module):
    """Action values q [A] of one observation: a torso, then a linear head.

    With `dueling` the head is v + a - mean(a) (Wang et al. 2016, equation 9). With `atoms` it gives [A, atoms]: logits
    of a categorical return, or quantiles. With `noisy` its layers are `NoisyDense`; a torso's own are its business.
    Raises ValueError for a noisy torso below a head that is not, and for noisy layers without bias.
    """

    num_actions: int
    torso: nn.Module = MLP()
    dueling: bool = False
    atoms: int | None = None
    noisy: bool = False
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        _check_noise(self.torso, self.noisy)
        if self.noisy and not self.use_bias:
            raise ValueError("noisy layers have a bias; use use_bias=True, or noisy=False")
        x, atoms = self.torso(obs), self.atoms or 1

        def linear(features: int, name: str) -> Array:
            y = dense(features, self.noisy, self.kernel_init, self.dtype, self.use_bias, name)(x)
            return y.astype(jnp.promote_types(y.dtype, jnp.float32))

        advantage = linear(self.num_actions * atoms, "advantage" if self.dueling else "q")
        advantage = advantage.reshape(self.num_actions, atoms)
        if self.dueling:
            advantage += linear(atoms, "value")[None] - jnp.mean(advantage, axis=0, keepdims=True)
        return advantage if self.atoms else advantage[:, 0]


class ImplicitQuantiles(nn.Module):
    """Quantiles of the return of each action at any fractions (Dabney, Ostrovski et al. 2018, equation 4).

    (obs, fractions [K]) -> [K, A]: the torso's features times a ReLU layer of cos(pi i fraction), i below `cosines`;
    the head is a `QNetwork`. Without fractions, as at initialisation, it takes one half. With `proposals` N it then
    proposes its own: ends of intervals [N + 1] from 0 to 1, and the quantiles [N, A] at their middles (Yang et al.
    2019); what proposes learns nothing from the quantiles, and they nothing from it. Raises ValueError for fewer than
    one of the cosines.
    """

    num_actions: int
    torso: nn.Module = MLP()
    hidden: Sequence[int] = ()
    cosines: int = 64
    dueling: bool = False
    noisy: bool = False
    proposals: int | None = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: PyTree, fractions: Array | None = None) -> Array | tuple[Array, Array]:
        _check_noise(self.torso, self.noisy)
        checks.at_least("cosines", self.cosines, 1)
        features = self.torso(obs)
        ends = None
        if fractions is None and self.proposals:
            even = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")
            logits = nn.Dense(self.proposals, kernel_init=even, name="fractions")(jax.lax.stop_gradient(features))
            ends = jnp.concatenate([jnp.zeros(1, logits.dtype), jnp.cumsum(jax.nn.softmax(logits))])
            fractions = jax.lax.stop_gradient((ends[1:] + ends[:-1]) / 2)
        fractions = jnp.full(1, 0.5, jnp.float32) if fractions is None else fractions
        angles = jnp.pi * jnp.arange(self.cosines)[None] * fractions[:, None]
        layer = dense(features.shape[-1], False, self.kernel_init, self.dtype, name="embedding")
        embedding = nn.relu(layer(jnp.cos(angles)))
        hidden = MLP(self.hidden, noisy=self.noisy, kernel_init=self.kernel_init, dtype=self.dtype)
        head = QNetwork(
            self.num_actions,
            hidden,
            self.dueling,
            noisy=self.noisy,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="head",
        )
        every = nn.vmap(
            lambda head, x: head(x),
            variable_axes={"params": None, "intermediates": 0},
            split_rngs={"params": False, "noise": False},
        )
        quantiles = every(head, features[None] * embedding)
        return quantiles if ends is None else (ends, quantiles)


def _check_noise(torso: nn.Module, noisy: bool) -> None:
    if getattr(torso, "noisy", False) and not noisy:
        raise ValueError("the torso is noisy and the head is not: no noise would be drawn; give the head noisy=True")
