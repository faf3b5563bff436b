"""What agents with a recurrent network share: its memory is the agent's carry, and windows are unrolled from it.

The loop stores the memory that the agent had where a window starts and resets it where an episode ends; an unroll does
the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import explore
from jaxrl.agents import value
from jaxrl.types import PyTree, Transition


class Network(Protocol):
    """What `nets.RecurrentQNetwork` is, and all that is asked of a network with memory.

    One that unrolls a window sooner than step by step has `unroll(params, carry, obs [T], ended [T])` too, which gives
    (q [T, A], memory after each step [T, ...], memory that goes on): see `unroll`.
    """

    def start(self) -> PyTree: ...  # the memory at an episode's start
    def init(self, key: Array, carry: PyTree, obs: PyTree, /) -> PyTree: ...
    def apply(self, params: PyTree, carry: PyTree, obs: PyTree, /) -> Any: ...  # (q [A], carry)


class Unrolled(NamedTuple):
    """What a network says along a window."""

    q: Array  # [T, A] at obs
    after: PyTree  # [T, ...] the memory after each step, before any reset: what goes with next_obs
    carry: PyTree  # the memory after the window, a new one if its last step ended an episode


def values(network: Network) -> value.Values:
    """A network as `value.exploring` takes it."""

    def look(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        del key
        observation, _ = explore.split_mask(obs)
        return network.apply(params, carry, observation)

    return look


def carry(network: Network) -> Callable[[int], PyTree]:
    """`Agent.carry` of a network: its memory at an episode's start, for N environments."""

    def starts(num_envs: int) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_envs, *jnp.shape(leaf))), network.start())

    return starts


def init(network: Network) -> Callable[[Array, PyTree], PyTree]:
    """(key, obs) -> params, with a ValueError where the network does not give (q [A], a memory like `start`'s)."""

    def form(tree: PyTree) -> Any:
        return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)

    def params_of(key: Array, obs: PyTree) -> PyTree:
        memory = jax.tree.map(jnp.asarray, network.start())
        params = network.init(key, memory, obs)
        found = jax.eval_shape(network.apply, params, memory, obs)
        given = form(found)
        fits = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], jax.ShapeDtypeStruct)
        if not fits or len(found[0].shape) != 1 or given[1] != form(memory):
            raise ValueError(
                f"the network gives {given} for one observation; it must give (q [A], carry), the carry like that of "
                f"start(), {form(memory)}"
            )
        return params

    return params_of


def unroll(network: Any, params: PyTree, carry: PyTree, window: Transition) -> Unrolled:
    """What the network says along a window [T] from the memory before its first step; new episodes start anew."""
    if jax.tree.structure(carry) != jax.tree.structure(network.start()):
        raise ValueError(
            "the buffer's windows hold no memory of the network's kind: make the buffer with carry=True, and fill it "
            "by this agent"
        )
    obs, _ = explore.split_mask(window.obs)
    ended = window.terminated | window.truncated
    if hasattr(network, "unroll"):
        return Unrolled(*network.unroll(params, carry, obs, ended))

    def step(carry: PyTree, now: tuple[PyTree, Array]) -> tuple[PyTree, tuple[Array, PyTree]]:
        obs, ended = now
        q, after = network.apply(params, carry, obs)
        following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), network.start(), after)
        return following, (q, after)

    carry, (q, after) = jax.lax.scan(step, carry, (obs, ended))
    return Unrolled(q, after, carry)


def ahead(network: Network, params: PyTree, after: PyTree, window: Transition) -> Array:
    """q [T, A] at the true next observations of a window, by the memory after each of its steps."""
    obs, _ = explore.split_mask(window.next_obs)
    return jax.vmap(lambda carry, obs: network.apply(params, carry, obs)[0])(after, obs)
