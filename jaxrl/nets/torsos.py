"""Torsos: one observation -> features."""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jax import Array

from jaxrl.nets.layers import as_floats
from jaxrl.types import PyTree


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
