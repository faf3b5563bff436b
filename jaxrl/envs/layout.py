"""Where the states of a table stand on paper: what a picture of one needs to know of its environment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Move = tuple[int, int]  # rows down, columns right
LETTERS = {".": "", "S": "start", "G": "goal", "H": "hole", "W": "wall"}


class Layout(NamedTuple):
    """Panels of cells, all with the same marks."""

    states: np.ndarray  # int [panels, rows, columns]: the observation that stands there, -1 where none does
    marks: np.ndarray  # str [rows, columns]: "", start, goal, hole, end or wall; anything else is written into its cell
    actions: tuple[Move | str, ...]  # of each action its move, or the name of one that leads nowhere on the map
    titles: tuple[str, ...] = ("",)  # of the panels
    axes: tuple[str, str] = ("", "")  # what the rows and the columns are
    ticks: tuple[Sequence[object], Sequence[object]] = ((), ())  # which ones; (): not said
    walls: tuple[tuple[Move, Move], ...] = ()  # pairs of neighbouring cells (row, column) that a wall parts
    allowed: np.ndarray | None = None  # bool [S, A], where an action mask forbids some


def on_map(letters: Sequence[str], actions: Sequence[Move | str], names: Mapping[str, str] = LETTERS) -> Layout:
    """A map whose cells are the states, row by row; `names` says what its letters mean, others mean themselves."""
    marks = np.array([[names.get(letter, letter) for letter in row] for row in letters])
    return Layout(np.arange(marks.size).reshape(1, *marks.shape), marks, tuple(actions))
