"""Acrobot-v1: swing a two-link arm above its base by a torque at the elbow. Sutton (1996), NeurIPS 8, 1038-1044.

The dynamics are those of gymnasium's `classic_control/acrobot.py`, one Runge-Kutta step of fourth order. The state is
float64 under `jax_enable_x64`, else float32.
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
from jaxrl.envs.api import PureEnvironment
from jaxrl.envs.trig import select_stack, sincos, wrap


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Physics in SI units and radians. `torque_noise_max` and `book_or_nips` are static: no noise draws nothing."""

    dt: float = 0.2  # seconds a step
    gravity: float = 9.8
    link_length_1: float = 1.0
    link_length_2: float = 1.0  # of the picture alone
    link_mass_1: float = 1.0
    link_mass_2: float = 1.0
    link_com_pos_1: float = 0.5
    link_com_pos_2: float = 0.5
    link_moi: float = 1.0  # of both links
    max_vel_1: float = 4 * math.pi
    max_vel_2: float = 9 * math.pi
    avail_torque: tuple[float, ...] = (-1.0, 0.0, 1.0)
    torque_noise_max: float = dataclasses.field(default=0.0, metadata={"static": True})
    book_or_nips: str = dataclasses.field(default="book", metadata={"static": True})
    reset_low: float = -0.1
    reset_high: float = 0.1
    max_steps_in_episode: int = 500

    replace = dataclasses.replace


class State(NamedTuple):
    """Where the links are: the first's angle from hanging, the second's from the first."""

    theta1: Array  # float [], -pi..pi
    theta2: Array  # float [], -pi..pi
    dtheta1: Array  # float []
    dtheta2: Array  # float []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """All four uniform in `reset_low`..`reset_high`."""
    start = jax.random.uniform(key, (4,), minval=params.reset_low, maxval=params.reset_high)
    return State(start[0], start[1], start[2], start[3], time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step of `dt` seconds; reward -1, and 0 when the tip is above the line."""
    action = jnp.asarray(action)
    torque = jnp.asarray(params.avail_torque[0])
    for i, choice in enumerate(params.avail_torque[1:], 1):
        torque = jnp.where(action == i, choice, torque)
    if params.torque_noise_max > 0:
        torque = torque + jax.random.uniform(key, (), minval=-params.torque_noise_max, maxval=params.torque_noise_max)

    dt = params.dt
    y0 = state[:4]
    k1 = _derivatives(y0, torque, params)
    k2 = _derivatives(_ahead(y0, dt / 2.0, k1), torque, params)
    k3 = _derivatives(_ahead(y0, dt / 2.0, k2), torque, params)
    k4 = _derivatives(_ahead(y0, dt, k3), torque, params)
    slopes = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    theta1, theta2, dtheta1, dtheta2 = _ahead(y0, dt / 6.0, slopes)

    dtheta1 = jnp.clip(dtheta1, -params.max_vel_1, params.max_vel_1)
    dtheta2 = jnp.clip(dtheta2, -params.max_vel_2, params.max_vel_2)
    (sin1, cos1), (sin2, cos2) = sincos(theta1), sincos(theta2)
    terminated = -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.0
    state = State(wrap(theta1), wrap(theta2), dtheta1, dtheta2, state.time)
    return state, terminated.astype(jnp.float32) - 1.0, terminated


def observe(state: State, params: Params) -> Array:
    """float [6]: cosine and sine of both angles, both speeds."""
    del params
    (sin1, cos1), (sin2, cos2) = sincos(state.theta1), sincos(state.theta2)
    return select_stack((cos1, sin1, cos2, sin2, state.dtheta1, state.dtheta2))


def observation_space(params: Params) -> spaces.Box:
    """Two circles and the speed limits."""
    high = np.array([1.0, 1.0, 1.0, 1.0, params.max_vel_1, params.max_vel_2])
    return spaces.Box(-high, high, (6,), jax.dtypes.canonicalize_dtype(float))


def action_space(params: Params) -> spaces.Discrete:
    """Which of `avail_torque` to apply at the elbow."""
    return spaces.Discrete(len(params.avail_torque))


def frame(state: State, params: Params) -> np.ndarray:
    """The links, and the line that the tip must pass."""
    first, second = float(params.link_length_1), float(params.link_length_2)
    theta1, theta2 = float(state.theta1), float(state.theta2)
    edge = 1.1 * (first + second)
    canvas = raster.Canvas(240, 160, (-1.5 * edge, 1.5 * edge), (-edge, edge))
    canvas.line((-1.5 * edge, 1.0), (1.5 * edge, 1.0), 0.03, raster.BLACK)
    elbow = (first * math.sin(theta1), -first * math.cos(theta1))
    tip = (elbow[0] + second * math.sin(theta1 + theta2), elbow[1] - second * math.cos(theta1 + theta2))
    for start, end in (((0.0, 0.0), elbow), (elbow, tip)):
        canvas.line(start, end, 0.2, raster.CYAN)
        canvas.circle(start, 0.1, raster.YELLOW)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    lengths = ("link_length_1", "link_length_2", "link_mass_1", "link_mass_2", "link_moi", "max_vel_1", "max_vel_2")
    for name in ("dt", *lengths):
        checks.in_range(name, getattr(params, name), 0, math.inf, open_low=True)
    for name in ("gravity", "link_com_pos_1", "link_com_pos_2", "torque_noise_max"):
        checks.in_range(name, getattr(params, name), 0, math.inf)
    if not params.avail_torque:
        raise ValueError("avail_torque is (); it must hold at least one torque, as (-1.0, 0.0, 1.0)")
    for torque in params.avail_torque:
        checks.in_range("avail_torque", torque, -math.inf, math.inf)
    checks.one_of("book_or_nips", params.book_or_nips, ("book", "nips"))
    checks.in_range("reset_low", params.reset_low, -math.inf, math.inf)
    if checks.is_number(params.reset_low):
        checks.in_range("reset_high", params.reset_high, params.reset_low, math.inf)


def acrobot() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "Acrobot-v1",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        frame_fn=frame,
        check_fn=check,
        splits_fn=_noisy,
    )


def _noisy(params: Params) -> bool:
    return params.torque_noise_max > 0


_Four = tuple[Array, ...]  # theta1, theta2, dtheta1, dtheta2, or their derivatives


def _ahead(y: _Four, dt: ArrayLike, slopes: _Four) -> _Four:
    return tuple(value + dt * slope for value, slope in zip(y, slopes, strict=True))


def _derivatives(y: _Four, torque: Array, params: Params) -> _Four:
    """The equations of motion of Sutton and Barto's book, or of the paper."""
    theta1, theta2, dtheta1, dtheta2 = y
    m1, m2, l1, moi, g = params.link_mass_1, params.link_mass_2, params.link_length_1, params.link_moi, params.gravity
    lc1, lc2 = params.link_com_pos_1, params.link_com_pos_2
    (sin1, cos1), (sin2, cos2) = sincos(theta1), sincos(theta2)
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * cos2) + moi + moi
    d2 = m2 * (lc2**2 + l1 * lc2 * cos2) + moi
    phi2 = m2 * lc2 * g * (sin1 * cos2 + cos1 * sin2)
    swing = m2 * l1 * lc2 * sin2
    phi1 = (m1 * lc1 + m2 * l1) * g * sin1 + phi2 - swing * dtheta2 * (dtheta2 + 2 * dtheta1)
    ratio = d2 / d1
    push = torque + ratio * phi1 - phi2
    if params.book_or_nips == "book":
        push = push - swing * jnp.square(dtheta1)
    ddtheta2 = push / (m2 * lc2**2 + moi - d2 * ratio)
    return dtheta1, dtheta2, -(ratio * ddtheta2 + phi1 / d1), ddtheta2
