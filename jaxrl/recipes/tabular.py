"""Learning in a table as recipes: one for each learner, and those named after what they show."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrl import behaviour, checks, spaces
from jaxrl.agents.dyna import dyna_q, prioritized_sweeping
from jaxrl.agents.lambda_return import lambda_return
from jaxrl.agents.monte_carlo import monte_carlo
from jaxrl.agents.q_learning import double_q_learning, q_learning
from jaxrl.agents.sarsa import expected_sarsa, sarsa, tree_backup
from jaxrl.agents.traces import q_lambda, sarsa_lambda
from jaxrl.buffers import recent
from jaxrl.envs import wrappers
from jaxrl.envs.tabular import tabular_mdp
from jaxrl.planning import model
from jaxrl.recipes.base import Config, Exploration, Home, Recipe, epsilon
from jaxrl.train import LoopConfig
from jaxrl.types import NO_LIMIT, Agent, Buffer, PyTree

_FORGETTING = 10.0  # eta of averages: the n-th update counts as 11 / (n + 10)


@dataclass(frozen=True)
class Features:
    """How observations that are a Box become rows of the table."""

    tilings: int = 0
    """tilings of a tile coding; 0: plain bins, one row at a time"""
    bins: tuple[int, ...] = ()
    """bins, or tiles, of each dimension, or one number for all; none: observations are rows already"""
    low: tuple[float, ...] = ()
    """of each dimension; what is below falls into the first bin. None: the observation space's own"""
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class TabularAgent:
    """Learning in a table."""

    alpha: float = 1.0
    """step size"""
    alpha_power: float = 0.6
    """step size is alpha / visits^alpha_power; 0 keeps it at alpha"""
    gamma: float = 0.99
    initial: float = 0.0
    """value of every entry at the start"""
    average: bool = False
    """be greedy, in the end, in the average of each entry over its updates, of which late ones count more"""
    epsilon: Exploration = field(default_factory=lambda: Exploration(end=0.1, fraction=0.5))


@dataclass(frozen=True)
class StepsAgent(TabularAgent):
    """Learning from n steps."""

    n_step: int = 1
    """length of the returns"""


@dataclass(frozen=True)
class SarsaLambdaAgent(TabularAgent):
    """SARSA with eligibility traces."""

    trace_lambda: float = 0.9
    """how much of a trace outlasts a step, beside gamma"""
    trace: Literal["accumulating", "replacing", "dutch"] = "replacing"


@dataclass(frozen=True)
class QLambdaAgent(TabularAgent):
    """Q-learning with eligibility traces."""

    trace_lambda: float = 0.9
    """how much of a trace outlasts a step, beside gamma"""
    variant: Literal["watkins", "peng"] = "watkins"


@dataclass(frozen=True)
class EpisodesAgent(TabularAgent):
    """Learning from whole episodes."""

    horizon: int = 0
    """cut episodes after so many steps; 0: where the environment does"""


@dataclass(frozen=True)
class LambdaReturnAgent(EpisodesAgent):
    """Learning from whole episodes, bootstrapped."""

    trace_lambda: float = 0.9
    """how much of a return is what followed, and not a value on the way"""
    target: Literal["sarsa", "watkins", "peng"] = "sarsa"


@dataclass(frozen=True)
class MonteCarloAgent(EpisodesAgent):
    """Learning from whole episodes alone."""

    visit: Literal["first", "every"] = "first"
    """which visits to an entry within an episode count"""
    cut: Literal["drop", "keep"] = "drop"
    """what becomes of episodes that a step limit cut"""
    exploring_starts: bool = False
    """any action first, then greedy, in place of epsilon"""


@dataclass(frozen=True)
class DynaAgent(TabularAgent):
    """Learning a model and planning in it."""

    planning: int = 5
    """simulated updates after each real one"""
    model: Literal["last", "counts"] = "counts"
    """what it is made of: a pair's last step, or how often each next state followed"""


@dataclass(frozen=True)
class SweepingAgent(DynaAgent):
    """Learning a model and planning in it where values change most."""

    theta: float = 1e-4
    """changes up to this size are left alone"""


@dataclass(frozen=True)
class Tabular(Config):
    """A table, learned as steps or episodes come."""

    eval_episodes: int = 10_000
    agent: TabularAgent = field(default_factory=TabularAgent)
    features: Features = field(default_factory=Features)


class Learner(NamedTuple):
    """How a recipe's settings become an agent."""

    factory: Callable[..., Agent]
    settings: TabularAgent  # by default
    window: Callable[[Any], int]  # (config.agent) -> steps of what it learns from; for episodes, the longest + 1
    options: Callable[[Any], dict[str, Any]]  # (config.agent) -> what the factory takes beside every table's


_LEARNERS = {
    "q_learning": (
        "Q-learning, of one step or of n.",
        Learner(q_learning, StepsAgent(), lambda agent: agent.n_step, lambda agent: {}),
    ),
    "double_q_learning": (
        "Double Q-learning: two tables, each valued by the other.",
        Learner(double_q_learning, StepsAgent(), lambda agent: agent.n_step, lambda agent: {}),
    ),
    "sarsa": (
        "SARSA, of one step or of n.",
        Learner(sarsa, StepsAgent(), lambda agent: agent.n_step + 1, lambda agent: {}),
    ),
    "expected_sarsa": (
        "Expected SARSA.",
        Learner(expected_sarsa, StepsAgent(), lambda agent: agent.n_step, lambda agent: {}),
    ),
    "tree_backup": (
        "Tree backup of n steps.",
        Learner(tree_backup, StepsAgent(n_step=3), lambda agent: agent.n_step, lambda agent: {}),
    ),
    "sarsa_lambda": (
        "SARSA with eligibility traces; its Dutch ones make it true online SARSA(lambda).",
        Learner(
            sarsa_lambda,
            SarsaLambdaAgent(),
            lambda agent: 2,
            lambda agent: {"lambda_": agent.trace_lambda, "trace": agent.trace},
        ),
    ),
    "q_lambda": (
        "Watkins's and Peng's Q(lambda).",
        Learner(
            q_lambda,
            QLambdaAgent(),
            lambda agent: 2 if agent.variant == "watkins" else 1,
            lambda agent: {"lambda_": agent.trace_lambda, "variant": agent.variant},
        ),
    ),
    "dyna_q": (
        "Dyna-Q: Q-learning that also plans in the model it learns.",
        Learner(
            dyna_q,
            DynaAgent(),
            lambda agent: 1,
            lambda agent: {"planning": agent.planning, "model": agent.model},
        ),
    ),
    "prioritized_sweeping": (
        "Planning in a learned model where values change most.",
        Learner(
            prioritized_sweeping,
            SweepingAgent(),
            lambda agent: 1,
            lambda agent: {"planning": agent.planning, "model": agent.model, "theta": agent.theta},
        ),
    ),
    "monte_carlo": (
        "GLIE Monte-Carlo control from whole episodes.",
        Learner(
            monte_carlo,
            MonteCarloAgent(),
            lambda agent: agent.horizon + 1,
            lambda agent: {"horizon": agent.horizon, "visit": agent.visit, "cut": agent.cut},
        ),
    ),
    "lambda_return": (
        "The off-line lambda-return: forward views of SARSA(lambda) and Q(lambda).",
        Learner(
            lambda_return,
            LambdaReturnAgent(),
            lambda agent: agent.horizon + 1,
            lambda agent: {"horizon": agent.horizon, "lambda_": agent.trace_lambda, "target": agent.target},
        ),
    ),
}


def _recipe(about: str, learner: Learner, config: Tabular, home: Home | None = None) -> Recipe:
    episodes = isinstance(learner.settings, EpisodesAgent)

    def settled(config: Tabular, env: Any, params: PyTree) -> Any:
        """The agent's settings, the horizon found."""
        agent = config.agent
        if isinstance(agent, EpisodesAgent):
            return dataclasses.replace(agent, horizon=_horizon(agent, env, params))
        return agent

    def rows(config: Tabular, env: Any, params: PyTree) -> int:
        checks.at_least("agent.n_step", getattr(config.agent, "n_step", 1), 1)
        window = learner.window(settled(config, env, params))
        return window + config.unroll - 1 if episodes else window

    def build(
        config: Tabular, env: Any, params: PyTree, loop: LoopConfig, iterations: int, network: Any
    ) -> tuple[Agent, Buffer]:
        del iterations
        if network is not None:
            raise ValueError("a tabular recipe takes no network; use a deep recipe such as dqn")
        for name in ("updates",) if episodes else ("unroll", "updates"):
            if getattr(config, name) != 1:
                raise ValueError(
                    f"{name} is {getattr(config, name)}; a table learns from each step once, as it comes: leave it at 1"
                )
        agent = settled(config, env, params)
        if not isinstance(agent, MonteCarloAgent):
            _require_end(agent.gamma, env, params)
        checks.in_range("agent.initial", agent.initial, -math.inf, math.inf, open_low=True, open_high=True)
        starts = getattr(agent, "exploring_starts", False)
        options = {
            "gamma": agent.gamma,
            "alpha": agent.alpha,
            "alpha_power": agent.alpha_power,
            "initial": agent.initial,
            "epsilon": epsilon(agent.epsilon, config.steps),
            **({"behaviour": behaviour.exploring_starts()} if starts else {}),
            **({"average": _FORGETTING} if agent.average else {}),
            **learner.options(agent),
        }
        made = learner.factory(_states(env, params), env.action_space(params).n, **options)
        return made, recent(rows(config, env, params), loop.num_envs)

    return Recipe(about, config, build, rows, _wrap, home=home)


def _horizon(agent: EpisodesAgent, env: Any, params: PyTree) -> int:
    """The longest episode."""
    own = getattr(params, "max_steps_in_episode", None)
    limits = [limit for limit in (agent.horizon, own) if isinstance(limit, int) and 0 < limit < NO_LIMIT]
    if not limits:
        raise ValueError(
            f"{env.name} has no step limit, and this recipe learns from whole episodes: set agent.horizon, which cuts "
            "them (wrappers.time_limit)"
        )
    return min(limits)


def _require_end(gamma: float, env: Any, params: PyTree) -> None:
    """Raises ValueError where returns without a discount have no bound; a cut does not bound them, it is no end."""
    if gamma != 1:
        return
    try:
        stuck = np.asarray(model.stuck(tabular_mdp(env, params), None))
    except ValueError:  # nothing is known of where it ends
        return
    if stuck.any():
        raise ValueError(
            f"agent.gamma is 1, but state {int(stuck.argmax())} of {env.name} earns rewards and reaches no end, so "
            "that returns have no bound; use gamma below 1, or monte_carlo with a horizon"
        )


def _wrap(config: Tabular, env: Any, params: PyTree) -> Any:
    """The environment with rows of a table for observations."""
    env = _indexed(config.features, env, params)
    horizon = getattr(config.agent, "horizon", 0)
    checks.at_least("agent.horizon", horizon, 0)
    return wrappers.time_limit(env, horizon) if horizon else env


def _indexed(features: Features, env: Any, params: PyTree) -> Any:
    if features.bins:
        bins = features.bins[0] if len(features.bins) == 1 else features.bins
        bounds = (features.low, features.high) if features.low or features.high else None
        if features.tilings:
            return wrappers.tile_coding(env, features.tilings, bins, bounds)
        return wrappers.discretize_observation(env, bins, bounds)
    if features.tilings:
        raise ValueError(f"features.tilings is {features.tilings} without bins; set features.bins, such as 8")
    try:
        _states(env, params)
        return env
    except ValueError as error:
        if isinstance(env.observation_space(params), (spaces.Tuple, spaces.Dict, spaces.MultiDiscrete)):
            return wrappers.index_observation(env)
        raise ValueError(
            f"a tabular recipe needs a row of a table: {error}; or set features.bins, such as 8 (and features.tilings "
            "for tile coding), or use a deep recipe"
        ) from None


def _states(env: Any, params: PyTree) -> int:
    """Rows of the table. Raises ValueError where observations are none."""
    space = env.observation_space(params)
    return int(space.n) if hasattr(space, "n") else wrappers.num_states(env)


_CART_POLE = Features(bins=(6, 6, 12, 12), low=(-2.4, -3.0, -0.21, -3.5), high=(2.4, 3.0, 0.21, 3.5))
_NAMED = {
    "gyx_sarsa_frozenlake": (
        "The talk's SARSA with its author's constants, without ice.",
        "sarsa",
        Tabular(
            steps=100_000,
            num_envs=1,
            agent=StepsAgent(alpha=0.8, alpha_power=0.0, gamma=0.9, average=True, epsilon=Exploration(0.8, 0.8)),
        ),
        Home("FrozenLake-v1", {"is_slippery": False}),
    ),
    "q_learning_frozenlake": (
        "Q-learning on slippery ice.",
        "q_learning",
        Tabular(agent=StepsAgent()),
        Home("FrozenLake-v1"),
    ),
    "q_learning_taxi": (
        "Q-learning that brings passengers where they want to go.",
        "q_learning",
        Tabular(steps=1_000_000, agent=StepsAgent(alpha_power=0.0, alpha=0.5)),
        Home("Taxi-v4"),
    ),
    "sarsa_cliffwalking": (
        "SARSA along a cliff: the safe path, as long as it explores.",
        "sarsa",
        Tabular(agent=StepsAgent(alpha=0.5, alpha_power=0.0, gamma=1.0, epsilon=Exploration(0.1, 0.1))),
        Home("CliffWalking-v1"),
    ),
    "glie_mc_blackjack": (
        "GLIE Monte-Carlo control of a game of cards, 5e7 hands.",
        "monte_carlo",
        Tabular(
            steps=73_400_320,
            num_envs=1_024,
            unroll=160,
            eval_episodes=1_000_000,
            agent=MonteCarloAgent(alpha_power=0.7, gamma=1.0, horizon=21, epsilon=Exploration(1.0, 0.02, 1.0)),
        ),
        Home("Blackjack-v1"),
    ),
    "q_learning_tiles_cartpole": (
        "Q-learning by tile coding: a pole balanced with a table.",
        "q_learning",
        Tabular(
            steps=500_000,
            eval_episodes=1_000,
            agent=StepsAgent(alpha=0.3, alpha_power=0.0, average=True, epsilon=Exploration(1.0, 0.05, 0.2)),
            features=dataclasses.replace(_CART_POLE, tilings=16, bins=(4,)),
        ),
        Home("CartPole-v1"),
    ),
    "q_learning_bins_cartpole": (
        "The pole by plain bins.",
        "q_learning",
        Tabular(
            steps=500_000,
            eval_episodes=1_000,
            agent=StepsAgent(alpha=0.3, alpha_power=0.0, n_step=5, average=True, epsilon=Exploration(1.0, 0.05, 0.2)),
            features=_CART_POLE,
        ),
        Home("CartPole-v1"),
    ),
    "q_learning_tiles_mountaincar": (
        "Q-learning by tile coding: a car that is too weak for its hill.",
        "q_learning",
        Tabular(
            steps=1_000_000,
            num_envs=8,
            eval_episodes=1_000,
            agent=StepsAgent(
                alpha=0.3, alpha_power=0.0, gamma=1.0, n_step=3, average=True, epsilon=Exploration(0.05, 0.05)
            ),
            features=Features(tilings=16, bins=(8,)),
        ),
        Home("MountainCar-v0"),
    ),
    "q_learning_bins_mountaincar": (
        "The car by plain bins.",
        "q_learning",
        Tabular(
            steps=1_000_000,
            num_envs=8,
            eval_episodes=1_000,
            agent=StepsAgent(
                alpha=0.3, alpha_power=0.0, gamma=1.0, n_step=5, average=True, epsilon=Exploration(0.05, 0.05)
            ),
            features=Features(bins=(40,)),
        ),
        Home("MountainCar-v0"),
    ),
}


def _settings(learner: Learner) -> Tabular:
    return Tabular(agent=learner.settings, unroll=32 if isinstance(learner.settings, EpisodesAgent) else 1)


RECIPES = {
    **{name: _recipe(about, learner, _settings(learner)) for name, (about, learner) in _LEARNERS.items()},
    **{name: _recipe(about, _LEARNERS[base][1], config, home) for name, (about, base, config, home) in _NAMED.items()},
}
