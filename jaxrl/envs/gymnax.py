"""Any environment of gymnax 1.0 as one of ours: `make("gymnax:Catch-bsuite")`.

gymnax is imported when one is asked for, not before.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import api
from jaxrl.types import PyTree


@dataclass(frozen=True, eq=False)  # hashed by identity: gymnax's params may hold arrays
class GymnaxEnvironment:
    """A gymnax environment's `reset_env`, `step_env` and `is_truncated` with our `step` and spaces."""

    name: str
    inner: Any  # gymnax's own object
    default_params: Any

    reset = api.reset
    step = api.step

    @property
    def num_actions(self) -> int:
        return self.inner.num_actions

    def reset_env(self, key: Array, params: Any) -> tuple[PyTree, PyTree]:
        return self.inner.reset_env(key, params)

    def step_env(
        self, key: Array, state: PyTree, action: ArrayLike, params: Any
    ) -> tuple[PyTree, PyTree, Array, Array, dict[str, Any]]:
        return self.inner.step_env(key, state, action, params)

    def select(self, done: Array, fresh: PyTree, stepped: PyTree, params: Any) -> tuple[PyTree, PyTree]:
        del params  # observations may be random: they cannot be made again from the state
        return api.select(done, fresh, stepped)

    def is_truncated(self, state: PyTree, params: Any) -> Array:
        return self.inner.is_truncated(state, params)

    def observation_space(self, params: Any = None) -> Any:
        return from_gymnax(self.inner.observation_space(self.default_params if params is None else params))

    def action_space(self, params: Any = None) -> Any:
        return from_gymnax(self.inner.action_space(self.default_params if params is None else params))

    def splits(self, params: Any) -> bool:
        del params
        return True

    def with_params(self, params: Any) -> "GymnaxEnvironment":
        return replace(self, default_params=params)


def factory(env_id: str) -> Callable[..., GymnaxEnvironment]:
    """A factory with the arguments of gymnax's own. ValueError: gymnax is absent or the id unknown."""
    try:
        from gymnax import registration
    except ImportError as error:
        raise ValueError(
            f"cannot import gymnax for 'gymnax:{env_id}' ({error}); install it: pip install 'jaxrl[gymnax]'"
        ) from error
    checks.one_of("gymnax environment", env_id, registration.registered_envs)
    build = registration._registry[env_id]

    @functools.wraps(build)
    def make(**arguments: Any) -> GymnaxEnvironment:
        try:
            inner, params = registration.make(env_id, **arguments)
        except (ImportError, OSError, TypeError) as error:  # a missing package, a download, a wrong argument
            raise ValueError(f"gymnax cannot make {env_id!r}: {error}; choose another environment") from error
        return GymnaxEnvironment(f"gymnax:{env_id}", inner, params)

    return make


def from_gymnax(space: Any) -> Any:
    """Our twin of a gymnax space, told by its attributes. Raises ValueError for a kind that has none."""
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    if hasattr(space, "low"):
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    if isinstance(getattr(space, "spaces", None), dict):
        return spaces.Dict({name: from_gymnax(member) for name, member in space.spaces.items()})
    if hasattr(space, "spaces"):
        return spaces.Tuple(map(from_gymnax, space.spaces))
    raise ValueError(f"{space!r} has no counterpart here; allowed: Discrete, Box, Dict, Tuple")
