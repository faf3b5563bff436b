"""What the chapters share: many runs at once, a seed and a setting each, looked at by the step or by the episode."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jaxrl
from jaxrl.train import Run, RunState
from jaxrl.types import Metrics, PyTree

# (setting) -> the run of one learner; a setting is any pytree of traced arrays
Make = Callable[[Any], Run]


def keys(number: int, seed: int = 0) -> Array:
    """A key for each run."""
    return jax.random.split(jaxrl.key(seed), number)


def begin(make: Make, settings: PyTree, keys: Array) -> RunState:
    """The states of M runs after their warm-up.

    Learners of whole episodes need one. Let `make` give a run whose episodes are cut after one step: then the next step
    begins an episode, where else one would be running, and what runs at a fixed time is longer than others.
    """

    def one(setting: Any, key: Array) -> RunState:
        run = make(setting)
        return run.warmup(run.init(key))

    return jax.vmap(one, out_axes=make(_first(settings)).axes)(settings, keys)


def watch(
    make: Make, settings: PyTree, state: RunState, steps: int, see: Callable[[Any, RunState, Metrics], PyTree]
) -> tuple[RunState, PyTree]:
    """The states after `steps` steps of M runs, and what `see(setting, state, metrics)` gave after each, [steps, M]."""
    axes = make(_first(settings)).axes

    def one(setting: Any, state: RunState) -> tuple[RunState, PyTree]:
        state, metrics = make(setting).step(state)
        return state, see(setting, state, metrics)

    step = jax.vmap(one, (0, axes), (axes, 0))
    return jax.lax.scan(lambda state, _: step(settings, state), state, None, steps)


def watch_episodes(
    make: Make, settings: PyTree, state: RunState, episodes: int, see: Callable[[RunState], Array]
) -> tuple[RunState, Array]:
    """The states when M runs of one environment have all ended `episodes` episodes, and what `see(state)` gave.

    It looks at the start and after each episode, [M, episodes + 1].
    """
    axes = make(_first(settings)).axes
    look = jax.vmap(see, (axes,))
    step = jax.vmap(lambda setting, state: make(setting).step(state), (0, axes), (axes, 0))
    first = look(state)
    lanes = jnp.arange(len(first))

    def go(carry: tuple[RunState, Array, Array]) -> tuple[RunState, Array, Array]:
        state, count, seen = carry
        state, metrics = step(settings, state)
        ended = metrics["episodes"].astype(jnp.int32)
        count += ended
        place = jnp.where(ended > 0, count, episodes + 1)  # which is dropped
        return state, count, seen.at[lanes, place].set(look(state), mode="drop")

    seen = jnp.zeros((len(first), episodes + 1, *first.shape[1:]), first.dtype).at[:, 0].set(first)
    start = state, jnp.zeros(len(first), jnp.int32), seen
    state, _, seen = jax.lax.while_loop(lambda carry: jnp.any(carry[1] < episodes), go, start)
    return state, seen


def until(run: Run, state: RunState, episodes: int) -> RunState:
    """The state when the phases of a run have learned from at least `episodes` more episodes."""

    def go(carry: tuple[RunState, Array]) -> tuple[RunState, Array]:
        state, metrics = run.step(carry[0])
        return state, carry[1] + metrics["learned_episodes"].astype(jnp.int32)

    return jax.lax.while_loop(lambda carry: carry[1] < episodes, go, (state, jnp.int32(0)))[0]


def _first(settings: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], settings)
