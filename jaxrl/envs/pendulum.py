"""Pendulum-v1: swing a rod up by a weak torque and hold it upright.

The dynamics are those of gymnasium's `classic_control/pendulum.py`. The state is float64 under
`jax_enable_x64`, else float32.
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
from jaxrl.envs import raster
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.envs.trig import select_stack, sincos, wrap


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Physics in SI units and radians; every field may be traced or vmapped."""

    max_speed: float = 8.0
    max_torque: float = 2.0
    dt: float = 0.05  # seconds a step
    g: float = 10.0
    m: float = 1.0
    l: float = 1.0  # noqa: E741 # gymnasium's name
    x_init: float = math.pi  # a start's largest angle
    y_init: float = 1.0  # and its largest speed
    max_steps_in_episode: int = 200

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the rod is."""

    theta: Array  # float []: radians from upright, not wrapped
    theta_dot: Array  # float []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """Angle and speed uniform within `x_init` and `y_init` of rest."""
    unit = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    return State(unit[0] * params.x_init, unit[1] * params.y_init, time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step of `dt` seconds; reward minus the squares of angle, speed and torque before it. Never terminates."""
    del key
    theta, theta_dot, time = state
    dt = params.dt
    u = jnp.clip(jnp.reshape(jnp.asarray(action), ()), -params.max_torque, params.max_torque)
    costs = jnp.square(wrap(theta)) + 0.1 * jnp.square(theta_dot) + 0.001 * jnp.square(u)
    pull = 3 * params.g / (2 * params.l)
    theta_dot = theta_dot + (pull * sincos(theta)[0] + 3.0 / (params.m * params.l**2) * u) * dt
    theta_dot = jnp.clip(theta_dot, -params.max_speed, params.max_speed)
    state = State(theta + theta_dot * dt, theta_dot, time)
    return state, -costs.astype(jnp.float32), jnp.zeros((), bool)


def observe(state: State, params: Params) -> Array:
    """float [3]: cosine and sine of the angle, speed."""
    del params
    sine, cosine = sincos(state.theta)
    return select_stack((cosine, sine, state.theta_dot))


def observation_space(params: Params) -> spaces.Box:
    """The circle and the speed limit."""
    high = np.array([1.0, 1.0, params.max_speed])
    return spaces.Box(-high, high, (3,), jax.dtypes.canonicalize_dtype(float))


def action_space(params: Params) -> spaces.Box:
    """float32 [1]: the torque, counter-clockwise where positive. Unbounded where `max_torque` is traced."""
    high = params.max_torque if checks.is_number(params.max_torque) else np.inf
    return spaces.Box(-high, high, (1,))


def frame(state: State, params: Params) -> np.ndarray:
    """The rod and its axle."""
    del params
    canvas = raster.Canvas(240, 160, (-1.8, 1.8), (-1.2, 1.2))
    theta = float(state.theta)
    canvas.line((0.0, 0.0), (-math.sin(theta), math.cos(theta)), 0.2, raster.RED)
    canvas.circle((0.0, 0.0), 0.05, raster.BLACK)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    for name in ("max_speed", "dt", "m", "l"):
        checks.in_range(name, getattr(params, name), 0, math.inf, open_low=True)
    for name in ("max_torque", "g", "x_init", "y_init"):
        checks.in_range(name, getattr(params, name), 0, math.inf)


def pendulum() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Pendulum-v1",
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
