"""Monte-Carlo control of Blackjack, judged exactly: the value of what was learned is planned, not sampled.

    python benchmarks/blackjack.py [--seeds 10] [--out benchmarks/results/blackjack.json]

Rows: the recipe `glie_mc_blackjack`, epsilon linear from 1 to 0.02; the same with plain averages, alpha / N; with a
constant step; and exploring starts. `stick table` compares hit or stick with the exact best wherever the exact
difference of the two is above 0.03. `spread` is the standard deviation over seeds of the best action's value, the mean
over those hands: what a constant step leaves for ever, at most sqrt(alpha / (2 - alpha)) of a return's 0.95, and less
where one step goes towards the mean of several returns, as here, a learn phase's.
"""

import argparse
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import numpy as np

import jaxrl
from jaxrl import planning

BAR, CLEAR, CELLS = -0.0441, 0.03, 704  # the value asked for; a clear difference; observations, without the naturals
SETTINGS: dict[str, dict[str, Any]] = {
    "GLIE, visits^-0.7": {},
    "GLIE, 1 / visits": {"agent.alpha_power": 1.0},
    "GLIE, constant 0.02": {"agent.alpha": 0.02, "agent.alpha_power": 0.0},
    "exploring starts, 1 / visits": {"agent.exploring_starts": True, "agent.alpha_power": 1.0},
}


def named(state: int) -> str:
    """An observation's index as one says it."""
    rest, ace = divmod(state, 2)
    player, dealer = divmod(rest, 11)
    return f"{'soft' if ace else 'hard'} {player} against {dealer}"


def study(name: str, changes: dict[str, Any], seeds: int, episodes: int) -> dict[str, Any]:
    """Every seed of one setting, each a run of its own."""
    env, params = jaxrl.make("Blackjack-v1")
    mdp = jaxrl.tabular_mdp(env, params)
    exact = planning.value_iteration(mdp, 1.0)
    gap = np.asarray(exact.q)[:CELLS, 0] - np.asarray(exact.q)[:CELLS, 1]
    hands = np.nonzero((np.asarray(mdp.terminal)[:CELLS] == 0) & (np.abs(gap) > CLEAR))[0]
    values, tables, seconds, played, wrong = [], [], [], 0.0, []
    for seed in range(seeds):
        result = jaxrl.train("glie_mc_blackjack", seed=seed, eval_episodes=episodes, **changes)
        q = result.params
        policy = np.asarray(exact.policy).copy()  # the naturals' rows are no rows of the table
        policy[:CELLS] = q.argmax(1)
        values.append(float(mdp.start @ np.asarray(planning.evaluate(mdp, 1.0, policy).values)))
        wrong.append([named(int(state)) for state in hands if (q[state, 0] > q[state, 1]) != (gap[state] > 0)])
        tables.append(q[np.arange(CELLS), exact.policy[:CELLS]])
        seconds.append(result.summary["train_s"])
        played = float(np.sum(result.metrics["episodes"]))
    spread = float(np.std(tables, axis=0, ddof=1)[hands].mean()) if seeds > 1 else None
    return {
        "setting": name,
        "changes": changes,
        "hands": played,
        "exact_value": values,
        "reached": sum(value >= BAR for value in values),
        "clear_hands": len(hands),
        "wrong": wrong,
        "spread": spread,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=1_000)
    parser.add_argument("--out", default="benchmarks/results/blackjack.json")
    options = parser.parse_args()
    rows = [study(name, changes, options.seeds, options.episodes) for name, changes in SETTINGS.items()]
    alpha = SETTINGS["GLIE, constant 0.02"]["agent.alpha"]
    floor = 0.95 * float(np.sqrt(alpha / (2 - alpha)))
    measure.table(
        f"Blackjack, exact value of the learned greedy policy (the best is -0.0431), {options.seeds} seeds",
        ("", "hands", "lowest", "highest", f">= {BAR}", "wrong of clear hands", "spread", "s a run"),
        [
            (
                row["setting"],
                f"{row['hands']:.3g}",
                f"{min(row['exact_value']):.5f}",
                f"{max(row['exact_value']):.5f}",
                f"{row['reached']} of {options.seeds}",
                f"{np.mean([len(names) for names in row['wrong']]):.1f} of {row['clear_hands']}",
                "" if row["spread"] is None else f"{row['spread']:.4f}",
                f"{np.median(row['seconds']):.1f}",
            )
            for row in rows
        ],
    )
    measure.write(
        options.out, {**measure.circumstances(), "bar": BAR, "highest_spread_of_the_constant_step": floor, "rows": rows}
    )


if __name__ == "__main__":
    main()
