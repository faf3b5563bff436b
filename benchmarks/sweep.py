"""What settings a deep recipe should have on an environment: tuned on some seeds, judged on others, kept as data.

    python benchmarks/sweep.py pqn Acrobot-v1 '{}' '{"agent.gamma": 1.0}'   # one row a setting, seeds from 1000
    python benchmarks/sweep.py pqn Acrobot-v1 --judge                       # the defaults as they stand, seeds from 0

A score is the mean greedy return of 100 episodes of a seed's final parameters. Settings change the recipe's defaults
for the environment; the file keeps, for each row, how they differ from its own `base`, which stands whatever the
defaults become, so `--again` runs any file's rows anew. Rows are added to the file; the seeds are one program. Rows
marked `settings_traced` are of one program for all their settings too, and of other draws from the same seeds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import numpy as np
from scores import iqm

import jaxrl
from jaxrl import recipes
from jaxrl.runs import config as configs

RESULTS = Path(__file__).parent / "results"
TUNE, JUDGE = (1_000, 5), (0, 10)  # first seed, and how many


def given(sets: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON, as recipes take them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in sets.items()}


def learn(recipe: str, env: str, sets: dict[str, Any], first: int, count: int, more: dict[str, Any]) -> dict[str, Any]:
    """One row: what every seed's final parameters score."""
    result = jaxrl.train(recipe, env, seed=first, seeds=count, env_overrides=more, **given(sets))
    summary = result.summary
    scores = summary["eval"]["per_seed"] if count > 1 else [summary["eval"]["mean"]]
    return {
        "sets": sets,
        "first_seed": first,
        "greedy_mean": [round(score, 4) for score in scores],
        "iqm": round(float(iqm(scores)), 4),
        "train_s_per_seed": round(summary["train_s"] / count, 2),
        "compile_s": round(summary["compile_s"], 1),
        **measure.circumstances("flax", "optax"),
    }


def show(row: dict[str, Any]) -> None:
    """Prints a row."""
    scores = sorted(row["greedy_mean"])
    print(
        f"iqm {row['iqm']:.4g}  lowest {scores[0]:.4g}  mean {np.mean(scores):.4g}  {row['train_s_per_seed']:.1f} s a "
        f"seed  seeds {row['first_seed']} to {row['first_seed'] + len(scores) - 1}  {json.dumps(row['sets'])}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("env")
    parser.add_argument("settings", nargs="*", default=["{}"], help="JSON objects by dotted names; {}: the defaults")
    parser.add_argument("--judge", action="store_true", help="on the seeds that no setting was tuned on")
    parser.add_argument("--seeds", type=int, help="how many; 5, or 10 with --judge")
    parser.add_argument("--env-settings", default="{}", help="a JSON object, such as {'size': 20} of DeepSea")
    parser.add_argument("--again", action="store_true", help="run the file's rows anew and print them")
    parser.add_argument("--out", type=Path)
    options = parser.parse_intermixed_args()
    more = json.loads(options.env_settings)
    tail = "".join(f"_{name}{value}" for name, value in more.items())
    out = options.out or RESULTS / f"sweep_{options.recipe}_{options.env}{tail}.json"
    record = measure.read(out)
    default = recipes.default(options.recipe, options.env)
    base = record.get("base") or measure.flat(default)
    if options.again:
        for row in record["rows"]:
            seeds = row["first_seed"], len(row["greedy_mean"])
            show(learn(options.recipe, options.env, base | row["sets"], *seeds, more) | {"sets": row["sets"]})
        return
    first, count = JUDGE if options.judge else TUNE
    for text in options.settings:
        sets = json.loads(text)
        try:
            row = learn(options.recipe, options.env, sets, first, options.seeds or count, more)
        except ValueError as error:
            sys.exit(str(error))
        show(row)
        chosen = measure.flat(configs.override(default, given(sets)))
        row["sets"] = {name: value for name, value in chosen.items() if base.get(name) != value}
        record = measure.read(out)  # another process may have added rows
        rows = [*record.get("rows", []), row]
        keep(out, {"recipe": options.recipe, "env": options.env, "env_settings": more, "base": base, "rows": rows})


def keep(out: Path, record: dict[str, Any]) -> None:
    """Writes the file, a row a line."""
    rows = ",\n  ".join(json.dumps(row) for row in record["rows"])
    head = json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=1).removesuffix("\n}")
    measure.replace(out, f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
