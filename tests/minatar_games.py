"""The `minatar` package as an oracle: its games played move by move, with what they drew at random on record.

The package draws; each move's draws are in its record, so that a test hands the same ones to our `play`.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gymnax
import jax
import minatar
import numpy as np

import jaxrl


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
    action: int  # asked for, of the six
    uniform: float  # below the sticky probability, `last` is done again
    done: int  # the action done
    draws: list[Draw]  # of the game itself
    after: dict[str, Any]
    reward: float
    terminated: bool
    observation: np.ndarray  # bool [10, 10, channels], after


class Game:
    """The package's game, recorded; at the start of an episode. `now` carries its state as attributes."""

    def __init__(self, name: str, seed: int = 0, **settings: Any):
        self._env = minatar.Environment(name, **settings)
        self.now: Any = self._env.env
        self._choice, self._chance = Recorder(seed), Recorder(seed + 1)
        vars(self._env)["random"], self.now.random = self._choice, self._chance
        self.reset()

    def reset(self) -> list[Draw]:
        """Start an episode: what it drew."""
        self._chance.log.clear()
        self._env.reset()
        return list(self._chance.log)

    def attributes(self) -> dict[str, Any]:
        """A copy of the state."""
        constant = ("random", "channels", "action_map")
        return {name: copy.deepcopy(value) for name, value in vars(self.now).items() if name not in constant}

    def inject(self, **values: Any) -> None:
        """Set attributes of the state. Raises ValueError for one that it does not have."""
        for name, value in values.items():
            if name not in vars(self.now):
                raise ValueError(f"the game has no attribute {name!r}; it has {', '.join(vars(self.now))}")
            setattr(self.now, name, copy.deepcopy(value))

    def observe(self) -> np.ndarray:
        """bool [10, 10, channels]."""
        return np.array(self._env.state(), bool)

    def move(self, action: int) -> Move:
        """One move by an action of the six, and all that is to know about it."""
        self._choice.log.clear()
        self._chance.log.clear()
        before, last = self.attributes(), self._env.last_action
        reward, terminated = self._env.act(action)
        return Move(
            before=before,
            last=last,
            action=action,
            uniform=self._choice.log[0].result,
            done=self._env.last_action,
            draws=list(self._chance.log),
            after=self.attributes(),
            reward=reward,
            terminated=bool(terminated),
            observation=self.observe(),
        )


def play(
    name: str,
    moves: int,
    seed: int,
    policy: Callable[[Any, np.random.RandomState], int] | None = None,
    starts: Callable[[Any, np.random.RandomState], dict[str, Any]] | None = None,
    **settings: Any,
) -> list[Move]:
    """So many moves, over as many episodes as they take.

    `policy(now, random)` chooses among the six actions (uniformly where there is none), `now` being what
    carries the attributes; `starts(now, random)` gives attributes to set at the start of an episode.
    """
    game, random = Game(name, seed, **settings), np.random.RandomState(seed + 2)
    record: list[Move] = []
    begins = True
    while len(record) < moves:
        if begins:
            game.reset()
            game.inject(**(starts(game.now, random) if starts else {}))
        record.append(game.move(policy(game.now, random) if policy else random.randint(6)))
        begins = record[-1].terminated
    return record


def column(record: Iterable[Move], name: str, dtype: Any = None) -> np.ndarray:
    """A field of every move, one after the other, [moves, ...]."""
    return np.array([getattr(one, name) for one in record], dtype)


def words(boards: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Boards [10, 10] as bits, four uint32 [moves]: three rows a word, cell c of a word as its bit c."""
    cells = np.array([board != 0 for board in boards]).reshape(-1, 100)
    starts = (0, 30, 60, 90)
    return tuple((cells[:, i : i + 30] @ (1 << np.arange(min(30, 100 - i)))).astype(np.uint32) for i in starts)


class Steps(NamedTuple):
    """What `step` answered on the way, [steps, lanes]."""

    observation: Any  # before any auto-reset
    reward: Any
    terminated: Any
    truncated: Any


def beside_gymnax(
    name: str,
    lanes: int,
    steps: int,
    policy: Callable[[Any, Any], Any] | None = None,
    begin: Callable[[Any, Any], Any] | None = None,
) -> tuple[Steps, Steps, np.ndarray]:
    """Our gymnax variant and gymnax's game under the same minimal actions; which steps are of the first episodes.

    `policy(action, state)` may change a random action by our state; `begin(theirs, ours)` makes gymnax's first
    state of ours, where the start is random.
    """
    env, params = jaxrl.make(name, variant="gymnax")
    peer, peer_params = gymnax.make(name)
    choose = policy or (lambda action, state: action)

    def one(key: jax.Array) -> tuple[Steps, Steps]:
        ours, theirs = env.reset(key, params)[1], peer.reset(key, peer_params)[1]

        def both(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], tuple[Steps, Steps]]:
            action = choose(jax.random.randint(key, (), 0, env.num_actions), carry[0])
            _, ours, reward, *ends, info = env.step(key, carry[0], action, params)
            answers = Steps(info["final_observation"], reward, *ends)
            _, theirs, reward, *ends, info = peer.step(key, carry[1], action, peer_params)
            return (ours, theirs), (answers, Steps(info["final_observation"] != 0, reward, *ends))

        start = (ours, begin(theirs, ours) if begin else theirs)
        return jax.lax.scan(both, start, jax.random.split(key, steps))[1]

    # gymnax's games promote ranks and dtypes that the tests' settings refuse
    with jax.numpy_rank_promotion("allow"):
        ours, theirs = jax.jit(jax.vmap(one, out_axes=1))(jax.random.split(jaxrl.key(0), lanes))
    over = np.asarray(theirs.terminated | theirs.truncated)
    return ours, theirs, np.cumsum(over, 0) - over == 0
