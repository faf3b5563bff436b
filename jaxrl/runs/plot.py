"""The picture of a run: return against environment steps."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import files

INK, MUTED, LINE, MARK = "#1f2430", "#6b7280", "#2563eb", "#c2410c"


def curve(path: Path, rows: list[dict[str, Any]], title: str, evaluation: dict[str, Any] | None = None) -> None:
    """Writes curve.png: each chunk's mean return, with the range over seeds as a band.

    `evaluation` is the summary's "eval": its mean is drawn as a level.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, returns = _series(rows)
    if len(steps):
        mean = returns.mean(axis=1)
        seeds = returns.shape[1]
        label = "return while training" + (f", mean of {seeds} seeds" if seeds > 1 else "")
        marker = "o" if len(steps) < 3 else None
        axes.plot(steps, mean, color=LINE, linewidth=1.8, marker=marker, label=label, zorder=3)
        if seeds > 1:
            low, high = returns.min(axis=1), returns.max(axis=1)
            label = "from the lowest to the highest seed"
            axes.fill_between(steps, low, high, color=LINE, alpha=0.18, linewidth=0, label=label)
    else:
        axes.text(0.5, 0.5, "no episode ended while training", transform=axes.transAxes, ha="center", color=MUTED)
    if evaluation is not None:
        label = f"greedy after training: {evaluation['mean']:.4g} ({evaluation['episodes']} episodes)"
        axes.axhline(evaluation["mean"], color=MARK, linewidth=1.4, linestyle=(0, (5, 3)), label=label, zorder=2)
    _style(axes, title, rows)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False, labelcolor=INK, fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    files.write(path, data.getvalue())


def _style(axes: Any, title: str, rows: list[dict[str, Any]]) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("environment steps" + (" of each seed" if rows and "per_seed" in rows[0] else ""), color=INK)
    axes.set_ylabel("episode return", color=INK)
    axes.set_xlim(0, rows[-1]["env_steps"] if rows else None)
    axes.margins(y=0.08)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")


def _series(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps [chunks] and returns [chunks, seeds], where an episode of every seed ended."""
    found = []
    for row in rows:
        returns = row["per_seed"]["return"] if "per_seed" in row else [row["return"]]
        if all(value is not None for value in returns):
            found.append((row["env_steps"], returns))
    if not found:
        return np.zeros(0), np.zeros((0, 1))
    return np.array([steps for steps, _ in found]), np.array([returns for _, returns in found], float)
