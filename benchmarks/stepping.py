"""Environment steps a second on one core or accelerator: jaxrl against gymnax, pgx, gymnasium, C, in alternating runs.

Everybody takes random actions, resets on its own and stores the trajectory: observation, action, reward, next
observation and ends.

* `rollout`: `jaxrl.rollout` against gymnax as its documents drive it: a scan over steps with a key of its own in
  each environment, vmapped. pgx: its `init` and `step` under its `auto_reset`, vmapped, in a scan.
* `plain`: one driver for both, `vmap(env.step)` in a scan that carries observation and state and sums rewards;
  pgx's the same without storing.
* gymnasium: `make_vec` with its numpy-vectorised CartPole. C: `native/*.c`, compiled with -O3 -march=native.

What bounds an environment is measured too: `launch` is a step of one environment as a share of a step of N (what
does not shrink with N), `memory` the share that making and storing observations takes, the rest is arithmetic.

    python benchmarks/stepping.py [--envs ID ...] [--num-envs 1024] [--runs 5] [--out FILE.json]
    JAX_PLATFORMS=cuda python benchmarks/stepping.py --num-envs 1024 16384 131072 1048576 --out FILE.json
"""

import argparse
import ctypes
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import measure  # first: it pins the process before jax starts its threads

# isort: split
import gymnax
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.envs.api import PureEnvironment, never

IDS = {  # ours -> gymnax's
    "CartPole-v1": "CartPole-v1",
    "MountainCar-v0": "MountainCar-v0",
    "MountainCarContinuous-v0": "MountainCarContinuous-v0",
    "Acrobot-v1": "Acrobot-v1",
    "Pendulum-v1": "Pendulum-v1",
    "FrozenLake-v1": "FrozenLake-misc",
    "Catch-bsuite": "Catch-bsuite",
    "DeepSea-bsuite": "DeepSea-bsuite",
    "Breakout-MinAtar": "Breakout-MinAtar",
    "Freeway-MinAtar": "Freeway-MinAtar",
    "SpaceInvaders-MinAtar": "SpaceInvaders-MinAtar",
    "Asterix-MinAtar": "Asterix-MinAtar",
    "Seaquest-MinAtar": "Seaquest-MinAtar",
}
PGX = {"Breakout-MinAtar": "minatar-breakout", "Asterix-MinAtar": "minatar-asterix"}
NATIVE = {"CartPole-v1": "cartpole", "Breakout-MinAtar": "breakout"}
STORED = 2**23  # bytes of trajectory a call, at most: beyond, fresh pages of memory are what one measures

Program = Callable[[], Any]  # takes the steps and returns when they are done


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(IDS), choices=list(IDS))
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1024])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of every timed run, at least")
    parser.add_argument("--out", default="benchmarks/results/stepping.json")
    arguments = parser.parse_args()

    accelerator = jax.default_backend() != "cpu"
    rows = []
    for env_id, num_envs in itertools.product(arguments.envs, arguments.num_envs):
        rows.append(compare(env_id, num_envs, arguments.runs, arguments.seconds, accelerator))
        print(f"{len(rows)}/{len(arguments.envs) * len(arguments.num_envs)}", env_id, num_envs, rows[-1]["ratio"])
    if not accelerator and "CartPole-v1" in arguments.envs:
        rows.append(compare_gymnasium(16384, arguments.runs, arguments.seconds))
    pools = compare_resets(arguments.num_envs[0], arguments.runs, arguments.seconds)
    record = {
        "benchmark": "stepping",
        "unit": "million environment steps/s",
        **measure.circumstances("gymnax", "pgx", "gymnasium"),
        "device": str(jax.devices()[0].device_kind),
        "runs": arguments.runs,
        "rows": rows,
        "resets": pools,
    }
    show(record)
    if not accelerator:
        print("no accelerator here: on one, the second command above makes the same table")
    measure.write(arguments.out, record)


def compare(env_id: str, num_envs: int, runs: int, seconds: float, accelerator: bool) -> dict[str, Any]:
    """The row of one environment: median speeds, their ratios, compile times, what bounds it."""
    env, params = jaxrl.make(env_id)
    obs = jax.eval_shape(lambda: env.reset(jaxrl.key(0), params)[0])
    stored = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(obs)) + 10
    steps = min(max(STORED // (num_envs * stored), 8), 128)
    theirs = gymnax.make(IDS[env_id])
    slow = env_id == "Seaquest-MinAtar" and not accelerator  # gymnax's takes seconds a call
    compiled = {
        "jaxrl": rollout(env, params, num_envs, steps),
        "jaxrl_plain": plain(env, params, jaxrl.key(0), num_envs, steps),
        "jaxrl_one": rollout(env, params, 1, 1024),
        "jaxrl_unkept": rollout(env, params, num_envs, steps, keep=False),
    }
    if not slow:
        compiled["gymnax"] = documented(*theirs, num_envs, steps)
        compiled["gymnax_plain"] = plain(*theirs, jax.random.key(0), num_envs, steps)
    if env_id in PGX and not accelerator:
        compiled["pgx"] = pgx(PGX[env_id], num_envs, steps)
        compiled["pgx_plain"] = pgx(PGX[env_id], num_envs, steps, keep=False)
    programs: dict[str, Program] = {name: program for name, (program, _) in compiled.items()}
    if env_id in NATIVE and not accelerator:
        programs["c"] = native(NATIVE[env_id], num_envs, steps, env.observation_space(params))
    size = {name: (1024 if name == "jaxrl_one" else num_envs * steps) for name in programs}
    speed = speeds(programs, size, runs, seconds)

    share = {
        "launch": min(speed["jaxrl"] / num_envs / speed["jaxrl_one"], 1.0),
        "memory": max(1 - speed["jaxrl"] / speed["jaxrl_unkept"], 0.0),
    }
    share["arithmetic"] = max(1 - sum(share.values()), 0.0)
    row: dict[str, Any] = {
        "env": env_id,
        "num_envs": num_envs,
        "speed": {name: round(value, 3) for name, value in speed.items()},
        "compile_s": {name: round(value, 2) for name, (_, value) in compiled.items()},
        "bytes_stored_a_step": stored,
        "stored_gb_s": round(speed["jaxrl"] * stored / 1e3, 2),
        "share": {name: round(value, 2) for name, value in share.items()},
        "bound": max(share, key=lambda name: share[name]),
    }
    pairs = {"gymnax": "jaxrl", "gymnax_plain": "jaxrl_plain", "pgx": "jaxrl", "pgx_plain": "jaxrl_plain", "c": "jaxrl"}
    row["ratio"] = {peer: round(speed[own] / speed[peer], 2) for peer, own in pairs.items() if peer in speed}
    if not slow:
        row["compile_ratio"] = round(row["compile_s"]["jaxrl"] / row["compile_s"]["gymnax"], 2)
    return row


def compare_gymnasium(num_envs: int, runs: int, seconds: float) -> dict[str, Any]:
    """CartPole at N against gymnasium's numpy-vectorised one; here nobody stores a trajectory."""
    import gymnasium

    envs = gymnasium.make_vec("CartPole-v1", num_envs=num_envs, vectorization_mode="vector_entry_point")
    envs.reset(seed=0)
    rng = np.random.default_rng(0)

    def numpy() -> None:
        for _ in range(8):
            envs.step(rng.integers(0, 2, num_envs))

    program, compile_s = rollout(*jaxrl.make("CartPole-v1"), num_envs, 8, keep=False)
    size = {"jaxrl": 8 * num_envs, "gymnasium": 8 * num_envs}
    speed = speeds({"jaxrl": program, "gymnasium": numpy}, size, runs, seconds)
    return {
        "env": "CartPole-v1",
        "num_envs": num_envs,
        "speed": {name: round(value, 3) for name, value in speed.items()},
        "compile_s": {"jaxrl": round(compile_s, 2)},
        "ratio": {"gymnasium": round(speed["jaxrl"] / speed["gymnasium"], 2)},
    }


class Field(NamedTuple):
    """A field of stones, drawn anew for each episode."""

    stones: jax.Array  # bool [1024]
    place: jax.Array  # int32 []
    time: jax.Array  # int32 []


class FieldParams(NamedTuple):
    max_steps_in_episode: int = 200


def field() -> PureEnvironment:
    """A walk until it meets one of ten stones: the reset sorts 1,024 numbers, the step draws none."""

    def reset(key, params):
        zero = jnp.zeros((), jnp.int32)
        return Field(jax.random.permutation(key, 1024) < 10, zero, zero)

    def step(key, state, action, params):
        place = (state.place + jnp.where(action == 0, 1, 32)) % 1024
        return state._replace(place=place), jnp.float32(1), state.stones[place]

    return PureEnvironment(
        "Field-v0",
        FieldParams(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=lambda state, params: state.place,
        observation_space_fn=lambda params: jaxrl.spaces.Discrete(1024),
        action_space_fn=lambda params: jaxrl.spaces.Discrete(2),
        splits_fn=never,
    )


def compare_resets(num_envs: int, runs: int, seconds: float) -> dict[str, Any]:
    """An expensive reset computed with every step, and drawn ahead into a pool."""
    env, steps, every = field(), 32, 16
    params, pool = env.default_params, num_envs // 4  # one episode in 100 steps ends: a sixth of them in 16 steps
    programs: dict[str, Program] = {}
    for name, size in (("fused", 0), ("pool", pool)):
        programs[name], _ = ready(
            lambda key, size=size: jaxrl.rollout(
                env, params, None, key, num_envs, steps, pool=size, refill_every=every
            ),
            jaxrl.key(0),
        )
    overflow = int(programs["pool"]().state.overflow)
    speed = speeds(programs, dict.fromkeys(programs, num_envs * steps), runs, seconds)
    return {
        "env": env.name,
        "num_envs": num_envs,
        "pool": pool,
        "refill_every": every,
        "speed": {name: round(value, 3) for name, value in speed.items()},
        "ratio": round(speed["pool"] / speed["fused"], 2),
        "overflow_share_of_resets": round(overflow / (num_envs * steps / 100), 4),
    }


def speeds(programs: dict[str, Program], size: dict[str, int], runs: int, seconds: float) -> dict[str, float]:
    """Million steps a second of each, the median of `runs` alternating rounds of at least `seconds` each."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(runs):
        for name, program in programs.items():
            calls, start = 0, time.perf_counter()
            while not calls or time.perf_counter() - start < seconds:
                program()
                calls += 1
            found[name].append(calls * size[name] / (time.perf_counter() - start) / 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


def ready(function: Any, *arguments: Any, compilations: int = 1) -> tuple[Program, float]:
    """A program that calls the compiled function, and the median of the seconds that tracing and compiling it take."""
    compiled, seconds = [], []
    for _ in range(compilations):
        jax.clear_caches()
        start = time.perf_counter()
        compiled.append(jax.jit(function).lower(*arguments).compile())
        seconds.append(time.perf_counter() - start)
    return lambda: jax.block_until_ready(compiled[-1](*arguments)), statistics.median(seconds)


def rollout(env: Any, params: Any, num_envs: int, steps: int, keep: bool = True) -> tuple[Program, float]:
    """`jaxrl.rollout` with its random policy; without `keep` only the last state and the rewards are made."""

    def run(key):
        found = jaxrl.rollout(env, params, None, key, num_envs, steps)
        return found if keep else (found.obs, found.state, found.trajectory.reward.sum())

    return ready(run, jaxrl.key(0), compilations=3 if keep else 1)


def documented(env: Any, params: Any, num_envs: int, steps: int) -> tuple[Program, float]:
    """gymnax by its own documents' rollout, random actions in place of a network."""

    def run(key):
        reset_key, key = jax.random.split(key)
        obs, state = env.reset(reset_key, params)

        def policy_step(carry, _):
            obs, state, key = carry
            key, step_key, action_key = jax.random.split(key, 3)
            action = env.action_space(params).sample(action_key)
            next_obs, state, reward, terminated, truncated, _ = env.step(step_key, state, action, params)
            return (next_obs, state, key), (obs, action, reward, next_obs, terminated, truncated)

        return jax.lax.scan(policy_step, (obs, state, key), length=steps)

    return ready(jax.vmap(run), jax.random.split(jax.random.key(0), num_envs), compilations=3)


def plain(env: Any, params: Any, key: Any, num_envs: int, steps: int) -> tuple[Program, float]:
    """The driver that both libraries share: nothing is stored."""
    space = env.action_space(params)

    def act(key):
        if hasattr(space, "n"):
            return jax.random.randint(key, (num_envs,), 0, space.n)
        return jax.random.uniform(key, (num_envs, *space.shape), minval=space.low, maxval=space.high)

    def run(key):
        key, reset_key = jax.random.split(key)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), params)

        def body(carry, _):
            key, _, state, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            keys = jax.random.split(step_key, num_envs)
            step = jax.vmap(env.step, (0, 0, 0, None))
            obs, state, reward, _, _, _ = step(keys, state, act(action_key), params)
            return (key, obs, state, total + reward), None

        return jax.lax.scan(body, (key, obs, state, jnp.zeros(num_envs)), length=steps)[0][1:]

    return ready(run, key)


def pgx(env_id: str, num_envs: int, steps: int, keep: bool = True) -> tuple[Program, float]:
    """pgx under its own auto-reset; sticky actions as it has them by default."""
    from pgx import make
    from pgx.experimental.wrappers import auto_reset

    env = make(env_id)  # type: ignore[arg-type] # a literal type of its own
    step = jax.vmap(auto_reset(env.step, env.init))

    def run(key):
        reset_key, key = jax.random.split(key)
        state = jax.vmap(env.init)(jax.random.split(reset_key, num_envs))

        def body(carry, _):
            state, key = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = jax.random.randint(action_key, (num_envs,), 0, env.num_actions)
            after = step(state, action, jax.random.split(step_key, num_envs))
            ends = after.terminated, after.truncated
            stored = (state.observation, action, after.rewards, after.observation, *ends) if keep else None
            return (after, key), stored

        return jax.lax.scan(body, (state, key), length=steps)

    return ready(run, jax.random.key(0))


def native(name: str, num_envs: int, steps: int, space: Any) -> Program:
    """The C loop, one call of the same number of steps into arrays allocated once."""
    source = Path(__file__).parent / "native" / f"{name}.c"
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/{name}.so"
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library, "-lm"], check=True)
        loaded = ctypes.CDLL(library)
    shape = (steps, num_envs)
    envs = np.zeros((num_envs, 64), np.uint8)  # no state is larger
    stored = [np.zeros((*shape, *space.shape), space.dtype) for _ in range(2)]
    stored += [np.zeros(shape, dtype) for dtype in (np.int32, np.float32, np.uint8, np.uint8)]
    getattr(loaded, f"{name}_reset")(pointer(envs), num_envs, 1)

    def program() -> None:
        getattr(loaded, f"{name}_run")(pointer(envs), num_envs, steps, *map(pointer, stored))

    return program


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Where its numbers are, for C."""
    return ctypes.c_void_p(array.ctypes.data)


def show(record: dict[str, Any]) -> None:
    """The tables."""

    def number(value: float | None, form: str = "{:.2f}") -> str:
        return "" if value is None else form.format(value)

    peers = ("gymnax", "gymnax_plain", "pgx", "pgx_plain", "c", "gymnasium")
    place = f"one core of {record['machine']['cpu']}" if record["device"] == "cpu" else record["device"]
    measure.table(
        f"Million environment steps/s, {place}, {record['date']}",
        (
            "environment",
            "N",
            "jaxrl",
            "gymnax",
            "ratio",
            "plain ratio",
            "pgx",
            "pgx plain",
            "C",
            "gymnasium",
            "compile",
        ),
        [
            (
                row["env"],
                str(row["num_envs"]),
                number(row["speed"]["jaxrl"]),
                number(row["speed"].get("gymnax")),
                *(number(row["ratio"].get(peer)) for peer in peers),
                number(row.get("compile_ratio")),
            )
            for row in record["rows"]
        ],
    )
    measure.table(
        "What bounds a step of N environments",
        ("environment", "N", "bound", "launch", "memory", "arithmetic", "stored GB/s"),
        [
            (
                row["env"],
                str(row["num_envs"]),
                row["bound"],
                *(number(row["share"][name], "{:.0%}") for name in ("launch", "memory", "arithmetic")),
                number(row["stored_gb_s"]),
            )
            for row in record["rows"]
            if "bound" in row
        ],
    )
    resets = record["resets"]
    print(
        f"an expensive reset: {resets['speed']['fused']:.2f} M steps/s computed with every step, "
        f"{resets['speed']['pool']:.2f} M from a pool of {resets['pool']}, {resets['ratio']:.1f} times"
    )


if __name__ == "__main__":
    main()
