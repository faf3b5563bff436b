"""The command line's twin for Python: `train` and `load`."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxrl import prng, recipes
from jaxrl.evaluate import Evaluation
from jaxrl.runs import config as configs
from jaxrl.runs import directory, log, record
from jaxrl.runs.host import Callback, diverged_line
from jaxrl.runs.plan import Plan, choose, learned, prepare
from jaxrl.types import PyTree


class Result(NamedTuple):
    """What training came to. With several seeds every array has a leading axis of seeds."""

    params: PyTree  # the network's parameters, or the table
    metrics: dict[str, np.ndarray]  # metrics.jsonl by column, [chunks]; per-seed columns [chunks, seeds]
    evaluate: Callable[..., Evaluation]  # (episodes=100, seed=0) -> greedy returns, lengths, ended
    act: Callable[..., Array]  # (obs, key=None) -> the greedy action of one observation, as an episode's first
    summary: dict[str, Any]  # what summary.json holds
    state: PyTree  # all of the agent's state, as `evaluate` and `Agent.act` take it


def train(
    recipe: str,
    env: Any = None,
    *,
    seed: int = 0,
    seeds: int = 1,
    env_overrides: Mapping[str, Any] | None = None,
    params: PyTree = None,
    network: Any = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
    **overrides: Any,
) -> Result:
    """Trains `recipe` on `env` and evaluates what it learned, as `jaxrl train` does.

    `env` is an id (with `env_overrides`), any Environment object (with `params`), or `jaxrl.make`'s pair; recipes named
    after an environment bring theirs.
    `overrides` are the recipe's settings: `steps=50_000, agent={"gamma": 0.9}`, or `**{"agent.gamma": 0.9}`.
    `network`, for deep recipes, is any object with flax's init and apply. Nothing is written unless `out`
    names a run directory, and nothing printed unless `progress`. `callback(metrics, state)` is called after every
    chunk, about half a second, with its metrics and the agent's state; where it returns true, training ends there.
    Raises ValueError, in one line, before anything is compiled or written; where an exception ends training later,
    `out` holds what was learned. Warns where numbers are no longer finite: then training stopped, and what was
    learned before is returned.
    """
    home = recipes.home(recipe)
    if env is None and home is None:
        raise ValueError(f"{recipe} got no environment; give an id such as 'CartPole-v1', or an object")
    if env is None and home is not None:
        env, env_overrides = home.env, {**home.overrides, **(env_overrides or {})}
    chosen = choose(env, env_overrides, params)
    config = configs.override(recipes.default(recipe, chosen.id or ""), overrides)
    plan = prepare(recipe, chosen, config, seed, seeds, network)
    folder = None if out is None else Path(out)
    if folder is not None:
        directory.create(folder, force)
    reporter = log.reporter() if progress else log.Silent()
    try:
        trained = record.run(plan, reporter, folder, callback=callback)
    finally:
        reporter.close()
    if "diverged" in trained.summary:
        warnings.warn(diverged_line(trained.summary["diverged"]), RuntimeWarning, stacklevel=2)
    act, state = _act(plan, trained.agent), trained.agent
    return Result(learned(state), columns(trained.rows), _evaluate(plan, state), act, trained.summary, state)


def load(
    run_dir: str | Path, *, env: Any = None, params: PyTree = None, network: Any = None
) -> tuple[Any, PyTree, Any, PyTree]:
    """(env, params, agent, state) of a run, as `jaxrl.evaluate` takes them: params are the environment's.

    The agent's state has a leading axis where the run had several seeds. A run on an environment object or
    network of one's own needs that object again. Raises ValueError if `run_dir` is no such run or damaged.
    """
    plan, state = record.load(Path(run_dir), env, params, network)
    return plan.chosen.env, plan.chosen.params, plan.setup.agent, state


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics as arrays by name; None becomes NaN, and what is known per seed is [chunks, seeds]."""
    flat = [{**row, **row.get("per_seed", {})} for row in rows]
    names = [name for name in (flat[0] if flat else {}) if name != "per_seed"]
    exact = {"env_steps": np.int64, "updates": np.int64, "episodes": np.int64}
    return {name: np.array([row[name] for row in flat], exact.get(name, np.float64)) for name in names}


def _evaluate(plan: Plan, state: PyTree) -> Callable[..., Evaluation]:
    def evaluate(episodes: int = 100, seed: int = 0) -> Evaluation:
        """Greedy whole episodes, [episodes] or [seeds, episodes]."""
        configs.check_seeds(seed, plan.seeds)
        plan.check_episodes("episodes", episodes)
        return plan.evaluation(episodes)(state, plan.evaluation_keys(seed))

    return evaluate


def _act(plan: Plan, state: PyTree) -> Callable[..., Array]:
    agent = plan.setup.agent
    carry = jax.tree.map(lambda leaf: leaf[0], agent.carry(1))

    def choose(state: PyTree, obs: PyTree, key: Array) -> Array:
        return agent.act(state, carry, obs, key, 0.0, greedy=True)[0]

    chosen = jax.jit(choose if plan.seeds == 1 else jax.vmap(choose, (0, None, None)))

    def act(obs: PyTree, key: Array | None = None) -> Array:
        """The greedy action of one observation, as an episode's first where the agent has a memory: [], or [seeds]."""
        return chosen(state, obs, prng.key(0) if key is None else key)

    return act
