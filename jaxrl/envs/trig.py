"""Sine, cosine and wrapping of angles for the physics of environments, fast in float32.

The library's sine and cosine cost more than the rest of a light environment. Here the angle is first reduced to
[-pi/2, pi/2], where polynomials hold, so no bound on it need be known: thresholds may be overridden or
traced, and a step may start anywhere. float64 takes the library's.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def sincos(angle: ArrayLike) -> tuple[Array, Array]:
    """Sine and cosine; of float32 within 3e-7 for any angle up to 10,000 rad, and within [-1, 1] for all."""
    angle = jnp.asarray(angle)
    if angle.dtype != jnp.float32:
        return jnp.sin(angle), jnp.cos(angle)
    turns = jnp.round(angle * (1 / math.pi))  # half turns
    reduced = jnp.clip(_less(angle, turns), -math.pi / 2, math.pi / 2)  # beyond 1e8 rad float32 has no angle left
    sign = 1.0 - 2.0 * (turns - 2.0 * jnp.floor(turns * 0.5))  # -1 after an odd number of half turns
    square = reduced * reduced
    return sign * reduced * _polynomial(_SIN, square), sign * _polynomial(_COS, square)


def wrap(angle: ArrayLike) -> Array:
    """The same angle within [-pi, pi]."""
    angle = jnp.asarray(angle)
    return _less(angle, 2.0 * jnp.round(angle * (0.5 / math.pi)))


def select_stack(values: Sequence[Array]) -> Array:
    """`jnp.stack` of scalars by selection: where these are sines and cosines, XLA vectorises this and not that."""
    index = jax.lax.iota(jnp.int32, len(values))
    stacked = jnp.broadcast_to(values[-1], index.shape)
    for i, value in enumerate(values[:-1]):
        stacked = jnp.where(index == i, value, stacked)
    return stacked


def _less(angle: Array, half_turns: Array) -> Array:
    for part in _PI_PARTS if angle.dtype == jnp.float32 else (math.pi,):
        angle = angle - half_turns * part
    return angle


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Horner's rule, constant coefficient first."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


# sin(a) / a and cos(a) in a^2, minimax on [0, (pi/2)^2]: off by 1e-7. The sine leans low, so that rounding
# cannot take it beyond 1
_SIN = (1.0, -0.166666571, 0.00833301667, -0.000198072115, 2.60084408e-06)
_COS = (1.0, -0.499999323, 0.0416639895, -0.00138559272, 2.31943861e-05)
# pi in parts of few bits, so that the product with a number of half turns is exact (Cody and Waite 1980)
_PI_PARTS = (3.140625, 9.6702575683593750e-4, 6.278329465203569e-7)
