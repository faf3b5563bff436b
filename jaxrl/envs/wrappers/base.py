"""What every wrapper is: an environment, and the few pure functions that differ from it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.experimental import checkify
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import api
from jaxrl.types import Masked, PyTree, Step

_ENDLESS = 1e30  # some environments write the largest float32 for infinity


class WrappedState(NamedTuple):
    """The state of a wrapper that remembers; of any other the state is that of the environment inside."""

    env: PyTree  # the state of the environment inside
    memory: PyTree


@dataclass(frozen=True)
class Bound:
    """A function with its first arguments given, equal to another where both are: jit knows it again."""

    function: Callable[..., Any]
    arguments: tuple

    def __call__(self, *rest: Any) -> Any:
        return self.function(*self.arguments, *rest)


def bind(function: Callable[..., Any], *arguments: Any) -> Bound:
    """`function` with its first arguments, which must be hashable."""
    return Bound(function, arguments)


@dataclass(frozen=True)
class Wrapped:
    """An `Environment` around another one; a function that is None changes nothing.

    obs, action and reward are as the environment inside gives and takes them.
    """

    env: Any  # the environment inside
    wrapper: Callable[..., "Wrapped"]  # (env, *settings) -> this
    settings: tuple = ()
    observe_fn: Callable[[PyTree, PyTree, Any], PyTree] | None = None  # (obs, memory, params) -> obs
    act_fn: Callable[[Array, Any, PyTree], Any] | None = None  # (key, action, memory) -> action
    reward_fn: Callable[[Array], Array] | None = None  # (reward) -> reward
    start_fn: Callable[[PyTree], PyTree] | None = None  # (obs) -> memory at an episode's start; None: no memory
    advance_fn: Callable[..., PyTree] | None = None  # (memory, action, obs, reward, ended bool []) -> memory
    report_fn: Callable[[PyTree], dict[str, Array]] | None = None  # (memory) -> entries of info
    check_fn: Callable[[PyTree, Array], None] | None = None  # (obs, reward): checks for checkify
    tabular_fn: Callable[[api.TabularMDP], api.TabularMDP] | None = None  # what becomes of the exact process
    observations: Any = None  # observation space; None: the one inside
    actions: Any = None  # action space; None: the one inside
    rows: int | None = None  # of the table that observations index, where the wrapper makes them indices
    limit: int | None = None  # truncates where memory, the steps of the episode, comes to it
    draws: bool = False  # whether act_fn uses its key
    recalls: bool = False  # whether observe_fn needs memory alone
    lasts: bool = False  # whether memory outlives the episode

    reset = api.reset

    def __hash__(self) -> int:  # of what determines the rest: jit asks at every call
        return hash((self.env, self.wrapper, self.settings))

    def step(self, key: Array, state: PyTree, action: ArrayLike, params: Any = None) -> Step:
        """`Environment.step`; with `checked` in it and plain arrays it raises ValueError where a check fails."""
        arguments = (key, state, action, params)
        if not _checks(self) or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
            return api.step(self, *arguments)
        error, result = _functionalized(self, *arguments)
        error.throw()
        return result

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def observable(self) -> bool:
        """Whether a state can be observed again."""
        return self.recalls or getattr(self.env, "observable", False)

    @property
    def default_params(self) -> Any:
        return self.env.default_params

    @property
    def num_actions(self) -> int:
        space = self.action_space()
        return space.n if hasattr(space, "n") else math.prod(space.shape)

    def reset_env(self, key: Array, params: Any) -> tuple[PyTree, PyTree]:
        obs, inner = self.env.reset_env(key, params)
        memory = () if self.start_fn is None else self.start_fn(obs)
        return self._observe(obs, memory, params), self._close(inner, memory)

    def step_env(
        self, key: Array, state: PyTree, action: ArrayLike, params: Any
    ) -> tuple[PyTree, PyTree, Array, Array, dict[str, Any]]:
        inner, memory = self._open(state)
        act_key, key = jax.random.split(key) if self.draws else (key, key)
        if self.act_fn is not None:
            action = self.act_fn(act_key, action, memory)
        obs, inner, reward, terminated, info = self.env.step_env(key, inner, action, params)
        if self.check_fn is not None:
            self.check_fn(obs, reward)
        if self.advance_fn is not None:
            ended = terminated | self.env.is_truncated(inner, params)
            memory = self.advance_fn(memory, action, obs, reward, ended)
        if self.report_fn is not None:
            info = {**info, **self.report_fn(memory)}
        reward = reward if self.reward_fn is None else self.reward_fn(reward)
        return self._observe(obs, memory, params), self._close(inner, memory), reward, terminated, info

    def select(self, done: Array, fresh: PyTree, stepped: PyTree, params: Any) -> tuple[PyTree, PyTree]:
        """(obs, state). The selected state is observed where it can be: faster than to select observations."""
        state = self.select_state(done, fresh[1], stepped[1])
        if self.observable:
            return self.get_obs(state, params), state
        return api.select(done, fresh[0], stepped[0]), state

    def select_state(self, done: Array, fresh: PyTree, stepped: PyTree) -> PyTree:
        """The state of the new episode where the old one is done, but for memory that outlives it."""
        (new, start), (inner, memory) = self._open(fresh), self._open(stepped)
        inner_select = self.env.select_state if isinstance(self.env, Wrapped) else api.select
        return self._close(inner_select(done, new, inner), memory if self.lasts else api.select(done, start, memory))

    def is_truncated(self, state: PyTree, params: Any) -> Array:
        inner, memory = self._open(state)
        truncated = self.env.is_truncated(inner, params)
        return truncated if self.limit is None else truncated | (memory >= self.limit)

    def get_obs(self, state: PyTree, params: Any = None, key: Array | None = None) -> PyTree:
        """The observation of a state. Raises ValueError where the environment inside cannot make it again."""
        del key
        if not self.observable:
            raise ValueError(f"{self.name} cannot observe a state again; keep what reset and step returned")
        params = self.default_params if params is None else params
        inner, memory = self._open(state)
        return self._observe(None if self.recalls else self.env.get_obs(inner, params), memory, params)

    def observation_space(self, params: Any = None) -> Any:
        return self.env.observation_space(params) if self.observations is None else self.observations

    def action_space(self, params: Any = None) -> Any:
        return self.env.action_space(params) if self.actions is None else self.actions

    def render(self, state: PyTree, params: Any = None) -> str:
        """The state inside as text. Raises ValueError where that environment draws none."""
        return self._forward("render", "picture")(self._open(state)[0], params)

    def frame(self, state: PyTree, params: Any = None) -> np.ndarray:
        """The state inside as a picture, uint8 [height, width, 3]. Raises ValueError where there is none."""
        return self._forward("frame", "picture")(self._open(state)[0], params)

    def tabular_mdp(self, params: Any = None) -> api.TabularMDP:
        """The exact decision process, of the states inside. Raises ValueError where the wrapper changes those."""
        if self.tabular_fn is None:
            raise ValueError(
                f"the exact transition table of {self.name} is not that of its wrapper; ask the environment inside"
            )
        return self.tabular_fn(self._forward("tabular_mdp", "exact transition table")(params))

    def splits(self, params: Any) -> bool:
        """Whether `step` must give `step_env` and `reset_env` a key each."""
        return self.draws or self.env.splits(params)

    def with_params(self, params: Any) -> "Wrapped":
        """The same wrapper around the environment with other default params."""
        return self.wrapper(self.env.with_params(params), *self.settings)

    def _open(self, state: PyTree) -> tuple[PyTree, PyTree]:
        return (state, ()) if self.start_fn is None else (state.env, state.memory)

    def _close(self, inner: PyTree, memory: PyTree) -> PyTree:
        return inner if self.start_fn is None else WrappedState(inner, memory)

    def _observe(self, obs: PyTree, memory: PyTree, params: Any) -> PyTree:
        return obs if self.observe_fn is None else self.observe_fn(obs, memory, params)

    def _forward(self, method: str, what: str) -> Callable[..., Any]:
        if not hasattr(self.env, method):
            raise ValueError(f"{self.name} has no {what}")
        return getattr(self.env, method)


def unchanged(mdp: api.TabularMDP) -> api.TabularMDP:
    """`tabular_fn` of a wrapper that leaves the decision process as it is."""
    return mdp


def inside(obs: PyTree, function: Callable[[PyTree], PyTree]) -> PyTree:
    """`function` of an observation, or of the inside of a masked one."""
    return obs._replace(observation=function(obs.observation)) if isinstance(obs, Masked) else function(obs)


def require_environment(wrapper: str, env: Any) -> None:
    """Raises ValueError for what is no environment of this package, such as the pair that `make` returns."""
    if not all(hasattr(env, member) for member in ("step_env", "splits", "with_params")):
        raise ValueError(
            f"{wrapper} got a {type(env).__name__}; it wraps an environment: env, params = jaxrl.make(...), or "
            "jaxrl.make('gymnax:...') for one of gymnax's"
        )


def require_box(wrapper: str, env: Any, what: str) -> spaces.Box:
    """The observation or action space where it is a Box, else ValueError."""
    require_environment(wrapper, env)
    space = env.observation_space() if what == "observation" else env.action_space()
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{wrapper} needs a Box {what} space, but {env.name} has {space}")
    return space


def finite_box(wrapper: str, env: Any, space: spaces.Box, bounds: Any = None) -> spaces.Box:
    """The limits of `space`, or `bounds` in their place, float64. Raises ValueError unless finite, low below high."""
    if bounds is None:
        endless = np.flatnonzero((np.abs(space.low) > _ENDLESS) | (np.abs(space.high) > _ENDLESS)).tolist()
        if endless:
            raise ValueError(
                f"{wrapper} needs finite limits, but entries {endless} of {env.name}'s {space} have none; "
                "give bounds=(low, high)"
            )
        bounds = space
    if isinstance(bounds, spaces.Box):
        bounds = (bounds.low, bounds.high)
    try:
        low, high = (np.broadcast_to(np.asarray(bound, np.float64), space.shape) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds of {wrapper} are {bounds!r}; they must be (low, high), each a number or of shape {space.shape}"
        ) from None
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"bounds of {wrapper} are {bounds!r}; they must be finite, and low below high everywhere")
    return spaces.Box(low, high, dtype=np.float64)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float. Raises ValueError unless it is a finite number in [low, high]."""
    value = value.item() if isinstance(value, np.generic) else value
    if not checks.is_number(value):
        raise ValueError(f"{name} is {value!r}; it must be a plain number")
    checks.in_range(name, value, low, high)
    return float(value)


def counts(name: str, value: Any, length: int) -> tuple[int, ...]:
    """One integer of at least 1 for each of `length` dimensions; one given serves them all. ValueError otherwise."""
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * length
    if len(values) != length:
        raise ValueError(f"{name} is {value!r}; it must be one integer, or one for each of {length} dimensions")
    for one in values:
        checks.at_least(name, one, 1)
    return tuple(int(one) for one in values)


def strides(bins: tuple[int, ...]) -> tuple[int, ...]:
    """What one step along each dimension adds to a row-major index."""
    return tuple(math.prod(bins[i + 1 :]) for i in range(len(bins)))


def as_float(x: ArrayLike) -> Array:
    """`x` in its own float dtype; integers and booleans as float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _checks(env: Any) -> bool:
    return isinstance(env, Wrapped) and (env.check_fn is not None or _checks(env.env))


@partial(jax.jit, static_argnums=0)
def _functionalized(env: Wrapped, *arguments: Any) -> tuple[checkify.Error, Step]:
    return checkify.checkify(partial(api.step, env))(*arguments)
