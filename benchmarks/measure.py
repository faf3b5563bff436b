"""What the benchmarks share: one core, alternating timings, the machine, settings, a table, a JSON file.

Importing it pins the process to one core before jax starts its threads.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity") and os.environ["JAX_PLATFORMS"] == "cpu":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def alternating(programs: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each program in each of `repeats` rounds; a round runs every program once, after one to warm up.

    Programs return only when their work is done.
    """
    for program in programs:
        program()
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(repeats):
        for program, times in zip(programs, seconds, strict=True):
            start = time.perf_counter()
            program()
            times.append(time.perf_counter() - start)
    return seconds


def circumstances(*packages: str) -> dict[str, Any]:
    """Date, machine, versions and commit."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cpu": names[0] if names else platform.processor(),
            "cores": os.cpu_count(),
            "cores_used": 1,
            "load": [round(value, 1) for value in os.getloadavg()],
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy", *packages)},
        "commit": COMMIT,
    }


def commit() -> str | None:
    """The short hash of what is checked out, with "-dirty" where a program differs; None outside a git checkout."""

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parents[1]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "*.py", "*.c")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


COMMIT = commit()  # at the start, as the programs are imported: they may change while they run


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A recipe's settings by dotted names, as JSON has them."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = list(value) if isinstance(value, tuple) else value
    return found


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the columns after the first are right-justified."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title)
    for i, column in enumerate(columns):
        shown.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    Console(width=120).print(shown)


def read(path: str | Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: str | Path, record: dict[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON file and says where."""
    replace(Path(path), json.dumps(record, indent=indent) + "\n")
    print(f"written: {path}")


def replace(path: Path, text: str) -> None:
    """Writes a file whole: who reads it meanwhile finds the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)
