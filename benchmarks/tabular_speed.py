"""How fast tables learn: `python benchmarks/tabular.py --speed`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import planning as value_iteration
from jax import Array

import jaxrl
from jaxrl.envs import frozen_lake

GAMMA, ALPHA, EPSILON = 0.95, 0.1, 0.1
ENVS, STEPS = 1_024, 2_000  # environments on one table, steps of each in a timed call
LEARNERS, LEARNER_STEPS = 4_096, 500
PLAIN_STEPS = 40_000
ROUNDS = 7


def plain_loop(steps: int) -> Callable[[], None]:
    """Q-learning as textbooks write it: a dictionary of the world, one step at a time."""
    env = gymnasium.make("FrozenLake-v1")
    rng = np.random.default_rng(0)

    def learn() -> None:
        q = np.zeros((16, 4))
        state, _ = env.reset(seed=0)
        for _ in range(steps):
            action = rng.integers(4) if rng.random() < EPSILON else int(q[state].argmax())
            after, reward, terminated, truncated, _ = env.step(action)
            target = float(reward) + GAMMA * (0.0 if terminated else q[after].max())
            q[state, action] += ALPHA * (target - q[state, action])
            state = env.reset()[0] if terminated or truncated else after

    return learn


def bare(num_envs: int, steps: int) -> Callable[[], Any]:
    """The same for many environments as one writes it for this lake alone: no agent, no buffer, no metrics."""
    arrivals = jnp.asarray(frozen_lake._arrivals(frozen_lake.Params().desc).ravel())

    def step(carry: tuple[Array, ...], nothing: None) -> tuple[tuple[Array, ...], None]:
        q, state, clock, key = carry
        key, draw_key = jax.random.split(key)
        words = jax.random.bits(draw_key, (num_envs, 2))
        values = [q[state * 4 + action] for action in range(4)]
        best = jnp.maximum(jnp.maximum(values[0], values[1]), jnp.maximum(values[2], values[3]))
        greedy = jnp.where(values[0] == best, 0, jnp.where(values[1] == best, 1, jnp.where(values[2] == best, 2, 3)))
        coin = (words[:, 0] >> 8).astype(jnp.float32) / 2**24
        action = jnp.where(coin < EPSILON, (words[:, 0] & 3).astype(jnp.int32), greedy)
        # a loop that ends at once: else XLA computes the action anew in each of its uses, and this is half as fast
        action = jax.lax.while_loop(lambda x: x[1] < 0, lambda x: (x[0] + 1, x[1] + 1), (action, clock[0]))[0]
        slip = (words[:, 1] >> 8).astype(jnp.float32) / 2**24
        direction = (action - 1 + (slip >= 1 / 3) + (slip >= 2 / 3)) & 3
        arrival = arrivals[state * 4 + direction]
        after, kind = arrival >> 2, arrival & 3
        ended = kind != frozen_lake._FROZEN
        reward = jnp.where(kind == frozen_lake._GOAL, 1.0, 0.0)
        ahead = [q[after * 4 + action] for action in range(4)]
        following = jnp.maximum(jnp.maximum(ahead[0], ahead[1]), jnp.maximum(ahead[2], ahead[3]))
        entry = state * 4 + action
        error = reward + GAMMA * jnp.where(ended, 0, following) - q[entry]
        hits = jnp.zeros(64).at[entry].add(1.0)
        q = q + ALPHA * jnp.zeros(64).at[entry].add(error) / jnp.maximum(hits, 1)
        done = ended | (clock >= 99)
        return (q, jnp.where(done, 0, after), jnp.where(done, 0, clock + 1), key), None

    @jax.jit
    def go(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        return jax.lax.scan(step, carry, length=steps)[0]

    lanes = jnp.zeros(num_envs, jnp.int32)
    start = (jnp.zeros(64), lanes, lanes, jaxrl.key(0))
    return lambda: jax.block_until_ready(go(start))


def one_table(num_envs: int, steps: int) -> Callable[[], Any]:
    """Q-learning through the engine: the public agent, `recent(1)`, `make_run`."""
    env, params = jaxrl.make("FrozenLake-v1")
    agent = jaxrl.q_learning(16, 4, gamma=GAMMA, alpha=ALPHA, epsilon=EPSILON)
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, num_envs), jaxrl.LoopConfig(num_envs))
    go = jax.jit(lambda state: jaxrl.advance(run, state, steps))
    start = jax.jit(run.init)(jaxrl.key(0))
    return lambda: jax.block_until_ready(go(start))


def many_learners(learners: int, steps: int) -> Callable[[], Any]:
    """As many learners as (seed, alpha) pairs, each with an environment and a table of its own, in one call."""
    env, params = jaxrl.make("FrozenLake-v1")

    def made(alpha: Array) -> Any:
        agent = jaxrl.q_learning(16, 4, gamma=GAMMA, alpha=alpha, epsilon=EPSILON)
        return jaxrl.make_run(env, params, agent, jaxrl.recent(1, 1), jaxrl.LoopConfig(1))

    axes = made(jnp.float32(ALPHA)).axes
    alphas = jnp.tile(jnp.linspace(0.05, 0.8, 64), learners // 64)
    keys = jax.vmap(jaxrl.key)(jnp.arange(learners))
    init = jax.vmap(lambda alpha, key: made(alpha).init(key), out_axes=axes)
    start = jax.jit(init)(alphas, keys)
    advance = jax.vmap(
        lambda alpha, state: jaxrl.advance(made(alpha), state, steps), in_axes=(0, axes), out_axes=(axes, 0)
    )
    go = jax.jit(partial(advance, alphas))
    return lambda: jax.block_until_ready(go(start))


def measure_all(out: str) -> None:
    """Prints the table and writes the file; then value iteration."""
    programs = {
        "one table, engine": (one_table(ENVS, STEPS), ENVS * STEPS),
        "one table, bare": (bare(ENVS, STEPS), ENVS * STEPS),
        "plain loop on gymnasium": (plain_loop(PLAIN_STEPS), PLAIN_STEPS),
        "4,096 learners, engine": (many_learners(LEARNERS, LEARNER_STEPS), LEARNERS * LEARNER_STEPS),
    }
    seconds = measure.alternating([program for program, _ in programs.values()], ROUNDS)
    rates = {
        name: [updates / second for second in row]
        for (name, (_, updates)), row in zip(programs.items(), seconds, strict=True)
    }
    engine, by_hand, plain = (np.array(rates[name]) for name in list(rates)[:3])
    found = {
        "updates_per_s": {name: float(np.median(row)) for name, row in rates.items()},
        "engine_over_plain_loop": float(np.median(engine / plain)),
        "bare_over_engine": float(np.median(by_hand / engine)),
    }
    bars = {"one table, bare": "<= 1.6", "plain loop on gymnasium": "<= 1/300", "4,096 learners, engine": ">= 10 M/s"}
    measure.table(
        f"Q-learning on slippery FrozenLake, one core, median of {ROUNDS}",
        ("", "updates/s", "of the engine's", "bar"),
        [
            (
                name,
                f"{found['updates_per_s'][name]:,.0f}",
                f"{float(np.median(np.array(rates[name]) / engine)):.4g}",
                bars.get(name, ""),
            )
            for name in rates
        ],
    )
    measure.write(out, {**measure.circumstances("gymnasium"), "rounds": ROUNDS, **found})
    value_iteration.study("benchmarks/results/planning.json")
