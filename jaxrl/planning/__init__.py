"""Exact dynamic programming on a `TabularMDP`, dense or by successors: the judge of all tabular learners.

plan = planning.value_iteration(jaxrl.tabular_mdp(env), 0.99)
plan.values, plan.q, plan.policy
jax.vmap(lambda gamma: planning.value_iteration(mdp, gamma))(gammas)   # all discounts in one program
"""

from jaxrl.planning.exact import FiniteHorizon, evaluate, finite_horizon, policy_iteration
from jaxrl.planning.forms import dense, sparse
from jaxrl.planning.iterate import Plan
from jaxrl.planning.learners import monte_carlo, n_step_q, peng, q_learning, sarsa, tree_backup
from jaxrl.planning.model import SparseMDP, induced
from jaxrl.planning.operators import action_values, best, epsilon_greedy, expectation, improve, mean, optimality, soft
from jaxrl.planning.sweeps import fixed_point, modified_policy_iteration, value_iteration

__all__ = [
    "FiniteHorizon",
    "Plan",
    "SparseMDP",
    "action_values",
    "best",
    "dense",
    "epsilon_greedy",
    "evaluate",
    "expectation",
    "finite_horizon",
    "fixed_point",
    "improve",
    "induced",
    "mean",
    "modified_policy_iteration",
    "monte_carlo",
    "n_step_q",
    "optimality",
    "peng",
    "policy_iteration",
    "q_learning",
    "sarsa",
    "soft",
    "sparse",
    "tree_backup",
    "value_iteration",
]
