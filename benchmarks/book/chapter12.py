"""Chapter 12 of Sutton & Barto (2018): the 19-state random walk with eligibility traces."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from book.chapter7 import ALPHAS, GO_ON, LONGEST, RUNS, STATES, draw_errors, walk_errors
from book.figure import Figure
from matplotlib.axes import Axes

import jaxrl
from jaxrl.types import Agent, PyTree

LAMBDAS = (0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1)


def _curves(make: Callable[..., Agent], window: int) -> dict[str, np.ndarray]:
    """The errors of `make(alpha=, lambda_=, ...)` for every step size, by lambda."""
    lambdas, alphas = np.meshgrid(LAMBDAS, ALPHAS, indexing="ij")
    settings = {"alpha": jnp.asarray(alphas.ravel()), "lambda_": jnp.asarray(lambdas.ravel())}

    def agent(setting: PyTree) -> Agent:
        return make(STATES, 1, gamma=1.0, policy=GO_ON, **setting)

    errors = walk_errors(agent, window, settings)
    return {f"λ = {name:g}": curve for name, curve in zip(LAMBDAS, errors.reshape(alphas.shape))}


@functools.cache
def _off_line() -> dict[str, np.ndarray]:
    """The returns of an episode are those of the table at its end, before it moves: lambda 0 is not quite TD(0)."""
    return _curves(functools.partial(jaxrl.lambda_return, horizon=LONGEST), 1 + LONGEST)


def _beside(name: str, trace: str) -> Callable[[], dict[str, Any]]:
    """What computes the errors of traces of a kind, and those of the off-line algorithm."""

    def compute() -> dict[str, Any]:
        on_line = _curves(functools.partial(jaxrl.sarsa_lambda, trace=trace), 2)
        return {"alpha": ALPHAS, "error": {name: on_line, "off-line λ-return": _off_line()}}

    return compute


def _draw(found: dict[str, Any], panels: Sequence[Axes]) -> None:
    for axes, (name, curves) in zip(panels, found["error"].items()):
        draw_errors(axes, curves, found["alpha"])
        axes.set_title(name, fontsize=10)
    panels[0].set_ylabel("RMS error over 19 states, first 10 episodes")
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


_RUNS = f"mean of {RUNS} runs, walks the same for every curve; gamma 1"
FIGURES = {
    "12_3": Figure(
        "Figure 12.3: the off-line λ-return algorithm on the 19-state random walk",
        _RUNS,
        lambda: {"alpha": ALPHAS, "error": {"off-line λ-return": _off_line()}},
        _draw,
    ),
    "12_6": Figure(
        "Figure 12.6: TD(λ) on the 19-state random walk",
        _RUNS,
        _beside("TD(λ)", "accumulating"),
        _draw,
        panels=2,
    ),
    "12_8": Figure(
        "Figure 12.8: true online TD(λ) on the 19-state random walk",
        _RUNS,
        _beside("true online TD(λ)", "dutch"),
        _draw,
        panels=2,
    ),
}
