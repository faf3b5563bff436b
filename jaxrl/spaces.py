"""Spaces: what observations and actions may be. Immutable, hashable, free of device arrays, usable under jit.

Attribute names are gymnax's and gymnasium's (`n`, `low`, `high`, `shape`, `dtype`, `spaces`, `nvec`), so
that a space can be handed to code written for either. `sample` and `contains` treat ONE element; vmap them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

PyTree = Any


class Space(Protocol):
    """What every space can do."""

    def sample(self, key: Array) -> PyTree:
        """A random element."""
        ...

    def contains(self, x: PyTree) -> Any:
        """bool []: whether `x` is an element; one of a wrong shape, structure or kind of number is not."""
        ...


class _Frozen:
    """Equality, hash and repr by the fields named in `_fields`; no field can be set after construction."""

    _fields: tuple[str, ...] = ()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only; make another space")

    def _identity(self) -> tuple:
        values = (getattr(self, name) for name in self._fields)
        return (type(self), *((v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={_short(getattr(self, n))}' for n in self._fields)})"


class Discrete(_Frozen):
    """The integers 0..n-1; elements are int32 []. Raises ValueError unless n is an integer in 1..2^31-1."""

    n: int
    shape: tuple[int, ...]
    dtype: np.dtype
    _fields = ("n",)

    def __init__(self, n: int):
        self._set(n=_count("n of a Discrete space", n), shape=(), dtype=np.dtype(np.int32))

    def sample(self, key: Array) -> Array:
        if self.n > 2**16:
            return jax.random.randint(key, (), 0, self.n, jnp.int32)
        bits = jax.random.bits(key, (), jnp.uint32)  # floor(n bits / 2**32): half the draws of randint
        return (((bits >> 16) * self.n + ((bits & 0xFFFF) * self.n >> 16)) >> 16).astype(jnp.int32)

    def contains(self, x: Any) -> Any:
        x = _array(x)
        if x is None or x.shape != () or not np.issubdtype(x.dtype, np.integer):
            return False
        return (x >= 0) & (x < self.n)


class MultiDiscrete(_Frozen):
    """Several choices at once; elements are int32 [len(nvec)], entry i in 0..nvec[i]-1.

    Raises ValueError unless nvec is a flat, non-empty sequence of integers in 1..2^31-1.
    """

    nvec: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    _fields = ("nvec",)

    def __init__(self, nvec: Sequence[int]):
        if np.ndim(nvec) != 1 or len(nvec) == 0:
            raise ValueError(
                f"nvec of a MultiDiscrete space is {nvec!r}; it must be a flat, non-empty list of integers"
            )
        counts = tuple(_count(f"nvec[{i}] of a MultiDiscrete space", n) for i, n in enumerate(nvec))
        self._set(nvec=counts, shape=(len(counts),), dtype=np.dtype(np.int32))

    def sample(self, key: Array) -> Array:
        return jax.random.randint(key, self.shape, 0, np.asarray(self.nvec, np.int32), jnp.int32)

    def contains(self, x: Any) -> Any:
        x = _array(x)
        if x is None or x.shape != self.shape or not np.issubdtype(x.dtype, np.integer):
            return False
        return ((x >= 0) & (x < np.asarray(self.nvec, np.int32))).all()


class Box(_Frozen):
    """Arrays between `low` and `high`, both included; either may be infinite in a float space.

    `shape=None` takes that of the bounds; dtype is a float, an integer or bool. Raises ValueError for bounds
    that are NaN, crossed, of another shape or outside the dtype.
    """

    low: np.ndarray  # [*shape]
    high: np.ndarray  # [*shape]
    shape: tuple[int, ...]
    dtype: np.dtype
    _fields = ("low", "high", "shape", "dtype")

    def __init__(self, low: Any, high: Any, shape: Iterable[int] | None = None, dtype: Any = np.float32):
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            dtype = np.dtype(object)
        if not (dtype.kind == "b" or jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.floating)):
            raise ValueError(f"dtype of a Box is {dtype}; it must be a float, an integer or bool")
        shape = np.broadcast_shapes(np.shape(low), np.shape(high)) if shape is None else tuple(shape)
        bounds = [_bound(name, value, shape, dtype) for name, value in (("low", low), ("high", high))]
        if not np.all(bounds[0] <= bounds[1]):
            raise ValueError(
                f"low of a Box is {_short(bounds[0])} and high {_short(bounds[1])}; low must not exceed high"
            )
        self._set(low=bounds[0], high=bounds[1], shape=shape, dtype=dtype)

    def sample(self, key: Array) -> Array:
        """Uniform where bounded, a unit exponential from a single bound, else a unit normal."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        if not jnp.issubdtype(dtype, np.floating):
            low, span = self.low.astype(np.int64), self.high.astype(np.int64) - self.low.astype(np.int64) + 1
            if np.any(span > 2**32):
                raise ValueError("an integer Box wider than 2**32 cannot be sampled; narrow its bounds")
            drawn = jax.random.bits(key, self.shape, jnp.uint32)  # the remainder's bias is below span / 2**32
            drawn = jnp.where(span == 2**32, drawn, drawn % np.where(span == 2**32, 1, span).astype(np.uint32))
            return (drawn + low.astype(np.uint32)).astype(dtype)  # modulo 2**32, so that negative bounds come out right
        below, above = np.isfinite(self.low), np.isfinite(self.high)
        low, high = np.where(below, self.low, 0).astype(dtype), np.where(above, self.high, 0).astype(dtype)
        if (below & above).all():
            u = jax.random.uniform(key, self.shape, dtype)
            return jnp.clip(low * (1 - u) + high * u, low, high)
        uniform_key, normal_key, exponential_key = jax.random.split(key, 3)
        u = jax.random.uniform(uniform_key, self.shape, dtype)
        tail = jax.random.exponential(exponential_key, self.shape, dtype)
        return jnp.select(
            [below & above, below, above],
            [jnp.clip(low * (1 - u) + high * u, low, high), low + tail, high - tail],
            jax.random.normal(normal_key, self.shape, dtype),
        )

    def contains(self, x: Any) -> Any:
        x = _array(x)
        if x is None or x.shape != self.shape or not _fits(x.dtype, self.dtype):
            return False
        low, high = self.low, self.high
        if isinstance(x, jax.Array):  # without x64, jax would warn about float64 bounds
            low, high = (b.astype(jax.dtypes.canonicalize_dtype(b.dtype)) for b in (low, high))
        return ((x >= low) & (x <= high)).all()


class Tuple(_Frozen):
    """One element of each space; elements are tuples. Raises ValueError for a member that is no space."""

    spaces: tuple[Any, ...]
    _fields = ("spaces",)

    def __init__(self, spaces: Iterable[Any]):
        spaces = tuple(spaces)
        for i, space in enumerate(spaces):
            _require_space(f"member {i} of a Tuple space", space)
        self._set(spaces=spaces)

    @property
    def num_spaces(self) -> int:
        return len(self.spaces)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.spaces)

    def sample(self, key: Array) -> tuple:
        if not self.spaces:
            return ()
        return tuple(s.sample(k) for s, k in zip(self.spaces, jax.random.split(key, self.num_spaces), strict=True))

    def contains(self, x: PyTree) -> Any:
        if not isinstance(x, (tuple, list)) or len(x) != self.num_spaces:
            return False
        return _all(s.contains(part) for s, part in zip(self.spaces, x, strict=True))


class Dict(_Frozen):
    """Named spaces, sorted by name as jax sorts a dict; elements are dicts, or have the names as attributes.

    Raises ValueError for a key that is no string or a member that is no space.
    """

    items: tuple[tuple[str, Any], ...]
    _fields = ("items",)

    def __init__(self, spaces: Mapping[str, Any]):
        for key, space in spaces.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} of a Dict space is a {type(key).__name__}; it must be a string")
            _require_space(f"member {key!r} of a Dict space", space)
        self._set(items=tuple(sorted(spaces.items(), key=lambda item: item[0])))

    @property
    def spaces(self) -> dict[str, Any]:
        return dict(self.items)

    @property
    def num_spaces(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Dict({self.spaces!r})"

    def sample(self, key: Array) -> dict[str, Any]:
        if not self.items:
            return {}
        return {n: s.sample(k) for (n, s), k in zip(self.items, jax.random.split(key, self.num_spaces), strict=True)}

    def contains(self, x: PyTree) -> Any:
        parts = _parts(self, x)
        return False if parts is None else _all(s.contains(p) for (_, s), p in zip(self.items, parts, strict=True))


def flatdim(space: Any) -> int:
    """Length of a flattened element."""
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, Box):
        return math.prod(space.shape)
    return sum(flatdim(member) for member in _members(space))


def flatten(space: Any, x: PyTree) -> Array:
    """One element as a vector [flatdim(space)]: arrays raveled, choices one-hot (int32), members in order."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(x, space.n, dtype=jnp.int32)
    if isinstance(space, MultiDiscrete):
        x = jnp.asarray(x)
        return jnp.concatenate([jax.nn.one_hot(x[i], n, dtype=jnp.int32) for i, n in enumerate(space.nvec)])
    if isinstance(space, Box):
        return jnp.ravel(jnp.asarray(x, jax.dtypes.canonicalize_dtype(space.dtype)))
    parts = x if isinstance(space, Tuple) else _parts(space, x)
    if parts is None or len(parts) != len(_members(space)):
        raise ValueError(f"cannot flatten {type(x).__name__} as an element of {space}; it has other members")
    vectors = [flatten(member, part) for member, part in zip(_members(space), parts, strict=True)]
    return jnp.concatenate(vectors) if vectors else jnp.zeros((0,))


def unflatten(space: Any, vector: ArrayLike) -> PyTree:
    """The element that `flatten` made `vector` [flatdim(space)] of. Raises ValueError for another length."""
    vector = jnp.asarray(vector)
    if vector.shape != (flatdim(space),):
        raise ValueError(f"vector has shape {vector.shape}; a flattened element of {space} has ({flatdim(space)},)")
    if isinstance(space, Discrete):
        return jnp.argmax(vector).astype(jnp.int32)
    if isinstance(space, Box):
        return vector.reshape(space.shape).astype(jax.dtypes.canonicalize_dtype(space.dtype))
    if isinstance(space, MultiDiscrete):
        choices = _cut(vector, space.nvec)
        return jnp.stack([jnp.argmax(choice) for choice in choices]).astype(jnp.int32)
    members = _members(space)
    parts = [unflatten(m, v) for m, v in zip(members, _cut(vector, map(flatdim, members)), strict=True)]
    return tuple(parts) if isinstance(space, Tuple) else dict(zip(space.spaces, parts, strict=True))


def from_gymnasium(space: Any) -> Any:
    """Our twin of a gymnasium space. Raises ValueError for a kind that has none."""
    from gymnasium import spaces as gym

    if isinstance(space, gym.Discrete):
        if space.start != 0:
            raise ValueError(f"{space} starts at {space.start}; a Discrete space starts at 0: shift it in a wrapper")
        return Discrete(int(space.n))
    if isinstance(space, gym.MultiDiscrete):
        if np.any(space.start):
            raise ValueError(
                f"{space} starts at {space.start}; a MultiDiscrete space starts at 0: shift it in a wrapper"
            )
        return MultiDiscrete(space.nvec.tolist())
    if isinstance(space, gym.Box):
        return Box(space.low, space.high, space.shape, space.dtype)
    if isinstance(space, gym.Tuple):
        return Tuple(map(from_gymnasium, space.spaces))
    if isinstance(space, gym.Dict):
        return Dict({key: from_gymnasium(member) for key, member in space.spaces.items()})
    raise ValueError(f"{space} has no counterpart here; allowed: Discrete, MultiDiscrete, Box, Tuple, Dict")


def to_gymnasium(space: Any) -> Any:
    """gymnasium's twin of one of our spaces. Raises ValueError for anything else."""
    from gymnasium import spaces as gym

    if isinstance(space, Discrete):
        return gym.Discrete(space.n)
    if isinstance(space, MultiDiscrete):
        return gym.MultiDiscrete(list(space.nvec), dtype=np.int32)
    if isinstance(space, Box):
        return gym.Box(space.low, space.high, space.shape, space.dtype.type)
    if isinstance(space, Tuple):
        return gym.Tuple([to_gymnasium(member) for member in space.spaces])
    if isinstance(space, Dict):
        return gym.Dict({key: to_gymnasium(member) for key, member in space.items})
    raise ValueError(f"{space!r} is no jaxrl space; allowed: Discrete, MultiDiscrete, Box, Tuple, Dict")


def _short(value: Any) -> str:
    """A bound as one number where it is uniform."""
    if not isinstance(value, np.ndarray):
        return str(value)
    if value.size and (value == value.flat[0]).all():
        return str(value.flat[0])
    return np.array2string(value, threshold=6, separator=", ").replace("\n", "")


def _count(what: str, n: Any) -> int:
    if isinstance(n, bool | np.bool_) or not isinstance(n, int | np.integer) or not 1 <= n < 2**31:
        raise ValueError(f"{what} is {n!r}; it must be an integer in 1..2**31-1")
    return int(n)


def _bound(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    value = np.asarray(value)
    try:
        value = np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(f"{name} of a Box has shape {value.shape}; it must broadcast to the Box's {shape}") from None
    if np.isnan(value).any():
        raise ValueError(f"{name} of a Box is NaN; give a number or an infinity")
    if not jnp.issubdtype(dtype, np.floating):
        smallest, largest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if (value < smallest).any() or (value > largest).any():
            raise ValueError(f"{name} of a Box is {_short(value)}; {dtype} holds {smallest} to {largest}: change dtype")
    value = np.broadcast_to(value.astype(dtype), shape)
    value.flags.writeable = False
    return value


def _require_space(what: str, space: Any) -> None:
    if not (hasattr(space, "sample") and hasattr(space, "contains")):
        raise ValueError(f"{what} is {space!r}; it must be a space, for example Discrete(2)")


def _array(x: Any) -> Any:
    """`x` as a jax or numpy array; None where it is no array of numbers."""
    if isinstance(x, jax.Array):
        return x
    try:
        x = np.asarray(x)
    except ValueError:
        return None
    return x if x.dtype.kind in "biuf" or jnp.issubdtype(x.dtype, np.floating) else None


def _fits(given: Any, wanted: np.dtype) -> bool:
    """Whether numbers of a dtype may be elements: floats take integers too, else the kinds are the same."""
    if np.dtype(bool) in (given, wanted):
        return given == wanted
    return jnp.issubdtype(given, np.integer) or jnp.issubdtype(wanted, np.floating)


def _all(conditions: Iterable[Any]) -> Any:
    result: Any = True
    for condition in conditions:
        result = result & condition
    return result


def _parts(space: Dict, x: Any) -> list[Any] | None:
    """The members of a Dict's element in the space's order; None where `x` has others."""
    names = [name for name, _ in space.items]
    if isinstance(x, Mapping):
        return [x[name] for name in names] if set(x) == set(names) else None
    return [getattr(x, name) for name in names] if all(hasattr(x, name) for name in names) else None


def _members(space: Any) -> list[Any]:
    if isinstance(space, Tuple | Dict):
        return list(space.spaces) if isinstance(space, Tuple) else [member for _, member in space.items]
    raise ValueError(f"{space!r} is no jaxrl space; allowed: Discrete, MultiDiscrete, Box, Tuple, Dict")


def _cut(vector: Array, lengths: Iterable[int]) -> list[Array]:
    """`vector` in pieces of the given lengths."""
    ends = np.cumsum(list(lengths))
    return [vector[end - length : end] for end, length in zip(ends, np.diff(ends, prepend=0), strict=True)]
