"""The largest DeepSea that each way to explore solves within 5,000 episodes.

    python benchmarks/deep_sea.py [--seeds 5] [--rule NAME ...] [--out benchmarks/results/deep_sea.json]

A size is solved where most seeds' final parameters find the treasure greedily, at a return of 0.99; sizes rise until
two in a row are not. Chance alone finds it in one episode of 2^size. The layout of actions is bsuite's, of seed 42.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jaxrl

EPISODES = 5_000
SIZES = (4, 6, 8, 10, 12, 14, 16, 20, 25, 30)
_DQN = {"updates": 4, "learning_starts": 480, "agent.epsilon.fraction": 0.5}
RULES: dict[str, tuple[str, dict[str, Any]]] = {  # a recipe and its settings
    "epsilon-greedy": ("dqn", _DQN),
    "epsilon-greedy, PQN": ("pqn", {"unroll": 16, "agent.reward_scale": 1.0, "agent.epsilon.fraction": 0.5}),
    "noisy": ("dqn", _DQN | {"agent.noisy": True}),
}


def learn(rule: str, size: int, seeds: int) -> dict[str, Any]:
    """One row: what every seed's final parameters score."""
    recipe, settings = RULES[rule]
    steps = EPISODES * size // 32 * 32
    more = {"size": size}
    result = jaxrl.train(
        recipe, "DeepSea-bsuite", seeds=seeds, steps=steps, eval_episodes=1, env_overrides=more, **settings
    )
    scores = result.summary["eval"]["per_seed"]
    solved = sum(score > 0.9 for score in scores)
    print(f"{rule}, size {size}: {solved} of {seeds}", flush=True)
    return {"rule": rule, "recipe": recipe, "settings": settings, "size": size, "greedy": scores, "solved": solved}


def climb(rule: str, seeds: int) -> list[dict[str, Any]]:
    """Rows of rising sizes, until two in a row are not solved by most seeds."""
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        rows.append(learn(rule, size, seeds))
        if all(2 * row["solved"] <= seeds for row in rows[-2:]) and len(rows) > 1:
            break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rule", action="append", choices=RULES)
    parser.add_argument("--out", type=Path, default="benchmarks/results/deep_sea.json")
    options = parser.parse_args()
    rules = options.rule or list(RULES)
    kept = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    rows = [row for row in kept if row["rule"] not in rules]
    rows += [row for rule in rules for row in climb(rule, options.seeds)]
    cells = [(name, *_sizes([row for row in rows if row["rule"] == name])) for name in RULES]
    measure.table(f"DeepSea within {EPISODES:,} episodes", ("", "largest size solved", "seeds"), cells)
    measure.write(options.out, {**measure.circumstances("flax", "optax"), "episodes": EPISODES, "rows": rows})


def _sizes(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The largest size that most seeds solve, and how many did of each."""
    found = [row["size"] for row in rows if 2 * row["solved"] > len(row["greedy"])]
    return f"{max(found, default=0)}", ", ".join(f"{row['size']}: {row['solved']}" for row in rows)


if __name__ == "__main__":
    main()
