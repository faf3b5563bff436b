"""PQN with Q(lambda): deep Q-learning without replay and without a target network (Gallici et al. 2024).

The buffer is `recent(unroll, num_envs)`, updates 1: each learn phase takes the whole of what was just collected.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import explore, returns, xla
from jaxrl.agents import value
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Lesson(NamedTuple):
    """Single transitions, from whichever lane and row they came; M = N x T."""

    obs: PyTree  # [M, ...]
    action: Array  # [M] int32
    goal: Array  # [M] float32, what q(obs, action) should be
    weight: Array  # [M] float32, of the window it is from


def pqn(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    gamma: ArrayLike = 0.99,
    lambda_: ArrayLike = 0.65,
    epochs: int = 2,
    minibatches: int = 4,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Regression of q(s, a) on lambda-returns of the newest windows, which the same network bootstraps.

    Gallici et al. (2024), algorithm 1: g_t = r_t + gamma ((1 - lambda) max_a q(s_t+1, a) + lambda g_t+1), computed
    once a learn phase by the parameters it began with; then `epochs` passes over the phase's transitions, shuffled
    into `minibatches`, each a gradient step on the mean of half the squared errors. `network` gives q [A] for one
    observation and should be normalised inside, which takes the target network's place (`layer_norm` of
    `nets.MLP`); noise, where it has any, is drawn once a gradient step. Default: RAdam at 5e-4, the gradient's norm
    clipped to 10.

    Metrics: `loss` and `q`, means over the gradient steps. Raises ValueError for a gamma or lambda_ outside [0, 1],
    epochs or minibatches below 1, and, where the run is traced, minibatches that do not divide num_envs x unroll and
    a network that gives no [A].
    """
    value.check_phases(gamma, lambda_, epochs, minibatches)
    rule = optimizer or optax.chain(optax.clip_by_global_norm(10.0), optax.radam(5e-4))

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        return value.apply(network, params, obs, key), carry

    def batch(params: PyTree, obs: PyTree, key: Array) -> Array:
        return jax.vmap(lambda obs: value.apply(network, params, obs, key))(obs)

    def goals(window: Transition, q: Array) -> Array:
        """The lambda-returns [T] of one window, from q [T, A] at its next observations."""
        _, mask = explore.split_mask(window.next_obs)
        discount, trace = returns.cut(window, gamma, lambda_)
        # a terminal observation may allow no action, which is worth minus infinity
        following = jnp.where(window.terminated, 0.0, explore.best(q, mask))
        return returns.lambda_returns(window.reward, discount, following, trace)

    def loss(params: PyTree, lesson: Lesson, key: Array) -> tuple[Array, Metrics]:
        q = batch(params, lesson.obs, key)
        q = jnp.take_along_axis(q, lesson.action[:, None], axis=1)[:, 0]
        mean = jnp.mean(lesson.weight * optax.l2_loss(q, lesson.goal))
        return mean, {"loss": mean, "q": jnp.mean(q)}

    def init(key: Array, obs: PyTree) -> value.OnlineState:
        return value.online_state(value.first_params(value.checked_init(network, ("A",)), key, obs), rule)

    def update(
        state: value.OnlineState, sample: Sample, key: Array, steps: Array
    ) -> tuple[value.OnlineState, Array, Metrics]:
        del steps
        lanes, length = sample.window.reward.shape
        size, count = lanes * length, epochs * minibatches
        _require_even(lanes, length, minibatches)
        goal_key, order_key, step_key = jax.random.split(xla.once(key, state.updates), 3)

        def flat(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), tree)

        window = sample.window
        # next_obs throughout: it is obs of the row after, but where an episode ended, and then it alone is right
        ahead = batch(state.params, flat(window.next_obs), goal_key).reshape(lanes, length, -1)
        goal = jax.vmap(goals)(window._replace(carry=()), ahead)
        weight = jnp.broadcast_to(sample.weight[:, None], (lanes, length))
        lessons = flat(Lesson(window.obs, window.action, goal, weight))
        order = jax.vmap(lambda key: _permutation(key, size))(jax.random.split(order_key, epochs))

        def minibatch_loss(params: PyTree, rows: Array, key: Array) -> tuple[Array, Metrics]:
            return loss(params, jax.tree.map(lambda leaf: leaf[rows], lessons), key)

        drawn = order.reshape(count, -1), jax.random.split(step_key, count)
        state, metrics = value.descend(state, rule, minibatch_loss, drawn)
        return state, sample.weight, metrics

    act = value.exploring(values, epsilon)
    return Agent(init, lambda num_envs: (), act, update, rows=lambda unroll: unroll)


def _permutation(key: Array, size: int) -> Array:
    """The numbers below `size` in random order: `jax.random.permutation`, which XLA on CPU takes ten times as long for.

    One array is sorted, of draws with the number in their low bits; those whose high bits are equal keep their order.
    """
    bits = (size - 1).bit_length()
    if bits > 20:
        return jax.random.permutation(key, size)
    low = jnp.uint32((1 << bits) - 1)
    drawn = (jax.random.bits(key, (size,)) & ~low) | jnp.arange(size, dtype=jnp.uint32)
    return (jnp.sort(drawn) & low).astype(jnp.int32)


def _require_even(lanes: int, length: int, minibatches: int) -> None:
    size = lanes * length
    if size % minibatches:
        fits = [n for n in range(1, size + 1) if size % n == 0]
        near = [*[n for n in fits if n < minibatches][-1:], *[n for n in fits if n > minibatches][:1]]
        raise ValueError(
            f"pqn: minibatches is {minibatches}, which does not divide the {size} transitions of a learn phase "
            f"(num_envs {lanes} x unroll {length}); use {' or '.join(map(str, near))}"
        )
