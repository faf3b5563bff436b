"""What the recipes learn with their own defaults: the final parameters, greedy, seed by seed.

    python benchmarks/learning.py [--seeds 10] [--out benchmarks/results/learning.json]

Every seed is a run of its own, as `jaxrl train RECIPE ENV --seed S` is; no checkpoint is chosen. FrozenLake's
`start value` is max_a Q(start, a), to hold against 0.542026 for gamma 0.99 on the slippery map.
"""

import argparse

import measure  # first: it pins the process before jax starts its threads

# isort: split
import numpy as np

import jaxrl

# recipe, environment or its own, its settings, episodes, what is good enough
TASKS: list[tuple[str, str | None, dict, int, float]] = [
    ("dqn", "CartPole-v1", {}, 100, 475.0),
    ("q_learning", "FrozenLake-v1", {}, 10_000, 0.7202),
    ("sarsa", "FrozenLake-v1", {"is_slippery": False}, 100, 1.0),
    ("expected_sarsa", "FrozenLake-v1", {"is_slippery": False}, 100, 1.0),
    ("gyx_sarsa_frozenlake", None, {}, 100, 1.0),
    ("sarsa_cliffwalking", None, {}, 100, -17.0),
    ("q_learning_taxi", None, {}, 10_000, 7.85),
    ("q_learning_tiles_cartpole", None, {}, 100, 475.0),
    ("q_learning_bins_cartpole", None, {}, 100, 475.0),
    ("q_learning_tiles_mountaincar", None, {}, 100, -118.0),
    ("q_learning_bins_mountaincar", None, {}, 100, -118.0),
]


def learn(recipe: str, env: str | None, settings: dict, episodes: int, bar: float, seeds: int) -> dict:
    """One row of the table: the greedy mean of every seed's final parameters."""
    scores, starts, seconds, steps = [], [], [], 0
    for seed in range(seeds):
        result = jaxrl.train(recipe, env, seed=seed, env_overrides=settings, eval_episodes=episodes)
        scores.append(result.summary["eval"]["mean"])
        seconds.append(result.summary["train_s"])
        steps = result.summary["env_steps"]
        if recipe == "q_learning":
            starts.append(float(np.max(result.params[0])))
    row = {
        "recipe": recipe,
        "env": env,
        "settings": settings,
        "env_steps": steps,
        "episodes": episodes,
        "bar": bar,
        "greedy_mean": scores,
        "reached": sum(score >= bar for score in scores),
        "median_train_s": float(np.median(seconds)),
    }
    return row | ({"start_value": starts} if starts else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results/learning.json")
    options = parser.parse_args()
    rows = [learn(*task, options.seeds) for task in TASKS]
    measure.table(
        f"Greedy return of the final parameters, {options.seeds} seeds",
        ("", "steps", "lowest", "mean", "bar", "seeds that reach it", "s a run"),
        [
            (
                " ".join(
                    [row["recipe"], *filter(None, [row["env"]]), *(f"{k}={v}" for k, v in row["settings"].items())]
                ),
                f"{row['env_steps']:,}",
                f"{min(row['greedy_mean']):.4g}",
                f"{np.mean(row['greedy_mean']):.4g}",
                f"{row['bar']:g}",
                f"{row['reached']} of {options.seeds}",
                f"{row['median_train_s']:.1f}",
            )
            for row in rows
        ],
    )
    measure.write(options.out, {**measure.circumstances("flax", "optax"), "rows": rows})


if __name__ == "__main__":
    main()
