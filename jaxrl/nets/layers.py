"""What networks are made of."""

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
