"""What networks are made of."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import Array, lax

from jaxrl.types import PyTree

NARROW = 16  # most outputs of a layer whose kernel is turned


def as_floats(obs: PyTree) -> Array:
    """An observation as float32: a pytree is flattened and joined, unsigned bytes are scaled to [0, 1]."""
    leaves = jax.tree.leaves(obs)
    floats = [leaf.astype(jnp.float32) / (255.0 if leaf.dtype == jnp.uint8 else 1.0) for leaf in leaves]
    return floats[0] if len(floats) == 1 else jnp.concatenate([leaf.ravel() for leaf in floats])


class NoisyDense(nn.Module):
    """A dense layer with factorised Gaussian noise on its weights (Fortunato et al. 2018, equations 9 to 11).

    Each call with `rngs={"noise": key}` draws its own noise, every layer another; without, the weights are their means.
    `sigma` is the noise's scale at the start, over the square root of the inputs.
    """

    features: int
    sigma: float = 0.5
    dtype: Dtype | None = None

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
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = x @ kernel + bias
        if not self.has_rng("noise"):
            return y
        noise = jax.random.normal(self.make_rng("noise"), (inputs + self.features,))
        noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
        noise, kernel_scale, bias_scale = promote_dtype(noise, kernel_scale, bias_scale, dtype=y.dtype)
        into, out = noise[:inputs], noise[inputs:]
        return y + ((x * into) @ kernel_scale) * out + bias_scale * out


class Conv3x3(nn.Module):
    """A 3x3 convolution without padding, [H, W, C] -> [H - 2, W - 2, features]: `nn.Conv`, with its parameters.

    For small images with few channels that need no gradient, as MinAtar's: on CPU it is nine slices and one matrix
    product, there several times as fast as XLA's convolution (and no faster in the other torsos).
    """

    features: int
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return lax.platform_dependent(x, kernel, cpu=_slices, default=_convolution) + bias[None, None]


def _slices(x: Array, kernel: Array) -> Array:
    height, width = x.shape[0] - 2, x.shape[1] - 2
    near = [x[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(near, axis=-1) @ _turned(kernel.reshape(-1, kernel.shape[-1]))


def _convolution(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def dense(
    features: int,
    noisy: bool,
    kernel_init: Initializer,
    dtype: Dtype | None,
    use_bias: bool = True,
    name: str | None = None,
) -> nn.Module:
    """A fully connected layer of the module whose `__call__` asks for it; noisy layers start as their paper says."""
    if noisy:
        return NoisyDense(features, dtype=dtype, name=name)
    product = _narrow if features <= NARROW else None
    return nn.Dense(features, use_bias, dtype=dtype, kernel_init=kernel_init, name=name, dot_general=product)


def _narrow(x: Array, kernel: Array, dimensions: lax.DotDimensionNumbers, precision: lax.PrecisionLike) -> Array:
    """x @ kernel for few columns."""
    kernel = lax.platform_dependent(kernel, cpu=_turned, default=lambda kernel: kernel)
    return lax.dot_general(x, kernel, dimensions, precision)


def _turned(kernel: Array) -> Array:
    """The same kernel, whose gradient XLA on CPU computes in down to a tenth of the time where it has few columns.

    It would pack all of a batch's features, column by column, for the few that they are multiplied with.
    """
    return lax.optimization_barrier(kernel.T).T


def layer_norm(dtype: Dtype | None) -> nn.Module:
    """Layer normalisation; squares are of what is centred, which is exact where means are large, and faster on CPU."""
    return nn.LayerNorm(use_fast_variance=False, dtype=dtype)


def active(module: nn.Module, x: Array, activation: Callable[[Array], Array] = nn.relu) -> Array:
    """An activation, whose result the module also sows as an intermediate, for those who ask what its units do."""
    x = activation(x)
    module.sow("intermediates", "active", x)
    return x
