"""Deep Q-learning by classification, HL-Gauss (Imani & White 2018; Farebrother et al. 2024)."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, PyTree, Transition


def hl_gauss(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    bins: int = 51,
    v_min: float | Array = -10.0,
    v_max: float | Array = 10.0,
    sigma: ArrayLike = 0.75,
    gamma: ArrayLike = 0.99,
    double: bool = False,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Cross-entropy to the histogram of a Gaussian around r + gamma^k q_target(s', a') (Farebrother et al. 2024).

    `network` gives logits [A, bins] of even bins from v_min to v_max; q is the mean of their centres. `sigma` is the
    Gaussian's standard deviation in widths of a bin. What of it lies beyond the support is cut off, so that a target
    within 3 `sigma` of v_min or v_max is learned as one further inside: leave so much room around the returns. One
    beyond is learned as if it were v_min or v_max. The priority is |target - q|, the target within the support.
    Metrics: `q`, and `outside`, how far the target was beyond, in widths of the support. Raises ValueError for a gamma
    outside [0, 1], bins below 2, v_min >= v_max, sigma <= 0, and, where the run is traced, a network that does not fit.
    """
    checks.in_range("gamma", gamma, 0, 1)
    value.check_support("bins", bins, v_min, v_max)
    checks.in_range("sigma", sigma, 0, float("inf"), open_low=True, open_high=True)
    width = (v_max - v_min) / bins

    def expectation(logits: Array) -> Array:
        return value.product(jax.nn.softmax(logits), v_min + width * (jnp.arange(bins) + 0.5))

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return expectation(value.apply(network, params, obs, key)), carry

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        seen = value.look(network, params, target, step, key, double)
        logits = seen.here[step.action]
        following = expectation(seen.ahead)[explore.greedy(expectation(seen.chooser), mask=mask)]
        goal = jax.lax.stop_gradient(step.reward + step.discount * following)
        cost = -jnp.sum(histogram(goal, bins, v_min, v_max, sigma * width) * jax.nn.log_softmax(logits))
        q = expectation(logits)
        inside = jnp.clip(goal, v_min, v_max)
        outside = jnp.abs(goal - inside) / (v_max - v_min)
        return cost, jnp.abs(inside - q), {"q": q, "outside": outside}

    init = value.checked_init(network, ("A", bins))
    optimizer, target_update = optimizer or optax.adam(2.5e-4), target_update or value.polyak(0.005)
    one_draw = value.is_noisy(network)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon, one_draw=one_draw)


def histogram(mean: Array, bins: int, v_min: float | Array, v_max: float | Array, sigma: ArrayLike) -> Array:
    """The chances [bins] of a Gaussian, cut off at v_min and v_max, in even bins between them."""
    edges = jnp.linspace(v_min, v_max, bins + 1)
    below = jax.scipy.special.ndtr((edges - jnp.clip(mean, v_min, v_max)) / sigma)
    return jnp.diff(below) / (below[-1] - below[0])
