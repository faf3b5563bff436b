"""Chapter 5 of Sutton & Barto (2018): Monte Carlo in blackjack, importance sampling."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from book import common
from book.figure import Figure
from jax import Array
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

import jaxrl
from jaxrl import behaviour, planning, wrappers
from jaxrl.envs.blackjack import blackjack
from jaxrl.train import Run
from jaxrl.types import NO_LIMIT, Agent

HORIZON = 12  # a hand of blackjack has at most 11 steps: two aces, nine more, a ten, and any card
ROWS = 704  # (player * 11 + dealer) * 2 + ace
ES_EPISODES, ES_ENVS, ES_UNROLL = 20_000_000, 512, 16
NATURALS = (21 * 11 + np.arange(1, 11)) * 2 + 1  # as what rows an ace and a ten are observed
SUMS = np.arange(ROWS) // 22
STICKS_ON_20 = np.where(SUMS[:, None] >= 20, [1.0, 0.0], [0.0, 1.0])  # chances of stick and hit
SHOWN = np.ix_(np.arange(21, 11, -1), np.arange(1, 11))  # player's sums, dealer's cards: the rows of a picture


def play(agent: Agent, num_envs: int, unroll: int, limit: int = NO_LIMIT) -> Run:
    """A run of blackjack by the book's rules; `limit` 1 makes it one to warm up with."""
    env, params = jaxrl.make("Blackjack-v1", max_steps_in_episode=limit)
    loop = jaxrl.LoopConfig(num_envs, unroll, warmup=HORIZON)
    buffer = jaxrl.recent(unroll + HORIZON, num_envs)
    return jaxrl.make_run(wrappers.index_observation(env), params, agent, buffer, loop)


def observed(first: np.ndarray, policy: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Exact values [32, 11, 2, A] of what is observed, where `first` chooses the first action and `policy` the others.

    A hand of ace and ten looks like any other 21 with a usable ace; its value differs.
    """
    mdp = jaxrl.tabular_mdp(blackjack())
    P, going = np.asarray(mdp.P), ~np.asarray(mdp.terminal)
    start = np.asarray(mdp.start)
    after = np.einsum("s,sa,sat->t", start, first, P) * going
    chain = np.einsum("sa,sat->st", policy, P) * going
    later = np.linalg.solve(np.eye(len(start)) - chain.T, after)
    visits = start[:, None] * first + later[:, None] * policy
    rows = np.concatenate([np.arange(ROWS), NATURALS, [0]])
    total, value = np.zeros((ROWS, 2)), np.zeros((ROWS, 2))
    np.add.at(total, rows[going], visits[going])
    np.add.at(value, rows[going], (visits * q)[going])
    return np.divide(value, total, out=np.zeros_like(value), where=total > 0).reshape(32, 11, 2, 2)


def shown(table: Any) -> list[np.ndarray]:
    """The pictures of a table [ROWS]: with a usable ace, without."""
    cells = np.asarray(table).reshape(32, 11, 2)
    return [cells[..., ace][SHOWN] for ace in (1, 0)]


def whole(policy: np.ndarray) -> np.ndarray:
    """A policy [ROWS, 2] for the states of the exact process."""
    return np.concatenate([policy, policy[NATURALS], [[1.0, 0.0]]])


def sticking_on_20() -> dict[str, Any]:
    agent = jaxrl.monte_carlo(ROWS, 2, horizon=HORIZON, alpha=1.0, alpha_power=1.0, policy=STICKS_ON_20)
    run = play(agent, 1, 1)

    @jax.jit
    def learned(key: Array) -> tuple[Array, Array]:
        warm = play(agent, 1, 1, limit=1)
        few = common.until(run, warm.warmup(warm.init(key)), 10_000)
        return few.agent.q[:, 0], common.until(run, few, 490_000).agent.q[:, 0]

    policy = whole(STICKS_ON_20)
    q = np.asarray(planning.evaluate(jaxrl.tabular_mdp(blackjack()), 1.0, policy).q)
    exact = shown(observed(policy, policy, q).reshape(ROWS, 2)[np.arange(ROWS), STICKS_ON_20.argmax(1)])
    episodes = (10_000, 500_000)
    values = [shown(table) for table in learned(jaxrl.key(0))]
    return {"episodes": episodes, "values": values, "exact": exact}


def heat_map(axes: Axes, values: Any, title: str, bar: bool) -> None:
    """Values of the player's sums 21 to 12 by the dealer's card."""
    image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    card_axes(axes, title)
    if bar and axes.figure is not None:
        axes.figure.colorbar(image, ax=axes, shrink=0.8, label="value")


def card_axes(axes: Axes, title: str) -> None:
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(10), ["A", *map(str, range(2, 11))])
    axes.set_yticks(range(10), [str(total) for total in range(21, 11, -1)])
    axes.set(xlabel="dealer showing", ylabel="player sum")
    axes.set_title(title, fontsize=9)


def draw_sticking_on_20(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    tables = [(n, *each) for n, pair in zip(data["episodes"], data["values"]) for each in zip(pair, data["exact"])]
    names = 2 * ("usable ace", "no usable ace")
    for axes, name, (episodes, values, exact) in zip(panels, names, tables, strict=True):
        error = np.sqrt(np.mean(np.square(np.subtract(values, exact))))
        heat_map(axes, values, f"{name}, after {episodes:,} episodes\nRMS error {error:.3f}", bar=axes is panels[-1])


def exploring_starts() -> dict[str, Any]:
    """Every hand's first action is drawn blindly, the others are greedy; returns of all policies are averaged."""
    agent = jaxrl.monte_carlo(
        ROWS, 2, horizon=HORIZON, alpha=1.0, alpha_power=1.0, behaviour=behaviour.exploring_starts()
    )
    run, warm = (play(agent, ES_ENVS, ES_UNROLL, limit) for limit in (NO_LIMIT, 1))
    q = np.asarray(
        jax.jit(lambda key: common.until(run, warm.warmup(warm.init(key)), ES_EPISODES).agent.q)(jaxrl.key(0))
    )
    best = planning.policy_iteration(jaxrl.tabular_mdp(blackjack()), 1.0)
    policy = np.eye(2)[np.asarray(best.policy)]
    exact = observed(np.full(policy.shape, 0.5), policy, np.asarray(best.q)).reshape(ROWS, 2)
    return {
        "hits": shown(q.argmax(1)),
        "exact_hits": shown(np.asarray(best.policy)[:ROWS]),
        "values": shown(q.max(1)),
        "exact": shown(exact[np.arange(ROWS), np.asarray(best.policy)[:ROWS]]),
        "gap": shown(np.abs(exact[:, 0] - exact[:, 1])),
    }


def draw_exploring_starts(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    names = ("usable ace", "no usable ace")
    for axes, name, hits, exact, gap in zip(
        panels[:2], names, data["hits"], data["exact_hits"], data["gap"], strict=True
    ):
        hits, exact = np.array(hits), np.array(exact)
        axes.imshow(hits, cmap=ListedColormap(("#dbe3f7", "#ffd9d2")), vmin=0, vmax=1, aspect="auto")
        differing = np.argwhere(hits != exact)
        for row, column in differing:
            axes.text(column, row, f"×\n{np.array(gap)[row, column]:.3f}", ha="center", va="center", fontsize=7)
        title = f"π*, {name}: {len(differing)} of 100 differ from the exact policy"
        card_axes(axes, title)
        _outline(axes, exact)
        for word, cells in (("STICK", exact == 0), ("HIT", exact == 1)):
            row, column = np.argwhere(cells).mean(0)
            axes.text(column, row, word, ha="center", va="center", fontsize=10, color="#5a6270")
    for axes, name, values, exact in zip(panels[2:], names, data["values"], data["exact"], strict=True):
        error = np.sqrt(np.mean(np.square(np.subtract(values, exact))))
        heat_map(axes, values, f"v*, {name}: RMS error {error:.4f}", bar=axes is panels[-1])


def _outline(axes: Axes, cells: np.ndarray) -> None:
    """A line wherever two neighbours differ."""
    for row, column in np.argwhere(np.diff(cells, axis=0)):
        axes.plot((column - 0.5, column + 0.5), (row + 0.5, row + 0.5), color="black", linewidth=1.6)
    for row, column in np.argwhere(np.diff(cells, axis=1)):
        axes.plot((column + 0.5, column + 0.5), (row - 0.5, row + 0.5), color="black", linewidth=1.6)


FIGURES = {
    "5_1": Figure(
        "Figure 5.1: the value of the blackjack policy that sticks only on 20 or 21",
        "one run of first-visit Monte Carlo; errors against the exact values",
        sticking_on_20,
        draw_sticking_on_20,
        panels=4,
    ),
    "5_2": Figure(
        "Figure 5.2: the optimal policy and state-value function for blackjack, found by Monte Carlo ES",
        f"one run of {ES_EPISODES:,} hands, dealt from the deck; black lines: the exact optimal policy",
        exploring_starts,
        draw_exploring_starts,
        panels=4,
    ),
}
