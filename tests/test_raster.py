"""Pictures: shapes against exact areas and brute force, characters read back to pixels, the font letter by letter."""

import math
import re

import numpy as np
import pytest

from jaxrl.envs import raster
from jaxrl.envs.raster import BLACK, BLUE, GREEN, LIGHT, RED, WHITE, YELLOW, Canvas

SIDE = 200  # pixels, of a plane from -1 to 1


def covered(canvas: Canvas) -> float:
    """The area of the plane, of 4 in all, that is black instead of white, to the smoothing's precision."""
    return float((255 - canvas.pixels[..., 0].astype(float)).mean() / 255 * 4)


def plane(width: int = SIDE, height: int = SIDE) -> Canvas:
    return Canvas(width, height, (-1, 1), (-1, 1))


def drawn(draw) -> Canvas:
    canvas = plane()
    draw(canvas)
    return canvas


INK = (0, 0, 0)
TRIANGLE = [(-0.7, -0.6), (0.8, -0.3), (0.1, 0.75)]
AREAS = {
    "rectangle": (lambda c: c.rectangle((-0.6, -0.25), (0.4, 0.5), INK), 0.75),
    "rectangle past the border": (lambda c: c.rectangle((0, 0), (9, 9), INK), 1.0),
    "circle": (lambda c: c.circle((0.1, -0.2), 0.5, INK), math.pi * 0.25),
    "half a circle": (lambda c: c.circle((1, 0), 0.5, INK), math.pi * 0.125),
    "line": (lambda c: c.line((-0.5, -0.4), (0.43, 0.5), 0.2, INK), math.hypot(0.93, 0.9) * 0.2 + math.pi * 0.01),
    "line of no length": (lambda c: c.line((0, 0), (0, 0), 0.4, INK), math.pi * 0.04),
    "triangle": (lambda c: c.polygon(TRIANGLE, INK), 0.5 * abs(1.5 * 1.35 - 0.8 * 0.3)),
    "ring": (lambda c: (c.circle((0, 0), 0.8, INK), c.circle((0, 0), 0.4, WHITE)), math.pi * (0.64 - 0.16)),
    "nothing": (lambda c: c.circle((5, 5), 0.5, INK), 0.0),
    "nowhere": (lambda c: c.rectangle((math.nan, 0), (math.nan, 1), INK), 0.0),
}


@pytest.mark.parametrize(("draw", "area"), AREAS.values(), ids=AREAS)
def test_areas(draw, area):
    assert covered(drawn(draw)) == pytest.approx(area, abs=2e-3)


def test_a_picture_has_its_size_and_background():
    pixels = Canvas(7, 3, (0, 1), (0, 1), RED).pixels
    assert pixels.shape == (3, 7, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == RED).all()


def test_y_points_up_and_x_to_the_right():
    pixels = drawn(lambda c: c.rectangle((0, 0), (1, 1), BLUE)).pixels
    assert (pixels[: SIDE // 2, SIDE // 2 :] == BLUE).all()
    assert (pixels[SIDE // 2 :] == WHITE).all()
    assert (pixels[:, : SIDE // 2] == WHITE).all()
    flipped = Canvas(SIDE, SIDE, (1, -1), (1, -1))
    flipped.rectangle((0, 0), (1, 1), BLUE)
    np.testing.assert_array_equal(flipped.pixels, pixels[::-1, ::-1])


SYMMETRIC = {
    "circle": lambda c: c.circle((0, 0), 0.613, INK),
    "rectangle": lambda c: c.rectangle((-0.31, -0.57), (0.31, 0.57), INK),
    "cross": lambda c: (c.line((-0.5, -0.5), (0.5, 0.5), 0.13, INK), c.line((-0.5, 0.5), (0.5, -0.5), 0.13, INK)),
    "kite": lambda c: c.polygon([(-0.4, 0), (0, -0.613), (0.4, 0), (0, 0.613)], INK),
}


@pytest.mark.parametrize("draw", SYMMETRIC.values(), ids=SYMMETRIC)
def test_symmetry(draw):
    pixels = drawn(draw).pixels
    np.testing.assert_array_equal(pixels, pixels[:, ::-1])
    np.testing.assert_array_equal(pixels, pixels[::-1])


def test_a_polygon_by_brute_force():
    """A star that crosses itself: its middle is outside, by the even-odd rule."""
    corners = [(0.9 * math.sin(4 * math.pi * i / 5), 0.9 * math.cos(4 * math.pi * i / 5)) for i in range(5)]

    def inside(x: float, y: float) -> bool:
        """Whether the angle that the corners sweep around the point is an odd number of turns."""
        angles = [math.atan2(b - y, a - x) for a, b in corners]
        swept = sum(
            (after - before + math.pi) % (2 * math.pi) - math.pi
            for before, after in zip(angles, [*angles[1:], angles[0]], strict=True)
        )
        return round(swept / (2 * math.pi)) % 2 == 1

    side = 24
    canvas = plane(side, side)
    canvas.polygon(corners, INK)
    samples = [-1 + (i + 0.5) / side for i in range(2 * side)]
    found = np.array([[inside(x, -y) for x in samples] for y in samples], float)
    mean = found.reshape(side, 2, side, 2).mean((1, 3))
    assert found[side, side] == 0
    np.testing.assert_allclose(canvas.pixels[..., 0], 255 * (1 - mean), atol=0.51)


def test_a_corner_on_a_row_of_samples_counts_once():
    canvas = plane(4, 4)  # samples at odd eighths
    canvas.polygon([(-0.9, 0.125), (0, 0.9), (0.9, 0.125), (0, -0.9)], INK)
    kite = canvas.pixels[..., 0]
    assert (kite[1] == [128, 0, 0, 128]).all()
    np.testing.assert_array_equal(kite, kite[:, ::-1])


def test_edges_are_smooth():
    canvas = plane(2, 2)
    canvas.rectangle((-1, -1), (-0.5, 1), INK)  # half of the pixels on the left
    np.testing.assert_array_equal(canvas.pixels[..., 0], [[128, 255], [128, 255]])


def test_tiles_and_board():
    picture = raster.board(["AB", "BA"], {"A": GREEN, "B": YELLOW}, walker=(1, 0), size=10)
    assert picture.shape == (20, 20, 3)
    assert tuple(picture[5, 5]) == tuple(picture[15, 15]) == GREEN
    assert tuple(picture[5, 15]) == YELLOW
    assert tuple(picture[15, 5]) == RED
    assert (picture[[0, 10]] == LIGHT).all()
    assert (picture[:, [0, 10]] == LIGHT).all()
    disc = (picture[10:, :10] == RED).all(-1)
    np.testing.assert_array_equal(disc, disc[::-1, ::-1])
    assert disc.sum() == pytest.approx(math.pi * 3.6**2, abs=4)


def test_channels_show_the_last_that_is_set():
    observation = np.zeros((2, 2, 12), bool)
    observation[0, 1, [0, 3]] = True
    observation[1, 0, 11] = True
    picture = raster.channels(observation, size=2)
    assert picture.shape == (4, 4, 3)
    expected = [[BLACK, raster.COLORS[3]], [raster.COLORS[1], BLACK]]
    np.testing.assert_array_equal(picture[::2, ::2], expected)


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_resize_by_a_whole_number_is_the_mean(factor):
    picture = noise(4 * factor, 6 * factor)
    blocks = picture.reshape(4, factor, 6, factor, 3).astype(float).mean((1, 3))
    np.testing.assert_array_equal(raster.resize(picture, 4, 6), np.rint(blocks))
    np.testing.assert_array_equal(
        raster.resize(picture[:4, :6], 4 * factor, 6 * factor), picture[:4, :6].repeat(factor, 0).repeat(factor, 1)
    )


def test_resize_by_a_fraction_is_the_mean_of_the_area():
    picture = np.array([[[0, 0, 0], [90, 90, 90], [240, 240, 240]]], np.uint8)
    small = raster.resize(picture, 1, 2)[0, :, 0]
    assert small.tolist() == [(0 * 1 + 90 * 0.5) / 1.5, (90 * 0.5 + 240 * 1) / 1.5]
    big = noise(7, 11)
    enlarged = big.repeat(4, 0).repeat(3, 1).astype(float)
    np.testing.assert_allclose(
        raster.resize(big, 4, 3), enlarged.reshape(4, 7, 3, 11, 3).mean((1, 3)), rtol=0, atol=0.5 + 1e-9
    )


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_resize_keeps_a_colour(value):
    picture = np.full((13, 7, 3), value, np.uint8)
    assert (raster.resize(picture, 5, 3) == value).all()
    assert (raster.resize(picture, 29, 31) == value).all()


def decoded(text: str) -> np.ndarray:
    """The pixels that half blocks show: uint8 [2 lines, columns, 3]."""
    rows = []
    for line in text.split("\n"):
        upper, lower = [], []
        assert line.endswith("\x1b[0m")
        for codes, blocks in re.findall(r"\x1b\[([0-9;]+)m([^\x1b]*)", line):
            if codes == "0":
                assert not blocks
                continue
            numbers = [int(code) for code in codes.split(";")]
            assert (numbers[:2], numbers[5:7]) == ([38, 2], [48, 2])
            assert set(blocks) == {"▀"}
            upper += [numbers[2:5]] * len(blocks)
            lower += [numbers[7:]] * len(blocks)
        rows += [upper, lower]
    return np.array(rows, np.uint8)


SIZES = [(40, 60, 30, 10), (41, 67, 30, 9), (1, 1, 3, 2), (2, 50, 20, 1), (50, 1, 2, 50), (3, 2, 1, 1), (9, 9, 9, 4)]


@pytest.mark.parametrize(("height", "width", "columns", "lines"), SIZES)
def test_half_blocks_read_back(height, width, columns, lines):
    picture = noise(height, width)
    shown = decoded(raster.half_blocks(picture, columns))
    assert shown.shape == (2 * lines, columns, 3)
    np.testing.assert_array_equal(shown, raster.resize(picture, 2 * lines, columns))


def test_half_blocks_of_a_plain_picture_are_short():
    text = raster.half_blocks(np.full((20, 40, 3), 7, np.uint8), 40)
    assert text.count("\x1b[38") == 10
    assert text.count("▀") == 400


def test_shades_have_the_shape_and_leave_the_background_blank():
    canvas = plane()
    canvas.rectangle((0, 0), (1, 1), BLACK)
    lines = raster.shades(canvas.pixels, 20).split("\n")
    assert lines == [" " * 10 + "@" * 10] * 5 + [" " * 20] * 5
    assert set(raster.shades(np.full((5, 5, 3), 9, np.uint8), 4)) == {" ", "\n"}


def glyph(letter: str) -> np.ndarray:
    """bool [9, 7]: the letter's cell, one pixel a dot."""
    return (raster.text_frame(letter, 1) != WHITE).any(-1)


def test_every_letter_is_another():
    letters = [chr(code) for code in range(32, 127)]
    assert len({glyph(letter).tobytes() for letter in [*letters, "é"]}) == 96
    assert not glyph(" ").any()
    np.testing.assert_array_equal(glyph("é"), glyph("\u2580"))
    for letter in letters:
        assert glyph(letter).shape == (9, 7)
        assert not glyph(letter)[0].any()
        assert not glyph(letter)[:, [0, 6]].any()


def test_letters_as_a_person_draws_them():
    drawn = {
        "L": "#....|#....|#....|#....|#....|#....|#####|.....",
        "A": ".###.|#...#|#...#|#...#|#####|#...#|#...#|.....",
        "p": ".....|.....|#.##.|##..#|##..#|#.##.|#....|#....",
        "-": ".....|.....|.....|#####|.....|.....|.....|.....",
        "/": ".....|....#|...#.|..#..|.#...|#....|.....|.....",
    }
    for letter, rows in drawn.items():
        assert "|".join("".join(".#"[dot] for dot in row[1:6]) for row in glyph(letter)[1:].astype(int)) == rows
    for letter in "AHIMOTUVWXY8":
        np.testing.assert_array_equal(glyph(letter), glyph(letter)[:, ::-1])
    for letter in "BCDEHIKOX8":
        np.testing.assert_array_equal(glyph(letter)[1:8], glyph(letter)[7:0:-1])
    assert {letter for letter in map(chr, range(32, 127)) if glyph(letter)[8].any()} == set("gjpqy,;")


def test_text_is_laid_out_in_lines():
    frame = raster.text_frame("ab\nc", 1)
    assert frame.shape == (18, 13, 3)
    dots = (frame != WHITE).any(-1)
    np.testing.assert_array_equal(dots[:9, :7], glyph("a"))
    np.testing.assert_array_equal(dots[:9, 6:], glyph("b"))
    np.testing.assert_array_equal(dots[9:, :7], glyph("c"))
    assert not dots[9:, 7:].any()
    np.testing.assert_array_equal(raster.text_frame("ab\nc\n", 3), frame.repeat(3, 0).repeat(3, 1))
    assert raster.text_frame("").shape == (18, 2, 3)
    np.testing.assert_array_equal(raster.text_frame("\ta"), raster.text_frame(" " * 8 + "a"))


PLAIN = raster.text_frame("S", 1)
STYLES = {
    "background": ("\x1b[41m", BLACK, RED),
    "bright background": ("\x1b[104m", BLACK, BLUE),
    "ink": ("\x1b[32m", GREEN, WHITE),
    "bright ink and bold": ("\x1b[1;92m", GREEN, WHITE),
    "inverse": ("\x1b[7m", WHITE, BLACK),
    "inverse of colours": ("\x1b[33;44;7m", BLUE, YELLOW),
    "inverse and back": ("\x1b[7m\x1b[27m", BLACK, WHITE),
    "24 bits": ("\x1b[38;2;1;2;3;48;2;4;5;6m", (1, 2, 3), (4, 5, 6)),
    "of 256, left out": ("\x1b[48;5;41;32m", GREEN, WHITE),
    "reset": ("\x1b[41;7m\x1b[m", BLACK, WHITE),
    "default": ("\x1b[41;32m\x1b[39;49m", BLACK, WHITE),
    "no colour": ("\x1b[2K\x1b[?25l", BLACK, WHITE),
}


@pytest.mark.parametrize(("code", "ink", "paper"), STYLES.values(), ids=STYLES)
def test_escape_codes_are_drawn(code, ink, paper):
    frame = raster.text_frame(f"{code}S\x1b[0m S", 1)
    np.testing.assert_array_equal(frame[:, :7], np.where((PLAIN == WHITE).all(-1)[..., None], paper, ink))
    np.testing.assert_array_equal(frame[:, 12:], PLAIN)


def test_text_on_a_canvas_is_centred_and_may_leave_it():
    canvas = plane(60, 40)
    canvas.text((0, 0), "oHo", RED, size=2)
    red = (canvas.pixels == RED).all(-1)
    rows, columns = np.nonzero(red)
    assert not ((canvas.pixels != RED) & (canvas.pixels != WHITE)).any()
    assert abs(rows.min() + rows.max() - 39) <= 2
    assert abs(columns.min() + columns.max() - 59) <= 2
    dots = red[rows.min() : rows.max() + 1 : 2, columns.min() : columns.max() + 1 : 2]
    expected = np.hstack([glyph(letter)[1:8, 1:7] for letter in "oHo"])[:, :-1]  # no letter of it hangs below
    np.testing.assert_array_equal(dots, expected)
    for corner in [(-1, -1), (1, 1), (9, 0)]:
        canvas.text(corner, "outside", RED, size=3)
    canvas.text((0, 0), "")
