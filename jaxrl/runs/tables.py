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
_SIGN = {"goal": "★", "hole": "✕", "end": "", "wall": "", "start": "S"}
_STAR, _PALE, _STRIPE = "#d55e00", "#eceef1", "#b6bcc6"  # a goal, and where nothing was learned
_CHOICES = ("#e69f00", "#0072b2", "#f0e442", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")  # Okabe and Ito's
_PALE_RGB = np.array([236, 238, 241], np.uint8)
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
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
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
    values = view.values[panel]
    colors = views.colors(values, view.scale)
    _image(axes, view, panel, colors, np.isnan(values))
    ink = np.where(views.dark(colors), "#ffffff", INK)
    star = view.best[panel].sum(-1) > 1
    for row, column in np.argwhere(view.best[panel].any(-1)).tolist():
        named = [a for a, b in zip(view.layout.actions, view.best[panel, row, column]) if b and isinstance(a, str)]
        if named:
            text = "\n".join(name[0].upper() if cell < 0.7 else name for name in named)
            place = (column, row + (0.0 if not star[row, column] else 0.22))
            axes.text(*place, text, ha="center", va="center", fontsize=9, weight="bold", color=ink[row, column])
    found = arrows(view, panel)
    if len(found):
        at = np.rint(found[:, :2]).astype(int)
        axes.quiver(
            *found.T,
            color=ink[at[:, 1], at[:, 0]],
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.045 * cell,
            units="inches",
            headwidth=3.6,
            headlength=3.6,
            headaxislength=3.2,
            zorder=4,
        )
    if cell >= 0.5:
        for row, column in np.argwhere(np.isfinite(values)).tolist():
            text, place = _number(values[row, column], view.digits), (column + 0.46, row + 0.46)
            axes.text(*place, text, ha="right", va="bottom", fontsize=5.5 + 2 * cell, color=ink[row, column])


def _draw_q(axes: Any, view: View, cell: float) -> None:
    """Every action's value: a sector of the cell for each move."""
    from matplotlib.collections import PolyCollection

    actions = view.layout.actions
    moves = [action for action in actions if not isinstance(action, str)]
    q = view.q[0]
    _image(axes, view, 0, np.full((*q.shape[:2], 3), 255, np.uint8), np.zeros(q.shape[:2], bool))
    shapes, faces, pale, middles = [], [], [], []
    for row, column in np.argwhere(_open(view, 0)).tolist():
        for action, move in enumerate(actions):
            inner = isinstance(move, str)
            shape = 0.2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) if inner else sector(move, moves)
            known = np.isfinite(q[row, column, action])
            (shapes if known else pale).append(shape + (column, row))
            if known:
                faces.append(views.colors(q[row, column, action], view.scale))
                middle = (
                    shape.mean(0) if len(moves) != 4 else np.array(move[::-1], float) * 0.335 if not inner else (0, 0)
                )
                middles.append((column, row, middle, q[row, column, action]))
    lines = {"edgecolors": "#ffffff", "linewidths": 0.4}
    if pale:
        axes.add_collection(PolyCollection(pale, facecolors=_PALE, edgecolors=_STRIPE, hatch="////", linewidths=0.0))
    if shapes:
        axes.add_collection(PolyCollection(shapes, facecolors=np.array(faces) / 255, **lines))
    if cell >= 0.8 and len(moves) == 4:
        for (column, row, middle, value), face in zip(middles, faces):
            ink = "#ffffff" if views.dark(face) else INK
            text = _number(value, view.digits)
            axes.text(
                column + middle[0], row + middle[1], text, ha="center", va="center", fontsize=4 + 3 * cell, color=ink
            )


def _image(axes: Any, view: View, panel: int, colors: np.ndarray, unknown: np.ndarray) -> None:
    """Cells in their colours, hatched where nothing is known, and what stands there."""
    from matplotlib.collections import PolyCollection

    rows, columns = colors.shape[:2]
    unknown = unknown & _open(view, panel)
    colors = np.where(_open(view, panel)[..., None], np.where(unknown[..., None], _PALE_RGB, colors), 255).astype(
        np.uint8
    )
    extent = view.span or (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(colors, extent=extent, interpolation="nearest", aspect="auto" if view.span else "equal")
    if unknown.any():
        right, down = (extent[1] - extent[0]) / columns, (extent[2] - extent[3]) / rows
        boxes = [_box(extent[0], extent[3], right, down, *run) for run in _runs(unknown)]
        axes.add_collection(PolyCollection(boxes, facecolors="none", edgecolors=_STRIPE, hatch="////", linewidths=0))
    _bare(axes)
    layout = view.layout
    if view.span:
        axes.set(xlabel=layout.axes[1], ylabel=layout.axes[0])
        return
    axes.set_xticks(range(columns) if layout.ticks[1] else [], labels=map(str, layout.ticks[1]))
    axes.set_yticks(range(rows) if layout.ticks[0] else [], labels=map(str, layout.ticks[0]))
    axes.set_xlabel(layout.axes[1], color=INK)
    axes.set_ylabel(layout.axes[0], color=INK)
    for k in range(1, columns):
        axes.axvline(k - 0.5, color="#ffffff", linewidth=0.8)
    for k in range(1, rows):
        axes.axhline(k - 0.5, color="#ffffff", linewidth=0.8)
    for (row, column), mark in np.ndenumerate(layout.marks):
        _draw_mark(axes, row, column, mark)
    for (row, column), (_, other) in layout.walls:
        x = (column + other) / 2
        y = (row - 0.5, row + 0.5)
        axes.plot((x, x), y, color=INK, linewidth=2.6, solid_capstyle="butt", zorder=5)


def _runs(cells: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, first column, column after the last) of the runs of true cells: fewer to draw than cells."""
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(int), axis=1)
    starts, ends = np.argwhere(edges == 1).tolist(), np.argwhere(edges == -1).tolist()
    return [(row, first, after) for (row, first), (_, after) in zip(starts, ends)]


def _box(left: float, top: float, right: float, down: float, row: int, first: int, after: int) -> np.ndarray:
    x, y = left + right * np.array([first, after, after, first]), top + down * np.array([row, row, row + 1, row + 1])
    return np.stack([x, y], 1)


def _draw_mark(axes: Any, row: int, column: int, mark: str) -> None:
    from matplotlib.patches import Rectangle

    if mark in _FILL:
        edge = _STAR if mark == "goal" else _FILL[mark]
        corner = (column - 0.47, row - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=_FILL[mark], edgecolor=edge, linewidth=1.5, zorder=3))
        color = _STAR if mark == "goal" else MUTED
        axes.text(column, row, _SIGN[mark], ha="center", va="center", color=color, fontsize=14, zorder=4)
    elif mark:
        text = _SIGN.get(mark, mark)
        box = {"boxstyle": "round,pad=0.18", "facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.85}
        place = (column - 0.4, row - 0.4)
        axes.text(*place, text, ha="left", va="top", fontsize=7, weight="bold", color=INK, bbox=box, zorder=6)


def _open(view: View, panel: int) -> np.ndarray:
    """bool [rows, columns]: where a state stands that has values."""
    return (view.layout.states[panel] >= 0) & ~np.isin(view.layout.marks, list(_FILL))


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
    unknown = [np.isnan(view.values[panel]) & _open(view, panel) for panel in range(len(view.values))]
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
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\u2212")  # no minus at zero
