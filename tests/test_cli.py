"""The command line: what it leaves, what it says, and what it refuses before it compiles or writes."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxrl import memory, recipes
from jaxrl.envs import registry
from jaxrl.runs import commands, directory, log, record
from jaxrl.runs.cli import main

TINY = ["train", "q_learning", "Corridor-v0", "--steps", "2_000", "--num-envs", "4", "--no-cache"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, to be copied."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main([*TINY, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory in which no command may begin to train."""

    def begin(*args, **options):
        raise AssertionError("a run began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "run", begin)
    return tmp_path


def refused(capsys, args: list[str]) -> str:
    """The one line with which `args` are refused."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxrl: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


BAD = {
    "no command": ([], "train, eval, show or list"),
    "unknown command": (["trian"], "'train'"),
    "no recipe": (["train", "--steps", "10"], "RECIPE and ENV come first"),
    "no environment": (["train", "dqn", "--steps", "10"], "give an environment, as in jaxrl train dqn"),
    "unknown recipe": (["train", "dqm", "CartPole-v1"], "did you mean 'dqn'"),
    "unknown environment": (["train", "dqn", "CartPole-v9"], "did you mean 'CartPole-v1'"),
    "misspelt flag": (["train", "dqn", "CartPole-v1", "--num-env", "3"], "did you mean --num-envs"),
    "flag without its group": (["train", "dqn", "CartPole-v1", "--gamma", "1"], "did you mean --agent.gamma"),
    "misspelt flag in a group": (
        ["train", "dqn", "CartPole-v1", "--agent.gama=1"],
        "did you mean --agent.gamma",
    ),
    "misspelt environment flag": (
        ["train", "q_learning", "FrozenLake-v1", "--env.slippery", "False"],
        "did you mean --env.is-slippery",
    ),
    "stray word": (["train", "dqn", "CartPole-v1", "more"], "'more'"),
    "no value": (["train", "dqn", "CartPole-v1", "--steps"], "--steps"),
    "word for a number": (["train", "dqn", "CartPole-v1", "--num-envs", "four"], "'four' is no whole number"),
    "fraction for an integer": (
        ["train", "dqn", "CartPole-v1", "--steps", "1.5"],
        "'1.5' is no whole number",
    ),
    "infinity for an integer": (
        ["train", "dqn", "CartPole-v1", "--steps", "inf"],
        "'inf' is no whole number",
    ),
    "word for a float": (["train", "dqn", "CartPole-v1", "--agent.gamma", "x"], "'x' is no number"),
    "word for a truth": (
        ["train", "dqn", "CartPole-v1", "--agent.double", "perhaps"],
        "neither True nor False",
    ),
    "unknown choice": (["train", "dqn", "CartPole-v1", "--agent.loss", "hubber"], "'squared', 'huber'"),
    "no environments": (["train", "dqn", "CartPole-v1", "--num-envs", "0"], "num_envs is 0"),
    "no steps": (["train", "dqn", "CartPole-v1", "--steps", "-5"], "steps is -5"),
    "negative seed": (["train", "dqn", "CartPole-v1", "--seed", "-1"], "0..4294967295"),
    "seed of 33 bits": (["train", "dqn", "CartPole-v1", "--seed", "4294967296"], "0..4294967295"),
    "last seed too large": (
        ["train", "dqn", "CartPole-v1", "--seed", "4294967295", "--seeds", "2"],
        "use a seed up to 4294967294",
    ),
    "no seeds": (["train", "dqn", "CartPole-v1", "--seeds", "0"], "seeds is 0"),
    "learning rate nan": (
        ["train", "dqn", "CartPole-v1", "--agent.learning-rate", "nan"],
        "learning_rate is nan",
    ),
    "gamma above 1": (["train", "dqn", "CartPole-v1", "--agent.gamma", "1.1"], "agent.gamma is 1.1"),
    "capacity below the window": (["train", "dqn", "CartPole-v1", "--replay.capacity", "16"], "capacity"),
    "batch above warm-up": (
        ["train", "dqn", "CartPole-v1", "--replay.batch-size", "5000"],
        "learning_starts",
    ),
    "warm-up past the end": (["train", "dqn", "CartPole-v1", "--learning-starts", "1e9"], "no update"),
    "no episodes to evaluate": (
        ["train", "dqn", "CartPole-v1", "--eval-episodes", "0"],
        "eval_episodes is 0",
    ),
    "table on a box": (["train", "q_learning", "CartPole-v1"], "row of a table"),
    "continuous actions": (["train", "dqn", "gymnax:Pendulum-v1"], "Discrete action space"),
    "bad environment setting": (["train", "dqn", "CartPole-v1", "--env.gravity", "nan"], "finite"),
    "newline in the name": ([*TINY, "--out", "a\nb"], "control character"),
    "NUL in the name": ([*TINY, "--out", "a\0b"], "control character"),
    "name too long": ([*TINY, "--out", "x" * 300], "name too long"),
    "not writable": ([*TINY, "--out", "/proc/jaxrl"], "cannot make /proc/jaxrl"),
    "eval of nothing": (["eval"], "RUN comes first"),
    "eval of no directory": (["eval", "nowhere"], "does not exist"),
    "eval of no run": (["eval", "."], "is no run"),
    "eval with an unknown flag": (["eval", ".", "--episode", "3"], "did you mean --episodes"),
    "eval of no episodes": (["eval", ".", "--episodes", "0"], "episodes is 0"),
    "eval with a bad seed": (["eval", ".", "--seed", "-1"], "0..4294967295"),
    "more episodes than memory": (
        ["train", "q_learning", "Corridor-v0", "--eval-episodes", "1e13"],
        "eval_episodes is 10000000000000, which needs",
    ),
    "list of something": (["list", "more"], "'more'"),
}


@pytest.mark.parametrize(("args", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(args, said, here, capsys):
    assert said.lower() in refused(capsys, args).lower()


def test_directory_that_holds_something_is_refused(here, capsys, finished):
    shutil.copytree(finished, "old")
    assert "holds another run" in refused(capsys, [*TINY, "--out", "old"])
    Path("notes").mkdir()
    Path("notes/thoughts.txt").write_text("mine")
    assert "is no run" in refused(capsys, [*TINY, "--out", "notes"])
    assert "is no run" in refused(capsys, [*TINY, "--out", "notes", "--force"])
    assert "is a file" in refused(capsys, [*TINY, "--out", "notes/thoughts.txt"])
    assert "is a file" in refused(capsys, [*TINY, "--out", "notes/thoughts.txt/deep/run"])
    assert "is a file" in refused(capsys, ["eval", "notes/thoughts.txt"])


def test_a_run_that_trains_is_not_moved_aside(here, capsys, finished):
    shutil.copytree(finished, "old")
    with directory.hold(Path("old")):
        assert "old is being written by a run that has not ended" in refused(capsys, [*TINY, "--out", "old", "--force"])


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def full(path, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log, "append_json", full)
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == 74
    assert capsys.readouterr().err == (
        f"jaxrl: cannot write {out}/metrics.jsonl: No space left on device; make room there, or choose another --out\n"
    )
    assert record.load(out).plan.config.steps == 2_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_refused(here, capsys):
    Path("closed").mkdir(mode=0o500)
    assert "no permission" in refused(capsys, [*TINY, "--out", "closed/run"])
    assert "no permission" in refused(capsys, [*TINY, "--out", "closed"])


def test_no_permission_is_refused_to_root_too(here, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission" in refused(capsys, [*TINY, "--out", "run"])


def test_replay_that_does_not_fit_is_refused(here, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    err = refused(capsys, ["train", "dqn", "CartPole-v1"])
    needed, free = (int(re.search(pattern, err)[1]) for pattern in (r"needs (\d+) bytes", r"(\d+) \(.*available"))
    assert 2_000_000 < needed < 4_000_000  # one observation a step, not two
    assert free == 1_000_000
    monkeypatch.setattr(memory, "available", lambda: None)
    assert main(["train", "dqn", "CartPole-v1"]) == 70  # it began


def test_a_replay_larger_than_this_machine_is_refused(here, capsys):
    err = refused(capsys, ["train", "dqn", "gymnax:Breakout-MinAtar", "--replay.capacity", "1e9"])
    assert "available" in err


def test_bug_while_training_is_not_called_bad_input(here, capsys, monkeypatch):
    def fail(*args, **options):
        raise ValueError("a bug of ours")

    monkeypatch.setattr(record, "run", fail)
    assert main(TINY) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "internal error" in err


def test_run_directory(finished, capsys):
    names = {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "curve.png",
        "table.png",
        "agent.safetensors",
        "manifest.json",
    }
    assert {path.name for path in finished.iterdir()} == names
    config = json.loads((finished / "config.json").read_text())
    assert config["recipe"] == "q_learning"
    assert config["env"]["id"] == "Corridor-v0"
    assert config["config"]["steps"] == 2_000
    assert config["versions"]["jax"] == jax.__version__
    assert config["device"]["platform"] == jax.default_backend()
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"eval", "env_steps", "train_s", "compile_s", "steps_per_s", "seeds"}
    assert {"mean", "std", "episodes", "per_seed"} <= set(summary["eval"])
    assert summary["eval"]["per_seed"] == [summary["eval"]["mean"]]
    assert (summary["env_steps"], summary["seeds"]) == (2_000, 1)
    assert summary["eval"]["episodes"] == config["config"]["eval_episodes"]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    columns = {"env_steps", "updates", "return", "episodes", "length", "loss", "q", "steps_per_s", "train_s"}
    assert set(rows[0]) == columns
    assert rows[-1]["env_steps"] == 2_000
    assert [row["env_steps"] for row in rows] == sorted({row["env_steps"] for row in rows})


def test_eval_prints_the_mean_first(finished, capsys):
    episodes = json.loads((finished / "config.json").read_text())["config"]["eval_episodes"]
    assert main(["eval", str(finished), "--no-cache", "--episodes", str(episodes)]) == 0
    numbers = re.findall(r"-?\d+\.\d+", capsys.readouterr().out)
    summary = json.loads((finished / "summary.json").read_text())
    assert float(numbers[0]) == pytest.approx(summary["eval"]["mean"], abs=1e-4)  # the run's seed is 0 too
    assert float(numbers[1]) == pytest.approx(summary["eval"]["std"], abs=1e-4)


def test_eval_refuses_episodes_that_do_not_fit(finished, capsys):
    said = refused(capsys, ["eval", str(finished), "--no-cache", "--episodes", "1e13"])
    assert "episodes is 10000000000000, which needs" in said and "would fit" in said


def test_force_moves_the_old_run_aside(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "run", lambda plan, reporter, out, stop: _Stub())
    monkeypatch.setattr(commands, "_ending", lambda summary, out: "done")
    old = tmp_path / "run"
    shutil.copytree(finished, old)
    held = {path.name: path.read_bytes() for path in old.iterdir()}
    assert main([*TINY, "--out", str(old), "--force"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "run.old-1").iterdir()} == held
    assert [path.name for path in old.iterdir()] == ["metrics.jsonl"]


class _Stub:
    summary = {"eval": None}


def test_default_directory_never_clobbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = []
    monkeypatch.setattr(record, "run", lambda plan, reporter, out, stop: taken.append(out) or _Stub())
    monkeypatch.setattr(commands, "_ending", lambda summary, out: "done")
    for _ in range(3):
        assert main([*TINY, "--seed", "7"]) == 0
    assert [str(out) for out in taken] == [f"runs/q_learning-Corridor-v0-seed7{k}" for k in ("", "-2", "-3")]


DAMAGE = {
    "truncated": ("agent.safetensors", lambda data: data[:-7], "bytes"),
    "empty": ("agent.safetensors", lambda data: b"", "bytes"),
    "flipped": ("agent.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "sha256"),
    "gone": ("agent.safetensors", None, "cannot be read"),
    "manifest truncated": ("manifest.json", lambda data: data[:20], "damaged"),
    "manifest of a list": ("manifest.json", lambda data: b"[]", "damaged"),
    "manifest gone": ("manifest.json", None, "no parameters"),
    "newer format": ("manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 2'), "format 2"),
    "manifest names another place": (
        "manifest.json",
        lambda data: data.replace(b'"config.json"', b'"../secret"'),
        "outside",
    ),
    "config edited": (
        "config.json",
        lambda data: data.replace(b'"length": "10"', b'"length": "11"'),
        "config.json is not what was written",
    ),
    "config truncated": ("config.json", lambda data: data[:50], "damaged"),
    "config of something else": ("config.json", lambda data: b'{"name": "x"}', "damaged"),
}


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_run_is_refused(name, damage, said, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "run")
    path = Path("run") / name
    before = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(before))
        assert path.read_bytes() != before
    assert said in refused(capsys, ["eval", "run"])


def test_run_of_an_environment_that_changed_is_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    env, params = registry.make("Corridor-v0", length=12)
    monkeypatch.setitem(registry._factories, "Corridor-v0", lambda: env.with_params(params))
    said = refused(capsys, ["eval", str(finished)])
    assert "another environment" in said
    assert "length was 10, now it is 12" in said
    monkeypatch.delitem(registry._factories, "Corridor-v0")
    assert "unknown environment" in refused(capsys, ["eval", str(finished)])


def test_run_of_another_network_is_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = json.loads((finished / "config.json").read_text())
    settings["seeds"] = 3
    shutil.copytree(finished, "run")
    directory.write_json(Path("run/config.json"), settings)
    manifest = json.loads(Path("run/manifest.json").read_text())
    del manifest["files"]["config.json"]
    directory.write_json(Path("run/manifest.json"), manifest)
    assert "'q' is float32[10, 2], this environment and recipe need float32[3, 10, 2]" in refused(
        capsys, ["eval", "run"]
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_what_was_learned(number, code, tmp_path, monkeypatch, capsys):
    append = log.append_json

    def append_and_signal(path, row):
        append(path, row)
        if len(path.read_text().splitlines()) == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(log, "append_json", append_and_signal)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == code
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    summary = json.loads((out / "summary.json").read_text())
    rows = (out / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3
    assert summary["interrupted"] is True
    assert summary["eval"] is None
    assert summary["env_steps"] == json.loads(rows[-1])["env_steps"] < 2_000
    assert (out / "curve.png").is_file()
    assert "stopped at" in capsys.readouterr().out
    assert record.load(out).plan.config.steps == 2_000


def test_help_shows_every_setting_with_its_default(capsys):
    assert main(["--help"]) == 0
    assert "jaxrl train RECIPE [ENV]" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "usage" in capsys.readouterr().out
    assert main(["train", "dqn", "FrozenLake-v1", "--help"]) == 0
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert re.search(r"--steps INT environment steps in all, warm-up counted \(default: 300000\)", said)
    assert re.search(r"--agent.learning-rate FLOAT \(default: 0.001\)", said)
    assert "--env.is-slippery {True,False} (default: True)" in said
    for flag in ("--seed", "--seeds", "--out", "--force", "--quiet", "--no-cache", "--replay.capacity"):
        assert f"{flag} " in said
    assert main(["train", "gyx_sarsa_frozenlake", "--help"]) == 0
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "Train gyx_sarsa_frozenlake on FrozenLake-v1" in said
    assert "--env.is-slippery {True,False} (default: False)" in said and "(default: 0.8)" in said
    assert main(["eval", "--help"]) == 0
    assert "--episodes INT" in capsys.readouterr().out


def test_list_names_recipes_and_environments(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in [*recipes.names(), *registry.list_ids()])


def test_flags_reach_the_run(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(record, "run", lambda plan, reporter, out, stop: asked.append(plan) or _Stub())
    monkeypatch.setattr(commands, "_ending", lambda summary, out: "done")
    words = "--steps 1e5 --num-envs 1_0 --seed 4 --agent.hidden 8 8 --agent.double false"
    lake = "--env.is-slippery False --env.desc SFG FHF --env.reward-schedule 2 0 0"
    args = [
        "train",
        "dqn",
        "FrozenLake-v1",
        *words.split(),
        *lake.split(),
        "--no-cache",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(args) == 0
    plan = asked[0]
    assert (plan.config.steps, plan.config.num_envs, plan.seed) == (100_000, 10, 4)
    assert (plan.config.agent.hidden, plan.config.agent.double) == ((8, 8), False)
    assert plan.chosen.overrides == {"is_slippery": False, "desc": ("SFG", "FHF"), "reward_schedule": (2.0, 0.0, 0.0)}
    assert main(["train", "gyx_sarsa_frozenlake", "--agent.alpha", "0.5", "--out", str(tmp_path / "gyx")]) == 0
    assert asked[1].chosen.id == "FrozenLake-v1" and asked[1].chosen.overrides == {"is_slippery": False}
    assert (asked[1].config.agent.alpha, asked[1].config.agent.epsilon.end) == (0.5, 0.8)
    assert plan.chosen.params.is_slippery is False


def test_closed_pipe_leaves_no_traceback_and_the_cache_is_used(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = f"{sys.executable} -m jaxrl {' '.join(TINY[:-1])} --out run; echo code $? >&2"
    piped = subprocess.run(
        ["bash", "-c", f"({command}) | head -n 1"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert piped.stdout.startswith("q_learning on Corridor-v0")
    assert piped.stderr == "code 0\n"
    assert (tmp_path / "run" / "summary.json").is_file()  # the run went on
    assert any((tmp_path / "cache" / "jaxrl").iterdir())
