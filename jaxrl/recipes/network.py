"""What every recipe with a network shares: its settings, optimiser and torso."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxrl import checks, explore, nets
from jaxrl.agents import diagnostics, value
from jaxrl.envs import wrappers
from jaxrl.recipes.base import Exploration
from jaxrl.types import Agent, PyTree


@dataclass(frozen=True)
class NetworkAgent:
    """What every learner with a network sets."""

    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-6
    """reached linearly at the run's end"""
    optimizer: Literal["adam", "radam", "rmsprop"] = "adam"
    """rmsprop is centred, of decay 0.95"""
    optimizer_eps: float = 1e-8
    """what the optimiser adds to its divisor"""
    clip_norm: float = 10.0
    """largest global norm of a gradient"""
    gamma: float = 0.99
    reward_scale: float = 1.0
    """what it learns from, of a reward"""
    reward_clip: float = 0.0
    """if not 0: largest size of what it learns from"""
    dueling: bool = False
    """one head for the state's value, one for what actions add"""
    noisy: bool = False
    """explore by noise in the network's weights, in place of epsilon"""
    layer_norm: bool = False
    """normalise each layer"""
    torso: Literal["auto", "mlp"] = "auto"
    """auto: convolutions where observations are images"""
    fourier: int = 0
    """order of the Fourier basis that observations are written in before an MLP's layers; 0: none"""
    hidden: tuple[int, ...] = (120, 84)
    """widths of the hidden layers; of images the last alone counts, after the convolutions, and none is left out"""
    epsilon: Exploration = field(default_factory=Exploration)
    diagnostics: bool = False
    """also report the gradient's norm, priorities and the share of dormant units"""


_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "rmsprop": lambda rate, eps: optax.rmsprop(rate, decay=0.95, eps=eps, centered=True),
    "radam": optax.radam,
}


def check_network(agent: NetworkAgent) -> None:
    """Raises ValueError for what no network learns with."""
    checks.in_range("agent.learning_rate", agent.learning_rate, 0, math.inf, open_low=True, open_high=True)
    checks.in_range("agent.learning_rate_end", agent.learning_rate_end, 0, math.inf, open_high=True)
    if agent.learning_rate_end > agent.learning_rate:
        raise ValueError(
            f"agent.learning_rate_end {agent.learning_rate_end} is above agent.learning_rate {agent.learning_rate}, so "
            "that it would rise: lower it too, to the same for a constant rate"
        )
    checks.in_range("agent.optimizer_eps", agent.optimizer_eps, 0, math.inf, open_low=True, open_high=True)
    checks.one_of("agent.optimizer", agent.optimizer, _OPTIMIZERS)
    checks.in_range("agent.gamma", agent.gamma, 0, 1)
    checks.in_range("agent.clip_norm", agent.clip_norm, 0, math.inf, open_low=True, open_high=True)
    checks.in_range("agent.reward_scale", agent.reward_scale, 0, math.inf, open_low=True, open_high=True)
    checks.in_range("agent.reward_clip", agent.reward_clip, 0, math.inf, open_high=True)
    checks.at_least("agent.fourier", agent.fourier, 0)
    for width in agent.hidden:
        checks.at_least("agent.hidden", width, 1)


def optimizer(agent: NetworkAgent, steps: int) -> optax.GradientTransformation:
    """The settings' optimiser of a run with so many gradient steps."""
    rate = optax.linear_schedule(agent.learning_rate, agent.learning_rate_end, steps)
    found = optax.chain(
        optax.clip_by_global_norm(agent.clip_norm), _OPTIMIZERS[agent.optimizer](rate, eps=agent.optimizer_eps)
    )
    # one array for all: where each of the network's has kernels of its own, XLA on CPU compiles for longer
    return diagnostics.measured(found) if agent.diagnostics else optax.flatten(found)


def finished(settings: NetworkAgent, agent: Agent, network: Any) -> Agent:
    """The agent of a network with what any agent may have: rewards scaled and clipped, diagnostics."""
    scale, clip = settings.reward_scale, settings.reward_clip
    if settings.diagnostics:
        measures = diagnostics.priorities, diagnostics.gradient_norm, diagnostics.dormant(network)
        agent = diagnostics.with_metrics(agent, *measures)
    if scale == 1.0 and not clip:
        return agent

    def change(reward: Array) -> Array:
        reward = scale * reward
        return jnp.clip(reward, -clip, clip) if clip else reward

    return value.with_rewards(agent, change)


def torso(agent: NetworkAgent, env: Any, params: PyTree) -> Any:
    """What stands before the head: convolutions for images, else an MLP."""
    space = env.observation_space(params)
    shape, hidden = getattr(space, "shape", ()), tuple(agent.hidden)
    if agent.torso == "mlp" or len(shape) != 3:
        one_hot = getattr(space, "n", None)
        return nets.MLP(hidden, one_hot, _basis(agent, env, space), layer_norm=agent.layer_norm, noisy=agent.noisy)
    if min(shape[:2]) < 36:
        return nets.MinAtarConv(hidden[-1] if hidden else None, layer_norm=agent.layer_norm, noisy=agent.noisy)
    return nets.NatureConv(hidden[-1] if hidden else 512, noisy=agent.noisy)


def _basis(agent: NetworkAgent, env: Any, space: Any) -> nets.Fourier | None:
    if not agent.fourier:
        return None
    if not hasattr(space, "low"):
        raise ValueError(
            f"agent.fourier is {agent.fourier}, but {env.name} shows {space}; a Fourier basis is of a Box: set it to 0"
        )
    low, high = (tuple(np.broadcast_to(bound, space.shape).ravel().tolist()) for bound in (space.low, space.high))
    return nets.Fourier(low, high, agent.fourier)


def rescaled(config: Any, env: Any, params: PyTree) -> Any:
    """The environment with the limits of its observations at -1 and 1, where the settings ask for it."""
    del params
    return wrappers.rescale_observation(env) if config.rescale else env


def check_output(network: Any, shape: tuple[int, ...], env: Any, params: PyTree) -> None:
    """Raises ValueError where a network does not give `shape` for one observation."""

    def one(key: Array) -> Array:
        obs, _ = explore.split_mask(env.reset(key, params)[0])
        return network.apply(network.init(key, obs), obs)

    found = jax.eval_shape(lambda: one(jax.random.key(0))).shape
    if found != shape:
        raise ValueError(
            f"the network gives {list(found)} values for one observation of {env.name}; it must give one for each of "
            f"its actions, {list(shape)}"
        )
