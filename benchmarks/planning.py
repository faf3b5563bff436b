"""Exact planning's speed beside numpy's: a gridworld by successors, a dense process, 64 discounts at once.

    python benchmarks/planning.py [--out benchmarks/results/planning.json]

Pins itself to one core. Both sides solve the same process in the same dtype by the same sweeps and the same stopping
rule, bounds on the error (MacQueen 1966) at every fourth sweep, in the quickest form of numpy's that was found; for the
dense process also as textbooks stop, by the largest change, in one round. Ours are jitted calls that move nothing to
the device. Prints a table and writes JSON with machine, date and versions.
"""

import argparse
from collections.abc import Callable
from typing import Any

import measure  # first: it pins the process before jax starts its threads

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import planning
from jaxrl.envs.api import TabularMDP

TOLERANCE = 1e-6
GAMMA = 0.95
GAMMAS = np.linspace(0.9, 0.99, 64)
Sweep = Callable[[np.ndarray, Any], np.ndarray]  # (v, gamma) -> v


def grid_world(side: int, seed: int = 0) -> planning.SparseMDP:
    """Moves go aside by chance in one of five; walls send back; entering a corner ends; each move has a random pay."""
    rng, states = np.random.default_rng(seed), side * side
    row, column = np.divmod(np.arange(states), side)
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    to = np.stack([np.clip(row + i, 0, side - 1) * side + np.clip(column + j, 0, side - 1) for i, j in moves], 1)
    chance = 0.8 * np.eye(4) + 0.1 * (np.roll(np.eye(4), 1, 1) + np.roll(np.eye(4), -1, 1))
    reward = rng.normal(size=(states, 4))
    terminal = np.arange(states) == states - 1
    successors = to.astype(np.int32)
    start = np.full(states, 1 / states)
    return planning.SparseMDP(successors, np.broadcast_to(chance, (states, 4, 4)), reward, terminal, start)


def dense_world(states: int, actions: int, seed: int = 0) -> TabularMDP:
    """Any state may follow any other."""
    rng = np.random.default_rng(seed)
    P = rng.exponential(size=(states, actions, states))
    P /= P.sum(-1, keepdims=True)
    start = np.full(states, 1 / states)
    return TabularMDP(P, rng.normal(size=(states, actions)), np.zeros(states, bool), start)


def iterate(sweep: Sweep, v: np.ndarray, gamma: Any) -> np.ndarray:
    """Value iteration of v [S], or of v [S, B] and gammas [B]; lanes that are done are left out of the sweeps."""
    gammas, live = np.atleast_1d(np.asarray(gamma, v.dtype)), np.arange(v[0].size)
    found, least, stale = np.empty_like(v.reshape(len(v), -1)), np.full(live.size, np.inf), np.zeros(live.size, int)
    while live.size:
        factor = gammas[live] if v.ndim == 2 else gammas[0]
        old = v
        for _ in range(4):
            old, v = v, sweep(v, factor)
        change = (v - old).reshape(len(v), -1)
        low, high, reach = change.min(0), change.max(0), gammas[live] / (1 - gammas[live])
        together = (low > 0) | (high < 0)
        width = np.where(together, (high - low) / 2, np.maximum(high, -low))
        v = v + np.where(together, reach * (low + high) / 2, 0).astype(v.dtype).reshape(v.shape[1:])
        rounding = width <= 16 * np.finfo(v.dtype).eps * np.abs(v).reshape(len(v), -1).max(0)
        stale[live] += rounding & (width >= least[live])
        least[live] = np.minimum(least[live], width)
        going = (width * reach > TOLERANCE) & (stale[live] < 4)
        found[:, live[~going]] = v.reshape(len(v), -1)[:, ~going]
        live, v = live[going], v[:, going] if v.ndim == 2 and not going.all() else v
    return found.reshape(len(found), *np.shape(gamma))


def plain(sweep: Sweep, v: np.ndarray, gammas: np.ndarray) -> np.ndarray:
    """Value iteration of v [S, B] as textbooks stop it, by the largest change, which rounding may hold up for ever."""
    gammas, live, found = gammas.astype(v.dtype), np.arange(v.shape[1]), np.empty_like(v)
    while live.size:
        old, v = v, sweep(v, gammas[live])
        change = np.abs(v - old).max(0)
        bound = np.maximum(TOLERANCE * (1 / gammas[live] - 1), np.finfo(v.dtype).eps * np.abs(v).max(0))
        going = change > bound
        found[:, live[~going]] = v[:, ~going]
        live, v = live[going], v if going.all() else v[:, going]
    return found


def by_successors(mdp: planning.SparseMDP, dtype: type) -> Sweep:
    """A sweep [S] by gathers, the states innermost, each successor gathered once for all actions."""
    successors = np.ascontiguousarray(np.asarray(mdp.next).T)
    alive = ~np.asarray(mdp.terminal)
    chance = np.asarray(mdp.chance).transpose(1, 2, 0) * alive * alive[successors]
    chance, R = np.ascontiguousarray(chance, dtype), np.ascontiguousarray(np.asarray(mdp.R).T * alive, dtype)

    def sweep(v: np.ndarray, gamma: Any) -> np.ndarray:
        near = np.take(v, successors, mode="clip")  # quicker than v[successors]
        q = chance[:, 0] * near[0]
        for k in range(1, len(near)):
            q += chance[:, k] * near[k]
        q *= gamma
        q += R
        return q.max(0)

    return sweep


def by_slices(mdp: planning.SparseMDP, side: int, dtype: type) -> Sweep:
    """A sweep [S] that knows the grid: the four neighbours are slices of the padded values; no gather."""
    alive = ~np.asarray(mdp.terminal)
    R, factor = np.ascontiguousarray(np.asarray(mdp.R).T * alive, dtype), alive.astype(dtype).reshape(side, side)

    def sweep(v: np.ndarray, gamma: Any) -> np.ndarray:
        v = v.reshape(side, side) * factor
        up, left = np.concatenate([v[:1], v[:-1]]), np.concatenate([v[:, :1], v[:, :-1]], 1)
        down, right = np.concatenate([v[1:], v[-1:]]), np.concatenate([v[:, 1:], v[:, -1:]], 1)
        weak, strong = dtype(0.1) * gamma * factor, dtype(0.8) * gamma * factor
        aside, along = weak * (left + right), weak * (up + down)
        q = [
            strong * near + (along if action % 2 else aside) + R[action].reshape(side, side)
            for action, near in enumerate((up, right, down, left))
        ]
        return np.maximum(np.maximum(q[0], q[1]), np.maximum(q[2], q[3])).ravel()

    return sweep


def by_product(mdp: TabularMDP, dtype: type) -> Sweep:
    """A sweep of v [S] or [S, B] by one product with P [S A, S]."""
    P, R = np.ascontiguousarray(mdp.P, dtype), np.ascontiguousarray(mdp.R, dtype)
    states, actions = R.shape
    P = P.reshape(-1, states)

    def sweep(v: np.ndarray, gamma: Any) -> np.ndarray:
        q = (P @ v).reshape(states, actions, *v.shape[1:])
        q *= gamma
        q += R if v.ndim == 1 else R[..., None]
        return q.max(1)

    return sweep


def compare(name: str, programs: dict[str, Callable[[], Any]], repeats: int, bars: dict[str, float]) -> list[dict]:
    """A row for each program after the first: how much longer it takes than the first; all must agree in values."""
    values: dict[str, np.ndarray] = {}

    def keeping(name: str, program: Callable[[], Any]) -> Callable[[], None]:
        return lambda: values.update({name: program()})

    seconds = measure.alternating([keeping(*item) for item in programs.items()], repeats)
    (ours, own), *others = zip(programs, seconds)
    return [
        {
            "task": name,
            "ours": ours,
            "other": other,
            "ours_ms": 1e3 * float(np.median(own)),
            "other_ms": 1e3 * float(np.median(theirs)),
            "ratio": float(np.median(np.array(theirs) / np.array(own))),
            "bar": bars.get(other),
            "rounds": repeats,
            "largest_difference": float(np.abs(values[other] - values[ours]).max()),
        }
        for other, theirs in others
    ]


def rows(dtype: type, side: int, states: int, repeats: int) -> list[dict]:
    """All comparisons in one dtype."""
    one = jax.jit(lambda mdp, gamma: planning.value_iteration(mdp, gamma, tolerance=TOLERANCE).values)
    at_once = jax.jit(jax.vmap(one, (None, 0)))
    gammas, gamma = jnp.asarray(GAMMAS, dtype), jnp.asarray(GAMMA, dtype)

    def each(mdp: planning.SparseMDP | TabularMDP) -> np.ndarray:
        return np.stack([np.asarray(one(mdp, gamma)) for gamma in gammas])

    def solved(sweep: Sweep, size: int) -> Callable[[], np.ndarray]:
        return lambda: iterate(sweep, np.zeros(size, dtype), dtype(GAMMA))

    grid, dense = grid_world(side), dense_world(states, 4)
    cells, product = side * side, by_product(dense, dtype)
    on_device, dense_there = (
        jax.tree.map(lambda x: jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype), mdp) for mdp in (grid, dense)
    )

    def one_by_one() -> np.ndarray:
        return np.stack([iterate(product, np.zeros(states, dtype), dtype(gamma)) for gamma in GAMMAS])

    def in_one_product() -> np.ndarray:
        return iterate(product, np.zeros((states, len(GAMMAS)), dtype), GAMMAS).T

    def as_in_textbooks() -> np.ndarray:
        return plain(product, np.zeros((states, len(GAMMAS)), dtype), GAMMAS).T

    found = [
        *compare(
            f"{side} x {side} gridworld, gamma {GAMMA}",
            {
                "one call": lambda: np.asarray(one(on_device, gamma)),
                "numpy, gathers": solved(by_successors(grid, dtype), cells),
                "numpy, slices that know the grid": solved(by_slices(grid, side, dtype), cells),
            },
            repeats,
            {"numpy, gathers": 2.0},
        ),
        *compare(
            f"{side} x {side} gridworld, 64 discounts",
            {"one vmapped call": lambda: np.asarray(at_once(on_device, gammas)), "64 calls": lambda: each(on_device)},
            repeats,
            {"64 calls": 1.0},
        ),
        *compare(
            f"dense, {states} states, 64 discounts",
            {
                "one vmapped call": lambda: np.asarray(at_once(dense_there, gammas)),
                "64 calls": lambda: each(dense_there),
                "numpy, one discount after another": one_by_one,
                "numpy, all discounts in one product": in_one_product,
            },
            repeats,
            {"64 calls": 1.0},
        ),
        *compare(
            f"dense, {states} states, 64 discounts",
            {
                "one vmapped call": lambda: np.asarray(at_once(dense_there, gammas)),
                "numpy, one product, stopped by the largest change": as_in_textbooks,
            },
            1,
            {"numpy, one product, stopped by the largest change": 5.0},
        ),
    ]
    return [{"dtype": np.dtype(dtype).name, **row} for row in found]


def study(out: str, repeats: int = 5, side: int = 100, states: int = 1000) -> None:
    """Prints the table and writes the file."""
    found = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            found += rows(dtype, side, states, repeats)
    measure.table(
        "Value iteration to 1e-6, one core; the ratio is how much longer the other takes",
        ("", "dtype", "ours, ms", "other", "other, ms", "ratio", "bar", "differ by"),
        [
            (
                row["task"],
                row["dtype"],
                f"{row['ours_ms']:,.1f}",
                row["other"],
                f"{row['other_ms']:,.1f}",
                f"{row['ratio']:.2f}",
                f">= {row['bar']:g}" if row["bar"] else "",
                f"{row['largest_difference']:.1g}",
            )
            for row in found
        ],
    )
    measure.write(
        out,
        {**measure.circumstances(), "discounts": [GAMMAS[0], GAMMAS[-1], len(GAMMAS)], "value_iteration": found},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/planning.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--states", type=int, default=1000)
    options = parser.parse_args()
    study(options.out, options.repeats, options.side, options.states)


if __name__ == "__main__":
    main()
