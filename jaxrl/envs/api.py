"""What an environment is, and the one place that adds clock, truncation, auto-reset and final observation.

An environment file holds `Params`, `State` and pure functions for ONE environment; `PureEnvironment` composes
them into the interface of gymnax 1.0. Adapters of foreign environments bring `reset_env`, `step_env` and
`select` of their own and share `reset` and `step` below.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.envs import raster
from jaxrl.envs.layout import Layout
from jaxrl.types import NO_LIMIT as NO_LIMIT  # for the environments
from jaxrl.types import PyTree, Step


class TabularMDP(NamedTuple):
    """A finite decision process, float64: the exact mathematics of a tabular environment, for planners."""

    P: np.ndarray  # [S, A, S], the chance of each next state; a terminal state loops to itself
    R: np.ndarray  # [S, A], the mean reward; 0 in a terminal state
    terminal: np.ndarray  # [S] bool: arriving there ends the episode
    start: np.ndarray  # [S], the chance that an episode starts there


class Environment(Protocol):
    """One environment as pure functions, hashable: vmap makes thousands of it. Signatures of gymnax 1.0.

    `params=None` means `default_params`. `params.max_steps_in_episode`, where there is one, is the limit.
    """

    @property
    def name(self) -> str: ...
    @property
    def default_params(self) -> Any: ...
    @property
    def num_actions(self) -> int: ...

    def reset(self, key: Array, params: Any = None) -> tuple[PyTree, PyTree]:
        """(obs, state) of a new episode."""
        ...

    def step(self, key: Array, state: PyTree, action: ArrayLike, params: Any = None) -> Step:
        """One step, then a reset in the same call where the episode ended.

        obs and state are the new episode's after an end; reward, `terminated`, `truncated` and
        `info["final_observation"]` (the true next observation) are always the step's own.
        """
        ...

    def reset_env(self, key: Array, params: Any) -> tuple[PyTree, PyTree]: ...

    def step_env(
        self, key: Array, state: PyTree, action: ArrayLike, params: Any
    ) -> tuple[PyTree, PyTree, Array, Array, dict[str, Any]]:
        """(obs, state, reward, terminated, info): the step alone, with neither time limit nor reset."""
        ...

    def is_truncated(self, state: PyTree, params: Any) -> Array: ...
    def observation_space(self, params: Any) -> Any: ...
    def action_space(self, params: Any = None) -> Any: ...


@partial(jax.jit, static_argnums=0)
def reset(env: Any, key: Array, params: Any = None) -> tuple[PyTree, PyTree]:
    """`Environment.reset`."""
    return env.reset_env(key, _params(env, params))


@partial(jax.jit, static_argnums=0)
def step(env: Any, key: Array, state: PyTree, action: ArrayLike, params: Any = None) -> Step:
    """`Environment.step`: `step_env`, `is_truncated`, and a reset where `terminated | truncated`."""
    params = _params(env, params)
    step_key, reset_key = jax.random.split(key) if env.splits(params) else (key, key)
    obs, state, reward, terminated, info = env.step_env(step_key, state, action, params)
    truncated = env.is_truncated(state, params)
    info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": obs}
    fresh = env.reset_env(reset_key, params)
    obs, state = env.select(terminated | truncated, fresh, (obs, state), params)
    return obs, state, reward, terminated, truncated, info


def _params(env: Any, params: Any) -> Any:
    """`params`, or the defaults for None. Raises ValueError for another environment's."""
    if params is None:
        return env.default_params
    if not isinstance(params, type(env.default_params)):
        own = type(env.default_params)
        raise ValueError(
            f"params of {env.name} is a {type(params).__module__}.{type(params).__qualname__}; it must be a "
            f"{own.__module__}.{own.__qualname__}, as make returns it"
        )
    return params


def select(done: Array, fresh: PyTree, stepped: PyTree) -> PyTree:
    """`fresh` where the episode is done, else `stepped`, leaf by leaf."""
    return jax.tree.map(partial(jnp.where, done), fresh, stepped)


def always(params: Any) -> bool:
    """True: `splits_fn` where reset and step both draw."""
    del params
    return True


def never(params: Any) -> bool:
    """False: `splits_fn` where at most one of reset and step draws."""
    del params
    return False


@dataclass(frozen=True)
class PureEnvironment:
    """An `Environment` composed of pure functions for one environment; `corridor.py` is a short example.

    State is a NamedTuple with a field `time` (int32 [], steps since the reset): `reset_fn` sets it to 0, the
    clock is kept here. Params has a field `max_steps_in_episode`. Both are pytrees; defaults are hashable.
    A Discrete action outside the space is taken as the nearest one inside: a compiled step cannot raise.
    """

    name: str
    default_params: Any
    reset_fn: Callable[[Array, Any], Any]  # (key, params) -> State
    step_fn: Callable[[Array, Any, Array, Any], tuple[Any, Array, Array]]  # (key, state, action, params) ->
    # (State, reward float32 [], terminated bool [])
    observe_fn: Callable[[Any, Any], PyTree]  # (state, params) -> obs
    observation_space_fn: Callable[[Any], Any]  # (params) -> Space
    action_space_fn: Callable[[Any], Any]  # (params) -> Space
    render_fn: Callable[[Any, Any], str] | None = None  # (state, params) -> ANSI text
    frame_fn: Callable[[Any, Any], np.ndarray] | None = None  # (state, params) -> picture, uint8 [height, width, 3]
    tabular_fn: Callable[[Any], TabularMDP] | None = None  # (params), concrete -> the exact P and R
    layout_fn: Callable[[Any], Layout] | None = None  # (params), concrete -> where a table's states stand on paper
    check_fn: Callable[[Any], None] | None = None  # (params): ValueError where a concrete value is out of range
    # False where reset_fn and step_fn do not both draw: the key serves the one that does, without a split
    splits_fn: Callable[[Any], bool] = always

    reset = reset
    step = step
    observable = True  # an observation is a function of state and params, so that it can be made again

    @property
    def num_actions(self) -> int:
        """How many actions there are; of a continuous one, its dimensions."""
        space = self.action_space()
        return space.n if hasattr(space, "n") else math.prod(space.shape)

    def reset_env(self, key: Array, params: Any) -> tuple[PyTree, Any]:
        state = self.reset_fn(key, params)
        return self.observe_fn(state, params), state

    def step_env(
        self, key: Array, state: Any, action: ArrayLike, params: Any
    ) -> tuple[PyTree, Any, Array, Array, dict[str, Any]]:
        time = state.time + 1
        action = jnp.asarray(action)
        space = self.action_space_fn(params)
        if hasattr(space, "n"):
            action = jnp.clip(action, 0, space.n - 1)
        state, reward, terminated = self.step_fn(key, state, action, params)
        state = state._replace(time=time)
        return self.observe_fn(state, params), state, reward, terminated, {}

    def select(self, done: Array, fresh: PyTree, stepped: PyTree, params: Any) -> tuple[PyTree, Any]:
        """(obs, state). To observe the selected state is much faster than to select between observations."""
        state = select(done, fresh[1], stepped[1])
        return self.observe_fn(state, params), state

    def is_truncated(self, state: Any, params: Any) -> Array:
        limit = getattr(params, "max_steps_in_episode", None)
        return jnp.zeros((), bool) if limit is None else state.time >= limit

    def get_obs(self, state: Any, params: Any = None, key: Array | None = None) -> PyTree:
        """The observation of a state (gymnax's name)."""
        del key
        return self.observe_fn(state, self.default_params if params is None else params)

    def observation_space(self, params: Any = None) -> Any:
        return self.observation_space_fn(self.default_params if params is None else params)

    def action_space(self, params: Any = None) -> Any:
        return self.action_space_fn(self.default_params if params is None else params)

    def render(self, state: Any, params: Any = None) -> str:
        """The state as text for a terminal: the environment's own, or its picture in half-block characters.

        Raises ValueError where the environment draws neither.
        """
        params = self.default_params if params is None else params
        return self.render_fn(state, params) if self.render_fn else raster.half_blocks(self.frame(state, params))

    def frame(self, state: Any, params: Any = None) -> np.ndarray:
        """The state as a picture, uint8 [height, width, 3]. Raises ValueError where the environment draws none."""
        params = self.default_params if params is None else params
        if self.frame_fn is None and self.render_fn is None:
            raise ValueError(f"{self.name} has no picture; give its PureEnvironment a render_fn or a frame_fn")
        return self.frame_fn(state, params) if self.frame_fn else raster.text_frame(self.render(state, params))

    def tabular_mdp(self, params: Any = None) -> TabularMDP:
        """The exact decision process of concrete params. Raises ValueError where the environment gives none."""
        if self.tabular_fn is None:
            raise ValueError(f"{self.name} has no exact transition table; tabular environments bring a tabular_fn")
        return self.tabular_fn(self.default_params if params is None else params)

    def splits(self, params: Any) -> bool:
        """Whether `step` must give `step_env` and `reset_env` a key each."""
        return self.splits_fn(params)

    def with_params(self, params: Any) -> "PureEnvironment":
        """This environment with other default params. Raises ValueError where one is out of range."""
        limit = getattr(params, "max_steps_in_episode", None)
        if checks.is_number(limit):
            checks.at_least("max_steps_in_episode", limit, 1)
        if self.check_fn is not None:
            self.check_fn(params)
        return replace(self, default_params=params)
