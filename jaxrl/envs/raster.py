"""Pictures of environments: shapes drawn into a numpy array, and a picture as coloured characters.

Coordinates are the environment's own: a `Canvas` maps them to pixels, y upwards. Nothing opens a window.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Color = tuple[int, int, int]
Point = tuple[float, float]

WHITE, BLACK, GREY, LIGHT, ICE = (255, 255, 255), (24, 24, 27), (128, 128, 128), (226, 228, 233), (200, 222, 244)
RED, GREEN, BLUE, YELLOW = (214, 69, 65), (60, 160, 90), (52, 101, 195), (240, 190, 60)
ORANGE, PURPLE, BROWN, CYAN, PINK = (235, 130, 50), (130, 80, 180), (120, 85, 60), (70, 190, 200), (230, 120, 170)
# for channels, players and the like: distinct, in this order
COLORS = (BLUE, RED, GREEN, YELLOW, PURPLE, ORANGE, CYAN, BROWN, PINK, GREY)
_SMOOTH = 2  # samples a pixel in each direction


class Canvas:
    """A picture of `width` x `height` pixels that shows the rectangle `x` by `y` of the environment's plane."""

    def __init__(self, width: int, height: int, x: Point, y: Point, background: Color = WHITE):
        columns = x[0] + (np.arange(width * _SMOOTH) + 0.5) / (width * _SMOOTH) * (x[1] - x[0])
        rows = y[1] - (np.arange(height * _SMOOTH) + 0.5) / (height * _SMOOTH) * (y[1] - y[0])
        self._x, self._y = np.meshgrid(columns, rows)
        self._pixels = np.empty((*self._x.shape, 3), np.float32)
        self._pixels[:] = background

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        rows, columns, _ = self._pixels.shape
        blocks = self._pixels.reshape(rows // _SMOOTH, _SMOOTH, columns // _SMOOTH, _SMOOTH, 3)
        return np.rint(blocks.mean((1, 3))).astype(np.uint8)

    def rectangle(self, low: Point, high: Point, color: Color) -> None:
        """The box from corner `low` to corner `high`."""
        x, y = self._x, self._y
        self._pixels[(x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])] = color

    def circle(self, center: Point, radius: float, color: Color) -> None:
        """A disc."""
        self._pixels[(self._x - center[0]) ** 2 + (self._y - center[1]) ** 2 <= radius**2] = color

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        """A thick line with round ends, `width` in the plane's units."""
        along = np.subtract(end, start)
        px, py = self._x - start[0], self._y - start[1]
        share = np.clip((px * along[0] + py * along[1]) / max(float(along @ along), 1e-12), 0, 1)
        self._pixels[(px - share * along[0]) ** 2 + (py - share * along[1]) ** 2 <= (width / 2) ** 2] = color

    def polygon(self, corners: Sequence[Point], color: Color) -> None:
        """A filled polygon, by the even-odd rule."""
        inside = np.zeros(self._x.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if y0 != y1:
                crosses = (y0 > self._y) != (y1 > self._y)
                inside ^= crosses & (self._x < (x1 - x0) * (self._y - y0) / (y1 - y0) + x0)
        self._pixels[inside] = color


def tiles(colors: np.ndarray, size: int = 24, gap: int = 1) -> np.ndarray:
    """Cells of uint8 [rows, columns, 3] as a picture of `size` pixels a cell, a thin grid between them."""
    picture = np.repeat(np.repeat(np.asarray(colors, np.uint8), size, 0), size, 1)
    if gap:
        rows, columns = np.arange(picture.shape[0]) % size, np.arange(picture.shape[1]) % size
        picture[rows < gap] = LIGHT
        picture[:, columns < gap] = LIGHT
    return picture


def board(
    letters: Sequence[str],
    palette: Mapping[str, Color],
    walker: tuple[int, int] | None = None,
    size: int = 24,
    color: Color = RED,
) -> np.ndarray:
    """A map of letters, each a colour, with a disc at (row, column) `walker`."""
    picture = tiles(np.array([[palette[letter] for letter in row] for row in letters]), size)
    if walker is not None:
        offset = np.arange(size) - (size - 1) / 2
        disc = offset[:, None] ** 2 + offset[None] ** 2 <= (0.36 * size) ** 2
        row, column = walker
        picture[row * size : (row + 1) * size, column * size : (column + 1) * size][disc] = color
    return picture


def channels(observation: np.ndarray, size: int = 16) -> np.ndarray:
    """A boolean [rows, columns, channels] as a picture: black, or the colour of the last channel that is set."""
    observation = np.asarray(observation, bool)
    colors = np.zeros((*observation.shape[:2], 3), np.uint8)
    colors[:] = BLACK
    for channel in range(observation.shape[2]):
        colors[observation[..., channel]] = COLORS[channel % len(COLORS)]
    return tiles(colors, size, gap=0)


def half_blocks(picture: np.ndarray, columns: int = 60) -> str:
    """A picture as lines of `columns` coloured characters, two pixels each, for a terminal with 24-bit colour."""
    height, width, _ = picture.shape
    rows = max(2 * round(columns * height / width / 2), 2)
    small = _shrink(picture, rows, columns)
    lines = []
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m\u2580" for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _shrink(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, columns, 3]: the mean of each box of pixels, or the nearest where there is none."""
    sums = np.zeros((picture.shape[0] + 1, picture.shape[1] + 1, 3), np.int64)
    sums[1:, 1:] = picture.astype(np.int64).cumsum(0).cumsum(1)
    tops, lefts = (np.arange(n) * size // n for n, size in ((rows, picture.shape[0]), (columns, picture.shape[1])))
    bottoms = np.maximum((np.arange(rows) + 1) * picture.shape[0] // rows, tops + 1)[:, None]
    rights = np.maximum((np.arange(columns) + 1) * picture.shape[1] // columns, lefts + 1)
    tops = tops[:, None]
    total = sums[bottoms, rights] - sums[tops, rights] - sums[bottoms, lefts] + sums[tops, lefts]
    return (total // ((bottoms - tops) * (rights - lefts))[..., None]).astype(np.uint8)


def text_frame(text: str, size: int = 12) -> np.ndarray:
    """A picture of text: TODO real glyphs."""
    raise NotImplementedError
