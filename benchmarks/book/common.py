"""What the chapters share: many runs at once, a seed and a setting each, looked at step by step."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

import jaxrl
from jaxrl.train import Run, RunState
from jaxrl.types import Metrics, PyTree

# (setting) -> the run of one learner; a setting is any pytree, of traced arrays
Make = Callable[[Any], Run]


def keys(number: int, seed: int = 0) -> Array:
    """A key for each run."""
    return jax.random.split(jaxrl.key(seed), number)


def every(settings: PyTree, runs: int) -> PyTree:
    """Each setting `runs` times, [settings x runs]: reshape results to [settings, runs]."""
    return jax.tree.map(lambda leaf: jax.numpy.repeat(leaf, runs, axis=0), settings)


def begin(make: Make, settings: PyTree, keys: Array) -> RunState:
    """The states [M] of runs that took no step."""
    one = jax.tree.map(lambda leaf: leaf[0], settings)
    return jax.vmap(lambda setting, key: make(setting).init(key), out_axes=make(one).axes)(settings, keys)


def watch(
    make: Make, settings: PyTree, state: RunState, steps: int, see: Callable[[Any, RunState, Metrics], PyTree]
) -> tuple[RunState, PyTree]:
    """The states after `steps` steps of M runs, and what `see(setting, state, metrics)` gave after each, [steps, M]."""
    axes = make(jax.tree.map(lambda leaf: leaf[0], settings)).axes

    def one(setting: Any, state: RunState) -> tuple[RunState, PyTree]:
        state, metrics = make(setting).step(state)
        return state, see(setting, state, metrics)

    step = jax.vmap(one, (0, axes), (axes, 0))
    return jax.lax.scan(lambda state, _: step(settings, state), state, None, steps)
