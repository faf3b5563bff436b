"""Q-learning from a 16-cell table to a convolutional network, in one jitted, vectorised program."""

from jaxrl import behaviour, buffers, explore, nets, planning, recipes, returns, spaces
from jaxrl.agents.apex import apex
from jaxrl.agents.c51 import c51
from jaxrl.agents.decqn import decqn
from jaxrl.agents.dqn import dqn
from jaxrl.agents.dyna import dyna_q, prioritized_sweeping
from jaxrl.agents.fqf import fqf
from jaxrl.agents.hl_gauss import hl_gauss
from jaxrl.agents.iqn import iqn
from jaxrl.agents.lambda_return import lambda_return
from jaxrl.agents.monte_carlo import monte_carlo, off_policy_monte_carlo
from jaxrl.agents.munchausen import munchausen_dqn, munchausen_iqn
from jaxrl.agents.pqn import pqn
from jaxrl.agents.q_learning import double_q_learning, q_learning
from jaxrl.agents.qr_dqn import qr_dqn
from jaxrl.agents.r2d2 import r2d2
from jaxrl.agents.recurrent_pqn import recurrent_pqn
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
    "apex",
    "behaviour",
    "buffers",
    "c51",
    "check_env",
    "decqn",
    "double_q_learning",
    "dqn",
    "dyna_q",
    "evaluate",
    "expected_sarsa",
    "explore",
    "fqf",
    "hl_gauss",
    "iqn",
    "key",
    "lambda_return",
    "latest",
    "list_ids",
    "load",
    "make",
    "make_run",
    "monte_carlo",
    "munchausen_dqn",
    "munchausen_iqn",
    "nets",
    "off_policy_monte_carlo",
    "planning",
    "pqn",
    "prioritized",
    "prioritized_sweeping",
    "q_lambda",
    "q_learning",
    "qr_dqn",
    "r2d2",
    "recent",
    "recipes",
    "recurrent_pqn",
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
