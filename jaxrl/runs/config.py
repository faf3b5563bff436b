"""What a run is asked to do: the options beside a recipe's own settings, and how settings are overridden."""

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxrl import checks

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beside its recipe."""

    seed: int = 0
    """first seed, 0..4294967295"""
    seeds: int = 1
    """independent runs side by side, of seeds SEED, SEED+1, ..."""
    out: str | None = None
    """run directory; by default the first free runs/RECIPE-ENV-seedSEED[-K]"""
    force: bool = False
    """move a run that is already in --out aside, to OUT.old-K"""
    quiet: bool = False
    """say only where it starts and how it ends"""
    no_cache: bool = False
    """compile afresh, and keep no compiled programs on disk"""


def check_seeds(seed: Any, seeds: Any = 1) -> None:
    """Raises ValueError unless seed .. seed + seeds - 1 are integers in 0..2**32-1, all distinct keys."""
    checks.at_least("seeds", seeds, 1)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= int(seed) <= MAX_SEED:
        raise ValueError(f"seed is {seed!r}; it must be an integer in 0..{MAX_SEED}")
    if seed + seeds - 1 > MAX_SEED:
        raise ValueError(
            f"seed {seed} with seeds {seeds} goes past {MAX_SEED}; use a seed up to {MAX_SEED + 1 - seeds}"
        )


def whole(text: str) -> int:
    """The integer that a text writes: 500, 1_000_000 or 1e6."""
    try:
        return int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number != int(number):
            raise ValueError(f"{text!r} is no whole number (such as 500, 1_000_000 or 1e6)") from None
        return int(number)


def override(config: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A frozen dataclass with fields replaced: flat, nested or dotted names.

    `{"steps": 10, "agent": {"gamma": 0.9}, "agent.double": False}`. Raises ValueError for an unknown name,
    with the nearest one, and for a value of the wrong type.
    """
    hints = get_type_hints(type(config))
    new: dict[str, Any] = {}
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if name not in hints:
            raise ValueError(unknown(prefix + path, names(config, prefix)))
        current = new.get(name, getattr(config, name))
        if rest:
            if not dataclasses.is_dataclass(current):
                raise ValueError(unknown(prefix + path, names(config, prefix)))
            value = {rest: value}
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            value = override(current, value, f"{prefix}{name}.")
        new[name] = _typed(prefix + name, value, current, hints[name])
    return dataclasses.replace(config, **new)


def names(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of a dataclass's settings."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def unknown(name: str, known: Iterator[str] | list[str]) -> str:
    """The message about a setting that does not exist, with the nearest that does."""
    known = list(known)
    last = {path.rpartition(".")[2]: path for path in reversed(known)}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    near = near or [last[word] for word in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.7)]
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    return f"unknown setting {name}; {hint}"


def plain(value: Any) -> Any:
    """A scalar of numpy or jax as a Python number, so that it is checked and written as one; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _typed(name: str, value: Any, current: Any, hint: Any) -> Any:
    """`value` as the field's type; a whole float serves as an integer, a list as a tuple, a scalar as a number."""
    value = plain(value)
    if dataclasses.is_dataclass(current):
        if type(value) is not type(current):
            raise ValueError(f"{name} is {value!r}; give its settings as a dict: {', '.join(names(current))}")
    elif hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; it must be True or False")
    elif hint is int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        whole_number = getattr(value, "__index__", None)
        if whole_number is None or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; it must be an integer")
        return whole_number()
    elif hint is float:
        if not checks.is_number(value):
            raise ValueError(f"{name} is {value!r}; it must be a number")
    elif get_origin(hint) is Literal:
        checks.one_of(name, value, get_args(hint))
    elif isinstance(current, tuple):
        if not isinstance(value, (list, tuple)) or not all(checks.is_number(item) for item in value):
            raise ValueError(f"{name} is {value!r}; it must be a list of numbers, such as {list(current)}")
        return tuple(value)
    elif isinstance(current, str) and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; it must be text, such as {current!r}")
    return value
