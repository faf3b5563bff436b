"""Chapter 8 of Sutton & Barto (2018): planning and learning."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from book import common
from book.figure import COLORS, Figure
from jax import Array
from matplotlib.axes import Axes

import jaxrl
from jaxrl.train import Run

PLANNING, EPISODES, RUNS = (0, 5, 50), 50, 30


@partial(jax.jit, static_argnames="planning")
def _steps(planning: int) -> Array:
    """[RUNS, EPISODES]: how many steps each took."""
    env, params = jaxrl.make("DynaMaze-v0")

    def make(alpha: Array) -> Run:
        agent = jaxrl.dyna_q(
            env.observation_space(params).n, 4, gamma=0.95, alpha=alpha, epsilon=0.1, planning=planning
        )
        return jaxrl.make_run(env, params, agent, jaxrl.recent(1, 1), jaxrl.LoopConfig(1))

    alphas = jnp.full(RUNS, 0.1)
    start = common.begin(make, alphas, common.keys(RUNS))
    return jnp.diff(common.watch_episodes(make, alphas, start, EPISODES, lambda state: state.clock)[1])


def _dyna() -> dict[str, Any]:
    mdp = jaxrl.tabular_mdp(jaxrl.make("DynaMaze-v0")[0])
    value = float(jaxrl.planning.value_iteration(mdp, 0.95).values @ mdp.start)
    shortest = 1 + np.log(value) / np.log(0.95)  # gamma^(steps - 1) is what the goal's 1 is worth at the start
    return {"shortest": shortest, "steps": {f"{n} planning steps": _steps(n).mean(0) for n in PLANNING}}


def _draw_dyna(found: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    for (name, steps), color in zip(found["steps"].items(), COLORS):
        axes.plot(range(2, 1 + len(steps)), steps[1:], color=color, label=name)
    axes.axhline(found["shortest"], color="#5a6270", linestyle="--", linewidth=1, label="shortest path")
    axes.set(xlabel="episodes", ylabel="steps per episode", xlim=(1, 50), ylim=(0, 820))
    axes.set_xticks([2, 10, 20, 30, 40, 50])
    axes.set_yticks([14, 200, 400, 600, 800])
    axes.legend(fontsize=9)


FIGURES = {
    "8_2": Figure(
        "Figure 8.2: Dyna-Q in the maze, n planning steps a real one",
        f"mean of {RUNS} runs, as in the book; alpha = epsilon = 0.1, gamma 0.95",
        _dyna,
        _draw_dyna,
    ),
}
