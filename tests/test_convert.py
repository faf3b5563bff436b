"""Episodes, datasets and files of a replay, against episodes that a plain Python simulation wrote down."""

import functools
import io
import os
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from common import compiled

from jaxrl.buffers import convert, files, prioritized, recent, uniform
from jaxrl.types import Masked, Transition

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def row(number: int, follower: int, end: str = "") -> Transition:
    """One step of which every leaf tells the number, and next_obs the number of what follows."""

    def observe(x):
        picture = np.array([x % 251, x // 251], np.uint8)
        return Masked({"number": np.int32(x), "picture": picture}, np.array([x % 2 == 0, True]))

    return Transition(
        obs=observe(number),
        action=np.int32(number % 3),
        reward=np.float32(number / 4),
        terminated=np.bool_("terminated" in end),
        truncated=np.bool_("truncated" in end),
        next_obs=observe(follower),
    )


def stack(items, axis=0):
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis), *items)


def simulate(seed: int, rows: int, num_envs: int) -> tuple[Transition, list[Transition]]:
    """Steps [rows, N, ...] with random ends, and the episodes in them: by lane, then time."""
    rng = np.random.default_rng(seed)
    lanes, found = [], []
    for lane in range(num_envs):
        steps, running, number = [], [], 1000 * lane
        for _ in range(rows):
            end = rng.choice(["", "", "terminated", "truncated", "terminated and truncated"])
            running.append(row(number, number + 1, end))  # the final observation is nobody's obs
            number += 2 if end else 1
            steps.append(running[-1])
            if end:
                found.append(stack(running))
                running = []
        lanes.append(stack(steps))
        found += [stack(running)] if running else []
    return stack(lanes, axis=1), found


def assert_same(actual, expected):
    """Equal structure, shapes, dtypes and bits; numpy arrays all."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
        assert isinstance(x, np.ndarray) and (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.tobytes() == np.asarray(y).tobytes()


def episode(*numbers: int, end: str = "", gap: int = 1) -> Transition:
    """An episode of these steps, each followed by the next, the last by its number + gap."""
    followers = [*numbers[1:], numbers[-1] + gap]
    ends = [*[""] * (len(numbers) - 1), end]
    return stack([row(*facts) for facts in zip(numbers, followers, ends)])


def numbers(steps: Transition) -> list:
    return np.asarray(steps.obs.observation["number"]).tolist()


SIZES = [(0, 1, 1), (1, 7, 1), (2, 9, 3), (3, 12, 2), (4, 1, 4)]


@pytest.mark.parametrize("seed, rows, num_envs", SIZES)
@pytest.mark.parametrize("put", [lambda x: x, jnp.asarray], ids=["numpy", "jax"])
def test_episodes_are_those_simulated(seed, rows, num_envs, put):
    steps, expected = simulate(seed, rows, num_envs)
    found = convert.episodes(jax.tree.map(put, steps))
    assert_same(found, expected)
    found[0].reward[:] = -1  # theirs to change
    assert (steps.reward >= 0).all()


def test_an_episode_may_be_there_in_part():
    """Of a lane 0 to 3, end, 5 to 7, end, 9 the ring holds the last five rows."""
    whole = [episode(0, 1, 2, 3, end="terminated"), episode(5, 6, 7, end="truncated"), episode(9)]
    lane = jax.tree.map(lambda *leaves: np.concatenate(leaves)[-5:, None], *whole)
    held = convert.episodes(lane)
    assert [numbers(part) for part in held] == [[3], [5, 6, 7], [9]]
    assert [part.terminated[-1] for part in held] == [True, False, False]
    assert [part.truncated[-1] for part in held] == [False, True, False]
    assert numbers(held[1]._replace(obs=held[1].next_obs)) == [6, 7, 8]
    assert convert.episodes(jax.tree.map(lambda x: x[:0], lane)) == []


def test_episodes_refuses_what_is_not_time_major():
    steps, _ = simulate(0, 4, 2)
    with pytest.raises(ValueError, match=re.escape("reward has shape (4,) and terminated (4, 2); they must be time-m")):
        convert.episodes(steps._replace(reward=steps.reward[:, 0]))
    with pytest.raises(ValueError, match="time-major"):
        convert.episodes(jax.tree.map(lambda x: x[:, 0], steps))


@pytest.mark.parametrize("seed, rows, num_envs", SIZES)
def test_transitions_undoes_episodes(seed, rows, num_envs):
    steps, found = simulate(seed, rows, num_envs)
    assert_same(convert.transitions(found, num_envs), steps)


def test_transitions_cuts_lanes_and_truncates_what_the_log_cut():
    log = [episode(0, 1), episode(10, 11, 12, end="terminated"), episode(20, 21), episode(30)]
    lanes = convert.transitions(log, 2)
    assert numbers(lanes) == [[0, 12], [1, 20], [10, 21], [11, 30]]
    assert lanes.terminated.tolist() == [[False, True], [False, False], [False, False], [False, False]]
    assert lanes.truncated.tolist() == [[False, False], [True, False], [False, True], [False, False]]
    assert numbers(lanes._replace(obs=lanes.next_obs)) == [[1, 13], [2, 21], [11, 22], [12, 31]]
    assert not any(part.truncated.any() for part in log)  # what was given is left alone
    first, second = convert.transitions(log[:1] + log[2:3], 2), convert.transitions(log[:1] + log[2:3], 1)
    assert first.truncated.tolist() == [[False, False], [False, False]]  # nothing follows in their lanes
    assert second.truncated.tolist() == [[False], [True], [False], [False]]


def test_transitions_says_what_divides():
    log = [episode(*range(7)), episode(*range(5))]
    with pytest.raises(ValueError, match=r"num_envs=5 does not divide the 12 steps of 2 .* out 2 .* num_envs to 4"):
        convert.transitions(log, 5)
    with pytest.raises(ValueError, match="set num_envs to 12$"):
        convert.transitions(log, 40)
    with pytest.raises(ValueError, match="num_envs is 0; it must be an integer of at least 1"):
        convert.transitions(log, 0)


def closed(steps: Transition) -> Transition:
    """The steps with the last of every lane truncated, if it is no end."""
    truncated = steps.truncated.copy()
    truncated[-1] |= ~steps.terminated[-1]
    return steps._replace(truncated=truncated)


REPLAYS = {
    "uniform": functools.partial(uniform, ends=0.9),
    "prioritized": functools.partial(prioritized, ends=0.9),
    "both": functools.partial(uniform, ends=1.0),
}


@functools.cache
def filled(name: str):
    """(buffer, steps [9, 3], state, clock): the buffer holds the last six rows; its functions are compiled."""
    steps, _ = simulate(5, 9, 3)
    buffer = REPLAYS[name](capacity=18, batch_size=64, num_envs=3, window=2)
    state, clock = convert.fill(buffer, steps)
    contents = jax.jit(lambda state: buffer.contents(state, 9))
    return buffer._replace(sample=jax.jit(buffer.sample), contents=contents), steps, state, clock


@pytest.mark.parametrize("name", REPLAYS)
def test_a_log_comes_back_as_it_went_in(name):
    """The whole round: episodes -> lanes -> buffer -> contents -> episodes, of those that the buffer still holds."""
    buffer, steps, state, clock = filled(name)
    assert (int(clock), clock.dtype) == (9, jnp.int32)
    held, expected = buffer.contents(state), jax.tree.map(lambda x: x[-6:], closed(steps))
    assert_same(jax.device_get(held), expected)
    found = convert.episodes(held)
    assert_same(convert.transitions(found, 3), expected)
    assert_same(convert.from_dataset(convert.to_dataset(found)), found)


@pytest.mark.parametrize("name", REPLAYS)
def test_a_log_can_be_drawn_from(name):
    buffer, steps, state, clock = filled(name)
    window = jax.device_get(buffer.sample(state, jax.random.key(0), clock).window)
    lanes = np.array(numbers(steps)).T.tolist()
    assert {tuple(pair) for pair in numbers(window)} == {pair for lane in lanes for pair in zip(lane[3:], lane[4:])}
    assert numbers(window._replace(obs=window.next_obs)) == (np.array(numbers(window)) + 1).tolist()


def test_a_buffer_that_is_not_full_gives_the_episodes_back():
    log = [episode(0, 1, end="terminated"), episode(5, end="truncated"), episode(7, 8, 9, end="terminated")]
    buffer = uniform(capacity=20, batch_size=1, num_envs=2, ends=0.9)
    state, clock = convert.fill(buffer, convert.transitions(log, 2))
    assert_same(convert.episodes(jax.jit(lambda state: buffer.contents(state, int(clock)))(state)), log)


def test_fill_truncates_what_a_lane_leaves_open():
    log = convert.transitions([episode(0, 1), episode(10, 11, end="terminated")], 2)
    state, clock = convert.fill(recent(2, 2), log)
    window = recent(2, 2).sample(state, jax.random.key(0), clock).window
    assert window.truncated.tolist() == [[False, True], [False, False]]
    assert window.terminated.tolist() == [[False, False], [False, True]]
    assert not log.truncated.any()


def test_fill_holds_the_buffer_once():
    steps, _ = simulate(0, 2, 3)
    buffer = uniform(capacity=3 * 5000, batch_size=4, num_envs=3)
    memory = compiled(convert._fill, buffer, jax.tree.map(jnp.asarray, steps)).memory_analysis()
    assert memory.output_size_in_bytes > 20 * memory.temp_size_in_bytes


def test_fill_narrows_numbers_of_64_bits():
    log = convert.transitions([episode(0, 1, 2, end="terminated")])
    log = log._replace(reward=log.reward.astype(np.float64), action=log.action.astype(np.int64))
    buffer = recent(3, 1)
    state, clock = convert.fill(buffer, log)
    window = buffer.sample(state, jax.random.key(0), clock).window
    assert (window.reward.dtype, window.action.dtype) == (jnp.float32, jnp.int32)
    assert window.reward.tolist() == [[0, 0.25, 0.5]]


def test_fill_refuses_what_does_not_fit():
    steps, _ = simulate(0, 4, 2)
    with pytest.raises(ValueError, match="4 steps in each of 2 lanes are fewer than min_steps=5, which"):
        convert.fill(recent(5, 2), steps)
    with pytest.raises(ValueError, match=re.escape("has shape (2,), but its first axis must be num_envs=3")):
        convert.fill(uniform(30, 4, 3), steps)
    lane = convert.transitions([episode(0, 1, gap=3), episode(2), episode(8), episode(9)])
    assert lane.truncated[:, 0].tolist() == [False, True, True, True, False]
    with pytest.raises(ValueError, match="the next_obs of step 1 in lane 0 is not the obs of the step after; set"):
        convert.fill(uniform(8, 4, 1), lane._replace(truncated=np.zeros((5, 1), bool)))
    with pytest.raises(ValueError, match=r"no place for all final observations \({'cut': 2}\); raise its `ends`"):
        convert.fill(uniform(8, 4, 1, ends=0.25), lane)


@pytest.mark.parametrize("seed, rows, num_envs", SIZES)
def test_datasets_and_arrays_lose_nothing(seed, rows, num_envs):
    _, found = simulate(seed, rows, num_envs)
    assert_same(convert.from_dataset(convert.to_dataset(found)), found)
    assert_same(convert.from_arrays(convert.to_arrays(found)), found)


def test_a_dataset_by_hand():
    """Two episodes of Minari's: three steps to a terminal state, and two steps that run on."""
    first = {
        "observations": np.array([[0.0], [1.0], [2.0], [3.0]], np.float32),
        "actions": np.array([1, 0, 1]),
        "rewards": np.array([0.5, 0.0, 1.0]),
        "terminations": np.array([False, False, True]),
        "truncations": np.array([False, False, False]),
    }
    second = {name: x[:3] if name == "observations" else x[:2] for name, x in first.items()}
    extra = {"id": 7, "seed": None, "options": None, "infos": {"lives": np.arange(4)}}
    for third in (second, SimpleNamespace(**second, **extra, total_steps=2)):
        found = convert.from_dataset([first | extra, third])
        assert [part.obs.tolist() for part in found] == [[[0], [1], [2]], [[0], [1]]]
        assert [part.next_obs.tolist() for part in found] == [[[1], [2], [3]], [[1], [2]]]
        assert [part.action.tolist() for part in found] == [[1, 0, 1], [1, 0]]
        assert [part.reward.tolist() for part in found] == [[0.5, 0, 1], [0.5, 0]]
        assert [part.terminated.tolist() for part in found] == [[False, False, True], [False, False]]
        assert not any(part.truncated.any() for part in found)
        assert (found[0].reward.dtype, found[0].action.dtype) == (np.float64, np.int64)
        assert_same(convert.to_dataset(found), [first, second])


def test_arrays_by_hand():
    """D4RL's have no mark where an episode begins but the end before; what hangs below infos/ is not read."""
    arrays = {
        "observations": np.array([0, 1, 5, 7, 8]),
        "actions": np.zeros((5, 2), np.float32),
        "rewards": np.arange(5, dtype=np.float32),
        "terminals": np.array([False, True, False, False, False]),
        "timeouts": np.array([False, False, True, False, False]),
        "next_observations": np.array([1, 2, 6, 8, 9]),
        "infos/qpos": np.zeros((5, 1)),
    }
    found = convert.from_arrays(arrays)
    assert [part.obs.tolist() for part in found] == [[0, 1], [5], [7, 8]]
    assert [part.next_obs.tolist() for part in found] == [[1, 2], [6], [8, 9]]
    assert [part.action.shape for part in found] == [(2, 2), (1, 2), (2, 2)]
    arrays.pop("infos/qpos")
    assert_same(convert.to_arrays(found), arrays | {"is_first": np.array([True, False, True, True, False])})
    parts = convert.from_arrays(arrays | {"is_first": np.array([True, False, False, False, True])})
    assert [part.obs.tolist() for part in parts] == [[0, 1], [5], [7], [8]]


def test_a_next_obs_that_nothing_follows_needs_arrays():
    log = [episode(0, 1), episode(2, 3)._replace(next_obs=episode(4, 5).obs)]
    with pytest.raises(ValueError, match="episode 1: a next_obs is not the next row's obs; to_arrays keeps both"):
        convert.to_dataset(log)
    assert_same(convert.from_arrays(convert.to_arrays(log)), log)
    unknown = log[0]._replace(obs=np.array([0, np.nan]), next_obs=np.array([np.nan, 1]))
    assert_same(convert.from_dataset(convert.to_dataset([unknown])), [unknown])  # NaN follows NaN


def item(length: int = 3, **changes) -> dict:
    """A dataset's episode with other fields; None takes one out."""
    fields = {
        "observations": np.zeros((length + 1, 2), np.float32),
        "actions": np.zeros(length, np.int32),
        "rewards": np.zeros(length, np.float32),
        "terminations": np.zeros(length, bool),
        "truncations": np.zeros(length, bool),
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


BAD_ITEMS = {
    "unknown": (item(reward=np.zeros(3)), "unknown field in from_dataset: episode 1: 'reward'; did you mean 'rewards'"),
    "missing": (item(truncations=None), "episode 1: truncations is missing; give observations, actions, rewards"),
    "missing of an object": (SimpleNamespace(**item(actions=None)), "episode 1: actions is missing"),
    "nothing": (item(actions=()), "episode 1: actions is no array; give"),
    "a list": (item(rewards=[0.0, 0.0, 0.0]), "episode 1: rewards is no array"),
    "a number": (item(rewards=1.0), "episode 1: rewards is no array"),
    "L": (item(observations=np.zeros((3, 2), np.float32)), "obs is float32[2, 2] beside a reward of shape [3]"),
    "L + 2": (item(observations=np.zeros((5, 2), np.float32)), "obs is float32[4, 2] beside a reward of shape [3]"),
    "a length": (
        item(actions=np.zeros(4, np.int32)),
        "episode 1: action is int32[4] beside a reward of shape [3]",
    ),
    "a column": (item(rewards=np.zeros((3, 1))), "reward is float64[3, 1] beside a reward of shape [3, 1]; all need"),
    "ends that count": (item(terminations=np.zeros(3)), "terminated is float64[3] beside"),
    "objects": (item(actions=np.array([0, 1, None])), "action is object[3] beside"),
    "text": (item(actions=np.array(["up", "up", "up"])), "action is <U2[3] beside"),
    "no steps": (item(0), "from_dataset: episode 1 has no steps; leave it out"),
    "nan": (item(rewards=np.array([0, np.nan, 0], np.float32)), "the reward of row 1 is nan; it must be finite"),
    "inf": (item(rewards=np.array([0, 0, np.inf], np.float32)), "the reward of row 2 is inf; it must be finite"),
    "an end before the last": (
        item(terminations=np.array([False, True, False])),
        "episode 1 goes on after the end in its row 1; cut it there",
    ),
    "another cut": (item(truncations=np.array([True, False, True])), "goes on after the end in its row 0"),
    "another shape": (
        item(observations=np.zeros((4, 3), np.float32)),
        "from_dataset: a row of obs is float32[3] in episode 1, float32[2] in 0; make them alike",
    ),
    "another dtype": (item(rewards=np.zeros(3)), "a row of reward is float64[] in episode 1, float32[] in 0"),
    "another tree": (item(observations={"x": np.zeros((4, 2), np.float32)}), "a row of obs is {'x': 'float32[2]'} in"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_from_dataset_refuses(name):
    bad, message = BAD_ITEMS[name]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        convert.from_dataset([item(), bad])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", ["transitions", "to_dataset", "to_arrays", "from_dataset"])
def test_no_episodes_are_refused(function):
    with pytest.raises(ValueError, match=f"{function}: there is no episode; give at least one"):
        getattr(convert, function)([])


@pytest.mark.parametrize("function", ["transitions", "to_dataset", "to_arrays"])
def test_episodes_given_by_hand_are_checked_too(function):
    good = episode(0, 1, 2)
    bad = {
        "a row of obs is Masked(": good._replace(next_obs=good.next_obs.observation),
        "episode 1: reward[0] is object[] beside": good._replace(reward=[0.0, 0.0, 0.0]),
        "goes on after the end in its row 0": good._replace(truncated=np.array([True, False, False])),
        "a row of action is int64[]": good._replace(action=good.action.astype(np.int64)),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(convert, function)([good, wrong])


def test_from_arrays_refuses():
    arrays = convert.to_arrays([episode(0, 1), episode(2)])
    bad = {
        "from_arrays: timeouts is missing": {name: x for name, x in arrays.items() if name != "timeouts"},
        "unknown field in from_arrays: 'next_observation'; did you mean 'next_obs": arrays | {"next_observation": 0},
        "terminated is uint8[3] beside a reward of shape [3]": arrays | {"terminals": np.zeros(3, np.uint8)},
        "is_first is bool[2]; it must be bool like the ends": arrays | {"is_first": np.zeros(2, bool)},
        "is_first is int64[3]": arrays | {"is_first": np.zeros(3, int)},
        "from_arrays has no steps": jax.tree.map(lambda x: x[:0], arrays),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            convert.from_arrays(wrong)


ODD = {  # leaves of every kind that a buffer may hold
    "words": np.arange(6, dtype=np.uint32).reshape(2, 3) * 700_000_000,
    "bytes": np.arange(5, dtype=np.uint8),
    "flags": (np.array([True, False]), np.array(True)),
    "file": np.array([-1.5, np.nan, np.inf], np.float32),
    "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "small": np.array([0.5], E4M3),
    "none": np.zeros((0, 4), np.int32),
}


def spelled(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


@pytest.mark.parametrize("put", [lambda x: x, jnp.asarray], ids=["numpy", "jax"])
def test_a_file_keeps_every_bit(tmp_path, put):
    path = tmp_path / "replay"
    files.save(str(path), jax.tree.map(put, ODD), jnp.int32(7))
    assert os.listdir(tmp_path) == ["replay"]
    for like in (ODD, spelled(ODD)):
        state, clock = files.load(path, like)
        assert (clock.dtype, clock.shape, int(clock)) == (jnp.int32, (), 7)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
        assert_same(jax.device_get(state), ODD)
    with np.load(path, allow_pickle=False) as arrays:  # readable without jaxrl
        assert arrays["state/words"].tolist() == ODD["words"].tolist()
        assert sorted(arrays.files)[:4] == ["clock", "dtypes", "state/bytes", "state/file"]


@pytest.mark.parametrize("name", ["uniform", "prioritized"])
def test_a_loaded_buffer_goes_on_to_the_bit(tmp_path, name):
    buffer, steps, state, clock = filled(name)
    example = jax.tree.map(lambda x: jnp.asarray(x[0]), steps)

    @jax.jit
    def go_on(state, clock):
        state = buffer.add(state, example, clock)
        sample = buffer.sample(state, jax.random.key(1), clock + 1)
        state = buffer.update(state, sample.index, jnp.abs(sample.window.reward[:, 0]))
        return state, buffer.sample(state, jax.random.key(2), clock + 1)

    files.save(tmp_path / "replay.npz", state, clock)
    loaded, loaded_clock = files.load(tmp_path / "replay.npz", jax.eval_shape(buffer.init, example))
    assert_same(jax.device_get(go_on(loaded, loaded_clock)), jax.device_get(go_on(state, clock)))
    assert go_on._cache_size() == 1
    bump = jax.jit(lambda tree: jax.tree.map(lambda x: x | True if x.dtype == bool else x + 1, tree), donate_argnums=0)
    expected = jax.device_get(bump(jax.tree.map(jnp.copy, loaded)))
    assert_same(jax.device_get(bump(loaded)), expected)


def test_a_file_is_whole_or_not_there_and_never_written_over(tmp_path, monkeypatch):
    path = tmp_path / "replay"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="replay exists and is not written over; choose another name"):
        files.save(path, ODD, 1)
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(ValueError, match="replay exists"):
        files.save(path, ODD, 1)
    path.unlink()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    for place, name in ((os, "fsync"), (Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(OSError, match="No space left"):
                files.save(path, ODD, 1)
        assert os.listdir(tmp_path) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: path.write_bytes(b"theirs"))  # another writer is faster
        with pytest.raises(ValueError, match="replay exists"):
            files.save(path, ODD, 1)
    assert os.listdir(tmp_path) == ["replay"] and path.read_bytes() == b"theirs"
    with pytest.raises(FileNotFoundError):
        files.save(tmp_path / "no" / "replay", ODD, 1)
    with pytest.raises(FileNotFoundError):
        files.load(tmp_path / "absent", ODD)


def test_save_refuses_what_is_no_array_of_numbers(tmp_path):
    bad = {"object": np.array([None]), "key<fry>": jax.random.key(0), "class 'float'": 1.0, "<U2": np.array("up")}
    for kind, leaf in bad.items():
        with pytest.raises(ValueError, match=f"state/x is .*{kind}.*; only arrays of numbers can be saved"):
            files.save(tmp_path / "replay", {"x": leaf}, 1)
    assert os.listdir(tmp_path) == []


def test_load_says_what_differs(tmp_path):
    path = tmp_path / "replay"
    files.save(path, {"a": np.zeros((2, 3), np.uint8), "b": np.zeros(2, E5M2)}, 4)
    half = jax.ShapeDtypeStruct((2,), E5M2)
    array = jax.ShapeDtypeStruct((2, 3), np.uint8)
    bad = {
        "state/a is uint8[2, 3], in `like` float32[2, 3]; build": {"a": array.update(dtype=np.float32), "b": half},
        "state/a is uint8[2, 3], in `like` uint8[3, 2]; build": {"a": array.update(shape=(3, 2)), "b": half},
        "state/b is float8_e5m2[2], in `like` float8_e4m3fn[2]": {"a": array, "b": half.update(dtype=E4M3)},
        "state/a is uint8[2, 3], in `like` missing; build": {"b": half},
        "state/c is missing, in `like` uint8[2, 3]; build": {"a": array, "b": half, "c": array},
    }
    for message, like in bad.items():
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            files.load(path, like)
        assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused(tmp_path):
    """A file cut anywhere, and one with any byte changed, is refused or, where the byte says nothing, read aright."""
    path, state = tmp_path / "replay", {"a": np.arange(6, dtype=np.float32)}
    files.save(path, state, 3)
    whole, refused = path.read_bytes(), 0
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or holds no buffer: .*; restore a copy"):
            files.load(path, state)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            found, clock = files.load(path, state)
        except ValueError:
            refused += 1
        else:
            assert found["a"].tolist() == state["a"].tolist() and int(clock) == 3
    assert refused > len(whole) / 2
    path.write_bytes(whole.replace(b"'<f4'", b"'<f2'"))  # half the bytes are as many numbers
    with pytest.raises(ValueError, match="the checksum of state/a.npy is wrong"):
        files.load(path, state)


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    plain = io.BytesIO()
    np.save(plain, np.array([Bomb()], object))
    with zipfile.ZipFile(tmp_path / "replay", "w") as archive:
        archive.writestr("state/a.npy", plain.getvalue())
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        files.load(tmp_path / "replay", ODD)
    (tmp_path / "other").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="File is not a zip file"):
        files.load(tmp_path / "other", ODD)
    assert not (tmp_path / "run").exists()
