"""What a run says: one JSON line a chunk on disk, and to a person a live line, plain lines or nothing."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from jaxrl.runs.directory import finite

PLAIN_SECONDS = 5.0  # between plain progress lines
NARROW = 72  # columns below which the bar gives way to the numbers


class Reporter(Protocol):
    """Where a run's lines go."""

    def line(self, text: str) -> None: ...
    def progress(self, row: dict[str, Any], total: int) -> None: ...
    def close(self) -> None: ...


class Silent:
    """Says nothing."""

    def line(self, text: str) -> None:
        del text

    def progress(self, row: dict[str, Any], total: int) -> None:
        del row, total

    def close(self) -> None:
        pass


class Plain:
    """Whole lines for a log file, a pipe or a plain terminal; a closed pipe ends the talk, not the run."""

    def __init__(self, seconds: float | None = PLAIN_SECONDS):
        self._seconds, self._last = seconds, time.monotonic()

    def line(self, text: str) -> None:
        say(text)

    def progress(self, row: dict[str, Any], total: int) -> None:
        if self._seconds is None:
            return
        if time.monotonic() - self._last >= self._seconds or row["env_steps"] >= total:
            self._last = time.monotonic()
            say(f"{row['env_steps'] / total:6.1%}  {describe(row, total)}")

    def close(self) -> None:
        pass


class Live:
    """One rich line that updates in place."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        console = Console(file=sys.stdout, highlight=False)
        columns = [TaskProgressColumn(), TextColumn("{task.description}")]
        if console.width >= NARROW:
            columns.insert(0, BarColumn(bar_width=24))
        self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = None

    def line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def progress(self, row: dict[str, Any], total: int) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=row["env_steps"], description=describe(row, total))
        self._bar.refresh()

    def close(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._task = None


def reporter(quiet: bool = False) -> Reporter:
    """The live line on a terminal that can show it, else plain lines; `quiet`: only the first and last."""
    if quiet:
        return Plain(seconds=None)
    able = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return Live() if able else Plain()


def describe(row: dict[str, Any], total: int) -> str:
    """A chunk in words: the mean return, steps a second, seconds left."""
    reached, speed = row["env_steps"], row["steps_per_s"]
    got = row["return"]
    left = (total - reached) * row["train_s"] / max(reached, 1)
    return f"return {'-' if got is None else format(got, '.4g')}  {si(speed)} steps/s  {left:.0f} s left"


def si(number: float) -> str:
    """A number with three digits and a prefix: 1.23M."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{prefix}"
    return f"{number:.3g}"


def say(text: str, end: str = "\n") -> None:
    """Prints a line; a reader that went away (`| head`) silences this and every later one."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def append_json(path: Path, row: dict[str, Any]) -> None:
    """Adds one line of strict JSON to a file."""
    with path.open("a") as file:
        file.write(json.dumps(finite(row), allow_nan=False) + "\n")
