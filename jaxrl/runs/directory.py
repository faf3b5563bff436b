"""The run directory: made once, never written over, every whole file written atomically."""

import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from jaxrl import files

ROOT = Path("runs")  # where runs go by default
CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
CURVE, TABLE = "curve.png", "table.png"


def create_default(recipe: str, env_name: str, seed: int) -> Path:
    """Makes and claims the first free one of runs/RECIPE-ENV-seedS, runs/RECIPE-ENV-seedS-2, ..."""
    name = f"{recipe}-{re.sub(r'[^A-Za-z0-9._-]+', '-', env_name).strip('-.') or 'env'}-seed{seed}"
    numbered = (ROOT / (name if k == 1 else f"{name}-{k}") for k in itertools.count(1))
    path = next(path for path in numbered if not (path.exists() or path.is_symlink()))
    create(path)
    return path


def check(path: Path, force: bool = False) -> None:
    """Raises ValueError where no run can be written at `path`; writes nothing."""
    text = str(path)
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError(f"out is {text!r}; a directory's name holds no newline, NUL or other control character")
    try:
        if path.is_dir():
            held = sorted(entry.name for entry in path.iterdir())
            if not os.access(path, os.W_OK | os.X_OK):
                raise ValueError(f"cannot write to {text}: no permission; choose another --out")
            if held and CONFIG not in held:
                raise ValueError(f"{text} holds {held[0]!r} and is no run; choose an empty or a new --out")
            if held and not force:
                raise ValueError(f"{text} holds another run; choose another --out, or --force to move it aside")
            if held and path.resolve() in (Path.cwd(), *Path.cwd().parents):
                raise ValueError(f"cannot move {text} aside: it holds the working directory; choose another --out")
            with hold(path):
                return
        if path.exists() or path.is_symlink():
            raise ValueError(f"{text} is a file, not a directory; choose another --out")
        parent = next(above for above in path.absolute().parents if above.exists())
        if not parent.is_dir():
            raise ValueError(f"cannot make {text}: {parent} is a file, not a directory; choose another --out")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise ValueError(f"cannot make {text}: no permission to write to {parent}; choose another --out")
    except OSError as error:
        raise ValueError(f"cannot use {text}: {error.strerror or error}; choose another --out") from error


def create(path: Path, force: bool = False) -> Path | None:
    """Makes the run directory and its parents and claims it; returns where a run that was there went (`force`).

    Of two processes that ask for one directory, one gets it. Raises ValueError as `check` does.
    """
    check(path, force)
    try:
        aside = _move_aside(path) if path.is_dir() and any(path.iterdir()) else None
        path.mkdir(parents=True, exist_ok=True)
        (path / METRICS).open("x").close()
    except FileExistsError as error:
        raise ValueError(f"{path} was taken by another run just now; choose another --out") from error
    except OSError as error:
        raise ValueError(f"cannot make {path}: {error.strerror or error}; choose another --out") from error
    return aside


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keeps other runs from moving the run directory aside. Raises ValueError where a run holds it.

    The system lets go of what a dead run held. Where it has no locks, nothing is held.
    """
    metrics = path / METRICS
    if not metrics.exists():
        yield
        return
    with metrics.open("rb+") as file:
        if not (_lock(file) and os.path.samestat(os.fstat(file.fileno()), metrics.stat())):  # moved aside meanwhile
            raise ValueError(
                f"{path} is being written by a run that has not ended; wait for it, stop it, or choose another --out"
            )
        yield


def discard(path: Path) -> None:
    """Removes a run directory that holds nothing but its own first files: a run stopped before it learned."""
    try:
        if {entry.name for entry in path.iterdir()} <= {METRICS, CONFIG} and not (path / METRICS).stat().st_size:
            for name in (METRICS, CONFIG):
                (path / name).unlink(missing_ok=True)
            path.rmdir()
    except OSError:
        pass  # it is gone, or not ours to remove


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as strict JSON: a number that is not finite becomes null."""
    files.write(path, (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity as None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _move_aside(path: Path) -> Path:
    k = 1
    while (aside := path.with_name(f"{path.name}.old-{k}")).exists():
        k += 1
    with hold(path):
        return path.rename(aside)


def _lock(file: BinaryIO) -> bool:
    """Whether nobody else has locked the file; it is locked until it is closed."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass  # Windows, or a file system without locks
    return True
