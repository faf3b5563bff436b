"""Every tabular learner against the exact fixed point of its own operator, as planning finds it, for 20 seeds.

    python benchmarks/fixed_points.py [--learners NAME ...] [--tasks NAME ...] [--curves] [--out FILE]
    python benchmarks/fixed_points.py --draw          the figure again: benchmarks/figures/fixed_points.png

The tasks are slippery FrozenLake and deterministic CliffWalking (gamma 0.95) and five random processes (gamma 0.9), all
without a time limit, which would cut n-step returns short. A seed's error is the largest over the entries with at least
1,000 visits, as a share of the range of the exact q; the bar is 0.02 for 19 of 20 seeds. On CliffWalking nothing is
random for an off-policy learner: its bar is 0.001 of reward. An on-policy one meets there returns of -100 at random: it
is judged by the exact value, from the start, of the policy greedy in its table; it must be that of the policy greedy in
the exact q. All seeds of a learner, and all random processes, are one vmapped call.

A part of the learners or tasks replaces its own rows in the file and leaves the others. The whole takes one core eleven
minutes; two cores seven:

    taskset -c 0 python benchmarks/fixed_points.py --tasks FrozenLake-v1 &
    taskset -c 1 python benchmarks/fixed_points.py --tasks CliffWalking-v1 random
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from book import figure
from jax import Array

import jaxrl
from jaxrl import behaviour, planning
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.tabular import tabular_env, tabular_params
from jaxrl.types import NO_LIMIT, Agent

SEEDS, VISITS, MOST, BAR, EXACTLY = 20, 1000, 10_000_000, 0.02, 1e-3
N_STEPS, LAMBDA, HORIZON = (3, 0.5, 6)  # the horizon of Monte Carlo with the clock in the state
FIGURE = Path(__file__).parent / "figures" / "fixed_points.png"


class Process(NamedTuple):
    """What differs between the processes of a task; the leaves are stacked for one vmapped call."""

    params: Any
    followed: Any  # [S, A] the policy of a fixed behaviour
    target: Any  # [S, A] the policy that is learned about


class Task(NamedTuple):
    """Processes of one shape."""

    name: str
    env: Any
    mdps: Sequence[TabularMDP]
    processes: Sequence[Process]
    gamma: float
    explore: float  # epsilon of off-policy learners
    epsilon: float  # of on-policy ones
    updates: int
    traced: int  # updates of learners with traces, whose updates are of all entries
    horizon: int  # of Monte Carlo without a clock: the followed policy's episodes are shorter
    power: float = 0.7  # step sizes N^-power of learners that keep no average
    deterministic: bool = False


class Learner(NamedTuple):
    """An agent, and where it should go."""

    factory: Callable[..., Agent]
    point: Callable[[Task, TabularMDP, Process], Any]  # q [S, A]
    options: Callable[[Task, Process], dict]
    window: int = 1
    lanes: int = 64
    off_policy: bool = False
    share: float = 1.0  # of the task's updates
    averaged: bool = True
    unroll: int = 0  # of learners from whole episodes
    traces: bool = False
    clock: bool = False  # whether the time is in the state


def random_mdp(seed: int, states: int = 7, actions: int = 3, sparsity: float = 0.5) -> TabularMDP:
    """Sparse rows, chances of many sizes, the last state and another terminal; episodes start anywhere else."""
    rng = np.random.default_rng(seed)
    P = rng.exponential(size=(states, actions, states)) ** 2 * (rng.random((states, actions, states)) < sparsity)
    P[..., 0] += 0.05 * (P.sum(-1) == 0)
    P /= P.sum(-1, keepdims=True)
    R = rng.normal(size=(states, actions))
    terminal = np.arange(states) % 4 == 3
    P[terminal], R[terminal] = np.eye(states)[terminal, None], 0
    return TabularMDP(P, R, terminal, ~terminal / np.sum(~terminal))


def leaning(q: Any, share: float, seed: int) -> np.ndarray:
    """Chances [S, A]: greedy in q for a share, the rest drawn."""
    rest = np.random.default_rng(seed).dirichlet(np.full(q.shape[1], 10.0), len(q))
    return share * np.eye(q.shape[1])[np.argmax(q, axis=1)] + (1 - share) * rest


def grid_task(name: str, lean: float, **settings: Any) -> Task:
    """An environment; what is followed leans to a good policy, what is learned about even more."""
    env, params = jaxrl.make(name, max_steps_in_episode=NO_LIMIT)
    mdp, gamma = jaxrl.tabular_mdp(env, params), 0.95
    good = planning.sarsa(mdp, gamma, 0.3).q
    process = Process(params, leaning(good, lean, 0), leaning(good, 0.8, 1))
    return Task(name, env, [mdp], [process], gamma, **settings)


def random_task(**settings: Any) -> Task:
    """What is followed and what is learned about has nothing to do with what is good."""
    mdps = [random_mdp(seed) for seed in range(1, 6)]
    nothing = np.zeros((7, 3))
    processes = [
        Process(tabular_params(mdp), leaning(nothing, 0.0, 2 * i), leaning(nothing, 0.0, 2 * i + 1))
        for i, mdp in enumerate(mdps)
    ]
    return Task("random", tabular_env(mdps[0]), mdps, processes, 0.9, **settings)


LAKE = {"explore": 0.7, "epsilon": 0.5, "updates": 5_000_000, "traced": 8_000_000, "horizon": 128, "power": 0.75}
CLIFF = {"explore": 0.7, "epsilon": 0.2, "updates": 1_000_000, "traced": 300_000, "horizon": 120, "deterministic": True}
RANDOM = {"explore": 1.0, "epsilon": 0.5, "updates": 500_000, "traced": 500_000, "horizon": 200}
TASKS: dict[str, Callable[[], Task]] = {
    "FrozenLake-v1": partial(grid_task, "FrozenLake-v1", 0.5, **LAKE),
    "CliffWalking-v1": partial(grid_task, "CliffWalking-v1", 0.7, **CLIFF),
    "random": partial(random_task, **RANDOM),
}


def clocked(task: Task) -> Task:
    """The same with the time in the state, row t S + s, any of which may start an episode; so all are learned alike."""
    mdps = []
    for mdp in task.mdps:
        states, actions = mdp.R.shape
        size = HORIZON * states + 1  # the last row is the end of time
        P, R = np.zeros((size, actions, size)), np.zeros((size, actions))
        for t in range(HORIZON):
            rows, after = (slice(t * states, (t + 1) * states), slice((t + 1) * states, (t + 2) * states))
            R[rows] = mdp.R
            P[rows, :, after] = mdp.P if t + 1 < HORIZON else 1
        terminal = np.append(np.tile(mdp.terminal, HORIZON), True)
        P[terminal] = np.eye(size)[terminal, None]
        mdps.append(TabularMDP(P, R, terminal, ~terminal / np.sum(~terminal)))
    processes = [
        process._replace(params=tabular_params(mdp)) for mdp, process in zip(mdps, task.processes, strict=True)
    ]
    return task._replace(env=tabular_env(mdps[0]), mdps=mdps, processes=processes, horizon=HORIZON)


def exploring(task: Task, process: Process) -> dict:
    del process
    return {"epsilon": task.explore}


def soft(task: Task, process: Process) -> dict:
    del process
    return {"epsilon": task.epsilon}


def about(task: Task, process: Process) -> dict:
    return {"epsilon": task.explore, "target": behaviour.fixed(process.target)}


def following(task: Task, process: Process) -> dict:
    del task
    return {"behaviour": behaviour.fixed(process.followed)}


def best_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    del process
    return planning.q_learning(mdp, task.gamma).q


def soft_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    del process
    return planning.sarsa(mdp, task.gamma, task.epsilon).q


def wandering(task: Task, process: Process) -> dict:
    """Peng's fixed point is then that of a SARSA which explores as the others here do."""
    del process
    return {"epsilon": task.epsilon / LAMBDA}


def peng_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    del process
    return planning.peng(mdp, task.gamma, LAMBDA, task.epsilon / LAMBDA).q


def target_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    return planning.tree_backup(mdp, task.gamma, process.target).q


def n_step_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    return planning.n_step_q(mdp, task.gamma, N_STEPS, process.followed).q


def followed_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    return planning.evaluate(mdp, task.gamma, process.followed).q


def clock_point(task: Task, mdp: TabularMDP, process: Process) -> Any:
    """As `clocked` lays it out."""
    del process
    q = np.asarray(planning.monte_carlo(mdp, task.gamma, HORIZON, task.epsilon).q)
    return np.concatenate([q.reshape(-1, q.shape[2]), np.zeros((1, q.shape[2]))])


def traced(trace: str) -> Learner:
    factory = partial(jaxrl.sarsa_lambda, lambda_=LAMBDA, trace=trace)
    return Learner(factory, soft_point, soft, lanes=16, traces=True)


def modelled(factory: Callable[..., Agent], lanes: int, share: float = 1.0) -> Learner:
    """Planning in counts; in a task where nothing is random, in the last step of each pair."""

    def options(task: Task, process: Process) -> dict:
        return {"model": "last" if task.deterministic else "counts", **exploring(task, process)}

    return Learner(factory, best_point, options, lanes=lanes, off_policy=True, share=share, averaged=False)


LEARNERS: dict[str, Learner] = {
    "q_learning": Learner(jaxrl.q_learning, best_point, exploring, off_policy=True),
    "double_q_learning": Learner(jaxrl.double_q_learning, best_point, exploring, off_policy=True, share=1.6),
    "q_learning, 3 steps": Learner(jaxrl.q_learning, n_step_point, following, window=N_STEPS, share=1.6),
    "sarsa": Learner(jaxrl.sarsa, soft_point, soft, window=2, share=2.0),
    "sarsa, 3 steps": Learner(jaxrl.sarsa, soft_point, soft, window=N_STEPS + 1, share=1.2),
    "expected_sarsa": Learner(jaxrl.expected_sarsa, soft_point, soft),
    "expected_sarsa, target": Learner(jaxrl.expected_sarsa, target_point, about, off_policy=True),
    "tree_backup, greedy": Learner(jaxrl.tree_backup, best_point, exploring, window=N_STEPS, off_policy=True),
    "tree_backup, target": Learner(jaxrl.tree_backup, target_point, about, window=N_STEPS, off_policy=True),
    "sarsa_lambda, accumulating": traced("accumulating"),
    "sarsa_lambda, replacing": traced("replacing"),
    "sarsa_lambda, dutch": traced("dutch"),
    "q_lambda, watkins": Learner(
        partial(jaxrl.q_lambda, lambda_=LAMBDA), best_point, exploring, lanes=16, off_policy=True, traces=True
    ),
    "q_lambda, peng": Learner(
        partial(jaxrl.q_lambda, lambda_=LAMBDA, variant="peng"), peng_point, wandering, lanes=16, traces=True
    ),
    "monte_carlo, policy": Learner(
        partial(jaxrl.monte_carlo, visit="every"), followed_point, following, lanes=16, unroll=128, share=2.0
    ),
    "monte_carlo, clock": Learner(jaxrl.monte_carlo, clock_point, soft, unroll=32, share=6.0, clock=True),
    "dyna_q": modelled(jaxrl.dyna_q, 1024, 2.0),
    "prioritized_sweeping": modelled(partial(jaxrl.prioritized_sweeping, planning=10, theta=1e-5), 512),
}


def steps_of(learner: Learner, task: Task) -> dict:
    """Step sizes: averages of N^-0.7, and where nothing is random half of the error at once."""
    if learner.off_policy and task.deterministic:
        return {"alpha": 0.5}
    if learner.averaged:
        return {"alpha": 1.0, "alpha_power": 0.7, "average": 1.0}
    return {"alpha": 1.0, "alpha_power": task.power}


def learn(learner: Learner, task: Task, seeds: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(tables [processes, seeds, S, A], visits, updates a run)."""
    states, actions = task.mdps[0].R.shape
    unroll = max(learner.unroll, 1)
    updates = task.traced if learner.traces else min(MOST, int(task.updates * learner.share))
    iterations = updates // (learner.lanes * unroll)
    whole = {"horizon": task.horizon} if learner.unroll else {}

    def one(process: Process, key: Array) -> tuple[Array, Array]:
        options = {"gamma": task.gamma, **whole, **steps_of(learner, task), **learner.options(task, process)}
        agent = learner.factory(states, actions, **options)
        params = process.params.replace(max_steps_in_episode=task.horizon) if learner.unroll else process.params
        rows = learner.window if agent.rows is None else agent.rows(unroll)
        config = jaxrl.LoopConfig(learner.lanes, unroll, warmup=rows - unroll)
        run = jaxrl.make_run(task.env, params, agent, jaxrl.recent(rows, learner.lanes), config)
        state = jaxrl.advance(run, run.warmup(run.init(key)), iterations)[0].agent
        return state.average if "average" in options else state.q, state.visits

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *task.processes)
    keys = jax.vmap(jaxrl.key)(jnp.arange(seeds))
    q, visits = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(stacked, keys)
    return np.asarray(q), np.asarray(visits), iterations * learner.lanes * unroll


def greedy_value(mdp: TabularMDP, gamma: float, q: Any) -> np.ndarray:
    """[seeds]: the exact value of the policies greedy in q [seeds, S, A], from the start."""
    policies = np.argmax(q, axis=2).astype(np.int32)
    return np.asarray(jax.vmap(lambda policy: planning.evaluate(mdp, gamma, policy).values)(policies)) @ mdp.start


def judge(name: str, task: Task, seeds: int) -> list[dict]:
    """A row for each process of the task."""
    learner, start = LEARNERS[name], time.process_time()
    q, visits, updates = learn(learner, clocked(task) if learner.clock else task, seeds)
    seconds = time.process_time() - start
    rows = []
    for i, (mdp, process) in enumerate(zip(task.mdps, task.processes, strict=True)):
        exact = np.asarray(learner.point(task, mdp, process))
        counted = visits[i] >= VISITS
        error = np.where(counted, np.abs(q[i] - exact), 0).max((1, 2))
        by, judged, bar = "share", error / np.ptp(exact), BAR
        if task.deterministic and learner.off_policy:
            by, judged, bar = "reward", error, EXACTLY
        elif task.deterministic:
            value = greedy_value(mdp, task.gamma, np.concatenate([exact[None], q[i]]))
            by, judged, bar = "greedy", np.abs(value[1:] - value[0]), EXACTLY
        rows.append(
            {
                "learner": name,
                "task": task.name if len(task.mdps) == 1 else f"{task.name} {i + 1}",
                "gamma": task.gamma,
                "steps": steps_of(learner, task),
                "environments": learner.lanes,
                "updates": updates,
                "entries": int(counted.sum((1, 2)).min()),
                "of": int((visits[i].max(0) > 0).sum()),
                "range": float(np.ptp(exact)),
                "largest_error_as_share": (error / np.ptp(exact)).astype(float).round(5).tolist(),
                "judged_by": by,
                "judged": judged.astype(float).round(6).tolist(),
                "median": float(np.median(judged)),
                "19_of_20": float(np.sort(judged)[int(np.ceil(0.95 * seeds)) - 1]),
                "bar": bar,
                "reached": int((judged <= bar).sum()),
                "cpu_seconds": round(seconds / len(task.mdps), 1),
            }
        )
    return rows


RULES: dict[str, dict] = {
    "1/N": {"alpha": 1.0, "alpha_power": 1.0},
    "N^-0.7": {"alpha": 1.0, "alpha_power": 0.7},
    "N^-0.7, averaged": {"alpha": 1.0, "alpha_power": 0.7, "average": 1.0},
    "0.005, averaged": {"alpha": 0.005, "average": 1.0},
}
GAMMAS, POINTS, CURVE_SEEDS = (0.95, 0.99), 40, 5


def curve(rule: dict, gamma: float) -> dict[str, list[float]]:
    """Q-learning's largest error on FrozenLake as a share of the range, the median of the seeds, over updates."""
    task = TASKS["FrozenLake-v1"]()
    (mdp,), lanes = task.mdps, 64
    exact = jnp.asarray(planning.q_learning(mdp, gamma).q)
    agent = jaxrl.q_learning(*mdp.R.shape, gamma=gamma, epsilon=task.explore, **rule)
    run = jaxrl.make_run(task.env, task.processes[0].params, agent, jaxrl.recent(1, lanes), jaxrl.LoopConfig(lanes))
    run = jaxrl.vmap_run(run)
    times = np.unique(np.geomspace(10, MOST // lanes, POINTS).astype(int))

    def further(state: Any, count: Array) -> tuple[Any, Array]:
        state = jax.lax.fori_loop(0, count, lambda _, state: run.step(state)[0], state)
        table = state.agent.average if "average" in rule else state.agent.q
        return state, jnp.max(jnp.abs(table - exact), axis=(1, 2)) / jnp.ptp(exact)

    state = run.init(jax.vmap(jaxrl.key)(jnp.arange(CURVE_SEEDS)))
    _, error = jax.jit(lambda state, counts: jax.lax.scan(further, state, counts))(state, np.diff(times, prepend=0))
    return {"updates": (times * lanes).tolist(), "error": np.median(error, axis=1).astype(float).round(5).tolist()}


def draw(curves: dict[str, dict]) -> None:
    """Writes the figure."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(10.4, 4.2), dpi=110, layout="constrained")
    for axes, gamma in zip(canvas.subplots(1, len(GAMMAS), sharey=True), GAMMAS, strict=True):
        for (rule, found), color in zip(curves[str(gamma)].items(), figure.COLORS, strict=False):
            axes.loglog(found["updates"], found["error"], color=color, label=rule, linewidth=1.8)
        axes.axhline(BAR, color="#5a6270", linewidth=1, linestyle="--")
        axes.set(title=f"gamma {gamma}", xlabel="updates", xlim=(640, MOST), ylim=(0.002, 1.2))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8ec", linewidth=0.8)
    canvas.axes[0].set_ylabel("largest error of Q, share of its range")
    canvas.axes[0].text(800, BAR * 0.97, f"{BAR:g}", va="top", fontsize=9, color="#5a6270")
    canvas.axes[1].legend(frameon=False, title="step size", loc="lower left")
    canvas.suptitle(
        "Q-learning on slippery FrozenLake against value iteration: 1/N forgets its first targets too slowly"
    )
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(FIGURE)
    print(f"written: {FIGURE}")


def shown(rows: list[dict]) -> list[tuple[str, ...]]:
    """The table's lines; of several processes the worst."""
    worst: dict[tuple[str, str], dict] = {}
    for row in rows:
        key = (row["learner"], row["task"].split()[0])
        if key not in worst or row["19_of_20"] / row["bar"] > worst[key]["19_of_20"] / worst[key]["bar"]:
            worst[key] = row
    return [
        (
            row["learner"],
            row["task"],
            f"{row['updates']:.1e}",
            f"{row['entries']} of {row['of']}",
            row["judged_by"],
            f"{row['median']:.2g}",
            f"{row['19_of_20']:.2g}",
            f"{row['bar']:g}",
            f"{row['reached']}",
        )
        for row in worst.values()
    ]


def read(path: Path) -> dict[str, Any]:
    """The file, or an empty one."""
    return json.loads(path.read_text()) if path.exists() else {"rows": [], "curves": {}}


def write(path: Path, rows: list[dict], seeds: int, curves: dict | None = None) -> None:
    """Rows take the place of those of the same learner and task; the others stay, which another process may write."""
    old, new = read(path), {(row["learner"], row["task"]) for row in rows}
    rows = [row for row in old["rows"] if (row["learner"], row["task"]) not in new] + rows
    rows.sort(key=lambda row: (list(LEARNERS).index(row["learner"]), row["task"]))
    record = {
        **measure.circumstances(),
        "seeds": seeds,
        "visits": VISITS,
        "n_steps": N_STEPS,
        "lambda": LAMBDA,
        "clock": HORIZON,
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows)),
        "rows": rows,
        "curves": curves or old["curves"],
    }
    measure.write(path, record, indent=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", nargs="*", choices=LEARNERS, default=list(LEARNERS), metavar="NAME")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--curves", action="store_true", help="those of the figure anew")
    parser.add_argument("--draw", action="store_true", help="the figure again, from the file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fixed_points.json"))
    options = parser.parse_args()
    if options.draw:
        draw(read(options.out)["curves"])
        return
    for task in [TASKS[name]() for name in options.tasks]:
        for name in options.learners:
            if not (task.deterministic and LEARNERS[name].clock):  # it has no single start for a greedy value
                found = judge(name, task, options.seeds)
                print(*shown(found)[0], f"{sum(row['cpu_seconds'] for row in found):.0f} s", sep="  ", flush=True)
                write(options.out, found, options.seeds)
    if options.curves or not read(options.out)["curves"]:
        curves = {str(gamma): {name: curve(rule, gamma) for name, rule in RULES.items()} for gamma in GAMMAS}
        write(options.out, [], options.seeds, curves)
    record = read(options.out)
    draw(record["curves"])
    measure.table(
        f"Each learner against its own fixed point, {options.seeds} seeds, {record['cpu_seconds']} s of CPU",
        ("", "task, the worst", "updates", "entries", "judged by", "median", "19 of 20", "bar", "seeds"),
        shown(record["rows"]),
    )


if __name__ == "__main__":
    main()
