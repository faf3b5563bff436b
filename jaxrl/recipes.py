"""Recipes: a name and an environment give an agent, its buffer and the loop. Every default is here, in one place."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax import Array

from jaxrl import checks, explore, nets
from jaxrl.agents import value
from jaxrl.agents.dqn import dqn
from jaxrl.agents.q_learning import q_learning
from jaxrl.agents.sarsa import expected_sarsa, sarsa
from jaxrl.buffers import recent, uniform
from jaxrl.envs import wrappers
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
class Replay:
    """The replay memory."""

    capacity: int = 100_000
    """transitions kept, rounded up to the same number for every environment"""
    batch_size: int = 128
    """windows in an update"""
    ends: float = 0.125
    """largest share of the steps that end an episode: places for their final observations"""


@dataclass(frozen=True)
class Exploration:
    """Epsilon, linear from start to end."""

    start: float = 1.0
    end: float = 0.05
    fraction: float = 0.2
    """share of the run until epsilon is at its end"""


@dataclass(frozen=True)
class DQNAgent:
    """Deep Q-learning."""

    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-6
    """reached linearly at the run's end"""
    gamma: float = 0.99
    n_step: int = 10
    """length of the returns"""
    double: bool = True
    dueling: bool = False
    loss: Literal["squared", "huber"] = "squared"
    polyak: float = 0.005
    """share of the way that the target network moves at each update"""
    target_period: int = 0
    """if not 0: copy the target network every so many updates instead"""
    clip_norm: float = 10.0
    """largest global norm of a gradient"""
    hidden: tuple[int, ...] = (120, 84)
    """widths of the hidden layers"""
    epsilon: Exploration = field(default_factory=Exploration)


@dataclass(frozen=True)
class TabularAgent:
    """Learning in a table."""

    alpha: float = 1.0
    """step size"""
    alpha_power: float = 0.6
    """step size is alpha / visits^alpha_power; 0 keeps it at alpha"""
    gamma: float = 0.99
    initial: float = 0.0
    """value of every entry at the start"""
    epsilon: Exploration = field(default_factory=lambda: Exploration(end=0.1, fraction=0.5))


@dataclass(frozen=True)
class DQN(Config):
    """Deep Q-learning with uniform replay."""

    learning_starts: int = 1_000
    agent: DQNAgent = field(default_factory=DQNAgent)
    replay: Replay = field(default_factory=Replay)


@dataclass(frozen=True)
class Tabular(Config):
    """A table, learned on line."""

    eval_episodes: int = 10_000
    agent: TabularAgent = field(default_factory=TabularAgent)


class Setup(NamedTuple):
    """What a recipe comes to on an environment: steps = num_envs (loop.warmup + iterations loop.unroll)."""

    agent: Agent
    buffer: Buffer
    loop: LoopConfig
    iterations: int


class Recipe(NamedTuple):
    """How a name becomes a setup."""

    default: Config
    environments: dict[str, dict[str, Any]]  # environment id -> what it sets otherwise
    build: Callable[..., tuple[Agent, Buffer]]  # (config, env, params, loop, iterations, network)
    min_rows: Callable[[Any], int]  # steps of every environment before the first update


def names() -> list[str]:
    """The recipes there are."""
    return sorted(_RECIPES)


def default(recipe: str, env_id: str = "") -> Config:
    """A recipe's settings for an environment. Raises ValueError that suggests the nearest name."""
    checks.one_of("recipe", recipe, names())
    found = _RECIPES[recipe]
    return dataclasses.replace(found.default, **found.environments.get(env_id, {}))


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
    loop, iterations = _loop(config, found.min_rows(config))
    space = env.action_space(params)
    if not hasattr(space, "n"):
        raise ValueError(
            f"{recipe} chooses from Discrete actions, but {env.name} has {space}; use an environment with "
            "a Discrete action space"
        )
    agent, buffer = found.build(config, env, params, loop, iterations, network)
    return Setup(agent, buffer, loop, iterations)


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


def _epsilon(config: Exploration, steps: int) -> Schedule:
    for name in ("start", "end", "fraction"):
        checks.in_range(f"agent.epsilon.{name}", getattr(config, name), 0, 1)
    if config.end > config.start:
        raise ValueError(f"agent.epsilon.end {config.end} is above agent.epsilon.start {config.start}; lower it")
    if config.start == config.end or config.fraction == 0:
        return explore.constant(config.end)
    return explore.linear(config.start, config.end, config.fraction * steps)


def _deep(config: DQN, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any):
    agent, replay = config.agent, config.replay
    checks.in_range("agent.learning_rate", agent.learning_rate, 0, math.inf, open_low=True, open_high=True)
    checks.in_range("agent.learning_rate_end", agent.learning_rate_end, 0, math.inf, open_high=True)
    checks.in_range("agent.gamma", agent.gamma, 0, 1)
    checks.in_range("agent.clip_norm", agent.clip_norm, 0, math.inf, open_low=True, open_high=True)
    checks.at_least("agent.target_period", agent.target_period, 0)
    checks.at_least("replay.capacity", replay.capacity, 1)
    checks.in_range("replay.ends", replay.ends, 0, 1)
    for width in agent.hidden:
        checks.at_least("agent.hidden", width, 1)
    rows = min(loop.warmup + loop.unroll, math.ceil(replay.capacity / loop.num_envs))
    windows = (rows - agent.n_step + 1) * loop.num_envs
    if 0 < windows < replay.batch_size:
        needed = replay.batch_size + agent.n_step * loop.num_envs
        raise ValueError(
            f"replay.batch_size {replay.batch_size} is more than the {windows} windows that the buffer holds at the "
            f"first update; set learning_starts and replay.capacity to at least {needed}"
        )
    learning_rate = optax.linear_schedule(agent.learning_rate, agent.learning_rate_end, iterations * loop.updates)
    optimizer = optax.chain(optax.clip_by_global_norm(agent.clip_norm), optax.adam(learning_rate))
    target = value.hard(agent.target_period) if agent.target_period else value.polyak(agent.polyak)
    network = network or _network(agent, env, params)
    _check_width(network, env, params)
    learner = dqn(
        network,
        optimizer,
        gamma=agent.gamma,
        double=agent.double,
        loss=agent.loss,
        target_update=target,
        epsilon=_epsilon(agent.epsilon, config.steps),
    )
    return learner, uniform(replay.capacity, replay.batch_size, loop.num_envs, window=agent.n_step, ends=replay.ends)


def _network(agent: DQNAgent, env: Any, params: PyTree) -> nets.QNetwork:
    space = env.observation_space(params)
    torso = nets.MLP(tuple(agent.hidden), one_hot=getattr(space, "n", None))
    return nets.QNetwork(env.action_space(params).n, torso, agent.dueling)


def _check_width(network: Any, env: Any, params: PyTree) -> None:
    def one(key: Array) -> Array:
        obs, _ = explore.split_mask(env.reset(key, params)[0])
        return network.apply(network.init(key, obs), obs)

    shape, actions = jax.eval_shape(lambda: one(jax.random.key(0))).shape, env.action_space(params).n
    if shape != (actions,):
        raise ValueError(
            f"the network gives {list(shape)} values for one observation of {env.name}; it must give one for each of "
            f"its actions, [{actions}]"
        )


def _deep_rows(config: DQN) -> int:
    checks.at_least("agent.n_step", config.agent.n_step, 1)
    checks.at_least("replay.batch_size", config.replay.batch_size, 1)
    return config.agent.n_step


def _states(env: Any, params: PyTree) -> int:
    space = env.observation_space(params)
    if hasattr(space, "n"):
        return int(space.n)
    try:
        return wrappers.num_states(env)
    except ValueError as error:
        raise ValueError(f"a tabular recipe needs a row of a table: {error}, or use a deep recipe") from None


def _tabular(factory: Callable[..., Agent], window: int) -> Recipe:
    def build(config: Tabular, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any):
        del iterations
        states = _states(env, params)
        if network is not None:
            raise ValueError("a tabular recipe takes no network; use a deep recipe such as dqn")
        for name in ("unroll", "updates"):
            if getattr(config, name) != 1:
                raise ValueError(
                    f"{name} is {getattr(config, name)}; a table learns from each step once, as it comes: leave it at 1"
                )
        agent = config.agent
        checks.in_range("agent.initial", agent.initial, -math.inf, math.inf, open_low=True, open_high=True)
        learner = factory(
            states,
            env.action_space(params).n,
            gamma=agent.gamma,
            alpha=agent.alpha,
            alpha_power=agent.alpha_power,
            epsilon=_epsilon(agent.epsilon, config.steps),
            initial=agent.initial,
        )
        return learner, recent(window, loop.num_envs)

    return Recipe(Tabular(), {}, build, lambda config: window)


_RECIPES = {
    "dqn": Recipe(DQN(), {"FrozenLake-v1": {"agent": DQNAgent(n_step=5)}}, _deep, _deep_rows),
    "q_learning": _tabular(q_learning, 1),
    "sarsa": _tabular(sarsa, 2),
    "expected_sarsa": _tabular(expected_sarsa, 1),
}
