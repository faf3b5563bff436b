"""Training throughput: steps/s of the whole loop on one core, and how much of its time is the network's mathematics.

    python benchmarks/throughput.py [--only NAME ...] [--out benchmarks/results/throughput.json]

Each row has the settings and network that a published implementation gives its own. The whole loop, its network's
mathematics alone and its gradient steps alone are timed alternately: the mathematics are every forward pass, backward
pass and optimiser step on constant data, with no environment, replay, choice of action or target. Then as many vmapped
seeds against as many single runs. Pins itself to one core, prints a table and puts each row into the JSON file, with
machine, date, versions and commit, in the place of one of the same name; the file's others stay. Circumstances at the
file's top are of rows that have none of their own.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import jaxrl
from jaxrl import explore, nets
from jaxrl.agents import value
from jaxrl.train import Run, make_run, vmap_run
from jaxrl.types import PyTree

POOL = 16  # batches of constant data


class Work(NamedTuple):
    """A run, and the mathematics of one of its iterations."""

    run: Run
    network: nn.Module
    optimizer: optax.GradientTransformation
    obs: Array  # [...] one observation, for its shape and dtype
    num_envs: int
    unroll: int
    batch: int  # of a gradient step
    updates: int  # gradient steps of an iteration
    ahead: int  # observations of a pass at the start of an iteration's learning, 0: none
    looks: int  # passes over next observations in each gradient step
    iterations: int  # of a timed program


def pqn(
    env_id: str, network: nn.Module, rate: float, lambda_: float, scale: float, epsilon: Any, shape: tuple[int, ...]
) -> Work:
    """PQN as purejaxql has it; shape is (environments, steps, minibatches, epochs, iterations)."""
    num_envs, unroll, minibatches, epochs, iterations = shape
    env, params = jaxrl.make(env_id)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.radam(optax.linear_schedule(rate, 0.0, 100_000)))
    agent = jaxrl.pqn(
        network, optimizer, gamma=0.99, lambda_=lambda_, epochs=epochs, minibatches=minibatches, epsilon=epsilon
    )
    agent = value.with_rewards(agent, lambda reward: scale * reward)
    run = make_run(env, params, agent, jaxrl.recent(unroll, num_envs), jaxrl.LoopConfig(num_envs, unroll=unroll))
    size = num_envs * unroll
    updates = minibatches * epochs
    obs = env.reset(jaxrl.key(0), params)[0]
    return Work(run, network, optimizer, obs, num_envs, unroll, size // minibatches, updates, size, 0, iterations)


def pqn_cartpole() -> Work:
    """purejaxql's CartPole: 32 environments x 64 steps, 16 minibatches x 4 epochs, MLP 256-256 with layer norm."""
    network = nets.QNetwork(2, nets.MLP((256, 256), layer_norm=True))
    return pqn("CartPole-v1", network, 1e-4, 0.95, 0.1, explore.linear(1.0, 0.2, 100_000), (32, 64, 16, 4, 20))


def pqn_breakout() -> Work:
    """purejaxql's MinAtar: 128 environments x 32 steps, 32 minibatches x 2 epochs, its convolutional network."""
    network = nets.QNetwork(3, nets.MinAtarConv(layer_norm=True))
    epsilon = explore.linear(1.0, 0.05, 1_000_000)
    return pqn("Breakout-MinAtar", network, 5e-4, 0.65, 1.0, epsilon, (128, 32, 32, 2, 3))


def dqn(
    env_id: str,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    target: value.TargetUpdate,
    double: bool,
    sizes: tuple[int, ...],
) -> Work:
    """DQN of 10 environments; sizes is (capacity, warm-up steps, batch, updates in 10 steps, iterations)."""
    capacity, warmup, batch, updates, iterations = sizes
    env, params = jaxrl.make(env_id)
    epsilon = explore.linear(1.0, 0.05, 250_000)
    agent = jaxrl.dqn(network, optimizer, double=double, target_update=target, epsilon=epsilon)
    config = jaxrl.LoopConfig(10, updates=updates, warmup=warmup // 10)
    run = make_run(env, params, agent, jaxrl.uniform(capacity, batch, 10), config)
    obs = env.reset(jaxrl.key(0), params)[0]
    return Work(run, network, optimizer, obs, 10, 1, batch, updates, 0, 1 + double, iterations)


def dqn_cartpole() -> Work:
    """purejaxrl's: batch 128, one update in 10 steps, MLP 120-84, target copied every 500 steps."""
    network = nets.QNetwork(2, nets.MLP((120, 84)))
    sizes = (10_000, 10_000, 128, 1, 5_000)
    return dqn("CartPole-v1", network, optax.adam(2.5e-4), value.hard(50), False, sizes)


def dqn_breakout() -> Work:
    """The same on Breakout, whose picture purejaxrl flattens."""
    network = nets.QNetwork(3, nets.MLP((120, 84)))
    sizes = (10_000, 10_000, 128, 1, 1_500)
    return dqn("Breakout-MinAtar", network, optax.adam(2.5e-4), value.hard(50), False, sizes)


def dqn_rejax() -> Work:
    """rejax's CartPole: double, dueling 64-64 with swish, batch 100, 5 updates in 10 steps, then 2% of a target."""
    network = nets.QNetwork(2, nets.MLP((64, 64), activation=nn.swish), dueling=True)
    optimizer = optax.chain(optax.clip(10.0), optax.adam(1e-3))
    return dqn("CartPole-v1", network, optimizer, every(5, value.polyak(0.02)), True, (50_000, 5_000, 100, 5, 1_500))


def every(period: int, change: value.TargetUpdate) -> value.TargetUpdate:
    """A change of the target at every `period`-th update only."""

    def update(params: PyTree, target: PyTree, updates: Array) -> PyTree:
        moved, due = change(params, target, updates), updates % period == 0
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, target)

    return update


ROWS: dict[str, Callable[[], Work]] = {
    "pqn_cartpole": pqn_cartpole,
    "dqn_cartpole": dqn_cartpole,
    "dqn_rejax": dqn_rejax,
    "pqn_breakout": pqn_breakout,
    "dqn_breakout": dqn_breakout,
}


def mathematics(work: Work, passes: bool) -> Callable[[], PyTree]:
    """A program of a run's gradient steps, with `passes` of all its other forward passes too.

    What it computes on comes by turns from a pool and every result reaches the parameters, or XLA would hoist it.
    """
    key = jaxrl.key(1)

    def pool(*shape: int) -> Array:
        drawn = jax.random.bernoulli(key, 0.2, (*shape, *work.obs.shape))
        return drawn if work.obs.dtype == bool else drawn + jax.random.uniform(key, drawn.shape)

    first = work.network.init(key, work.obs)
    acting, learning = pool(work.unroll, work.num_envs), pool(POOL, work.batch)
    looking = pool(work.ahead) if work.ahead else None

    def forward(params: PyTree, obs: Array) -> Array:
        return jnp.asarray(jax.vmap(work.network.apply, (None, 0))(params, obs))

    def iteration(learner: tuple[PyTree, PyTree], i: Array) -> tuple[tuple[PyTree, PyTree], None]:
        params, state = learner
        used = jnp.float32(0)
        if passes:
            used += jax.lax.scan(lambda sum, obs: (sum + forward(params, obs).sum(), None), used, acting)[0]
            used += 0 if looking is None else explore.best(forward(params, looking)).sum()

        def step(learner: tuple[PyTree, PyTree], j: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, state = learner
            obs = learning[(i * work.updates + j) % POOL]
            goal = jnp.full(work.batch, 1e-9 * used)
            if passes and work.looks:
                goal += explore.best(forward(first, obs))
            if passes and work.looks == 2:
                goal += explore.best(forward(params, obs))

            def loss(params: PyTree) -> Array:
                return jnp.mean(jnp.square(forward(params, obs)[:, 0] - goal))

            change, state = work.optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, change), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(work.updates))[0], None

    program = jax.jit(lambda learner: jax.lax.scan(iteration, learner, jnp.arange(work.iterations))[0])
    learner = (first, work.optimizer.init(first))
    return lambda: jax.block_until_ready(program(learner))


def compiled(run: Run, state: Any, iterations: int) -> tuple[Callable, float]:
    """(program, seconds to trace and compile) of a donated chunk; without XLA's persistent cache."""
    start = time.perf_counter()
    program = jax.jit(partial(jaxrl.advance, run, iterations=iterations), donate_argnums=0).lower(state).compile()
    return program, time.perf_counter() - start


def whole_loop(work: Work, repeats: int) -> dict[str, Any]:
    """Steps/s of one run, seconds to compile it, and the share of its time that its mathematics take alone."""
    held = [jax.jit(lambda key: work.run.warmup(work.run.init(key)))(jaxrl.key(0))]
    program, compile_s = compiled(work.run, held[0], work.iterations)

    def whole() -> None:
        held[0] = jax.block_until_ready(program(held[0]))[0]

    programs = [whole, mathematics(work, passes=True), mathematics(work, passes=False)]
    whole_s, passes_s, gradient_s = np.array(measure.alternating(programs, repeats))
    rates = sorted(work.iterations * work.unroll * work.num_envs / whole_s)
    return {
        "steps_per_s": float(np.median(rates)),
        "steps_per_s_range": [rates[0], rates[-1]],
        "compile_s": compile_s,
        "share_mathematics": float(np.median(passes_s / whole_s)),
        "share_gradient_steps": float(np.median(gradient_s / whole_s)),
    }


def many_seeds(work: Work, seeds: int, repeats: int) -> dict[str, Any]:
    """Total steps/s of `seeds` vmapped runs against as many single runs one after the other."""
    iterations = max(1, work.iterations // 10)
    single = jax.jit(lambda key: work.run.warmup(work.run.init(key)))
    batched = vmap_run(work.run)
    keys = jax.vmap(jaxrl.key)(jnp.arange(seeds))
    together = [jax.jit(lambda keys: batched.warmup(batched.init(keys)))(keys)]
    alone = [single(key) for key in keys]
    run_together, compile_s = compiled(batched, together[0], iterations)
    run_alone, _ = compiled(work.run, alone[0], iterations)

    def all_at_once() -> None:
        together[0] = jax.block_until_ready(run_together(together[0]))[0]

    def one_by_one() -> None:
        for i in range(seeds):
            alone[i] = jax.block_until_ready(run_alone(alone[i]))[0]

    at_once_s, one_by_one_s = np.array(measure.alternating([all_at_once, one_by_one], repeats))
    steps = iterations * work.unroll * work.num_envs * seeds
    return {
        "seeds": seeds,
        "steps_per_s_vmapped": float(steps / np.median(at_once_s)),
        "steps_per_s_single": float(steps / np.median(one_by_one_s)),
        "ratio": float(np.median(one_by_one_s / at_once_s)),
        "compile_s": compile_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/throughput.json")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows to measure")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=32, help="0 leaves the vmapped runs out")
    options = parser.parse_args()
    shown = []
    for name in options.only:
        work = ROWS[name]()
        row = {"settings": ROWS[name].__doc__, **whole_loop(work, options.repeats)}
        seeds = many_seeds(work, options.seeds, options.repeats) if options.seeds else None
        row |= ({"many_seeds": seeds} if seeds else {}) | measure.circumstances("flax", "optax")
        shown.append(
            (
                name,
                f"{row['steps_per_s']:,.0f}",
                f"{1 - row['share_mathematics']:.0%}",
                f"{1 - row['share_gradient_steps']:.0%}",
                f"{row['compile_s']:.1f}",
                f"{seeds['ratio']:.2f}" if seeds else "",
            )
        )
        record = measure.read(options.out)  # after each row, as another process may have added some
        measure.write(options.out, record | {"rows": record.get("rows", {}) | {name: row}})
    columns = (
        "",
        "steps/s",
        "not mathematics",
        "not gradient steps",
        "compile, s",
        f"{options.seeds} seeds at once / in turn",
    )
    measure.table("Training on one core", columns, shown)


if __name__ == "__main__":
    main()
