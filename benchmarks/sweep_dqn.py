"""Which defaults the `dqn` recipe should have on CartPole-v1: settings tuned on some seeds, judged on others.

    python benchmarks/sweep_dqn.py [--tune 20] [--judge 50] [--out benchmarks/results/dqn_cartpole_sweep.json]

300,000 steps, 100 greedy episodes of the final parameters. A setting changes `BASE`, which stands whatever the
defaults become. Tuning seeds count from 1000; only `CHOSEN` meets the seeds from 0 on. ~7 s a seed.
"""

import argparse
import subprocess
from collections.abc import Iterator

import measure  # first: it pins the process before jax starts its threads

# isort: split
import numpy as np

import jaxrl

BAR = 475.0
TOGETHER = 10  # seeds in one program
BASE = {
    "agent.n_step": 5,
    "agent.polyak": 0.005,
    "agent.epsilon.end": 0.05,
    "replay.capacity": 100_000,
    "replay.batch_size": 128,
}
TUNED: list[dict] = [
    {},
    {"replay.capacity": 300_000},
    {"replay.capacity": 50_000},
    {"agent.polyak": 0.002},
    {"agent.n_step": 3},
    {"agent.n_step": 10},
    {"agent.epsilon.end": 0.02},
    {"replay.capacity": 50_000, "agent.epsilon.end": 0.02},
]
CHOSEN = {"agent.n_step": 10}
OTHERS = {"Acrobot-v1": 4, "FrozenLake-v1": 14}  # what must not be hurt, and seeds


def learn(env: str, sets: dict, seeds: range) -> dict:
    """One row of the table: the greedy mean of every seed's final parameters."""
    scores = [score for part in _parts(seeds) for score in _scores(env, sets, part)]
    row = {"env": env, "sets": sets, "first_seed": seeds.start, "greedy_mean": scores}
    return row | ({"reached": sum(score >= BAR for score in scores)} if env == "CartPole-v1" else {})


def _parts(seeds: range) -> Iterator[range]:
    return (seeds[i : i + TOGETHER] for i in range(0, len(seeds), TOGETHER))


def _scores(env: str, sets: dict, seeds: range) -> list[float]:
    result = jaxrl.train("dqn", env, seed=seeds.start, seeds=len(seeds), steps=300_000, **BASE | sets)
    return result.summary["eval"]["per_seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=int, default=20)
    parser.add_argument("--judge", type=int, default=50)
    parser.add_argument("--out", default="benchmarks/results/dqn_cartpole_sweep.json")
    options = parser.parse_args()
    rows = [learn("CartPole-v1", sets, range(1_000, 1_000 + options.tune)) for sets in TUNED]
    rows += [learn(env, sets, range(1_000, 1_000 + n)) for env, n in OTHERS.items() for sets in ({}, CHOSEN)]
    rows.append(learn("CartPole-v1", CHOSEN, range(options.judge)))
    show(rows)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    record = {**measure.circumstances("flax", "optax"), "commit": commit, "base": BASE, "bar": BAR, "rows": rows}
    measure.write(options.out, record)


def show(rows: list[dict]) -> None:
    """Prints the rows."""
    cells = [
        (
            " ".join([row["env"], *(f"{name}={value}" for name, value in row["sets"].items())]),
            f"{row['first_seed']} to {row['first_seed'] + len(row['greedy_mean']) - 1}",
            f"{row['reached']}" if "reached" in row else "",
            f"{np.mean(row['greedy_mean']):.4g}",
            f"{min(row['greedy_mean']):.4g}",
        )
        for row in rows
    ]
    measure.table("The dqn recipe, greedy return", ("", "seeds", f"reach {BAR:g}", "mean", "lowest"), cells)


if __name__ == "__main__":
    main()
