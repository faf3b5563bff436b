"""Backward-view eligibility traces: SARSA(lambda), true online SARSA(lambda), Watkins's and Peng's Q(lambda).

Every environment has traces of its own, [N, S, A] floats, and learns from each of its steps once, in order: `updates`
is 1 and the buffer `recent(unroll + 1, num_envs)`, for Peng's `recent(unroll, num_envs)`. Several environments move an
entry by the trace-weighted mean of their errors times the largest trace: for one environment the book's rule, for
lambda 0 the shell's mean. With visit-count steps the factor is alpha visits^-alpha_power sum_n e_n, at most 1. An
`average` counts a trace of e as e updates.
"""

from collections.abc import Callable
from functools import partial
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


class Method(NamedTuple):
    """What tells one of these agents from the others."""

    name: str
    length: int  # rows of a window that one step's lesson needs
    trace: str  # "accumulating", "replacing" or "dutch"
    # (q, window [length, ...], foreseen [], key, policy) -> Lesson
    teach: Callable[[Rows, Transition, Array, Array, Rows], Lesson]


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
    2018, p. 307). With `policy=` they are TD(lambda) and true online TD(lambda). At a truncated end a' is drawn from
    the current policy. `options` are those of `tabular.shell`. Raises ValueError for gamma or lambda_ outside [0, 1],
    an unknown trace, other windows, and traces that do not fit in memory.
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

    method = Method("sarsa_lambda", 2, trace, teach)
    return _trace_agent(method, num_states, num_actions, gamma, lambda_, options)


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
    the next action is not greedy. "peng" does not end them, moves earlier entries by
    r + gamma max Q(s', .) - max Q(s, .), and is neither on nor off policy. `options` are those of `tabular.shell`.
    Raises ValueError for gamma or lambda_ outside [0, 1], an unknown variant, other windows, and traces that do not fit
    in memory.
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

    method = Method(f"q_lambda's {variant}", 2 if watkins else 1, "accumulating", teach)
    return _trace_agent(method, num_states, num_actions, gamma, lambda_, options)


def _trace_agent(
    method: Method, num_states: int, num_actions: int, gamma: ArrayLike, lambda_: ArrayLike, options: dict
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
            f"{method.name}: traces of {num_envs} environments x {rows} x {columns}",
            num_envs * rows * columns * table.dtype.itemsize,
            "; use fewer environments or rows",
        )
        trace = jnp.zeros((num_envs, rows, columns), table.dtype)
        return base.init(obs)._replace(memory=Traces(trace, jnp.zeros(num_envs, table.dtype)))

    def marked(trace: Array, here: tuple[Array, Array, Array], visits: Array) -> Array:
        """Traces [N, S, A], faded already, with the visit of rows `here` in them."""
        if method.trace == "replacing":
            return trace.at[here].set(1)
        if method.trace == "accumulating":
            return trace.at[here].add(1)
        tilings = here[1].shape[1]
        step = base.rate(jnp.ones(here[1].shape, trace.dtype), visits[here[1:]]) / tilings
        return trace.at[here].add((1 - step * jnp.sum(trace[here], axis=1, keepdims=True)).astype(trace.dtype))

    def learn(
        state: TableState, window: Transition, weight: Array, key: Array, steps: ArrayLike
    ) -> tuple[TableState, Array, Metrics]:
        """From the first step of every environment's window [N, length, ...]."""
        q, memo = base.values(state), state.memory
        lanes = jnp.arange(len(weight))[:, None]

        def item(window: Transition, foreseen: Array, key: Array) -> tuple[Lesson, Array]:
            lesson = method.teach(q, window, foreseen, key, base.policy(state, window.carry, steps))
            return lesson, indices(_first(window).obs)

        lesson, active = jax.vmap(item)(window, memo.foreseen, jax.random.split(key, len(lanes)))
        tilings, action = active.shape[1], window.action[:, 0][:, None]
        visits = state.visits.at[active, action].add((weight > 0)[:, None].astype(jnp.int32))
        trace = marked((gamma * lambda_ * memo.trace).astype(memo.trace.dtype), (lanes, active, action), visits)

        weight = weight.astype(trace.dtype)
        pull = _summed(weight * lesson.along, trace)
        pull = pull.at[active, action].add((weight * lesson.own)[:, None])
        mass = _summed(jnp.ones_like(weight), jnp.abs(trace))
        reach = jnp.max(jnp.abs(trace), axis=0) if constant else 1
        share = base.rate(mass, visits) / tilings * (reach / jnp.where(mass > 0, mass, 1))
        table = state.q + (share * pull).astype(state.q.dtype)
        if average is not None:
            new = jnp.minimum(1.0, mass * (average + 1) / jnp.maximum(visits + average, 1))
            state = state._replace(average=state.average + new * (table - state.average))
        memo = Traces(jnp.where(lesson.kept[:, None, None], trace, 0), lesson.foreseen.astype(memo.foreseen.dtype))
        metrics = {"loss": jnp.mean(jnp.square(lesson.error)), "q": jnp.mean(lesson.predicted)}
        return state._replace(q=table, visits=visits, memory=memo), jnp.abs(lesson.error), metrics

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        window = base.seen(sample.window)
        new = _new_steps(method, window, len(state.memory.foreseen))
        if new == 1:
            return learn(state, window, sample.weight, key, steps)

        def step(state: TableState, row_and_key: tuple[Array, Array]) -> tuple[TableState, tuple[Array, Metrics]]:
            row, key = row_and_key
            rows = partial(jax.lax.dynamic_slice_in_dim, start_index=row, slice_size=method.length, axis=1)
            part = jax.tree.map(rows, window._replace(carry=()))._replace(carry=window.carry)
            state, priority, metrics = learn(state, part, sample.weight, key, steps)
            return state, (priority, metrics)

        rows_and_keys = jnp.arange(new), jax.random.split(key, new)
        state, (priority, metrics) = jax.lax.scan(step, state, rows_and_keys)
        return state, priority[-1], jax.tree.map(jnp.mean, metrics)

    return Agent(init, base.carry, base.act, update, rows=lambda unroll: method.length + unroll - 1)


def _summed(weight: Array, trace: Array) -> Array:
    """The weighted sum [S, A] over environments: as a product, for XLA on CPU takes five times as long to reduce."""
    return jnp.tensordot(weight, trace, 1, precision="highest")


def _first(window: Transition) -> Transition:
    return jax.tree.map(lambda leaf: leaf[0], window._replace(carry=()))


def _new_steps(method: Method, window: Transition, num_envs: int) -> int:
    """How many of a window's steps are to be learned from."""
    windows, rows = window.reward.shape
    if windows != num_envs or rows < method.length:
        raise ValueError(
            f"{method.name} got {windows} windows of {rows} steps for {num_envs} environments; traces need every step "
            f"of each once: use recent(unroll + {method.length - 1}, {num_envs}) and updates=1"
        )
    return rows - method.length + 1
