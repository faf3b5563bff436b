"""Standard output as a place for pictures, which on a terminal are drawn over each other."""

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HIDE, _SHOW = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"  # the cursor, and the wrapping of long lines


class Screen:
    """On a terminal pictures take each other's place, elsewhere they come one after the other."""

    def __init__(self):
        dumb = os.environ.get("TERM") == "dumb"
        self.live = sys.stdout.isatty() and not dumb
        self.colours = not (os.environ.get("NO_COLOR") or dumb)
        self.blocks = self.colours and encodes("\u2580")
        self._size = shutil.get_terminal_size()
        self._drawn = 0  # lines that the next picture takes the place of

    def fit(self, height: int, width: int) -> int:
        """The most columns that a picture of so many pixels can have on the screen, at twice as many rows as lines."""
        lines = max(self._size.lines - 2, 1)  # the caption, and the line on which the cursor waits
        return max(min(self._size.columns, 2 * lines * width // height), 1)

    def draw(self, picture: str, caption: str) -> None:
        """A picture and the line below it, in the place of the last."""
        lines = picture.split("\n")
        if not self.live:
            print(*lines, caption, sep="\n", flush=True)
            return
        lines = [*lines[: max(self._size.lines - 2, 1)], caption]
        print(self._back() + "".join(f"\x1b[2K{line}\x1b[0m\n" for line in lines) + "\x1b[J", end="", flush=True)
        self._drawn = len(lines)

    def say(self, text: str, keep: bool) -> None:
        """A line that stays, below the picture or in its place."""
        print(("" if keep else self._back() + ("\x1b[J" if self.live else "")) + text, flush=True)
        self._drawn = 0

    def _back(self) -> str:
        return f"\x1b[{self._drawn}A\r" if self._drawn else ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Without cursor and wrapping on a terminal, which gets them back however this ends."""
        if not self.live:
            yield
            return
        mine = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number)) if mine else None
        try:
            print(_HIDE, end="")
            yield
        finally:
            print(_SHOW, end="", flush=True)
            if mine:
                signal.signal(signal.SIGTERM, before)


def encodes(text: str) -> bool:
    """Whether standard output can write `text`."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def uncoloured(text: str) -> str:
    """Text with inverse video for coloured backgrounds and underlines for coloured letters."""

    def style(found: re.Match[str]) -> str:
        codes = set(found[1].split(";"))
        if codes <= {"", "0", "27", "39", "49"}:
            return "\x1b[0m"
        return "\x1b[7m" if codes & {"7", *map(str, range(40, 49)), *map(str, range(100, 108))} else "\x1b[4m"

    return re.sub(r"\x1b\[([\d;]*)m", style, text)
