"""Q-learning (Watkins 1989)."""

from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents.tabular import tabular_agent
from jaxrl.types import Agent, Transition


def q_learning(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Moves Q(s, a) towards r + gamma max_a' Q(s', a') (Sutton & Barto 2018, equation 6.8).

    A buffer window of n makes it uncorrected n-step Q-learning. `options` are those of `tabular_agent`.
    """
    checks.in_range("gamma", gamma, 0, 1)

    def target(q, window: Transition, key: Array, epsilon: Array) -> Array:
        del key, epsilon
        step = returns.n_step(window, gamma)
        next_q, (_, mask) = q(step.next_obs), explore.split_mask(step.next_obs)
        # By index, not by a masked maximum: a terminal state may allow no action, and 0 * -inf is no number.
        return step.reward + step.discount * next_q[explore.greedy(next_q, mask=mask)]

    return tabular_agent(num_states, num_actions, target, **options)
