"""A fast counter-based generator behind jax.random's own API.

`key(seed)` makes a new-style typed key. Everything in `jax.random` then works on it as on any other key, also
under jit, vmap, scan and shard_map, except `jax.random.poisson`, which jax has for threefry keys only.
Threefry keys stay what they are: nothing here changes a default of jax.

A key is two uint32 words. One block maps a key, a counter and a domain to 64 bits in 20 integer operations
(14 for the 32 bits of one draw), against more than 100 of threefry. It is a Weyl sequence on the counter,
then rounds of xor-shift and multiplication that alternate between the words. The multipliers are those of C.
Wellons' lowbias32 and triple32, https://nullprogram.com/blog/2018/07/31/. By construction:

* For a fixed counter the block is a bijection of the key, so that repeated splitting never merges two chains.
* For a fixed key, the 64-bit blocks of all counters and all domains are distinct: children, folded keys and
  draws never meet. A 32-bit draw is half a block and does repeat, as it must.
* The counter enters twice, with a multiplication in between, so that no key's stream is another key's stream
  shifted by fewer than 2**31 draws.

`benchmarks/prng` holds the statistical screen that it passed. It is no cryptographic generator.
"""

import math
import operator
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.random import define_prng_impl

NAME = "weylmix2x32"  # written into checkpoints: to change any stream is to change the name

Block = Callable[[Any, Any, Any, Any], tuple[Any, Any]]

_U = np.uint32
_WEYL = 0x9E3779B9
_DRAW, _SPLIT, _FOLD, _SEED = _U(0x428A2F98), _U(0x71374491), _U(0xB5C0FBCF), _U(0xE9B5DBA5)


def block(k0: Any, k1: Any, weyl: Any, domain: Any) -> tuple[Any, Any]:
    """64 bits of key `(k0, k1)` at a counter, given as `weyl` = counter * 0x9E3779B9; uint32, any shape."""
    x = k0 + weyl
    x = (x ^ (x >> _U(16))) * _U(0x7FEB352D)
    y = k1 + (x ^ (weyl ^ domain))
    y = (y ^ (y >> _U(15))) * _U(0x846CA68B)
    x = x + y
    x = (x ^ (x >> _U(16))) * _U(0xAC4C1B51)
    x = x ^ (x >> _U(15))
    y = y + x
    y = (y ^ (y >> _U(16))) * _U(0x31848BAB)
    return x, y ^ (y >> _U(16))


def weyl_steps(shape: tuple[int, ...]) -> Any:
    """The row-major counters of `shape`, each times the Weyl constant, uint32.

    Made by iota alone, so that each device can make its part of a sharded draw.
    """
    if math.prod(shape) > 2**32:
        raise ValueError(f"one key makes at most 2**32 numbers; got shape {shape}: split the key first")
    steps = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1:
            steps = steps + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * _U(_WEYL * stride % 2**32)
        stride *= shape[axis]
    return steps


def implementation(block: Block, name: str, tag: str) -> Hashable:
    """The jax key implementation that draws from `block`, for the `impl=` of `jax.random.key`."""

    @partial(jax.jit, inline=True)
    def seed(seed):
        low = seed.astype(jnp.uint32)
        high = _U(0)
        if seed.dtype.itemsize > 4:
            high = jax.lax.shift_right_logical(seed, np.asarray(32, seed.dtype)).astype(jnp.uint32)
        return jnp.stack(block(low, high, _U(0), _SEED))

    @partial(jax.jit, static_argnums=1, inline=True)
    def split(key, shape):
        return jnp.stack(block(key[0], key[1], weyl_steps(shape), _SPLIT), axis=-1)

    @partial(jax.jit, inline=True)
    def fold_in(key, data):
        return jnp.stack(block(key[0], key[1], data.astype(jnp.uint32) * _U(_WEYL), _FOLD))

    @partial(jax.jit, static_argnums=(1, 2), inline=True)
    def random_bits(key, bit_width, shape):
        x, y = block(key[0], key[1], weyl_steps(shape), _DRAW)
        if bit_width == 64:
            return x.astype(jnp.uint64) << np.uint64(32) | y.astype(jnp.uint64)
        return x if bit_width == 32 else (x >> _U(32 - bit_width)).astype(f"uint{bit_width}")

    return define_prng_impl(
        key_shape=(2,), seed=seed, split=split, random_bits=random_bits, fold_in=fold_in, name=name, tag=tag
    )


IMPL = implementation(block, NAME, "wm")


def key(seed: Any) -> jax.Array:
    """A typed key of this generator from one integer seed in 0..2**32-1; distinct seeds give distinct keys.

    A traced integer passes unchecked. Raises ValueError for anything else.
    """
    allowed = "seed must be one integer in 0..2**32-1"
    if isinstance(seed, Tracer):
        if seed.ndim or not jnp.issubdtype(seed.dtype, jnp.integer):
            raise ValueError(f"{allowed}; got a traced {seed.dtype}{list(seed.shape)}")
        return jax.random.key(seed, impl=IMPL)
    try:
        value = -1 if isinstance(seed, bool) or np.ndim(seed) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**32:
        raise ValueError(f"{allowed}; got {seed!r}")
    return jax.random.key(_U(value), impl=IMPL)


def key_to_array(key: jax.Array) -> tuple[np.ndarray, str]:
    """The words of a typed key, or of a batch, as uint32 `[..., words]`, and its implementation's name."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"expected a typed key, as jaxrl.key makes; got {type(key).__name__}")
    impl: Any = jax.random.key_impl(key)
    name = NAME if impl == IMPL else impl
    if not isinstance(name, str):
        raise ValueError(f"cannot name the key implementation {impl!r}; known are {NAME!r} and jax's own")
    return np.asarray(jax.random.key_data(key)), name


def key_from_array(data: Any, name: str) -> jax.Array:
    """The keys that `key_to_array` wrote. Raises ValueError for an unknown name or words that do not fit."""
    data = np.asarray(data)
    try:
        if not isinstance(name, str):
            raise TypeError("a name is a string")  # None would be whatever jax's default is by now
        return jax.random.wrap_key_data(jnp.asarray(data), impl=IMPL if name == NAME else name)
    except (TypeError, ValueError) as error:
        got = f"name {name!r} with {data.dtype}{list(data.shape)}"
        allowed = f"{NAME!r} with uint32[..., 2], or one of jax's own, as 'threefry2x32', with its words"
        raise ValueError(f"these are no keys: got {got}; allowed is {allowed}") from error
