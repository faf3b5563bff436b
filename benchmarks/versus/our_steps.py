"""jaxrl's training at the settings of a row of throughput.py: `python our_steps.py ROW`."""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
from race import serve

import jaxrl

sys.path.insert(0, str(Path(__file__).parents[1]))
import throughput

work = throughput.ROWS[sys.argv[1]]()
held = [jax.jit(lambda key: work.run.warmup(work.run.init(key)))(jaxrl.key(0))]
program, compile_s = throughput.compiled(work.run, held[0], work.iterations)


def run(seed: int) -> dict[str, float]:
    began = time.perf_counter()
    held[0] = jax.block_until_ready(program(held[0]))[0]
    return {"steps_per_s": work.iterations * work.unroll * work.num_envs / (time.perf_counter() - began)}


serve({"compile_s": [compile_s], "versions": {name: version(name) for name in ("jax", "flax", "optax")}}, run)
