"""Deep Q-learning as recipes."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import optax
from jax import Array

from jaxrl import checks, explore, nets
from jaxrl.agents import value
from jaxrl.agents.dqn import dqn
from jaxrl.agents.pqn import pqn
from jaxrl.buffers import recent, uniform
from jaxrl.recipes.base import Config, Exploration, Recipe, epsilon
from jaxrl.train import LoopConfig
from jaxrl.types import PyTree


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
class DQN(Config):
    """Deep Q-learning with uniform replay."""

    learning_starts: int = 1_000
    agent: DQNAgent = field(default_factory=DQNAgent)
    replay: Replay = field(default_factory=Replay)


@dataclass(frozen=True)
class PQNAgent:
    """Deep Q-learning without replay."""

    learning_rate: float = 1e-3
    learning_rate_end: float = 0.0
    """reached linearly at the run's end"""
    gamma: float = 0.99
    trace_lambda: float = 0.95
    """how much of a return is what followed, and not a value on the way"""
    epochs: int = 2
    """passes over what was collected, in a learning phase"""
    minibatches: int = 16
    """gradient steps in a pass"""
    reward_scale: float = 0.1
    """what it learns from, of a reward"""
    clip_norm: float = 10.0
    """largest global norm of a gradient"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers, each normalised"""
    epsilon: Exploration = field(default_factory=lambda: Exploration(fraction=0.05))


@dataclass(frozen=True)
class PQN(Config):
    """Deep Q-learning without replay and target network."""

    steps: int = 500_000
    num_envs: int = 32
    unroll: int = 64
    agent: PQNAgent = field(default_factory=PQNAgent)


def _check_network(agent: DQNAgent | PQNAgent) -> None:
    """Raises ValueError for what no network learns with."""
    checks.in_range("agent.learning_rate", agent.learning_rate, 0, math.inf, open_low=True, open_high=True)
    checks.in_range("agent.learning_rate_end", agent.learning_rate_end, 0, math.inf, open_high=True)
    checks.in_range("agent.gamma", agent.gamma, 0, 1)
    checks.in_range("agent.clip_norm", agent.clip_norm, 0, math.inf, open_low=True, open_high=True)
    for width in agent.hidden:
        checks.at_least("agent.hidden", width, 1)


def _deep(config: DQN, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any):
    agent, replay = config.agent, config.replay
    _check_network(agent)
    checks.at_least("agent.target_period", agent.target_period, 0)
    checks.at_least("replay.capacity", replay.capacity, 1)
    checks.in_range("replay.ends", replay.ends, 0, 1)
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
    network = network or nets.QNetwork(env.action_space(params).n, _torso(agent.hidden, env, params), agent.dueling)
    _check_width(network, env, params)
    learner = dqn(
        network,
        optimizer,
        gamma=agent.gamma,
        double=agent.double,
        loss=agent.loss,
        target_update=target,
        epsilon=epsilon(agent.epsilon, config.steps),
    )
    return learner, uniform(replay.capacity, replay.batch_size, loop.num_envs, window=agent.n_step, ends=replay.ends)


def _pqn(config: PQN, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any):
    agent, size = config.agent, loop.num_envs * loop.unroll
    _check_network(agent)
    checks.in_range("agent.reward_scale", agent.reward_scale, 0, math.inf, open_low=True, open_high=True)
    checks.at_least("agent.minibatches", agent.minibatches, 1)
    if size % agent.minibatches:
        raise ValueError(
            f"agent.minibatches is {agent.minibatches}, which does not divide the {size} steps of a phase, num_envs "
            f"{loop.num_envs} x unroll {loop.unroll}"
        )
    steps = iterations * agent.epochs * agent.minibatches
    rate = optax.linear_schedule(agent.learning_rate, agent.learning_rate_end, steps)
    torso = _torso(agent.hidden, env, params, layer_norm=True)
    network = network or nets.QNetwork(env.action_space(params).n, torso)
    _check_width(network, env, params)
    learner = pqn(
        network,
        optax.chain(optax.clip_by_global_norm(agent.clip_norm), optax.radam(rate)),
        gamma=agent.gamma,
        lambda_=agent.trace_lambda,
        epochs=agent.epochs,
        minibatches=agent.minibatches,
        epsilon=epsilon(agent.epsilon, config.steps),
    )
    return value.with_rewards(learner, lambda reward: agent.reward_scale * reward), recent(loop.unroll, loop.num_envs)


def _torso(hidden: tuple[int, ...], env: Any, params: PyTree, layer_norm: bool = False) -> nets.MLP:
    one_hot = getattr(env.observation_space(params), "n", None)
    return nets.MLP(tuple(hidden), one_hot=one_hot, layer_norm=layer_norm)


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


def _deep_rows(config: DQN, env: Any, params: PyTree) -> int:
    del env, params
    checks.at_least("agent.n_step", config.agent.n_step, 1)
    checks.at_least("replay.batch_size", config.replay.batch_size, 1)
    return config.agent.n_step


RECIPES = {
    "dqn": Recipe(
        "Deep Q-learning with uniform replay.",
        DQN(),
        _deep,
        _deep_rows,
        environments={"FrozenLake-v1": {"agent": DQNAgent(n_step=5)}},
    ),
    "pqn": Recipe(
        "PQN with Q(lambda): deep Q-learning without replay and target network.",
        PQN(),
        _pqn,
        lambda config, env, params: config.unroll,
    ),
}
