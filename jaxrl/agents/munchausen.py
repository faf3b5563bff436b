"""Munchausen-DQN and Munchausen-IQN (Vieillard, Pietquin & Geist 2020)."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, PyTree, Transition


def munchausen_dqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    alpha: ArrayLike = 0.9,
    temperature: ArrayLike = 0.03,
    floor: ArrayLike = -1.0,
    gamma: ArrayLike = 0.99,
    loss: Literal["squared", "huber"] = "squared",
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Soft deep Q-learning whose reward has alpha temperature log pi(a|s), cut at `floor`, added (M-DQN).

    pi is the softmax of the target network's q / temperature; the value of s' is sum pi (q - temperature log pi). In a
    window of n steps every reward has its own. `network` gives q [A]. Raises ValueError for alpha or gamma outside
    [0, 1], temperature <= 0, floor > 0, an unknown loss, and, where the run is traced, a network that does not fit.
    """
    _check(alpha, temperature, floor, gamma)
    checks.one_of("loss", loss, ["squared", "huber"])

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return value.apply(network, params, obs, key), carry

    def td_loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        here_key, look_key = jax.random.split(key)
        keys = jax.random.split(here_key, window.reward.shape[0])
        here = jax.vmap(lambda obs, key: value.apply(network, target, obs, key))(window.obs, keys)  # [T, A]
        step = returns.n_step(with_bonus(window, here, alpha, temperature, floor), gamma)
        seen = value.look(network, params, target, step, look_key, double=False)
        q = seen.here[step.action]
        goal = step.reward + step.discount * soft_value(seen.ahead, seen.ahead, temperature, step.next_obs)
        error = goal - q
        cost = optax.huber_loss(error) if loss == "huber" else jnp.square(error)
        return cost, jnp.abs(error), {"q": q}

    init = value.checked_init(network, ("A",))
    optimizer, target_update = optimizer or optax.adam(5e-5), target_update or value.polyak(0.005)
    one_draw = value.is_noisy(network)
    return value.value_agent(init, values, td_loss, optimizer, target_update, epsilon, one_draw=one_draw)


def munchausen_iqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    alpha: ArrayLike = 0.9,
    temperature: ArrayLike = 0.03,
    floor: ArrayLike = -1.0,
    fractions: int = 64,
    target_fractions: int = 64,
    acting_fractions: int = 32,
    kappa: ArrayLike = 1.0,
    gamma: ArrayLike = 0.99,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """`munchausen_dqn` of implicit quantiles (M-IQN): networks, options and errors of `iqn` besides.

    pi is the softmax of the mean over `acting_fractions`; a quantile of s' is sum pi (quantile - temperature log pi).
    """
    _check(alpha, temperature, floor, gamma)
    value.check_fractions(fractions, target_fractions, acting_fractions, kappa)

    def quantiles(params: PyTree, obs: PyTree, key: Array, number: int) -> tuple[Array, Array]:
        """Fractions drawn [number], and the quantiles there [number, A]."""
        draw_key, noise_key = jax.random.split(key)
        drawn = jax.random.uniform(draw_key, (number,))
        return drawn, value.apply(network, params, obs, noise_key, drawn)

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        here_key, own_key, ahead_key, policy_key = jax.random.split(key, 4)

        def target_q(obs: PyTree, key: Array) -> Array:
            return jnp.mean(quantiles(target, obs, key, acting_fractions)[1], axis=0)

        here = jax.vmap(target_q)(window.obs, jax.random.split(here_key, window.reward.shape[0]))  # [T, A]
        step = returns.n_step(with_bonus(window, here, alpha, temperature, floor), gamma)
        own, found = quantiles(params, step.obs, own_key, fractions)
        found = found[:, step.action]
        _, ahead = quantiles(target, step.next_obs, ahead_key, target_fractions)
        following = soft_value(ahead, target_q(step.next_obs, policy_key), temperature, step.next_obs)
        cost = value.quantile_loss(found, own, step.reward + step.discount * following, kappa)
        return cost, cost, {"q": jnp.mean(found)}

    init = value.checked_init(network, (fractions, "A"), jax.ShapeDtypeStruct((fractions,), jnp.float32))
    optimizer, target_update = optimizer or optax.adam(5e-5), target_update or value.polyak(0.005)
    values = value.implicit_values(network, acting_fractions)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon)


def log_policy(q: Array, temperature: ArrayLike, obs: PyTree) -> Array:
    """The logarithms [A] of the softmax of q / temperature among the actions that `obs` allows."""
    _, mask = explore.split_mask(obs)
    if mask is not None:
        mask = mask | ~jnp.any(mask)  # a terminal state may allow none: whatever is said of it must not be NaN
    return jax.nn.log_softmax(explore.tempered(q, temperature, mask))


def with_bonus(window: Transition, q: Array, alpha: ArrayLike, temperature: ArrayLike, floor: ArrayLike) -> Transition:
    """The window with alpha [temperature log pi(a|s)], from `floor` to 0, added to each reward; q [T, A] is at obs."""
    logs = jax.vmap(lambda q, obs: log_policy(q, temperature, obs))(q, window.obs)
    taken = jnp.take_along_axis(logs, window.action[:, None], axis=1)[:, 0]
    return window._replace(reward=window.reward + alpha * jnp.clip(temperature * taken, floor, 0))


def soft_value(values: Array, q: Array, temperature: ArrayLike, obs: PyTree) -> Array:
    """Sum over actions of pi (values - temperature log pi), values [..., A], pi the policy of q [A] -> [...]."""
    chances = jnp.exp(log_policy(q, temperature, obs))
    return value.product(values, chances) + temperature * jnp.sum(jax.scipy.special.entr(chances))


def _check(alpha: ArrayLike, temperature: ArrayLike, floor: ArrayLike, gamma: ArrayLike) -> None:
    checks.in_range("alpha", alpha, 0, 1)
    checks.in_range("temperature", temperature, 0, float("inf"), open_low=True, open_high=True)
    checks.in_range("floor", floor, -float("inf"), 0, open_low=True)
    checks.in_range("gamma", gamma, 0, 1)
