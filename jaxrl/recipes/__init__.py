"""Recipes: a name and an environment give an agent, its buffer and the loop. Every default is in this folder."""

import math
from typing import Any

from jaxrl import checks
from jaxrl.recipes import apex, decqn, deep, named, pqn, recurrent, tabular
from jaxrl.recipes.base import Config, Exploration, Home, Setup, replaced
from jaxrl.recipes.deep import Deep, DQNAgent, Replay
from jaxrl.recipes.tabular import Tabular
from jaxrl.train import LoopConfig
from jaxrl.types import PyTree

__all__ = [
    "Config",
    "DQNAgent",
    "Deep",
    "Exploration",
    "Replay",
    "Setup",
    "Tabular",
    "about",
    "build",
    "default",
    "home",
    "names",
    "replaced",
]

_RECIPES = {
    **deep.RECIPES,
    **pqn.RECIPES,
    **apex.RECIPES,
    **decqn.RECIPES,
    **recurrent.RECIPES,
    **named.RECIPES,
    **tabular.RECIPES,
}


def names() -> list[str]:
    """The recipes there are."""
    return sorted(_RECIPES)


def default(recipe: str, env_id: str = "") -> Config:
    """A recipe's settings for an environment. Raises ValueError that suggests the nearest name."""
    checks.one_of("recipe", recipe, names())
    found = _RECIPES[recipe]
    return replaced(found.default, found.environments.get(env_id, {}))


def home(recipe: str) -> Home | None:
    """The environment that a recipe is named after, which need not be told. Raises ValueError as `default`."""
    checks.one_of("recipe", recipe, names())
    return _RECIPES[recipe].home


def about(recipe: str) -> str:
    """A recipe in a sentence."""
    return _RECIPES[recipe].about


def build(recipe: str, config: Any, env: Any, params: PyTree, network: Any = None) -> Setup:
    """The agent, buffer and loop of a recipe on an environment.

    `network`, for deep recipes, is any object with flax's init and apply. Everything is checked first: a
    ValueError says in one line what was wrong and what would work.
    """
    checks.one_of("recipe", recipe, names())
    found = _RECIPES[recipe]
    expected = type(found.default)
    if not isinstance(config, expected):
        raise ValueError(f"recipe {recipe!r} got settings of {type(config).__name__}; it takes {expected.__name__}")
    for name in ("steps", "num_envs", "unroll", "updates", "eval_episodes"):
        checks.at_least(name, getattr(config, name), 1)
    checks.at_least("learning_starts", config.learning_starts, 0)
    env = found.wrap(config, env, params)
    loop, iterations = _loop(config, found.min_rows(config, env, params))
    space = env.action_space(params)
    wanted, other = ("Discrete", "decqn") if found.discrete else ("MultiDiscrete", "dqn")
    if not hasattr(space, "n" if found.discrete else "nvec"):
        raise ValueError(
            f"{recipe} chooses from {wanted} actions, but {env.name} has {space}; use an environment with "
            f"a {wanted} action space, or a recipe such as {other}"
        )
    usable = hasattr(network, "init") and hasattr(network, "apply") and not isinstance(network, type)
    if network is not None and not usable:
        raise ValueError(f"network is {network!r}; it must be an object with init and apply, such as nets.QNetwork(2)")
    agent, buffer = found.build(config, env, params, loop, iterations, network)
    return Setup(env, agent, buffer, loop, iterations)


def _loop(config: Config, min_rows: int) -> tuple[LoopConfig, int]:
    rows, rest = divmod(config.steps, config.num_envs)
    if rows >= 2**31:
        raise ValueError(
            f"steps {config.steps} are {rows} of each environment; at most {2**31 - 1} can be counted: raise num_envs"
        )
    if rest:
        near = [n for n in (rows * config.num_envs, (rows + 1) * config.num_envs) if n]
        raise ValueError(
            f"steps {config.steps} is not a multiple of num_envs {config.num_envs}; use "
            + " or ".join(f"{n}" for n in near)
        )
    warmup = max(math.ceil(config.learning_starts / config.num_envs), min_rows - config.unroll)
    if rows < warmup + config.unroll:
        raise ValueError(
            f"no update would ever run: steps {config.steps} in {config.num_envs} environments end before the first "
            f"one at {(warmup + config.unroll) * config.num_envs}; use more steps or a smaller learning_starts"
        )
    iterations = (rows - warmup) // config.unroll
    warmup = rows - iterations * config.unroll  # it takes the rest, so that the budget is exact
    return LoopConfig(config.num_envs, config.unroll, config.updates, warmup), iterations
