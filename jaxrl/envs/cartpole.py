"""CartPole-v1: balance a pole on a cart. Barto, Sutton and Anderson (1983), IEEE Trans. SMC 13(5), 834-846.

The dynamics are those of gymnasium's `classic_control/cartpole.py`, Euler integration, in its order of
operations. The state is float64 under `jax_enable_x64`, else float32.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Physics in SI units and radians; every field may be traced or vmapped."""

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5  # half the pole's
    force_mag: float = 10.0
    tau: float = 0.02  # seconds a step
    theta_threshold_radians: float = 12 * 2 * math.pi / 360
    x_threshold: float = 2.4
    max_steps_in_episode: int = 500

    replace = dataclasses.replace


class State(NamedTuple):
    """Where cart and pole are."""

    x: Array  # float []
    x_dot: Array  # float []
    theta: Array  # float []: radians from upright
    theta_dot: Array  # float []
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """All four within 0.05 of rest."""
    del params
    start = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return State(start[0], start[1], start[2], start[3], time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One Euler step of `tau` seconds; reward 1, also for the step that fails."""
    del key
    x, x_dot, theta, theta_dot, time = state
    total_mass = params.masspole + params.masscart
    polemass_length = params.masspole * params.length
    force = jnp.where(jnp.asarray(action) == 1, params.force_mag, -params.force_mag)
    sintheta, costheta = sincos(theta)

    temp = (force + polemass_length * jnp.square(theta_dot) * sintheta) / total_mass
    thetaacc = (params.gravity * sintheta - costheta * temp) / (
        params.length * (4.0 / 3.0 - params.masspole * jnp.square(costheta) / total_mass)
    )
    xacc = temp - polemass_length * thetaacc * costheta / total_mass

    x = x + params.tau * x_dot
    x_dot = x_dot + params.tau * xacc
    theta = theta + params.tau * theta_dot
    theta_dot = theta_dot + params.tau * thetaacc
    terminated = (jnp.abs(x) > params.x_threshold) | (jnp.abs(theta) > params.theta_threshold_radians)
    return State(x, x_dot, theta, theta_dot, time), jnp.ones((), jnp.float32), terminated


def observe(state: State, params: Params) -> Array:
    """float [4]: x, x_dot, theta, theta_dot."""
    del params
    return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])


def observation_space(params: Params) -> spaces.Box:
    """Twice the thresholds, so that the observation that fails is inside."""
    high = np.array([params.x_threshold * 2, np.inf, params.theta_threshold_radians * 2, np.inf])
    return spaces.Box(-high, high, (4,), jax.dtypes.canonicalize_dtype(float))


def action_space(params: Params) -> spaces.Discrete:
    """0 pushes left, 1 pushes right."""
    del params
    return spaces.Discrete(2)


def render(state: State, params: Params) -> str:
    """The track with the cart and the pole's lean, in two lines and a caption."""
    width = 61
    column = round((float(state.x) / float(params.x_threshold) + 1) / 2 * (width - 1))
    column = min(max(column, 0), width - 1)
    lean = float(state.theta) / float(params.theta_threshold_radians)
    pole = "|" if abs(lean) < 0.2 else "/" if lean > 0 else "\\"
    degrees = math.degrees(float(state.theta))
    caption = f"step {int(state.time)}  x {float(state.x):+.3f}  angle {degrees:+.2f} degrees"
    return f"{caption}\n{' ' * column}{pole}\n{'-' * column}\x1b[7m#\x1b[0m{'-' * (width - 1 - column)}"


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    for name in ("masscart", "masspole", "length", "tau", "theta_threshold_radians", "x_threshold"):
        checks.in_range(name, getattr(params, name), 0, math.inf, open_low=True)
    for name in ("gravity", "force_mag"):
        checks.in_range(name, getattr(params, name), 0, math.inf)
    if checks.is_number(params.max_steps_in_episode):
        checks.at_least("max_steps_in_episode", params.max_steps_in_episode, 1)


def cartpole() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "CartPole-v1",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        check_fn=check,
        splits_fn=never,  # the physics draws nothing
    )


def sincos(theta: Array) -> tuple[Array, Array]:
    """Sine and cosine; of float32 by polynomials, within 3e-7 for any angle up to 10,000 rad.

    The library's cost more than the rest of the physics. The angle is first reduced to [-pi/2, pi/2], where
    the polynomials hold, so no bound on it need be known: thresholds may be overridden or traced, and
    `step` may start anywhere. float64 takes the library's.
    """
    theta = jnp.asarray(theta)
    if theta.dtype != jnp.float32:
        return jnp.sin(theta), jnp.cos(theta)
    turns = jnp.round(theta * (1 / math.pi))  # half turns
    angle = theta
    for part in _PI_PARTS:
        angle = angle - turns * part
    sign = 1.0 - 2.0 * (turns - 2.0 * jnp.floor(turns * 0.5))  # -1 after an odd number of half turns
    square = angle * angle
    return sign * angle * _polynomial(_SIN, square), sign * _polynomial(_COS, square)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Horner's rule, constant coefficient first."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


# sin(a) / a and cos(a) in a^2, least squares on Chebyshev nodes of [0, (pi/2)^2]: off by at most 7e-8
_SIN = (9.99999996e-01, -1.66666579e-01, 8.33304894e-03, -1.98089195e-04, 2.60487282e-06)
_COS = (9.99999953e-01, -4.99999043e-01, 4.16635606e-02, -1.38535287e-03, 2.31499769e-05)
# pi in parts of few bits, so that the product with a number of half turns is exact (Cody and Waite 1980)
_PI_PARTS = (3.140625, 9.6702575683593750e-4, 6.278329465203569e-7)
