"""A run decided but not begun: everything checked and its shapes known, nothing compiled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxrl import checks, memory, prng, recipes
from jaxrl.envs import registry
from jaxrl.evaluate import Evaluation, evaluate
from jaxrl.runs import config as configs
from jaxrl.train import Run, make_run, vmap_run
from jaxrl.types import NO_LIMIT, PyTree

_ENDLESS = 27_000  # steps of a greedy episode where the environment sets no limit
_EVALUATION = 0x6576616C  # folded into a seed's key: a stream that its training never draws from


class Chosen(NamedTuple):
    """An environment as it was asked for."""

    env: Any
    params: PyTree
    id: str | None  # None: an object that no id makes
    overrides: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a run is to be. `shapes` is its RunState as `jax.ShapeDtypeStruct`."""

    recipe: str
    chosen: Chosen
    config: Any
    setup: recipes.Setup
    run: Run  # for `seeds` > 1 over a leading axis of seeds
    seed: int
    seeds: int
    shapes: Any
    custom_network: bool

    @property
    def env_name(self) -> str:
        return self.chosen.id or self.chosen.env.name

    @property
    def parameters(self) -> int:
        """Numbers that one seed learns."""
        return sum(leaf.size for leaf in jax.tree.leaves(learned(self.shapes.agent))) // self.seeds

    @property
    def replay_bytes(self) -> int:
        return memory.bytes_of(self.shapes.buffer)

    @cached_property
    def evaluation(self) -> Callable[[int], jax.stages.Wrapped]:
        """(episodes) -> a jitted function (agent state, `evaluation_keys()`) -> greedy episodes [E], or [seeds, E].

        It is the same function for the same number, traced and compiled once.
        """
        chosen = self.chosen
        limit = getattr(chosen.params, "max_steps_in_episode", None)
        endless = limit is not None and np.ndim(limit) == 0 and limit >= NO_LIMIT
        cut = _ENDLESS if endless else limit

        def evaluation(episodes: int) -> jax.stages.Wrapped:
            def play(state: PyTree, key: Array) -> Evaluation:
                return evaluate(chosen.env, chosen.params, self.setup.agent, state, key, episodes, cut)

            return jax.jit(play if self.seeds == 1 else jax.vmap(play))

        return cache(evaluation)

    def check_episodes(self, name: str, episodes: int, held: int = 0) -> None:
        """Raises ValueError where so many greedy episodes cannot be played at once beside `held` bytes.

        Counted twice is what the loop carries, for its copy; what a network makes on its way is not.
        """
        checks.at_least(name, episodes, 1)
        run = self.shapes
        lanes = memory.bytes_of((run.env_state, run.obs, run.carry, run.episode_return, run.episode_length))
        memory.check_many(name, int(episodes), 2 * lanes // self.setup.loop.num_envs, held)

    def evaluation_keys(self, seed: int | None = None) -> Array:
        """A stream that training from `seed` (by default the run's own) never draws from."""
        found = keys(self.seed if seed is None else seed, self.seeds)
        fold = jax.random.fold_in if self.seeds == 1 else jax.vmap(jax.random.fold_in, (0, None))
        return fold(found, _EVALUATION)


def choose(env: Any, overrides: Mapping[str, Any] | None = None, params: PyTree = None) -> Chosen:
    """An id, an Environment object, or the pair (env, params) of `jaxrl.make`, with its params resolved."""
    overrides = {name: configs.plain(value) for name, value in (overrides or {}).items()}
    if isinstance(env, str):
        made, defaults = registry.make(env, **overrides)
        return Chosen(made, defaults if params is None else params, env if params is None else None, overrides)
    if overrides:
        raise ValueError("env_overrides go with an environment's id; give an object its params instead")
    if isinstance(env, tuple) and len(env) == 2:
        env, params = env[0], env[1] if params is None else params
    for name in (
        "reset",
        "step",
        "reset_env",
        "step_env",
        "is_truncated",
        "observation_space",
        "action_space",
    ):
        if not callable(getattr(env, name, None)):
            raise ValueError(f"{env!r} is no environment: it has no {name}(); give an id such as 'CartPole-v1'")
    found: Any = env
    return Chosen(found, found.default_params if params is None else params, None, {})


def prepare(recipe: str, chosen: Chosen, config: Any, seed: int = 0, seeds: int = 1, network: Any = None) -> Plan:
    """Checks everything that can be checked without compiling. Raises ValueError in one line."""
    configs.check_seeds(seed, seeds)
    seed, seeds = int(seed), int(seeds)
    setup = recipes.build(recipe, config, chosen.env, chosen.params, network)
    chosen = chosen._replace(env=setup.env)
    run = make_run(chosen.env, chosen.params, setup.agent, setup.buffer, setup.loop)
    run = vmap_run(run) if seeds > 1 else run
    shapes = jax.eval_shape(lambda: run.init(keys(seed, seeds)))
    plan = Plan(recipe, chosen, config, setup, run, seed, seeds, shapes, network is not None)
    held = memory.bytes_of(shapes) + memory.bytes_of(shapes.agent)  # the last good agent is kept beside
    memory.check(held, plan.replay_bytes, memory.available())
    plan.check_episodes("eval_episodes", config.eval_episodes, held)
    jax.eval_shape(plan.evaluation(config.eval_episodes), shapes.agent, plan.evaluation_keys())
    return plan


def keys(seed: int, seeds: int) -> Array:
    """The key of `seed`, or of several from it on: [seeds]."""
    return prng.key(seed) if seeds == 1 else jax.vmap(prng.key)(np.arange(seed, seed + seeds).astype(np.uint32))


def learned(state: PyTree) -> PyTree:
    """What an agent's state holds of the solution: network parameters or the table, else all of it."""
    for name in ("params", "q"):
        if hasattr(state, name):
            return getattr(state, name)
    return state
