"""Monte-Carlo control and prediction: values are averages of the returns of whole episodes, nothing is bootstrapped.

The buffer is `recent(unroll + horizon - 1, num_envs)`, updates 1, and horizon the step limit of the environment: an
episode that ends in the newest `unroll` rows of a window then lies in it whole, and is learned from in that learn phase
alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import behaviour as behaviours
from jaxrl import checks
from jaxrl.agents.tabular import Rows, TableState, action_values, indices, shell
from jaxrl.behaviour import Behaviour
from jaxrl.types import NO_LIMIT, Agent, Metrics, PyTree, Sample, Transition


class Visits(NamedTuple):
    """What the rows of windows say; the rows of all lanes stand in one line, B = N x T."""

    active: Array  # [B, k] the active rows of the table
    action: Array  # [B]
    returns: Array  # [B] the return from there to the episode's end
    ratio: Array  # [B] the product of the importance ratios after it
    weight: Array  # [B] 0 where nothing is to be learned
    counts: Metrics  # of episodes


class Ratios(NamedTuple):
    """The memory of weighted importance sampling."""

    total: Array  # [S, A] the sum of the ratios of each entry's visits


def monte_carlo(
    num_states: int,
    num_actions: int,
    *,
    horizon: int | None,
    gamma: ArrayLike = 1.0,
    visit: str = "first",
    cut: str = "drop",
    **options,
) -> Agent:
    """Moves Q(s, a) towards the return that followed (Sutton & Barto 2018, sections 5.1 to 5.4).

    - `visit`: "first" learns from the first visit to an entry in an episode, "every" from all of them.
    - `cut`: what becomes of episodes that were truncated. "drop" leaves them out, which makes long episodes rarer than
      they are; "keep" takes the return up to the cut for the whole: right only where the clock is in the state.

    `options` are those of `tabular.shell`: alpha = alpha_power = 1 is the plain average of all returns, a constant
    alpha forgets those of old policies, `policy` learns V, and `behaviour.exploring_starts()` needs no epsilon.
    Metrics: `learned_episodes`, `cut_episodes` whether kept or not, and `long_episodes`, longer than the horizon and
    not learned from. Raises ValueError without a horizon, for a window shorter than it, and an unknown visit or cut.
    """
    visits = _reader("monte_carlo", horizon, gamma, visit, cut)
    base = shell(num_states, num_actions, **options)

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        del key, steps
        seen = visits(base.seen(sample.window), jnp.ones_like(sample.window.reward), sample.weight)
        predicted = _predicted(state, seen)
        error = seen.returns - predicted
        state = base.learn(state, seen.active, seen.action, error, seen.weight)
        return state, sample.weight, _metrics(seen, error, predicted)

    return Agent(lambda key, obs: base.init(obs), base.carry, base.act, update)


def off_policy_monte_carlo(
    num_states: int,
    num_actions: int,
    *,
    horizon: int | None,
    target: ArrayLike | Rows,
    behaviour: Behaviour,
    weighting: str = "weighted",
    gamma: ArrayLike = 1.0,
    visit: str = "every",
    cut: str = "drop",
    initial: ArrayLike = 0.0,
) -> Agent:
    """Learns Q of a fixed `target`, chances [S, A] or a function of the observation, from another policy's episodes.

    Sutton & Barto (2018), sections 5.5 to 5.7. With rho_t the product of target / behaviour over the steps after t,
    "weighted" is sum rho G / sum rho over the visits to an entry (equation 5.6; the sums are kept in `memory`),
    "ordinary" their mean of rho G (equation 5.5), without bias for first visits. `behaviour` is a
    `behaviour.fixed(...)` that does now and then whatever the target does. Metrics and errors are those of
    `monte_carlo`; ValueError too for an unknown weighting and a behaviour that depends on what is learned.
    """
    visits = _reader("off_policy_monte_carlo", horizon, gamma, visit, cut)
    checks.one_of("weighting", weighting, ("weighted", "ordinary"))
    base = shell(num_states, num_actions, alpha=1.0, alpha_power=1.0, behaviour=behaviour, initial=initial)
    wanted = behaviours.fixed(target)

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        state = base.init(obs)
        _require_fixed(behaviour, obs)
        return state._replace(memory=Ratios(jnp.zeros_like(state.q)) if weighting == "weighted" else ())

    def ratio(obs: PyTree, action: Array) -> Array:
        return _chances(wanted, obs)[action] / _chances(behaviour, obs)[action]

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        del key, steps
        window = sample.window
        seen = visits(window, jax.vmap(jax.vmap(ratio))(window.obs, window.action), sample.weight)
        predicted = _predicted(state, seen)
        if weighting == "ordinary":
            error = seen.ratio * seen.returns - predicted
            state = base.learn(state, seen.active, seen.action, error, seen.weight)
            return state, sample.weight, _metrics(seen, error, predicted)
        error = seen.returns - predicted
        entry = (seen.active, seen.action[:, None])
        share = (seen.weight * seen.ratio)[:, None].astype(state.q.dtype)
        total = state.memory.total.at[entry].add(share)
        moved = share * error[:, None] / jnp.where(share > 0, seen.active.shape[1] * total[entry], 1)
        state = state._replace(
            q=state.q.at[entry].add(moved.astype(state.q.dtype)),
            visits=state.visits.at[entry].add((seen.weight > 0)[:, None].astype(jnp.int32)),
            memory=Ratios(total),
        )
        return state, sample.weight, _metrics(seen, error, predicted)

    return Agent(init, base.carry, base.act, update)


def _reader(
    name: str, horizon: int | None, gamma: ArrayLike, visit: str, cut: str
) -> Callable[[Transition, Array, Array], Visits]:
    """(window [N, T, ...], ratio [N, T] of each step, weight [N]) -> what is to be learned from it."""
    if horizon is None or horizon == NO_LIMIT:
        raise ValueError(
            f"{name} got no horizon (horizon={horizon}); it learns from whole episodes of at most so many steps: wrap "
            "the environment in wrappers.time_limit(env, steps) and give horizon=steps"
        )
    checks.at_least("horizon", horizon, 1)
    checks.in_range("gamma", gamma, 0, 1)
    checks.one_of("visit", visit, ("first", "every"))
    checks.one_of("cut", cut, ("drop", "keep"))

    def lane(window: Transition, ratio: Array) -> tuple[Array, ...]:
        (length,) = window.reward.shape
        dtype = jnp.result_type(window.reward, float)
        row = jnp.arange(length, dtype=jnp.int32)
        ended = window.terminated | window.truncated

        def forth(start: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            row, ended = step
            return jnp.where(ended, row + 1, start), start

        def back(after: tuple[Array, ...], step: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            g, product, end, whole = after
            row, reward, ratio, ended, terminated = step
            g = reward + jnp.where(ended, 0, gamma * g).astype(dtype)
            product = jnp.where(ended, 1, product)
            end, whole = jnp.where(ended, row, end), jnp.where(ended, terminated, whole)
            return (g, product * ratio, end, whole), (g, product, end, whole)

        _, start = jax.lax.scan(forth, jnp.zeros((), jnp.int32), (row, ended))
        nothing = (jnp.zeros((), dtype), jnp.ones((), dtype), jnp.int32(-1), jnp.zeros((), bool))
        steps = (row, window.reward.astype(dtype), ratio.astype(dtype), ended, window.terminated)
        _, (returns, product, end, whole) = jax.lax.scan(back, nothing, steps, reverse=True)
        # an end in the newest rows is at least horizon - 1: what begins at row 0 there began there, or is too long
        new, fits = end >= horizon - 1, end - start < horizon
        learned = new & fits & (whole if cut == "drop" else True)
        active = jax.vmap(indices)(window.obs)
        weight = learned & _first(active, window.action, start, horizon) if visit == "first" else learned
        ends = ended & new
        counts = (ends & learned, ends & fits & ~whole, ends & ~fits)
        return active, window.action, returns, product, weight, *(jnp.sum(count, dtype=dtype) for count in counts)

    def visits(window: Transition, ratio: Array, weight: Array) -> Visits:
        if window.reward.shape[1] < horizon:
            raise ValueError(
                f"{name} got windows of {window.reward.shape[1]} steps, shorter than its horizon {horizon}; use "
                "recent(unroll + horizon - 1, num_envs)"
            )
        active, action, returns, product, learned, *counts = jax.vmap(lane)(window._replace(carry=()), ratio)
        names = ("learned_episodes", "cut_episodes", "long_episodes")
        line = partial(jnp.reshape, shape=-1)
        return Visits(
            active.reshape(-1, active.shape[-1]),
            line(action),
            line(returns),
            line(product),
            line(learned * weight[:, None]),
            dict(zip(names, map(jnp.sum, counts), strict=True)),
        )

    return visits


def _first(active: Array, action: Array, start: Array, horizon: int) -> Array:
    """[T]: whether no row of the episode before it, from row start [T] on, has the same entry."""
    length = len(action)
    row = jnp.arange(length, dtype=jnp.int32)
    columns = [(column, jnp.concatenate([column, column])) for column in (action, *active.T)]

    def further(lag: Array, seen: Array) -> Array:
        same = row - lag >= start
        for column, twice in columns:
            same &= jax.lax.dynamic_slice(twice, (length - lag,), (length,)) == column
        return seen | same

    return ~jax.lax.fori_loop(1, min(horizon, length), further, jnp.zeros(length, bool))


def _predicted(state: TableState, seen: Visits) -> Array:
    return jax.vmap(lambda active, action: action_values(state.q, active)[action])(seen.active, seen.action)


def _metrics(seen: Visits, error: Array, predicted: Array) -> Metrics:
    learned = seen.weight > 0
    number = jnp.maximum(jnp.sum(learned), 1)
    return {
        "loss": jnp.sum(jnp.where(learned, jnp.square(error), 0)) / number,
        "q": jnp.sum(jnp.where(learned, predicted, 0)) / number,
        **seen.counts,
    }


def _chances(policy: Behaviour, obs: PyTree) -> Array:
    """Of a policy that asks for nothing but the observation."""
    nothing: Any = None
    return policy.chances(nothing, nothing, obs, nothing, nothing)


def _require_fixed(behaviour: Behaviour, obs: PyTree) -> None:
    try:
        jax.eval_shape(partial(_chances, behaviour), jax.tree.map(lambda leaf: leaf[0], obs))
    except (AttributeError, TypeError, AssertionError) as error:
        raise ValueError(
            "off_policy_monte_carlo got a behaviour that depends on what is learned, so that the chances of old steps "
            "are not known; use behaviour.fixed(chances)"
        ) from error
