"""Torsos: one observation -> features.

Weights start from flax's default (LeCun et al. 1998, normal) but where a class says otherwise; Dopamine's agents take
`kernel_init=nn.initializers.xavier_uniform()`. With `dtype=jnp.bfloat16` a torso computes in it; its parameters stay
float32. With `noisy` its fully connected layers are `NoisyDense`, each with noise of its own.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Initializer
from jax import Array

from jaxrl.nets.layers import Conv3x3, active, as_floats, dense, layer_norm
from jaxrl.types import PyTree


class MLP(nn.Module):
    """Fully connected layers with ReLU, or another `activation`: any observation -> [hidden[-1]].

    With `one_hot` the observation is an integer below it, as of a Discrete space. With `layer_norm` each layer is
    normalised before its activation (Gallici et al. 2024). A `basis`, such as `Fourier`, stands before the layers.
    """

    hidden: Sequence[int] = (120, 84)
    one_hot: int | None = None
    basis: nn.Module | None = None
    layer_norm: bool = False
    noisy: bool = False
    activation: Callable[[Array], Array] = nn.relu
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = as_floats(obs).ravel() if self.one_hot is None else jax.nn.one_hot(obs, self.one_hot, dtype=jnp.float32)
        x = x if self.basis is None else self.basis(x)
        for width in self.hidden:
            x = dense(width, self.noisy, self.kernel_init, self.dtype)(x)
            x = active(self, layer_norm(self.dtype)(x) if self.layer_norm else x, self.activation)
        return x


class MinAtarConv(nn.Module):
    """One 3x3 convolution of 16 channels and a dense layer, for [10, 10, C] (Young & Tian 2019, section 4).

    With `layer_norm` both are normalised over their channels before the ReLU and, unless told otherwise, start from
    He's initialiser, as in the code of Gallici et al. (2024). Without a `width` there is no dense layer, as in
    Dopamine.
    """

    width: int | None = 128
    layer_norm: bool = False
    noisy: bool = False
    kernel_init: Initializer | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        usual = nn.initializers.he_normal() if self.layer_norm else nn.initializers.lecun_normal()
        init = self.kernel_init or usual
        x = Conv3x3(16, init, self.dtype, name="Conv_0")(as_floats(obs))
        x = active(self, layer_norm(self.dtype)(x) if self.layer_norm else x).ravel()
        if self.width is None:
            return x
        x = dense(self.width, self.noisy, init, self.dtype)(x)
        return active(self, layer_norm(self.dtype)(x) if self.layer_norm else x)


class NatureConv(nn.Module):
    """The torso of Mnih et al. (2015) for [84, 84, stack] images."""

    width: int = 512
    noisy: bool = False
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = as_floats(obs)
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            window, strides = (size, size), (stride, stride)
            x = nn.Conv(channels, window, strides, "VALID", dtype=self.dtype, kernel_init=self.kernel_init)(x)
            x = active(self, x)
        return active(self, dense(self.width, self.noisy, self.kernel_init, self.dtype)(x.ravel()))


class ImpalaConv(nn.Module):
    """The deep residual torso of Espeholt et al. (2018, figure 3) for images [H, W, C], without its LSTM.

    Each of `channels` is a convolution, a pooling that halves the image, and two residual blocks of two convolutions.
    Dopamine's has a `width` of 512.
    """

    channels: Sequence[int] = (16, 32, 32)
    width: int = 256
    noisy: bool = False
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        def convolve(x: Array, channels: int) -> Array:
            return nn.Conv(channels, (3, 3), dtype=self.dtype, kernel_init=self.kernel_init)(x)

        x = as_floats(obs)
        for channels in self.channels:
            x = nn.max_pool(convolve(x, channels), (3, 3), (2, 2), "SAME")
            for _ in range(2):
                x += convolve(nn.relu(convolve(nn.relu(x), channels)), channels)
        return active(self, dense(self.width, self.noisy, self.kernel_init, self.dtype)(nn.relu(x).ravel()))


class Fourier(nn.Module):
    """The Fourier basis (Konidaris et al. 2011, equation 4): cos(pi c.x) for every c in {0 .. order}^n but 0.

    x is the observation [n], scaled to [0, 1] between `low` and `high`, its limits as numbers. The features,
    [(order + 1)^n - 1], have no parameters; the constant that the paper has as one more is the bias of a head, which
    Dopamine leaves out (`QNetwork(use_bias=False)`). Raises ValueError for limits that are not finite, not in order
    or not n, and for an order below 1.
    """

    low: Sequence[float]
    high: Sequence[float]
    order: int = 3

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        x = as_floats(obs).ravel()
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        if self.order < 1:
            raise ValueError(f"Fourier: order is {self.order}; it must be at least 1")
        if low.shape != x.shape or high.shape != x.shape:
            raise ValueError(
                f"Fourier: {len(self.low)} lower and {len(self.high)} upper limits for an observation of {x.size} "
                "numbers; give one of each for every number"
            )
        if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(self.low, self.high)):
            raise ValueError(
                f"Fourier: low is {self.low} and high {self.high}; the limits must be finite and low below high: give "
                "those that an episode reaches"
            )
        multipliers = np.array(list(itertools.product(range(self.order + 1), repeat=x.size))[1:], np.float32)
        # accelerators would round the factors to fewer bits
        turns = jnp.matmul(multipliers, (x - low) / (high - low), precision="highest")
        return jnp.cos(jnp.pi * turns)
