"""Every command and snippet in README is run."""

import re
import shlex
from pathlib import Path

import pytest

from jaxrl import recipes
from jaxrl.envs import registry
from jaxrl.runs.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.S)
SHELL = [line for block in re.findall(r"```bash\n(.*?)```", README, flags=re.S) for line in block.splitlines()]
SETUP = [line for line in SHELL if line.startswith("python3 ")]


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_snippets(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    exec(compile(PYTHON[number], f"README snippet {number}", "exec"), {"__name__": "readme"})


def test_commands_in_turn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in SHELL if line.startswith("jaxrl ")]
    assert len(commands) >= 5
    for words in commands:
        assert main(words[1:]) == 0, words
    assert (tmp_path / "runs/lake/curve.png").exists()


def test_the_main_job(tmp_path, monkeypatch, capsys):
    """The first command after its installation, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    job = SETUP[0].rpartition(" && ")[2]
    assert job.startswith(".venv/bin/jaxrl train dqn")
    assert main([*shlex.split(job)[1:], "--steps", "8000"]) == 0
    assert "greedy return" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    assert {"summary.json", "curve.png", "agent.safetensors"} <= {path.name for path in run.iterdir()}


def test_continuous_integration_runs_the_second_command():
    assert len(SETUP) == 2
    assert SETUP[1].endswith(".venv/bin/pytest")
    assert "<!-- command: test -->\n```bash\n" + SETUP[1] in README
    assert "'^<!-- command: test -->$' README.md" in (ROOT / ".ci/run").read_text()


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links if not link.startswith("http")), links


def test_the_table_of_recipes_and_environments_is_whole():
    for name in [*recipes.names(), *registry.list_ids()]:
        assert re.search(rf"\b{name}\b", README), name
