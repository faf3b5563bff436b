"""Where each tabular learner goes: the exact fixed point of its expected update.

`options` are the `tolerance` and `limit` of `fixed_point`; a Plan's q is the learner's. They raise as it does.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl.planning import inputs, operators
from jaxrl.planning.exact import FiniteHorizon, evaluate, finite_horizon
from jaxrl.planning.iterate import Plan
from jaxrl.planning.model import MDP
from jaxrl.planning.operators import Backup
from jaxrl.planning.sweeps import fixed_point, value_iteration


def q_learning(mdp: MDP, gamma: ArrayLike, **options) -> Plan:
    """Q*: of Q-learning, double Q-learning, Watkins's Q(lambda), Dyna-Q and prioritized sweeping.

    Q = R + gamma P max_a Q (Watkins 1989; Sutton & Barto 2018, equation 4.2).
    """
    return value_iteration(mdp, gamma, **options)


def sarsa(mdp: MDP, gamma: ArrayLike, epsilon: ArrayLike, **options) -> Plan:
    """The best epsilon-soft Q: of SARSA, expected SARSA, n-step SARSA and SARSA(lambda) that stay epsilon-greedy.

    Q = R + gamma P [(1 - epsilon) max_a Q + epsilon mean_a Q] (Sutton & Barto 2018, section 5.4).
    """
    return fixed_point(mdp, gamma, operators.soft(epsilon), **options)


def tree_backup(mdp: MDP, gamma: ArrayLike, policy: ArrayLike, **options) -> Plan:
    """q_pi of the target policy, chances [S, A] or actions [S], whatever the behaviour and n.

    Precup, Sutton & Singh (2000); Sutton & Barto (2018), equation 7.16. With a target that is epsilon-greedy in Q it is
    `sarsa`'s, with a greedy one `q_learning`'s.
    """
    return evaluate(mdp, gamma, policy, **options)


def peng(mdp: MDP, gamma: ArrayLike, lambda_: ArrayLike, epsilon: ArrayLike, **options) -> Plan:
    """Of Peng's Q(lambda) that behaves epsilon-greedily: not Q*, unless lambda or epsilon is 0.

    Its return goes on along the behaviour mu with weight lambda: Q = R + gamma P [(1 - lambda) max_a Q + lambda mu Q],
    where mu Q = (1 - epsilon) max_a Q + epsilon mean_a Q (Peng & Williams 1996). So it is `sarsa`'s for an epsilon of
    lambda epsilon.
    """
    inputs.number("lambda_", lambda_)
    inputs.number("epsilon", epsilon)
    return fixed_point(mdp, gamma, operators.soft(jnp.multiply(lambda_, epsilon)), **options)


def n_step_q(mdp: MDP, gamma: ArrayLike, n: int, behaviour: ArrayLike | Backup, **options) -> Plan:
    """Of n-step Q-learning without correction, along a behaviour mu as in `fixed_point`.

    Q = (T_mu)^(n-1) T Q: n - 1 expectations over mu, then the maximum (Mnih et al. 2016, section 4).
    """
    return fixed_point(mdp, gamma, operators.best, n=n, behaviour=behaviour, **options)


def monte_carlo(mdp: MDP, gamma: ArrayLike, horizon: int, epsilon: ArrayLike) -> FiniteHorizon:
    """Of epsilon-greedy Monte Carlo control with the clock in the state, where episodes end at `horizon` at the latest.

    v_t = (1 - epsilon) max_a q_t + epsilon mean_a q_t, backwards from v_H = 0 (Sutton & Barto 2018, section 5.4).
    """
    return finite_horizon(mdp, gamma, horizon, operators.soft(epsilon))
