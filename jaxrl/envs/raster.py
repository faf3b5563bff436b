"""Pictures of environments: shapes and text drawn into a numpy array, and a picture as coloured characters.

Coordinates are the environment's own: a `Canvas` maps them to pixels, y upwards. Nothing opens a window.
"""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

Color = tuple[int, int, int]
Point = tuple[float, float]

WHITE, BLACK, GREY, LIGHT, ICE = (255, 255, 255), (24, 24, 27), (128, 128, 128), (226, 228, 233), (200, 222, 244)
RED, GREEN, BLUE, YELLOW = (214, 69, 65), (60, 160, 90), (52, 101, 195), (240, 190, 60)
ORANGE, PURPLE, BROWN, CYAN, PINK = (235, 130, 50), (130, 80, 180), (120, 85, 60), (70, 190, 200), (230, 120, 170)
# for channels, players and the like: distinct, in this order
COLORS = (BLUE, RED, GREEN, YELLOW, PURPLE, ORANGE, CYAN, BROWN, PINK, GREY)
_ANSI = (BLACK, RED, GREEN, YELLOW, BLUE, PURPLE, CYAN, LIGHT)  # a terminal's eight colours
_SMOOTH = 2  # samples a pixel in each direction


class Canvas:
    """A picture of `width` x `height` pixels that shows the rectangle `x` by `y` of the environment's plane."""

    def __init__(self, width: int, height: int, x: Point, y: Point, background: Color = WHITE):
        self._x = x[0] + (np.arange(width * _SMOOTH) + 0.5) / (width * _SMOOTH) * (x[1] - x[0])
        self._y = y[1] - (np.arange(height * _SMOOTH) + 0.5) / (height * _SMOOTH) * (y[1] - y[0])
        self._samples = np.full((height * _SMOOTH, width * _SMOOTH), _packed(background))  # one number a colour: fast

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3]: the mean of each pixel's samples."""
        samples = self._samples.view(np.uint8).reshape(*self._samples.shape, 4)
        zero = np.zeros((), np.uint16)
        rows = sum((samples[i::_SMOOTH] for i in range(_SMOOTH)), zero)
        total = sum((rows[:, i::_SMOOTH, :3] for i in range(_SMOOTH)), zero)
        return ((total + _SMOOTH**2 // 2) // _SMOOTH**2).astype(np.uint8)

    def rectangle(self, low: Point, high: Point, color: Color) -> None:
        """The box from corner `low` to corner `high`."""
        self._box(low, high)[2][:] = _packed(color)

    def circle(self, center: Point, radius: float, color: Color) -> None:
        """A disc."""
        x, y, samples = self._box(np.subtract(center, radius), np.add(center, radius))
        samples[(x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2] = _packed(color)

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        """A thick line with round ends, `width` in the plane's units."""
        x, y, samples = self._box(np.minimum(start, end) - width / 2, np.maximum(start, end) + width / 2)
        along = np.subtract(end, start)
        x, y = x - start[0], y - start[1]
        share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0, 1)
        samples[(x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 <= (width / 2) ** 2] = _packed(color)

    def polygon(self, corners: Sequence[Point], color: Color) -> None:
        """A filled polygon, by the even-odd rule."""
        x, y, samples = self._box(np.min(corners, axis=0), np.max(corners, axis=0))
        inside = np.zeros(samples.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if y0 != y1:
                inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        samples[inside] = _packed(color)

    def text(self, center: Point, text: str, color: Color = BLACK, size: int = 1) -> None:
        """One line of text around `center`, `size` pixels a dot of the 5 x 8 font."""
        dots = np.hstack([np.pad(_glyphs()[_index(letter)], ((0, 0), (0, 1))) for letter in text or " "])[:, :-1]
        rows, columns = np.nonzero(np.kron(dots, np.ones((size * _SMOOTH, size * _SMOOTH), bool)))
        # the eighth row hangs below the line
        rows += (np.abs(self._y - center[1]).argmin() // _SMOOTH - 7 * size // 2) * _SMOOTH
        columns += (np.abs(self._x - center[0]).argmin() // _SMOOTH - dots.shape[1] * size // 2) * _SMOOTH
        seen = (rows >= 0) & (rows < len(self._y)) & (columns >= 0) & (columns < len(self._x))
        self._samples[rows[seen], columns[seen]] = _packed(color)

    def _box(self, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray) -> tuple[np.ndarray, ...]:
        """x [1, columns], y [rows, 1] and the samples [rows, columns], a view, in a box."""
        columns = np.flatnonzero((self._x >= low[0]) & (self._x <= high[0]))
        rows = np.flatnonzero((self._y >= low[1]) & (self._y <= high[1]))
        across, down = (slice(i[0], i[-1] + 1) if len(i) else slice(0) for i in (columns, rows))
        return self._x[None, across], self._y[down, None], self._samples[down, across]


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


def text_frame(text: str, size: int = 2) -> np.ndarray:
    """Text as a picture, `size` pixels a dot of the 5 x 8 font; a letter that the font lacks is a box.

    Escape codes of 16 or 24-bit colours and of inverse video are drawn, other ones are left out.
    """
    rows, style = [[]], (BLACK, WHITE, False)
    for part in re.split(r"(\n|\x1b\[[\d;?]*[A-Za-z])", text.expandtabs().rstrip("\n")):
        if part == "\n":
            rows.append([])
        elif part.startswith("\x1b["):
            style = _restyled(part[2:-1].lstrip("?"), *style) if part.endswith("m") else style
        else:
            rows[-1] += [(letter, *style) for letter in part]
    dots = np.empty((9 * len(rows), 6 * max(map(len, rows)) + 1, 3), np.uint8)
    dots[:] = WHITE
    for top, row in enumerate(rows):
        for left, (letter, ink, paper, inverse) in enumerate(row):
            ink, paper = (paper, ink) if inverse else (ink, paper)
            cell = dots[9 * top : 9 * top + 9, 6 * left : 6 * left + 7]
            if paper != WHITE:
                cell[:] = paper
            cell[1:, 1:6][_glyphs()[_index(letter)]] = ink
    return tiles(dots, size, gap=0)


def half_blocks(picture: np.ndarray, columns: int = 60) -> str:
    """A picture as lines of `columns` coloured characters, two pixels each, for a terminal with 24-bit colour."""
    small = resize(picture, 2 * _lines(picture, columns), columns).tolist()
    lines = []
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        runs = ((top, low, len([*run])) for (top, low), run in itertools.groupby(zip(upper, lower, strict=True)))
        cells = ("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*top, *low) + "\u2580" * count for top, low, count in runs)
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def shades(picture: np.ndarray, columns: int = 60) -> str:
    """A picture as lines of `columns` plain characters, the denser the further from the common brightness."""
    small = resize(picture, _lines(picture, columns), columns) @ np.array([0.299, 0.587, 0.114])
    far = np.abs(small - np.median(small))
    level = np.rint(far / max(far.max(), 1e-9) * (len(_SHADES) - 1)).astype(int)
    return "\n".join("".join(_SHADES[i] for i in row) for row in level)


def resize(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, columns, 3]: each pixel the mean of the area that it covers, rounded once."""
    height, width, _ = picture.shape
    total = _overlaps(height, rows) @ picture.reshape(height, -1)  # whole numbers until the division: exact
    total = _overlaps(width, columns) @ total.reshape(rows, width, 3)
    return np.rint(total / (height * width)).astype(np.uint8)


def _overlaps(size: int, parts: int) -> np.ndarray:
    """[parts, size]: by how much equal parts of a line cover each of its pixels, in units of 1 / parts."""
    low, left = np.arange(parts)[:, None] * size, np.arange(size) * parts
    return np.clip(np.minimum(low + size, left + parts) - np.maximum(low, left), 0, None).astype(float)


def _packed(color: Color) -> np.ndarray:
    """A colour as one uint32 []."""
    return np.array([*color, 0], np.uint8).view(np.uint32)[0]


def _lines(picture: np.ndarray, columns: int) -> int:
    """How many lines of `columns` characters, twice as high as wide, keep the picture's shape."""
    return max(round(columns * picture.shape[0] / picture.shape[1] / 2), 1)


def _restyled(codes: str, ink: Color, paper: Color, inverse: bool) -> tuple[Color, Color, bool]:
    """A text's style after an escape code's numbers."""
    numbers = (int(code or 0) for code in codes.split(";"))
    for number in numbers:
        tens, units = divmod(number, 10)
        if number == 0:
            ink, paper, inverse = BLACK, WHITE, False
        elif number in (7, 27):
            inverse = number == 7
        elif units < 8 and tens in (3, 9):
            ink = _ANSI[units]
        elif units < 8 and tens in (4, 10):
            paper = _ANSI[units]
        elif number in (38, 48):
            color = tuple(itertools.islice(numbers, 3 if next(numbers, 0) == 2 else 1))
            if len(color) == 3:
                ink, paper = (color, paper) if number == 38 else (ink, color)
        elif number in (39, 49):
            ink, paper = (BLACK, paper) if number == 39 else (ink, WHITE)
    return ink, paper, inverse


def _index(letter: str) -> int:
    return ord(letter) - 32 if " " <= letter <= "~" else 95


@functools.cache
def _glyphs() -> np.ndarray:
    """bool [96, 8, 5]: printable ASCII, then the box."""
    columns = np.frombuffer(bytes.fromhex(_FONT), np.uint8).reshape(96, 1, 5)
    return (columns >> np.arange(8)[:, None] & 1).astype(bool)


_SHADES = " .:-=+*#%@"
# five columns a letter, the lowest bit its top
_FONT = """
0000000000 00005F0000 0007000700 147F147F14 242A7F2A12 2313086462 3649552250 0005030000 001C224100 0041221C00
14083E0814 08083E0808 0080703000 0808080808 0060600000 2010080402 3E5149453E 00427F4000 4261514946 2141454B31
1814127F10 2745454539 3C4A494930 0171090503 3649494936 064949291E 0036360000 0080763600 0814224100 1414141414
0041221408 0201510906 324979413E 7E1111117E 7F49494936 3E41414122 7F4141221C 7F49494941 7F09090901 3E4149497A
7F0808087F 00417F4100 2040413F01 7F08142241 7F40404040 7F020C027F 7F0408107F 3E4141413E 7F09090906 3E4151215E
7F09192946 4649494931 01017F0101 3F4040403F 1F2040201F 3F4038403F 6314081463 0708700807 6151494543 007F414100
0204081020 0041417F00 0402010204 4040404040 0001020400 2054547840 7F28444438 3844444428 384444287F 3854545418
00087E0902 18A4A49C78 7F08040478 00447D4000 4080807A00 7F10284400 00417F4000 7C04780478 7C08040478 3844444438
FC18242418 18242418FC 7C08040408 4854545424 04043F4424 3C4040207C 1C2040201C 3C4030403C 4428102844 4C9090907C
4464544C44 0008364100 00007F0000 0041360800 1008081008 7F4141417F"""
