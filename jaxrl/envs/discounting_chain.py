"""DiscountingChain-bsuite: the first action chooses how late the reward comes. Osband et al. (2020), bsuite's file.

As in bsuite (`environments/discounting_chain.py`) the end after `episode_length` steps is a termination, where gymnax
truncates. The observation is flat, as in gymnax: bsuite's without its leading axis of 1.
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
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Every number may be traced or vmapped."""

    reward_timestep: tuple[int, ...] = (1, 3, 10, 30, 100)  # when each action pays
    mapping_seed: int = 0  # modulo the number of actions: the action that pays `optimal_return`; the others pay 1
    optimal_return: float = 1.1
    episode_length: int = 100
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """The chain chosen."""

    context: Array  # int32 [], the first action; -1 before it
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """No chain chosen."""
    del key, params
    return State(jnp.full((), -1, jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """The first action chooses; the others do nothing."""
    del key
    context = jnp.where(state.time == 0, jnp.asarray(action, jnp.int32), state.context)
    actions = np.arange(len(params.reward_timestep))
    due = (actions == context) & (jnp.asarray(params.reward_timestep) == state.time + 1)
    best = params.mapping_seed % len(actions) == context
    reward = jnp.where(jnp.any(due), jnp.where(best, params.optimal_return, 1.0), 0.0)
    return State(context, state.time), reward.astype(jnp.float32), state.time + 1 == params.episode_length


def observe(state: State, params: Params) -> Array:
    """float32 [2]: the chain chosen, the share of time gone."""
    return jnp.stack([state.context.astype(jnp.float32), state.time.astype(jnp.float32) / params.episode_length])


def observation_space(params: Params) -> spaces.Box:
    """The chain, -1 before it is chosen; the time."""
    return spaces.Box([-1.0, 0.0], [len(params.reward_timestep) - 1.0, 1.0])


def action_space(params: Params) -> spaces.Discrete:
    """One action a chain."""
    return spaces.Discrete(len(params.reward_timestep))


def frame(state: State, params: Params) -> np.ndarray:
    """A row a chain, time to the right: its reward, the best one green, and one's own place, in all rows at first."""
    chains, steps = len(params.reward_timestep), int(params.episode_length) + 1
    canvas = raster.Canvas(5 * steps, 24 * chains, (0, steps), (0, chains))
    for chain, when in enumerate(params.reward_timestep):
        low, high = chains - chain - 0.9, chains - chain - 0.1
        best = chain == int(params.mapping_seed) % chains
        canvas.rectangle((0, low), (steps, high), raster.LIGHT)
        canvas.rectangle((int(when), low), (int(when) + 1, high), raster.GREEN if best else raster.YELLOW)
        if int(state.context) in (-1, chain):
            canvas.rectangle((int(state.time), low), (int(state.time) + 1, high), raster.RED)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    if len(params.reward_timestep) == 0:
        raise ValueError("reward_timestep is (); it must be one step for each action, such as (1, 3, 10, 30, 100)")
    for when in params.reward_timestep:
        if checks.is_number(when):
            checks.at_least("reward_timestep", when, 1)
    checks.in_range("optimal_return", params.optimal_return, -float("inf"), float("inf"))
    for name, low in (("mapping_seed", 0), ("episode_length", 1), ("max_steps_in_episode", 1)):
        if checks.is_number(getattr(params, name)):
            checks.at_least(name, getattr(params, name), low)


def discounting_chain() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "DiscountingChain-bsuite",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # nothing is random
    )
