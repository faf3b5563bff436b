"""Q-learning from a 16-cell table to a convolutional network, in one jitted, vectorised program."""

from jaxrl import buffers, explore, nets, planning, recipes, returns, spaces
from jaxrl.agents.dqn import dqn
from jaxrl.agents.q_learning import q_learning
from jaxrl.agents.sarsa import expected_sarsa, sarsa
from jaxrl.buffers import latest, prioritized, recent, uniform
from jaxrl.envs import wrappers
from jaxrl.envs.check import check_env
from jaxrl.envs.registry import list_ids, make, register
from jaxrl.envs.tabular import tabular_mdp
from jaxrl.evaluate import evaluate
from jaxrl.prng import key
from jaxrl.qtable import QTable
from jaxrl.train import LoopConfig, advance, make_run, vmap_run
from jaxrl.vector import rollout

# isort: split
from jaxrl.runs.library import load, train  # last: `jaxrl.train` is this function, not the module of that name

__all__ = [
    "LoopConfig",
    "QTable",
    "advance",
    "buffers",
    "check_env",
    "dqn",
    "evaluate",
    "expected_sarsa",
    "explore",
    "key",
    "latest",
    "list_ids",
    "load",
    "make",
    "make_run",
    "nets",
    "planning",
    "prioritized",
    "q_learning",
    "recent",
    "recipes",
    "register",
    "returns",
    "rollout",
    "sarsa",
    "spaces",
    "tabular_mdp",
    "train",
    "uniform",
    "vmap_run",
    "wrappers",
]
