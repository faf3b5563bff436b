"""A table in a terminal: its environment's map with values and arrows, or a line for each state."""

import sys
from collections.abc import Sequence

import numpy as np

from jaxrl.envs.layout import Move
from jaxrl.qtable import QTable
from jaxrl.runs import views
from jaxrl.runs.log import say
from jaxrl.runs.views import View

Line = list[tuple[str, str]]  # pieces of text, each in a style of rich

# an arrow for each move, and what stands for it where only ASCII can be written: as the keys of a number pad lie
_ARROWS = {
    (0, -1): "←<",
    (1, 0): "↓v",
    (0, 1): "→>",
    (-1, 0): "↑^",
    (-1, 1): "↗9",
    (-1, -1): "↖7",
    (1, 1): "↘3",
    (1, -1): "↙1",
}
_SIGNS = {"start": "S", "goal": "G", "hole": "H", "end": "-", "wall": "#"}
_CALLED = {"start": "start", "goal": "goal", "hole": "hole or cliff", "end": "end", "wall": "wall"}
_MOST = 4  # signs of best actions in a cell; more of them are a star
_LONGEST = 40  # lines of a table without a map


def drawn(view: View, width: int | None = None, unicode: bool = True) -> list[Line]:
    """A view in lines, its panels side by side where `width` has room for them; None: one below the other.

    A cell is its mark, a sign for each of its best actions, and its value; the value goes where the room is short.
    """
    signs = _signs(view, unicode)
    if view.span is not None:
        return [*_plane(view, signs), *_legend(view, signs)]
    blocks = [_panel(view, panel, signs, numbers=True) for panel in range(len(view.values))]
    if width is not None and _length(blocks[0][-1]) > width:
        blocks = [_panel(view, panel, signs, numbers=False) for panel in range(len(view.values))]
    size = max(_length(line) for block in blocks for line in block)
    across = 1 if width is None else max(1, (width + 3) // (size + 3))
    lines: list[Line] = []
    for first in range(0, len(blocks), across):
        lines += [[]] if first else []
        for beside in zip(*blocks[first : first + across], strict=True):
            lines.append([piece for line in beside for piece in (*line, (" " * (size - _length(line) + 3), ""))])
    return [*lines, *_legend(view, signs)]


def listed(table: QTable) -> list[Line]:
    """A table without a map, a line a state: a star at its best actions, - for what was never learned from."""
    known = table.visits > 0 if table.visits.any() else np.ones(table.q.shape, bool)
    best = views.best(table.q, np.ones(table.q.shape, bool))
    digits = views.digits(table.q)

    def cell(state: int, action: int) -> str:
        star = "*" if best[state, action] else " "
        return views.number(table.q[state, action], digits) + star if known[state, action] else "- "

    actions = range(table.q.shape[1])
    cells = [["state", *(f"{action} " for action in actions)]]
    cells += [[str(state), *(cell(state, action) for action in actions)] for state in range(len(table.q))[:_LONGEST]]
    sizes = [max(map(len, column)) for column in zip(*cells)]
    lines: list[Line] = [[("  ".join(map(str.rjust, row, sizes)).rstrip(), "")] for row in cells]
    more = len(table.q) - _LONGEST
    return [*lines, [(f"and {more} more states; --picture FILE.png draws all", "")]] if more > 0 else lines


def write(lines: Sequence[Line]) -> None:
    """Prints lines: in colour on a terminal that has it, unless NO_COLOR is set."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as printed:
        for line in lines:
            text = Text.assemble(*line) if console.is_terminal else Text("".join(part for part, _ in line).rstrip())
            console.print(text, soft_wrap=True)
    say(printed.get(), end="")


def _panel(view: View, panel: int, signs: Sequence[str], numbers: bool) -> list[Line]:
    """Title, what the columns are, and the rows: each starts with what it is."""
    layout, (rows, columns) = view.layout, view.values.shape[1:]
    marks = np.array([[_SIGNS.get(mark, mark) for mark in row] for row in layout.marks])
    stands, widest = view.open(panel), int(view.best[panel].sum(-1).clip(0, _MOST).max(initial=1)) * (len(signs) > 1)
    values = [[views.number(v, view.digits) if np.isfinite(v) else "" for v in row] for row in view.values[panel]]
    mark_size, value_size = max(map(len, marks.flat)), max(len(v) for row in values for v in row) if numbers else 0
    size = mark_size + widest + (value_size + 1 if numbers else 0)
    colors = views.colors(view.values[panel], view.scale)
    ticks = [list(map(str, names)) or [""] * count for names, count in zip(layout.ticks, (rows, columns))]
    left = max(map(len, ticks[0]))
    walls = {other for _, other in layout.walls}

    lines: list[Line] = []
    if layout.titles[panel]:
        lines.append([(layout.titles[panel], "bold")])
    if any(layout.axes):
        named = [f"{what}: {name}" for what, name in zip(("rows", "columns"), layout.axes) if name]
        lines.append([(", ".join(named), "")])
    if layout.ticks[1]:
        lines.append([(" " * left + "".join(" " + tick.rjust(size) for tick in ticks[1]), "")])
    for row in range(rows):
        line: Line = [(ticks[0][row].rjust(left), "")]
        for column in range(columns):
            line.append(("|" if (row, column) in walls else " ", ""))
            best = np.flatnonzero(view.best[panel, row, column]).tolist()
            if not stands[row, column]:
                line.append((marks[row, column].center(size), "dim"))
            elif not len(best):
                line.append((marks[row, column].ljust(mark_size) + "?".center(size - mark_size), "dim"))
            else:
                sign = "".join(signs[action] for action in best) if len(best) <= _MOST else "*"
                text = marks[row, column].ljust(mark_size) + sign.rjust(widest)
                text += " " + values[row][column].rjust(value_size) if numbers else ""
                line.append((text, _style(colors[row, column])))
        lines.append(line)
    return lines


def _plane(view: View, signs: Sequence[str]) -> list[Line]:
    """A plane, a character for two cells above each other."""
    left, right, bottom, top = view.span or (0, 0, 0, 0)
    up, across = view.layout.axes
    title = f"{up} from {top:.3g} down to {bottom:.3g}, {across} from {left:.3g} to {right:.3g}"
    others = view.layout.titles[0]
    colors = views.colors(view.values[0], view.scale)
    lines: list[Line] = [[(title + (f", {others}" if others else ""), "")]]
    for row in range(0, view.values.shape[1], 2):
        line: Line = []
        for best, color in zip(view.best[0, row], colors[row]):
            line.append((signs[int(best.argmax())], _style(color)) if best.any() else ("?", "dim"))
        lines.append(line)
    return lines


def _signs(view: View, unicode: bool) -> list[str]:
    """A letter for each action: its arrow, its initial, or its number where initials are shared; none for one alone."""
    actions = view.layout.actions
    if len(actions) == 1:
        return [""]
    taken = [_SIGNS.get(mark, mark) for mark in set(view.layout.marks.flat)]
    initials = [action[0].upper() for action in actions if isinstance(action, str)] + taken

    def sign(number: int, action: Move | str) -> str:
        if isinstance(action, str):
            initial = action[0].upper()
            return initial if initials.count(initial) == 1 else str(number)[-1]
        return _ARROWS[action][0 if unicode else 1] if action in _ARROWS else str(number)[-1]

    return [sign(number, action) for number, action in enumerate(actions)]


def _legend(view: View, signs: Sequence[str]) -> list[Line]:
    """What the letters mean, of those that are there."""
    marks = set(view.layout.marks.ravel().tolist())
    said = [f"{_SIGNS[mark]} {_CALLED[mark]}" for mark in _CALLED if mark in marks]
    said += [f"{sign} {name}" for sign, name in zip(signs, view.layout.actions) if sign and isinstance(name, str)]
    if (view.best.sum(-1) > _MOST).any():
        said.append(f"* more than {_MOST} actions")
    if any((view.open(panel) & ~view.best[panel].any(-1)).any() for panel in range(len(view.values))):
        said.append("? never visited")
    low, high = view.values[np.isfinite(view.values)].min(initial=np.inf), np.nanmax(view.values, initial=-np.inf)
    if np.isfinite(low):
        said.append(f"values {low:.4g} to {high:.4g}, the higher the lighter")
    return [[(", ".join(said), "")]] if said else []


def _style(color: np.ndarray) -> str:
    return f"{'bright_white' if views.dark(color) else 'black'} on rgb({','.join(map(str, color.tolist()))})"


def _length(line: Line) -> int:
    return sum(len(text) for text, _ in line)
