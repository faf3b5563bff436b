"""Deep Q-learning (Mnih et al. 2015), double (van Hasselt et al. 2016) and n-step (Hessel et al. 2018) included."""

from typing import Literal

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, PyTree, Transition


def dqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    gamma: ArrayLike = 0.99,
    double: bool = True,
    loss: Literal["squared", "huber"] = "squared",
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Regression of q(s, a) on r + gamma^k q_target(s', a'), the length n of the return being the buffer's window.

    a' is the target network's best action, or with `double` the online network's. `network` gives q [A] for
    one observation; a dueling one is a matter of the network. Defaults: Adam at 1e-3, Polyak target at 0.005.
    Raises ValueError for a gamma outside [0, 1], an unknown loss, and, where the run is traced, a network that gives
    no [A].
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.one_of("loss", loss, ["squared", "huber"])

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return value.apply(network, params, obs, key), carry

    def td_loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        seen = value.look(network, params, target, step, key, double)
        q = seen.here[step.action]
        following = seen.ahead[explore.greedy(seen.chooser, mask=mask)]
        error = step.reward + step.discount * following - q
        cost = optax.huber_loss(error) if loss == "huber" else jnp.square(error)
        return cost, jnp.abs(error), {"q": q}

    return value.value_agent(
        value.checked_init(network, ("A",)),
        values,
        td_loss,
        optimizer or optax.adam(1e-3),
        target_update or value.polyak(0.005),
        epsilon,
        one_draw=value.is_noisy(network),
    )
