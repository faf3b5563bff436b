"""Learning a model and planning in it: Dyna-Q (Sutton 1990) and prioritized sweeping (Moore & Atkeson 1993).

The model keeps one-step facts of the pairs seen. An end is the next state `num_states`: it has no value.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, memory
from jaxrl.agents.tabular import TableState, indices, shell, tabular_agent, towards_best
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Model(NamedTuple):
    """What was seen of each pair; how often stands in `TableState.visits`."""

    following: Array  # int32: [S, A] the last next state, S where it was an end; or [S, A, S] counts, none for an end
    reward: Array  # [S, A] float: the last, or with counts the mean
    allowed: Array | None  # [S, A] bool: the action mask last seen in a state; None where there are none
    priority: Array  # [S, A] float, of prioritized sweeping; stays 0 in Dyna-Q


class Imagined(NamedTuple):
    """Simulated steps, one after the other."""

    state: Array  # [n] int32
    action: Array  # [n] int32
    reward: Array  # [n] float
    following: Array  # [n] int32, S where it was an end
    rate: Array  # [n] float, the step size


def dyna_q(
    num_states: int,
    num_actions: int,
    *,
    gamma: ArrayLike = 0.99,
    planning: int = 5,
    model: str = "last",
    **options,
) -> Agent:
    """Q-learning, and after each update of it `planning` simulated ones (Sutton & Barto 2018, section 8.2).

    They are of pairs seen before, each as likely. Model "last" repeats a pair's last step, right where nothing is
    random; "counts" draws from all its steps, [S, A, S] counts. A truncated end is no end in the model. planning = 0 is
    Q-learning itself. `options` and errors are those of `tabular.shell`, without `policy` and `average`; no tile
    coding.
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.at_least("planning", planning, 0)
    _check("dyna_q", model, options)

    real = tabular_agent(num_states, num_actions, towards_best(gamma), **options)
    base = shell(num_states, num_actions, **options)
    if planning == 0:
        return real

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        state = base.init(obs)
        return state._replace(memory=_empty(model, state.q, obs))

    def update(state: TableState, sample: Sample, key: Array, steps: Array) -> tuple[TableState, Array, Metrics]:
        real_key, pair_key, draw_key = jax.random.split(key, 3)
        state, priority, metrics = real.update(state, sample, real_key, steps)
        known = remember(state.memory, state.visits, sample)
        pairs = seen_pairs(pair_key, state.visits, planning)
        q = replay(state.q, imagine(known, state.visits, pairs, draw_key, base.rate), gamma, known.allowed)
        return state._replace(q=q, memory=known), priority, metrics

    return Agent(init, real.carry, real.act, update)


def prioritized_sweeping(
    num_states: int,
    num_actions: int,
    *,
    gamma: ArrayLike = 0.99,
    planning: int = 5,
    theta: ArrayLike = 1e-4,
    model: str = "last",
    **options,
) -> Agent:
    """Up to `planning` updates a real step, those of the largest priority above `theta` first.

    Model "last" is Sutton & Barto (2018), section 8.4: a step of size alpha, a pair's priority the size of its error.
    With "counts" an update is the whole expectation, r + gamma sum_s' p max_a' Q(s', a'), whatever alpha is, and a
    change of a state's value by d adds gamma p |d| to the priorities of its predecessors (Andre et al. 1998), which so
    are never below the error in the model: where all are at most theta, Q is within theta / (1 - gamma) of the model's.
    All learning is planning. `options` and errors are those of `tabular.shell`, without `policy` and `average`; no tile
    coding.
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("theta", theta, 0, float("inf"))
    checks.at_least("planning of prioritized sweeping, which learns by nothing else,", planning, 1)
    _check("prioritized_sweeping", model, options)
    base = shell(num_states, num_actions, **options)

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        state = base.init(obs)
        return state._replace(memory=_empty(model, state.q, obs))

    def update(state: TableState, sample: Sample, key: Array, steps: Array) -> tuple[TableState, Array, Metrics]:
        del key, steps
        s, a, _ = _first(sample)
        state = base.learn(state, s[:, None], a, jnp.zeros(s.shape, state.q.dtype), sample.weight)  # counts visits
        known = remember(state.memory, state.visits, sample)
        predicted = state.q[s, a]
        error = jax.vmap(lambda s, a: expected(state.q, known, state.visits, s, a, gamma))(s, a) - predicted
        where = (jnp.where(sample.weight > 0, s, num_states), a)
        if known.following.ndim == 2:
            priority = known.priority.at[where].max(jnp.abs(error), mode="drop")
        else:
            priority = known.priority.at[where].set(jnp.abs(error), mode="drop")
        q, priority, backups = sweep(state.q, known, priority, state.visits, planning, gamma, theta, base.rate)
        metrics = {
            "loss": jnp.mean(jnp.square(error)),
            "q": jnp.mean(predicted),
            "backups": backups.astype(jnp.float32),
        }
        return state._replace(q=q, memory=known._replace(priority=priority)), jnp.abs(error), metrics

    return Agent(init, base.carry, base.act, update)


def remember(model: Model, visits: Array, sample: Sample) -> Model:
    """The model after the first steps of a batch of windows; visits [S, A] count them already.

    Of several steps of one pair "last" keeps the one that stands last.
    """
    s, a, step = _first(sample)
    states, (batch,) = visits.shape[0], s.shape
    seen = sample.weight > 0
    following = jnp.where(step.terminated, states, jax.vmap(lambda obs: indices(obs)[0])(step.next_obs))
    allowed = model.allowed
    if allowed is not None:
        mask = explore.split_mask(step.next_obs)[1]
        allowed = allowed.at[jnp.where(seen, following, states)].set(mask, mode="drop")
    here = jnp.where(seen, s, states)
    if model.following.ndim == 3:
        counts = model.following.at[here, a, following].add(1, mode="drop")
        change = (step.reward - model.reward[s, a]) / jnp.maximum(visits[s, a], 1)
        reward = model.reward.at[here, a].add(change.astype(model.reward.dtype), mode="drop")
        return model._replace(following=counts, reward=reward, allowed=allowed)
    place = jnp.arange(batch, dtype=jnp.int32)
    last = jnp.zeros_like(visits).at[here, a].max(place, mode="drop")
    here = jnp.where(last[s, a] == place, here, states)  # else the facts of two steps could mix
    return model._replace(
        following=model.following.at[here, a].set(following, mode="drop"),
        reward=model.reward.at[here, a].set(step.reward.astype(model.reward.dtype), mode="drop"),
        allowed=allowed,
    )


def seen_pairs(key: Array, visits: Array, count: int) -> Array:
    """Pairs s A + a [count] int32, each as likely of those with visits [S, A] above 0; S A where none is."""
    total = jnp.cumsum(visits.ravel() > 0, dtype=jnp.int32)
    return jnp.searchsorted(total, jax.random.randint(key, (count,), 0, total[-1]), side="right").astype(jnp.int32)


def imagine(model: Model, visits: Array, pairs: Array, key: Array, rate) -> Imagined:
    """A step of the model from each of pairs [n]; counts give a next state by its frequency."""
    state, action = pairs // visits.shape[1], pairs % visits.shape[1]
    seen, following = visits[state, action], model.following[state, action]
    if following.ndim == 2:
        place = jax.random.randint(key, pairs.shape, 0, jnp.maximum(seen, 1))
        following = jnp.sum(jnp.cumsum(following, axis=1) <= place[:, None], axis=1, dtype=jnp.int32)
    step = jnp.broadcast_to(rate(jnp.ones_like(seen), seen), pairs.shape)
    return Imagined(state, action, model.reward[state, action], following, step)


def replay(q: Array, steps: Imagined, gamma: ArrayLike, allowed: Array | None = None) -> Array:
    """Q-learning of simulated steps [n], one after the other, in q [S, A]."""

    def one(q: Array, step: Imagined) -> tuple[Array, None]:
        target = step.reward + gamma * _value(q, step.following, allowed)
        moved = step.rate * (target - q[step.state, step.action])
        return q.at[step.state, step.action].add(moved.astype(q.dtype), mode="drop"), None

    return jax.lax.scan(one, q, steps)[0]


def expected(q: Array, model: Model, visits: Array, state: Array, action: Array, gamma: ArrayLike) -> Array:
    """The model's r + gamma sum_s' p(s'|s, a) max_a' Q(s', a'), [] for one pair."""
    following = model.following[state, action]
    if following.ndim == 0:
        return model.reward[state, action] + gamma * _value(q, following, model.allowed)
    values = explore.best(q, model.allowed)
    mean = jnp.sum(jnp.where(following > 0, following * values, 0)) / jnp.maximum(visits[state, action], 1)
    return model.reward[state, action] + gamma * mean


def sweep(
    q: Array, model: Model, priority: Array, visits: Array, planning: int, gamma: ArrayLike, theta: ArrayLike, rate
) -> tuple[Array, Array, Array]:
    """(q [S, A], priority [S, A], updates made []) after at most `planning` updates; ties go to the first pair."""

    def waiting(loop: tuple[Array, Array, Array]) -> Array:
        _, priority, done = loop
        return (done < planning) & (jnp.max(priority) > theta)

    def one(loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, priority, done = loop
        state, action = jnp.divmod(jnp.argmax(priority).astype(jnp.int32), q.shape[1])
        before = _value(q, state, model.allowed)
        target = expected(q, model, visits, state, action, gamma)
        if model.following.ndim == 3:
            q = q.at[state, action].set(target.astype(q.dtype))
        else:
            step = rate(jnp.int32(1), visits[state, action])
            q = q.at[state, action].add((step * (target - q[state, action])).astype(q.dtype))
        after = _value(q, state, model.allowed)
        priority = priority.at[state, action].set(0)
        if model.following.ndim == 3:
            chance = model.following[:, :, state] / jnp.maximum(visits, 1)
            return q, (priority + gamma * chance * jnp.abs(after - before)).astype(q.dtype), done + 1
        error = jnp.abs(model.reward + gamma * after - q)
        leads = (visits > 0) & (model.following == state)
        return q, jnp.where(leads, jnp.maximum(priority, error), priority).astype(q.dtype), done + 1

    return jax.lax.while_loop(waiting, one, (q, priority, jnp.zeros((), jnp.int32)))


def _value(q: Array, state: Array, allowed: Array | None) -> Array:
    """max_a q[state, a] [], 0 for an end."""
    best = explore.best(q[state], None if allowed is None else allowed[state])
    return jnp.where(state < q.shape[0], best, 0)


def _first(sample: Sample) -> tuple[Array, Array, Transition]:
    """States [B], actions [B] and all else of the first steps of a batch of windows."""
    step = jax.tree.map(lambda leaf: leaf[:, 0], sample.window._replace(carry=()))
    return jax.vmap(lambda obs: indices(obs)[0])(step.obs), step.action, step


def _check(name: str, model: str, options: dict) -> None:
    checks.one_of("model", model, ("last", "counts"))
    for option in ("policy", "average"):
        if options.get(option) is not None:
            raise ValueError(f"{name} got {option}; its planning is greedy in one table: leave {option} out")


def _empty(model: str, q: Array, obs: PyTree) -> Model:
    (states, actions), (observation, mask) = q.shape, explore.split_mask(obs)
    (leaf,) = jax.tree.leaves(observation)
    if leaf.ndim == 2 and leaf.shape[1] > 1:
        raise ValueError(
            f"a model of states got {leaf.shape[1]} active indices an observation; it needs one: use "
            "wrappers.discretize_observation in place of tile_coding, or q_learning"
        )
    shape = (states, actions, states) if model == "counts" else (states, actions)
    size = q.size * (states if model == "counts" else 1) * 4
    memory.require(f"a model of {' x '.join(map(str, shape))} next states", size, '; model "last" needs fewer')
    allowed = None if mask is None else jnp.ones(q.shape, bool)
    return Model(jnp.zeros(shape, jnp.int32), jnp.zeros_like(q), allowed, jnp.zeros_like(q))
