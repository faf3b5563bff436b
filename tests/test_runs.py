"""Behind the command line: the host loop, run directories, saved states, settings, and the library twin."""

import dataclasses
import errno
import functools
import io
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import as_usual, copies_of

from jaxrl import files, memory, prng, recipes
from jaxrl.envs import registry
from jaxrl.evaluate import evaluate
from jaxrl.runs import checkpoint, config, directory, host, library, log, plan, plot, record, signals
from jaxrl.runs.errors import CheckpointError, WriteError

TABLE = {"steps": 2_000, "num_envs": 4}
NET = {"steps": 512, "num_envs": 8, "unroll": 1, "learning_starts": 64, "eval_episodes": 4} | {
    "agent": {"hidden": (8,), "n_step": 2},
    "replay": {"batch_size": 8, "capacity": 256},
}


class Linear:
    """The least that a network can be: flax's init and apply."""

    def init(self, key, obs):
        return {"w": jax.random.normal(key, (obs.shape[0], 2))}

    def apply(self, params, obs):
        return obs @ next(iter(params.values()))


class Endless:
    """The corridor without a step limit to be seen."""

    name = "Endless-v0"
    default_params = ()

    def __init__(self):
        self.inner, self.params = registry.make("Corridor-v0")

    def __getattr__(self, name):
        method = getattr(self.inner, name)
        return lambda *args: method(*args[:-1], self.params)


class Renamed(Linear):
    def init(self, key, obs):
        return {"v": super().init(key, obs)["w"]}


@pytest.fixture(scope="module")
def table():
    return library.train("q_learning", "Corridor-v0", seed=3, **TABLE)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    out = tmp_path_factory.mktemp("net") / "run"
    return out, library.train("dqn", "CartPole-v1", seed=3, out=out, **NET)


def equal(one, other) -> None:
    def same(a, b):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    jax.tree.map(same, one, other)


# the library


def test_result_learned_the_corridor(table):
    assert np.all(np.diff(table.params.max(axis=1)[:9]) > 0)  # the nearer the end, the better
    assert table.summary["eval"]["mean"] == 1.0
    assert [int(table.act(jnp.int32(cell))) for cell in range(9)] == [1] * 9
    played = table.evaluate(episodes=5, seed=1)
    assert played.returns.shape == (5,)
    assert bool(jnp.all(played.ended))
    assert table.metrics["env_steps"][-1] == 2_000
    assert {"return", "episodes", "loss", "q", "updates", "steps_per_s"} <= set(table.metrics)


def test_same_call_gives_the_same_bits_silently_and_leaves_nothing(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = registry.make("Corridor-v0")
    again = library.train("q_learning", made, seed=3, **TABLE)
    equal(again.state, table.state)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_chunks_do_not_change_what_is_learned(table, monkeypatch):
    monkeypatch.setattr(host, "CHUNKS", 7)
    monkeypatch.setattr(host, "UNIT", 5)
    other = library.train("q_learning", "Corridor-v0", seed=3, **TABLE)
    assert len(other.metrics["env_steps"]) < len(table.metrics["env_steps"])
    assert other.metrics["env_steps"][-1] == 2_000
    equal(other.state, table.state)
    for name in ("episodes", "updates"):
        total = {"episodes": np.sum, "updates": np.max}[name]
        assert total(other.metrics[name]) == total(table.metrics[name])


def test_seeds_side_by_side_are_those_alone(table):
    several = library.train("q_learning", "Corridor-v0", seed=2, seeds=2, **TABLE)
    equal(jax.tree.map(lambda leaf: leaf[1], several.state), table.state)
    assert several.summary["seeds"] == len(several.summary["eval"]["per_seed"]) == 2
    assert several.metrics["return"].shape == (len(several.metrics["env_steps"]), 2)
    assert several.act(jnp.int32(0)).shape == (2,)
    assert several.evaluate(episodes=3).returns.shape == (2, 3)


def test_run_is_loaded_to_the_bit(net):
    out, result = net
    env, params, agent, state = library.load(out)
    equal(state, result.state)
    summary = json.loads((out / "summary.json").read_text())
    again = evaluate(env, params, agent, state, plan.keys(0, 1), 4)
    assert again.returns.shape == (4,)
    assert summary["eval"]["mean"] == pytest.approx(result.summary["eval"]["mean"])
    assert summary["eval"]["mean"] == pytest.approx(float(result.evaluate(episodes=4, seed=3).returns.mean()))
    assert summary["env_steps"] == 512
    assert result.metrics["updates"][-1] == (512 - 64) // 8
    assert np.all(np.isfinite(result.metrics["loss"]))


def test_object_and_network_of_ones_own(tmp_path):
    made = registry.make("CartPole-v1", gravity=5.0)
    result = library.train("dqn", made[0], params=made[1], network=Linear(), out=tmp_path / "run", **NET)
    assert result.params["w"].shape == (4, 2)
    with pytest.raises(ValueError, match="env="):
        library.load(tmp_path / "run")
    with pytest.raises(ValueError, match="network="):
        library.load(tmp_path / "run", env=made)
    with pytest.raises(ValueError, match="gravity was 5.0, now it is 9.8"):
        library.load(tmp_path / "run", env=registry.make("CartPole-v1"), network=Linear())
    with pytest.raises(CheckpointError, match="/v' is missing; it was written by another"):
        library.load(tmp_path / "run", env=made, network=Renamed())
    equal(library.load(tmp_path / "run", env=made, network=Linear())[3], result.state)


def test_progress_speaks_when_asked(capsys):
    library.train("q_learning", "Corridor-v0", progress=True, **TABLE)
    said = capsys.readouterr().out
    assert said.startswith("q_learning on Corridor-v0, seed 0, 2000 steps")
    assert "20 parameters, replay memory of 4 transitions" in said
    assert "100.0%" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"recipe": "q_lerning"}, "did you mean 'q_learning'"),
        ({"env": "Coridor-v0"}, "did you mean 'Corridor-v0'"),
        ({"env": object()}, "is no environment"),
        ({"env_overrides": {"lenth": 3}}, "length"),
        ({"step": 5}, "did you mean steps"),
        ({"gama": 5}, "did you mean agent.gamma"),
        ({"steps": "many"}, "must be an integer"),
        ({"seed": 2**32}, "0..4294967295"),
        ({"seed": 1.5}, "0..4294967295"),
        ({"network": Linear()}, "takes no network"),
    ],
)
def test_library_refuses_in_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        library.train(**{"recipe": "q_learning", "env": "Corridor-v0", **TABLE, **arguments})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_environment_without_a_limit_is_refused_before_it_trains(tmp_path):
    with pytest.raises(ValueError, match="no step limit"):
        library.train("q_learning", Endless(), out=tmp_path / "run", **TABLE)
    assert list(tmp_path.iterdir()) == []


WILD = NET | {"steps": 2_048, "agent": {"hidden": (8,), "n_step": 2, "learning_rate": 1e30, "clip_norm": 1e30}}


def test_a_run_that_diverges_stops_and_keeps_what_was_finite(capsys, tmp_path):
    out = tmp_path / "run"
    with pytest.warns(RuntimeWarning, match="of seed 3 is not finite at .* steps: training stopped"):
        result = library.train("dqn", "CartPole-v1", seed=3, progress=True, out=out, **WILD)
    assert capsys.readouterr().out.count("is not finite at") == 1
    diverged = result.summary["diverged"]
    assert diverged["seed"] == 3 and diverged["quantity"] in ("loss", "q", "parameters")
    assert diverged["env_steps"] == result.summary["env_steps"] < WILD["steps"] and result.summary["eval"] is None
    text = (out / "metrics.jsonl").read_text()
    assert "NaN" not in text and len(text.splitlines()) == len(result.metrics["loss"])
    _, _, _, state = library.load(out)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_the_seed_that_diverges_is_named():
    sums = {"episodes": [0.0, 0.0], "return": [0.0, 0.0], "length": [0.0, 0.0], "updates": [2.0, 2.0]}
    row = host.means({k: np.float32(v) for k, v in (sums | {"loss": [1.0, np.nan], "q": [1.0, 2.0]}).items()}, 2)
    fine = np.array([True, True])
    assert host._diverged(row | {"env_steps": 8}, fine, 5) == {"quantity": "loss", "seed": 6, "env_steps": 8}
    row = host.means({k: np.float32(v) for k, v in (sums | {"loss": [1.0, 3.0]}).items()}, 2)
    assert host._diverged(row | {"env_steps": 8}, fine, 5) is None
    found = host._diverged(row | {"env_steps": 8}, np.array([False, True]), 5)
    assert found == {"quantity": "parameters", "seed": 5, "env_steps": 8}


def test_a_callback_sees_each_chunk_and_may_end_the_run():
    seen = []

    def callback(row, state):
        seen.append((row["env_steps"], int(state.updates)))
        return True

    result = library.train("dqn", "CartPole-v1", callback=callback, **NET | {"steps": 2_048})
    assert len(seen) == 1 and result.summary["env_steps"] == seen[0][0] < 2_048
    assert seen[0][1] == result.metrics["updates"][0] == int(result.state.updates)
    assert result.summary["eval"]["episodes"] and "interrupted" not in result.summary


def test_targets_far_outside_of_the_support_are_said(capsys):
    agent = NET["agent"] | {"v_max": 1.5, "atoms": 3}
    result = library.train("c51", "CartPole-v1", progress=True, **NET | {"agent": agent})
    assert capsys.readouterr().out.count("targets lie outside of the support by ") == 1
    assert result.summary["outside"] > 0.05


# runs that fail


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def learn(out, **options):
    return library.train("q_learning", "Corridor-v0", seed=3, out=out, **TABLE, **options)


def raised(error):
    def fail(*args, **options):
        raise error

    return fail


@pytest.mark.parametrize("error", [RuntimeError("RESOURCE_EXHAUSTED"), KeyboardInterrupt()], ids=repr)
def test_what_was_learned_outlives_its_evaluation(error, table, tmp_path, monkeypatch):
    compiled = host._compile

    def broken(*args):
        start, chunk, _, kept = compiled(*args)
        return start, chunk, raised(error), kept

    monkeypatch.setattr(host, "_compile", broken)
    with pytest.raises(type(error)):
        learn(tmp_path / "run")
    equal(library.load(tmp_path / "run")[3], table.state)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()], ids=repr)
def test_what_was_learned_outlives_an_exception(error, tmp_path):
    seen = []

    def callback(row, state):
        seen.append(jax.device_get(state))
        if len(seen) == 2:
            raise error

    with pytest.raises(type(error)):
        learn(tmp_path / "run", callback=callback)
    equal(library.load(tmp_path / "run")[3], seen[1])


@pytest.mark.parametrize("chunk", [1, 3])
def test_what_was_learned_outlives_a_full_disk(chunk, tmp_path, monkeypatch):
    append, count = log.append_json, []

    def fill(path, row):
        count.append(row)
        (full if len(count) == chunk else append)(path, row)

    monkeypatch.setattr(log, "append_json", fill)
    with pytest.raises(WriteError, match="run/metrics.jsonl: No space left on device; make room there, or"):
        learn(tmp_path / "run")
    assert int(library.load(tmp_path / "run")[3].visits.sum()) > 0
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == chunk - 1


def test_an_agent_that_cannot_be_saved_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "run", callback=raised(KeyboardInterrupt()))
    with pytest.raises(WriteError, match="cannot write .*run: No space left"):
        learn(tmp_path / "run", force=True)


def test_a_run_that_learned_nothing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_compile", raised(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "run")
    monkeypatch.setattr(directory, "write_json", full)
    with pytest.raises(WriteError, match="cannot write .*run: No space left"):
        learn(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_trains_is_not_moved_aside(table, tmp_path):
    out = tmp_path / "run"
    refused = []

    def again(row, state):
        with pytest.raises(
            ValueError, match="run is being written by a run that has not ended; wait for it, "
        ) as caught:
            learn(out, force=True)
        refused.append(str(caught.value))

    learn(out, callback=again)
    assert refused and "\n" not in refused[0]
    equal(library.load(out)[3], table.state)
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(RuntimeError):
        learn(out, force=True, callback=raised(RuntimeError()))  # the one that has ended is moved aside
    learn(out, force=True)  # and so is the one that failed
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.old-1", "run.old-2"}


@pytest.mark.parametrize("locks", [{}, None], ids=["no flock", "no fcntl"])
def test_where_there_are_no_locks_nothing_is_held(locks, tmp_path, monkeypatch):
    out = tmp_path / "run"
    learn(out)
    if locks is None:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", full)
    with directory.hold(out):
        directory.create(out, force=True)
    assert (tmp_path / "run.old-1" / "config.json").is_file()


def test_a_directory_that_was_replaced_is_not_held(tmp_path, monkeypatch):
    """Between a run's opening its file and its lock, another took its place."""
    out = tmp_path / "run"
    directory.create(out)
    lock = directory._lock

    def late(file):
        out.rename(tmp_path / "run.old-1")
        directory.create(out)
        return lock(file)

    monkeypatch.setattr(directory, "_lock", late)
    with pytest.raises(ValueError, match="is being written by a run"), directory.hold(out):
        pass


# the host loop


@pytest.mark.parametrize(("iterations", "unit"), [(1, 1), (37, 1), (64, 32), (18_687, 3), (90, 30)])
def test_units_divide_the_iterations(iterations, unit):
    assert host.unit_of(iterations) == unit


def test_means_of_no_episode_are_none():
    sums = {"episodes": 0.0, "return": 0.0, "length": 0.0, "updates": 4.0, "loss": 2.0, "env_steps": 8.0}
    row = host.means({name: np.float32(value) for name, value in sums.items()}, 1)
    assert row == {"return": None, "length": None, "episodes": 0, "loss": 0.5}
    several = {name: np.float32([value, value + 1]) for name, value in sums.items()}
    row = host.means(several, 2)
    assert row["per_seed"]["return"] == [None, 1.0]
    assert (row["return"], row["episodes"], row["loss"]) == (1.0, 1, pytest.approx((0.5 + 3 / 5) / 2))
    assert math.isnan(library.columns([row])["return"][0, 0])


# saved states


class State(NamedTuple):
    params: dict
    key: jax.Array
    count: jax.Array


def example(key) -> State:
    params = {
        "a/b": jnp.arange(6.0).reshape(2, 3),
        "c": [jnp.ones((), jnp.bfloat16), jnp.zeros((0, 2), bool)],
    }
    return State(params, key, jnp.zeros((), jnp.int32) + 7)


KEYS = [prng.key(3), jax.random.key(3), jax.random.split(jax.random.key(1), 4), jax.random.key(3, impl="rbg")]


@pytest.mark.parametrize("key", KEYS, ids=["cheap", "threefry", "batch", "rbg"])
def test_state_is_read_back_to_the_bit(key, tmp_path):
    state = example(key)
    checkpoint.save(tmp_path, state)
    equal(checkpoint.load(tmp_path, jax.eval_shape(lambda: state)), state)
    equal(checkpoint.load(tmp_path, state), state)


def test_every_flipped_byte_is_noticed(tmp_path):
    state = example(prng.key(3))
    checkpoint.save(tmp_path, state)
    path = tmp_path / checkpoint.STATE
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="sha256"):
            checkpoint.load(tmp_path, state)


MISFITS = {
    "missing": (lambda s: s._replace(params={**s.params, "d": s.count}), "'params/d' is missing"),
    "extra": (lambda s: s._replace(params={"c": s.params["c"]}), "'params/a/b' is not part of this agent"),
    "shape": (
        lambda s: s._replace(count=jnp.zeros(1, jnp.int32)),
        r"'count' is int32\[\], .* need int32\[1\]",
    ),
    "dtype": (lambda s: s._replace(count=jnp.zeros(())), r"'count' is int32\[\], .* need float32\[\]"),
    "key kind": (lambda s: s._replace(key=jax.random.key(0)), "'key' is key<"),
    "no key": (lambda s: s._replace(key=jnp.zeros(2, jnp.uint32)), "'key' is key<"),
}


@pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)
def test_state_of_another_shape_is_refused(change, said, tmp_path):
    state = example(prng.key(3))
    checkpoint.save(tmp_path, state)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(tmp_path, jax.eval_shape(lambda: change(state)))


# run directories


def test_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_has_no_nan(tmp_path):
    directory.write_json(tmp_path / "x.json", {"a": [math.nan, 1.0], "b": {"c": math.inf}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0], "b": {"c": None}}


def test_two_runs_cannot_take_one_directory(tmp_path, monkeypatch):
    path = tmp_path / "run"
    assert directory.create(path) is None
    monkeypatch.setattr(directory, "check", lambda path, force: None)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))  # as it looked before the other made its file
    with pytest.raises(ValueError, match="another run just now"):
        directory.create(path)


def test_only_an_empty_run_is_discarded(tmp_path):
    path = tmp_path / "run"
    directory.create(path)
    directory.discard(path)
    assert not path.exists()
    directory.create(path)
    (path / "notes").write_text("mine")
    directory.discard(path)
    assert (path / "notes").read_text() == "mine"


@pytest.mark.parametrize("name", ["gymnax:Catch-bsuite", "../../etc", "a b/c", "..."])
def test_default_name_stays_inside(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (directory.create_default("dqn", name, 0) for _ in range(2))
    assert first != second
    assert {path.resolve() for path in (first, second)} == set((tmp_path / "runs").iterdir())


def test_the_chunk_that_runs_copies_no_ring(monkeypatch):
    compile_as_usual = functools.partialmethod(jax.stages.Lowered.compile, compiler_options=as_usual())
    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_as_usual)
    settings = config.override(recipes.default("dqn"), {"steps": 4_800, "replay": {"capacity": 1_104}})
    asked = plan.prepare("dqn", plan.choose("CartPole-v1"), settings)
    _, chunk, *_ = host._compile(asked, host.unit_of(asked.setup.iterations), plan.keys(0, 1))
    rings = {leaf.shape for leaf in jax.tree.leaves(asked.shapes.buffer) if leaf.size > 69}
    assert len(rings) == 3  # observations, actions and rewards, ends
    for ring in rings:
        assert not copies_of(chunk.as_text(), ring), ring


def test_numpy_and_jax_scalars_are_numbers(tmp_path):
    settings = {"steps": np.int64(400), "agent": {"gamma": np.float32(0.5), "alpha": jnp.float32(0.5)}}
    overrides = {"length": np.int64(5)}
    result = library.train(
        "q_learning", "Corridor-v0", seed=np.int64(3), env_overrides=overrides, out=tmp_path / "run", **settings
    )
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["agent"]["gamma"] == 0.5
    assert result.params.shape == (5, 2)
    with pytest.raises(ValueError, match="gamma is 2.0"):
        library.train("q_learning", "Corridor-v0", agent={"gamma": np.float32(2.0)})


def test_default_root_that_is_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        directory.create_default("dqn", "CartPole-v1", 0)


# settings


def test_settings_are_overridden_by_name():
    base = recipes.Deep()
    changed = config.override(base, {"steps": 1e4, "agent": {"gamma": 0.5}, "agent.epsilon.end": 0.1})
    assert (changed.steps, changed.agent.gamma, changed.agent.epsilon.end) == (10_000, 0.5, 0.1)
    assert type(changed.steps) is int
    assert changed.replay == base.replay
    assert config.override(base, {"agent": recipes.DQNAgent(gamma=0.1)}).agent.gamma == 0.1
    stored = json.loads(json.dumps(dataclasses.asdict(changed)))
    assert config.override(base, stored) == changed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agent.gama": 1}, "did you mean agent.gamma"),
        ({"learning_rate": 1}, "did you mean agent.learning_rate"),
        ({"steps.x": 1}, "unknown setting steps.x"),
        ({"agent": 3}, "as a dict"),
        ({"agent.double": 1}, "True or False"),
        ({"steps": 1.5}, "must be an integer"),
        ({"steps": True}, "must be an integer"),
        ({"agent.gamma": "0.9"}, "must be a number"),
        ({"agent.hidden": 8}, "a list of numbers"),
        ({"agent.loss": 3}, "unknown agent.loss 3"),
    ],
)
def test_wrong_settings_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        config.override(recipes.Deep(), changes)


def test_whole_numbers_are_read_exactly():
    assert [config.whole(text) for text in ("500", "1_000", "1e6", "-3", "2.0")] == [500, 1_000, 10**6, -3, 2]
    assert config.whole("9007199254740993") == 2**53 + 1
    for text in ("four", "1.5", "nan", "1e-1", ""):
        with pytest.raises(ValueError, match="no whole number"):
            config.whole(text)


# what is said and drawn


class Terminal(io.StringIO):
    def isatty(self):
        return True


ROW = {"env_steps": 500, "return": 12.5, "steps_per_s": 2e6, "train_s": 2.0}


@pytest.mark.parametrize("no_color", [False, True])
def test_live_line(monkeypatch, no_color):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    reporter = log.reporter()
    assert isinstance(reporter, log.Live)
    reporter.line("starts [with] brackets")
    reporter.progress(ROW, 1_000)
    reporter.close()
    said = terminal.getvalue()
    assert "starts [with] brackets" in said
    assert "return 12.5  2M steps/s  2 s left" in said
    assert ("\x1b[38;5" in said or "\x1b[35" in said) is not no_color


def test_plain_lines_have_no_control_codes(capsys):
    for quiet, lines in ((False, 2), (True, 1)):
        reporter = log.reporter(quiet)
        reporter.line("start")
        reporter.progress({**ROW, "return": None, "env_steps": 1_000}, 1_000)
        reporter.close()
        said = capsys.readouterr().out
        assert said.count("\n") == lines
        assert "\x1b" not in said
        assert ("return -  2M steps/s  0 s left" in said) is not quiet


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(log.reporter(), log.Plain)


ROWS = {
    "none": [],
    "no episode": [{"env_steps": 10, "return": None}],
    "one": [{"env_steps": 10, "return": 1.0}],
    "seeds": [{"env_steps": n, "return": 1.0, "per_seed": {"return": [None if n == 1 else n, 2.0]}} for n in range(9)],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_picture(rows, tmp_path):
    plot.curve(tmp_path / "curve.png", rows, "dqn on CartPole-v1", {"mean": 3.0, "episodes": 10})
    data = (tmp_path / "curve.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20]) >= 1_000  # pixels wide


def test_a_run_says_what_its_replay_had_no_place_for(capsys):
    """Every step is truncated, and there is place for one final observation in a hundred."""
    overrides = {"max_steps_in_episode": 1, "length": 4, "one_hot": True}
    settings: dict = NET | {"steps": 1_600, "replay": {"batch_size": 8, "capacity": 1_600, "ends": 0.01}}
    result = library.train("dqn", "Corridor-v0", env_overrides=overrides, progress=True, **settings)
    assert result.summary["replay"] == {"copied": 0, "cut": 1_600 - 16}
    assert "raise replay.ends" in capsys.readouterr().out
    settings["replay"] |= {"ends": 1.0}
    assert "replay" not in library.train("dqn", "Corridor-v0", env_overrides=overrides, **settings).summary


def test_a_capacity_that_is_rounded_up_is_said():
    settings = config.override(recipes.default("dqn"), {"replay": {"capacity": 1_001}})
    asked = plan.prepare("dqn", plan.choose("CartPole-v1"), settings)
    assert "replay memory of 1008 transitions (1001 rounded up to whole steps of 16 env" in record.headline(asked)
    settings = config.override(settings, {"replay": {"capacity": 1_008}})
    said = record.headline(plan.prepare("dqn", plan.choose("CartPole-v1"), settings))
    assert "replay memory of 1008 transitions, " in said


def test_memory_counts_every_leaf():
    shapes = jax.eval_shape(lambda: {"a": jnp.zeros((3, 5)), "b": jnp.zeros(7, bool), "key": prng.key(0)})
    assert memory.bytes_of(shapes) == 60 + 7 + 8
    memory.check(100, 50, None)
    memory.check(100, 50, 100)
    with pytest.raises(ValueError, match=r"needs 200 bytes.*150 .*a replay.capacity of 50% of this one would fit"):
        memory.check(200, 100, 150)


@pytest.mark.parametrize("seeds", [1, 2])
def test_episodes_that_do_not_fit_are_refused_before_they_are_traced(seeds, monkeypatch):
    monkeypatch.setattr(plan, "evaluate", raised(AssertionError("traced")))
    arguments = ("q_learning", plan.choose("Corridor-v0"), config.override(recipes.default("q_learning"), TABLE))
    with pytest.raises(AssertionError, match="traced"):
        plan.prepare(*arguments, seeds=seeds)
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    wrong = dataclasses.replace(arguments[2], eval_episodes=10**10)
    with pytest.raises(
        ValueError, match=r"^eval_episodes is 10000000000, which needs \d+ .*up to \d+ would fit$"
    ) as caught:
        plan.prepare(*arguments[:2], wrong, seeds=seeds)
    fit = int(str(caught.value).split()[-3])
    assert 10_000 < fit * seeds < 30_000  # position, clock, observation, return and length, all twice: 40 bytes
    for episodes, said in ((fit, "traced"), (fit + 1, f"up to {fit} would fit")):
        asked = dataclasses.replace(arguments[2], eval_episodes=episodes)
        with pytest.raises((AssertionError, ValueError), match=said):
            plan.prepare(*arguments[:2], asked, seeds=seeds)


def test_a_result_refuses_episodes_that_do_not_fit(table, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    for episodes in (10**13, np.int32(2**31 - 1)):  # the second times its bytes is no int32
        with pytest.raises(ValueError, match=f"^episodes is {episodes}, which needs"):
            table.evaluate(episodes=episodes)


def test_second_signal_is_left_to_the_system():
    before = signal.getsignal(signal.SIGINT)
    with signals.heard() as heard:
        assert heard() is None
        signal.raise_signal(signal.SIGINT)
        assert heard() == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
