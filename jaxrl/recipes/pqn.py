"""PQN as a recipe."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxrl import checks, nets
from jaxrl.agents.pqn import pqn
from jaxrl.buffers import recent
from jaxrl.recipes.base import Config, Exploration, Recipe, epsilon
from jaxrl.recipes.network import NetworkAgent, check_network, check_output, finished, optimizer, rescaled, torso
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree


@dataclass(frozen=True)
class Phases:
    """What every learner sets that learns from what was just collected."""

    learning_rate_end: float = 0.0
    """reached linearly at the run's end"""
    optimizer: Literal["adam", "radam", "rmsprop"] = "radam"
    """rmsprop is centred, of decay 0.95"""
    trace_lambda: float = 0.95
    """how much of a return is what followed, and not a value on the way"""
    epochs: int = 2
    """passes over what was collected, in a learning phase"""
    minibatches: int = 16
    """gradient steps in a pass"""
    reward_scale: float = 0.1
    """what it learns from, of a reward"""


@dataclass(frozen=True)
class PQNAgent(Phases, NetworkAgent):
    """Deep Q-learning without replay."""

    layer_norm: bool = True
    """normalise each layer"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers; of images the last alone counts, after the convolutions"""
    epsilon: Exploration = field(default_factory=lambda: Exploration(fraction=0.05))


@dataclass(frozen=True)
class PQN(Config):
    """Deep Q-learning without replay and target network."""

    steps: int = 499_712
    num_envs: int = 32
    unroll: int = 64
    rescale: bool = False
    """map the limits of observations to -1 and 1"""
    agent: PQNAgent = field(default_factory=PQNAgent)


def _build(
    config: PQN, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
) -> tuple[Agent, Buffer]:
    agent, size = config.agent, loop.num_envs * loop.unroll
    check_network(agent)
    checks.at_least("agent.epochs", agent.epochs, 1)
    checks.at_least("agent.minibatches", agent.minibatches, 1)
    if size % agent.minibatches:
        raise ValueError(
            f"agent.minibatches is {agent.minibatches}, which does not divide the {size} steps of a phase, num_envs "
            f"{loop.num_envs} x unroll {loop.unroll}"
        )
    actions = env.action_space(params).n
    if network is None:
        network = nets.QNetwork(actions, torso(agent, env, params), agent.dueling, noisy=agent.noisy)
    else:
        check_output(network, (actions,), env, params)
    learner = pqn(
        network,
        optimizer(agent, iterations * agent.epochs * agent.minibatches),
        gamma=agent.gamma,
        lambda_=agent.trace_lambda,
        epochs=agent.epochs,
        minibatches=agent.minibatches,
        epsilon=0.0 if agent.noisy else epsilon(agent.epsilon, config.steps),
    )
    return finished(agent, learner, network), recent(loop.unroll, loop.num_envs)


# Steps are whole phases everywhere: a rest would be a program more to compile.
# Gallici et al. (2024), as their code has it; fewer environments or updates were the same on Breakout, worse on Asterix
_PUREJAXQL = {
    "steps": 1_998_848,
    "num_envs": 128,
    "unroll": 32,
    "agent.learning_rate": 5e-4,
    "agent.minibatches": 32,
    "agent.trace_lambda": 0.65,
    "agent.reward_scale": 1.0,
    "agent.hidden": (128,),
    "agent.epsilon": Exploration(fraction=0.1),
}
MINATAR = tuple(f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"))
_ENVIRONMENTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(MINATAR, _PUREJAXQL),
    "Acrobot-v1": {
        "steps": 299_008,
        "rescale": True,
        "agent.learning_rate": 2e-3,
        "agent.trace_lambda": 0.8,
        "agent.epsilon.fraction": 0.2,
    },
    "Catch-bsuite": {"steps": 98_304, "agent.reward_scale": 1.0},
    "FrozenLake-v1": {
        "steps": 299_008,
        "agent.reward_scale": 1.0,
        "agent.trace_lambda": 0.65,
        "agent.epsilon.fraction": 0.5,
    },
    "MountainCar-v0": {
        "steps": 999_424,
        "agent.fourier": 3,
        "agent.hidden": (64,),
        "agent.learning_rate": 3e-3,
        "agent.trace_lambda": 0.65,
    },
}
RECIPES = {
    "pqn": Recipe(
        "PQN with Q(lambda): deep Q-learning without replay and target network.",
        PQN(),
        _build,
        lambda config, env, params: config.unroll,
        wrap=rescaled,
        environments=_ENVIRONMENTS,
    ),
}
