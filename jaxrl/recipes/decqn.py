"""Decoupled Q-networks as a recipe: Box actions in bins, each dimension for itself."""

from dataclasses import dataclass
from typing import Any, Literal

from jaxrl import checks, nets, spaces
from jaxrl.agents.decqn import decqn
from jaxrl.envs import wrappers
from jaxrl.recipes import deep
from jaxrl.recipes.base import Exploration, Recipe, epsilon
from jaxrl.recipes.deep import Deep, DoubleAgent, Replay, following
from jaxrl.recipes.network import check_network, check_output, finished, optimizer, rescaled, torso
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree


@dataclass(frozen=True)
class DecQNAgent(DoubleAgent):
    """Deep Q-learning with a value for each bin of each dimension."""

    bins: int = 3
    """points of a continuous action's dimension, from limit to limit"""
    loss: Literal["squared", "huber"] = "huber"


def _wrap(config: Deep, env: Any, params: PyTree) -> Any:
    """The environment with Box actions in bins."""
    agent: Any = config.agent
    checks.at_least("agent.bins", agent.bins, 2)
    env = rescaled(config, env, params)
    return wrappers.decouple_action(env, agent.bins) if isinstance(env.action_space(params), spaces.Box) else env


def _build(
    config: Deep, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
) -> tuple[Agent, Buffer]:
    agent: Any = config.agent
    check_network(agent)
    deep.check_replay(config, loop)
    if agent.dueling:
        raise ValueError("agent.dueling is true, but decqn's heads are of dimensions, not of a state; set it to false")
    nvec = env.action_space(params).nvec
    shape = len(nvec), max(nvec)
    if network is None:
        body = torso(agent, env, params)
        network = nets.QNetwork(shape[0], body, dueling=agent.dueling, atoms=shape[1], noisy=agent.noisy)
    else:
        check_output(network, shape, env, params)
    learner = decqn(
        network,
        optimizer(agent, iterations * loop.updates),
        nvec=nvec,
        gamma=agent.gamma,
        double=agent.double,
        loss=agent.loss,
        target_update=following(agent),
        epsilon=0.0 if agent.noisy else epsilon(agent.epsilon, config.steps),
    )
    return finished(agent, learner, network), deep.replay_buffer(config, loop)


RECIPES = {
    "decqn": Recipe(
        "DecQN: continuous actions in bins, a value for each dimension.",
        Deep(
            steps=500_000,
            num_envs=32,
            learning_starts=2_000,
            agent=DecQNAgent(hidden=(64, 64), reward_scale=0.1, epsilon=Exploration(fraction=0.5)),
            replay=Replay(200_000),
        ),
        _build,
        deep.min_rows,
        _wrap,
        environments={
            "MountainCarContinuous-v0": {"rescale": True, "agent.reward_scale": 0.01},
            "Pendulum-v1": {
                "steps": 300_000,
                "num_envs": 8,
                "rescale": True,
                "agent.n_step": 3,
                "agent.epsilon": Exploration(fraction=0.3),
            },
        },
        discrete=False,
    ),
}
