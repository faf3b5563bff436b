"""Q-learning from a 16-cell table to a convolutional network, in one jitted, vectorised program."""

from jaxrl import behaviour, buffers, explore, nets, planning, recipes, returns, spaces
from jaxrl.agents.dqn import dqn
from jaxrl.agents.dyna import dyna_q, prioritized_sweeping
from jaxrl.agents.lambda_return import lambda_return
from jaxrl.agents.monte_carlo import monte_carlo, off_policy_monte_carlo
from jaxrl.agents.q_learning import double_q_learning, q_learning
from jaxrl.agents.sarsa import expected_sarsa, sarsa, tree_backup
from jaxrl.agents.traces import q_lambda, sarsa_lambda
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
    "behaviour",
    "buffers",
    "check_env",
    "double_q_learning",
    "dqn",
    "dyna_q",
    "evaluate",
    "expected_sarsa",
    "explore",
    "key",
    "lambda_return",
    "latest",
    "list_ids",
    "load",
    "make",
    "make_run",
    "monte_carlo",
    "nets",
    "off_policy_monte_carlo",
    "planning",
    "prioritized",
    "prioritized_sweeping",
    "q_lambda",
    "q_learning",
    "recent",
    "recipes",
    "register",
    "returns",
    "rollout",
    "sarsa",
    "sarsa_lambda",
    "spaces",
    "tabular_mdp",
    "train",
    "tree_backup",
    "uniform",
    "vmap_run",
    "wrappers",
]
