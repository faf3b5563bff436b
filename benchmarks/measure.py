"""What the benchmarks share: one core, alternating timings, the machine, a table, a JSON file.

Importing it pins the process to one core before jax starts its threads.
"""

import datetime
import importlib.metadata
import json
import os
import platform
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
    """Date, machine and versions."""
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
    }


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


def write(path: str | Path, record: dict[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON file and says where."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=indent) + "\n")
    print(f"written: {path}")
