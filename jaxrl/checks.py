"""Bad input is refused while building, in one line: what, got, allowed, how to mend."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np


def is_number(value: Any) -> bool:
    """Whether `value` is a concrete Python number: traced and array hyper-parameters pass unchecked."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def at_least(name: str, value: Any, low: int) -> None:
    """Raises ValueError unless `value` is an integer >= low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {low}")


def in_range(name: str, value: Any, low: float, high: float, open_low: bool = False, open_high: bool = False) -> None:
    """Raises ValueError where a concrete number is not finite or not in [low, high]; an open end is excluded."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (str, bool, type(None))):
        inside = False
    elif is_number(value):
        inside = math.isfinite(value) and low <= value <= high
    else:
        return  # traced, or an array: only its user can check it
    if not inside or (open_low and value == low) or (open_high and value == high):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name} is {value!r}; it must be a finite number in {interval}")


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ValueError that names the nearest allowed word, where `value` is none of them."""
    allowed = list(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {name} {value!r}{hint} (one of: {', '.join(map(str, allowed))})")
