"""Q-learning with memory as recipes: from replayed sequences, and without replay."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrl import checks, explore, nets
from jaxrl.agents.r2d2 import r2d2
from jaxrl.agents.recurrent_pqn import recurrent_pqn
from jaxrl.buffers import prioritized, recent, uniform
from jaxrl.envs import wrappers
from jaxrl.recipes.base import Config, Exploration, Recipe, epsilon
from jaxrl.recipes.deep import Replay, Target, following
from jaxrl.recipes.network import NetworkAgent, check_network, finished, optimizer, rescaled, torso
from jaxrl.recipes.pqn import Phases
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree


@dataclass(frozen=True)
class RecurrentAgent(NetworkAgent):
    """What every learner with memory sets."""

    cell: Literal["gru", "lstm"] = "gru"
    width: int = 64
    """of the memory"""
    span: float = 0.0
    """if not 0: memories last from 2 to so many steps at first"""
    layer_norm: bool = True
    """normalise each layer"""
    hidden: tuple[int, ...] = (64,)
    """widths of the layers before the memory; of images the last alone counts, after the convolutions"""


@dataclass(frozen=True)
class R2D2Agent(Target, RecurrentAgent):
    """Recurrent Q-learning from replayed sequences."""

    n_step: int = 5
    """length of the returns"""
    burn_in: int = 8
    """steps of a sequence that only bring the memory up to date"""
    eta: float = 0.9
    """a sequence's priority: so much of its largest error, the rest of the mean"""
    rescaling: bool = True
    """learn a square root of values"""
    double: bool = True
    """let the learning network choose the action that the target network values"""
    polyak: float = 0.01
    """share of the way that the target network moves at each update"""


@dataclass(frozen=True)
class Sequences(Replay):
    """The replay memory."""

    batch_size: int = 32
    """sequences in an update"""
    prioritized: bool = True
    """draw sequences by their last errors"""
    window: int = 24
    """steps of a sequence, burn-in included"""
    stride: int = 8
    """steps from a sequence's start to the next's"""


@dataclass(frozen=True)
class R2D2(Config):
    """Recurrent Q-learning with a replay memory."""

    steps: int = 1_000_000
    num_envs: int = 32
    unroll: int = 8
    updates: int = 4
    learning_starts: int = 8_000
    rescale: bool = False
    """map the limits of observations to -1 and 1"""
    previous: bool = False
    """observe the last action and reward, too"""
    agent: R2D2Agent = field(default_factory=R2D2Agent)
    replay: Sequences = field(default_factory=Sequences)


@dataclass(frozen=True)
class RecurrentPQNAgent(Phases, RecurrentAgent):
    """Recurrent Q-learning without replay."""

    epochs: int = 4
    """passes over what was collected, in a learning phase"""
    minibatches: int = 16
    """gradient steps in a pass; it divides num_envs"""
    epsilon: Exploration = field(default_factory=lambda: Exploration(end=0.02, fraction=0.1))


@dataclass(frozen=True)
class RecurrentPQN(Config):
    """Recurrent Q-learning without replay and target network."""

    steps: int = 999_424
    num_envs: int = 32
    unroll: int = 32
    rescale: bool = False
    """map the limits of observations to -1 and 1"""
    previous: bool = False
    """observe the last action and reward, too"""
    agent: RecurrentPQNAgent = field(default_factory=RecurrentPQNAgent)


def _network(agent: RecurrentAgent, env: Any, params: PyTree, network: Any) -> Any:
    """`network`, or the one that the settings say. Raises ValueError for what no network learns with."""
    check_network(agent)
    checks.one_of("agent.cell", agent.cell, _CELLS)
    checks.at_least("agent.width", agent.width, 1)
    if agent.span:
        checks.in_range("agent.span", agent.span, 2, math.inf, open_low=True, open_high=True)
    if agent.noisy:
        raise ValueError("agent.noisy is true, but recurrent networks have no noisy layers; explore by agent.epsilon")
    actions = env.action_space(params).n
    cell = _CELLS[agent.cell](agent.width, agent.span or None)
    if network is None:
        return nets.RecurrentQNetwork(actions, torso(agent, env, params), cell, agent.dueling)

    def shape() -> Any:
        obs, _ = explore.split_mask(env.reset(jax.random.key(0), params)[0])
        memory = jax.tree.map(jnp.asarray, network.start())
        return network.apply(network.init(jax.random.key(0), memory, obs), memory, obs)[0]

    what = "has no start()"
    if hasattr(network, "start"):
        found = list(jax.eval_shape(shape).shape)
        if found == [actions]:
            return network
        what = f"gives {found} values"
    raise ValueError(
        f"the network {what} for one observation of {env.name}; a recurrent one has start(), init(key, carry, obs) and "
        f"apply(params, carry, obs) -> (q [{actions}], carry)"
    )


def _r2d2(
    config: R2D2, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
) -> tuple[Agent, Buffer]:
    agent, replay = config.agent, config.replay
    checks.at_least("agent.burn_in", agent.burn_in, 0)
    checks.in_range("replay.ends", replay.ends, 0, 1)
    if agent.burn_in >= replay.window:
        raise ValueError(
            f"agent.burn_in is {agent.burn_in}, but sequences have replay.window {replay.window} steps, of which none "
            f"would be learned from; set agent.burn_in to at most {replay.window - 1}"
        )
    network = _network(agent, env, params, network)
    learner = r2d2(
        network,
        optimizer(agent, iterations * loop.updates),
        gamma=agent.gamma,
        n_step=agent.n_step,
        burn_in=agent.burn_in,
        eta=agent.eta,
        rescale=1e-3 if agent.rescaling else None,
        double=agent.double,
        target_update=following(agent),
        epsilon=epsilon(agent.epsilon, config.steps),
    )
    sizes = replay.capacity, replay.batch_size, loop.num_envs, replay.window, replay.stride
    if replay.prioritized:
        buffer = prioritized(*sizes, replay.alpha, replay.beta, stale_priorities=True, ends=replay.ends)
    else:
        buffer = uniform(*sizes, ends=replay.ends)
    return finished(agent, learner, network), buffer


def _r2d2_rows(config: R2D2, env: Any, params: PyTree) -> int:
    del env, params
    for name in ("window", "stride", "batch_size", "capacity"):
        checks.at_least(f"replay.{name}", getattr(config.replay, name), 1)
    return config.replay.window


def _pqn(
    config: RecurrentPQN, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
) -> tuple[Agent, Buffer]:
    agent = config.agent
    checks.at_least("agent.epochs", agent.epochs, 1)
    checks.at_least("agent.minibatches", agent.minibatches, 1)
    if loop.num_envs % agent.minibatches:
        raise ValueError(
            f"agent.minibatches is {agent.minibatches}, which does not divide num_envs {loop.num_envs}: a minibatch is "
            "made of whole lanes"
        )
    network = _network(agent, env, params, network)
    learner = recurrent_pqn(
        network,
        optimizer(agent, iterations * agent.epochs * agent.minibatches),
        gamma=agent.gamma,
        lambda_=agent.trace_lambda,
        epochs=agent.epochs,
        minibatches=agent.minibatches,
        epsilon=epsilon(agent.epsilon, config.steps),
    )
    return finished(agent, learner, network), recent(loop.unroll, loop.num_envs)


def _wrap(config: R2D2 | RecurrentPQN, env: Any, params: PyTree) -> Any:
    env = rescaled(config, env, params)
    return wrappers.previous_step(env) if config.previous else env


_CELLS: dict[str, Any] = {"gru": nets.GRU, "lstm": nets.LSTM}
_PQN_ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"steps": 499_712},
    "MemoryChain-bsuite": {"steps": 500_000, "unroll": 125, "agent.span": 100.0, "agent.reward_scale": 1.0},
}
RECIPES = {
    "r2d2": Recipe(
        "R2D2: recurrent Q-learning from replayed sequences.",
        R2D2(),
        _r2d2,
        _r2d2_rows,
        wrap=_wrap,
    ),
    "pqn_rnn": Recipe(
        "Recurrent PQN: a memory that learns without replay and target network.",
        RecurrentPQN(),
        _pqn,
        lambda config, env, params: config.unroll,
        wrap=_wrap,
        environments=_PQN_ENVIRONMENTS,
    ),
}
