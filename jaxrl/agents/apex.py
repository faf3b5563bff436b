"""Ape-X DQN (Horgan et al. 2018): an epsilon for each actor, and first priorities by what the actors last copied."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import value
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Copies(NamedTuple):
    """What the actors hold: the learner's two networks as they were when last copied."""

    params: PyTree
    target: PyTree


class ApexState(NamedTuple):
    """What Ape-X learns, and what its actors have of it."""

    params: PyTree
    target: PyTree
    optimizer: PyTree
    updates: Array  # [] int32, gradient steps so far
    actors: Copies


def rmsprop(rate: optax.ScalarOrSchedule = 6.25e-5, clip_norm: float = 40.0) -> optax.GradientTransformation:
    """The paper's optimiser: centred RMSProp of decay 0.95 and epsilon 1.5e-7, after a clip of the gradient's norm."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.rmsprop(rate, 0.95, 1.5e-7, centered=True))


def apex(
    network: value.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    gamma: ArrayLike = 0.99,
    epsilon: float = 0.4,
    alpha: float = 7.0,
    refresh: int = 50,
    target_update: value.TargetUpdate | None = None,
) -> Agent:
    """Double Q-learning of n-step returns by prioritized replay, from N environments that each explore at a rate.

    Actor i of N takes a random action with chance epsilon^(1 + alpha i / (N - 1)), for the whole run. All actors hold
    one copy of the learner's parameters and of its target's: after t gradient steps that of after t - t % refresh. So
    `refresh` counts gradient steps, the only clock that moves within a learn phase; in a loop of U updates a phase,
    refresh = k U is a copy every k phases, k x unroll steps of each actor. With its copy an actor acts, and gives the
    windows that a collect phase completed their first priority, |TD error|, later the learner's own; windows of the
    warm-up enter with the largest. Greedy play is by the learner's parameters.

    `network`, a dueling one in the paper, gives q [A] for one observation; the buffer is `prioritized(..., window=3)`.
    Defaults are the paper's: `rmsprop()`, a target copied every 2,500 gradient steps, half the squared error.
    Raises ValueError for a gamma or epsilon outside [0, 1], a negative or infinite alpha, refresh < 1, a noisy network,
    and, where the run is traced, one actor and a network that gives no [A].
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("epsilon", epsilon, 0, 1)
    checks.in_range("alpha", alpha, 0, math.inf, open_high=True)
    checks.at_least("refresh", refresh, 1)
    if value.is_noisy(network):
        raise ValueError("apex: the network is noisy, but actors explore by their epsilons; use one without noise")
    copy = value.hard(refresh)

    def error(params: PyTree, target: PyTree, window: Transition) -> tuple[Array, Array]:
        """(TD error, q) of one window."""
        step = returns.n_step(window, gamma)
        _, mask = explore.split_mask(step.next_obs)
        chooser = value.apply(network, params, step.next_obs, None)
        ahead = value.apply(network, target, step.next_obs, None)
        goal = step.reward + step.discount * ahead[explore.greedy(chooser, mask=mask)]
        q = value.apply(network, params, step.obs, None)[step.action]
        return goal - q, q

    def loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        del key
        td_error, q = error(params, target, window)
        return 0.5 * jnp.square(td_error), jnp.abs(td_error), {"q": q}

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        del key
        return value.apply(network, params, obs, None), carry

    init_params = value.checked_init(network, ("A",))
    target_update = target_update or value.hard(2_500)
    learner = value.value_agent(init_params, values, loss, optimizer or rmsprop(), target_update, 0.0)

    def init(key: Array, obs: PyTree) -> ApexState:
        ladder(jax.tree.leaves(obs)[0].shape[0])
        state = learner.init(key, obs)
        copied = jax.tree.map(jnp.copy, Copies(state.params, state.target))
        return ApexState(**state._asdict(), actors=copied)

    def ladder(num_envs: int) -> Array:
        return explore.ladder(num_envs, epsilon, alpha)

    def carry(num_envs: int) -> Array:
        return ladder(num_envs) if num_envs > 1 else jnp.full(1, epsilon, jnp.float32)  # a single greedy episode

    def act(
        state: ApexState, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]:
        if greedy:
            return learner.act(state, carry, obs, key, steps, greedy)
        _, mask = explore.split_mask(obs)
        q, epsilon = values(state.actors.params, carry, obs, None)
        return explore.epsilon_greedy(q, epsilon, key, mask), carry

    def update(state: ApexState, sample: Sample, key: Array, steps: Array) -> tuple[ApexState, Array, Metrics]:
        learned, priority, metrics = learner.update(state, sample, key, steps)
        current = Copies(learned.params, learned.target)
        return ApexState(**learned._asdict(), actors=copy(current, state.actors, learned.updates)), priority, metrics

    def priority(state: ApexState, window: Transition) -> Array:
        errors, _ = jax.vmap(error, (None, None, 0))(*state.actors, window)
        return jnp.abs(errors)

    return Agent(init, carry, act, update, priority)
