"""Fully parameterized quantile functions, FQF (Yang et al. 2019)."""

from collections.abc import Hashable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.agents.value import quantile_loss
from jaxrl.types import Agent, PyTree, Transition


def fqf(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    fraction_optimizer: optax.GradientTransformation | None = None,
    *,
    entropy: ArrayLike = 0.0,
    kappa: ArrayLike = 1.0,
    gamma: ArrayLike = 0.99,
    double: bool = False,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Quantile Huber regression at fractions that a part of the network proposes (Yang et al. 2019, algorithm 1).

    `network(obs)` gives the ends [N + 1] of intervals of fractions and the quantiles [N, A] at their middles,
    `network(obs, fractions [K])` quantiles [K, A], as `nets.ImplicitQuantiles(proposals=N)` does. Its parameters under
    a name "fractions" are moved by `fraction_optimizer`, down the slope of the intervals' 1-Wasserstein error less
    `entropy` times their own (proposition 1). The priority is the quantiles' loss. Metrics: `q`, and `entropy` of the
    intervals. Raises ValueError for entropy or kappa below 0, and where the network proposes nothing.
    """
    checks.in_range("entropy", entropy, 0, float("inf"), open_high=True)
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("kappa", kappa, 0, float("inf"), open_high=True)

    def expectation(ends: Array, quantiles: Array) -> Array:
        return value.product(jnp.diff(ends), quantiles)

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return expectation(*value.apply(network, params, obs, key)), carry

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        here_key, ahead_key, choose_key = jax.random.split(key, 3)
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        ends, found = value.apply(network, params, step.obs, here_key)
        found = found[:, step.action]
        middles = jax.lax.stop_gradient((ends[1:] + ends[:-1]) / 2)
        ahead = value.apply(network, target, step.next_obs, ahead_key, middles)
        chooses, noise = (params, choose_key) if double else (target, ahead_key)
        chooser = expectation(*value.apply(network, chooses, step.next_obs, noise))
        following = ahead[:, explore.greedy(chooser, mask=mask)]
        cost = quantile_loss(found, middles, jax.lax.stop_gradient(step.reward + step.discount * following), kappa)

        at_ends = value.apply(network, params, step.obs, here_key, jax.lax.stop_gradient(ends[1:-1]))[:, step.action]
        slope = jax.lax.stop_gradient(2 * at_ends - found[1:] - found[:-1])  # [N - 1]
        # an interval may vanish in float32, where the entropy's slope is endless
        spread = jnp.sum(jax.scipy.special.entr(jnp.maximum(jnp.diff(ends), 1e-8)))
        proposal = jnp.sum(slope * ends[1:-1]) - entropy * spread
        descended = cost + proposal - jax.lax.stop_gradient(proposal)  # a slope, of which no size is known
        return descended, cost, {"q": expectation(ends, found), "entropy": spread}

    def init(key: Array, obs: PyTree) -> PyTree:
        params = network.init(key, obs)
        found = jax.eval_shape(lambda params, obs: value.apply(network, params, obs, None), params, obs)
        shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
        if [len(shape) for shape in shapes] != [1, 2] or shapes[0][0] != shapes[1][0] + 1:
            raise ValueError(
                f"the network gives {', '.join(str(list(shape)) for shape in shapes)} for one observation; this "
                "agent's must give [N + 1], [N, A], as nets.ImplicitQuantiles with proposals=N does"
            )
        if "fractions" not in jax.tree.leaves(_groups(params)):
            raise ValueError(
                'the network has no parameters under the name "fractions"; this agent\'s proposes with them'
            )
        return params

    optimizers: dict[Hashable, optax.GradientTransformation] = {
        "fractions": fraction_optimizer or optax.rmsprop(2.5e-9, decay=0.95, eps=1e-5),
        "others": optimizer or optax.adam(5e-5),
    }
    optimizer = optax.multi_transform(optimizers, _groups)
    target_update, one_draw = target_update or value.polyak(0.005), value.is_noisy(network)
    return value.value_agent(init, values, loss, optimizer, target_update, epsilon, one_draw=one_draw)


def _groups(params: PyTree) -> PyTree:
    """Which optimiser moves a leaf."""

    def group(path: tuple, leaf: Array) -> str:
        del leaf
        return "fractions" if any(getattr(key, "key", None) == "fractions" for key in path) else "others"

    return jax.tree.map_with_path(group, params)
