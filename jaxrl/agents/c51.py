"""Categorical deep Q-learning, C51 (Bellemare et al. 2017), and in it Rainbow (Hessel et al. 2018)."""

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, PyTree, Transition


def c51(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    atoms: int = 51,
    v_min: float | Array = -10.0,
    v_max: float | Array = 10.0,
    gamma: ArrayLike = 0.99,
    double: bool = False,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Cross-entropy to the projected distribution of r + gamma^k Z_target(s', a') (Bellemare et al. 2017, equation 7).

    `network` gives logits [A, atoms] of returns at `atoms` points from v_min to v_max; what lies beyond them is learned
    as their nearest. The priority is the Kullback-Leibler divergence (Hessel et al. 2018). Metrics: `q`, and
    `outside`, how far clipping moved the target's mass, in widths of the support. Raises ValueError for a gamma
    outside [0, 1], atoms below 2, v_min >= v_max, and, where the run is traced, a network that does not fit.
    """
    checks.in_range("gamma", gamma, 0, 1)
    value.check_support("atoms", atoms, v_min, v_max)

    def support() -> Array:
        return jnp.linspace(v_min, v_max, atoms)

    def expectation(logits: Array) -> Array:
        return value.product(jax.nn.softmax(logits), support())

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return expectation(value.apply(network, params, obs, key)), carry

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        seen = value.look(network, params, target, step, key, double)
        logits = seen.here[step.action]
        following = jax.nn.softmax(seen.ahead[explore.greedy(expectation(seen.chooser), mask=mask)])
        points = step.reward + step.discount * support()
        goal = jax.lax.stop_gradient(project(points, following, v_min, v_max))
        cost = -jnp.sum(goal * jax.nn.log_softmax(logits))
        outside = jnp.sum(following * jnp.abs(points - jnp.clip(points, v_min, v_max))) / (v_max - v_min)
        entropy = jnp.sum(jax.scipy.special.entr(goal))
        # a divergence is never negative but by rounding
        return cost, jnp.maximum(cost - entropy, 0.0), {"q": expectation(logits), "outside": outside}

    init = value.checked_init(network, ("A", atoms))
    optimizer, target_update = optimizer or optax.adam(2.5e-4), target_update or value.polyak(0.005)
    one_draw = value.is_noisy(network)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon, one_draw=one_draw)


def project(points: Array, chances: Array, v_min: float | Array, v_max: float | Array) -> Array:
    """The chances [K] of a distribution at points [K] shared out among K even points from v_min to v_max.

    Each gives to its two nearest neighbours in proportion to nearness (Bellemare et al. 2017, equation 7).
    Raises AssertionError while tracing on other shapes.
    """
    chex.assert_rank([points, chances], 1)
    chex.assert_equal_shape([points, chances])
    (atoms,) = points.shape
    place = (jnp.clip(points, v_min, v_max) - v_min) / (v_max - v_min) * (atoms - 1)  # [K], in grid steps
    nearness = jnp.clip(1 - jnp.abs(place[:, None] - jnp.arange(atoms)[None]), 0, 1)
    return value.product(chances, nearness)
