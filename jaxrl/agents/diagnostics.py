"""What more an agent can tell of its learning: measures that cost nothing where nobody asks for them.

A measure is a function (state after an update, its sample, its priorities [B]) -> metrics; anyone may write one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrl import checks, explore
from jaxrl.types import Agent, Metrics, PyTree, Sample

Measure = Callable[[PyTree, Sample, Array], Metrics]
_NORM = "gradient_norm"


def with_metrics(agent: Agent, *measures: Measure) -> Agent:
    """The agent, whose updates also report what `measures` find. Raises ValueError for a name that is taken."""

    def update(state: PyTree, sample: Sample, key: Array, steps: Array) -> tuple[PyTree, Array, Metrics]:
        state, priority, metrics = agent.update(state, sample, key, steps)
        for measure in measures:
            found = measure(state, sample, priority)
            taken = sorted(metrics.keys() & found.keys())
            if taken:
                raise ValueError(f"with_metrics: {taken[0]!r} is a metric already; give the measure another name")
            metrics = metrics | found
        return state, priority, metrics

    return agent._replace(update=update)


def priorities(state: PyTree, sample: Sample, priority: Array) -> Metrics:
    """A measure: the batch's mean and largest priority, for most agents the size of their TD errors."""
    del state, sample
    return {"priority": jnp.mean(priority), "largest_priority": jnp.max(priority)}


def measured(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser, which keeps the norm of the last gradient it was given, for `gradient_norm`."""
    return optax.chain(optax.snapshot(_NORM, optax.tree.norm), optimizer)


def gradient_norm(state: PyTree, sample: Sample, priority: Array) -> Metrics:
    """A measure: the global norm of the update's last gradient, of an agent whose optimiser is `measured`."""
    del sample, priority
    norm = optax.tree.get(state.optimizer, _NORM)
    if norm is None:
        raise ValueError("gradient_norm: the agent's optimizer keeps no norm; give it diagnostics.measured(optimizer)")
    return {_NORM: norm}


def dormant(network: Any, threshold: float = 0.025) -> Measure:
    """A measure: the share of hidden units that do next to nothing (Sokar et al. 2023, definition 3.1).

    A unit is dormant whose mean |activation| over the batch is at most `threshold` of its layer's mean. `network` is a
    flax module whose layers `sow` what they give as intermediates "active", as those in `nets` do; one with memory sees
    each observation as an episode's first. One that sows nothing has no dormant units to tell of: ValueError.
    """
    checks.in_range("dormant: threshold", threshold, 0, 1)

    def measure(state: PyTree, sample: Sample, priority: Array) -> Metrics:
        del priority
        first = jax.tree.map(lambda leaf: leaf[:, 0], sample.window.obs)

        def activations(obs: PyTree) -> list[Array]:
            observation, _ = explore.split_mask(obs)
            memory = (network.start(),) if hasattr(network, "start") else ()
            _, seen = network.apply(state.params, *memory, observation, mutable=["intermediates"])
            return jax.tree.leaves(seen)

        layers = jax.vmap(activations)(first)
        if not layers:
            raise ValueError("dormant: the network sows no intermediates; use one of jaxrl.nets")
        shares = []
        for layer in layers:
            size = jnp.mean(jnp.abs(layer.reshape(layer.shape[0], -1, layer.shape[-1])), axis=(0, 1))
            shares.append(size <= threshold * jnp.mean(size))
        return {"dormant_share": jnp.mean(jnp.concatenate(shares), dtype=jnp.float32)}

    return measure
