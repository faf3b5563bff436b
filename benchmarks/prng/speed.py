"""Time of the random numbers of a light environment: threefry against the others, in alternating runs.

    taskset -c 0 python benchmarks/prng/speed.py --out benchmarks/prng/speed.json

One run is a scan of STEPS steps over N lanes under vmap, each `key, sub = split(key)` and `uniform(sub)`.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from screen import candidate, machine

N, STEPS = 1024, 2000


def program(name: str):
    """A compiled `keys -> sum of draws`, and its keys."""

    def lane(key):
        key, sub = jax.random.split(key)
        return key, jax.random.uniform(sub)

    def step(carry, _):
        keys, total = carry
        keys, draw = jax.vmap(lane)(keys)
        return (keys, total + draw), None

    @jax.jit
    def run(keys):
        return jax.lax.scan(step, (keys, jnp.zeros(N)), length=STEPS)[0][1]

    keys = jax.random.split(jax.random.key(0, impl=candidate(name).impl), N)
    start = time.perf_counter()
    compiled = run.lower(keys).compile()
    return compiled, keys, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", nargs="+", default=["threefry2x32", "m3", "m2", "m1", "pcg2d"])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    programs = {name: program(name) for name in args.candidates}
    times = {name: [] for name in args.candidates}
    for turn in range(args.runs + 1):
        for name, (run, keys, _) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(keys))
            if turn:  # the first is warm-up
                times[name].append(time.perf_counter() - start)
    base = statistics.median(times[args.candidates[0]])
    report = {"machine": machine(), "load": os.getloadavg(), "lanes": N, "steps": STEPS, "results": {}}
    for name in args.candidates:
        median = statistics.median(times[name])
        report["results"][name] = {
            "ns_per_split_and_uniform": round(median / N / STEPS * 1e9, 3),
            "runs_s": [round(t, 5) for t in times[name]],
            "compile_s": round(programs[name][2], 3),
            f"times_faster_than_{args.candidates[0]}": round(base / median, 2),
        }
        print(name, {k: v for k, v in report["results"][name].items() if k != "runs_s"})
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
