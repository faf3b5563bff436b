"""What recipes are made of."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxrl import checks, explore
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree, Schedule


@dataclass(frozen=True)
class Config:
    """What every recipe sets."""

    steps: int = 300_000
    """environment steps in all, warm-up counted"""
    num_envs: int = 16
    """environments that run in parallel"""
    unroll: int = 1
    """steps of every environment between learning phases"""
    updates: int = 1
    """agent updates in a learning phase"""
    learning_starts: int = 0
    """environment steps before the first update"""
    eval_episodes: int = 100
    """whole greedy episodes in the final evaluation"""


@dataclass(frozen=True)
class Exploration:
    """Epsilon, linear from start to end."""

    start: float = 1.0
    end: float = 0.05
    fraction: float = 0.2
    """share of the run until epsilon is at its end"""


class Home(NamedTuple):
    """The environment that a recipe is named after."""

    env: str  # its id
    overrides: dict[str, Any] = {}  # never changed


class Setup(NamedTuple):
    """What a recipe comes to on an environment: steps = num_envs (loop.warmup + iterations loop.unroll)."""

    env: Any  # as the agent sees it: in the wrappers that the recipe asks for
    agent: Agent
    buffer: Buffer
    loop: LoopConfig
    iterations: int


class Recipe(NamedTuple):
    """How a name becomes a setup."""

    about: str
    default: Any  # a Config
    build: Callable[..., tuple[Agent, Buffer]]  # (config, env, params, loop, iterations, network)
    min_rows: Callable[[Any, Any, PyTree], int]  # (config, env, params) -> steps of each environment before learning
    wrap: Callable[[Any, Any, PyTree], Any] = lambda config, env, params: env
    environments: Mapping[str, Mapping[str, Any]] = {}  # environment id -> what it sets otherwise, by dotted names
    home: Home | None = None
    discrete: bool = True  # whether it chooses one action, or one in each dimension


def epsilon(config: Exploration, steps: int) -> Schedule:
    """The schedule over a run of so many steps. Raises ValueError for what is no epsilon."""
    for name in ("start", "end", "fraction"):
        checks.in_range(f"agent.epsilon.{name}", getattr(config, name), 0, 1)
    if config.end > config.start:
        raise ValueError(f"agent.epsilon.end {config.end} is above agent.epsilon.start {config.start}; lower it")
    if config.start == config.end or config.fraction == 0:
        return explore.constant(config.end)
    return explore.linear(config.start, config.end, config.fraction * steps)


def replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """A settings dataclass with `changes` by dotted names, such as agent.n_step."""
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        config = dataclasses.replace(
            config, **{outer: replaced(getattr(config, outer), {inner: value}) if inner else value}
        )
    return config
