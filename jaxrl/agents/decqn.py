"""Decoupled Q-networks: Q-learning for actions of several dimensions, continuous ones in bins (Seyde et al. 2023)."""

from collections.abc import Sequence
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, Masked, PyTree, Transition


def decqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    nvec: Sequence[int] | None = None,
    gamma: ArrayLike = 0.99,
    double: bool = True,
    loss: Literal["squared", "huber"] = "squared",
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Deep Q-learning whose q(s, a) is the mean over dimensions d of q_d(s, a_d), for MultiDiscrete actions [D].

    Equations 4 and 5 of the paper: the best action is each dimension's own best, and the target bootstraps with the
    mean of these, chosen by the target network or with `double` by the online one. Each dimension explores for itself.
    `network` gives q [D, bins] for one observation; a dueling `QNetwork` would take the mean over dimensions off, which
    is nothing that helps here. Where dimensions differ in their bins, `nvec` [D] says how many of
    them count; an action mask, if the environment has one, is [D, bins]. A Box action
    becomes MultiDiscrete by `wrappers.decouple_action`, 3 bins being the paper's bang-off-bang. Defaults: Adam at 1e-3,
    Polyak target at 0.005.
    Raises ValueError for a gamma outside [0, 1], an unknown loss, an nvec that is no list of counts, and, where the run
    is traced, a network whose output does not fit.
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.one_of("loss", loss, ["squared", "huber"])
    sizes = () if nvec is None else tuple(nvec)
    if nvec is not None and not sizes:
        raise ValueError("nvec is empty; give the number of bins of each dimension, or None where all have as many")
    for i, bins in enumerate(sizes):
        checks.at_least(f"nvec[{i}]", bins, 1)
    exists = np.arange(max(sizes)) < np.asarray(sizes)[:, None] if len(set(sizes)) > 1 else None  # [D, bins]

    def shown(obs: PyTree) -> PyTree:
        """The observation with the bins that there are as its mask, where some are not."""
        if exists is None:
            return obs
        observation, mask = explore.split_mask(obs)
        return Masked(observation, jnp.asarray(exists) if mask is None else mask & exists)

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return value.apply(network, params, obs, key), carry

    def td_loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(shown(step.next_obs))
        seen = value.look(network, params, target, step, key, double)
        q = taken(seen.here, step.action)
        following = taken(seen.ahead, explore.greedy(seen.chooser, mask=mask))
        error = step.reward + step.discount * following - q
        cost = optax.huber_loss(error) if loss == "huber" else jnp.square(error)
        return cost, jnp.abs(error), {"q": q}

    def init_params(key: Array, obs: PyTree) -> PyTree:
        params = network.init(key, obs)
        _check_output(jax.eval_shape(lambda: value.apply(network, params, obs, None)), sizes)
        return params

    agent = value.value_agent(
        init_params,
        values,
        td_loss,
        optimizer or optax.adam(1e-3),
        target_update or value.polyak(0.005),
        epsilon,
        one_draw=value.is_noisy(network),
    )

    def act(
        state: PyTree, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]:
        return agent.act(state, carry, shown(obs), key, steps, greedy)

    return agent._replace(act=act)


def taken(q: Array, action: Array) -> Array:
    """q(s, a) [] of one action [D]: the mean of its entries of q [D, bins]."""
    chex.assert_rank([q, action], [2, 1])
    return jnp.mean(jnp.take_along_axis(q, action[:, None], axis=1))


def _check_output(found: PyTree, sizes: tuple[int, ...]) -> None:
    shape = getattr(found, "shape", None)
    if shape is None or len(shape) != 2 or (sizes and shape != (len(sizes), max(sizes))):
        wanted = f"[{len(sizes)}, {max(sizes)}], the bins of each dimension" if sizes else "[D, bins]"
        raise ValueError(
            f"decqn: the network gives {found if shape is None else list(shape)} for one observation; it must give "
            f"{wanted}: use nets.QNetwork(D, atoms=bins), or for Discrete actions another agent, such as dqn"
        )
