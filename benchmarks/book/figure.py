"""What a figure of the book is: numbers to compute, and how they are drawn."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

COLORS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#9c6b4e", "#9498a0")
FOLDER = Path(__file__).parents[1] / "figures" / "book"


class Figure(NamedTuple):
    """One figure or example of Sutton & Barto (2018)."""

    title: str
    runs: str  # how many runs each curve is the mean of, and what else was made smaller than the book's
    compute: Callable[[], dict[str, Any]]  # names -> numbers, or nested lists or arrays of them
    draw: Callable[[dict[str, Any], Sequence[Axes]], None]  # (what compute gave, read back from the file; the panels)
    panels: int = 1


def make(name: str, figure: Figure, folder: Path = FOLDER) -> float:
    """Writes NAME.json and NAME.png; returns the seconds that the numbers took."""
    start = time.perf_counter()
    found = figure.compute()
    seconds = time.perf_counter() - start
    record = {"figure": name, "title": figure.title, "runs": figure.runs, "seconds": round(seconds, 1)}
    data = folder / f"{name}.json"
    measure.write(data, {**record, **measure.circumstances("matplotlib"), "data": _plain(found)}, indent=None)
    draw(name, figure, folder)
    return seconds


def draw(name: str, figure: Figure, folder: Path = FOLDER) -> None:
    """The picture again, from the file of numbers."""
    record = json.loads((folder / f"{name}.json").read_text())
    canvas = Canvas(figsize=(1.6 + 4.4 * figure.panels, 4.0), dpi=110, layout="constrained")
    panels = list(np.atleast_1d(canvas.subplots(1, figure.panels)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_prop_cycle(color=COLORS)
    figure.draw(record["data"], panels)
    canvas.suptitle(f"{figure.title}\n", fontsize=11)
    canvas.text(0.5, 0.925, figure.runs, ha="center", fontsize=8, color="#5a6270")
    canvas.savefig(folder / f"{name}.png")


def _plain(value: Any) -> Any:
    """Numbers with five digits, which a picture needs no more of."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.ndim:
        return [_plain(item) for item in array]
    number = array.item()
    return float(f"{number:.5g}") if isinstance(number, float) else number
