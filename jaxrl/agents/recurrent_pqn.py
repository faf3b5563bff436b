"""PQN with memory: on-policy recurrent Q(lambda) without replay and without a target network (Gallici et al. 2024).

The buffer is `recent(unroll, num_envs)`, updates 1, as for `pqn`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import explore, returns, xla
from jaxrl.agents import recurrent, value
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Lane(NamedTuple):
    """The steps of one environment, in order; [N, ...] for all of them."""

    window: Transition  # [T], carry the memory before the first step
    goal: Array  # [T] float32, what q(obs, action) should be
    weight: Array  # [] float32


def recurrent_pqn(
    network: recurrent.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    gamma: ArrayLike = 0.99,
    lambda_: ArrayLike = 0.65,
    epochs: int = 2,
    minibatches: int = 4,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Regression of q(s, a) on lambda-returns along the newest windows, which the same network bootstraps.

    `pqn` with a network that remembers: once a learn phase, by the parameters it began with, lambda-returns
    g_t = r_t + gamma ((1 - lambda) max_a q(s_t+1, a) + lambda g_t+1); then `epochs` passes over the lanes, shuffled
    into `minibatches`. Each gradient step unrolls whole lanes from the memory that the agent had where the phase began;
    where an episode ends it starts anew, and a cut one bootstraps from its true last observation by the memory before.
    Default: RAdam at 5e-4, the gradient's norm clipped to 10.

    Metrics: `loss` and `q`, means over the gradient steps. Raises ValueError for a gamma or lambda_ outside [0, 1],
    epochs or minibatches below 1, and, where the run is traced, minibatches that do not divide num_envs and a network
    that does not give (q [A], carry).
    """
    value.check_phases(gamma, lambda_, epochs, minibatches)
    rule = optimizer or optax.chain(optax.clip_by_global_norm(10.0), optax.radam(5e-4))

    def goals(params: PyTree, window: Transition) -> Array:
        """The lambda-returns [T] of one lane."""
        seen = recurrent.unroll(network, params, window.carry, window)
        _, mask = explore.split_mask(window.next_obs)
        discount, trace = returns.cut(window, gamma, lambda_)
        best = explore.best(recurrent.ahead(network, params, seen.after, window), mask)
        # a terminal observation may allow no action, which is worth minus infinity
        following = jnp.where(window.terminated, 0.0, best)
        return returns.lambda_returns(window.reward, discount, following, trace)

    def loss(params: PyTree, lanes: Lane) -> tuple[Array, Metrics]:
        def one(lane: Lane) -> tuple[Array, Array]:
            seen = recurrent.unroll(network, params, lane.window.carry, lane.window)
            q = jnp.take_along_axis(seen.q, lane.window.action[:, None], axis=1)[:, 0]
            return lane.weight * jnp.mean(optax.l2_loss(q, lane.goal)), jnp.mean(q)

        losses, q = jax.vmap(one)(lanes)
        mean = jnp.mean(losses)
        return mean, {"loss": mean, "q": jnp.mean(q)}

    def init(key: Array, obs: PyTree) -> value.OnlineState:
        return value.online_state(value.first_params(recurrent.init(network), key, obs), rule)

    def update(
        state: value.OnlineState, sample: Sample, key: Array, steps: Array
    ) -> tuple[value.OnlineState, Array, Metrics]:
        del steps
        number, count = sample.weight.shape[0], epochs * minibatches
        if number % minibatches:
            fits = [n for n in range(1, number + 1) if number % n == 0]
            raise ValueError(
                f"recurrent_pqn: minibatches is {minibatches}, which does not divide the {number} lanes of a learn "
                f"phase, one an environment; use one of {', '.join(map(str, fits))}"
            )
        keys = jax.random.split(xla.once(key, state.updates), epochs)
        order = jax.vmap(lambda key: jax.random.permutation(key, number))(keys)
        goal = jax.vmap(goals, (None, 0))(state.params, sample.window)
        lanes = Lane(sample.window, goal, sample.weight)

        def minibatch_loss(params: PyTree, drawn: Array) -> tuple[Array, Metrics]:
            return loss(params, jax.tree.map(lambda leaf: leaf[drawn], lanes))

        state, metrics = value.descend(state, rule, minibatch_loss, (order.reshape(count, -1),))
        return state, sample.weight, metrics

    act = value.exploring(recurrent.values(network), epsilon)
    return Agent(init, recurrent.carry(network), act, update, rows=lambda unroll: unroll)
