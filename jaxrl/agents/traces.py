"""Backward-view eligibility traces: SARSA(lambda), true online SARSA(lambda), Watkins's and Peng's Q(lambda).

Every environment has traces of its own, [N, S, A] floats, and learns from each of its steps once: `unroll=1`,
`updates=1`. Several environments move an entry by the trace-weighted mean of their errors times the largest trace:
for one environment the book's rule, for lambda 0 the shell's mean. With visit-count steps the factor is
alpha visits^-alpha_power sum_n e_n, at most 1. An `average` counts a trace of e as e updates.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, memory
from jaxrl.agents.tabular import Rows, TableState, indices, shell
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Traces(NamedTuple):
    """What lasts in every environment from step to step."""

    trace: Array  # [N, S, A] float, zero after an episode's end
    foreseen: Array  # [N] float, Q(s', a') before the update that followed it: true online's Q_old


class Lesson(NamedTuple):
    """What one step teaches: `along` times the trace, and `own` more at its own state and action."""

    error: Array  # [] float
    along: Array  # [] float
    own: Array  # [] float
    kept: Array  # [] bool, whether the trace outlasts the step
    foreseen: Array  # [] float, Q(s', a')
    predicted: Array  # [] float, Q(s, a)


# (q, window [T, ...], foreseen [], key, policy) -> Lesson
Teach = Callable[[Rows, Transition, Array, Array, Rows], Lesson]


def sarsa_lambda(
    num_states: int,
    num_actions: int,
    *,
    gamma: ArrayLike = 0.99,
    lambda_: ArrayLike = 0.9,
    trace: str = "accumulating",
    **options,
) -> Agent:
    """Moves every Q by alpha times its trace times r + gamma Q(s', a') - Q(s, a) (Sutton & Barto 2018, section 12.7).

    A visit adds 1 to an "accumulating" trace and makes a "replacing" one 1 (Singh & Sutton 1996); "dutch" is true
    online SARSA(lambda), for one environment the online forward view exactly (van Seijen et al. 2016; Sutton & Barto
    2018, p. 307). With `policy=` they are TD(lambda) and true online TD(lambda). It learns from `recent(2, num_envs)`;
    at a truncated end a' is drawn from the current policy. `options` are those of `tabular.shell`. Raises ValueError
    for gamma or lambda_ outside [0, 1], an unknown trace, other windows, and traces that do not fit in memory.
    """
    checks.one_of("trace", trace, ("accumulating", "replacing", "dutch"))

    def teach(q: Rows, window: Transition, foreseen: Array, key: Array, policy: Rows) -> Lesson:
        step = _first(window)
        done = step.terminated | step.truncated
        following = jnp.where(done, explore.draw(policy(step.next_obs), key), window.action[1])
        predicted = q(step.obs)[step.action]
        value = jnp.where(step.terminated, 0, q(step.next_obs)[following])
        error = step.reward + gamma * value - predicted
        late = predicted - foreseen if trace == "dutch" else jnp.zeros_like(error)
        return Lesson(error, error + late, -late, ~done, value, predicted)

    return _trace_agent("sarsa_lambda", num_states, num_actions, gamma, lambda_, trace, 2, teach, options)


def q_lambda(
    num_states: int,
    num_actions: int,
    *,
    gamma: ArrayLike = 0.99,
    lambda_: ArrayLike = 0.9,
    variant: str = "watkins",
    **options,
) -> Agent:
    """Q-learning with accumulating traces: Watkins's Q(lambda) (1989) or Peng & Williams's (1996, section 3).

    "watkins" moves every Q by alpha times its trace times r + gamma max Q(s', .) - Q(s, a) and ends the traces where
    the next action is not greedy; it learns from `recent(2, num_envs)`. "peng" does not end them, moves earlier entries
    by r + gamma max Q(s', .) - max Q(s, .), and is neither on nor off policy; it learns from `recent(1, num_envs)`.
    `options` are those of `tabular.shell`. Raises ValueError for gamma or lambda_ outside [0, 1], an unknown variant,
    other windows, and traces that do not fit in memory.
    """
    checks.one_of("variant", variant, ("watkins", "peng"))
    watkins = variant == "watkins"

    def teach(q: Rows, window: Transition, foreseen: Array, key: Array, policy: Rows) -> Lesson:
        del foreseen, key, policy
        step = _first(window)
        predicted, ahead = q(step.obs)[step.action], q(step.next_obs)
        best = explore.best(ahead, explore.split_mask(step.next_obs)[1])
        value = jnp.where(step.terminated, 0, best)  # an end may allow no action: -inf
        error = step.reward + gamma * value - predicted
        kept = ~(step.terminated | step.truncated)
        if watkins:
            return Lesson(
                error, error, jnp.zeros_like(error), kept & (ahead[window.action[1]] >= best), value, predicted
            )
        beyond = explore.best(q(step.obs), explore.split_mask(step.obs)[1]) - predicted
        return Lesson(error, error - beyond, beyond, kept, value, predicted)

    length = 2 if watkins else 1
    return _trace_agent(
        f"q_lambda's {variant}", num_states, num_actions, gamma, lambda_, "accumulating", length, teach, options
    )


def _trace_agent(
    name: str,
    num_states: int,
    num_actions: int,
    gamma: ArrayLike,
    lambda_: ArrayLike,
    kind: str,
    length: int,
    teach: Teach,
    options: dict,
) -> Agent:
    """The agent that spreads each lesson along the traces of its environment."""
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("lambda_", lambda_, 0, 1)
    base = shell(num_states, num_actions, **options)
    average = options.get("average")
    power = options.get("alpha_power", 0.0)
    constant = not isinstance(power, jax.Array) and power == 0

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        num_envs = jax.tree.leaves(obs)[0].shape[0]
        table = jax.eval_shape(base.init, obs).q
        rows, columns = table.shape
        memory.require(
            f"{name}: traces of {num_envs} environments x {rows} x {columns}",
            num_envs * rows * columns * table.dtype.itemsize,
            "; use fewer environments or rows",
        )
        trace = jnp.zeros((num_envs, rows, columns), table.dtype)
        return base.init(obs)._replace(memory=Traces(trace, jnp.zeros(num_envs, table.dtype)))

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        q, memo = base.values(state), state.memory
        _require_steps(name, sample, len(memo.foreseen), length)
        lanes = jnp.arange(len(memo.foreseen))[:, None]
        window = base.seen(sample.window)

        def item(window: Transition, foreseen: Array, key: Array) -> tuple[Lesson, Array]:
            return teach(q, window, foreseen, key, base.policy(state, window.carry, steps)), indices(_first(window).obs)

        lesson, active = jax.vmap(item)(window, memo.foreseen, jax.random.split(key, len(lanes)))
        tilings, action = active.shape[1], window.action[:, 0][:, None]
        counted = (sample.weight > 0)[:, None]
        visits = state.visits.at[active, action].add(counted.astype(jnp.int32))

        faded = gamma * lambda_ * memo.trace
        here = (lanes, active, action)
        if kind == "replacing":
            trace = faded.at[here].set(1)
        elif kind == "dutch":
            step = base.rate(jnp.ones(active.shape, faded.dtype), visits[active, action]) / tilings
            trace = faded.at[here].add(1 - step * jnp.sum(faded[here], axis=1, keepdims=True))
        else:
            trace = faded.at[here].add(1)
        trace = trace.astype(faded.dtype)

        weight = sample.weight.astype(trace.dtype)
        pull = jnp.sum((weight * lesson.along)[:, None, None] * trace, axis=0)
        pull = pull.at[active, action].add((weight * lesson.own)[:, None])
        mass = jnp.sum(jnp.abs(trace), axis=0)  # over environments, [S, A]
        reach = jnp.max(jnp.abs(trace), axis=0) if constant else 1
        share = base.rate(mass, visits) / tilings * (reach / jnp.where(mass > 0, mass, 1))
        table = state.q + (share * pull).astype(state.q.dtype)
        if average is not None:
            new = jnp.minimum(1.0, mass * (average + 1) / jnp.maximum(visits + average, 1))
            state = state._replace(average=state.average + new * (table - state.average))
        memo = Traces(jnp.where(lesson.kept[:, None, None], trace, 0), lesson.foreseen.astype(memo.foreseen.dtype))
        metrics = {"loss": jnp.mean(jnp.square(lesson.error)), "q": jnp.mean(lesson.predicted)}
        return state._replace(q=table, visits=visits, memory=memo), jnp.abs(lesson.error), metrics

    return Agent(init, base.carry, base.act, update)


def _first(window: Transition) -> Transition:
    return jax.tree.map(lambda leaf: leaf[0], window._replace(carry=()))


def _require_steps(name: str, sample: Sample, num_envs: int, length: int) -> None:
    windows, steps = sample.window.reward.shape
    if (windows, steps) != (num_envs, length):
        raise ValueError(
            f"{name} got {windows} windows of {steps} steps for {num_envs} environments; traces need every step once: "
            f"use recent({length}, {num_envs}) with unroll=1 and updates=1, as a longer unroll would skip steps"
        )
