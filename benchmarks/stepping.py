"""Environment steps a second on one CPU core: jaxrl against gymnax 1.0, in one process, in alternating runs.

Both go through the same plain driver, `vmap(env.step)` inside a scan: it splits one key for every
environment, draws random actions, carries observation and state and sums rewards. Each library has its own
default keys: `jaxrl.key`, threefry for gymnax. Beside it stands what leaner drivers of ours add.

    python benchmarks/stepping.py [--sizes 1 64 1024 16384] [--runs 5] [--out FILE.json]
"""

import argparse
import statistics
import time
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import gymnax
import jax
import jax.numpy as jnp

import jaxrl

STEPS = 2**21  # environment steps a timed run, at most; small N takes fewer
LABELS = ("gymnax", "jaxrl", "jaxrl, lean actions", "jaxrl, lean actions, one split")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 64, 1024, 16384])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/stepping.json")
    arguments = parser.parse_args()

    rows = [
        row
        for pair in (("CartPole-v1", "CartPole-v1"), ("FrozenLake-v1", "FrozenLake-misc"))
        for num_envs in arguments.sizes
        for row in compare(*pair, num_envs, arguments.runs)
    ]
    record = {
        "benchmark": "stepping",
        "unit": "million environment steps/s",
        **measure.circumstances("gymnax"),
        "runs": arguments.runs,
        "rows": rows,
    }
    show(record)
    measure.write(arguments.out, record)


def compare(ours: str, theirs: str, num_envs: int, runs: int) -> list[dict[str, Any]]:
    """One row a variant: the median speed over `runs` alternating runs and its ratio to gymnax's."""
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


def show(record: dict[str, Any]) -> None:
    """The table."""
    measure.table(
        f"Million environment steps/s, one core of {record['machine']['cpu']}, {record['date']}",
        ("environment", "N", "variant", "steps/s", "x gymnax", "compile s"),
        [
            (
                row["env"],
                str(row["num_envs"]),
                row["variant"],
                f"{row['speed']:.2f} M",
                f"{row['ratio_to_gymnax']:.2f}",
                f"{row['compile_s']:.2f}",
            )
            for row in record["rows"]
        ],
    )


if __name__ == "__main__":
    main()
