"""Quantile-regression deep Q-learning, QR-DQN (Dabney, Rowland et al. 2018)."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.agents.value import quantile_loss
from jaxrl.types import Agent, PyTree, Transition


def qr_dqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    quantiles: int = 200,
    kappa: ArrayLike = 1.0,
    gamma: ArrayLike = 0.99,
    double: bool = False,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Quantile Huber regression on r + gamma^k theta_target(s', a') (Dabney, Rowland et al. 2018, equation 10).

    `network` gives [A, quantiles], the return's quantiles at (2 i + 1) / (2 quantiles). kappa 0 is the quantile loss
    itself. The priority is the loss. Raises ValueError for a gamma outside [0, 1], quantiles below 2, kappa
    below 0, and, where the run is traced, a network that does not fit.
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.at_least("quantiles", quantiles, 2)
    checks.in_range("kappa", kappa, 0, float("inf"), open_high=True)

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return jnp.mean(value.apply(network, params, obs, key), axis=-1), carry

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        seen = value.look(network, params, target, step, key, double)
        found = seen.here[step.action]
        following = seen.ahead[explore.greedy(jnp.mean(seen.chooser, axis=-1), mask=mask)]
        goal = jax.lax.stop_gradient(step.reward + step.discount * following)
        cost = quantile_loss(found, (jnp.arange(quantiles) + 0.5) / quantiles, goal, kappa)
        return cost, cost, {"q": jnp.mean(found)}

    init = value.checked_init(network, ("A", quantiles))
    optimizer, target_update = optimizer or optax.adam(5e-5), target_update or value.polyak(0.005)
    one_draw = value.is_noisy(network)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon, one_draw=one_draw)
