"""What can be wrong with what a person asks for, as exceptions whose message is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why and what would work."""


class CheckpointError(ValueError):
    """What is on disk is damaged, or does not belong to what it is read into."""


class WriteError(OSError):
    """A run cannot be written; the message says what, why and what would work."""


@contextmanager
def configuration() -> Iterator[None]:
    """Within it a plain ValueError is about what was asked for: it becomes a UsageError."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise UsageError(str(error)) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it an OSError is about what is written at `path`: it becomes a WriteError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise WriteError(f"cannot write {path}: {why}; make room there, or choose another --out") from error
