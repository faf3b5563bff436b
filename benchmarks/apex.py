"""Do more actors make a better Ape-X at the same number of updates and replayed samples (Horgan et al. 2018, figure 4)?

    python benchmarks/apex.py [--seeds 10] [--out benchmarks/results/apex.json] [--figure benchmarks/figures/apex.png]

Every run of a task makes the same number of gradient steps on BATCH windows. In the first series each actor takes one
step an update, so that more actors also mean more data, as in the paper. In the second all take 256 steps an update
together, so that only the number of actors differs: of their rates of exploration, and of the episodes that run at
once. A score is the mean return of 100 greedy episodes of the final parameters.

What came out of 10 seeds, interquartile mean and 95% interval: on CartPole 8 actors score 218 [170, 299] and 256 score
349 [253, 465]. With the data of 256, however, 8 score 482 [442, 497] and 128 score 315 [255, 394]: more actors help by
the data they bring; their number alone hurts. On MountainCar no number differs from another.
"""

import argparse
import time
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scores import interval, iqm

import jaxrl
from jaxrl import nets
from jaxrl.agents import apex, value
from jaxrl.envs import wrappers

ACTORS = 8, 32, 128, 256
BATCH, CAPACITY, WARMUP = 128, 200_000, 5_120
SERIES = {"one step an actor": lambda actors: 1, "256 steps in all": lambda actors: 256 // actors}
COLORS = "#2a6fb0", "#c8602a"
SETTINGS: dict[str, Any] = {"gamma": 0.99, "n_step": 3, "learning_rate": 1e-3, "target_period": 100, "refresh": 10}


class Task(NamedTuple):
    """An environment, and how long it is learned."""

    updates: int
    solved: float
    series: tuple[str, ...] = tuple(SERIES)


TASKS = {
    "CartPole-v1": Task(5_000, 475.0),
    "MountainCar-v0": Task(10_000, -110.0, ("one step an actor",)),  # the other takes as long as all the rest
}


def scores(env_id: str, actors: int, unroll: int, seeds: int) -> dict:
    """The greedy score of each seed, all of them in one program."""
    updates = TASKS[env_id].updates
    env, params = jaxrl.make(env_id)
    if env_id == "MountainCar-v0":
        env = wrappers.rescale_observation(env)
    network = nets.QNetwork(env.num_actions, nets.MLP((64, 64)), dueling=True)
    rate = optax.linear_schedule(SETTINGS["learning_rate"], 0.0, updates)
    agent = jaxrl.apex(
        network,
        apex.rmsprop(rate),
        gamma=SETTINGS["gamma"],
        refresh=SETTINGS["refresh"],
        target_update=value.hard(SETTINGS["target_period"]),
    )
    agent = value.with_rewards(agent, lambda reward: 0.1 * reward)
    buffer = jaxrl.prioritized(CAPACITY, BATCH, actors, window=SETTINGS["n_step"], carry=False)
    config = jaxrl.LoopConfig(actors, unroll, 1, WARMUP // actors)
    run = jaxrl.vmap_run(jaxrl.make_run(env, params, agent, buffer, config))

    def learn(keys):
        state, metrics = jaxrl.advance(run, run.warmup(run.init(keys)), updates)
        play = jax.vmap(lambda state, key: jaxrl.evaluate(env, params, agent, state, key, 100).returns.mean())
        return play(state.agent, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)), metrics

    start = time.perf_counter()
    found, metrics = jax.block_until_ready(jax.jit(learn)(jax.vmap(jaxrl.key)(jnp.arange(seeds, dtype=jnp.uint32))))
    assert (metrics["updates"] == updates).all()
    row = {
        "env": env_id,
        "actors": actors,
        "unroll": unroll,
        "updates": updates,
        "replayed": updates * BATCH,
        "env_steps": WARMUP // actors * actors + int(metrics["env_steps"][0]),
        "scores": np.asarray(found).round(3).tolist(),
    }
    row |= dict(zip(("iqm", "low", "high"), (float(iqm(row["scores"])), *interval(row["scores"]))))
    print(f"{env_id} {actors} actors x {unroll}: {row['iqm']:.1f} [{row['low']:.1f}, {row['high']:.1f}]", flush=True)
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def plot(record: dict, path: str) -> None:
    """A panel for each task, a line for each series, the seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(TASKS), figsize=(9.5, 3.8), layout="constrained")
    for axes, (name, task) in zip(panels, TASKS.items()):
        for number, (series, color) in enumerate(zip(SERIES, COLORS)):
            rows = [row for row in record["rows"] if (row["env"], row["series"]) == (name, series)]
            if not rows:
                continue
            at = np.array([row["actors"] for row in rows]) * (0.95, 1.05)[number]
            middle, low, high = (np.array([row[name] for row in rows]) for name in ("iqm", "low", "high"))
            axes.errorbar(at, middle, (middle - low, high - middle), color=color, marker="o", capsize=3, label=series)
            for x, row in zip(at, rows):
                axes.plot([x] * len(row["scores"]), row["scores"], ".", color=color, alpha=0.3, markersize=4)
        axes.axhline(task.solved, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ACTORS, [str(n) for n in ACTORS])
        axes.minorticks_off()
        axes.set_xlabel("actors")
        axes.set_title(f"{name}, {task.updates:,} updates of {record['batch']}", fontsize=10)
    panels[0].set_ylabel("greedy return")
    panels[0].legend(frameon=False, fontsize=8, title="each update", title_fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results/apex.json")
    parser.add_argument("--figure", default="benchmarks/figures/apex.png")
    options = parser.parse_args()
    rows, known = [], {}
    for name, task in TASKS.items():
        for series in task.series:
            for actors in ACTORS:
                case = name, actors, SERIES[series](actors)
                known[case] = known.get(case) or scores(*case, options.seeds)
                rows.append({"series": series} | known[case])
    record = {
        **measure.circumstances("flax", "optax"),
        "settings": SETTINGS,
        "batch": BATCH,
        "capacity": CAPACITY,
        "warmup": WARMUP,
        "seeds": options.seeds,
        "rows": rows,
    }
    measure.write(options.out, record)
    plot(record, options.figure)


if __name__ == "__main__":
    main()
