"""Replay: what an add, a sample and an update cost, and what a stored step takes; jaxrl against flashbax.

Every operation runs in one jitted loop with the state donated, the two libraries in turn: N environments add a step,
256 windows of one step are sampled, 256 priorities are set, then all of it together. What is added differs from step
to step, and every sample is written out whole. flashbax's flat buffers store observation, action, reward and one
`done`, and hand out pairs of neighbours. Both libraries draw with jax's default keys. flashbax's prioritised buffer is
helped: see `theirs`; what it takes without help is in the JSON.

* `seeds`: eight vmapped buffers against eight single ones, one after the other.
* `gather`: a sample of packed booleans against a bare gather of as many bytes.
* `memory`: bytes a stored step, with as many slots for final observations as random play needs to lose none: the
  play is counted, then added, and the buffer's own counts say what was lost.

    python benchmarks/replay.py [--only NAME ...] [--num-envs 1024] [--rounds 7] [--quick] [--out FILE.json]
    JAX_PLATFORMS=cuda python benchmarks/replay.py --bandwidth 3350 --out FILE.json
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import flashbax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxrl
from jaxrl.types import Buffer, PyTree, Transition

BATCH, SEEDS = 256, 8
POOL = 4  # steps that are added in turn
BANDWIDTH = {"H200": 4800, "H100": 3350, "A100": 2039, "L40": 864, "A10": 600, "L4": 300}  # GB/s, by kind of device
BARS = {  # times as fast as flashbax, all operations together
    ("uniform", "4 float32", 2**20): 1.5,
    ("uniform", "10x10x4 bool", 2**20): 2.0,
    ("prioritized", "4 float32", 100_000): 5.0,
    ("prioritized", "4 float32", 2**20): 5.0,
    ("prioritized", "10x10x4 bool", 100_000): 5.0,
    ("prioritized", "10x10x4 bool", 2**20): 5.0,
}
SEEDS_BAR = 1.3  # times the eight single ones, at most
BYTES_BARS = {"Breakout-MinAtar": 64, "CartPole-v1": 28, "84x84x4 uint8": 7200}

Options = argparse.Namespace
Row = dict[str, Any]
Program = Callable[[int], None]  # runs an operation so many times, returns when that is done


class Case(NamedTuple):
    """A buffer to measure."""

    kind: str  # uniform or prioritized
    shape: tuple[int, ...]
    dtype: str
    capacity: int
    num_envs: int
    stack: int = 1  # frames in an observation

    @property
    def obs(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def operations(self) -> tuple[str, ...]:
        return ("add", "sample", *(("update",) if self.kind == "prioritized" else ()), "together")


class Replay(NamedTuple):
    """A buffer of either library."""

    init: Callable[[Transition], PyTree]  # (step [N])
    add: Callable[[PyTree, Transition, Array], PyTree]
    sample: Callable[[PyTree, Array, Array], tuple[PyTree, Array, Array]]  # -> what is handed out, index, priority
    update: Callable[[PyTree, Array, Array], PyTree]


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parts: dict[str, Callable[[Options], list[Row]]] = {
        "cartpole": lambda options: [speed(case, options) for case in grid((4,), "float32", options)],
        "minatar": lambda options: [speed(case, options) for case in grid((10, 10, 4), "bool", options)],
        "minatar_float": lambda options: [speed(large((10, 10, 4), "float32", options), options)],
        "pixels": lambda options: [speed(Case("uniform", (84, 84, 4), "uint8", options.pixels, 16, 4), options)],
        "seeds": lambda options: [
            seeds(case, options) for case in [*grid((4,), "float32", options), *grid((10, 10, 4), "bool", options)]
        ],
        "gather": lambda options: [gather(large((10, 10, 4), "bool", options), options)],
        "memory": lambda options: [
            played("Breakout-MinAtar", options),
            played("CartPole-v1", options),
            pixels(options),
        ],
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(parts), choices=list(parts), metavar="NAME")
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="of every timed run, about")
    parser.add_argument("--quick", action="store_true", help="small capacities, two rounds: does it run?")
    parser.add_argument("--bandwidth", type=float, help="of the device's memory in GB/s, where it is not known")
    parser.add_argument("--out", default="benchmarks/results/replay.json")
    options = parser.parse_args()
    options.capacities, options.pixels = (100_000, 2**20), 2**17
    if options.quick:
        options.capacities, options.pixels, options.rounds, options.seconds = (2**13, 2**14), 2**10, 2, 0.01
    device = str(jax.devices()[0].device_kind)
    record: dict[str, Any] = {
        "benchmark": "replay",
        **measure.circumstances("flashbax"),
        "device": device,
        "bandwidth_gb_s": options.bandwidth or next((gb for name, gb in BANDWIDTH.items() if name in device), None),
        "clock": "process time" if jax.default_backend() == "cpu" else "wall time",
        "rounds": options.rounds,
        "batch": BATCH,
    }
    for name in options.only:
        start = time.perf_counter()
        record[name] = parts[name](options)
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    show(record)
    measure.write(options.out, record)


def grid(shape: tuple[int, ...], dtype: str, options: Options) -> list[Case]:
    """Both kinds at both capacities."""
    kinds = ("uniform", "prioritized")
    return [Case(kind, shape, dtype, size, options.num_envs) for kind in kinds for size in options.capacities]


def large(shape: tuple[int, ...], dtype: str, options: Options) -> Case:
    """Uniform at the larger capacity."""
    return Case("uniform", shape, dtype, options.capacities[-1], options.num_envs)


def ours(case: Case) -> Replay:
    """jaxrl's buffer."""
    buffer = make(case)

    def sample(state, key, clock):
        drawn = buffer.sample(state, key, clock)
        return drawn, drawn.index, drawn.window.reward[:, 0]

    return Replay(buffer.init, buffer.add, sample, buffer.update)


def make(case: Case, **settings: Any) -> Buffer:
    """jaxrl's buffer itself."""
    factory = {"uniform": jaxrl.uniform, "prioritized": jaxrl.prioritized}[case.kind]
    if case.stack > 1:
        settings["stack"] = case.stack
    return factory(case.capacity, BATCH, case.num_envs, **settings)


def theirs(case: Case, ordered: bool = True) -> Replay:
    """flashbax's flat buffer; its `device` is the one we run on, the only one that it accepts on a CPU.

    `ordered`: the priorities that are set wait for the probabilities that were drawn by. As one writes it they do not,
    and XLA copies the tree, whose old sums it may yet need.
    """
    weighted = case.kind == "prioritized"
    make_it: Any = flashbax.make_flat_buffer
    if weighted:
        make_it = partial(flashbax.make_prioritised_flat_buffer, device=jax.default_backend())
    buffer = make_it(case.capacity, BATCH, BATCH, add_batch_size=case.num_envs)

    def entry(step: Transition) -> dict[str, Any]:
        done = step.terminated | step.truncated
        return {"obs": step.obs, "action": step.action, "reward": step.reward, "done": done}

    def sample(state, key, clock):
        del clock
        drawn = buffer.sample(state, key)
        reward = drawn.experience.first["reward"]
        if not weighted:
            return drawn, jnp.zeros(BATCH, jnp.int32), reward
        return drawn, drawn.indices, jnp.where(drawn.probabilities >= 0, reward, 0) if ordered else reward

    return Replay(
        init=lambda step: buffer.init(jax.tree.map(lambda x: x[0], entry(step))),
        add=lambda state, step, clock: buffer.add(state, entry(step)),
        sample=sample,
        update=buffer.set_priorities if weighted else lambda state, index, priority: state,
    )


def vmapped(replay: Replay) -> Replay:
    """As many buffers as SEEDS; the clock is one for all."""
    sample = jax.vmap(replay.sample, (0, 0, None))
    return Replay(
        init=jax.vmap(replay.init),
        add=jax.vmap(replay.add, (0, 0, None)),
        sample=lambda state, key, clock: sample(state, jax.random.split(key, SEEDS), clock),
        update=jax.vmap(replay.update),
    )


def recorded(case: Case, *leading: int) -> Transition:
    """Steps [POOL, ..., N] to add in turn: one in 32 ends an episode, a quarter of these by a limit."""
    rng = np.random.default_rng(0)
    shape = (POOL, *leading, case.num_envs)
    obs = rng.integers(0, 255, (*shape, *case.shape), np.uint8)
    obs = obs < 64 if case.dtype == "bool" else obs.astype(case.dtype)
    ends = rng.random(shape)
    return Transition(
        obs=jnp.asarray(obs),
        action=jnp.asarray(rng.integers(0, 4, shape, np.int32)),
        reward=jnp.asarray(rng.random(shape, np.float32)),
        terminated=jnp.asarray((ends < 1 / 32) & (ends >= 1 / 128)),
        truncated=jnp.asarray(ends < 1 / 128),
        next_obs=jnp.asarray(np.roll(obs, -1, axis=0)),
    )


class Bench:
    """A buffer and its programs, which take its state and give it back."""

    def __init__(self, replay: Replay, case: Case, pool: Transition):
        self.replay, self.pool, self.clock = replay, pool, 0
        self.state = jax.jit(replay.init)(jax.tree.map(lambda x: x[0], pool))
        batch = jax.eval_shape(replay.sample, self.state, jax.random.key(0), jnp.int32(0))
        self.batch = blank(batch)
        self.program("add")(1 - -case.capacity // case.num_envs)  # full, and round once

    def program(self, op: str, compiled: Any = None) -> Program:
        """Runs an operation n times; `compiled` is another buffer's `loop` for the same."""
        run = compiled or loop(self.replay, op)
        chosen = None
        if op == "update":
            keys = jax.random.split(jax.random.key(1), POOL)
            _, *chosen = jax.jit(jax.vmap(self.replay.sample, (None, 0, None)))(self.state, keys, self.clock)

        def call(n: int) -> None:
            found = run(self.state, self.batch, self.pool, chosen, jnp.int32(self.clock), jnp.int32(n))
            self.state, self.batch = jax.block_until_ready(found)
            self.clock += n if op in ("add", "together") else 0

        return call


def loop(replay: Replay, op: str) -> Callable[..., tuple[PyTree, PyTree]]:
    """(state, batch, pool, chosen, clock, n) -> (state, batch): n times an operation."""

    def run(state, batch, pool, chosen, clock, n):
        def once(i, carry):
            state, batch = carry
            seen = clock
            if op in ("add", "together"):
                state = replay.add(state, jax.tree.map(lambda x: x[i % POOL], pool), clock + i)
                seen = clock + i + 1
            if op in ("sample", "together"):
                batch = replay.sample(state, jax.random.fold_in(jax.random.key(0), clock + i), seen)
            if op == "update":
                state = replay.update(state, *jax.tree.map(lambda x: x[i % POOL], chosen))
            if op == "together":
                state = replay.update(state, *batch[1:])
            return state, batch

        return jax.lax.fori_loop(0, n, once, (state, batch))

    return jax.jit(run, donate_argnums=(0, 1))


def timed(programs: list[Program], options: Options) -> list[list[float]]:
    """Microseconds an operation of each program in each round; a round runs every program once."""
    calls = [repeats(program, options.seconds) for program in programs]
    found: list[list[float]] = [[] for _ in programs]
    for _ in range(options.rounds):
        for program, n, times in zip(programs, calls, found, strict=True):
            times.append(1e6 * took(program, n) / n)
    return found


def repeats(program: Program, seconds: float) -> int:
    """How many operations take about so long, once the program is compiled and warm."""
    n, least = 1, 0.0
    while least < seconds / 4:
        n *= 4
        program(n)
        least = min(took(program, n) for _ in range(2))  # a hiccup must not end the search
    return math.ceil(n * seconds / least)


def took(program: Program, n: int) -> float:
    """Seconds: of our own work where that is on the one core that others may use too."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    program(n)
    return clock() - start


def ratio(above: list[float], below: list[float]) -> float:
    """The median over rounds."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 2)


def speed(case: Case, options: Options) -> Row:
    """Microseconds of every operation, and how many times as long flashbax takes."""
    pool = recorded(case)
    benches = [Bench(side(case), case, pool) for side in (ours, theirs)]
    row: Row = {**described(case), "stack": case.stack, "jaxrl_us": {}, "flashbax_us": {}, "ratio": {}}
    for op in case.operations:
        own, peer = timed([bench.program(op) for bench in benches], options)
        row["jaxrl_us"][op], row["flashbax_us"][op] = median(own), median(peer)
        row["ratio"][op] = ratio(peer, own)
    if case.kind == "prioritized":
        written = Bench(theirs(case, ordered=False), case, pool).program("together")
        row["flashbax_as_written_us"] = median(timed([written], options)[0])
    row["bar"] = BARS.get((case.kind, case.obs, case.capacity))
    row["gb_s"] = {
        name: round(moved(bench, case) / row[f"{name}_us"]["together"] / 1e3, 2)
        for name, bench in zip(("jaxrl", "flashbax"), benches, strict=True)
    }
    print(case.kind, case.obs, case.capacity, row["jaxrl_us"], row["ratio"])
    return row


def moved(bench: Bench, case: Case) -> float:
    """Bytes that all operations together move at least: added steps in and out, drawn ones read and handed out."""
    stored = nbytes(bench.state) / case.capacity
    return stored * (2 * case.num_envs + BATCH) + nbytes(bench.batch)


def seeds(case: Case, options: Options) -> Row:
    """The time of SEEDS vmapped buffers as a multiple of as many single ones', all operations together."""
    pool = recorded(case, SEEDS)
    row: Row = {**described(case), "ratio": {}, "bar": SEEDS_BAR}
    for name, side in (("jaxrl", ours), ("flashbax", theirs)):
        replay = side(case)
        if SEEDS * nbytes(jax.eval_shape(replay.init, jax.tree.map(lambda x: x[0, 0], pool))) > 2**31:
            continue  # as much again for the single ones
        together = Bench(vmapped(replay), case, pool).program("together")
        compiled = loop(replay, "together")
        alone = [
            Bench(replay, case, jax.tree.map(lambda x, i=i: x[:, i], pool)).program("together", compiled)
            for i in range(SEEDS)
        ]

        def one_by_one(n: int, alone: list[Program] = alone) -> None:
            for program in alone:
                program(n)

        at_once_us, one_by_one_us = timed([together, one_by_one], options)
        row["ratio"][name] = ratio(at_once_us, one_by_one_us)
        row[f"{name}_us"] = {"vmapped": median(at_once_us), "single": median(one_by_one_us)}
    print("seeds", case.kind, case.obs, case.capacity, row["ratio"])
    return row


def gather(case: Case, options: Options) -> Row:
    """A sample of booleans, and the bare gather of its packed observations: two rows of bytes a window."""
    bench = Bench(ours(case), case, recorded(case))
    rows = -(-case.capacity // case.num_envs)
    packed = jnp.zeros((rows + 1, case.num_envs, -(-math.prod(case.shape) // 8)), jnp.uint8)

    def bare(read: Callable[[Array, Array, Array], PyTree]) -> Program:
        @partial(jax.jit, donate_argnums=1)
        def run(packed, out, n):
            def once(i, _):
                key = jax.random.fold_in(jax.random.key(0), i)
                draw = jax.random.randint(key, (BATCH,), 0, rows * case.num_envs)
                return read(packed, draw // case.num_envs, draw % case.num_envs)

            return jax.lax.fori_loop(0, n, once, out)

        index = jnp.zeros(BATCH, jnp.int32)
        held = [blank(jax.eval_shape(read, packed, index, index))]

        def call(n: int) -> None:
            held[0] = jax.block_until_ready(run(packed, held[0], n))

        return call

    def both(packed: Array, row: Array, lane: Array) -> list[Array]:
        return [packed.at[at, lane].get(mode="promise_in_bounds") for at in (row, row + 1)]

    programs = [bench.program("sample"), bare(both), bare(lambda packed, row, lane: (row, lane))]
    sample, gathered, drawn = timed(programs, options)
    found = {"sample_us": sample, "gather_us": gathered, "draw_us": drawn}
    return {
        **described(case),
        **{name: median(times) for name, times in found.items()},
        "ratio": ratio(sample, gathered),
    }


def played(env_id: str, options: Options) -> Row:
    """Bytes a stored step of an environment under random play, and the windows that its `ends` lost."""
    env, params = jaxrl.make(env_id)
    num_envs, rows, block = options.num_envs, -(-options.capacities[-1] // options.num_envs), 16
    space = env.observation_space(params)
    case = Case("uniform", space.shape, str(np.dtype(space.dtype)), rows * num_envs, num_envs)

    @jax.jit
    def play(start, key):
        found = jaxrl.rollout(env, params, None, key, num_envs, block, start=start)
        return (found.obs, found.state), found.trajectory

    def blocks():
        first, *keys = jax.random.split(jaxrl.key(0), 1 + 3 * -(-rows // block))
        start = jax.vmap(env.reset, (0, None))(jax.random.split(first, num_envs), params)
        for key in keys:
            start, trajectory = play(start, key)
            yield trajectory

    ends = np.concatenate([np.sum(steps.terminated | steps.truncated, axis=1) for steps in blocks()])
    most = np.convolve(ends, np.ones(rows), "valid").max() / case.capacity
    share = math.ceil(1000 * most) / 1000

    def lost(ends: float) -> dict[str, int]:
        buffer = make(case, ends=ends)

        @partial(jax.jit, donate_argnums=0)
        def fill(state, clock, trajectory):
            def add(carry, step):
                state, clock = carry
                return (buffer.add(state, step, clock), clock + 1), None

            return jax.lax.scan(add, (state, clock), trajectory)[0]

        state, clock = None, jnp.int32(0)
        for trajectory in blocks():
            if state is None:
                state = jax.jit(buffer.init)(jax.tree.map(lambda x: x[0], trajectory))
            state, clock = fill(state, clock, trajectory)
        return {name: int(count) for name, count in buffer.counts(state).items()}

    return {
        "env": env_id,
        "ends_a_step": round(float(ends.mean()) / num_envs, 4),
        "ends_at_most": round(float(most), 4),
        "steps_played": ends.size * num_envs,
        "counts": lost(share),
        "counts_at_half": lost(share / 2),
        **size(case, ends=share),
        "bar": BYTES_BARS[env_id],
    }


def pixels(options: Options) -> Row:
    """Bytes a stored step of pictures in stacks of four, if one step in 100 ends an episode."""
    case = Case("uniform", (84, 84, 4), "uint8", options.capacities[-1], options.num_envs, 4)
    return {"env": case.obs, "assumed_ends_a_step": 0.01, **size(case, ends=0.01), "bar": BYTES_BARS[case.obs]}


def size(case: Case, ends: float) -> Row:
    """Bytes a stored step in either library; nothing is allocated."""

    def leaf(dtype: str, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((case.num_envs, *shape), np.dtype(dtype))

    obs = leaf(case.dtype, *case.shape)
    step = Transition(obs, leaf("int32"), leaf("float32"), leaf("bool"), leaf("bool"), obs)
    own = make(case, ends=ends).nbytes(step) / case.capacity
    peer = nbytes(jax.eval_shape(theirs(case).init, step)) / case.capacity
    return {**described(case), "ends": ends, "jaxrl_bytes": round(own, 2), "flashbax_bytes": round(peer, 2)}


def nbytes(tree: PyTree) -> int:
    """Of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def blank(tree: PyTree) -> PyTree:
    """Zeros of the same shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def described(case: Case) -> Row:
    """What was measured, for the record."""
    return {"replay": case.kind, "obs": case.obs, "capacity": case.capacity, "num_envs": case.num_envs}


def median(times: list[float]) -> float:
    return round(statistics.median(times), 1)


def show(record: dict[str, Any]) -> None:
    """The tables."""
    place = f"one core of {record['machine']['cpu']}" if record["device"] == "cpu" else record["device"]
    rows = [row for part in ("cartpole", "minatar", "minatar_float", "pixels") for row in record.get(part, [])]
    columns = ("replay", "observation", "held")

    def of(row: Row) -> tuple[str, ...]:
        return row["replay"], row["obs"], f"{row['capacity']:,}"

    def pair(row: Row, op: str) -> str:
        return f"{row['jaxrl_us'][op]:,.0f}/{row['flashbax_us'][op]:,.0f}" if op in row["ratio"] else ""

    operations = ("add", "sample", "update", "together")
    if rows:
        measure.table(
            f"Microseconds, jaxrl / flashbax, {place}, {record['date']}; sample and update: {BATCH}",
            (*columns, "N", *operations, "ratio", "bar"),
            [
                (
                    *of(row),
                    str(row["num_envs"]),
                    *(pair(row, op) for op in operations),
                    f"{row['ratio']['together']:.2f}",
                    f">= {row['bar']}" if row["bar"] else "",
                )
                for row in rows
            ],
        )
    if "seeds" in record:
        measure.table(
            f"{SEEDS} vmapped buffers, as a multiple of the time of {SEEDS} single ones",
            (*columns, "jaxrl", "bar", "flashbax"),
            [
                (
                    *of(row),
                    f"{row['ratio']['jaxrl']:.2f}",
                    f"<= {row['bar']}",
                    f"{row['ratio']['flashbax']:.2f}" if "flashbax" in row["ratio"] else "",
                )
                for row in record["seeds"]
            ],
        )
    for row in record.get("gather", []):
        print(
            f"a sample of {row['obs']} takes {row['ratio']} times the bare gather of its packed bytes: "
            f"{row['sample_us']} us, {row['gather_us']} us, {row['draw_us']} us of these to draw"
        )
    if "memory" in record:
        measure.table(
            "Bytes a stored step",
            ("environment", "held", "ends", "lost", "lost at half", "jaxrl", "bar", "flashbax"),
            [
                (
                    row["env"],
                    f"{row['capacity']:,}",
                    f"{row['ends']:.3f}",
                    *(f"{sum(row[name].values()):,}" if name in row else "" for name in ("counts", "counts_at_half")),
                    f"{row['jaxrl_bytes']:,.1f}",
                    f"<= {row['bar']:,}",
                    f"{row['flashbax_bytes']:,.1f}",
                )
                for row in record["memory"]
            ],
        )
    if record["bandwidth_gb_s"] and rows:
        measure.table(
            f"GB/s at least that all operations together move, and their share of {record['bandwidth_gb_s']:,.0f}",
            (*columns, "jaxrl", "share", "flashbax", "share"),
            [
                (
                    *of(row),
                    *(
                        shown
                        for gb_s in row["gb_s"].values()
                        for shown in (f"{gb_s:,.1f}", f"{gb_s / record['bandwidth_gb_s']:.0%}")
                    ),
                )
                for row in rows
            ],
        )
    if record["device"] == "cpu":
        print("no GPU here: on one, the second command above makes the same tables and the share of its bandwidth")


if __name__ == "__main__":
    main()
