"""Chapter 6 of Sutton & Barto (2018): TD(0) and Monte Carlo predict a random walk of five states."""

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
from jaxrl import planning
from jaxrl.train import Run, RunState
from jaxrl.types import NO_LIMIT, Agent, Metrics, Sample, Transition

RUNS, EPISODES = 100, 100
TD_ALPHAS, MC_ALPHAS = (0.05, 0.1, 0.15), (0.01, 0.02, 0.03, 0.04)
LOOKS = (0, 1, 10, 100)
HORIZON = 120  # one walk in twenty million is longer
STEPS = 1500  # 100 walks take 900 on average, give or take 70
ONLY = np.ones((7, 1))  # the chances of the only action
ENV, PARAMS = jaxrl.make("RandomWalk-v0")
TD_BUFFER, MC_BUFFER = jaxrl.recent(1, 1), jaxrl.recent(HORIZON + 1, 1)


def truth() -> np.ndarray:
    """The values of A to E, 1/6 to 5/6."""
    return np.asarray(planning.evaluate(jaxrl.tabular_mdp(ENV), 1.0, ONLY).values)[1:6]


def rms(values: Array | np.ndarray) -> np.ndarray:
    """The root of the squared error's mean over the five states [..., 5]."""
    return np.sqrt(np.mean(np.square(np.asarray(values) - truth()), axis=-1))


def td(alpha: Array) -> Run:
    agent = jaxrl.q_learning(7, 1, gamma=1.0, alpha=alpha, policy=ONLY, initial=0.5)
    return jaxrl.make_run(ENV, PARAMS, agent, TD_BUFFER, jaxrl.LoopConfig(1))


def monte_carlo(alpha: Array, limit: int = NO_LIMIT) -> Run:
    """Constant-alpha Monte Carlo, equation 6.1: each visit moves its state towards the return."""
    agent = jaxrl.lambda_return(7, 1, horizon=HORIZON, gamma=1.0, lambda_=1.0, alpha=alpha, policy=ONLY, initial=0.5)
    return _of_whole_episodes(agent, limit)


def mean_of_returns(setting: Array, limit: int = NO_LIMIT) -> Run:
    """Batch Monte Carlo."""
    del setting
    agent = jaxrl.monte_carlo(
        7, 1, horizon=HORIZON, visit="every", alpha=1.0, alpha_power=1.0, policy=ONLY, initial=0.5
    )
    return _of_whole_episodes(agent, limit)


def _of_whole_episodes(agent: Agent, limit: int) -> Run:
    params = PARAMS.replace(max_steps_in_episode=limit)
    return jaxrl.make_run(ENV, params, agent, MC_BUFFER, jaxrl.LoopConfig(1, warmup=HORIZON))


def believed(state: RunState) -> Array:
    return state.agent.q[1:6, 0]


@partial(jax.jit, static_argnames=("make", "warm"))
def learned(make: common.Make, warm: common.Make, alphas: Array, keys: Array) -> Array:
    """V after each episode, [M, EPISODES + 1, 5]."""
    return common.watch_episodes(make, alphas, common.begin(warm, alphas, keys), EPISODES, believed)[1]


def td_and_monte_carlo() -> dict[str, Any]:
    def errors(make: common.Make, warm: common.Make, alphas: Sequence[float], seed: int) -> tuple[Any, Any]:
        every = jnp.repeat(jnp.float32(alphas), RUNS)
        values = learned(make, warm, every, common.keys(len(every), seed)).reshape(len(alphas), RUNS, EPISODES + 1, 5)
        return values, rms(values).mean(axis=1)

    values, td_error = errors(td, td, TD_ALPHAS, 0)
    _, mc_error = errors(monte_carlo, partial(monte_carlo, limit=1), MC_ALPHAS, 1)
    return {
        "true": truth(),
        "episodes": LOOKS,
        "values": values[TD_ALPHAS.index(0.1), 0, np.array(LOOKS)],
        "td_alpha": TD_ALPHAS,
        "td": td_error,
        "mc_alpha": MC_ALPHAS,
        "mc": mc_error,
    }


def draw_td_and_monte_carlo(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    left, right = panels
    left.plot(data["true"], color="#5a6270", linestyle="--", linewidth=1.2, marker="o", markersize=3)
    left.annotate("true values", (3.5, 0.77), (2.2, 0.79), fontsize=8, color="#5a6270")
    for color, episodes, values in zip(COLORS, data["episodes"], data["values"], strict=False):
        left.plot(values, color=color, marker="o", markersize=3.5, label=str(episodes))
    left.set_xticks(range(5), list("ABCDE"))
    left.set(xlabel="state", ylabel="estimated value", ylim=(0, 0.9))
    left.legend(title="after episodes", loc="upper left", frameon=False, fontsize=8, title_fontsize=8)
    styles = ("-", "--", ":", "-.")
    for kind, color in (("td", COLORS[0]), ("mc", COLORS[1])):
        for style, alpha, error in zip(styles, data[f"{kind}_alpha"], data[kind], strict=False):
            right.plot(error, color=color, linestyle=style, linewidth=1.4, label=f"{kind.upper()} α = {alpha}")
    right.set(xlabel="walks / episodes", ylabel="RMS error, averaged over states", xlim=(0, EPISODES), ylim=(0, 0.25))
    right.legend(loc="upper right", frameon=False, fontsize=8, ncols=2)


@partial(jax.jit, static_argnames=("make", "warm"))
def walked(make: common.Make, warm: common.Make, alphas: Array, keys: Array) -> tuple[Transition, Array, Array]:
    """Of each step [STEPS, M]: itself, whether a walk ended, and V [5] then."""

    def see(alpha: Array, state: RunState, metrics: Metrics) -> tuple[Transition, Array, Array]:
        del alpha
        window = MC_BUFFER.sample(state.buffer, state.key, state.clock).window
        newest = jax.tree.map(lambda leaf: leaf[0, -1], window._replace(carry=()))
        return newest, metrics["episodes"] > 0, believed(state)

    return common.watch(make, alphas, common.begin(warm, alphas, keys), STEPS, see)[1]


@jax.jit
@partial(jax.vmap, in_axes=(1, 0))
def batch_td(steps: Transition, ends: Array) -> Array:
    """V [EPISODES, 5] after all steps up to each end were learned from, again and again until nothing changes.

    Nothing but rounding: the sum of a thousand float32 errors is good to 1e-5.
    """
    agent = jaxrl.q_learning(7, 1, gamma=1.0, alpha=1.0, policy=ONLY, initial=0.5)
    index = jnp.arange(STEPS, dtype=jnp.int32)
    window = jax.tree.map(lambda leaf: leaf[:, None], steps)

    def settled(state: Any, end: Array) -> tuple[Any, Array]:
        sample = Sample(window, index, (index <= end).astype(jnp.float32))

        def again(carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, _ = carry
            after = agent.update(state, sample, jaxrl.key(0), jnp.float32(0))[0]
            return after, jnp.max(jnp.abs(after.q - state.q))

        state, _ = jax.lax.while_loop(lambda carry: carry[1] > 5e-5, again, (state, jnp.float32(1)))
        return state, state.q[1:6, 0]

    return jax.lax.scan(settled, agent.init(jaxrl.key(0), steps.obs[:1]), ends)[1]


def batch() -> dict[str, Any]:
    """Both learn from the same walks."""
    warm = partial(mean_of_returns, limit=1)
    steps, ended, values = walked(mean_of_returns, warm, jnp.ones(RUNS), common.keys(RUNS, 2))
    ends = np.stack([np.flatnonzero(run)[:EPISODES] for run in np.asarray(ended).T])
    mc = np.asarray(values)[ends, np.arange(RUNS)[:, None]]
    return {"td": rms(batch_td(steps, jnp.asarray(ends))).mean(axis=0), "mc": rms(mc).mean(axis=0)}


def draw_batch(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    for name, color in (("mc", COLORS[1]), ("td", COLORS[0])):
        axes.plot(range(1, EPISODES + 1), data[name], color=color, label=f"batch {name.upper()}")
    axes.set(xlabel="walks / episodes", ylabel="RMS error, averaged over states", xlim=(0, EPISODES), ylim=(0, 0.25))
    axes.legend(loc="upper right", frameon=False)


FIGURES = {
    "example_6_2": Figure(
        "Example 6.2: TD(0) and constant-α Monte Carlo on a random walk of five states",
        f"left: one run of TD(0), α = 0.1; right: mean of {RUNS} runs",
        td_and_monte_carlo,
        draw_td_and_monte_carlo,
        panels=2,
    ),
    "6_2": Figure(
        "Figure 6.2: batch TD(0) and batch Monte Carlo",
        f"mean of {RUNS} runs, both on the same walks",
        batch,
        draw_batch,
    ),
}
