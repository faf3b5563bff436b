"""Chapter 6 of Sutton & Barto (2018): temporal-difference control."""

from collections.abc import Callable, Sequence
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
from jaxrl.train import Run, RunState
from jaxrl.types import Agent


@partial(jax.jit, static_argnames=("learner", "episodes", "runs"))
def _lengths(learner: Callable[..., Agent], episodes: int, runs: int) -> Array:
    """[runs, episodes]: how many steps each took; right from A is one."""
    env, params = jaxrl.make("MaximizationBias-v0")

    def make(alpha: Array) -> Run:
        agent = learner(3, params.num_arms, gamma=1.0, alpha=alpha, epsilon=0.1)
        return jaxrl.make_run(env, params, agent, jaxrl.recent(1, 1), jaxrl.LoopConfig(1))

    alphas = jnp.full(runs, 0.1)
    start = common.begin(make, alphas, common.keys(runs))
    return jnp.diff(common.watch_episodes(make, alphas, start, episodes, lambda state: state.clock)[1])


def _maximization_bias() -> dict[str, Any]:
    learners = {"Q-learning": jaxrl.q_learning, "double Q-learning": jaxrl.double_q_learning}
    left = {name: 100 * np.mean(_lengths(learner, 300, 10_000) == 2, axis=0) for name, learner in learners.items()}
    return {"left": left, "optimum": 5.0}


def _draw_maximization_bias(found: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    for (name, left), color, place in zip(found["left"].items(), COLORS[1::-1], ((84, 64), (46, 20))):
        axes.plot(range(1, len(left) + 1), left, color=color)
        axes.annotate(name, place, color=color)
    axes.axhline(found["optimum"], color="#5a6270", linestyle="--", linewidth=1)
    axes.annotate("optimal", (300, 1), ha="right", va="center", fontsize=8, color="#5a6270")
    axes.set(xlabel="episodes", ylabel="left actions from A (%)", xlim=(1, 300), ylim=(-1, 100))
    axes.set_xticks([1, 100, 200, 300])
    axes.set_yticks([5, 25, 50, 75, 100])


ALPHAS = np.arange(0.1, 1.01, 0.05).round(2)
LIMIT = 10_000  # steps of an episode
RUNS, LATE = 1000, (1000, 10_000)  # what is skipped, what is counted: after it nothing changes but by chance
CLIFF = {  # name -> (learner, window)
    "Q-learning": (jaxrl.q_learning, 1),
    "SARSA": (jaxrl.sarsa, 2),
    "expected SARSA": (jaxrl.expected_sarsa, 1),
}


@partial(jax.jit, static_argnames=("name", "skip", "episodes"))
def _returns(name: str, settings: Array, keys: Array, skip: int, episodes: int) -> tuple[Array, Array]:
    """The mean return of each run's first `episodes` episodes after `skip`, [M], and how many met the limit, []."""
    env, params = jaxrl.make("CliffWalking-v1")
    params = params.replace(max_steps_in_episode=LIMIT)
    learner, window = CLIFF[name]

    def make(alpha: Array) -> Run:
        agent = learner(48, 4, gamma=1.0, alpha=alpha, epsilon=0.1)
        return jaxrl.make_run(env, params, agent, jaxrl.recent(window, 1), jaxrl.LoopConfig(1, warmup=window - 1))

    def step(alpha: Array, state: RunState, total: Array, number: Array, cut: Array) -> tuple[Any, ...]:
        state, seen = make(alpha).step(state)
        counts = (number >= skip) & (number < skip + episodes)
        total = total + jnp.where(counts, seen["return"], 0)
        cut = cut + (counts & (seen["length"] >= LIMIT))
        return state, total, number + seen["episodes"].astype(jnp.int32), cut

    none = jnp.zeros(len(keys), jnp.int32)
    start = common.begin(make, settings, keys), jnp.zeros(len(keys)), none, none
    axes = make(settings[0]).axes
    steps = jax.vmap(step, (0, axes, 0, 0, 0), (axes, 0, 0, 0))
    more = (lambda now: jnp.any(now[2] < skip + episodes)), (lambda now: steps(settings, *now))
    _, total, _, cut = jax.lax.while_loop(*more, start)
    return total / episodes, jnp.sum(cut)


def _cliff() -> dict[str, Any]:
    mdp = jaxrl.tabular_mdp(jaxrl.make("CliffWalking-v1")[0])
    best = jaxrl.explore.epsilon_greedy_probabilities(jaxrl.planning.q_learning(mdp, 1.0).q, 0.1)
    soft = jaxrl.explore.epsilon_greedy_probabilities(jaxrl.planning.sarsa(mdp, 1.0, 0.1).q, 0.1)
    found: dict[str, Any] = {"alpha": ALPHAS, "interim": {}, "asymptotic": {}, "episodes cut": 0}
    found["exact"] = {
        name: mdp.start @ jaxrl.planning.evaluate(mdp, 1.0, policy).values
        for name, policy in (("ε-greedy in Q*", best), ("best ε-soft policy", soft))
    }
    for name in CLIFF:
        early = [_returns(name, jnp.full(RUNS, alpha), common.keys(RUNS), 0, 100) for alpha in ALPHAS]
        late, cut = _returns(name, jnp.repeat(jnp.asarray(ALPHAS), 10), common.keys(10 * len(ALPHAS)), *LATE)
        found["interim"][name] = [returns.mean() for returns, _ in early]
        found["asymptotic"][name] = late.reshape(len(ALPHAS), 10).mean(1)
        found["episodes cut"] += sum(int(cut) for cut in (cut, *(cut for _, cut in early)))
    return found


def _draw_cliff(found: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    for name, color in zip(("expected SARSA", "SARSA", "Q-learning"), COLORS):
        axes.plot(found["alpha"], found["asymptotic"][name], color=color, marker="o", markersize=3, label=name)
        axes.plot(found["alpha"], found["interim"][name], color=color, marker="o", markersize=3, linestyle=":")
    for (name, value), place, side in zip(found["exact"].items(), (0.105, 0.995), ("left", "right")):
        axes.axhline(value, color="#5a6270", linestyle="--", linewidth=1)
        axes.annotate(f"exact: {name}", (place, value - 1.5), ha=side, va="top", fontsize=8, color="#5a6270")
    axes.plot([], [], color="#5a6270", label="asymptotic")
    axes.plot([], [], color="#5a6270", linestyle=":", label="interim: first 100 episodes")
    axes.set(xlabel="step size alpha", ylabel="sum of rewards per episode", xlim=(0.1, 1), ylim=(-160, 0))
    axes.legend(fontsize=8, loc="lower center")


FIGURES = {
    "6_3": Figure(
        "Figure 6.3: TD control on the cliff, by step size",
        f"interim {RUNS:,} runs; asymptotic 10, episodes {LATE[0]:,} to {sum(LATE):,} (book: 100,000), "
        f"at most {LIMIT:,} steps each",
        _cliff,
        _draw_cliff,
    ),
    "6_5": Figure(
        "Figure 6.5: the maximization bias of Q-learning",
        "mean of 10,000 runs, as in the book; 10 actions in B, alpha = epsilon = 0.1, gamma 1",
        _maximization_bias,
        _draw_maximization_bias,
    ),
}
