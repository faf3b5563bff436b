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
from jaxrl.envs import raster
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.envs.trig import sincos
from jaxrl.types import Masked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Physics in SI units and radians; `kinematics_integrator` and `sutton_barto_reward` are static."""

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5  # half the pole's
    force_mag: float = 10.0
    tau: float = 0.02  # seconds a step
    theta_threshold_radians: float = 12 * 2 * math.pi / 360
    x_threshold: float = 2.4
    kinematics_integrator: str = dataclasses.field(default="euler", metadata={"static": True})
    sutton_barto_reward: bool = dataclasses.field(default=False, metadata={"static": True})  # -1 at the failure, else 0
    reset_low: float = -0.05
    reset_high: float = 0.05
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
    """All four uniform in `reset_low`..`reset_high`."""
    start = jax.random.uniform(key, (4,), minval=params.reset_low, maxval=params.reset_high)
    return State(start[0], start[1], start[2], start[3], time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One Euler step of `tau` seconds; reward 1, also for the step that fails, or Sutton and Barto's 0 and -1."""
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

    if params.kinematics_integrator == "euler":
        x, theta = x + params.tau * x_dot, theta + params.tau * theta_dot
    x_dot, theta_dot = x_dot + params.tau * xacc, theta_dot + params.tau * thetaacc
    if params.kinematics_integrator != "euler":
        x, theta = x + params.tau * x_dot, theta + params.tau * theta_dot
    terminated = (jnp.abs(x) > params.x_threshold) | (jnp.abs(theta) > params.theta_threshold_radians)
    reward = -terminated.astype(jnp.float32) if params.sutton_barto_reward else jnp.ones((), jnp.float32)
    return State(x, x_dot, theta, theta_dot, time), reward, terminated


def observe(state: State, params: Params) -> Array:
    """float [4]: x, x_dot, theta, theta_dot."""
    del params
    return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])


def observe_positions(state: State, params: Params) -> Array:
    """float [2]: x, theta."""
    del params
    return jnp.stack([state.x, state.theta])


def observe_masked(state: State, params: Params) -> Masked:
    """`observe`, and bool [2]: beyond half the track, left or right, a push to the nearer end is not allowed."""
    half = params.x_threshold / 2
    return Masked(observe(state, params), jnp.stack([state.x >= -half, state.x <= half]))


def observation_space(params: Params) -> spaces.Box:
    """Twice the thresholds, so that the observation that fails is inside."""
    high = np.array([params.x_threshold * 2, np.inf, params.theta_threshold_radians * 2, np.inf])
    return spaces.Box(-high, high, (4,), jax.dtypes.canonicalize_dtype(float))


def positions_space(params: Params) -> spaces.Box:
    """`observation_space` without the velocities."""
    high = np.array([params.x_threshold * 2, params.theta_threshold_radians * 2])
    return spaces.Box(-high, high, (2,), jax.dtypes.canonicalize_dtype(float))


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


def frame(state: State, params: Params) -> np.ndarray:
    """The cart on its track, which ends where the episode does, and the pole."""
    edge, x, theta, length = (float(v) for v in (params.x_threshold, state.x, state.theta, 2 * params.length))
    canvas = raster.Canvas(240, 160, (-1.05 * edge, 1.05 * edge), (-0.4 * edge, edge))
    canvas.line((-edge, 0.0), (edge, 0.0), 0.01 * edge, raster.GREY)
    canvas.rectangle((x - 0.1 * edge, -0.06 * edge), (x + 0.1 * edge, 0.06 * edge), raster.BLACK)
    tip = (x + length * math.sin(theta), 0.03 * edge + length * math.cos(theta))
    canvas.line((x, 0.03 * edge), tip, 0.04 * edge, raster.ORANGE)
    canvas.circle((x, 0.03 * edge), 0.02 * edge, raster.BLUE)
    return canvas.pixels


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    for name in ("masscart", "masspole", "length", "tau", "theta_threshold_radians", "x_threshold"):
        checks.in_range(name, getattr(params, name), 0, math.inf, open_low=True)
    for name in ("gravity", "force_mag"):
        checks.in_range(name, getattr(params, name), 0, math.inf)
    checks.one_of("kinematics_integrator", params.kinematics_integrator, ("euler", "semi-implicit euler"))
    checks.in_range("reset_low", params.reset_low, -math.inf, math.inf)
    low = params.reset_low if checks.is_number(params.reset_low) else -math.inf
    checks.in_range("reset_high", params.reset_high, low, math.inf)


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
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # the physics draws nothing
    )


def cartpole_v0() -> PureEnvironment:
    """CartPole-v0: 200 steps."""
    return dataclasses.replace(cartpole(), name="CartPole-v0", default_params=Params(max_steps_in_episode=200))


def position_only_cartpole() -> PureEnvironment:
    """PositionOnlyCartPole-v1: the velocities are hidden, which asks for memory."""
    return dataclasses.replace(
        cartpole(), name="PositionOnlyCartPole-v1", observe_fn=observe_positions, observation_space_fn=positions_space
    )


def masked_cartpole() -> PureEnvironment:
    """MaskedCartPole-v1: beyond half the track a mask allows only pushes back; the other still works."""
    return dataclasses.replace(cartpole(), name="MaskedCartPole-v1", observe_fn=observe_masked)
