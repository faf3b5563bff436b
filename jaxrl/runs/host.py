"""The loop on the host: compile once, train in chunks short enough to hear a signal, evaluate."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import xla
from jaxrl.evaluate import Evaluation
from jaxrl.runs.log import Reporter
from jaxrl.runs.plan import Plan, keys, learned
from jaxrl.train import Metrics, Run, RunState, advance
from jaxrl.types import PyTree

CHUNK_SECONDS = 0.5  # a signal waits for at most about this long
OUTSIDE = 0.05  # how far targets may lie beyond a distribution's support, in its widths, before it is said
CHUNKS = 100  # rows of metrics that a run gives at least, where it has as many iterations
UNIT = 32  # most iterations a chunk is counted in: a loop of known length costs accelerators less
_LOOP_METRICS = ("env_steps", "episodes", "return", "length", "updates")


# (a chunk's metrics, the agent's state after it) -> whether to stop
Callback = Callable[[dict[str, Any], PyTree], Any]


class Trained(NamedTuple):
    """What came of a run."""

    agent: PyTree  # the agent's state; [seeds, ...] for several seeds
    rows: list[dict[str, Any]]  # what metrics.jsonl holds
    summary: dict[str, Any]  # what summary.json holds


def train(
    plan: Plan,
    reporter: Reporter,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
    callback: Callback | None = None,
    on_learned: Callable[[PyTree], None] = lambda agent: None,
) -> Trained:
    """Trains for exactly the budget, or until `stop()` or the callback is true between two chunks; then evaluates.

    `on_row` gets each chunk's metrics. Times are wall-clock, waited for; compiling is timed apart. Where a metric or
    what was learned is no finite number, it stops, with the agent as it was before that chunk. `on_learned` gets the
    agent before it is evaluated, and where an exception ends training after a first chunk.
    """
    began = time.perf_counter()
    key = keys(plan.seed, plan.seeds)
    unit = unit_of(plan.setup.iterations)
    start, chunk, play, kept = _compile(plan, unit, key)
    compile_s = time.perf_counter() - began
    reporter.line(f"compiled in {compile_s:.1f} s")

    loop, total = plan.setup.loop, plan.config.steps
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    state = jax.block_until_ready(start(key))
    done, units, count = 0, plan.setup.iterations // unit, 1
    diverged: dict[str, Any] | None = None
    outside: float | None = None
    enough = False
    good, _ = kept(state.agent)  # a chunk takes the state's own memory
    try:
        while done < units and not enough and not stop():
            chunk_began = time.perf_counter()
            state, sums = jax.block_until_ready(chunk(state, np.int32(count)))
            seconds = time.perf_counter() - chunk_began
            done += count
            row = {
                "env_steps": loop.num_envs * (loop.warmup + done * unit * loop.unroll),
                "updates": done * unit * loop.updates,
                **means(jax.device_get(sums), plan.seeds),
                "steps_per_s": count * unit * loop.unroll * loop.num_envs * plan.seeds / seconds,
                "train_s": time.perf_counter() - began,
            }
            agent, finite = kept(state.agent)
            diverged = _diverged(row, np.atleast_1d(finite), plan.seed)
            good = good if diverged else agent
            rows.append(row)
            on_row(row)
            reporter.progress(row, total)
            if diverged:
                reporter.line(diverged_line(diverged))
                break
            if outside is None and row.get("outside", 0.0) > OUTSIDE:
                outside = row["outside"]
                reporter.line(
                    f"targets lie outside of the support by {outside:.0%} of its width on average at "
                    f"{row['env_steps']} steps, where q is {row['q']:.4g}: widen agent.v_min to agent.v_max"
                )
            enough = callback is not None and bool(callback(row, agent))
            wish = CHUNK_SECONDS / max(seconds / count, 1e-9)
            count = max(1, min(int(wish), 8 * count, math.ceil(units / CHUNKS), units - done))
    except BaseException:
        if rows:
            with suppress(Exception):  # the first error is the one to hear of
                on_learned(good)
        raise
    train_s = time.perf_counter() - began
    reached = loop.num_envs * (loop.warmup + done * unit * loop.unroll)
    on_learned(good)

    summary: dict[str, Any] = {
        "eval": None,
        "env_steps": reached,
        "train_s": train_s,
        "compile_s": compile_s,
        "steps_per_s": reached * plan.seeds / train_s,
        "seeds": plan.seeds,
    }
    if diverged:
        summary["diverged"] = diverged
    elif done < units and not enough:
        summary["interrupted"] = True
    else:
        summary["eval"] = summarize(jax.device_get(play(good, plan.evaluation_keys())))
    if outside is not None:
        summary["outside"] = outside
    lost = {name: int(np.sum(count)) for name, count in jax.device_get(plan.setup.buffer.counts(state.buffer)).items()}
    if any(lost.values()):
        summary["replay"] = lost
    if lost.get("cut"):
        reporter.line(
            f"the replay memory had no place for the final observation of {lost['cut']} truncated episodes, which were "
            "not learned from: raise replay.ends"
        )
    return Trained(good, rows, summary)


def diverged_line(diverged: dict[str, Any]) -> str:
    """What happened to a run that stopped because numbers were no longer finite."""
    return (
        f"the {diverged['quantity']} of seed {diverged['seed']} is not finite at {diverged['env_steps']} steps: "
        "training stopped, what was learned before is kept; lower the learning rate, or scale the rewards"
    )


def unit_of(iterations: int) -> int:
    """The largest number up to UNIT that divides the iterations."""
    return max(k for k in range(1, min(UNIT, iterations) + 1) if iterations % k == 0)


def means(sums: dict[str, np.ndarray], seeds: int) -> dict[str, Any]:
    """A chunk's sums as means, None where no episode ended; of several seeds their mean, and `per_seed`."""
    episodes, updates = np.atleast_1d(sums["episodes"]), np.atleast_1d(sums["updates"])
    per_seed: dict[str, list[Any]] = {
        name: [float(s) / float(n) if n else None for s, n in zip(np.atleast_1d(sums[name]), episodes, strict=True)]
        for name in ("return", "length")
    }
    per_seed["episodes"] = [int(n) for n in episodes]
    for name in sorted(set(sums) - set(_LOOP_METRICS)):
        per_seed[name] = [float(s) / float(n) for s, n in zip(np.atleast_1d(sums[name]), updates, strict=True)]
    if seeds == 1:
        return {name: values[0] for name, values in per_seed.items()}
    row = {name: _mean(values) for name, values in per_seed.items()}
    return {**row, "episodes": sum(per_seed["episodes"]), "per_seed": per_seed}


def summarize(result: Evaluation) -> dict[str, Any]:
    """Greedy episodes [E] or [seeds, E] in numbers; `std` is over all of them."""
    returns = np.atleast_2d(np.asarray(result.returns, np.float64))
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "episodes": returns.shape[1],
        "per_seed": [float(mean) for mean in returns.mean(axis=1)],
        "length": float(np.mean(result.lengths)),
        "ended": float(np.mean(result.ended)),
    }


def _compile(plan: Plan, unit: int, key: jax.Array):
    """The run's programs.

    (keys) -> state after warm-up; (state, count) -> state, sums; evaluation; (agent) -> a copy, whether it is finite.
    """
    run = plan.run
    start = jax.jit(lambda key: run.warmup(run.init(key))).lower(key)
    count = jax.ShapeDtypeStruct((), np.int32)
    chunk = jax.jit(partial(_chunk, run, unit), donate_argnums=0).lower(plan.shapes, count)
    play = plan.evaluation(plan.config.eval_episodes).lower(plan.shapes.agent, plan.evaluation_keys())
    kept = jax.jit(lambda agent: (jax.tree.map(jnp.copy, agent), _finite(learned(agent), plan.seeds)))
    kept = kept.lower(plan.shapes.agent)
    with ThreadPoolExecutor() as pool:  # XLA lets the interpreter go on: as fast as the slowest of them
        brief = partial(xla.compiled, brief=True)
        programs = (
            pool.submit(brief, start),
            pool.submit(xla.compiled, chunk),
            pool.submit(brief, play),
            pool.submit(brief, kept),
        )
        return tuple(program.result() for program in programs)


def _chunk(run: Run, unit: int, state: RunState, count: jax.Array) -> tuple[RunState, Metrics]:
    """`count` times `unit` iterations; `count` is traced, so that one program serves every chunk."""
    steps = jax.jit(partial(advance, run, iterations=unit))  # traced once for its shapes and its loop
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(steps, state)[1])

    def body(_, carry):
        state, sums = carry
        state, metrics = steps(state)
        return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, count, body, (state, zeros))


def _finite(tree: PyTree, seeds: int) -> jax.Array:
    """Whether every number of a seed's is finite: [], or [seeds]."""

    def one(leaf: jax.Array) -> jax.Array:
        return jnp.all(jnp.isfinite(leaf), axis=tuple(range(0 if seeds == 1 else 1, leaf.ndim)))

    found = [one(leaf) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(found), axis=0) if found else jnp.bool_(True)


def _diverged(row: dict[str, Any], finite: np.ndarray, seed: int) -> dict[str, Any] | None:
    """Which quantity of which seed is the first that is no number, and where; None where all are."""
    several, where = row.get("per_seed", row), row["env_steps"]
    for name in sorted(set(several) - {*_LOOP_METRICS, "steps_per_s", "train_s"}):
        values = np.atleast_1d(several[name])
        if not np.isfinite(values).all():
            return {"quantity": name, "seed": seed + int(np.argmin(np.isfinite(values))), "env_steps": where}
    if not finite.all():
        return {"quantity": "parameters", "seed": seed + int(np.argmin(finite)), "env_steps": where}
    return None


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
