"""The shell that every deep value-based agent shares: act, one gradient step, target copy.

An algorithm brings its `values` and its `loss`, both for ONE item; both take a key, so that noisy and sampled-quantile
networks are no special case. `values` gets None for a key where the agent is greedy: then nothing is noisy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, xla
from jaxrl.returns import NStep
from jaxrl.types import Act, Agent, Metrics, PyTree, Sample, Transition

# (params, carry, obs, key or None) -> (q [A], carry)
Values = Callable[[PyTree, PyTree, PyTree, Array | None], tuple[Array, PyTree]]
# (params, target, window [T, ...], key) -> (loss [], priority [], metrics [])
Loss = Callable[[PyTree, PyTree, Transition, Array], tuple[Array, Array, Metrics]]
# (params, target, updates) -> target
TargetUpdate = Callable[[PyTree, PyTree, Array], PyTree]


class Network(Protocol):
    """What flax modules are, and all that is asked of a network.

    One that draws noise has an attribute `noisy` that is true, and takes flax's `rngs={"noise": key}`.
    """

    def init(self, key: Array, obs: PyTree, /) -> PyTree: ...
    def apply(self, params: PyTree, obs: PyTree, /) -> Any: ...  # q [A], or with a distribution [A, atoms]


class ValueState(NamedTuple):
    """What a deep agent learns."""

    params: PyTree
    target: PyTree  # the parameters that bootstrap, as params
    optimizer: PyTree
    updates: Array  # [] int32, gradient steps so far


def is_noisy(network: Any) -> bool:
    """Whether a network draws noise."""
    return getattr(network, "noisy", False)


def apply(network: Any, params: PyTree, obs: PyTree, key: Array | None, *more: Array) -> Any:
    """What a network says of one observation, whose mask it does not see; a key draws noise, None draws none."""
    observation, _ = explore.split_mask(obs)
    if key is None or not is_noisy(network):
        return network.apply(params, observation, *more)
    return network.apply(params, observation, *more, rngs={"noise": key})


def checked_init(network: Any, form: tuple[int | str, ...], *more: jax.ShapeDtypeStruct) -> Callable:
    """`network.init`, with a ValueError where the network's output is not of shape `form`; a letter is any length."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) == len(form) and all(isinstance(n, str) or n == m for n, m in zip(form, shape))

    def init(key: Array, obs: PyTree) -> PyTree:
        params = network.init(key, obs)
        found = jax.eval_shape(lambda params, obs, *more: apply(network, params, obs, None, *more), params, obs, *more)
        if not isinstance(found, jax.ShapeDtypeStruct) or not fits(found.shape):
            given = list(found.shape) if isinstance(found, jax.ShapeDtypeStruct) else found
            raise ValueError(
                f"the network gives {given} for one observation; this agent's must give [{', '.join(map(str, form))}], "
                "A being the number of actions"
            )
        return params

    return init


class Looks(NamedTuple):
    """What a network says where a step was taken and where it led."""

    here: Array  # at obs, by the parameters that learn
    ahead: Array  # at next_obs, by the target
    chooser: Array  # at next_obs, by those that choose the next action: no gradient goes there


def look(network: Any, params: PyTree, target: PyTree, step: NStep, key: Array, double: bool, *more: Array) -> Looks:
    """The target chooses the next action itself, or with `double` the parameters do (van Hasselt et al. 2016)."""
    online_key, target_key, chooser_key = jax.random.split(key, 3)
    here = apply(network, params, step.obs, online_key, *more)
    ahead = apply(network, target, step.next_obs, target_key, *more)
    if not double:
        return Looks(here, ahead, ahead)
    chooser = apply(network, jax.lax.stop_gradient(params), step.next_obs, chooser_key, *more)
    return Looks(here, ahead, chooser)


def polyak(tau: ArrayLike) -> TargetUpdate:
    """The target moves by `tau` of its distance to the parameters at every update (Lillicrap et al. 2016)."""
    checks.in_range("polyak", tau, 0, 1, open_low=True)
    return lambda params, target, updates: optax.incremental_update(params, target, tau)


def hard(period: int) -> TargetUpdate:
    """The target becomes the parameters at every `period`-th update (Mnih et al. 2015)."""
    checks.at_least("target period", period, 1)

    def update(params: PyTree, target: PyTree, updates: Array) -> PyTree:
        due = updates % period == 0
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), params, target)

    return update


def first_params(init_params: Callable[[Array, PyTree], PyTree], key: Array, obs: PyTree) -> PyTree:
    """Parameters for observations like `obs` [N, ...]: `init_params` is shown one of them, without its mask."""
    observation, _ = explore.split_mask(obs)
    return init_params(key, jax.tree.map(lambda leaf: leaf[0], observation))


def exploring(values: Values, rule: explore.Rule) -> Act:
    """How an agent acts whose state has `params`: by `values`, epsilon-greedy or by a softmax, as steps go on."""
    if isinstance(rule, explore.Softmax):
        parameter, choose = rule.temperature, explore.boltzmann
    else:
        parameter, choose = explore.epsilon_schedule(rule), explore.epsilon_greedy

    def act(
        state: Any, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]:
        _, mask = explore.split_mask(obs)
        if greedy:
            q, carry = values(state.params, carry, obs, None)
            return explore.greedy(q, mask=mask), carry
        value_key, explore_key = jax.random.split(key)
        q, carry = values(state.params, carry, obs, value_key)
        return choose(q, parameter(steps), explore_key, mask), carry

    return act


def value_agent(
    init_params: Callable[[Array, PyTree], PyTree],
    values: Values,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    target_update: TargetUpdate,
    epsilon: explore.Rule,
    carry: Callable[[int], PyTree] = lambda num_envs: (),
    one_draw: bool = False,
) -> Agent:
    """An agent that descends the mean of the weighted losses of a batch; `carry` is its memory, by default none.

    `init_params(key, obs)` takes one observation, without its mask. With `one_draw` all of a batch get the same key,
    as noisy networks are drawn once a step of optimisation (Fortunato et al. 2018, section 3.1). Metrics are `loss`,
    weighted as it was descended, and the means of the loss's own.
    """

    def init(key: Array, obs: PyTree) -> ValueState:
        params = first_params(init_params, key, obs)
        target = jax.tree.map(jnp.copy, params)  # a buffer of its own, or donation would give one away twice
        return ValueState(params, target, optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(state: ValueState, sample: Sample, key: Array, steps: Array) -> tuple[ValueState, Array, Metrics]:
        del steps
        key = xla.once(key, state.updates)
        keys = key if one_draw else jax.random.split(key, sample.weight.shape[0])

        def batch_loss(params: PyTree) -> tuple[Array, tuple[Array, Metrics]]:
            vmapped = jax.vmap(loss, (None, None, 0, None if one_draw else 0))
            losses, priorities, metrics = vmapped(params, state.target, sample.window, keys)
            chex.assert_equal_shape([losses, priorities, sample.weight])
            mean = jnp.mean(sample.weight * losses)
            return mean, (priorities, {"loss": mean, **jax.tree.map(jnp.mean, metrics)})

        gradient, (priority, metrics) = jax.grad(batch_loss, has_aux=True)(state.params)
        change, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, change)
        updates = state.updates + 1
        target = target_update(params, state.target, updates)
        return ValueState(params, target, optimizer_state, updates), priority, metrics

    return Agent(init, carry, exploring(values, epsilon), update)


class OnlineState(NamedTuple):
    """What an agent learns that has no target network."""

    params: PyTree
    optimizer: PyTree
    updates: Array  # [] int32, gradient steps so far


def check_phases(gamma: ArrayLike, lambda_: ArrayLike, epochs: int, minibatches: int) -> None:
    """Raises ValueError for what no agent learns with that goes over what was just collected in minibatches."""
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("lambda_", lambda_, 0, 1)
    checks.at_least("epochs", epochs, 1)
    checks.at_least("minibatches", minibatches, 1)


def online_state(params: PyTree, optimizer: optax.GradientTransformation) -> OnlineState:
    """As it is before the first gradient step."""
    return OnlineState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def descend(
    state: OnlineState,
    optimizer: optax.GradientTransformation,
    loss: Callable[..., tuple[Array, Metrics]],
    drawn: tuple[Array, ...],
) -> tuple[OnlineState, Metrics]:
    """A gradient step of `loss(params, *one)` for each of `drawn` [count, ...], in turn; metrics are their means."""

    def step(learner: tuple[PyTree, PyTree], one: tuple[Array, ...]) -> tuple[tuple[PyTree, PyTree], Metrics]:
        params, optimizer_state = learner
        gradient, metrics = jax.grad(loss, has_aux=True)(params, *one)
        change, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, change), optimizer_state), metrics

    (params, optimizer_state), metrics = jax.lax.scan(step, (state.params, state.optimizer), drawn)
    updates = state.updates + drawn[0].shape[0]
    return OnlineState(params, optimizer_state, updates), jax.tree.map(jnp.mean, metrics)


def implicit_values(network: Any, number: int) -> Values:
    """q as the mean of quantiles at `number` drawn fractions, at even ones where greedy (`nets.ImplicitQuantiles`)."""

    def values(params: PyTree, carry: PyTree, obs: PyTree, key: Array | None) -> tuple[Array, PyTree]:
        if key is None:
            return jnp.mean(apply(network, params, obs, None, (jnp.arange(number) + 0.5) / number), axis=0), carry
        draw_key, noise_key = jax.random.split(key)
        return jnp.mean(apply(network, params, obs, noise_key, jax.random.uniform(draw_key, (number,))), axis=0), carry

    return values


def product(a: Array, b: Array) -> Array:
    """a @ b in full float32; accelerators round the factors to fewer bits, which would show in a mean of returns."""
    return jnp.matmul(a, b, precision="highest")


def check_fractions(fractions: int, target_fractions: int, acting_fractions: int, kappa: ArrayLike) -> None:
    """Raises ValueError for fewer than one fraction of a kind and kappa below 0."""
    checks.in_range("kappa", kappa, 0, float("inf"), open_high=True)
    checks.at_least("fractions", fractions, 1)
    checks.at_least("target_fractions", target_fractions, 1)
    checks.at_least("acting_fractions", acting_fractions, 1)


def check_support(name: str, number: int, v_min: float | Array, v_max: float | Array) -> None:
    """Raises ValueError for fewer than 2 points, called `name`, and where they do not lead from v_min up to v_max."""
    checks.at_least(name, number, 2)
    checks.in_range("v_min", v_min, -float("inf"), float("inf"))
    checks.in_range("v_max", v_max, -float("inf"), float("inf"))
    rises = v_min < v_max
    if not isinstance(rises, Array) and not rises:
        raise ValueError(f"v_min is {v_min} and v_max {v_max}; v_min must be below v_max")


def with_rewards(agent: Agent, change: Callable[[Array], Array]) -> Agent:
    """The agent, which learns from `change(reward)`, scaled or clipped; what a run reports stays the task's own."""

    def changed(window: Transition) -> Transition:
        return window._replace(reward=change(window.reward))

    def update(state: PyTree, sample: Sample, key: Array, steps: Array) -> tuple[PyTree, Array, Metrics]:
        return agent.update(state, sample._replace(window=changed(sample.window)), key, steps)

    priority = agent.priority
    if priority is None:
        return agent._replace(update=update)
    return agent._replace(update=update, priority=lambda state, window: priority(state, changed(window)))


def quantile_loss(found: Array, fractions: Array, goal: Array, kappa: ArrayLike) -> Array:
    """The quantile Huber loss [] of quantiles [K] at fractions [K] for samples goal [M] of the return.

    The sum over quantiles of the mean over samples of |fraction - 1{u < 0}| L_kappa(u) / kappa, u = sample - quantile.
    """
    error = goal[None, :] - found[:, None]
    size = jnp.abs(error)
    some = jnp.where(jnp.equal(kappa, 0), 1.0, kappa)
    huber = jnp.where(size <= kappa, 0.5 * error**2 / some, size - 0.5 * kappa)
    weight = jnp.abs(fractions[:, None] - (error < 0))
    return jnp.sum(jnp.mean(weight * huber, axis=1))
