"""MountainCarContinuous-v0: the car of `mountain_car.py` with a continuous engine, whose use is penalised.

The dynamics are those of gymnasium's `classic_control/continuous_mountain_car.py`, which rounds its state to
float32 after every step: so the state is float32, also under `jax_enable_x64`.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.envs.mountain_car import check_track, drive, frame, observe


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Every field may be traced or vmapped."""

    min_action: float = -1.0
    max_action: float = 1.0
    min_position: float = -1.2  # an inelastic wall
    max_position: float = 0.6
    max_speed: float = 0.07  # a step
    goal_position: float = 0.45
    goal_velocity: float = 0.0  # the least at the goal
    power: float = 0.0015
    gravity: float = 0.0025
    reset_low: float = -0.6
    reset_high: float = -0.4
    max_steps_in_episode: int = 999

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the car is on a hill of height sin(3 position)."""

    position: Array  # float32 []
    velocity: Array  # float32 []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """At rest, the position uniform in `reset_low`..`reset_high`."""
    position = jax.random.uniform(key, (), jnp.float32, params.reset_low, params.reset_high)
    return State(position, jnp.zeros((), jnp.float32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step; reward 100 at the goal, less a tenth of the squared action, as it was before the clipping."""
    del key
    action = jnp.reshape(jnp.asarray(action), ())
    push = jnp.clip(action, params.min_action, params.max_action) * params.power
    position, velocity, terminated = drive(state.position, state.velocity, push, params)
    reward = jnp.where(terminated, 100.0, 0.0) - jnp.square(action) * 0.1
    state = State(position.astype(jnp.float32), velocity.astype(jnp.float32), state.time)
    return state, reward.astype(jnp.float32), terminated


def observation_space(params: Params) -> spaces.Box:
    """The track, and the speed limit in both directions."""
    return spaces.Box((params.min_position, -params.max_speed), (params.max_position, params.max_speed), (2,))


def action_space(params: Params) -> spaces.Box:
    """float32 [1]: how strong the engine pushes, to the right where positive. Unbounded where a bound is traced."""
    concrete = checks.is_number(params.min_action) and checks.is_number(params.max_action)
    low, high = (params.min_action, params.max_action) if concrete else (-np.inf, np.inf)
    return spaces.Box(low, high, (1,))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    check_track(params)
    for name in ("power", "gravity"):
        checks.in_range(name, getattr(params, name), 0, math.inf)
    checks.in_range("min_action", params.min_action, -math.inf, math.inf)
    if checks.is_number(params.min_action):
        checks.in_range("max_action", params.max_action, params.min_action, math.inf)


def mountain_car_continuous() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "MountainCarContinuous-v0",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # the physics draws nothing
    )
