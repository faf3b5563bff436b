"""Time to a solved CartPole-v1 and steps/s, beside other projects in virtual environments of their own.

    python benchmarks/versus.py [--seeds 10] [--slow-seeds 2] [--rounds 5] [--out benchmarks/results/versus.json]

All run on one core, in turn, seed by seed. Greedy policies are evaluated about every 2,048 steps on 128 whole episodes,
off the clock; solved is the first of two evaluations in a row of at least 475. `benchmarks/versus/` holds what each
contestant runs: rejax's PQN to the end of its budget, and the settings of CleanRL's DQN in Stable-Baselines3 until
solved or for 300 s, each beside ours at the same settings and at our recipe's.

`--rejax PYTHON` and `--sb3 PYTHON` name the peers' interpreters; without, they are made: .venv-rejax and .venv-sb3.
Steps/s are of the rows of throughput.py, each beside the project whose settings it has, in alternating rounds;
PureJaxQL and PureJaxRL, which no package index has, take part where `--purejaxql` and `--purejaxrl` name checkouts.
The first part times `jaxrl train pqn CartPole-v1 --steps N` from the shell, whose compiled programs are kept from its
first run on. Parts, and the rows of steps/s, are put into the file one by one, with machine, date, versions and commit;
what is left out stays as it was there. Circumstances at the file's top are of parts that have none of their own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure  # first: it pins the process, and so those that it starts, to one core

# isort: split
import numpy as np

HERE = Path(__file__).parent / "versus"
PACKAGES = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2", "flashbax==0.1.3"],
    "sb3": ["stable-baselines3==2.9.2", "torch", "gymnasium"],
}
FAST = {"rejax": "rejax PQN", "pqn_rejax": "jaxrl pqn, rejax's settings", "pqn": "jaxrl pqn, recipe"}
SLOW = {
    "sb3": "SB3 DQN, CleanRL's settings",
    "dqn_cleanrl": "jaxrl dqn, CleanRL's settings",
    "dqn": "jaxrl dqn, recipe",
}
SCRIPTS = {"rejax": "rejax_pqn.py", "sb3": "sb3_dqn.py"}
STEPS = {
    "pqn_cartpole": "purejaxql",
    "dqn_cartpole": "purejaxrl",
    "dqn_rejax": "rejax",
    "pqn_breakout": "purejaxql",
    "dqn_breakout": "purejaxrl",
}


class Contestant:
    """A process that races a seed when it is told to, and sleeps in between."""

    def __init__(self, python: str, script: str, *words: str) -> None:
        command = [python, HERE / script, *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def race(self, seed: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(seed, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with exit code {self.process.wait()}")
        return json.loads(line)


def interpreter(peer: str, given: str | None) -> str:
    """A Python that has the peer."""
    python = Path(given or f".venv-{peer}/bin/python")
    if not given and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True)
    return str(python)


def races(names: dict[str, str], seeds: int, interpreters: dict[str, str]) -> dict[str, Any]:
    """What became of every seed of every contestant, in turn."""
    contestants = {}
    for name in names:
        words = [interpreters[name], SCRIPTS[name]] if name in SCRIPTS else [sys.executable, "ours.py", name]
        contestants[name] = Contestant(*words)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(seeds):
        for name, contestant in contestants.items():
            results[name].append(contestant.race(seed))
            print(f"{names[name]}: {results[name][-1]}", flush=True)
    for contestant in contestants.values():
        contestant.close()
    return {name: {**contestants[name].about, **summary(rows), "seeds": rows} for name, rows in results.items()}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over all seeds; one that was never solved counts as endless."""

    def median(name: str) -> float | None:
        found = float(np.median([np.inf if row[name] is None else row[name] for row in rows]))
        return found if np.isfinite(found) else None

    return {
        "median_solved_s": median("solved_s"),
        "median_solved_steps": median("solved_steps"),
        "solved": sum(row["solved_s"] is not None for row in rows),
        "solved_at_the_end": sum(row["last_score"] >= 475 for row in rows),
        "median_steps_per_s": float(np.median([row["steps"] / row["seconds"] for row in rows])),
    }


def speeds(row: str, rounds: int, python: str, checkout: str | None) -> dict[str, Any]:
    """Steps/s of a project's training and of ours at its settings, in alternating rounds after one to warm up."""
    pair = {
        "theirs": Contestant(python, "peer_steps.py", row, *([checkout] if checkout else [])),
        "ours": Contestant(sys.executable, "our_steps.py", row),
    }
    found = [{name: one.race(i)["steps_per_s"] for name, one in pair.items()} for i in range(rounds + 1)][1:]
    for one in pair.values():
        one.close()
    return {
        "peer": STEPS[row],
        **{name: {**one.about, "steps_per_s": [each[name] for each in found]} for name, one in pair.items()},
        "ratio": float(np.median([each["ours"] / each["theirs"] for each in found])),
    }


def shell(steps: int, seeds: int) -> dict[str, Any]:
    """Seconds of `jaxrl train`, from its start to its end: the first run with nothing compiled, then others."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}

        def once(name: str, seed: int) -> dict[str, float]:
            out = f"{folder}/{name}"
            command = [sys.executable, "-m", "jaxrl", "train", "pqn", "CartPole-v1", "--quiet"]
            options = ["--steps", str(steps), "--seed", str(seed), "--out", out]
            began = time.perf_counter()
            subprocess.run([*command, *options], env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            found = json.loads(Path(out, "summary.json").read_text())
            return {"seconds": seconds, "score": found["eval"]["mean"], "compile_s": found["compile_s"]}

        first = once("first", 0)
        runs = [once(str(seed), seed) for seed in range(seeds)]
    return {
        "steps": steps,
        "first_run": first,
        "runs": runs,
        "median_s": float(np.median([run["seconds"] for run in runs])),
        "solved": sum(run["score"] >= 475 for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/versus.json")
    parser.add_argument("--seeds", type=int, default=10, help="of the shell and the PQNs; 0: leave them out")
    parser.add_argument("--slow-seeds", type=int, default=2, help="of the DQNs; 0: leave them out")
    parser.add_argument("--shell-steps", type=int, default=131_072, help="0: leave the shell out")
    parser.add_argument("--rounds", type=int, default=5, help="of steps/s; 0: leave them out")
    parser.add_argument("--purejaxql", help="a checkout of PureJaxQL")
    parser.add_argument("--purejaxrl", help="a checkout of PureJaxRL")
    parser.add_argument("--rejax", help="a Python that has rejax and gymnax 0.0.9")
    parser.add_argument("--sb3", help="a Python that has stable-baselines3 and torch")
    options = parser.parse_args()
    for peer in ("purejaxql", "purejaxrl"):
        checkout = getattr(options, peer)
        if checkout and not Path(checkout, peer).is_dir():
            parser.error(f"--{peer}: {checkout} is no checkout of it, for it has no folder {peer}")
    groups = [("pqn", FAST, options.seeds, "rejax"), ("dqn", SLOW, options.slow_seeds, "sb3")]
    groups = [group for group in groups if group[2]]
    needed = [*(peer for *_, peer in groups), *(["rejax"] if options.rounds else [])]
    interpreters = {peer: interpreter(peer, getattr(options, peer)) for peer in needed}
    if options.shell_steps and options.seeds:
        started = shell(options.shell_steps, options.seeds)
        keep(options.out, "shell", started)
        first = started["first_run"]["seconds"]
        print(
            f"jaxrl train pqn CartPole-v1 --steps {started['steps']}: {first:.1f} s the first time, "
            f"{started['median_s']:.2f} s from then on; {started['solved']} of {options.seeds} seeds at 475 or more"
        )
    for group, names, seeds, peer in groups:
        found = races(names, seeds, interpreters)
        keep(options.out, group, found)
        table(names, found, seeds, peer)
    rows = {}
    for row, peer in STEPS.items() if options.rounds else ():
        checkout = None if peer == "rejax" else getattr(options, peer)
        if peer != "rejax" and not checkout:
            print(f"{row}: left out, as there is no --{peer}")
            continue
        rows[row] = about() | speeds(row, options.rounds, interpreters["rejax"], checkout)
        record = measure.read(options.out)  # rows that are left out stay as they were there
        measure.write(options.out, record | {"steps": record.get("steps", {}) | {row: rows[row]}})
    if rows:
        speed_table(rows)


def about() -> dict[str, Any]:
    return measure.circumstances("flax", "optax", "gymnasium")


def keep(path: str, part: str, found: dict[str, Any]) -> None:
    """Puts a part into the file, beside those that it holds."""
    measure.write(path, measure.read(path) | {part: about() | found})


def table(names: dict[str, str], results: dict[str, Any], seeds: int, peer: str) -> None:
    base = results[peer]["median_solved_s"]

    def shown(value: float | None, form: str) -> str:
        return "never" if value is None else format(value, form)

    rows = []
    for name, title in names.items():
        row = results[name]
        solved_s = row["median_solved_s"]
        rows.append(
            (
                title,
                shown(solved_s, ".2f"),
                f"{base / solved_s:.1f}" if base and solved_s else "",
                shown(row["median_solved_steps"], ",.0f"),
                f"{row['median_steps_per_s']:,.0f}",
                f"{sum(row['compile_s']):.1f}",
                f"{row['solved']} of {seeds}",
                f"{row['solved_at_the_end']} of {seeds}",
            )
        )
    columns = ("", "s to solved", "times sooner", "steps", "steps/s", "compile, s", "solved", "at the end")
    measure.table(f"CartPole-v1 on one core, median of {seeds} seeds", columns, rows)


def speed_table(rows: dict[str, Any]) -> None:
    shown = []
    for name, row in rows.items():
        rates = [float(np.median(row[who]["steps_per_s"])) for who in ("theirs", "ours")]
        seconds = [sum(row[who]["compile_s"]) for who in ("theirs", "ours")]
        cells = [*(f"{rate:,.0f}" for rate in rates), f"{row['ratio']:.2f}", *(f"{s:.1f}" for s in seconds)]
        shown.append((name, row["peer"], *cells))
    columns = ("", "project", "its steps/s", "ours", "ratio", "its compile, s", "ours, s")
    measure.table("Training at the settings of other projects, one core", columns, shown)


if __name__ == "__main__":
    main()
