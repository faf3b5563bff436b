"""Networks with memory, for ONE observation: (params, carry, obs) -> (q [A], carry)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.nets.heads import QNetwork
from jaxrl.nets.torsos import MLP
from jaxrl.types import PyTree


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, as cuDNN has it: the reset gate acts after the multiplication).

    r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r (U h + c)), h' = (1 - z) n + z h. The part of an observation,
    `drive`, does not need h: it may be computed for many steps at once. With `span` the biases of z are such that a
    memory lasts for 2 to `span` steps at the start (Tallec and Ollivier 2018, section 2).
    """

    width: int
    span: float | None = None

    def setup(self) -> None:
        orthogonal, zeros = nn.initializers.orthogonal(), nn.initializers.zeros_init()
        self.inputs = nn.Dense(3 * self.width, bias_init=_blocks(3, zeros, _lasting(self.span), zeros))
        self.kernel = self.param("kernel", _blocks(3, orthogonal), (self.width, 3 * self.width))
        self.bias = self.param("bias", zeros, (self.width,), jnp.float32)

    @nn.nowrap
    def start(self) -> Array:
        return jnp.zeros(self.width, jnp.float32)

    def drive(self, x: Array) -> Array:
        return self.inputs(x)

    def advance(self, carry: Array, drive: Array) -> tuple[Array, Array]:
        from_x, from_h = jnp.split(drive, 3), jnp.split(carry @ self.kernel, 3)
        reset, keep = (nn.sigmoid(x + h) for x, h in zip(from_x[:2], from_h[:2], strict=True))
        new = jnp.tanh(from_x[2] + reset * (from_h[2] + self.bias))
        carry = new + keep * (carry - new)
        self.sow("intermediates", "active", carry)
        return carry, carry


class LSTM(nn.Module):
    """A long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c' = f c + i g, h' = o tanh(c'); the carry is (c, h).
    `drive` and `span` as in `GRU`, with the biases of f and, negative, of i.
    """

    width: int
    span: float | None = None

    def setup(self) -> None:
        orthogonal = nn.initializers.orthogonal()

        def biases(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
            lasting = _lasting(self.span)(key, (self.width,), dtype)
            return jnp.concatenate([-lasting, lasting, jnp.zeros(shape[0] - 2 * self.width, dtype)])

        self.inputs = nn.Dense(4 * self.width, bias_init=biases)
        self.kernel = self.param("kernel", _blocks(4, orthogonal), (self.width, 4 * self.width))

    @nn.nowrap
    def start(self) -> tuple[Array, Array]:
        return jnp.zeros(self.width, jnp.float32), jnp.zeros(self.width, jnp.float32)

    def drive(self, x: Array) -> Array:
        return self.inputs(x)

    def advance(self, carry: tuple[Array, Array], drive: Array) -> tuple[tuple[Array, Array], Array]:
        cell, hidden = carry
        write, keep, new, show = jnp.split(drive + hidden @ self.kernel, 4)
        cell = nn.sigmoid(keep) * cell + nn.sigmoid(write) * jnp.tanh(new)
        hidden = nn.sigmoid(show) * jnp.tanh(cell)
        self.sow("intermediates", "active", hidden)
        return (cell, hidden), hidden


class RecurrentQNetwork(nn.Module):
    """Action values of an observation and what came before it: a torso, a cell, a linear head as `QNetwork` has it.

    `cell` is a `GRU`, an `LSTM`, or a module with their methods. `start()` is the memory at an episode's start.
    """

    num_actions: int
    torso: nn.Module = MLP()
    cell: Any = GRU(64)
    dueling: bool = False

    def setup(self) -> None:
        if getattr(self.torso, "noisy", False):
            raise ValueError("the torso is noisy, but no noise is drawn for networks with memory; use noisy=False")
        self.head = QNetwork(self.num_actions, MLP(()), self.dueling)

    @nn.nowrap
    def start(self) -> PyTree:
        return self.cell.start()

    def __call__(self, carry: PyTree, obs: PyTree) -> tuple[Array, PyTree]:
        carry, features = self.cell.advance(carry, self.drive(obs))
        return self.head(features), carry

    def drive(self, obs: PyTree) -> Array:
        """What an observation does to the memory, whatever that is."""
        return self.cell.drive(self.torso(obs))

    def advance(self, carry: PyTree, drive: Array) -> tuple[PyTree, Array]:
        return self.cell.advance(carry, drive)

    def read(self, features: Array) -> Array:
        return self.head(features)

    @nn.nowrap
    def unroll(self, params: PyTree, carry: PyTree, obs: PyTree, ended: Array) -> tuple[Array, PyTree, PyTree]:
        """(q [T, A], the memory after each step [T, ...], the memory that goes on) of observations [T, ...].

        The memory starts anew after a step that `ended` [T] an episode. It is `apply` step after step; only the cell is
        computed so, torso and head for all steps at once.
        """

        apply: Any = self.apply

        def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, tuple[PyTree, Array]]:
            drive, ended = now
            after, features = apply(params, carry, drive, method="advance")
            following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), self.start(), after)
            return following, (after, features)

        drives = jax.vmap(lambda obs: apply(params, obs, method="drive"))(obs)
        carry, (after, features) = jax.lax.scan(step, carry, (drives, ended))
        return jax.vmap(lambda features: apply(params, features, method="read"))(features), after, carry


def _lasting(span: float | None) -> Callable[..., Array]:
    """Biases b for which 1 / (1 - sigmoid(b)), the steps that a memory lasts, is uniform from 2 to `span`."""

    def biases(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        if span is None:
            return jnp.zeros(shape, dtype)
        return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, span - 1.0))

    return biases


def _blocks(number: int, *initializers: Callable[..., Array]) -> Callable[..., Array]:
    """Weights whose last axis is `number` blocks, each drawn by its initializer, or all by the one there is."""

    def weights(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        block, keys = (*shape[:-1], shape[-1] // number), jax.random.split(key, number)
        makers = initializers * (number // len(initializers))
        return jnp.concatenate([make(key, block, dtype) for make, key in zip(makers, keys, strict=True)], axis=-1)

    return weights
