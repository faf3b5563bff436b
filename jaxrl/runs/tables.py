"""The picture of a table: values and greedy arrows on the environment's map, beside every action's value."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import files
from jaxrl.envs.layout import Move
from jaxrl.qtable import QTable
from jaxrl.runs import views
from jaxrl.runs.plot import INK, MUTED
from jaxrl.runs.views import View

_FILL = {"goal": "#ffffff", "hole": "#1f2430", "end": "#d1d5db", "wall": "#6b7280"}
_STAR, _PALE, _STRIPE = "#d55e00", "#eceef1", "#b6bcc6"  # a goal, and where nothing was learned
_CHOICES = ("#e69f00", "#0072b2", "#f0e442", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")  # Okabe and Ito's
_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
_LARGEST = 12  # inches of a map
_ROWS = 2_000  # columns of pixels that a table without a map is drawn in


def table_picture(
    path: str | Path, table: QTable, env: Any, params: Any = None, title: str = "", force: bool = False
) -> None:
    """Writes a PNG of a table that was learned on `env`.

    On a map: V with an arrow for each of the best actions, beside Q with one triangle an action. Where actions lead
    nowhere, as in Blackjack: the best action beside V. Without a map: Q of every state. Raises ValueError where a file
    is at `path`, unless `force`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = views.view(table, env, params)
    figure = Figure(dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or env.name, x=0.01, ha="left", color=INK, fontsize=12)
    if found is None:
        _draw_rows(figure, table)
    elif not found.moves:
        _draw_choices(figure, found)
    elif len(found.values) > 1:
        _draw_many(figure, found)
    else:
        _draw_map(figure, found)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    with files.whole(Path(path), force, remedy="choose another name, or force to replace it") as file:
        file.write(data.getvalue())


def arrows(view: View, panel: int = 0) -> np.ndarray:
    """[n, 4]: where an arrow starts and how far it goes, x, y, right, down, for each best action that moves.

    In cells, from the middle of the upper left one; a single arrow is centred, several leave the middle like a star.
    """
    found = []
    for row, column, action in np.argwhere(view.best[panel]).tolist():
        move = view.layout.actions[action]
        if not isinstance(move, str):
            alone = view.best[panel, row, column].sum() == 1
            start, length = (-0.26, 0.52) if alone else (0.1, 0.32)
            down, right = np.array(move) / math.hypot(*move)
            found.append((column + start * right, row + start * down, length * right, length * down))
    return np.array(found).reshape(-1, 4)


def sector(move: Move, moves: Sequence[Move]) -> np.ndarray:
    """[corners, 2]: x, y (downwards) of that part of a unit square around 0 which lies in the direction of `move`."""
    angles, mine = sorted(math.atan2(*other) for other in moves), math.atan2(*move)
    k = angles.index(mine)
    low = (angles[k - 1] - (math.tau if k == 0 else 0) + mine) / 2
    high = (angles[(k + 1) % len(angles)] + (math.tau if k == len(angles) - 1 else 0) + mine) / 2
    corners = [corner for corner in math.pi / 4 + math.pi / 2 * np.arange(-6, 6) if low < corner < high]
    rim = np.array([low, *corners, high])
    edge = np.stack([np.cos(rim), np.sin(rim)], 1)
    return np.concatenate([np.zeros((1, 2)), edge / np.abs(edge).max(axis=1, keepdims=True) / 2])


def _draw_map(figure: Any, view: View) -> None:
    rows, columns = view.values.shape[1:]
    wide = columns > 1.4 * rows
    cell = float(np.clip(7.6 / columns if wide else 4.6 / max(rows, columns), 0.42, 1.15))
    cell = min(cell, _LARGEST / max(rows, columns))
    width, height = columns * cell, rows * cell
    figure.set_size_inches(width + 1.7 if wide else 2 * width + 2.0, (2 * height + 1.9) if wide else height + 1.5)
    left, right = figure.subplots(2, 1) if wide else figure.subplots(1, 2)
    _draw_panel(left, view, 0, cell)
    left.set_title("value and best actions", loc="left", color=INK, fontsize=10)
    _draw_q(right, view, cell)
    right.set_title("value of each action", loc="left", color=INK, fontsize=10)
    _bar(figure, view, [left, right])
    _legend(figure, view)


def _draw_many(figure: Any, view: View) -> None:
    count, rows, columns = view.values.shape
    across = math.ceil(math.sqrt(count))
    cell = float(np.clip(2.6 / max(rows, columns), 0.3, 0.6))
    down = math.ceil(count / across)
    figure.set_size_inches(across * (columns * cell + 0.3) + 1.2, down * (rows * cell + 0.45) + 1.1)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for panel, axes in enumerate(grid):
        if panel >= count:
            axes.set_axis_off()
            continue
        _draw_panel(axes, view, panel, cell)
        axes.set_title(view.layout.titles[panel], loc="left", color=INK, fontsize=9)
    _bar(figure, view, list(grid))
    named = [name for name in view.layout.actions if isinstance(name, str)]
    _legend(figure, view, [_letter(name) for name in named])


def _draw_choices(figure: Any, view: View) -> None:
    from matplotlib.patches import Patch

    count, rows, columns = view.values.shape
    names = view.layout.actions
    both = len(names) > 1
    size = (4.6, 3.7) if view.span else (3.7, 3.7) if rows > 1 else (min(0.5 * columns + 1, 12), 1.3)
    figure.set_size_inches(size[0] * (1 + both) + 1.0, size[1] * count + 1.0)
    grid = figure.subplots(count, 1 + both, squeeze=False)
    colors = [_CHOICES[i % len(_CHOICES)] for i in range(len(names))]
    for panel in range(count):
        title = view.layout.titles[panel]
        if both:
            axes = grid[panel, 0]
            chosen = np.array([[int(c[1:][i : i + 2], 16) for i in (0, 2, 4)] for c in colors], np.uint8)
            best = view.best[panel]
            picture = np.where(best.any(-1)[..., None], chosen[best.argmax(-1)], 255).astype(np.uint8)
            _image(axes, view, panel, picture, ~best.any(-1))
            axes.set_title("best action" + (f", {title}" if title else ""), loc="left", color=INK, fontsize=10)
        axes = grid[panel, -1]
        _image(axes, view, panel, views.colors(view.values[panel], view.scale), np.isnan(view.values[panel]))
        axes.set_title("value" + (f", {title}" if title else ""), loc="left", color=INK, fontsize=10)
        for row, column in np.argwhere(np.isfinite(view.values[panel]) & (view.span is None)).tolist():
            value = view.values[panel, row, column]
            color = "#ffffff" if views.dark(views.colors(value, view.scale)) else INK
            text = _number(value, view.digits)
            _text(axes, column, row, text, color, 6, "center")
    _bar(figure, view, grid[:, -1].tolist())
    patches = [Patch(facecolor=c, label=str(name)) for c, name in zip(colors, names)] if both else []
    _legend(figure, view, patches)


def _draw_rows(figure: Any, table: QTable) -> None:
    q = np.where(table.visits > 0, table.q, np.nan) if table.visits.any() else table.q
    states, actions = q.shape
    scale = views.limits(table.values(), q)
    step = max(1, -(-states // _ROWS))
    figure.set_size_inches(float(np.clip(0.25 * states + 2.5, 5, 12)), float(np.clip(0.5 * actions + 1.6, 2.2, 8)))
    axes = figure.add_subplot()
    axes.set_facecolor(_PALE)
    shown = q[::step].T
    picture = np.concatenate([views.colors(shown, scale), np.where(np.isnan(shown), 0, 255)[..., None]], -1)
    extent = (-0.5, states - 0.5, actions - 0.5, -0.5)
    axes.imshow(picture.astype(np.uint8), aspect="auto", interpolation="nearest", extent=extent)
    axes.set_yticks(range(actions) if actions <= 30 else range(0, actions, actions // 10))
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("state" + (f" (every {step}th is drawn)" if step > 1 else ""), color=INK)
    axes.set_ylabel("action", color=INK)
    axes.set_title("value of each action, blank where it was never learned from", loc="left", color=INK, fontsize=10)
    _bare(axes)
    _colorbar(figure, scale, [axes], low=False)


def _draw_panel(axes: Any, view: View, panel: int, cell: float) -> None:
    """V, the marks and the arrows of one map."""
    values, best, actions = view.values[panel], view.best[panel], view.layout.actions
    colors = views.colors(values, view.scale)
    _image(axes, view, panel, colors, np.isnan(values), cell)
    ink = np.where(views.dark(colors), "#ffffff", INK)
    for action, name in enumerate(actions):
        if isinstance(name, str):
            for row, column in np.argwhere(best[..., action]).tolist():
                text, lower = name[0].upper() if cell < 0.7 else name, 0.22 * (best[row, column].sum() > 1)
                _text(axes, column, row + lower, text, ink[row, column], 9, "center", weight="bold")
    found = arrows(view, panel)
    if len(found):
        at = np.rint(found[:, :2]).astype(int)
        head = {"headwidth": 3.6, "headlength": 3.6, "headaxislength": 3.2, "width": 0.045 * cell, "units": "inches"}
        color = ink[at[:, 1], at[:, 0]]
        axes.quiver(*found.T, color=color, angles="xy", scale_units="xy", scale=1, zorder=4, **head)
    if cell >= 0.5:
        for row, column in np.argwhere(np.isfinite(values)).tolist():
            text = _number(values[row, column], view.digits)
            _text(axes, column + 0.46, row + 0.46, text, ink[row, column], 5.5 + 2 * cell, "right", va="bottom")


def _draw_q(axes: Any, view: View, cell: float) -> None:
    """Every action's value: a sector of the cell for each move, a square in its middle for an action that stays."""
    from matplotlib.collections import PolyCollection

    q, actions = view.q[0], view.layout.actions
    moves = [action for action in actions if not isinstance(action, str)]
    colors = views.colors(q, view.scale)
    _image(axes, view, 0, colors[..., 0, :], np.zeros(q.shape[:2], bool), cell)
    for action, move in enumerate(actions):
        shape = sector(move, moves) if not isinstance(move, str) else 0.2 * _CORNERS
        known = np.isfinite(q[..., action])
        for cells, edge, line, hatch in ((known, "#ffffff", 0.4, None), (~known, _STRIPE, 0.0, "////")):
            y, x = np.nonzero(cells & view.open(0))
            if len(x):
                face = colors[y, x, action] / 255 if hatch is None else _PALE
                shapes = list(shape + np.stack([x, y], 1)[:, None])
                style = {"facecolors": face, "edgecolors": edge, "hatch": hatch}
                axes.add_collection(PolyCollection(shapes, linewidths=line, **style))
        if cell >= 0.8 and len(moves) == 4 and not isinstance(move, str):
            for row, column in np.argwhere(known).tolist():
                ink = "#ffffff" if views.dark(colors[row, column, action]) else INK
                x, y = column + 0.335 * move[1], row + 0.335 * move[0]
                _text(axes, x, y, _number(q[row, column, action], view.digits), ink, 4 + 3 * cell, "center")


def _image(axes: Any, view: View, panel: int, colors: np.ndarray, unknown: np.ndarray, cell: float = 0.5) -> None:
    """Cells in their colours, hatched where nothing is known, and what stands there."""
    from matplotlib.collections import PolyCollection

    layout, (rows, columns) = view.layout, unknown.shape
    unknown = unknown & view.open(panel)
    colors = np.where(view.open(panel)[..., None], colors, 255)
    for mark, fill in [(unknown, _PALE), *((layout.marks == mark, fill) for mark, fill in _FILL.items())]:
        colors = np.where(mark[..., None], [int(fill[k : k + 2], 16) for k in (1, 3, 5)], colors)
    extent = view.span or (-0.5, columns - 0.5, rows - 0.5, -0.5)
    aspect = "auto" if view.span else "equal"
    axes.imshow(colors.astype(np.uint8), extent=extent, aspect=aspect, interpolation="nearest")
    if unknown.any():
        left, top = extent[0], extent[3]
        right, down = (extent[1] - left) / columns, (extent[2] - top) / rows
        boxes = [[(left + right * x, top + down * y) for x, y in box] for box in _boxes(unknown)]
        axes.add_collection(PolyCollection(boxes, facecolors="none", edgecolors=_STRIPE, hatch="////", linewidths=0))
    _bare(axes)
    axes.set_xlabel(layout.axes[1], color=INK)
    axes.set_ylabel(layout.axes[0], color=INK)
    if view.span:
        return
    axes.set_xticks(range(columns) if layout.ticks[1] else [], labels=map(str, layout.ticks[1]))
    axes.set_yticks(range(rows) if layout.ticks[0] else [], labels=map(str, layout.ticks[0]))
    axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="#ffffff", linewidth=0.8)
    axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="#ffffff", linewidth=0.8)
    for mark, sign, color in (("goal", "*", _STAR), ("hole", "x", MUTED)):
        y, x = np.nonzero(layout.marks == mark)
        axes.scatter(x, y, (14 * cell) ** 2, color, marker=sign, zorder=3, linewidths=1.5 * cell)
        if mark == "goal":
            frames = [0.47 * _CORNERS + place for place in zip(x, y)]
            axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors=_STAR, linewidths=1.5))
    for row, column in np.argwhere((layout.marks != "") & ~np.isin(layout.marks, list(_FILL))).tolist():
        text = "S" if layout.marks[row, column] == "start" else layout.marks[row, column]
        box = {"boxstyle": "round,pad=0.18", "facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.85}
        size = min(7, 14 * cell)
        _text(axes, column - 0.4, row - 0.4, text, INK, size, "left", va="top", weight="bold", bbox=box)
    for (row, column), (_, other) in layout.walls:
        axes.vlines((column + other) / 2, row - 0.5, row + 0.5, color=INK, linewidth=2.6, zorder=5)


def _boxes(cells: np.ndarray) -> list[list[tuple[int, int]]]:
    """Corners (x, y) of the runs of true cells in each row: fewer to draw than cells."""
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(int), axis=1)
    starts, ends = np.argwhere(edges == 1).tolist(), np.argwhere(edges == -1).tolist()
    return [[(x, y), (after, y), (after, y + 1), (x, y + 1)] for (y, x), (_, after) in zip(starts, ends)]


def _text(axes: Any, x: float, y: float, text: str, color: str, size: float, ha: str, **style: Any) -> None:
    style = {"va": "center", "zorder": 6, **style}
    axes.text(x, y, text, ha=ha, color=color, fontsize=size, in_layout=False, **style)


def _bar(figure: Any, view: View, axes: list[Any]) -> None:
    low = bool((view.q[np.isfinite(view.q)] < view.scale[0]).any()) and view.moves and len(view.values) == 1
    _colorbar(figure, view.scale, axes, low)


def _colorbar(figure: Any, scale: tuple[float, float], axes: list[Any], low: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    steps = views.colors(np.linspace(*scale, 256), scale) / 255
    source = ScalarMappable(Normalize(*scale), ListedColormap(steps))
    bar = figure.colorbar(source, ax=axes, extend="min" if low else "neither", fraction=0.05, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0, labelsize=8)
    bar.set_label("value", color=INK)


def _legend(figure: Any, view: View, also: list[Any] | None = None) -> None:
    """What the signs say, of those that are there."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found: list[Any] = list(also or [])
    marks = set(view.layout.marks.ravel().tolist())
    if "goal" in marks:
        found.append(Line2D([], [], color=_STAR, marker="*", markersize=9, linestyle="none", label="goal"))
    names = {"hole": "hole or cliff", "end": "end", "wall": "wall"}
    found += [Patch(facecolor=_FILL[mark], label=names[mark]) for mark in names if mark in marks]
    unknown = [np.isnan(view.values[panel]) & view.open(panel) for panel in range(len(view.values))]
    if np.any(unknown):
        found.append(Patch(facecolor=_PALE, edgecolor=_STRIPE, hatch="////", linewidth=0, label="never visited"))
    if found:
        figure.legend(
            handles=found, loc="outside lower left", ncols=len(found), frameon=False, labelcolor=INK, fontsize=9
        )


def _letter(name: str) -> Any:
    """A legend's line for an action that is drawn as its first letter."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, marker=f"${name[0].upper()}$", markersize=7, linestyle="none", label=name)


def _bare(axes: Any) -> None:
    axes.tick_params(colors=MUTED, length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _number(value: float, digits: int) -> str:
    return views.number(value, digits).replace("-", "\u2212")
