"""Between what a buffer holds, a list of episodes, and the datasets of Minari and D4RL: numpy arrays all."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl import checks
from jaxrl.types import Buffer, PyTree, Transition

# each format's names for obs, action, reward, terminated, truncated and, where it stores it, next_obs
MINARI = ("observations", "actions", "rewards", "terminations", "truncations")
MINARI_ALSO = ("id", "seed", "options", "infos", "total_steps", "total_timesteps")  # ignored
D4RL = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def episodes(transitions: Transition) -> list[Transition]:
    """Steps [n, N, ...] cut after every end: episodes [L, ...] in order of lane, then time.

    Only an episode's last row may be an end; a lane's first may lack its beginning, and its last its end.
    """
    steps = jax.tree.map(np.asarray, transitions)
    for path, leaf in jax.tree_util.tree_leaves_with_path(steps):
        if steps.terminated.ndim != 2 or leaf.shape[:2] != steps.terminated.shape:
            raise ValueError(
                f"episodes: {jax.tree_util.keystr(path)[1:]} has shape {leaf.shape} and terminated "
                f"{steps.terminated.shape}; they must be time-major, [n, N, ...] and [n, N]"
            )
    lanes = [jax.tree.map(lambda x, lane=lane: x[:, lane].copy(), steps) for lane in range(steps.terminated.shape[1])]
    return [episode for lane in lanes for episode in _split(lane)]


def transitions(episodes: Sequence[Transition], num_envs: int = 1) -> Transition:
    """Episodes laid one after the other and cut into N lanes of equal length [n, N, ...]: undoes `episodes`.

    An episode without an end that another follows in its lane becomes truncated: the log cut it. Raises
    ValueError where N does not divide the steps, and for what `from_dataset` refuses.
    """
    checks.at_least("transitions: num_envs", num_envs, 1)
    steps, lengths = _join("transitions", episodes)
    total = int(lengths.sum())
    if total % num_envs:
        divisor = next(n for n in range(min(num_envs, total), 0, -1) if total % n == 0)
        raise ValueError(
            f"transitions: num_envs={num_envs} does not divide the {total} steps of {len(lengths)} episodes; "
            f"leave out {total % num_envs} steps or set num_envs to {divisor}"
        )
    following = np.cumsum(lengths)
    last = following[following % (total // num_envs) != 0] - 1
    steps.truncated[last] |= ~steps.terminated[last]
    return jax.tree.map(lambda x: x.reshape(num_envs, -1, *x.shape[1:]).swapaxes(0, 1), steps)


def fill(buffer: Buffer, transitions: Transition) -> tuple[PyTree, Array]:
    """(state, clock) of a new buffer to which steps [n, N, ...] were added; a full one has lost the oldest.

    A lane's last step becomes truncated unless it is an end, so that steps added later do not follow it; numbers
    of 64 bits become jax's. A buffer of frame stacks needs lanes that begin with an episode. Raises ValueError where
    N is not the buffer's num_envs, n < min_steps, or a next_obs would be lost.
    """
    count, num_envs = transitions.reward.shape
    if count < buffer.min_steps:
        raise ValueError(
            f"fill: {count} steps in each of {num_envs} lanes are fewer than min_steps={buffer.min_steps}, which a "
            "first sample needs; give more steps or cut them into fewer lanes"
        )
    state, parted = _fill(buffer, jax.tree.map(jnp.asarray, transitions))
    for step, lane in np.argwhere(parted)[:1]:
        raise ValueError(
            f"fill: the next_obs of step {step} in lane {lane} is not the obs of the step after; set truncated there"
        )
    if lost := {name: int(number) for name, number in buffer.counts(state).items() if number}:
        raise ValueError(f"fill: the buffer has no place for all final observations ({lost}); raise its `ends`")
    return state, jnp.int32(count)


@partial(jax.jit, static_argnums=0)
def _fill(buffer: Buffer, steps: Transition) -> tuple[PyTree, Array]:
    parted = ~(_followed(steps) | (steps.terminated | steps.truncated)[:-1])
    steps = steps._replace(truncated=steps.truncated.at[-1].set(steps.truncated[-1] | ~steps.terminated[-1]))
    clocks = jnp.arange(steps.reward.shape[0], dtype=jnp.int32)
    state = buffer.init(jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), steps))
    return jax.lax.scan(lambda state, x: (buffer.add(state, *x), None), state, (steps, clocks))[0], parted


def to_dataset(episodes: Sequence[Transition]) -> list[dict[str, PyTree]]:
    """Each episode as the fields of Minari's EpisodeData: observations [L + 1], the others [L]; no carry.

    Raises ValueError where a next_obs is not the next row's obs, and for what `from_dataset` refuses.
    """
    _check("to_dataset", episodes)
    dataset = []
    for i, episode in enumerate(episodes):
        if not _followed(episode).all():
            raise ValueError(f"to_dataset: episode {i}: a next_obs is not the next row's obs; to_arrays keeps both")
        observations = jax.tree.map(lambda x, y: np.concatenate([x, y[-1:]]), episode.obs, episode.next_obs)
        dataset.append(dict(zip(MINARI, (observations, *episode[1:5]))))
    return dataset


def from_dataset(dataset: Iterable[Any]) -> list[Transition]:
    """The episodes of a Minari dataset: its EpisodeData, or dicts of their fields.

    Raises ValueError where a field is unknown, missing or no array of numbers, where lengths, shapes or dtypes do
    not agree, a reward is not finite, an end is not in the last row, and where there is no step.
    """
    found = []
    for i, item in enumerate(dataset):
        observations, *facts = _fields(f"from_dataset: episode {i}", item, MINARI, MINARI_ALSO)
        obs, next_obs = (jax.tree.map(operator.itemgetter(rows), observations) for rows in (slice(-1), slice(1, None)))
        found.append(Transition(obs, *facts, next_obs=next_obs))
    _check("from_dataset", found)
    return found


def to_arrays(episodes: Sequence[Transition]) -> dict[str, PyTree]:
    """All steps as D4RL's flat arrays [n, ...] and RLDS's is_first, which parts episodes without an end; no carry."""
    steps, lengths = _join("to_arrays", episodes)
    return {**dict(zip(D4RL, steps)), "is_first": np.isin(np.arange(lengths.sum()), np.cumsum(lengths) - lengths)}


def from_arrays(arrays: Mapping[str, PyTree]) -> list[Transition]:
    """The episodes of D4RL's flat arrays, which begin after an end and, where it is given, at `is_first`.

    Names with a "/" (infos/qpos) are ignored. Raises ValueError as `from_dataset` does.
    """
    given = {name: value for name, value in arrays.items() if "/" not in name}
    steps = Transition(*_fields("from_arrays", given, D4RL, ("is_first",)))
    _check_steps("from_arrays", steps)
    first = np.asarray(given.get("is_first", np.zeros_like(steps.truncated)))
    if (first.shape, first.dtype) != (steps.truncated.shape, bool):
        raise ValueError(f"from_arrays: is_first is {first.dtype}{list(first.shape)}; it must be bool like the ends")
    return _split(steps, first)


def _split(steps: Transition, first: np.ndarray | bool = False) -> list[Transition]:
    """The episodes of one lane [n, ...]: they begin where the one before ended, and at `first`."""
    ends = steps.terminated | steps.truncated
    begins = np.flatnonzero(np.append(True, ends)[:-1] | first)
    rows = [slice(begin, end) for begin, end in zip(begins, [*begins[1:], len(ends)])]
    return [jax.tree.map(operator.itemgetter(part), steps) for part in rows]


def _followed(steps: Transition) -> Any:
    """[n - 1, ...] bool: whether each next_obs is the obs of the step after."""

    def same(next_obs: Any, obs: Any) -> Any:
        equal = (next_obs[:-1] == obs[1:]) | ((next_obs[:-1] != next_obs[:-1]) & (obs[1:] != obs[1:]))  # or both NaN
        return equal.all(axis=tuple(range(steps.reward.ndim, equal.ndim)))

    return jax.tree.reduce(operator.and_, jax.tree.map(same, steps.next_obs, steps.obs))


def _join(where: str, episodes: Sequence[Transition]) -> tuple[Transition, np.ndarray]:
    """All steps one after the other [n, ...], and the lengths of the episodes."""
    _check(where, episodes)
    steps = jax.tree.map(lambda *leaves: np.concatenate(leaves), *episodes)
    return steps, np.array([len(episode.reward) for episode in episodes])


def _fields(where: str, given: Any, names: Sequence[str], also: Sequence[str]) -> list[PyTree]:
    """The fields `names` of a mapping, which may have those of `also` too, or of an object, as trees of arrays."""
    if not isinstance(given, Mapping):
        given = {name: getattr(given, name) for name in names if hasattr(given, name)}
    for name in given:
        checks.one_of(f"field in {where}:", name, (*names, *also))
    fields = [jax.tree.map(np.asarray, given.get(name)) for name in names]
    for name, field in zip(names, fields):
        if not jax.tree.leaves(field) or not all(leaf.ndim for leaf in jax.tree.leaves(field)):
            what = "no array" if name in given else "missing"
            raise ValueError(f"{where}: {name} is {what}; give {', '.join(names)} as arrays or trees of arrays")
    return fields


def _check(where: str, episodes: Sequence[Transition]) -> None:
    """Raises ValueError unless these are episodes of one kind, each with no end before its last row."""
    if not episodes:
        raise ValueError(f"{where}: there is no episode; give at least one")
    kinds = [_check_steps(f"{where}: episode {i}", episode) for i, episode in enumerate(episodes)]
    for i, episode in enumerate(episodes):
        for row in np.flatnonzero((episode.terminated | episode.truncated)[:-1])[:1]:
            raise ValueError(f"{where}: episode {i} goes on after the end in its row {row}; cut it there")
        for name, kind, first in zip(Transition._fields, kinds[i], kinds[0]):
            if kind != first:
                raise ValueError(f"{where}: a row of {name} is {kind} in episode {i}, {first} in 0; make them alike")


def _check_steps(where: str, steps: Transition) -> list[PyTree]:
    """What a row of each field is; ValueError unless the leaves are arrays of numbers [n, ...], the ends bool [n]."""
    rows = np.shape(steps.reward)[:1]
    if rows == (0,):
        raise ValueError(f"{where} has no steps; leave it out")
    for path, leaf in jax.tree_util.tree_leaves_with_path(steps):
        name, shape, dtype = jax.tree_util.keystr(path)[1:], np.shape(leaf), getattr(leaf, "dtype", np.dtype(object))
        flag = name in ("terminated", "truncated")
        known = jnp.issubdtype(dtype, np.bool_) or not flag and jnp.issubdtype(dtype, np.number)
        if not known or not rows or rows != (shape if flag or name == "reward" else shape[:1]):
            raise ValueError(
                f"{where}: {name} is {dtype}{list(shape)} beside a reward of shape {list(np.shape(steps.reward))}; all "
                "need a row of numbers a step (Minari's observations one more), reward and bool ends one axis"
            )
    for row in np.flatnonzero(~np.isfinite(steps.reward))[:1]:
        raise ValueError(f"{where}: the reward of row {row} is {steps.reward[row]}; it must be finite")
    kinds = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape[1:])}", field) for field in steps]
    if kinds[0] != kinds[5]:
        raise ValueError(f"{where}: a row of obs is {kinds[0]}, of next_obs {kinds[5]}; make them alike")
    return kinds
