"""The shell that every tabular learner shares: w += step * error; each learner brings its target.

A tabular observation is k active indices: an integer [] for a table, [k] for tile coding, with
Q(s, a) = sum_j w[index_j, a] (Sutton & Barto 2018, sections 6.5 and 9.5).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import behaviour as behaviours
from jaxrl import checks, explore, memory, returns
from jaxrl.behaviour import Behaviour
from jaxrl.types import Act, Agent, Metrics, PyTree, Sample, Schedule, Transition

# observation -> [A]: its action values, or the chances of its actions
Rows = Callable[[PyTree], Array]
# (q, window [T, ...], key, policy) -> target []: q gives action values, policy how the agent behaves now
Target = Callable[[Rows, Transition, Array, Rows], Array]


class TableState(NamedTuple):
    """What a tabular agent learns."""

    q: Array  # [S, A] float
    visits: Array  # [S, A] int32, how often each entry was learned from
    average: PyTree = ()  # [S, A], the average of q over its updates, where one is kept
    memory: PyTree = ()  # what else its learner keeps: traces, a model, a second table


class Shell(NamedTuple):
    """What tabular learners are made of; `shell` makes it."""

    init: Callable[[PyTree], TableState]  # (obs [N, ...]) -> a table without memory
    act: Act
    carry: Callable[[int], PyTree]
    values: Callable[[TableState], Rows]  # what it believes
    policy: Callable[[TableState, PyTree, ArrayLike], Rows]  # (state, carry, steps): how it behaves
    seen: Callable[[Transition], Transition]  # actions as columns of the table: all 0 where V is learned
    rate: Callable[[Array, Array], Array]  # (hits, visits after them) -> the share of the mean error to go
    learn: Callable[[TableState, Array, Array, Array, Array], TableState]  # see `shell`


def shell(
    num_states: int,
    num_actions: int,
    *,
    alpha: ArrayLike = 0.1,
    alpha_power: float = 0.0,
    epsilon: ArrayLike | Schedule = 0.1,
    behaviour: Behaviour | None = None,
    policy: ArrayLike | Rows | None = None,
    initial: ArrayLike = 0.0,
    average: float | None = None,
) -> Shell:
    """The parts of an agent with a table of `num_states` rows, and what all of them can be told.

    - `alpha`, `alpha_power`: with power 0 the step size is alpha, and entries that several environments hit at once
      move by the mean of their errors. Otherwise it is m alpha / visits^alpha_power, at most 1, for m hits:
      alpha = alpha_power = 1 is the sample average exactly.
    - `epsilon`: of epsilon-greedy, a number, a schedule, or [N], one for each environment; or any `behaviour`.
    - `policy`: follow this one, chances [S, A] or a function of the observation, and learn its V in a table [S, 1].
    - `initial`: every entry's value at the start; high ones are optimistic (Sutton & Barto 2018, section 2.6).
    - `average`: also keep the average of each entry over its updates, in which the n-th counts as
      (eta + 1) / (n + eta), and be greedy in it: eta 0 is the plain mean (Polyak & Juditsky 1992), a larger one forgets
      the beginning (Shamir & Zhang 2013).

    `learn(state, active [B, k], action [B], error [B], weight [B])` moves w[active, action]. Observations must be below
    num_states: jax clamps what is read beyond a table and drops what is written. Raises ValueError for sizes below 1,
    alpha outside (0, 1], alpha_power outside [0, 1], average below 0, and a table that does not fit in memory.
    """
    checks.at_least("num_states", num_states, 1)
    checks.at_least("num_actions", num_actions, 1)
    checks.in_range("alpha", alpha, 0, 1, open_low=True)
    checks.in_range("alpha_power", alpha_power, 0, 1)
    if average is not None:
        checks.in_range("average", average, 0, float("inf"), open_high=True)
    if policy is not None and behaviour is not None:
        raise ValueError("both policy and behaviour were given; a policy is what is followed: leave behaviour out")
    chooser = behaviour or (behaviours.epsilon_greedy(epsilon) if policy is None else behaviours.fixed(policy))
    shape = (num_states, num_actions if policy is None else 1)
    memory.require(f"a table of {shape[0]} x {shape[1]} values and counts", shape[0] * shape[1] * 8, "; use fewer rows")
    constant = not isinstance(alpha_power, jax.Array) and alpha_power == 0

    def init(obs: PyTree) -> TableState:
        _check_tabular(explore.split_mask(obs)[0])
        q = jnp.full(shape, initial, float)
        return TableState(q, jnp.zeros(shape, jnp.int32), () if average is None else q)

    def values(state: TableState) -> Rows:
        return lambda obs: action_values(state.q, explore.split_mask(obs)[0])

    def counts(state: TableState, obs: PyTree) -> Array:
        return jnp.mean(state.visits[jnp.atleast_1d(explore.split_mask(obs)[0])], axis=0)

    def following(state: TableState, carry: PyTree, steps: ArrayLike) -> Rows:
        q = values(state)
        return lambda obs: chooser.chances(q(obs), counts(state, obs), obs, carry, steps)

    def act(
        state: TableState, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]:
        if greedy and policy is None:
            observation, mask = explore.split_mask(obs)
            table = state.q if average is None else state.average
            return explore.greedy(action_values(table, observation), mask=mask), carry
        return chooser.choose(values(state)(obs), counts(state, obs), obs, carry, steps, key)

    def seen(window: Transition) -> Transition:
        return window if policy is None else window._replace(action=jnp.zeros_like(window.action))

    def rate(hits: Array, visits: Array) -> Array:
        if constant:
            return jnp.asarray(alpha, float)
        decay = jnp.maximum(visits, 1).astype(float) ** -jnp.asarray(alpha_power, float)
        return jnp.minimum(1.0, hits * alpha * decay)

    def learn(state: TableState, active: Array, action: Array, error: Array, weight: Array) -> TableState:
        entry = (active, action[:, None])  # [B, k] and [B, 1]: k entries an item
        counted = (weight > 0)[:, None].astype(jnp.int32)  # a weight of 0 says that there is no window
        hits = jnp.zeros_like(state.visits).at[entry].add(counted)
        visits = state.visits + hits
        m, n = hits[entry], visits[entry]
        step = rate(m, n) / (active.shape[1] * jnp.maximum(m, 1))
        q = state.q.at[entry].add((step * (weight * error)[:, None]).astype(state.q.dtype))
        if average is None:
            return state._replace(q=q, visits=visits)
        share = jnp.minimum(1.0, m * (average + 1) / (n + average))
        moved = state.average[entry] + share * (q[entry] - state.average[entry])
        moved = jnp.where(m > 0, moved, state.average[entry])  # the same for all that hit an entry, weight 0 or not
        return state._replace(q=q, visits=visits, average=state.average.at[entry].set(moved))

    return Shell(init, act, chooser.carry, values, following, seen, rate, learn)


def tabular_agent(num_states: int, num_actions: int, target: Target, **options) -> Agent:
    """A table moved towards `target(q, window, key, policy)` at the window's first state and action.

    `options` and errors are those of `shell`.
    """
    base = shell(num_states, num_actions, **options)

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        q = base.values(state)

        def item(window: Transition, key: Array) -> tuple[Array, Array, Array, Array]:
            first = jax.tree.map(lambda leaf: leaf[0], window._replace(carry=()))
            predicted = q(first.obs)[first.action]
            error = target(q, window, key, base.policy(state, window.carry, steps)) - predicted
            return indices(first.obs), first.action, error, predicted

        keys = jax.random.split(key, sample.weight.shape[0])
        active, action, error, predicted = jax.vmap(item)(base.seen(sample.window), keys)
        metrics = {"loss": jnp.mean(jnp.square(error)), "q": jnp.mean(predicted)}
        return base.learn(state, active, action, error, sample.weight), jnp.abs(error), metrics

    return Agent(lambda key, obs: base.init(obs), base.carry, base.act, update)


def towards_best(gamma: ArrayLike) -> Target:
    """Q-learning's target, r_1 + ... + gamma^n max_a Q(s_n, a) of a window of n steps."""

    def target(q: Rows, window: Transition, key: Array, policy: Rows) -> Array:
        del key, policy
        step = returns.n_step(window, gamma)
        best = explore.best(q(step.next_obs), explore.split_mask(step.next_obs)[1])
        return step.reward + jnp.where(step.discount > 0, step.discount * best, 0)  # an end may allow no action: -inf

    return target


def indices(obs: PyTree) -> Array:
    """The active rows [k] of one observation, without its mask."""
    return jnp.atleast_1d(explore.split_mask(obs)[0])


def action_values(table: Array, observation: Array) -> Array:
    """Q(s, .) [A] of one observation, the sum over its active rows of table [S, A]."""
    return jnp.sum(table[jnp.atleast_1d(observation)], axis=0)


def _check_tabular(observation: PyTree) -> None:
    leaves = jax.tree.leaves(observation)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.integer) or leaves[0].ndim not in (1, 2):
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves)
        raise ValueError(
            f"a tabular agent got an observation of {shapes}; it needs one integer, or a vector of active indices: "
            "wrap the environment in wrappers.discretize_observation or tile_coding (index_observation for a tuple of "
            "choices), or use a deep agent such as dqn"
        )
