"""Chapter 2 of Sutton & Barto (2018): the ten-armed testbed."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from book import common
from book.figure import COLORS, Figure
from matplotlib.axes import Axes

import jaxrl
from jaxrl.envs.bandit import Params, testbed
from jaxrl.train import Run, RunState
from jaxrl.types import Metrics

RUNS, STEPS = 2000, 1000
EPSILONS = (0.0, 0.01, 0.1)
BUFFER = jaxrl.recent(1, 1)


def greedy_and_epsilon_greedy() -> dict[str, Any]:
    """Sample averages on bandits of their own, the same ones for each epsilon."""
    env, _ = jaxrl.make("Bandit-v0")
    bandit_keys, run_keys = common.keys(2 * RUNS).reshape(2, RUNS)
    bandits = jax.vmap(testbed)(bandit_keys)

    def make(setting: tuple[jax.Array, Params]) -> Run:
        epsilon, params = setting
        agent = jaxrl.q_learning(2, 10, gamma=0.0, alpha=1.0, alpha_power=1.0, epsilon=epsilon)
        return jaxrl.make_run(env, params, agent, BUFFER, jaxrl.LoopConfig(1))

    def see(setting: tuple[jax.Array, Params], state: RunState, metrics: Metrics) -> tuple[jax.Array, jax.Array]:
        pulled = BUFFER.sample(state.buffer, state.key, state.clock).window.action[0, 0]
        return metrics["return"], pulled == jnp.argmax(jnp.asarray(setting[1].means))

    @jax.jit
    def play(epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
        settings = jnp.full(RUNS, epsilon), bandits
        state = common.begin(make, settings, run_keys)
        reward, best = common.watch(make, settings, state, STEPS, see)[1]
        return jnp.mean(reward, axis=1), jnp.mean(best, axis=1)

    reward, best = zip(*(play(jnp.float32(epsilon)) for epsilon in EPSILONS), strict=True)
    return {
        "epsilon": EPSILONS,
        "reward": reward,
        "optimal_percent": 100 * np.array(best),
        "best_mean": np.stack(bandits.means, 1).max(1).mean(),
    }


def draw_testbed(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    left, right = panels
    left.axhline(data["best_mean"], color="#5a6270", linestyle="--", linewidth=1)
    left.text(STEPS, data["best_mean"] + 0.02, "always the best arm", ha="right", fontsize=8, color="#5a6270")
    names = ("ε = 0 (greedy)", "ε = 0.01", "ε = 0.1")
    colors = (COLORS[2], COLORS[1], COLORS[0])
    for name, color, reward, best in zip(names, colors, data["reward"], data["optimal_percent"], strict=True):
        left.plot(np.arange(1, STEPS + 1), reward, color=color, linewidth=1, label=name)
        right.plot(np.arange(1, STEPS + 1), best, color=color, linewidth=1, label=name)
    left.set(xlabel="steps", ylabel="average reward", ylim=(0, 1.7))
    right.set(xlabel="steps", ylabel="% optimal action", ylim=(0, 100))
    left.legend(loc="lower right", frameon=False)
    right.legend(loc="upper left", frameon=False)


FIGURES = {
    "2_2": Figure(
        "Figure 2.2: average performance of ε-greedy methods on the 10-armed testbed",
        f"mean of {RUNS:,} runs, each with a bandit problem of its own",
        greedy_and_epsilon_greedy,
        draw_testbed,
        panels=2,
    )
}
