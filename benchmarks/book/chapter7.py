"""Chapter 7 of Sutton & Barto (2018): n-step prediction, and the 19-state random walk that chapter 12 measures too."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from book import common
from book.figure import COLORS, Figure
from jax import Array
from matplotlib.axes import Axes

import jaxrl
from jaxrl.types import Agent, PyTree

STATES, EPISODES, RUNS, LONGEST = 21, 10, 100, 1024
GO_ON = np.ones((STATES, 1))  # the only policy that the walk allows
ALPHAS = np.concatenate([np.arange(0, 0.1, 0.005), np.arange(0.1, 0.3, 0.02), np.arange(0.3, 1.01, 0.05)]).round(3)


def walk_errors(make: Callable[[PyTree], Agent], window: int, settings: PyTree) -> np.ndarray:
    """Root mean squared error over the 19 states, the mean over EPISODES and RUNS, for each setting [M].

    It is measured where an episode's last step was just learned from, which windows of n steps do n - 1 steps late:
    what was learned by then is what the book's loop has learned at the episode's end. Walks are the same for every
    learner: each begins after as many steps that fill its window with episodes of one step, which teach nothing, as
    all values are 0. A mean above 1 is given as 1. Raises RuntimeError for an episode longer than LONGEST.
    """
    env, params = jaxrl.make("RandomWalk19-v0")
    truth = jnp.asarray(jaxrl.planning.evaluate(jaxrl.tabular_mdp(env), 1.0, GO_ON).values, float)
    buffer, loop = jaxrl.recent(window, 1), jaxrl.LoopConfig(1, warmup=LONGEST)

    def alone(setting: Any, key: Array) -> tuple[Array, Array]:
        run = jaxrl.make_run(env, params, make(setting), buffer, loop)
        one_step = jaxrl.make_run(env, params.replace(max_steps_in_episode=1), make(setting), buffer, loop)

        def step(now: Any) -> Any:
            state, episodes, total, long = now
            state, metrics = run.step(state)
            oldest = buffer.sample(state.buffer, key, state.clock).window.terminated[0, 0]
            ended = metrics.get("learned_episodes", oldest)
            error = jnp.sqrt(jnp.mean(jnp.square(state.agent.q[1:-1, 0] - truth[1:-1])))
            total = total + jnp.where(ended > 0, error, 0)
            return state, episodes + ended.astype(jnp.int32), total, long | (state.episode_length[0] >= LONGEST)

        start = one_step.warmup(run.init(key)), jnp.int32(0), jnp.zeros((), float), jnp.zeros((), bool)
        _, _, total, long = jax.lax.while_loop(lambda now: now[1] < EPISODES, step, start)
        return total / EPISODES, long

    each = jax.vmap(alone, (0, None))  # what no setting changes, the walk and its windows, is computed once
    errors, long = jax.jit(lambda keys: jax.lax.map(lambda key: each(settings, key), keys))(common.keys(RUNS))
    if np.any(long):
        raise RuntimeError(f"an episode has more than {LONGEST} steps")
    return np.minimum(np.nan_to_num(np.mean(errors, axis=0), nan=1.0), 1.0)


def draw_errors(axes: Axes, curves: dict[str, list[float]], alphas: list[float]) -> None:
    """A curve for each setting, over step sizes, in the ranges of the book."""
    for (name, errors), color in zip(curves.items(), (*COLORS, "#1b1e23", "#c0c4cc"), strict=False):
        axes.plot(alphas, errors, color=color, label=name, linewidth=1.3)
    axes.set(xlabel="step size alpha", xlim=(0, 1), ylim=(0.25, 0.55))


def _n_step() -> dict[str, Any]:
    def make(alpha: Array) -> Agent:
        return jaxrl.q_learning(STATES, 1, gamma=1.0, alpha=alpha, policy=GO_ON)

    return {
        "alpha": ALPHAS,
        "error": {f"n = {n}": walk_errors(make, n, jnp.asarray(ALPHAS)) for n in (2**power for power in range(10))},
    }


def _draw_n_step(found: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    draw_errors(axes, found["error"], found["alpha"])
    axes.set_ylabel("RMS error over 19 states, first 10 episodes")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


FIGURES = {
    "7_2": Figure(
        "Figure 7.2: n-step TD on the 19-state random walk",
        f"mean of {RUNS} runs, as in the book; gamma 1",
        _n_step,
        _draw_n_step,
    ),
}
