"""Monte-Carlo control and prediction: values are averages of the returns of whole episodes, nothing is bootstrapped.

The buffer is `recent(unroll + horizon, num_envs)`, updates 1, and horizon the step limit of the environment: an episode
that ends in the newest `unroll` rows of a window then lies in it whole, and is learned from in that learn phase alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import behaviour as behaviours
from jaxrl import checks, returns
from jaxrl.agents.tabular import Rows, TableState, action_values, indices, shell
from jaxrl.behaviour import Behaviour
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


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
    alpha forgets those of old policies (and takes the mean of an entry's visits in a learn phase for one; each of them
    moves it in `lambda_return` with lambda_ 1), `policy` learns V, and `behaviour.exploring_starts()` needs no epsilon.
    With `policy`, every visit and the plain average it is batch Monte Carlo too (section 6.3).

    Metrics: `learned_episodes`, `cut_episodes` whether kept or not, and `long_episodes`, longer than the horizon and
    not learned from. Raises ValueError without a horizon, for windows of at most horizon steps, and an unknown visit or
    cut.
    """
    limit = returns.require_horizon("monte_carlo", horizon)
    visits = _reader(limit, gamma, visit, cut)
    base = shell(num_states, num_actions, **options)

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        del key, steps
        seen = visits(base.seen(sample.window), None, sample.weight)
        predicted = _predicted(state, seen)
        error = seen.returns - predicted
        state = base.learn(state, seen.active, seen.action, error, seen.weight)
        return state, sample.weight, _metrics(seen, error, predicted)

    return Agent(lambda key, obs: base.init(obs), base.carry, base.act, update, rows=lambda unroll: unroll + limit)


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
    limit = returns.require_horizon("off_policy_monte_carlo", horizon)
    visits = _reader(limit, gamma, visit, cut)
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

    return Agent(init, base.carry, base.act, update, rows=lambda unroll: unroll + limit)


def _reader(
    horizon: int, gamma: ArrayLike, visit: str, cut: str
) -> Callable[[Transition, Array | None, Array], Visits]:
    """(window [N, T, ...], ratio [N, T] of each step, weight [N]) -> what is to be learned from it."""
    checks.in_range("gamma", gamma, 0, 1)
    checks.one_of("visit", visit, ("first", "every"))
    checks.one_of("cut", cut, ("drop", "keep"))

    def lane(window: Transition, ratio: Array | None) -> tuple[Array, ...]:
        reward = window.reward.astype(float)
        ended = window.terminated | window.truncated
        found = returns.episodes(window, horizon)
        learned = found.whole
        if cut == "drop":
            learned &= window.terminated[jnp.minimum(found.end, len(ended) - 1)]
        discount = jnp.where(ended, 0, jnp.asarray(gamma, reward.dtype))
        g = returns.lambda_returns(reward, discount, jnp.zeros_like(reward), 1.0)
        active = jax.vmap(indices)(window.obs)
        weight = learned
        if visit == "first":
            weight &= _first(active, window.action, found.start, horizon)
        counts = (ended & learned, ended & found.whole & ~window.terminated, ended & found.long)
        product = jnp.ones_like(g) if ratio is None else _product(ratio.astype(g.dtype), ended)
        return active, window.action, g, product, weight, *(jnp.sum(count, dtype=g.dtype) for count in counts)

    def visits(window: Transition, ratio: Array | None, weight: Array) -> Visits:
        active, action, g, product, learned, *counts = jax.vmap(lane)(window._replace(carry=()), ratio)
        names = ("learned_episodes", "cut_episodes", "long_episodes")
        line = partial(jnp.reshape, shape=-1)
        return Visits(
            active.reshape(-1, active.shape[-1]),
            line(action),
            line(g),
            line(product),
            line(learned * weight[:, None]),
            dict(zip(names, map(jnp.sum, counts), strict=True)),
        )

    return visits


def _product(ratio: Array, ended: Array) -> Array:
    """[T]: the product of the episode's ratios after each row."""

    def back(product: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio, ended = step
        product = jnp.where(ended, 1, product)
        return product * ratio, product

    return jax.lax.scan(back, jnp.ones((), ratio.dtype), (ratio, ended), reverse=True)[1]


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
