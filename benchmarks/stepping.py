"""Environment steps a second on one CPU core: jaxrl against gymnax 1.0, in one process, in alternating runs.

Both go through the same plain driver, `vmap(env.step)` inside a scan: it splits one key for every
environment, draws random actions, carries observation and state and sums rewards. Each library has its own
default keys: `jaxrl.key`, threefry for gymnax. Beside it stands what leaner drivers of ours add.

    python benchmarks/stepping.py [--sizes 1 64 1024 16384] [--runs 5] [--core 0] [--out FILE.json]
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

STEPS = 2**21  # environment steps a timed run, at most; small N takes fewer
LABELS = ("gymnax", "jaxrl", "jaxrl, lean actions", "jaxrl, lean actions, one split")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 64, 1024, 16384])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stepping.json")
    arguments = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})  # before jax starts its threads

    rows = [
        row
        for pair in (("CartPole-v1", "CartPole-v1"), ("FrozenLake-v1", "FrozenLake-misc"))
        for num_envs in arguments.sizes
        for row in measure(*pair, num_envs, arguments.runs)
    ]
    record = {
        "benchmark": "stepping",
        "unit": "million environment steps/s",
        **circumstances(arguments),
        "rows": rows,
    }
    show(record)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {arguments.out}")


def measure(ours: str, theirs: str, num_envs: int, runs: int) -> list[dict[str, Any]]:
    """One row a variant: the median speed over `runs` alternating runs and its ratio to gymnax's."""
    import gymnax
    import jax

    import jaxrl

    steps = min(max(STEPS // num_envs, 64), 20_000)
    env, params = jaxrl.make(ours)
    variants = {
        LABELS[0]: (plain(*gymnax.make(theirs), num_envs, steps), jax.random.key(0)),
        LABELS[1]: (plain(env, params, num_envs, steps), jaxrl.key(0)),
        LABELS[2]: (lean(env, params, num_envs, steps, one_split=False), jaxrl.key(0)),
        LABELS[3]: (lean(env, params, num_envs, steps, one_split=True), jaxrl.key(0)),
    }
    compile_s = {}
    for label, (run, key) in variants.items():
        start = time.perf_counter()
        variants[label] = (run.lower(key).compile(), key)
        compile_s[label] = time.perf_counter() - start
        jax.block_until_ready(variants[label][0](key))
    speeds: dict[str, list[float]] = {label: [] for label in variants}
    for _ in range(runs):
        for label, (run, key) in variants.items():
            start = time.perf_counter()
            jax.block_until_ready(run(key))
            speeds[label].append(num_envs * steps / (time.perf_counter() - start) / 1e6)
    median = {label: statistics.median(values) for label, values in speeds.items()}
    return [
        {
            "env": ours,
            "num_envs": num_envs,
            "variant": label,
            "speed": round(median[label], 3),
            "ratio_to_gymnax": round(median[label] / median[LABELS[0]], 2),
            "compile_s": round(compile_s[label], 2),
            "runs": [round(value, 3) for value in speeds[label]],
        }
        for label in variants
    ]


def plain(env: Any, params: Any, num_envs: int, steps: int) -> Any:
    """key -> final (obs, state, sum of rewards [N]); the driver that both libraries share."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(key):
        key, reset_key = jax.random.split(key)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), params)

        def body(carry, _):
            key, _, state, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = jax.random.randint(action_key, (num_envs,), 0, env.num_actions)
            keys = jax.random.split(step_key, num_envs)
            obs, state, reward, _, _, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
            return (key, obs, state, total + reward), None

        return jax.lax.scan(body, (key, obs, state, jnp.zeros(num_envs)), length=steps)[0][1:]

    return run


def lean(env: Any, params: Any, num_envs: int, steps: int, one_split: bool) -> Any:
    """As `plain`, but actions are the top bits of one draw (`randint` draws twice).

    With `one_split` each environment keeps its key and folds the clock in: no key is split for the batch.
    """
    import jax
    import jax.numpy as jnp

    bits = env.num_actions.bit_length() - 1
    assert 2**bits == env.num_actions

    @jax.jit
    def run(key):
        key, reset_key = jax.random.split(key)
        lanes = jax.random.split(reset_key, num_envs)
        obs, state = jax.vmap(env.reset, (0, None))(lanes, params)

        def body(carry, clock):
            key, _, state, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = (jax.random.bits(action_key, (num_envs,)) >> (32 - bits)).astype(jnp.int32)
            keys = (
                jax.vmap(jax.random.fold_in, (0, None))(lanes, clock)
                if one_split
                else jax.random.split(step_key, num_envs)
            )
            obs, state, reward, _, _, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
            return (key, obs, state, total + reward), None

        start = (key, obs, state, jnp.zeros(num_envs))
        return jax.lax.scan(body, start, jnp.arange(steps, dtype=jnp.uint32))[0][1:]

    return run


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine, date and versions."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
            "cores": os.cpu_count(),
            "cores_used": 1,
            "load": [round(value, 1) for value in os.getloadavg()],
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("jax", "gymnax", "numpy")},
        "runs": arguments.runs,
    }


def show(record: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    machine = record["machine"]
    table = Table(title=f"Million environment steps/s, one core of {machine['cpu']}, {record['date']}")
    for column in ("environment", "N", "variant"):
        table.add_column(column)
    for column in ("steps/s", "x gymnax", "compile s"):
        table.add_column(column, justify="right")
    for row in record["rows"]:
        speed, ratio = f"{row['speed']:.2f} M", f"{row['ratio_to_gymnax']:.2f}"
        table.add_row(row["env"], str(row["num_envs"]), row["variant"], speed, ratio, f"{row['compile_s']:.2f}")
        if row["variant"] == LABELS[-1]:
            table.add_section()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
