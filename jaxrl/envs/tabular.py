"""Any finite decision process as an environment, and the decision process of any tabular environment.

`tabular_env(mdp)` walks a `TabularMDP`. To have a different process in every environment, stack the leaves of several
`tabular_params(mdp)` and vmap over them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: arrays have no hash
class Params:
    """A process ready to be drawn from; every field may be traced or vmapped.

    The last entry of a cdf is exactly 1. Made on the host in float64, they become float32 in a program: an event rarer
    than 1e-7 may then never happen.
    """

    next_cdf: ArrayLike  # [S, A, S], the chance of each next state or one before it
    R: ArrayLike  # [S, A], the mean reward, which a step pays
    terminal: ArrayLike  # bool [S]
    start_cdf: ArrayLike  # [S], the chance of each start or one before it
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the process is."""

    place: Array  # int32 [], 0..S-1
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """A start."""
    u = jax.random.uniform(key, (), jnp.float32)
    return State(_draw(jnp.asarray(params.start_cdf), u), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """A next state, and the mean reward of what was done."""
    u = jax.random.uniform(key, (), jnp.float32)
    index = _draw(jnp.asarray(params.next_cdf)[state.place, action], u)
    reward = jnp.asarray(params.R)[state.place, action].astype(jnp.float32)
    return State(index, state.time), reward, jnp.asarray(params.terminal)[index]


def _draw(cdf: Array, u: Array) -> Array:
    """int32 []: the first entry above u in [0, 1). It is above its predecessor too, so its chance is not 0."""
    return jnp.searchsorted(cdf, u.astype(cdf.dtype), side="right").astype(jnp.int32)


def tabular(params: Params) -> TabularMDP:
    """The process of concrete params, within rounding of the one they were made of."""
    P, start = (np.diff(np.asarray(cdf, float), prepend=0.0) for cdf in (params.next_cdf, params.start_cdf))
    return TabularMDP(P, np.asarray(params.R, float), np.asarray(params.terminal), start)


def observe(state: State, params: Params) -> Array:
    """int32 []: the state."""
    del params
    return state.place


def observation_space(params: Params) -> spaces.Discrete:
    """The states."""
    return spaces.Discrete(np.shape(params.R)[0])


def action_space(params: Params) -> spaces.Discrete:
    """The actions."""
    return spaces.Discrete(np.shape(params.R)[1])


def render(state: State, params: Params) -> str:
    """One line."""
    end = ", terminal" if np.asarray(params.terminal)[int(state.place)] else ""
    return f"step {int(state.time)}  state {int(state.place)} of {len(np.asarray(params.terminal))}{end}"


def tabular_params(mdp: TabularMDP, max_steps: int = NO_LIMIT) -> Params:
    """The params of a process. Raises ValueError for shapes that differ and for what is no distribution.

    A terminal state must be absorbing, P to itself 1 and R 0.
    """
    checks.at_least("max_steps", max_steps, 1)
    P, R, terminal, start = np.asarray(mdp.P, float), np.asarray(mdp.R, float), np.asarray(mdp.terminal), mdp.start
    start = np.asarray(start, float)
    states, actions = R.shape if R.ndim == 2 else (0, 0)
    if states == 0 or actions == 0:
        raise ValueError(f"R of the process has shape {R.shape}; it must be [S, A], at least one state and one action")
    for name, array, shape in (
        ("P", P, (states, actions, states)),
        ("terminal", terminal, (states,)),
        ("start", start, (states,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} of the process has shape {array.shape}; R [S, A] {R.shape} makes it {shape}")
    if terminal.dtype != bool:
        raise ValueError(f"terminal of the process is {terminal.dtype}; it must be bool")
    if not np.isfinite(R).all():
        where = tuple(map(int, np.argwhere(~np.isfinite(R))[0]))
        raise ValueError(f"R{list(where)} of the process is {R[where]}; it must be a finite number")
    _require_distribution("P", P)
    _require_distribution("start", start)
    loops = P[np.arange(states), :, np.arange(states)] > 1 - 1e-6
    bad = np.argwhere(terminal[:, None] & (~loops | (R != 0)))
    if len(bad):
        s, a = map(int, bad[0])
        raise ValueError(
            f"state {s} is terminal, but P[{s}, {a}, {s}] is {P[s, a, s]:g} and R[{s}, {a}] {R[s, a]:g}; "
            f"make it absorbing: 1 and 0"
        )
    return Params(_cdf(P), R, terminal, _cdf(start), max_steps)


def tabular_env(mdp: TabularMDP, max_steps: int = NO_LIMIT, name: str = "Tabular-v0") -> PureEnvironment:
    """The environment that walks `mdp`, for at most `max_steps` an episode. Raises what `tabular_params` does.

    A step pays the mean reward R[s, a]: where rewards hang on the next state, returns agree in the mean alone.
    """
    return PureEnvironment(
        name,
        tabular_params(mdp, max_steps),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        tabular_fn=tabular,
    )


def tabular_mdp(env: Any, params: Any = None) -> TabularMDP:
    """The exact decision process of an environment at concrete params; R is the mean reward.

    Raises ValueError where the environment has none.
    """
    if not hasattr(env, "tabular_mdp"):
        name = getattr(env, "name", type(env).__name__)
        raise ValueError(f"{name} has no exact transition table; tabular environments bring a tabular_mdp(params)")
    return env.tabular_mdp(params)


def _require_distribution(name: str, array: np.ndarray) -> None:
    """Raises ValueError unless every last axis holds chances that sum to 1 within 1e-6."""
    bad = np.argwhere(~(array >= 0))
    if len(bad):
        where = tuple(map(int, bad[0]))
        raise ValueError(f"{name}{list(where)} of the process is {array[where]:g}; a chance is at least 0")
    sums = array.sum(-1)
    bad = np.argwhere(~(np.abs(sums - 1) <= 1e-6))
    if len(bad):
        where = tuple(map(int, bad[0]))
        row = f"{name}[{', '.join(map(str, where))}]" if where else name
        raise ValueError(f"{row} of the process sums to {sums[where]:.9g}; chances must sum to 1")


def _cdf(chances: np.ndarray) -> np.ndarray:
    """Cumulative chances whose last entry is exactly 1, also after those of chance 0."""
    sums = chances.cumsum(-1)
    return sums / sums[..., -1:]
