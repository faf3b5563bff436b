"""The table of a tabular agent as a thing: to read, to change, to save."""

import math
import operator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import files

FORMAT = 1


@dataclass(frozen=True, eq=False)
class QTable:
    """Action values and how often each was learned from. Both arrays are copied, and read-only.

    Raises ValueError unless q [S, A] and visits [S, A] are of one shape, numbers and counts.
    """

    q: np.ndarray  # [S, A] float32 or float64; of tiles or bins S is the rows of the table
    visits: np.ndarray  # [S, A] integers, 0 where nothing was learned

    def __post_init__(self) -> None:
        q, visits = np.array(self.q), np.array(self.visits)
        if q.ndim != 2 or 0 in q.shape:
            raise ValueError(f"q has shape {list(q.shape)}; it must be [states, actions], such as [16, 4]")
        if visits.shape != q.shape:
            raise ValueError(f"visits have shape {list(visits.shape)} and q {list(q.shape)}; they must have one shape")
        if q.dtype.kind not in "fiu":
            raise ValueError(f"q is of {q.dtype}; it must be real numbers")
        if visits.dtype.kind not in "iu" or visits.min() < 0:
            found = visits.min() if visits.dtype.kind in "iu" else visits.dtype
            raise ValueError(f"visits hold {found}; they must be integers of at least 0")
        q = q.astype(np.float32 if q.dtype in (np.float32, np.float16) else np.float64)
        for name, array in (("q", q), ("visits", visits)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, state: Any, seed: int | None = None) -> "QTable":
        """What a tabular agent in this state is greedy in; of several seeds that of the `seed`-th.

        `state` is the agent's or the run's. An average of the table, where the agent keeps one, takes its place.
        Raises ValueError where there is no table, and where `seed` is needed or is none of them.
        """
        state = state.agent if hasattr(state, "agent") else state
        if not (hasattr(state, "q") and hasattr(state, "visits")):
            raise ValueError(
                f"a {type(state).__name__} holds no Q-table; give the state of a tabular agent, such as q_learning's"
            )
        average = getattr(state, "average", ())
        q, visits = np.asarray(state.q if isinstance(average, tuple) else average), np.asarray(state.visits)
        if q.ndim != 3:
            if seed not in (None, 0):
                raise ValueError(f"seed is {seed!r}; the state holds one table: leave it out")
            return cls(q, visits)
        if seed is None:
            raise ValueError(f"the state holds the tables of {len(q)} seeds; choose one by seed=0..{len(q) - 1}")
        index = _index("seed", seed, len(q), "seeds")
        return cls(q[index], visits[index])

    @classmethod
    def load(cls, path: str | Path) -> "QTable":
        """The table in a file. Raises ValueError where it is damaged or holds none, OSError where it cannot be read."""
        path = Path(path)
        arrays = files.read_arrays(path, "Q-table")
        if set(arrays) != {"format", "q", "visits"}:
            raise files.damaged(path, "Q-table", f"its arrays are {', '.join(sorted(arrays)) or 'none'}")
        if arrays["format"].tolist() != FORMAT:
            raise ValueError(
                f"{path} has format {arrays['format'].tolist()!r}; this jaxrl reads {FORMAT}: use the one that wrote it"
            )
        try:
            return cls(arrays["q"], arrays["visits"])
        except ValueError as error:
            raise files.damaged(path, "Q-table", error) from error

    def save(self, path: str | Path, force: bool = False) -> None:
        """Writes the table, whole or not at all, as an npz file of plain arrays.

        Raises ValueError where `path` is there already, unless `force`; OSError where it cannot be written.
        """
        arrays = {"format": np.int64(FORMAT), "q": self.q, "visits": self.visits}
        files.write_arrays(Path(path), arrays, force, remedy="choose another name, or force=True to replace it")

    def get(self, state: int, action: int) -> float:
        """Q(state, action). Raises ValueError outside the table."""
        return float(self.q[self._entry(state, action)])

    def set(self, state: int, action: int, value: float) -> "QTable":
        """Another table, the same but for Q(state, action). ValueError outside the table, or if not a finite number."""
        entry = self._entry(state, action)
        q = self.q.copy()
        try:
            with np.errstate(over="ignore"):
                q[entry] = math.nan if isinstance(value, (bool, str)) else value
        except (TypeError, ValueError):
            q[entry] = math.nan
        if not np.isfinite(q[entry]):
            raise ValueError(f"value is {value!r}; it must be a finite number that {q.dtype} can hold")
        return replace(self, q=q)

    def policy(self, allowed: np.ndarray | None = None) -> np.ndarray:
        """int [S]: the best action of each state, the first of several; `allowed`, bool [S, A], forbids others."""
        return self._masked(allowed).argmax(axis=1)

    def values(self, allowed: np.ndarray | None = None) -> np.ndarray:
        """[S]: the value of each state's best action, max_a Q(s, a)."""
        return self._masked(allowed).max(axis=1)

    def _masked(self, allowed: np.ndarray | None) -> np.ndarray:
        if allowed is None:
            return self.q
        if np.shape(allowed) != self.q.shape or not np.any(allowed, axis=1).all():
            raise ValueError(
                f"allowed has shape {list(np.shape(allowed))}; it must be {list(self.q.shape)}, with at least one "
                "action true in each state"
            )
        return np.where(allowed, self.q, -np.inf)

    def _entry(self, state: int, action: int) -> tuple[int, int]:
        states, actions = self.q.shape
        return _index("state", state, states, "states"), _index("action", action, actions, "actions")


def _index(name: str, value: Any, size: int, what: str) -> int:
    """`value` as an integer in 0..size-1, else ValueError."""
    try:
        index = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        index = -1
    if not 0 <= index < size:
        raise ValueError(f"{name} is {value!r}; the table has {size} {what}: use an integer in 0..{size - 1}")
    return index
