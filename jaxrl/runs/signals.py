"""Ctrl-C and SIGTERM: the first asks a run to stop after its chunk, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_HEARD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heard() -> Iterator[Callable[[], int | None]]:
    """Gives a function that tells which signal came, or None. Threads but the main one hear nothing."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        for name in _HEARD:
            signal.signal(name, signal.SIG_DFL)
        os.write(2, b"\nstopping after this chunk; once more stops at once\n")

    before = {number: signal.signal(number, handle) for number in _HEARD}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
