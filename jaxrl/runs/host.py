"""The loop on the host: compile once, train in chunks short enough to hear a signal, evaluate."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.evaluate import Evaluation
from jaxrl.runs.log import Reporter
from jaxrl.runs.plan import Plan, keys
from jaxrl.train import Metrics, Run, RunState, advance
from jaxrl.types import PyTree

CHUNK_SECONDS = 0.5  # a signal waits for at most about this long
CHUNKS = 100  # rows of metrics that a run gives at least, where it has as many iterations
UNIT = 32  # most iterations a chunk is counted in: a loop of known length costs accelerators less
_LOOP_METRICS = ("env_steps", "episodes", "return", "length", "updates")


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
) -> Trained:
    """Trains for exactly the budget, or until `stop()` is true between two chunks; then evaluates.

    `on_row` gets each chunk's metrics. Times are wall-clock, waited for; compiling is timed apart.
    """
    began = time.perf_counter()
    key = keys(plan.seed, plan.seeds)
    unit = unit_of(plan.setup.iterations)
    start, chunk, play = _compile(plan, unit, key)
    compile_s = time.perf_counter() - began
    reporter.line(f"compiled in {compile_s:.1f} s")

    loop, total = plan.setup.loop, plan.config.steps
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    state = jax.block_until_ready(start(key))
    done, units, count, finite = 0, plan.setup.iterations // unit, 1, True
    while done < units and not stop():
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
        rows.append(row)
        on_row(row)
        reporter.progress(row, total)
        if finite and not math.isfinite(row.get("loss", 0.0)):
            finite = False
            reporter.line(
                f"the loss is not finite at {row['env_steps']} steps, so nothing is learned from here on: "
                "lower the learning rate, or scale the rewards"
            )
        wish = CHUNK_SECONDS / max(seconds / count, 1e-9)
        count = max(1, min(int(wish), 8 * count, math.ceil(units / CHUNKS), units - done))
    train_s = time.perf_counter() - began
    reached = loop.num_envs * (loop.warmup + done * unit * loop.unroll)
    interrupted = done < units

    summary: dict[str, Any] = {
        "eval": None,
        "env_steps": reached,
        "train_s": train_s,
        "compile_s": compile_s,
        "steps_per_s": reached * plan.seeds / train_s,
        "seeds": plan.seeds,
    }
    if interrupted:
        summary["interrupted"] = True
    else:
        summary["eval"] = summarize(jax.device_get(play(state.agent, plan.evaluation_keys())))
    if not finite:
        summary["loss_finite"] = False
    lost = {name: int(np.sum(count)) for name, count in jax.device_get(plan.setup.buffer.counts(state.buffer)).items()}
    if any(lost.values()):
        summary["replay"] = lost
    if lost.get("cut"):
        reporter.line(
            f"the replay memory had no place for the final observation of {lost['cut']} truncated episodes, which were "
            "not learned from: raise replay.ends"
        )
    return Trained(state.agent, rows, summary)


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
    """The run's programs: (keys) -> state after warm-up; (state, count) -> state, sums; evaluation."""
    run = plan.run
    start = jax.jit(lambda key: run.warmup(run.init(key))).lower(key)
    count = jax.ShapeDtypeStruct((), np.int32)
    chunk = jax.jit(partial(_chunk, run, unit), donate_argnums=0).lower(plan.shapes, count)
    play = plan.evaluation(plan.config.eval_episodes).lower(plan.shapes.agent, plan.evaluation_keys())
    with ThreadPoolExecutor() as pool:  # XLA lets the interpreter go on: as fast as the slowest of them
        return tuple(pool.map(lambda lowered: lowered.compile(), (start, chunk, play)))


def _chunk(run: Run, unit: int, state: RunState, count: jax.Array) -> tuple[RunState, Metrics]:
    """`count` times `unit` iterations; `count` is traced, so that one program serves every chunk."""
    shapes = jax.eval_shape(run.step, state)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(_, carry):
        state, sums = carry
        state, metrics = advance(run, state, unit)
        return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, count, body, (state, zeros))


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
