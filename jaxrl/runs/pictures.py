"""Pictures of environments as files: an animated GIF of episodes, and all environments on one sheet."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrl import files, prng
from jaxrl.envs import raster
from jaxrl.runs import watch
from jaxrl.runs.plan import choose

COLUMNS, WIDTH, HEIGHT, TITLE, GAP = 7, 146, 110, 13, 6  # of a sheet: cells in a row, and sizes in pixels
PAPER = (240, 241, 244)
STEPS = 30  # of the random episode from which a sheet shows a state
_QUICKEST = 50  # frames a second that viewers of a GIF still show


def check(name: str, path: Path, suffix: str, force: bool = False) -> None:
    """Raises ValueError where no new file can be written at `path`; writes nothing."""
    if any(ord(char) < 32 or ord(char) == 127 for char in str(path)):
        raise ValueError(f"{name} is {str(path)!r}; a file's name holds no newline, NUL or other control character")
    if path.suffix.lower() != suffix:
        raise ValueError(f"{name} is {str(path)!r}; it must end in {suffix}")
    try:
        if path.is_dir():
            raise ValueError(f"{name} is {path}, a directory; give a file")
        if path.exists() and not force:
            raise ValueError(f"{path} is there already; choose another {name}, or --force to replace it")
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{name} is {path}, but there is no directory {path.parent}; make it first")
        if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
            raise ValueError(f"cannot write {path}: no permission; choose another {name}")
    except OSError as error:
        raise ValueError(f"cannot use {path}: {error.strerror or error}; choose another {name}") from error
    try:
        import PIL  # noqa: F401 # whether it can be imported is all that is asked
    except ImportError as error:
        raise ValueError(f"cannot import Pillow for {name} ({error}); install it: pip install pillow") from error


def animation(path: Path, frames: Sequence[np.ndarray], fps: float) -> int:
    """Writes frames, uint8 [height, width, 3] each, as a GIF that repeats; returns its bytes."""
    from PIL import Image

    rows, columns = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    images = [Image.fromarray(_centred(frame, rows, columns)) for frame in frames]
    data = io.BytesIO()
    duration = 1000 / min(fps or _QUICKEST, _QUICKEST)
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    files.write(path, data.getvalue())
    return len(data.getvalue())


def sheet(path: Path, env_ids: Sequence[str]) -> int:
    """Writes a PNG with a picture of each environment below its id; returns its bytes."""
    from PIL import Image

    rows, down, across = -(-len(env_ids) // COLUMNS), TITLE + HEIGHT + GAP, WIDTH + GAP
    pixels = np.full((rows * down + GAP, COLUMNS * across + GAP, 3), 255, np.uint8)
    for place, env_id in enumerate(env_ids):
        top, left = GAP + place // COLUMNS * down, GAP + place % COLUMNS * across
        pixels[top : top + TITLE + HEIGHT, left : left + WIDTH] = _cell(env_id)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    files.write(path, data.getvalue())
    return len(data.getvalue())


def _cell(env_id: str) -> np.ndarray:
    """An environment's id above its picture after some random steps, in the middle of a grey cell."""
    chosen = choose(env_id)
    moments = watch.player(chosen, watch.at_random(chosen))(prng.key(0), STEPS)
    state = [moment.state for moment in moments if moment.end in ("", "cut")][-1]
    try:
        frame = watch.picture(chosen, state)
    except ValueError:
        frame = raster.text_frame("no picture", 1)
    scale = min((room - 2 * GAP) / size for room, size in zip((HEIGHT, WIDTH), frame.shape))
    small = raster.resize(frame, *(max(round(size * scale), 1) for size in frame.shape[:2]))
    title = raster.text_frame(env_id, 1)[:, :WIDTH]
    title = np.pad(title, ((0, TITLE - len(title)), (0, WIDTH - title.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([title, _centred(small, HEIGHT, WIDTH, PAPER)])


def _centred(frame: np.ndarray, rows: int, columns: int, color: raster.Color = raster.WHITE) -> np.ndarray:
    """A picture in the middle of a larger one."""
    large = np.full((rows, columns, 3), color, np.uint8)
    top, left = (rows - frame.shape[0]) // 2, (columns - frame.shape[1]) // 2
    large[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return large
