"""Statistical screen of key implementations: avalanche, collisions, and five streams piped into dieharder.

    python screen.py quick --out quick.json                        # avalanche and collisions, every candidate
    python screen.py run --candidate m3 --stream lanes --out m3-lanes.json
    python screen.py feed --candidate m3 --stream one_key | dieharder -a -g 200 | tee m3-one_key.txt
    python screen.py merge quick.json m3-lanes.json m3-one_key.txt ... --out results.json

The streams are made by jitted jax and go into dieharder as raw uint32. See README.md beside this file.
"""

import argparse
import datetime
import fcntl
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from jaxrl import prng

U = np.uint32
BLOCK = 1 << 20  # words a device call


# -- candidates, by rising cost --------------------------------------------------------------------


def m1(k0, k1, weyl, domain):
    """One multiplication a word; here to show that the screen has teeth."""
    x = k0 + weyl
    x = (x ^ (x >> U(16))) * U(0x7FEB352D)
    x = x + (k1 ^ domain)
    y = (x ^ (x >> U(15))) + k0
    return x ^ (x >> U(16)), y


def m2(k0, k1, weyl, domain):
    """Two multiplications for a draw, three for a key."""
    x = k0 + weyl
    x = (x ^ (x >> U(16))) * U(0x7FEB352D)
    y = k1 + (x ^ (weyl ^ domain))
    y = (y ^ (y >> U(15))) * U(0x846CA68B)
    y = y ^ (y >> U(16))
    x = x + y
    x = (x ^ (x >> U(16))) * U(0xAC4C1B51)
    return y, x ^ (x >> U(15))


def pcg2d(k0, k1, weyl, domain):
    """Jarzynski & Olano 2020, https://jcgt.org/published/0009/03/02/, on (k0 + counter, k1 ^ domain)."""
    a, c = U(1664525), U(1013904223)
    x, y = (k0 + weyl) * a + c, (k1 ^ domain) * a + c
    for _ in range(2):
        x = x + y * a
        y = y + x * a
        x, y = x ^ (x >> U(16)), y ^ (y >> U(16))
    return x, y


BLOCKS = {"m1": m1, "m2": m2, "m3": prng.block, "pcg2d": pcg2d}  # m3 is what jaxrl ships


class Candidate(NamedTuple):
    impl: Any  # what jax.random.key takes
    words: Callable  # (key words [2], start, n) -> uint32 [n], what bits(key, (start + n,))[start:] gives


def candidate(name: str) -> Candidate:
    if name == "threefry2x32":

        def words(data, start, n):
            count = start + jnp.arange(n, dtype=jnp.uint32)
            out = threefry_2x32((data[0], data[1]), jnp.stack([jnp.zeros_like(count), count]).reshape(-1))
            return out[:n] ^ out[n:]

        return Candidate(name, words)
    block = BLOCKS[name]

    def words(data, start, n):
        count = start + jnp.arange(n, dtype=jnp.uint32)
        return block(data[0], data[1], count * U(0x9E3779B9), prng._DRAW)[0]

    return Candidate(prng.IMPL if name == "m3" else prng.implementation(block, f"screen-{name}", name), words)


# -- streams: endless uint32 blocks ----------------------------------------------------------------


def one_key(c: Candidate, seed: int) -> Iterator[Any]:
    """(1) One key's bits, in order; after all of its 2**32 words the next seed's key."""
    words = jax.jit(partial(c.words, n=BLOCK))
    head = jax.random.bits(jax.random.key(seed, impl=c.impl), (4096,))
    data = jax.random.key_data(jax.random.key(seed, impl=c.impl))
    assert (words(data, U(0))[:4096] == head).all(), "words() is not what jax.random.bits draws"
    while True:
        data = jax.random.key_data(jax.random.key(seed, impl=c.impl))
        for start in range(0, 2**32, BLOCK):
            yield words(data, U(start))
        seed += 1


def lanes(c: Candidate, seed: int) -> Iterator[Any]:
    """(2) 1,024 lanes, each `key, sub = split(key)`, one word from each sub; the lanes interleaved."""

    @jax.jit
    def block(keys):
        def step(keys, _):
            pair = jax.vmap(jax.random.split)(keys)
            return pair[:, 0], jax.vmap(jax.random.bits)(pair[:, 1])

        keys, words = jax.lax.scan(step, keys, length=BLOCK // 1024)
        return keys, words.reshape(-1)

    keys = jax.random.split(jax.random.key(seed, impl=c.impl), 1024)
    while True:
        keys, words = block(keys)
        yield words


def tree(c: Candidate, seed: int) -> Iterator[Any]:
    """(3) The leaves, left to right, of the binary tree of splits, 34 deep; one word from each."""

    def descend(key, path, depth):
        for level in reversed(range(depth)):
            key = jax.random.split(key)[path >> U(level) & U(1)]
        return key

    @jax.jit
    def block(root, number):
        key = descend(root, number, 14)[None]
        for _ in range(20):
            key = jax.vmap(jax.random.split)(key).reshape(-1)
        return jax.vmap(jax.random.bits)(key)

    while True:
        root = jax.random.key(seed, impl=c.impl)
        for number in range(1 << 14):
            yield block(root, U(number))
        seed += 1


def _passes(word: Callable) -> Iterator[Any]:
    """Word `p` of every one of 2**32 keys, for p = 0, 1, ..."""

    @partial(jax.jit, static_argnums=1)
    def block(start, p):
        return jax.vmap(lambda n: word(n, p))(start + jnp.arange(BLOCK, dtype=jnp.uint32))

    p = 0
    while True:
        for start in range(0, 2**32, BLOCK):
            yield block(U(start), p)
        p += 1


def fold_in(c: Candidate, seed: int) -> Iterator[Any]:
    """(4) fold_in(key, 0), fold_in(key, 1), ...; one word from each."""
    root = jax.random.key(seed, impl=c.impl)
    return _passes(lambda n, p: jax.random.bits(jax.random.fold_in(root, n), (p + 1,))[p])


def seeds(c: Candidate, seed: int) -> Iterator[Any]:
    """(5) key(0), key(1), ...; one word from each. A `seed` other than 0 starts elsewhere among the 2**32."""
    first = U(seed * 0x1F123BB5 % 2**32)
    return _passes(lambda n, p: jax.random.bits(jax.random.key(n + first, impl=c.impl), (p + 1,))[p])


STREAMS = {"one_key": one_key, "lanes": lanes, "tree": tree, "fold_in": fold_in, "seeds": seeds}

# -- dieharder -------------------------------------------------------------------------------------

# (test, options, p-samples): every test that `dieharder -l` calls Good, none so large as to crowd out others.
# Either 1 p-sample or at least 10: dieharder's Kolmogorov-Smirnov step calls 2 p-values FAILED, with p = 1, one
# time in seventeen.
TESTS = (
    *((d, "", 100) for d in (0, 1, 3, 4, 8, 9, 10, 11, 12, 13, 15, 16)),
    (2, "", 50),
    (17, "", 10),
    *((d, "", 100) for d in (100, 101, 102)),
    *((200, f"-n {n}", p) for n, p in ((2, 100), (4, 100), (8, 50))),
    *((201, f"-n {n}", 400) for n in (2, 5)),
    *((202, f"-n {n}", 100) for n in (2, 3, 4, 5)),
    *((203, f"-n {n}", p) for n, p in ((3, 100), (31, 20))),
    (204, "", 1000),
    *((d, "", 1) for d in (205, 206, 207, 208, 209)),
)


COLUMNS = ("test", "ntuple", "tsamples", "psamples", "p", "assessment")


def table(text: str) -> list[list]:
    """The rows of a dieharder table, in the order of `COLUMNS`."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= 6 and cells[1].isdigit():
            rows.append([cells[0], *map(int, cells[1:4]), float(cells[4]), cells[5]])
    return rows


def dieharder(options: str, blocks: Iterator[Any]) -> tuple[list[list], int]:
    """The table of one dieharder process, fed from `blocks`, and how many words went into its pipe."""
    shown = "-D test_name -D ntuple -D tsamples -D psamples -D pvalues -D assessment"
    command = ["dieharder", "-g", "200", "-c", "|", *shown.split(), *options.split()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    fcntl.fcntl(process.stdin, 1031, 1 << 20)  # F_SETPIPE_SZ: fewer context switches
    sent = 0
    try:
        for block in blocks:
            process.stdin.write(np.asarray(block).data)
            sent += BLOCK
    except BrokenPipeError:
        pass
    rows = table(process.stdout.read().decode())
    if process.wait() != 0 or not rows:
        raise RuntimeError(f"dieharder {options} ended with {process.returncode} and {len(rows)} rows")
    return rows, sent


def machine() -> dict:
    """What a reader must know to compare."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    listing = subprocess.run(["dieharder", "-l"], capture_output=True, text=True).stdout
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "dieharder": listing.split("dieharder version ")[1].split()[0],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}, virtual machine shared with other work",
    }


def run_stream(name: str, stream: str, seed: int, scale: int, only: list[int], out: Path) -> None:
    """Every test on one stream; WEAK and FAILED again with ten times the samples and another seed.

    Each test goes on where the one before it stopped reading. A second FAILED rejects and ends the run.
    """
    c = candidate(name)
    blocks = STREAMS[stream](c, seed)
    report: dict = {"candidate": name, "stream": stream, "seed": seed, "scale": scale, "machine": machine()}
    report |= {"verdict": "unfinished", "seconds": 0.0, "cpu_seconds": 0.0, "tests": []}
    began = time.time()
    for test, more, samples in (row for row in TESTS if not only or row[0] in only):
        options = f"-d {test} {more} -p {samples * scale}"
        start = time.time()
        rows, sent = dieharder(options, blocks)
        entry = {"options": options, "words": sent, "seconds": round(time.time() - start, 1), "rows": rows}
        if any(row[-1] != "PASSED" for row in rows):
            options = f"-d {test} {more} -p {10 * samples * scale}"
            again, _ = dieharder(options, STREAMS[stream](c, seed + 1000))
            entry["again"] = {"options": options, "seed": seed + 1000, "rows": again}
            if any(row[-1] == "FAILED" for row in again):
                report["verdict"] = "rejected"
        report["tests"].append(entry)
        report["seconds"] = round(time.time() - began, 1)
        report["cpu_seconds"] = round(sum(os.times()[:4]), 1)  # dieharder's and the generator's
        print(name, stream, entry, flush=True)
        out.write_text(json.dumps(report))
        if report["verdict"] == "rejected":
            break
    else:
        report["verdict"] = "passed"
    out.write_text(json.dumps(report))
    print(name, stream, report["verdict"], report["seconds"], flush=True)


# -- avalanche and collisions ----------------------------------------------------------------------


def avalanche(c: Candidate, samples: int = 1 << 16) -> dict:
    """How far from 1/2 a flip of one bit of key or counter flips one bit of a draw, or of a folded key."""

    def draw(data, counter):
        return c.words(data, counter, 1)

    def fold(data, counter):
        key = jax.random.wrap_key_data(data, impl=c.impl)
        return jax.random.key_data(jax.random.fold_in(key, counter))

    state = np.random.default_rng(0).integers(0, 2**32, (samples, 3), dtype=U)
    report = {}
    for name, function in (("draw", draw), ("fold_in", fold)):

        def bits(state, function=function):
            words = jax.vmap(lambda row: function(row[:2], row[2]))(state)
            return words[..., None] >> jnp.arange(32, dtype=jnp.uint32) & U(1)

        @jax.jit
        def flips(state, flip, bits=bits):
            return (bits(state) ^ bits(state ^ flip)).mean(0)

        cells = []
        for word, bit in itertools.product(range(3), range(32)):
            cells.append(np.asarray(flips(state, U(1 << bit) * (np.arange(3) == word).astype(U))) - 0.5)
        report[f"{name}_largest"] = round(float(np.abs(cells).max()), 4)
        report[f"{name}_rms"] = round(float(np.sqrt(np.square(cells).mean())), 5)
    return report | {"samples": samples, "rms_of_chance": round(0.5 / samples**0.5, 5)}


def collisions(c: Candidate, words: int = 1 << 23) -> dict:
    """Repeats among the first words of one key; a generator that is a bijection of its counter has none."""
    drawn = jax.random.bits(jax.random.key(0, impl=c.impl), (words,))
    repeats = words - len(np.unique(np.asarray(drawn)))
    expected = words - 2**32 * -np.expm1(words * np.log1p(-(2.0**-32)))
    return {"words": words, "repeats": repeats, "expected": round(expected, 1)}


def quick(out: Path) -> None:
    """Both for every candidate. Rejected: a bias above 0.02, or repeats over 6 standard deviations off."""
    report: dict = {"machine": machine(), "quick": {}}
    for name in (*BLOCKS, "threefry2x32"):
        c = candidate(name)
        row: dict = {"avalanche": avalanche(c), "collisions": collisions(c)}
        off = abs(row["collisions"]["repeats"] - row["collisions"]["expected"])
        biased = max(row["avalanche"][k] for k in ("draw_largest", "fold_in_largest")) > 0.02
        row["verdict"] = "rejected" if biased or off > 6 * row["collisions"]["expected"] ** 0.5 else "passed"
        report["quick"][name] = row
        print(name, row, flush=True)
    out.write_text(json.dumps(report))


# -- results ---------------------------------------------------------------------------------------


def lines(value: Any, depth: int = 0) -> str:
    """JSON with a line for every test, so that a change of results can be read as a diff."""
    text = json.dumps(value)
    if not isinstance(value, dict | list) or len(text) < 160 or depth > 6:
        return text
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(key)}: {lines(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(pad + lines(item, depth + 1) for item in value) + "\n" + " " * depth + "]"


def merge(parts: list[Path], out: Path) -> None:
    """One committed file from the files of `quick`, `run` and speed.py, and from tables of `dieharder -a`."""
    merged: dict = {"columns": COLUMNS, "machine": {}, "quick": {}, "screen": {}, "battery": {}, "speed": {}}
    for part in parts:
        if part.suffix == ".txt":
            rows = table(part.read_text())
            count = {kind: sum(row[-1] == kind for row in rows) for kind in ("PASSED", "WEAK", "FAILED")}
            merged["battery"][part.stem] = {"options": "-a"} | count | {"rows": rows}
            continue
        report = json.loads(part.read_text())
        merged["machine"] = report.pop("machine")
        if "quick" in report:
            merged["quick"] = report["quick"]
        elif "stream" in report:
            streams = merged["screen"].setdefault(report.pop("candidate"), {})
            streams.setdefault(report.pop("stream"), []).append(report)
        else:
            merged["speed"] = report
    out.write_text(lines(merged) + "\n")
    kinds = ("PASSED", "WEAK", "FAILED")
    for name, streams in merged["screen"].items():
        for stream, reports in streams.items():
            for report in reports:
                rows = [row for test in report["tests"] for row in test["rows"]]
                again = [row for test in report["tests"] for row in test.get("again", {}).get("rows", [])]
                counts = [sum(row[-1] == kind for row in part) for part in (rows, again) for kind in kinds]
                print("|", " | ".join(map(str, (name, stream, len(rows), *counts, report["verdict"]))), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    commands = {
        "quick": "avalanche and collisions of every candidate",
        "run": "the tests on one stream of one candidate",
        "feed": "a stream to stdout, without end, for any other battery",
        "merge": "one results file from the parts",
    }
    for command, text in commands.items():
        options = sub.add_parser(command, help=text)
        if command in ("run", "feed"):
            options.add_argument("--candidate", choices=[*BLOCKS, "threefry2x32"], required=True)
            options.add_argument("--stream", choices=list(STREAMS), required=True)
            options.add_argument("--seed", type=int, default=0)
        if command == "run":
            options.add_argument("--only", type=int, nargs="+", default=[], help="dieharder's test numbers")
            options.add_argument("--scale", type=int, default=1, help="times the p-samples of every test")
        if command == "merge":
            options.add_argument("parts", type=Path, nargs="+")
        if command != "feed":
            options.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "quick":
        quick(args.out)
    elif args.command == "run":
        run_stream(args.candidate, args.stream, args.seed, args.scale, args.only, args.out)
    elif args.command == "merge":
        merge(args.parts, args.out)
    else:
        try:
            for block in STREAMS[args.stream](candidate(args.candidate), args.seed):
                sys.stdout.buffer.write(np.asarray(block).data)
        except BrokenPipeError:
            os._exit(0)  # the reader has had enough; the interpreter would complain while it flushes


if __name__ == "__main__":
    main()
