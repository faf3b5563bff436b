"""What planners refuse, in one line. What is traced passes, but for its shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxrl import checks, memory
from jaxrl.envs.api import TabularMDP
from jaxrl.planning import model
from jaxrl.planning.model import MDP, SparseMDP
from jaxrl.types import PyTree


def concrete(*trees: PyTree) -> bool:
    """Whether nothing in `trees` is traced, so that it can be checked."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def process(mdp: MDP) -> None:
    """Raises ValueError for shapes that differ, rewards that are no numbers, and chances that are none."""
    if not isinstance(mdp, (TabularMDP, SparseMDP)):
        raise ValueError(f"the process is a {type(mdp).__name__}; it must be a TabularMDP or a SparseMDP")
    if np.ndim(mdp.R) != 2 or 0 in np.shape(mdp.R):
        raise ValueError(f"R of the process has shape {np.shape(mdp.R)}; it must be [S, A], one of each at least")
    states, actions = np.shape(mdp.R)
    if isinstance(mdp, TabularMDP):
        shapes = {"P": (states, actions, states)}
    else:
        most = (np.shape(mdp.chance) or (0,))[-1]
        shapes = {"chance": (states, actions, most), "next": (states, most)}
    for name, shape in {**shapes, "terminal": (states,)}.items():
        found = np.shape(getattr(mdp, name))
        if found != shape:
            raise ValueError(f"{name} of the process has shape {found}; R [S, A] {(states, actions)} makes it {shape}")
    if not jnp.issubdtype(jnp.result_type(mdp.terminal), bool):
        raise ValueError(f"terminal of the process is {jnp.result_type(mdp.terminal)}; it must be bool")
    if concrete(mdp.R) and not np.isfinite(mdp.R).all():
        where = tuple(map(int, np.argwhere(~np.isfinite(mdp.R))[0]))
        raise ValueError(f"R{list(where)} of the process is {np.asarray(mdp.R)[where]}; it must be a finite number")
    if isinstance(mdp, SparseMDP):
        _integers("next of the process", mdp.next, states)
        _distributions("chance of the process", mdp.chance)
    else:
        _distributions("P of the process", mdp.P)


def arguments(mdp: MDP, gamma: ArrayLike, tolerance: ArrayLike = 1.0, limit: int = 1) -> None:
    """Raises ValueError for what is no process, no discount, no tolerance or no limit."""
    process(mdp)
    number("gamma", gamma)
    number("tolerance", tolerance, high=float(np.finfo(np.float64).max))
    checks.at_least("limit", limit, 1)


def number(name: str, value: Any, low: float = 0, high: float = 1) -> None:
    """Raises ValueError where a concrete number is not in [low, high], or anything is not one number."""
    if np.ndim(value):
        raise ValueError(f"{name} has shape {np.shape(value)}; it must be one number: vmap over several")
    if concrete(value):
        checks.in_range(name, value.item() if hasattr(value, "item") else value, low, high)


def policy(mdp: MDP, chosen: ArrayLike) -> None:
    """Raises ValueError where a policy is neither actions [S] nor chances [S, A]."""
    states, actions = np.shape(mdp.R)
    if np.shape(chosen) == (states,):
        _integers("policy", chosen, actions)
    elif np.shape(chosen) == (states, actions):
        _distributions("policy", chosen)
    else:
        wanted = f"chances {(states, actions)} or actions {(states,)}"
        raise ValueError(f"policy has shape {np.shape(chosen)}; it must be {wanted}")


def ends(mdp: MDP, gamma: ArrayLike, chosen: ArrayLike | None = None) -> None:
    """Raises ValueError at gamma 1 where a state earns rewards from which no terminal state can be reached.

    `chosen` is the policy that is followed, None for any.
    """
    if not concrete(mdp, gamma, chosen) or float(np.asarray(gamma)) != 1:
        return
    stuck = model.stuck(mdp, chosen)
    if concrete(stuck) and np.any(stuck):  # within somebody's jit all is traced
        raise ValueError(
            f"gamma is 1, but state {int(np.argmax(stuck))} earns rewards and reaches no terminal state"
            f"{' under the policy' if chosen is not None else ''}; use gamma below 1, or finite_horizon"
        )


def matrices(mdp: MDP) -> None:
    """Raises ValueError where the [S, S] matrices of an exact solution do not fit in memory."""
    states = np.shape(mdp.R)[0]
    needed = 3 * states**2 * jnp.dtype(model.dtype_of(mdp)).itemsize
    memory.require(f"an exact solution for {states} states", needed, "; sweep instead: value_iteration, or 'iterative'")


def _integers(name: str, array: ArrayLike, bound: int) -> None:
    """Raises ValueError unless a concrete array holds integers of 0 to bound - 1."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
        raise ValueError(f"{name} is {jnp.result_type(array)}; it must be integers of 0 to {bound - 1}")
    if concrete(array):
        array = np.asarray(array)
        outside = array[(array < 0) | (array >= bound)]
        if outside.size:
            raise ValueError(f"{name} holds {outside[0]}; it must be integers of 0 to {bound - 1}")


def _distributions(name: str, array: ArrayLike) -> None:
    """Raises ValueError unless every last axis of a concrete array holds chances that sum to 1 within 1e-6."""
    if not concrete(array):
        return
    array = np.asarray(array)
    if not array.min(initial=0) >= 0:  # NaN too
        where = tuple(map(int, np.argwhere(~(array >= 0))[0]))
        raise ValueError(f"{name} is {array[where]:g} at {list(where)}; a chance is at least 0")
    sums = array.sum(-1, dtype=np.float64)
    bad = np.argwhere(~(np.abs(sums - 1) <= 1e-6))
    if len(bad):
        where = tuple(map(int, bad[0]))
        raise ValueError(f"{name} sums to {sums[where]:.9g} at {list(where)}; chances must sum to 1")
