"""The `minatar` package as an oracle: its games played move by move, with what they drew at random on record.

The package draws; each move's draws are in its record, so that a test hands the same ones to our `play`.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import minatar
import numpy as np


class Draw(NamedTuple):
    """One call of a random generator."""

    method: str  # of numpy's RandomState: "rand", "randint", "choice", ...
    arguments: tuple
    result: Any


class Recorder:
    """A numpy RandomState whose draws are written down in `log`."""

    def __init__(self, seed: int):
        self._random = np.random.RandomState(seed)
        self.log: list[Draw] = []

    def __getattr__(self, method: str) -> Callable[..., Any]:
        function = getattr(self._random, method)

        def draw(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            self.log.append(Draw(method, (*arguments, *named.values()), copy.deepcopy(result)))
            return result

        return draw


class Move(NamedTuple):
    """One move of the package's game: `vars` of the game before and after, and what it answered."""

    before: dict[str, Any]
    last: int  # the action done before, of the six
    action: int  # given, of the six
    uniform: float  # below the sticky probability, `last` is done again
    done: int  # the action done
    draws: list[Draw]  # of the game itself
    after: dict[str, Any]
    reward: float
    terminated: bool
    observation: np.ndarray  # bool [10, 10, channels], after


def make(name: str, seed: int = 0, **settings: Any) -> minatar.Environment:
    """The package's environment, recorded; a reset game at the start of an episode."""
    env = minatar.Environment(name, **settings)
    env.random, env.env.random = Recorder(seed), Recorder(seed + 1)
    reset(env)
    return env


def reset(env: minatar.Environment) -> list[Draw]:
    """Start an episode: what it drew."""
    env.env.random.log.clear()
    env.reset()
    return list(env.env.random.log)


def attributes(env: minatar.Environment) -> dict[str, Any]:
    """A copy of the game's state."""
    return {k: copy.deepcopy(v) for k, v in vars(env.env).items() if k not in ("random", "channels", "action_map")}


def inject(env: minatar.Environment, **values: Any) -> None:
    """Set attributes of the game's state. Raises ValueError for one that it does not have."""
    for name, value in values.items():
        if name not in vars(env.env):
            raise ValueError(f"{env.env_name} has no attribute {name!r}; it has {', '.join(vars(env.env))}")
        setattr(env.env, name, copy.deepcopy(value))


def move(env: minatar.Environment, action: int) -> Move:
    """One move and all that is to know about it."""
    env.random.log.clear()
    env.env.random.log.clear()
    before, last = attributes(env), env.last_action
    reward, terminated = env.act(action)
    uniform = env.random.log[0].result
    draws = list(env.env.random.log)
    seen = np.asarray(env.state(), bool)
    return Move(before, last, action, uniform, env.last_action, draws, attributes(env), reward, bool(terminated), seen)


def play(
    name: str,
    moves: int,
    seed: int,
    policy: Callable[[Any, np.random.RandomState], int] | None = None,
    starts: Callable[[Any, np.random.RandomState], dict[str, Any]] | None = None,
    **settings: Any,
) -> list[Move]:
    """So many moves, over as many episodes as they take.

    `policy(game, random)` chooses among the six actions (uniformly where there is none), `game` being what
    carries the attributes; `starts(game, random)` gives attributes to set at the start of an episode.
    """
    env, random = make(name, seed, **settings), np.random.RandomState(seed + 2)
    record: list[Move] = []
    begins = True
    while len(record) < moves:
        if begins:
            reset(env)
            inject(env, **(starts(env.env, random) if starts else {}))
        record.append(move(env, policy(env.env, random) if policy else random.randint(6)))
        begins = record[-1].terminated
    return record


def column(record: Iterable[Move], name: str, dtype: Any = None) -> np.ndarray:
    """A field of every move, one after the other, [moves, ...]."""
    return np.array([getattr(one, name) for one in record], dtype)


def bits(board: np.ndarray) -> int:
    """The cells of a 10 x 10 board that are not 0 as bits, cell 10 * row + column at its own place: up to 2**100."""
    return sum(1 << int(cell) for cell in np.flatnonzero(board))
