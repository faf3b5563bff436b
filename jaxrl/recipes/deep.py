"""Deep Q-learning with replay as recipes: one for each learner, all with the same settings beside their own."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jaxrl import checks, nets
from jaxrl.agents import value
from jaxrl.agents.c51 import c51
from jaxrl.agents.dqn import dqn
from jaxrl.agents.fqf import fqf
from jaxrl.agents.hl_gauss import hl_gauss
from jaxrl.agents.iqn import iqn
from jaxrl.agents.munchausen import munchausen_dqn, munchausen_iqn
from jaxrl.agents.qr_dqn import qr_dqn
from jaxrl.buffers import prioritized, uniform
from jaxrl.recipes.base import Config, Recipe, epsilon
from jaxrl.recipes.network import NetworkAgent, check_network, check_output, finished, optimizer, rescaled, torso
from jaxrl.train import LoopConfig
from jaxrl.types import Agent, Buffer, PyTree


@dataclass(frozen=True)
class Replay:
    """The replay memory."""

    capacity: int = 100_000
    """transitions kept, rounded up to the same number for every environment"""
    batch_size: int = 128
    """windows in an update"""
    ends: float = 0.125
    """largest share of the steps that end an episode: places for their final observations"""
    prioritized: bool = False
    """draw windows by their last error"""
    alpha: float = 0.6
    """how much priorities count: windows are drawn in proportion to priority^alpha"""
    beta: float = 0.4
    """how much of what priorities favour the weights take back"""


@dataclass(frozen=True)
class Target:
    """How a target network follows."""

    polyak: float = 0.005
    """share of the way that the target network moves at each update"""
    target_period: int = 0
    """if not 0: copy the target network every so many updates instead"""


def following(target: Target) -> value.TargetUpdate:
    """How a target network follows by these settings. Raises ValueError for a period below 0."""
    checks.at_least("agent.target_period", target.target_period, 0)
    return value.hard(target.target_period) if target.target_period else value.polyak(target.polyak)


@dataclass(frozen=True)
class DeepAgent(Target, NetworkAgent):
    """What every learner with a replay memory sets."""

    n_step: int = 10
    """length of the returns"""


@dataclass(frozen=True)
class DoubleAgent(DeepAgent):
    """What every learner sets whose next action two networks may choose."""

    double: bool = True
    """let the learning network choose the action that the target network values"""


@dataclass(frozen=True)
class DQNAgent(DoubleAgent):
    """Deep Q-learning."""

    loss: Literal["squared", "huber"] = "squared"


@dataclass(frozen=True)
class C51Agent(DoubleAgent):
    """Deep Q-learning of a categorical distribution of returns."""

    atoms: int = 51
    """points of the return, evenly from v_min to v_max"""
    v_min: float = 0.0
    v_max: float = 100.0


@dataclass(frozen=True)
class RainbowAgent(C51Agent):
    """All six: double, prioritized replay, dueling, n steps, a distribution, noise."""

    distributional: bool = True
    """false: learn the mean of returns alone, as DQN does"""


@dataclass(frozen=True)
class HLGaussAgent(DoubleAgent):
    """Deep Q-learning by classification of a Gaussian around the target."""

    bins: int = 51
    """of the return, evenly from v_min to v_max, which lie a few widths beyond it"""
    v_min: float = -5.0
    v_max: float = 105.0
    sigma: float = 0.75
    """the Gaussian's standard deviation, in widths of a bin"""


@dataclass(frozen=True)
class QRAgent(DoubleAgent):
    """Deep Q-learning of quantiles of the return."""

    quantiles: int = 50
    kappa: float = 1.0
    """errors up to this size are squared; 0: none"""


@dataclass(frozen=True)
class Fractions:
    """Where quantiles are learned."""

    fractions: int = 8
    """drawn for each item"""
    target_fractions: int = 8
    """drawn for its target"""
    acting_fractions: int = 32
    """a value is the mean over so many"""
    cosines: int = 64
    """that embed a fraction"""
    kappa: float = 1.0
    """errors up to this size are squared; 0: none"""


@dataclass(frozen=True)
class IQNAgent(Fractions, DoubleAgent):
    """Deep Q-learning of the return's quantile at any fraction."""


@dataclass(frozen=True)
class FQFAgent(DoubleAgent):
    """Deep Q-learning of quantiles at fractions that it proposes."""

    fractions: int = 16
    """proposed"""
    entropy: float = 0.0
    """reward for proposing even ones"""
    cosines: int = 64
    """that embed a fraction"""
    kappa: float = 1.0
    """errors up to this size are squared; 0: none"""


@dataclass(frozen=True)
class MunchausenAgent(DeepAgent):
    """Soft deep Q-learning with the policy's logarithm added to rewards."""

    alpha: float = 0.9
    """how much of it"""
    temperature: float = 0.03
    """of the soft policy"""
    floor: float = -1.0
    """least logarithm that is added"""


@dataclass(frozen=True)
class MunchausenDQNAgent(MunchausenAgent):
    """Munchausen DQN."""

    loss: Literal["squared", "huber"] = "squared"


@dataclass(frozen=True)
class MunchausenIQNAgent(Fractions, MunchausenAgent):
    """Munchausen IQN."""


@dataclass(frozen=True)
class Deep(Config):
    """Deep Q-learning with a replay memory."""

    learning_starts: int = 1_000
    rescale: bool = False
    """map the limits of observations to -1 and 1"""
    agent: DeepAgent = field(default_factory=DQNAgent)
    replay: Replay = field(default_factory=Replay)


class Learner(NamedTuple):
    """How a recipe's settings become an agent."""

    factory: Callable[..., Agent]
    network: Callable[[Any, int, Any], Any]  # (config.agent, actions, torso) -> a network
    options: tuple[str, ...]  # settings that the factory takes by name, beside every learner's
    shape: Callable[[Any, int], tuple[int, ...]] | None = None  # (config.agent, actions) -> of the network's output


def _mean(agent: DeepAgent, actions: int, torso: Any) -> nets.QNetwork:
    return nets.QNetwork(actions, torso, agent.dueling, noisy=agent.noisy)


def _distribution(name: str) -> Callable[[Any, int, Any], nets.QNetwork]:
    """A network with as many outputs of an action as the setting `name` says."""
    return lambda agent, actions, torso: nets.QNetwork(actions, torso, agent.dueling, getattr(agent, name), agent.noisy)


def _implicit(agent: Any, actions: int, torso: Any) -> nets.ImplicitQuantiles:
    return nets.ImplicitQuantiles(actions, torso, cosines=agent.cosines, dueling=agent.dueling, noisy=agent.noisy)


def _proposing(agent: FQFAgent, actions: int, torso: Any) -> nets.ImplicitQuantiles:
    return _implicit(agent, actions, torso).clone(proposals=agent.fractions)


def _categorical(factory: Callable[..., Agent], name: str, *more: str) -> Learner:
    """A learner whose network gives [A, the setting `name`]."""
    return Learner(
        factory,
        _distribution(name),
        (name, "double", *more),
        lambda agent, actions: (actions, getattr(agent, name)),
    )


def _rainbow(agent: RainbowAgent) -> Learner:
    return _C51 if agent.distributional else _DQN._replace(options=("double",))


_DQN = Learner(dqn, _mean, ("double", "loss"), lambda agent, actions: (actions,))
_C51 = _categorical(c51, "atoms", "v_min", "v_max")
_IQN = Learner(iqn, _implicit, ("double", "fractions", "target_fractions", "acting_fractions", "kappa"))
_MUNCHAUSEN = ("alpha", "temperature", "floor")
_LEARNERS: dict[str, tuple[str, Learner | Callable[[Any], Learner], Deep]] = {
    "dqn": ("Deep Q-learning with uniform replay.", _DQN, Deep()),
    "c51": ("C51: a categorical distribution of returns.", _C51, Deep(agent=C51Agent())),
    "rainbow": (
        "Rainbow: C51, double, dueling, n-step and noisy, with prioritized replay.",
        _rainbow,
        Deep(agent=RainbowAgent(dueling=True, noisy=True), replay=Replay(prioritized=True)),
    ),
    "hl_gauss": (
        "HL-Gauss: values learned by classification.",
        _categorical(hl_gauss, "bins", "v_min", "v_max", "sigma"),
        Deep(agent=HLGaussAgent()),
    ),
    "qr_dqn": ("QR-DQN: quantiles of the return.", _categorical(qr_dqn, "quantiles", "kappa"), Deep(agent=QRAgent())),
    "iqn": ("IQN: quantiles of the return at drawn fractions.", _IQN, Deep(agent=IQNAgent())),
    "fqf": (
        "FQF: quantiles of the return at fractions it proposes.",
        Learner(fqf, _proposing, ("double", "entropy", "kappa")),
        Deep(agent=FQFAgent()),
    ),
    "munchausen_dqn": (
        "Munchausen DQN: soft Q-learning with log pi added to rewards.",
        _DQN._replace(factory=munchausen_dqn, options=(*_MUNCHAUSEN, "loss")),
        Deep(agent=MunchausenDQNAgent()),
    ),
    "munchausen_iqn": (
        "Munchausen IQN.",
        _IQN._replace(factory=munchausen_iqn, options=(*_MUNCHAUSEN, *_IQN.options[1:])),
        Deep(agent=MunchausenIQNAgent()),
    ),
}


def _build(learner: Learner | Callable[[Any], Learner]) -> Callable[..., tuple[Agent, Buffer]]:
    """A recipe's `build` for a learner, or for what the settings make of one."""

    def build(config: Deep, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any):
        agent = config.agent
        found = learner if isinstance(learner, Learner) else learner(agent)
        check_network(agent)
        check_replay(config, loop)
        actions = env.action_space(params).n
        if network is None:
            network = found.network(agent, actions, torso(agent, env, params))
        elif found.shape is not None:
            check_output(network, found.shape(agent, actions), env, params)
        built = found.factory(
            network,
            optimizer(agent, iterations * loop.updates),
            gamma=agent.gamma,
            target_update=following(agent),
            epsilon=0.0 if agent.noisy else epsilon(agent.epsilon, config.steps),
            **{name: getattr(agent, name) for name in found.options},
        )
        return finished(agent, built, network), replay_buffer(config, loop)

    return build


def replay_buffer(config: Deep, loop: LoopConfig) -> Buffer:
    """The replay memory that the settings ask for."""
    replay = config.replay
    sizes = replay.capacity, replay.batch_size, loop.num_envs, config.agent.n_step
    if not replay.prioritized:
        return uniform(*sizes, ends=replay.ends)
    return prioritized(*sizes, alpha=replay.alpha, beta=replay.beta, ends=replay.ends)


def check_replay(config: Deep, loop: LoopConfig) -> None:
    """Raises ValueError for a memory that the first update cannot draw its batch from."""
    replay, n_step = config.replay, config.agent.n_step
    checks.at_least("replay.capacity", replay.capacity, 1)
    checks.in_range("replay.ends", replay.ends, 0, 1)
    rows = min(loop.warmup + loop.unroll, math.ceil(replay.capacity / loop.num_envs))
    windows = (rows - n_step + 1) * loop.num_envs
    if 0 < windows < replay.batch_size:
        needed = replay.batch_size + n_step * loop.num_envs
        raise ValueError(
            f"replay.batch_size {replay.batch_size} is more than the {windows} windows that the buffer holds at the "
            f"first update; set learning_starts and replay.capacity to at least {needed}"
        )


def min_rows(config: Deep, env: Any, params: PyTree) -> int:
    """Steps of each environment that a window takes. Raises ValueError for what no memory can draw."""
    del env, params
    checks.at_least("agent.n_step", config.agent.n_step, 1)
    checks.at_least("replay.batch_size", config.replay.batch_size, 1)
    return config.agent.n_step


def recipe(learner: str, about: str, config: Deep, wrap: Callable[..., Any] = rescaled, **more: Any) -> Recipe:
    """A recipe of one of the learners here, with settings of its own."""
    return Recipe(about, config, _build(_LEARNERS[learner][1]), min_rows, wrap, **more)


# an update in four steps learns as much, in a third of the time
_CARTPOLE = {"steps": 500_000, "unroll": 4, "agent.polyak": 0.02}
_SMALL = {"replay.batch_size": 64, "agent.cosines": 32}
_IMPLICIT = _CARTPOLE | _SMALL | {"agent.acting_fractions": 8}
# without them at least two seeds in ten end below 450: they forget what falling is like
_REMEMBERING = {"agent.layer_norm": True, "replay.capacity": 500_000}
_ENVIRONMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "dqn": {"FrozenLake-v1": {"agent.n_step": 5}, "MaskedCartPole-v1": _CARTPOLE},
    "iqn": {"CartPole-v1": _IMPLICIT},
    "munchausen_dqn": {"CartPole-v1": _CARTPOLE | _REMEMBERING},
    "munchausen_iqn": {"CartPole-v1": _IMPLICIT | _REMEMBERING},
    # what was measured: with fewer updates one seed of Rainbow in four ended at 255
    **{name: {"CartPole-v1": {"steps": 500_000}} for name in ("c51", "hl_gauss", "rainbow")},
    "fqf": {
        "CartPole-v1": _CARTPOLE | _SMALL | _REMEMBERING | {"agent.fractions": 8, "unroll": 2, "agent.polyak": 0.01}
    },
}
RECIPES = {
    name: recipe(name, about, config, environments={"CartPole-v1": _CARTPOLE} | _ENVIRONMENTS.get(name, {}))
    for name, (about, _, config) in _LEARNERS.items()
}
