"""Ape-X DQN as a recipe."""

from dataclasses import dataclass
from typing import Any, Literal

from jaxrl import checks, nets
from jaxrl.agents.apex import apex
from jaxrl.recipes import deep
from jaxrl.recipes.base import Exploration, Recipe
from jaxrl.recipes.deep import Deep, DeepAgent, Replay, following
from jaxrl.recipes.network import check_network, check_output, finished, optimizer, rescaled, torso
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree


@dataclass(frozen=True)
class ApexAgent(DeepAgent):
    """Deep Q-learning with an epsilon for each environment; `epsilon` and `noisy` are not used."""

    learning_rate: float = 6.25e-5
    learning_rate_end: float = 6.25e-5
    """reached linearly at the run's end"""
    optimizer: Literal["adam", "radam", "rmsprop"] = "rmsprop"
    """rmsprop is centred, of decay 0.95"""
    optimizer_eps: float = 1.5e-7
    """what the optimiser adds to its divisor"""
    clip_norm: float = 40.0
    """largest global norm of a gradient"""
    dueling: bool = True
    """one head for the state's value, one for what actions add"""
    n_step: int = 3
    """length of the returns"""
    target_period: int = 2_500
    """if not 0: copy the target network every so many updates instead"""
    ladder_base: float = 0.4
    """epsilon of the first actor"""
    ladder_alpha: float = 7.0
    """the last actor's is ladder_base^(1 + ladder_alpha)"""
    refresh: int = 50
    """gradient steps between two copies of the networks to the actors"""


PAPER = Deep(
    steps=4_999_936,
    num_envs=256,
    unroll=5,
    updates=2,  # 512 windows each: 0.8 drawn for one collected, as there
    learning_starts=50_000,
    agent=ApexAgent(),
    replay=Replay(2_000_000, 512, prioritized=True),
)
# What a run far shorter than the paper's does otherwise.
_CARTPOLE = {
    "steps": 999_936,
    "unroll": 1,
    "updates": 4,  # of 128 windows: two drawn for one collected
    "replay.batch_size": 128,
    "learning_starts": 5_120,
    "replay.capacity": 200_000,
    "agent.learning_rate": 1e-3,  # down to 1e-5: 15,000 updates, not millions
    "agent.learning_rate_end": 1e-5,
    "agent.target_period": 100,  # a copy every 2,500 would come six times
    "agent.refresh": 10,
    "agent.hidden": (64, 64),
    "agent.reward_scale": 0.1,  # returns of at most 50
}


def _build(
    config: Deep, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
) -> tuple[Agent, Buffer]:
    agent: Any = config.agent
    check_network(agent)
    if agent.noisy or agent.epsilon != Exploration():
        raise ValueError(
            f"agent.noisy is {agent.noisy} and agent.epsilon {agent.epsilon}; apex explores by its ladder: leave both "
            "as they are, and set agent.ladder_base and agent.ladder_alpha"
        )
    checks.at_least("num_envs of an epsilon ladder", loop.num_envs, 2)
    deep.check_replay(config, loop)
    actions = env.action_space(params).n
    if network is None:
        network = nets.QNetwork(actions, torso(agent, env, params), dueling=agent.dueling)
    else:
        check_output(network, (actions,), env, params)
    learner = apex(
        network,
        optimizer(agent, iterations * loop.updates),
        gamma=agent.gamma,
        epsilon=agent.ladder_base,
        alpha=agent.ladder_alpha,
        refresh=agent.refresh,
        target_update=following(agent),
    )
    return finished(agent, learner, network), deep.replay_buffer(config, loop)


RECIPES = {
    "apex": Recipe(
        "Ape-X DQN: an epsilon for each environment, priorities by what the actors hold.",
        PAPER,
        _build,
        deep.min_rows,
        rescaled,
        environments={"CartPole-v1": _CARTPOLE},
    ),
}
