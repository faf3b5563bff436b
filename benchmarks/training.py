"""The whole loop's speed: steps/s, compile time, what is not mathematics, many seeds, time to a solved CartPole.

    python benchmarks/training.py [--out benchmarks/results/training.json]

Pins itself to one core. Prints a table and writes JSON with machine, date and versions.
"""

import argparse
import time
from functools import partial
from typing import NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
from jaxrl import explore, nets, recipes
from jaxrl.agents import value
from jaxrl.agents.value import Network
from jaxrl.train import Run, make_run, vmap_run
from jaxrl.types import Agent

PEER = {"steps_per_s": [40_000, 53_000], "compile_s": 8.1, "solved_s": 4.7, "solved_steps": 180_000}
UPDATES = 10_000


class Bench(NamedTuple):
    """A run and the pieces it is made of."""

    run: Run
    agent: Agent
    network: Network
    num_envs: int
    batch: int


def purejaxrl_dqn() -> Bench:
    """purejaxrl's dqn.py on CartPole: 10 environments, batch 128, one update in 10 steps, MLP 120-84."""
    env, params = jaxrl.make("CartPole-v1")
    network = nets.QNetwork(2, nets.MLP((120, 84)))
    agent = jaxrl.dqn(
        network,
        optax.adam(2.5e-4),
        double=False,
        target_update=value.hard(50),
        epsilon=explore.linear(1.0, 0.05, 250_000),
    )
    buffer = jaxrl.uniform(10_000, 128, 10)
    return Bench(make_run(env, params, agent, buffer, jaxrl.LoopConfig(10, warmup=1_000)), agent, network, 10, 128)


def compiled_chunk(run: Run, state, iterations: int):
    """(program, seconds to compile) of a donated chunk; without XLA's persistent cache."""
    start = time.perf_counter()
    program = jax.jit(partial(jaxrl.advance, run, iterations=iterations), donate_argnums=0).lower(state).compile()
    return program, time.perf_counter() - start


def whole_loop(bench: Bench, repeats: int) -> dict:
    """Steps/s and compile time of one run, and the share of its time that is not gradient or forward pass."""
    state = jax.jit(lambda key: bench.run.warmup(bench.run.init(key)))(jaxrl.key(0))
    program, compile_s = compiled_chunk(bench.run, state, UPDATES)
    bare = bare_program(bench)
    params = bench.network.init(jaxrl.key(0), jnp.zeros(4))
    held = [state]

    def whole():
        held[0] = jax.block_until_ready(program(held[0]))[0]

    whole_s, bare_s = measure.alternating([whole, lambda: jax.block_until_ready(bare(params))], repeats)
    steps = UPDATES * bench.num_envs
    rates = sorted(steps / np.array(whole_s))
    return {
        "steps_per_s": float(np.median(rates)),
        "steps_per_s_range": [rates[0], rates[-1]],
        "compile_s": compile_s,
        "bare_steps_per_s": float(steps / np.median(bare_s)),
        "share_outside_mathematics": float(1 - np.median(np.array(bare_s) / np.array(whole_s))),
        "peer": PEER,
    }


def bare_program(bench: Bench):
    """The forward passes and the gradient that a run needs, and nothing else: no optimiser, replay or environment.

    Each iteration feeds the next through the parameters, or the compiler would hoist it out of the loop.
    """
    obs, acting = jnp.ones((bench.batch, 4)), jnp.ones((bench.num_envs, 4))
    forward = jax.vmap(bench.network.apply, (None, 0))

    def body(params, _):
        acted = forward(params, acting).sum()
        target = forward(params, obs + 1.0).max(-1)

        def loss(params):
            return jnp.mean(jnp.square(forward(params, obs)[:, 0] - target))

        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p + 1e-9 * (g + acted * 1e-9), params, gradient), None

    return jax.jit(lambda params: jax.lax.scan(body, params, length=UPDATES)[0])


def many_seeds(bench: Bench, seeds: int, repeats: int) -> dict:
    """Total steps/s of `seeds` vmapped runs against as many single runs one after the other."""
    iterations = UPDATES // 5
    single = jax.jit(lambda key: bench.run.warmup(bench.run.init(key)))
    batched = vmap_run(bench.run)
    keys = jax.vmap(jaxrl.key)(jnp.arange(seeds))
    together = [jax.jit(lambda keys: batched.warmup(batched.init(keys)))(keys)]
    alone = [single(key) for key in keys]
    run_together, compile_s = compiled_chunk(batched, together[0], iterations)
    run_alone, _ = compiled_chunk(bench.run, alone[0], iterations)

    def all_at_once():
        together[0] = jax.block_until_ready(run_together(together[0]))[0]

    def one_by_one():
        for i in range(seeds):
            alone[i] = jax.block_until_ready(run_alone(alone[i]))[0]

    at_once_s, one_by_one_s = measure.alternating([all_at_once, one_by_one], repeats)
    steps = iterations * bench.num_envs * seeds
    return {
        "seeds": seeds,
        "steps_per_s_vmapped": float(steps / np.median(at_once_s)),
        "steps_per_s_single": float(steps / np.median(one_by_one_s)),
        "ratio": float(np.median(np.array(one_by_one_s) / np.array(at_once_s))),
        "compile_s": compile_s,
    }


def time_to_solve(seeds: int, threshold: float = 475.0, check_every: int = 10_000) -> list[dict]:
    """Training seconds and steps until 100 whole greedy episodes return `threshold` on average, per seed.

    The dqn recipe with its own defaults; the time of the evaluations in between is not counted.
    """
    env, params = jaxrl.make("CartPole-v1")
    config = recipes.default("dqn", "CartPole-v1")
    setup = recipes.build("dqn", config, env, params)
    run = make_run(env, params, setup.agent, setup.buffer, setup.loop)
    iterations = check_every // config.num_envs
    begin = jax.jit(lambda key: run.warmup(run.init(key)))
    state = begin(jaxrl.key(0))
    chunk, _ = compiled_chunk(run, state, iterations)
    evaluate = jax.jit(lambda agent, key: jaxrl.evaluate(env, params, setup.agent, agent, key, 100).returns.mean())
    evaluate(state.agent, jaxrl.key(0))
    rows = []
    for seed in range(seeds):
        start = time.perf_counter()
        state = jax.block_until_ready(begin(jaxrl.key(seed)))
        seconds, score = time.perf_counter() - start, 0.0
        for _ in range(setup.iterations // iterations):
            start = time.perf_counter()
            state = jax.block_until_ready(chunk(state))[0]
            seconds += time.perf_counter() - start
            score = float(evaluate(state.agent, jaxrl.key(10_000 + seed)))
            if score >= threshold:
                break
        steps = int(state.clock) * config.num_envs
        rows.append({"seed": seed, "solved": score >= threshold, "steps": steps, "seconds": seconds, "score": score})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/training.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--solve-seeds", type=int, default=5)
    options = parser.parse_args()
    bench = purejaxrl_dqn()
    result = {
        **measure.circumstances("flax", "optax"),
        "dqn_purejaxrl_settings": whole_loop(bench, options.repeats),
        "eight_seeds": many_seeds(bench, 8, options.repeats),
        "dqn_recipe_to_475": time_to_solve(options.solve_seeds),
    }
    loop, seeds, solved = (result[k] for k in ("dqn_purejaxrl_settings", "eight_seeds", "dqn_recipe_to_475"))
    rows = [
        ("DQN at purejaxrl's settings, steps/s", f"{loop['steps_per_s']:,.0f}", "40,000 to 53,000"),
        ("compile, s", f"{loop['compile_s']:.1f}", f"{PEER['compile_s']}"),
        ("share outside gradient and forward passes", f"{loop['share_outside_mathematics']:.0%}", ""),
        ("8 vmapped seeds, total steps/s", f"{seeds['steps_per_s_vmapped']:,.0f}", "52,000"),
        ("8 vmapped seeds / 8 single runs", f"{seeds['ratio']:.2f}", ""),
        ("dqn recipe, median s to greedy 475", f"{np.median([r['seconds'] for r in solved]):.2f}", "4.7"),
        ("dqn recipe, median steps to greedy 475", f"{np.median([r['steps'] for r in solved]):,.0f}", "180,000"),
        ("dqn recipe, seeds solved", f"{sum(r['solved'] for r in solved)} of {len(solved)}", ""),
    ]
    measure.table("DQN on CartPole-v1, one core", ("", "jaxrl", "purejaxrl, measured earlier"), rows)
    measure.write(options.out, result)


if __name__ == "__main__":
    main()
