"""Environments by name: `make`, `register`, `list_ids`, `signature`."""

import dataclasses
import difflib
import functools
import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl import checks
from jaxrl.envs import gymnax
from jaxrl.envs.api import Environment

# id -> factory, as a function or as "module:function" of this package, imported when it is asked for
_factories: dict[str, Callable[..., Any] | str] = {
    "Acrobot-v1": "acrobot:acrobot",
    "Asterix-MinAtar": "asterix:asterix",
    "Bandit-v0": "bandit:bandit",
    "Blackjack-v1": "blackjack:blackjack",
    "Breakout-MinAtar": "breakout:breakout",
    "CartPole-v0": "cartpole:cartpole_v0",
    "CartPole-v1": "cartpole:cartpole",
    "Catch-bsuite": "catch:catch",
    "CliffWalking-v1": "cliff_walking:cliff_walking",
    "CliffWalkingSlippery-v1": "cliff_walking:cliff_walking_slippery",
    "Corridor-v0": "corridor:corridor",
    "DeepSea-bsuite": "deep_sea:deep_sea",
    "DiscountingChain-bsuite": "discounting_chain:discounting_chain",
    "DynaMaze-v0": "dyna_maze:dyna_maze",
    "Freeway-MinAtar": "freeway:freeway",
    "FrozenLake-v1": "frozen_lake:frozen_lake",
    "FrozenLake8x8-v1": "frozen_lake:frozen_lake_8x8",
    "GridWorld-v0": "grid_world:grid_world",
    "MaskedCartPole-v1": "cartpole:masked_cartpole",
    "MaximizationBias-v0": "maximization_bias:maximization_bias",
    "MemoryChain-bsuite": "memory_chain:memory_chain",
    "MountainCar-v0": "mountain_car:mountain_car",
    "MountainCarContinuous-v0": "mountain_car_continuous:mountain_car_continuous",
    "Pendulum-v1": "pendulum:pendulum",
    "PositionOnlyCartPole-v1": "cartpole:position_only_cartpole",
    "RandomWalk-v0": "random_walk:random_walk",
    "RandomWalk19-v0": "random_walk:random_walk_19",
    "Seaquest-MinAtar": "seaquest:seaquest",
    "SpaceInvaders-MinAtar": "space_invaders:space_invaders",
    "Taxi-v4": "taxi:taxi",
    "UmbrellaChain-bsuite": "umbrella_chain:umbrella_chain",
    "WindyGridWorld-v0": "windy_grid_world:windy_grid_world",
}
_GYMNAX = "gymnax:"


class Override(NamedTuple):
    """One setting of an environment."""

    type: Any  # bool, int, float, str, or tuple[float, ...] and the like
    default: Any


def list_ids() -> list[str]:
    """The ids that `make` knows, sorted; `gymnax:ID` comes on top for every id of an installed gymnax."""
    return sorted(_factories)


def register(env_id: str, factory: Callable[..., Any], overwrite: bool = False) -> None:
    """Let `make(env_id)` build environments by `factory`, a function whose arguments all have defaults.

    Raises ValueError for a bad id, a taken one unless `overwrite`, and a factory that is no function.
    """
    if not isinstance(env_id, str) or not env_id or env_id.startswith(_GYMNAX):
        raise ValueError(f"environment id is {env_id!r}; it must be a non-empty string not starting with {_GYMNAX!r}")
    if not callable(factory):
        raise ValueError(f"factory of {env_id!r} is {factory!r}; it must be a function that returns an Environment")
    if env_id in _factories and not overwrite:
        raise ValueError(f"environment id {env_id!r} is taken; choose another or pass overwrite=True")
    _factories[env_id] = factory


def make(env_id: str, **overrides: Any) -> tuple[Environment, Any]:
    """(env, params) of an id; an override is an argument of the factory or a field of the params.

    `env.default_params` are the params returned; `signature(env_id)` lists the overrides. To vary a number
    over environments, vmap over `params` instead. ValueError: unknown id or override, bad value.
    """
    factory = find(env_id)
    known = _arguments(factory)
    chosen = {name: _value(env_id, name, overrides[name], known[name]) for name in overrides if name in known}
    env = factory(**chosen)
    params = env.default_params
    fields = _fields(params)
    for name in overrides:
        checks.one_of(f"override of {env_id}", name, [*known, *fields])
    changes = {n: _value(env_id, n, v, fields[n]) for n, v in overrides.items() if n not in known}
    if changes:
        params = _replace(params, changes)
        env = env.with_params(params)
    return env, params


def signature(env_id: str) -> dict[str, Override]:
    """The overrides that `make(env_id, ...)` takes. Raises ValueError for an unknown id."""
    factory = find(env_id)
    settings = _arguments(factory) | _fields(factory().default_params)
    return {name: Override(_type(default), default) for name, default in settings.items()}


def find(env_id: str) -> Callable[..., Any]:
    """The factory of an id. Raises ValueError that suggests the nearest."""
    if isinstance(env_id, str) and env_id.startswith(_GYMNAX):
        return gymnax.factory(env_id.removeprefix(_GYMNAX))
    if env_id not in _factories:
        near = difflib.get_close_matches(str(env_id), list_ids(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(list_ids())}"
        raise ValueError(f"unknown environment {env_id!r}{hint}")
    factory = _factories[env_id]
    if isinstance(factory, str):
        module, _, function = factory.partition(":")
        factory = getattr(importlib.import_module(f"jaxrl.envs.{module}"), function)
    return factory


def _arguments(factory: Callable[..., Any]) -> dict[str, Any]:
    """The keyword arguments of a factory and their defaults."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _fields(params: Any) -> dict[str, Any]:
    """Field names and values of a dataclass or NamedTuple."""
    names = [f.name for f in dataclasses.fields(params)] if dataclasses.is_dataclass(params) else params._fields
    return {name: getattr(params, name) for name in names}


def _replace(params: Any, changes: dict[str, Any]) -> Any:
    replace = params._replace if hasattr(params, "_replace") else functools.partial(dataclasses.replace, params)
    return replace(**changes)


def _type(default: Any) -> Any:
    return tuple[type(default[0]), ...] if isinstance(default, tuple) and default else type(default)


def _value(env_id: str, name: str, value: Any, default: Any) -> Any:
    """`value` as a plain Python object of the default's type. Raises ValueError where it is of another."""
    if isinstance(value, np.generic):
        value = value.item()
    wanted: Any = type(default)
    if wanted is float and checks.is_number(value):
        if not math.isfinite(value):
            raise ValueError(f"{name} of {env_id} is {value!r}; it must be a finite number")
        return float(value)
    if wanted is tuple and isinstance(value, list | tuple):
        return tuple(_value(env_id, f"{name}[{i}]", v, default[0]) if default else v for i, v in enumerate(value))
    if type(value) is not wanted and default is not None:
        hint = "; to vary it over environments, vmap over params" if hasattr(value, "shape") else ""
        raise ValueError(f"{name} of {env_id} is {value!r}; it must be of type {wanted.__name__}, as {default!r}{hint}")
    return value
