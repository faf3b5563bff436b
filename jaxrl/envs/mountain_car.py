"""MountainCar-v0: a weak car must swing to climb a hill. Moore (1990), PhD thesis, University of Cambridge.

The dynamics are those of gymnasium's `classic_control/mountain_car.py`. The state is float64 under
`jax_enable_x64`, else float32.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.envs.trig import sincos


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Every field may be traced or vmapped."""

    min_position: float = -1.2  # an inelastic wall
    max_position: float = 0.6
    max_speed: float = 0.07  # a step
    goal_position: float = 0.5
    goal_velocity: float = 0.0  # the least at the goal
    force: float = 0.001
    gravity: float = 0.0025
    reset_low: float = -0.6
    reset_high: float = -0.4
    max_steps_in_episode: int = 200

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the car is on a hill of height sin(3 position)."""

    position: Array  # float []
    velocity: Array  # float []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """At rest, the position uniform in `reset_low`..`reset_high`."""
    position = jax.random.uniform(key, (), minval=params.reset_low, maxval=params.reset_high)
    return State(position, jnp.zeros_like(position), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step; reward -1, also for the step that arrives."""
    del key
    push = (jnp.asarray(action, jnp.int32) - 1) * params.force
    position, velocity, terminated = drive(state.position, state.velocity, push, params)
    return State(position, velocity, state.time), jnp.full((), -1.0, jnp.float32), terminated


def drive(position: Array, velocity: Array, push: Array, params: Any) -> tuple[Array, Array, Array]:
    """(position, velocity, whether at the goal) after one step of a car pushed by `push`."""
    _, slope = sincos(3 * position)
    velocity = velocity + (push - slope * params.gravity)
    velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)
    position = jnp.clip(position + velocity, params.min_position, params.max_position)
    velocity = jnp.where((position == params.min_position) & (velocity < 0), 0.0, velocity)
    return position, velocity, (position >= params.goal_position) & (velocity >= params.goal_velocity)


def observe(state: State, params: Any) -> Array:
    """float [2]: position, velocity."""
    del params
    return jnp.stack([state.position, state.velocity])


def observation_space(params: Params) -> spaces.Box:
    """The track, and the speed limit in both directions."""
    low, high = (params.min_position, -params.max_speed), (params.max_position, params.max_speed)
    return spaces.Box(low, high, (2,), jax.dtypes.canonicalize_dtype(float))


def action_space(params: Params) -> spaces.Discrete:
    """0 pushes left, 1 not at all, 2 right."""
    del params
    return spaces.Discrete(3)


def frame(state: Any, params: Any) -> np.ndarray:
    """The hills, the car and the goal's flag."""
    left, right, goal = float(params.min_position), float(params.max_position), float(params.goal_position)
    unit = (right - left) / 1.8
    canvas = raster.Canvas(240, 160, (left, right), (0.0, 1.2 * unit))
    ridge = [(float(x), _height(x) * unit) for x in np.linspace(left, right, 37)]
    canvas.polygon([(left, 0.0), *ridge, (right, 0.0)], raster.LIGHT)
    foot = _height(goal) * unit
    canvas.line((goal, foot), (goal, foot + 0.17 * unit), 0.01 * unit, raster.BLACK)
    canvas.polygon(
        [(goal, foot + y * unit) for y in (0.11, 0.17)] + [(goal + 0.08 * unit, foot + 0.14 * unit)], raster.RED
    )
    x = float(state.position)
    tilt = math.atan(1.35 * math.cos(3 * x))
    along = np.array([math.cos(tilt), math.sin(tilt)]) * 0.05 * unit
    up = np.array([-along[1], along[0]])
    middle = np.array([x, _height(x) * unit])
    canvas.line(tuple(middle + 1.1 * up - along), tuple(middle + 1.1 * up + along), 0.06 * unit, raster.BLUE)
    for wheel in (middle - 0.8 * along, middle + 0.8 * along):
        canvas.circle(tuple(wheel + 0.5 * up), 0.025 * unit, raster.BLACK)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    check_track(params)
    for name in ("force", "gravity"):
        checks.in_range(name, getattr(params, name), 0, math.inf)


def check_track(params: Any) -> None:
    """`check` of what the discrete and the continuous car share."""
    for name in ("min_position", "goal_position", "goal_velocity", "reset_low"):
        checks.in_range(name, getattr(params, name), -math.inf, math.inf)
    checks.in_range("max_speed", params.max_speed, 0, math.inf, open_low=True)
    if checks.is_number(params.min_position):
        checks.in_range("max_position", params.max_position, params.min_position, math.inf, open_low=True)
    if checks.is_number(params.reset_low):
        checks.in_range("reset_high", params.reset_high, params.reset_low, math.inf)


def mountain_car() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "MountainCar-v0",
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


def _height(x: float) -> float:
    return 0.45 * math.sin(3 * x) + 0.55
