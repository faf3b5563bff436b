"""Implicit quantile networks, IQN (Dabney, Ostrovski et al. 2018)."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.agents.value import quantile_loss
from jaxrl.types import Agent, PyTree, Transition


def iqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    fractions: int = 64,
    target_fractions: int = 64,
    acting_fractions: int = 32,
    kappa: ArrayLike = 1.0,
    gamma: ArrayLike = 0.99,
    double: bool = False,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Quantile Huber regression at fractions drawn anew for each item (Dabney, Ostrovski et al. 2018, equation 3).

    `network(obs, fractions [K])` gives the quantiles [K, A] at those fractions, as `nets.ImplicitQuantiles` does. An
    action is chosen by the mean over `acting_fractions` drawn ones, over even ones where the agent is greedy. Noise,
    where the network has any, is drawn for each item too. The priority is the loss. Raises ValueError for a gamma
    outside [0, 1], fewer than one fraction of a kind, kappa below 0, and, where the run is traced, a network that does
    not fit.
    """
    checks.in_range("gamma", gamma, 0, 1)
    value.check_fractions(fractions, target_fractions, acting_fractions, kappa)

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        own_key, ahead_key, choose_key, here_noise, ahead_noise, choose_noise = jax.random.split(key, 6)
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        own = jax.random.uniform(own_key, (fractions,))
        found = value.apply(network, params, step.obs, here_noise, own)[:, step.action]
        ahead = value.apply(
            network, target, step.next_obs, ahead_noise, jax.random.uniform(ahead_key, (target_fractions,))
        )
        chooses, noise = (jax.lax.stop_gradient(params), choose_noise) if double else (target, ahead_noise)
        chooser = value.apply(
            network, chooses, step.next_obs, noise, jax.random.uniform(choose_key, (acting_fractions,))
        )
        following = ahead[:, explore.greedy(jnp.mean(chooser, axis=0), mask=mask)]
        goal = jax.lax.stop_gradient(step.reward + step.discount * following)
        cost = quantile_loss(found, own, goal, kappa)
        return cost, cost, {"q": jnp.mean(found)}

    init = value.checked_init(network, (fractions, "A"), jax.ShapeDtypeStruct((fractions,), jnp.float32))
    optimizer, target_update = optimizer or optax.adam(5e-5), target_update or value.polyak(0.005)
    values = value.implicit_values(network, acting_fractions)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon)
