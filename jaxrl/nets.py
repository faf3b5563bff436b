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

    With `one_hot` the observation is an integer below it, as of a Discrete space.
    """

    hidden: Sequence[int] = (120, 84)
    one_hot: int | None = None

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = as_floats(obs).ravel() if self.one_hot is None else jax.nn.one_hot(obs, self.one_hot)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return x


class MinAtarConv(nn.Module):
    """One 3x3 convolution of 16 channels and a dense layer, for [10, 10, C] (Young & Tian 2019, section 4)."""

    width: int = 128

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(as_floats(obs)))
        return nn.relu(nn.Dense(self.width)(x.ravel()))


class NatureConv(nn.Module):
    """The torso of Mnih et al. (2015) for [84, 84, stack] images."""

    width: int = 512

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = as_floats(obs)
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(channels, (size, size), (stride, stride), padding="VALID")(x))
        return nn.relu(nn.Dense(self.width)(x.ravel()))


class QNetwork(nn.Module):
    """Action values q [A] of one observation: a torso, then a linear head.

    With `dueling` the head is v + a - mean(a) (Wang et al. 2016, equation 9).
    """

    num_actions: int
    torso: nn.Module = MLP()
    dueling: bool = False

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = self.torso(obs)
        advantage = nn.Dense(self.num_actions, name="advantage" if self.dueling else "q")(x)
        if not self.dueling:
            return advantage
        return nn.Dense(1, name="value")(x) + advantage - jnp.mean(advantage, axis=-1, keepdims=True)
