"""What can be wrong with what a person asks for, as exceptions whose message is one line."""

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why and what would work."""


class CheckpointError(ValueError):
    """What is on disk is damaged, or does not belong to what it is read into."""


@contextmanager
def configuration() -> Iterator[None]:
    """Within it a plain ValueError is about what was asked for: it becomes a UsageError."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise UsageError(str(error)) from error
