"""Heads: a torso's features -> action values, or their distribution."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.nets.layers import NoisyDense
from jaxrl.nets.torsos import MLP
from jaxrl.types import PyTree


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
