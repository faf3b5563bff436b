"""RandomWalk-v0 and RandomWalk19-v0: prediction on a line. Sutton & Barto (2018), examples 6.2 and 7.1.

Every step goes left or right by a fair coin, whatever the action, of which there is one. Cells 1 to `length` are the
book's A, B, ...; 0 and `length` + 1 are the ends. With rewards 0 and 1 the true value of cell i is i / (length + 1).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP, never
from jaxrl.envs.layout import Layout, on_map


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`length` is static; the numbers may be traced or vmapped."""

    length: int = dataclasses.field(default=5, metadata={"static": True})  # cells between the ends
    left_reward: float = 0.0
    right_reward: float = 1.0
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the walker is."""

    cell: Array  # int32 [], 0..length + 1
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """The middle; the left one of two."""
    del key
    return State(jnp.full((), (params.length + 1) // 2, jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One cell to the left or right; only arriving at an end pays."""
    del action
    right = jax.random.bits(key, (), jnp.uint32) >> 31
    cell = state.cell + 2 * right.astype(jnp.int32) - 1
    left_end, right_end = cell <= 0, cell > params.length
    reward = jnp.where(left_end, params.left_reward, jnp.where(right_end, params.right_reward, 0.0))
    return State(cell, state.time), reward.astype(jnp.float32), left_end | right_end


def tabular(params: Params) -> TabularMDP:
    """The exact process of the cells and the two ends."""
    cells = np.arange(params.length + 2)
    terminal = (cells == 0) | (cells == params.length + 1)
    P, R = np.zeros((len(cells), 1, len(cells))), np.zeros((len(cells), 1))
    inner = cells[1:-1]
    P[inner, 0, inner - 1] = P[inner, 0, inner + 1] = 0.5
    R[1, 0] += 0.5 * params.left_reward
    R[-2, 0] += 0.5 * params.right_reward
    P[terminal, 0] = np.eye(len(cells))[terminal]
    return TabularMDP(P, R, terminal, (cells == (params.length + 1) // 2).astype(float))


def observe(state: State, params: Params) -> Array:
    """int32 []: the cell."""
    del params
    return state.cell


def observation_space(params: Params) -> spaces.Discrete:
    """The cells and the two ends."""
    return spaces.Discrete(params.length + 2)


def action_space(params: Params) -> spaces.Discrete:
    """One action, which is to go on."""
    del params
    return spaces.Discrete(1)


def render(state: State, params: Params) -> str:
    """One line, the walker's cell highlighted."""
    row = list(_letters(params))
    row[int(state.cell)] = f"\x1b[41m{row[int(state.cell)]}\x1b[0m"
    return "".join(row)


def frame(state: State, params: Params) -> np.ndarray:
    """One row of cells between the ends."""
    palette = {".": raster.WHITE, "|": raster.GREY}
    return raster.board([_letters(params)], palette, (0, int(state.cell)))


def layout(params: Params) -> Layout:
    """The row of cells."""
    return on_map([_letters(params)], ("go on",), {".": "", "|": "end"})


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("length", params.length, 1)
    for name in ("left_reward", "right_reward"):
        checks.in_range(name, getattr(params, name), -float("inf"), float("inf"))


def random_walk() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "RandomWalk-v0",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        tabular_fn=tabular,
        layout_fn=layout,
        check_fn=check,
        splits_fn=never,  # only a step draws
    )


def random_walk_19() -> PureEnvironment:
    """RandomWalk19-v0: 19 cells, -1 at the left end; the true value of cell i is i / 10 - 1."""
    params = Params(length=19, left_reward=-1.0)
    return dataclasses.replace(random_walk(), name="RandomWalk19-v0", default_params=params)


def _letters(params: Params) -> str:
    return f"|{'.' * params.length}|"
