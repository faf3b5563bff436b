"""Chapter 5 of Sutton & Barto (2018): Monte Carlo in blackjack, importance sampling."""

import dataclasses
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
from matplotlib.colors import ListedColormap

import jaxrl
from jaxrl import behaviour, planning, spaces, wrappers
from jaxrl.envs.api import PureEnvironment, TabularMDP
from jaxrl.envs.blackjack import State, blackjack
from jaxrl.envs.tabular import tabular_env
from jaxrl.train import Run, RunState
from jaxrl.types import NO_LIMIT, Agent, Metrics

HORIZON = 12  # fewer than one hand in 10^10 have more steps, even if they always hit
ROWS = 704  # (player * 11 + dealer) * 2 + ace
ES_EPISODES, ES_ENVS, ES_UNROLL = 100_000_000, 512, 64
IS_RUNS, IS_EPISODES = 100, 10_000
IV_RUNS, IV_EPISODES, IV_START = 10, 10_000_000, 10_000
IV_ENVS, IV_UNROLL, IV_HORIZON = 100, 256, 40  # one episode in 10^12 is longer
IV_LENGTH = 1 + 20 / 11 + 1 / 11  # steps of an episode: the first, those in state 1, the one that pays
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
            axes.text(column, row, f"×\n{np.array(gap)[row, column]:.4f}", ha="center", va="center", fontsize=7)
        title = f"π*, {name}: {len(differing)} of 100 differ from the exact policy"
        card_axes(axes, title)
        _outline(axes, exact)
        for word, cells in (("STICK", exact == 0), ("HIT", exact == 1)):
            row, column = np.median(np.argwhere(cells), axis=0)
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


def one_hand() -> PureEnvironment:
    """Blackjack that always begins with 13, a usable ace, against a 2; a first step, in row 0, is without effect.

    `off_policy_monte_carlo` learns Q, whose ratios leave out the action itself: the value of row 0 is V of the hand.
    """
    game = blackjack()

    def reset(key: Array, params: Any) -> State:
        return game.reset_fn(key, params)._replace(player=jnp.int32(13), dealer=jnp.int32(2), ace=jnp.int32(1))

    def step(key: Array, state: State, action: Array, params: Any) -> tuple[State, Array, Array]:
        begins = state.time == 0
        after, reward, terminated = game.step_fn(key, state, action, params)
        after = jax.tree.map(partial(jnp.where, begins), state._replace(natural=jnp.zeros((), bool)), after)
        return after, jnp.where(begins, 0.0, reward), ~begins & terminated

    return dataclasses.replace(
        game,
        reset_fn=reset,
        step_fn=step,
        observe_fn=lambda state, params: jnp.where(state.time == 0, 0, state.player * 2 + state.ace),
        observation_space_fn=lambda params: spaces.Discrete(64),
    )


def one_state() -> TabularMDP:
    """Example 5.5: left goes on with 0.9, else it pays 1 and ends, right ends; state 0 comes first, 2 pays.

    State 0 is there so that the Q of its only action is V of state 1.
    """
    P, R = np.zeros((4, 2, 4)), np.zeros((4, 2))
    P[0, :, 1] = P[1, 1, 3] = P[2:, :, 3] = 1
    P[1, 0, 1:3] = 0.9, 0.1
    R[2] = 1
    return TabularMDP(P, R, np.arange(4) == 3, np.eye(4)[0])


def off_policy(
    env: PureEnvironment, target: np.ndarray, weighting: str, horizon: int, num_envs: int, unroll: int, limit: int
) -> Run:
    """Learns about `target` from coin flips, but in state 0, where both do action 0."""
    coin = np.full(target.shape, 0.5)
    coin[0] = target[0]
    agent = jaxrl.off_policy_monte_carlo(
        *target.shape, horizon=horizon, target=target, behaviour=behaviour.fixed(coin), weighting=weighting
    )
    params = env.default_params.replace(max_steps_in_episode=limit)
    loop = jaxrl.LoopConfig(num_envs, unroll, warmup=horizon)
    return jaxrl.make_run(env, params, agent, jaxrl.recent(unroll + horizon, num_envs), loop)


def believed(state: RunState) -> Array:
    return state.agent.q[0, 0]


def importance_sampling() -> dict[str, Any]:
    env, target = one_hand(), np.where(np.arange(64)[:, None] >= 40, [1.0, 0.0], [0.0, 1.0])
    target[0] = 1, 0
    policy = whole(STICKS_ON_20)
    true = float(planning.evaluate(jaxrl.tabular_mdp(blackjack()), 1.0, policy).values[(13 * 11 + 2) * 2 + 1])
    none, looks = jnp.zeros(IS_RUNS), spaced(IS_EPISODES)

    def make(setting: Any, weighting: str, limit: int = NO_LIMIT) -> Run:
        del setting
        return off_policy(env, target, weighting, HORIZON + 1, 1, 1, limit)

    @partial(jax.jit, static_argnames="weighting")
    def learned(keys: Array, weighting: str) -> Array:
        run = partial(make, weighting=weighting)
        state = common.begin(partial(run, limit=1), none, keys)
        return common.watch_episodes(run, none, state, IS_EPISODES, believed)[1][:, looks]

    errors = {
        weighting: np.square(np.asarray(learned(common.keys(IS_RUNS), weighting)) - true).mean(axis=0)
        for weighting in ("ordinary", "weighted")
    }
    return {"true": true, "episodes": looks, **errors}


def spaced(last: int, number: int = 200) -> np.ndarray:
    """Integers from 1 to `last`, equally far apart on a log axis where they can be."""
    return np.unique(np.rint(np.geomspace(1, last, number)).astype(int))


def draw_importance_sampling(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    for name, color in (("ordinary", COLORS[2]), ("weighted", COLORS[1])):
        axes.plot(data["episodes"], data[name], color=color, label=f"{name} importance sampling")
    axes.set(xscale="log", xlim=(1, IS_EPISODES), xlabel="episodes (log scale)")
    axes.set(ylim=(0, 5), ylabel="mean square error")
    axes.legend(loc="upper right", frameon=False)


def infinite_variance() -> dict[str, Any]:
    """Episode by episode at first, in float64 and a hundred environments a run from there on."""
    env, target = tabular_env(one_state()), np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    looks = spaced(IV_START)
    none = jnp.zeros(IV_RUNS)

    def make(setting: Any, num_envs: int, unroll: int, limit: int = NO_LIMIT) -> Run:
        del setting
        return off_policy(env, target, "ordinary", IV_HORIZON, num_envs, unroll, limit)

    one, many = partial(make, num_envs=1, unroll=1), partial(make, num_envs=IV_ENVS, unroll=IV_UNROLL)

    @jax.jit
    def first(keys: Array) -> tuple[Any, Array]:
        state = common.begin(partial(one, limit=1), none, keys)
        state, seen = common.watch_episodes(one, none, state, IV_START, believed)
        return state.agent, seen[:, looks]

    @jax.jit
    def then(keys: Array, agent: Any) -> tuple[Array, Array]:
        state = common.begin(partial(many, limit=1), none, keys)._replace(agent=agent)
        phases = int(IV_EPISODES / (IV_ENVS * IV_UNROLL / IV_LENGTH))

        def see(_: Any, state: RunState, metrics: Metrics) -> tuple[Array, Array]:
            del metrics
            return state.agent.visits[0, 0], believed(state)

        return common.watch(many, none, state, phases, see)[1]

    with jax.enable_x64():
        agent, early = first(common.keys(IV_RUNS))
        count, late = then(common.keys(IV_RUNS, 1), agent)
        some = spaced(len(count)) - 1
        return {
            "episodes": looks,
            "values": early,
            "later_episodes": np.asarray(count)[some].mean(axis=1),
            "later_values": np.asarray(late)[some].T,
        }


def draw_infinite_variance(data: dict[str, Any], panels: Sequence[Axes]) -> None:
    (axes,) = panels
    axes.axhline(1, color="#5a6270", linestyle="--", linewidth=1)
    axes.text(1.2e4, 1.03, "the true value", fontsize=8, color="#5a6270")
    for color, early, late in zip(2 * COLORS, data["values"], data["later_values"], strict=False):
        axes.plot([*data["episodes"], *data["later_episodes"]], [*early, *late], color=color, linewidth=1)
    axes.set(xscale="log", xlim=(1, IV_EPISODES), ylim=(0, 3), xlabel="episodes (log scale)", ylabel="estimated value")


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
    "5_3": Figure(
        "Figure 5.3: one blackjack state's value from random play",
        f"mean of {IS_RUNS} runs; the error is against the exact value",
        importance_sampling,
        draw_importance_sampling,
    ),
    "5_4": Figure(
        "Figure 5.4: ordinary importance sampling of infinite variance",
        f"{IV_RUNS} runs of {IV_EPISODES:,} episodes each (the book: 100,000,000)",
        infinite_variance,
        draw_infinite_variance,
    ),
}
