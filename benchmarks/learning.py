"""What the recipes learn with their own defaults: the final parameters, greedy, on fresh episodes, seed by seed.

    python benchmarks/learning.py                                  # all of it, one row a core at a time
    python benchmarks/learning.py --only pqn Acrobot-v1 --jobs 1   # rows whose recipe or environment is named
    python benchmarks/learning.py --draw                           # the table and the curves of what is in the file

A row's seeds are one program, as `jaxrl train RECIPE ENV --seeds 10` is; no checkpoint is chosen. On the way 20 greedy
episodes of each seed are played off the clock at every twentieth of the budget, for the curves and for when a seed was
solved: the first of two such evaluations in a row at the bar. Seconds are of training, compiling apart, shared among
the seeds. Rows are put into the file one by one, in the place of those of the same name, with all settings, machine,
versions, date and commit of each, so that a part of the table can be made anew and several may be made at once.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import numpy as np
from scores import interval, iqm

RESULTS = Path(__file__).parent / "results" / "learning.json"
FIGURE = Path(__file__).parent / "figures" / "learning.png"
CHAIN = "MemoryChain-bsuite"
POINTS = 20  # evaluations on the way
CARTPOLE = ["dqn", "c51", "rainbow", "hl_gauss", "qr_dqn", "iqn", "fqf", "munchausen_dqn", "munchausen_iqn"]
CARTPOLE += ["pqn", "apex", "r2d2", "pqn_rnn"]
MINATAR = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
CAPPED = {"max_steps_in_episode": 1_000}  # as gymnax has it


class Task(NamedTuple):
    """A row of the table."""

    recipe: str
    env: str | None  # the recipe's own, if None
    bar: float | None = None  # what is good enough
    settings: dict[str, Any] = {}  # of the environment
    changes: dict[str, Any] = {}  # of the recipe
    episodes: int = 100
    seeds: int = 10

    @property
    def name(self) -> str:
        changed = [f"{name}={value}" for name, value in (self.settings | self.changes).items()]
        return " ".join([self.recipe, *filter(None, [self.env]), *changed])


TASKS = [
    *[Task(recipe, "CartPole-v1", 475.0) for recipe in CARTPOLE],
    Task("pqn", "Acrobot-v1", -100.0),
    Task("pqn", "MountainCar-v0", -110.0),
    Task("decqn", "MountainCarContinuous-v0", 92.0),
    Task("decqn", "Pendulum-v1", -165.0),
    Task("pqn", "Catch-bsuite", 1.0),
    *[Task(recipe, "FrozenLake-v1", 0.7202, episodes=1_000) for recipe in ("dqn", "pqn")],
    Task("pqn_rnn", CHAIN, 0.95, {"memory_length": 100}),
    *[
        Task(recipe, "MemoryChain-bsuite", 0.95, {"memory_length": 100}, {"steps": 500_000})
        for recipe in ("dqn", "pqn")
    ],
    Task("pqn_rnn", "PositionOnlyCartPole-v1", 450.0),
    *[Task(recipe, "MaskedCartPole-v1", 475.0) for recipe in ("dqn", "pqn")],
    Task("q_learning", "FrozenLake-v1", 0.7202, episodes=10_000),
    *[Task(recipe, "FrozenLake-v1", 1.0, {"is_slippery": False}) for recipe in ("sarsa", "expected_sarsa")],
    Task("gyx_sarsa_frozenlake", None, 1.0),
    Task("sarsa_cliffwalking", None, -17.0),
    Task("q_learning_taxi", None, 7.85, episodes=10_000),
    *[Task(f"q_learning_{kind}_cartpole", None, 475.0) for kind in ("tiles", "bins")],
    *[Task(f"q_learning_{kind}_mountaincar", None, -118.0) for kind in ("tiles", "bins")],
    # pqn has purejaxql's settings there
    *[Task("pqn", f"{game}-MinAtar", None, settings, seeds=3) for settings in (CAPPED, {}) for game in MINATAR],
    *[Task("purejaxrl_dqn", f"{game}-MinAtar", None, CAPPED, {"steps": 2_000_000}, seeds=3) for game in MINATAR],
]


def learn(task: Task) -> dict[str, Any]:
    """One row: what every seed's final parameters score, and the way there."""
    import jax

    from jaxrl import recipes
    from jaxrl.runs import config as configs
    from jaxrl.runs import host, log
    from jaxrl.runs.plan import choose, prepare

    home = recipes.home(task.recipe)
    env, settings = (task.env, task.settings) if task.env or home is None else (home.env, home.overrides)
    changes = {**task.changes, "eval_episodes": task.episodes}
    config = configs.override(recipes.default(task.recipe, env or ""), changes)
    plan = prepare(task.recipe, choose(env, settings), config, 0, task.seeds)
    play, curve = plan.evaluation(20), []
    seconds, before = [0.0], [0]

    def look(row: dict[str, Any], state: Any) -> None:
        seconds[0] += (row["env_steps"] - before[0]) * task.seeds / row["steps_per_s"]
        before[0] = row["env_steps"]
        if row["env_steps"] * POINTS >= (len(curve) + 1) * config.steps:
            key = jax.vmap(lambda key: jax.random.fold_in(key, row["env_steps"]))(plan.evaluation_keys())
            returns = np.asarray(play(state, key).returns).mean(axis=1)
            share = seconds[0] / task.seeds
            curve.append({"env_steps": row["env_steps"], "seconds": share, "greedy": returns.tolist()})

    trained = host.train(plan, log.Silent(), callback=look)
    scores = trained.summary["eval"]["per_seed"]
    return {
        "recipe": task.recipe,
        "env": task.env,
        "settings": task.settings,
        "changes": task.changes,
        "env_steps": trained.summary["env_steps"],
        "episodes": task.episodes,
        "bar": task.bar,
        "greedy_mean": scores,
        "iqm": float(iqm(scores)),
        "interval": interval(scores),
        "reached": None if task.bar is None else sum(score >= task.bar for score in scores),
        "solved_after_steps": solved(curve, task, "env_steps"),
        "solved_after_s": solved(curve, task, "seconds"),
        "steps_per_s": trained.summary["env_steps"] / (seconds[0] / task.seeds),
        "train_s_a_seed": seconds[0] / task.seeds,
        "compile_s": trained.summary["compile_s"],
        "curve": curve,
        "config": measure.flat(config),
        **measure.circumstances("flax", "optax"),
    }


def solved(curve: list[dict[str, Any]], task: Task, unit: str) -> list[float | None] | None:
    """For each seed where the first of two evaluations in a row at the bar was; None where there is none."""
    if task.bar is None or len(curve) < 2:
        return None
    good = np.array([point["greedy"] for point in curve]) >= task.bar
    twice = good[:-1] & good[1:]
    return [curve[int(np.argmax(seed))][unit] if seed.any() else None for seed in twice.T]


def run(task: Task, cores: SimpleQueue) -> dict[str, Any]:
    """A row in a process of its own, on a core that is free."""
    core = cores.get()
    try:
        command = [sys.executable, __file__, "--row", task.name]
        pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=pin)
    finally:
        cores.put(core)
    return json.loads(done.stdout.splitlines()[-1])


def key(row: dict[str, Any]) -> str:
    return Task(row["recipe"], row["env"], settings=row["settings"], changes=row["changes"]).name


def merged(path: Path, *new: dict[str, Any]) -> list[dict[str, Any]]:
    """The file's rows as they are now, with new ones in their places: in the order of TASKS, then any others."""
    found = {key(row): row for row in [*measure.read(path).get("rows", []), *new]}
    order = {task.name: place for place, task in enumerate(TASKS)}
    return sorted(found.values(), key=lambda row: order.get(key(row), len(order)))


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""

    def middle(values: list[float | None] | None, form: str) -> str:
        known = [np.inf if value is None else value for value in values or []]
        found = float(np.median(known)) if known else np.inf
        return form.format(found) if np.isfinite(found) else ""

    measure.table(
        "Greedy return of the final parameters: interquartile mean over seeds, 95% bootstrap interval",
        ("", "steps", "IQM", "interval", "lowest", "bar", "seeds", "solved", "after", "steps/s", "compile"),
        [
            (
                key(row),
                f"{row['env_steps'] / 1e6:.3g} M",
                f"{row['iqm']:.4g}",
                "{:.4g} {:.4g}".format(*row["interval"]),
                f"{min(row['greedy_mean']):.4g}",
                "" if row["bar"] is None else f"{row['bar']:g}",
                f"{len(row['greedy_mean'])}" if row["bar"] is None else f"{row['reached']}/{len(row['greedy_mean'])}",
                middle(row["solved_after_steps"], "{:,.0f}"),
                middle(row["solved_after_s"], "{:.1f} s"),
                f"{row['steps_per_s']:,.0f}",
                f"{row['compile_s']:.1f} s",
            )
            for row in rows
        ],
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the curves: for each environment the recipes' interquartile means, and their quarters' span."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    lines = cycler(linestyle=["-", "--"]) * plt.rcParams["axes.prop_cycle"]  # more recipes than colours
    rows = [row for row in rows if len(row["curve"]) > 1]
    names = list(dict.fromkeys(name_of(row) for row in rows))
    columns = 4
    height = -(-len(names) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(4 * columns, 3 * height), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for name, axis in zip(names, axes.flat):
        axis.set_prop_cycle(lines)
        bars = set()
        for row in (row for row in rows if name_of(row) == name):
            steps = np.array([point["env_steps"] for point in row["curve"]]) / 1e6
            scores = np.array([point["greedy"] for point in row["curve"]])
            line = axis.plot(steps, iqm(scores), label=row["recipe"], linewidth=1.4)[0]
            low, high = np.quantile(scores, [0.25, 0.75], axis=1)
            axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
            bars |= {row["bar"]} - {None}
        for bar in bars:
            axis.axhline(bar, color="0.6", linestyle=":", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.legend(fontsize=6, frameon=False)
        axis.tick_params(labelsize=7)
    figure.supxlabel("million environment steps", fontsize=9)
    figure.supylabel("greedy return", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


def name_of(row: dict[str, Any]) -> str:
    return " ".join([row["env"] or row["recipe"], *(f"{name}={value}" for name, value in row["settings"].items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="words that a row's name has all of")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(learn(next(task for task in TASKS if task.name == options.row))))
        return
    if not options.draw:
        tasks = [task for task in TASKS if set(options.only) <= set(task.name.split())]
        cores: SimpleQueue = SimpleQueue()
        for core in range(options.jobs):
            cores.put(core % (os.cpu_count() or 1) if hasattr(os, "sched_setaffinity") else None)
        with ThreadPoolExecutor(options.jobs) as pool:
            for row in pool.map(lambda task: run(task, cores), tasks):
                show([row])
                measure.write(options.out, {"rows": merged(options.out, row)})
    rows = merged(options.out)
    show(rows)
    if rows:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
