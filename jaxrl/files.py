"""Files written whole or not at all, and npz files read without pickle and only where their checksums are right."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

KEEP = "choose another name or move it aside"


@contextmanager
def whole(path: Path, replace: bool = False, remedy: str = KEEP) -> Iterator[BinaryIO]:
    """A file to write into, which is at `path` once its block has ended well: a reader, or a crash, sees no half of it.

    Raises ValueError that ends in `remedy` where something is at `path`, unless `replace`; OSError where it cannot
    be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _refuse(path, replace, remedy)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse(path, replace, remedy)  # it may have come meanwhile
        (temporary.replace if replace else temporary.rename)(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name
    finally:
        os.close(folder)


def write(path: Path, data: bytes) -> None:
    """Writes `data` in the place of what is at `path`."""
    with whole(path, replace=True) as file:
        file.write(data)


def write_arrays(path: Path, arrays: Mapping[str, Any], replace: bool = False, remedy: str = KEEP) -> None:
    """Writes arrays as an npz file; errors as `whole`."""
    with whole(path, replace, remedy) as file:
        np.savez(file, **arrays)


def read_arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file. Raises ValueError where it is damaged, OSError where it cannot be read."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if name := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {name} is wrong")
            file.seek(0)
            return dict(np.load(file, allow_pickle=False))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, KeyError, ValueError) as error:
            raise damaged(path, what, error) from error


def damaged(path: Path, what: str, why: object) -> ValueError:
    """The error of a file that holds no `what`."""
    return ValueError(f"{path} is damaged or holds no {what}: {why}; restore a copy")


def _refuse(path: Path, replace: bool, remedy: str) -> None:
    if not replace and (path.exists() or path.is_symlink()):
        raise ValueError(f"{path} exists and is not written over; {remedy}")
