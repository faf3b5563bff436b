"""The loop, the only one: collect `unroll` steps of every environment, learn `updates` times, again.

All of it is one program to jit, scan and vmap. Cadence is structure: no condition guards learning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrl import checks, xla
from jaxrl.types import Agent, Buffer, Metrics, PyTree, Transition
from jaxrl.vector import make_vector


@dataclass(frozen=True)
class LoopConfig:
    """How many environments, and how collecting and learning alternate."""

    num_envs: int
    unroll: int = 1  # steps of every environment in a collect phase
    updates: int = 1  # agent updates in a learn phase
    warmup: int = 0  # steps of every environment before the first collect phase, without learning
    reset_pool: int = 0  # fresh episodes drawn before each collect phase; 0: a reset is computed with every step


class RunState(NamedTuple):
    """Everything a run is: save it and the run can go on to the bit."""

    clock: Array  # [] int32, steps of every environment so far; unbatched, also when seeds are vmapped
    key: Array  # [] PRNG key
    env_state: PyTree  # [N, ...]
    obs: PyTree  # [N, ...] what the agent sees next
    carry: PyTree  # [N, ...] the agent's memory of the running episodes
    agent: PyTree
    buffer: PyTree
    episode_return: Array  # [N] float32, of the running episodes
    episode_length: Array  # [N] int32


class Run(NamedTuple):
    """An experiment as three pure functions."""

    init: Callable[[Array], RunState]  # (key): no step is taken
    warmup: Callable[[RunState], RunState]  # fills the buffer; its steps count in the budget
    step: Callable[[RunState], tuple[RunState, Metrics]]  # one collect phase, one learn phase
    axes: RunState = RunState(*[0] * len(RunState._fields))._replace(clock=None)  # type: ignore[arg-type] # for vmap


def decide(
    agent: Agent, state: PyTree, carry: PyTree, obs: PyTree, key: Array, steps: Array, greedy: bool = False
) -> tuple[Array, PyTree]:
    """The loop's first half: actions [N] and the agent's next memory for observations [N, ...]."""
    keys = jax.random.split(key, jax.tree.leaves(obs)[0].shape[0])
    act = partial(agent.act, greedy=greedy)
    return jax.vmap(act, (None, 0, 0, 0, None))(state, carry, obs, keys, steps)


def record(
    agent: Agent,
    obs: PyTree,
    action: Array,
    carry: PyTree,
    next_carry: PyTree,
    reward: Array,
    terminated: Array,
    truncated: Array,
    next_obs: PyTree,
) -> tuple[Transition, PyTree]:
    """The loop's second half: the transitions [N] to store, and the memory to go on with, reset where episodes ended.

    `carry` is the memory before `decide`, `next_carry` what it gave; `next_obs` the true one, before any auto-reset.
    """
    reward = jnp.asarray(reward, jnp.float32)
    transition = Transition(obs, action, reward, terminated, truncated, next_obs, carry)
    done = terminated | truncated
    start = agent.carry(done.shape[0])
    next_carry = jax.tree.map(lambda new, old: jnp.where(_as_prefix(done, new), new, old), start, next_carry)
    return transition, next_carry


def make_learn(
    agent: Agent, buffer: Buffer, updates: int
) -> Callable[[Array, PyTree, PyTree, Array, Array], tuple[PyTree, PyTree, Metrics]]:
    """A learn phase: (key, agent_state, buffer_state, clock, steps) -> (agent_state, buffer_state, metrics).

    Metrics are the agent's, summed over the phase, and their count `updates`.
    """
    checks.at_least("updates", updates, 1)

    def learn(key, agent_state, buffer_state, clock, steps):
        def update(state, keys_and_sample):
            agent_state, buffer_state = state
            key, sample = keys_and_sample
            sample_key, update_key = jax.random.split(key)
            if sample is None:
                sample = buffer.sample(buffer_state, xla.once(sample_key, clock), clock)
            agent_state, priority, metrics = agent.update(agent_state, sample, update_key, steps)
            return (agent_state, buffer.update(buffer_state, sample.index, priority)), metrics

        key, sample_key = jax.random.split(key)
        samples = None
        if buffer.ahead and updates > 1:
            samples = buffer.sample(buffer_state, xla.once(sample_key, clock), clock, batches=updates)
        keys = jax.random.split(key, updates)
        state, metrics = _repeat(update, (agent_state, buffer_state), (keys, samples), updates)
        return *state, {**metrics, "updates": jnp.float32(updates)}

    return learn


def make_run(env: Any, params: PyTree, agent: Agent, buffer: Buffer, config: LoopConfig) -> Run:
    """A run of `agent` on N = num_envs copies of `env` (our Environment protocol or gymnax 1.0's).

    A leaf of `params` with one more axis than its default has a value for each environment. One `step` takes
    unroll x N environment steps. Its metrics are sums: `env_steps`, `episodes` that ended, their `return` and
    `length`, `updates`, `reset_overflow` where there is a pool (see `make_vector`), and the agent's. Raises
    ValueError, before anything is compiled, for sizes below 1, an action space that is not discrete, a warm-up
    too short for the buffer's first sample, and where an agent that must see each step once would not; where the run
    is traced, for an agent whose actions are not those of the environment.
    """
    for name, low in (("num_envs", 1), ("unroll", 1), ("updates", 1), ("warmup", 0), ("reset_pool", 0)):
        checks.at_least(name, getattr(config, name), low)
    if config.warmup + config.unroll < buffer.min_steps:
        raise ValueError(
            f"no update can be made: warm-up {config.warmup} + unroll {config.unroll} steps fill the buffer less than "
            f"the {buffer.min_steps} that its first sample needs; set warmup to at least "
            f"{buffer.min_steps - config.unroll}"
        )
    if agent.rows is not None and (config.updates, buffer.min_steps) != (1, agent.rows(config.unroll)):
        raise ValueError(
            f"the agent learns from each step once, but updates is {config.updates} and the buffer's windows have "
            f"{buffer.min_steps} steps; with unroll {config.unroll} use updates=1 and "
            f"recent({agent.rows(config.unroll)}, {config.num_envs})"
        )
    space = env.action_space(params)
    if not (hasattr(space, "n") or hasattr(space, "nvec")):
        raise ValueError(
            f"the action space of {env.name} is {type(space).__name__}; agents choose from Discrete or MultiDiscrete "
            "actions: for a Box use decqn with wrappers.decouple_action(env), or any other agent with "
            "wrappers.discretize_action(env, bins)"
        )
    num_envs = config.num_envs
    vector = make_vector(env, params, num_envs, config.reset_pool)
    learn = make_learn(agent, buffer, config.updates)

    def env_steps(clock: Array) -> Array:
        return clock.astype(jnp.float32) * num_envs

    def init(key: Array) -> RunState:
        key, env_key, agent_key = jax.random.split(key, 3)
        obs, env_state = vector.reset(jax.random.split(env_key, num_envs))
        agent_state = agent.init(agent_key, obs)
        carry = agent.carry(num_envs)
        clock = jnp.zeros((), jnp.int32)
        episode_return, episode_length = jnp.zeros(num_envs, jnp.float32), jnp.zeros(num_envs, jnp.int32)
        state = RunState(clock, key, env_state, obs, carry, agent_state, (), episode_return, episode_length)
        example = jax.eval_shape(_interact, state)[1]
        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        return state._replace(buffer=buffer.init(example))

    @partial(jax.jit, inline=True)  # traced once for all its uses
    def _interact(state: RunState) -> tuple[RunState, Transition, Metrics]:
        key, act_key, env_key = jax.random.split(state.key, 3)
        action, next_carry = decide(agent, state.agent, state.carry, state.obs, act_key, env_steps(state.clock))
        _check_action(env, space, action)
        action = xla.once(action, state.clock)
        obs, env_state, reward, terminated, truncated, info = vector.step(
            jax.random.split(env_key, num_envs), state.env_state, action
        )
        transition, carry = record(
            agent,
            state.obs,
            action,
            state.carry,
            next_carry,
            reward,
            terminated,
            truncated,
            info["final_observation"],
        )
        done = terminated | truncated
        episode_return = state.episode_return + transition.reward
        episode_length = state.episode_length + 1
        metrics = {
            "env_steps": jnp.float32(num_envs),
            "episodes": jnp.sum(done, dtype=jnp.float32),
            "return": jnp.sum(jnp.where(done, episode_return, 0.0)),
            "length": jnp.sum(jnp.where(done, episode_length, 0), dtype=jnp.float32),
        }
        state = state._replace(
            clock=state.clock + 1,
            key=key,
            env_state=env_state,
            obs=obs,
            carry=carry,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
        )
        return state, transition, metrics

    def collect(state: RunState, _: None) -> tuple[RunState, Metrics]:
        following, transition, metrics = _interact(state._replace(buffer=()))
        return following._replace(buffer=buffer.add(state.buffer, transition, state.clock)), metrics

    def phase(state: RunState, steps: int) -> tuple[RunState, Metrics]:
        if not config.reset_pool:
            return _repeat(collect, state, None, steps)
        key, pool_key = jax.random.split(state.key)
        state = state._replace(key=key, env_state=vector.refill(pool_key, state.env_state))
        overflow = vector.overflow(state.env_state)
        state, metrics = _repeat(collect, state, None, steps)
        metrics["reset_overflow"] = (vector.overflow(state.env_state) - overflow).astype(jnp.float32)
        return state, metrics

    def warmup(state: RunState) -> RunState:
        whole, rest = divmod(config.warmup, config.unroll) if config.reset_pool else (0, config.warmup)
        if whole:
            state, _ = _repeat(lambda state, _: phase(state, config.unroll), state, None, whole)
        return phase(state, rest)[0] if rest else state

    def step(state: RunState) -> tuple[RunState, Metrics]:
        state, collected = phase(state, config.unroll)
        buffer_state = state.buffer
        if agent.priority is not None:
            fresh = buffer.fresh(buffer_state, state.clock, config.unroll)
            buffer_state = buffer.update(buffer_state, fresh.index, agent.priority(state.agent, fresh.window))
        key, learn_key = jax.random.split(state.key)
        agent_state, buffer_state, learned = learn(
            learn_key, state.agent, buffer_state, state.clock, env_steps(state.clock)
        )
        state = state._replace(key=key, agent=agent_state, buffer=buffer_state)
        return state, {**collected, **learned}

    return Run(init, warmup, step)


def vmap_run(run: Run) -> Run:
    """The same run for many seeds: `init` takes keys [seeds], every array but the clock gains that leading axis."""
    return Run(
        init=jax.vmap(run.init, out_axes=run.axes),
        warmup=jax.vmap(run.warmup, in_axes=(run.axes,), out_axes=run.axes),
        step=jax.vmap(run.step, in_axes=(run.axes,), out_axes=(run.axes, 0)),
        axes=run.axes,
    )


def advance(run: Run, state: RunState, iterations: int) -> tuple[RunState, Metrics]:
    """`iterations` steps of a run as one scan, metrics summed on the way: jit it with the state donated."""
    step = jax.jit(run.step)  # traced once for its shapes and its loop
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(step, state)[1])

    def body(state_and_sums, _):
        state, sums = state_and_sums
        state, metrics = step(state)
        return (state, jax.tree.map(jnp.add, sums, metrics)), None

    return jax.lax.scan(body, (state, zeros), length=iterations)[0]


def _repeat(body: Callable, state: PyTree, xs: PyTree, length: int) -> tuple[PyTree, Metrics]:
    """`scan` with the metrics of its steps summed; one step needs no loop."""
    if length == 1:
        return body(state, jax.tree.map(lambda leaf: leaf[0], xs))
    state, metrics = jax.lax.scan(body, state, xs, length)
    return state, jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), metrics)


def _check_action(env: Any, space: Any, action: Array) -> None:
    """Raises ValueError where actions [N, ...] are of another kind than those of the environment."""
    given, wanted = list(action.shape[1:]), [] if hasattr(space, "n") else [len(space.nvec)]
    if given != wanted:
        fits = "decqn, or wrap the environment so that it has Discrete ones" if wanted else "dqn or any but decqn"
        raise ValueError(
            f"the agent chooses an action of shape {given} for one environment, but {env.name} has "
            f"{type(space).__name__} actions of shape {wanted}; use an agent that fits: {fits}"
        )


def _as_prefix(done: Array, leaf: Array) -> Array:
    return jnp.reshape(done, done.shape + (1,) * (leaf.ndim - 1))
