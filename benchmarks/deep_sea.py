"""How deep each way of exploring finds the treasure: DeepSea (Osband et al. 2020), 5,000 episodes.

    python benchmarks/deep_sea.py [--seeds 10] [--out benchmarks/results/deep_sea.json]

One network and loop for all, but for how they explore; one environment, so that episodes come one after the other, and
an update in two steps. A size counts as solved if more than half of the seeds dive for the treasure in greedy play at
the end.
The chance that a uniformly random diver finds it in an episode is 2^-size.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
from jaxrl import explore, nets
from jaxrl.types import Agent

EPISODES, BATCH, WARMUP = 5_000, 32, 128
SIZES = 6, 8, 10, 12, 14, 16, 20, 25, 30


def dqn(rule: Callable[[int], explore.Rule], noisy: bool, steps: int) -> Agent:
    network = nets.QNetwork(2, nets.MLP((64,), noisy=noisy), noisy=noisy)
    return jaxrl.dqn(network, optax.adam(1e-3), epsilon=rule(steps))


# how an agent of a run of so many steps explores
RULES: dict[str, Callable[[int], Agent]] = {
    "epsilon 0.1": partial(dqn, lambda steps: 0.1, False),
    "epsilon from 1 to 0.05 in half of the run": partial(
        dqn, lambda steps: explore.linear(1.0, 0.05, steps / 2), False
    ),
    "softmax, temperature from 1 to 0.01 in half of the run": partial(
        dqn, lambda steps: explore.softmax(explore.linear(1.0, 0.01, steps / 2)), False
    ),
    "noisy network": partial(dqn, lambda steps: 0.0, True),
}


def found(rule: str, size: int, seeds: int) -> list[float]:
    """The greedy return of each seed in the end; all of them in one program."""
    env, params = jaxrl.make("DeepSea-bsuite", size=size)
    steps = EPISODES * size
    agent = RULES[rule](steps)
    buffer = jaxrl.uniform(10_000, BATCH, 1)
    run = jaxrl.vmap_run(jaxrl.make_run(env, params, agent, buffer, jaxrl.LoopConfig(1, 2, 1, WARMUP)))

    def learn(keys):
        state, _ = jaxrl.advance(run, run.warmup(run.init(keys)), (steps - WARMUP) // 2)
        play = jax.vmap(lambda state: jaxrl.evaluate(env, params, agent, state, jaxrl.key(0), 1, size).returns[0])
        return play(state.agent)

    return np.asarray(jax.jit(learn)(jax.vmap(jaxrl.key)(jnp.arange(seeds)))).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results/deep_sea.json")
    options = parser.parse_args()
    rows, cells = [], []
    for rule in RULES:
        largest, missed = 0, 0
        for size in SIZES:
            began = time.perf_counter()
            returns = found(rule, size, options.seeds)
            reached = sum(value > 0.5 for value in returns)
            seconds = round(time.perf_counter() - began, 1)
            rows.append({"rule": rule, "size": size, "greedy": returns, "reached": reached, "seconds": seconds})
            print(f"{rule}, size {size}: {reached} of {options.seeds}, {seconds} s", flush=True)
            solved = 2 * reached > options.seeds
            largest, missed = (size, 0) if solved else (largest, missed + 1)
            if missed == 2:
                break
        cells.append((rule, f"{largest or f'below {SIZES[0]}'}"))
    measure.table(f"The largest DeepSea solved in {EPISODES:,} episodes", ("", "size"), cells)
    measure.write(options.out, {**measure.circumstances("flax", "optax"), "episodes": EPISODES, "rows": rows})


if __name__ == "__main__":
    main()
