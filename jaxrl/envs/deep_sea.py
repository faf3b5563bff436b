"""DeepSea-bsuite: dive right, at a cost, for a treasure. Osband et al. (2020), bsuite's `environments/deep_sea.py`.

The diver sinks a row a step, so its row is the clock. Which action goes right in a cell is drawn from `mapping_seed`
by bsuite's own generator, so that its layouts are met (its experiments use seed 42). As in bsuite there is no time
limit and no new layout each episode. Observations are bool where bsuite's are 0 and 1 in float32.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP, never


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """All but the numbers `unscaled_move_cost` and `max_steps_in_episode` are static."""

    size: int = dataclasses.field(default=8, metadata={"static": True})  # rows and columns
    deterministic: bool = dataclasses.field(default=True, metadata={"static": True})
    randomize_actions: bool = dataclasses.field(default=True, metadata={"static": True})  # False: 1 is right everywhere
    mapping_seed: int = dataclasses.field(default=42, metadata={"static": True})
    unscaled_move_cost: float = 0.01  # of a dive that always goes right
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the diver is; its row is `time`."""

    column: Array  # int32 []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """The upper left corner."""
    del key, params
    return State(jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One row down and one column to a side; a border holds.

    Right costs `unscaled_move_cost` / size and pays 1 in the last column. Not `deterministic`: right fails with
    chance 1 / size, and the lowest row's two corners add N(0, 1).
    """
    size = params.size
    cell = jnp.minimum(state.time, size - 1) * size + state.column
    right = jnp.asarray(action, jnp.int32) == jnp.asarray(mapping(params).ravel())[cell]
    treasure = right & (state.column == size - 1)
    reward = jnp.where(treasure, 1.0, 0.0) - jnp.where(right, params.unscaled_move_cost / size, 0.0)
    moves = right
    if not params.deterministic:
        slip_key, noise_key = jax.random.split(key)
        moves = right & (jax.random.uniform(slip_key, (), jnp.float32) >= 1 / size)
        corner = (state.time == size - 1) & ((state.column == 0) | (state.column == size - 1))
        reward = reward + jnp.where(corner, jax.random.normal(noise_key, (), jnp.float32), 0.0)
    column = state.column + jnp.where(right, moves.astype(jnp.int32), -1)
    return State(jnp.clip(column, 0, size - 1), state.time), reward.astype(jnp.float32), state.time + 1 == size


def tabular(params: Params) -> TabularMDP:
    """The exact process; state row * size + column, and last the bottom of the sea."""
    size = params.size
    P, R = np.zeros((size**2 + 1, 2, size**2 + 1)), np.zeros((size**2 + 1, 2))
    success = 1.0 if params.deterministic else 1 - 1 / size
    for cell, action in np.ndindex(size**2, 2):
        row, column = divmod(cell, size)
        right = action == mapping(params)[row, column]
        for chance, move in ((success, 1), (1 - success, 0)) if right else ((1.0, -1),):
            after = (row + 1) * size + min(max(column + move, 0), size - 1)
            P[cell, action, min(after, size**2)] += chance
        R[cell, action] = right * ((column == size - 1) - params.unscaled_move_cost / size)
    P[-1, :, -1] = 1
    cells = np.arange(size**2 + 1)
    return TabularMDP(P, R, cells == size**2, (cells == 0).astype(float))


def observe(state: State, params: Params) -> Array:
    """bool [size, size]: where the diver is; nowhere after the last step."""
    cells = np.arange(params.size**2, dtype=np.int32)
    here = cells == state.time * params.size + state.column
    return here.reshape(params.size, params.size)


def observation_space(params: Params) -> spaces.Box:
    """The sea."""
    return spaces.Box(False, True, (params.size, params.size), np.bool_)


def action_space(params: Params) -> spaces.Discrete:
    """0 and 1; which of them goes right is each cell's own, `mapping`."""
    del params
    return spaces.Discrete(2)


def render(state: State, params: Params) -> str:
    """The sea, the action that goes right in each cell, the diver's cell on red."""
    lines = [list(map(str, row)) for row in mapping(params)]
    row, column = int(state.time), int(state.column)
    if row < params.size:
        lines[row][column] = f"\x1b[41m{lines[row][column]}\x1b[0m"
    return "\n".join(map("".join, lines))


def frame(state: State, params: Params) -> np.ndarray:
    """The sea from the side, the treasure in its last cell."""
    letters = ["~" * params.size] * (params.size - 1) + ["~" * (params.size - 1) + "T"]
    diver = (int(state.time), int(state.column)) if int(state.time) < params.size else None
    return raster.board(letters, {"~": raster.BLUE, "T": raster.YELLOW}, diver)


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("size", params.size, 2)
    checks.at_least("mapping_seed", params.mapping_seed, 0)
    checks.in_range("mapping_seed", params.mapping_seed, 0, 2**32 - 1)  # what numpy takes
    checks.in_range("unscaled_move_cost", params.unscaled_move_cost, 0, float("inf"))


def deep_sea() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "DeepSea-bsuite",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        tabular_fn=tabular,
        check_fn=check,
        splits_fn=never,  # a reset draws nothing
    )


def mapping(params: Params) -> np.ndarray:
    """int32 [size, size]: the action that goes right in each cell."""
    return _mapping(params.size, params.mapping_seed if params.randomize_actions else None)


@functools.cache
def _mapping(size: int, seed: int | None) -> np.ndarray:
    if seed is None:
        return np.ones((size, size), np.int32)
    return np.random.RandomState(seed).binomial(1, 0.5, (size, size)).astype(np.int32)
