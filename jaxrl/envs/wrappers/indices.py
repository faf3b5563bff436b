"""Wrappers that make observations into rows of a table, for `agents/tabular.py`."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl import checks, spaces
from jaxrl.envs.wrappers.base import (
    Wrapped,
    as_float,
    bind,
    counts,
    finite_box,
    inside,
    require_box,
    require_environment,
    strides,
    unchanged,
)
from jaxrl.types import PyTree


def discretize_observation(env: Any, bins: Any, bounds: Any = None) -> Wrapped:
    """A Box observation as one Discrete index: `bins` of equal width between its limits, the last dimension fastest.

    `bins` is one number or one for each dimension; `bounds`, (low, high), replace the space's limits, and what is
    beyond them falls into the outermost bins. gymnasium's DiscretizeObservation. Raises ValueError for a space
    that is no Box, limits that are not finite, bins below 1.
    """
    space = require_box("discretize_observation", env, "observation")
    limits = finite_box("discretize_observation", env, space, bounds)
    bins = counts("bins of discretize_observation", bins, math.prod(space.shape))
    rows = _rows("discretize_observation", math.prod(bins))
    return Wrapped(
        env,
        discretize_observation,
        (bins, None if bounds is None else limits),
        observe_fn=bind(_bin, limits, bins),
        observations=spaces.Discrete(rows),
        rows=rows,
    )


def tile_coding(env: Any, tilings: int, bins: Any, bounds: Any = None) -> Wrapped:
    """A Box observation as the active tile of each of `tilings` tilings: int32 [tilings], rows of one table.

    `bins` tiles of equal width span each dimension, and one more makes room for the offset: tiling j is shifted by j /
    tilings of (1, 3, 5, ...) tiles (Sutton & Barto 2018, section 9.5.4, who advise a power of two of at least 4
    times the dimensions). `num_states` gives the table's rows; the space is MultiDiscrete with that many in each entry.
    `bounds` as in `discretize_observation`, and so is what is refused; tilings below 1, too.
    """
    space = require_box("tile_coding", env, "observation")
    limits = finite_box("tile_coding", env, space, bounds)
    checks.at_least("tilings of tile_coding", tilings, 1)
    bins = counts("bins of tile_coding", bins, math.prod(space.shape))
    rows = _rows("tile_coding", tilings * math.prod(n + 1 for n in bins))
    return Wrapped(
        env,
        tile_coding,
        (int(tilings), bins, None if bounds is None else limits),
        observe_fn=bind(_tiles, limits, bins, int(tilings)),
        observations=spaces.MultiDiscrete((rows,) * tilings),
        rows=rows,
    )


def index_observation(env: Any) -> Wrapped:
    """A Tuple, Dict or MultiDiscrete of choices as one Discrete index, the last member fastest.

    Blackjack's (sum, dealer, ace) becomes (sum * 11 + dealer) * 2 + ace. Raises ValueError for another member.
    """
    require_environment("index_observation", env)
    space = env.observation_space()
    rows = _rows("index_observation", math.prod(_radices(space)))
    return Wrapped(
        env,
        index_observation,
        observe_fn=bind(_index, space),
        tabular_fn=unchanged,
        observations=spaces.Discrete(rows),
        rows=rows,
    )


def num_states(env: Any) -> int:
    """How many rows the table of a tabular agent on `env` has. ValueError where observations are no indices."""
    space = env.observation_space()
    if isinstance(space, spaces.Discrete):
        return space.n
    if isinstance(env, Wrapped):
        if env.rows is not None:
            return env.rows
        if env.observe_fn is None:
            return num_states(env.env)
    raise ValueError(
        f"observations of {env.name} are {space}, no rows of a table; wrap it in index_observation, "
        "discretize_observation or tile_coding"
    )


def _rows(wrapper: str, rows: int) -> int:
    if rows >= 2**31:
        raise ValueError(f"{wrapper} would need {rows} rows; an index goes up to 2**31-1: use fewer bins")
    return rows


def _bin(limits: spaces.Box, bins: tuple[int, ...], obs: PyTree, memory: PyTree, params: Any) -> PyTree:
    del memory, params
    last = np.asarray(bins, np.int32) - 1
    return inside(obs, lambda x: _ravel(jnp.minimum(_place(limits, bins, x).astype(jnp.int32), last), bins))


def _tiles(limits: spaces.Box, bins: tuple[int, ...], tilings: int, obs: PyTree, memory: PyTree, params: Any) -> PyTree:
    del memory, params
    tiles = tuple(n + 1 for n in bins)
    first = np.arange(tilings, dtype=np.int32) * math.prod(tiles)
    displacement = 2 * np.arange(len(bins)) + 1
    offsets = displacement[:, None] * np.arange(tilings) % tilings / tilings  # [dimensions, tilings], in tiles

    def active(x: Array) -> Array:
        place = _place(limits, bins, x)
        shifts = offsets.astype(place.dtype)
        return _ravel([(place[i] + shift).astype(jnp.int32) for i, shift in enumerate(shifts)], tiles) + first

    return inside(obs, active)


def _place(limits: spaces.Box, bins: tuple[int, ...], x: Array) -> Array:
    """How many bins above the lower limit, float [dimensions] in 0..bins: its integer part is its floor."""
    x = as_float(x).ravel()
    low, per_unit = limits.low.ravel(), np.asarray(bins) / (limits.high - limits.low).ravel()
    place = (x - low.astype(x.dtype)) * per_unit.astype(x.dtype)
    return jnp.clip(place, 0, np.asarray(bins, x.dtype))


def _ravel(digits: Iterable[Array], radices: tuple[int, ...]) -> Array:
    """Row-major index of one integer array for each radix."""
    index = jnp.zeros((), jnp.int32)
    for digit, stride in zip(digits, strides(radices), strict=True):
        index = index + digit.astype(jnp.int32) * stride
    return index


def _index(space: Any, obs: PyTree, memory: PyTree, params: Any) -> PyTree:
    del memory, params
    return inside(obs, lambda x: _ravel(_digits(space, x), _radices(space)))


def _radices(space: Any) -> tuple[int, ...]:
    """The sizes of a space's discrete members, in order. Raises ValueError where one is not discrete."""
    if isinstance(space, spaces.Discrete):
        return (space.n,)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec
    if not isinstance(space, spaces.Tuple | spaces.Dict):
        raise ValueError(
            f"index_observation needs discrete observations, but one is {space}; wrap the environment in "
            "discretize_observation or tile_coding"
        )
    members = [member for _, member in space.items] if isinstance(space, spaces.Dict) else space.spaces
    return tuple(radix for member in members for radix in _radices(member))


def _digits(space: Any, x: PyTree) -> list[Array]:
    """The members of an element, as `_radices` orders them."""
    if isinstance(space, spaces.Tuple):
        return [digit for member, part in zip(space, x, strict=True) for digit in _digits(member, part)]
    if isinstance(space, spaces.Dict):
        named = x if isinstance(x, Mapping) else x._asdict()
        return [digit for name, member in space.items for digit in _digits(member, named[name])]
    return [jnp.asarray(x)] if isinstance(space, spaces.Discrete) else list(jnp.asarray(x))
