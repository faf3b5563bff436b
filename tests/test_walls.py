"""The walls between the rooms: who may import whom. The table is CONTRIBUTING.md's; to open a wall, change both."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxrl"
MATHEMATICS = {"types", "checks"}
ALL = {"*"}
SHELLS = {"agents.value", "agents.recurrent", "agents.tabular"}

# room -> rooms it may import from jaxrl
WALLS = {
    "types": set(),
    "prng": set(),
    "checks": set(),
    "xla": {"types"},
    "memory": {"types"},
    "files": set(),
    "qtable": {"files"},
    "spaces": MATHEMATICS,
    "returns": MATHEMATICS,
    "explore": MATHEMATICS,
    "behaviour": MATHEMATICS | {"explore"},
    "nets": MATHEMATICS | {"nets"},
    "vector": MATHEMATICS,
    "train": MATHEMATICS | {"vector", "xla"},
    "evaluate": MATHEMATICS | {"vector"},
    "buffers": MATHEMATICS | {"buffers", "files", "memory"},
    "envs": MATHEMATICS | {"spaces", "envs"},
    "planning": MATHEMATICS | {"memory", "envs.api", "planning"},
    "agents": MATHEMATICS | {"xla", "memory", "returns", "explore", "behaviour"} | SHELLS,
    "recipes": ALL,  # but not runs
    "runs": ALL,
    "__init__": ALL,
    "__main__": {"runs"},
}
# third-party package -> the only modules that may import it
THIRD_PARTY = {
    "flax": {"nets"},
    "gymnax": {"envs.gymnax"},
    "gymnasium": {"spaces"},
    "matplotlib": {"runs.plot", "runs.tables"},
    "PIL": {"runs.pictures"},
    "tyro": {"runs"},
    "rich": {"runs"},
    "safetensors": {"runs.checkpoint"},
}


def imports(path: Path) -> list[str]:
    """The dotted modules that a file imports, `from jaxrl import x` as jaxrl.x."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            nested = node.module in (
                "jaxrl",
                "jaxrl.agents",
                "jaxrl.buffers",
                "jaxrl.envs",
                "jaxrl.planning",
                "jaxrl.runs",
            )
            found += [f"{node.module}.{alias.name}" for alias in node.names] if nested else [node.module or ""]
    return found


def violations(module: str, imported: list[str]) -> list[str]:
    """The edges of `module`, dotted without jaxrl, that the walls forbid."""
    room = module.split(".")[0]
    bad = []
    for name in imported:
        top, _, inner = name.partition(".")
        if top == "jaxrl" and not inner and WALLS[room] != ALL:
            bad.append(f"{module} -> jaxrl, the face")
        elif top == "jaxrl" and inner:
            allowed = WALLS[room]
            if allowed == ALL and not (room == "recipes" and inner.startswith("runs")):
                continue
            if not any(inner == a or inner.startswith(a + ".") for a in allowed):
                bad.append(f"{module} -> jaxrl.{inner}")
        elif top in THIRD_PARTY and not any(module == a or module.startswith(a + ".") for a in THIRD_PARTY[top]):
            bad.append(f"{module} -> {name}")
        elif top in ("pickle", "cloudpickle", "dill", "joblib"):
            bad.append(f"{module} -> {name}")
    return bad


FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_walls(path):
    assert not violations(dotted(path), imports(path))


def test_a_forbidden_edge_is_seen():
    assert violations("agents.dqn", ["jaxrl.train"]) == ["agents.dqn -> jaxrl.train"]
    assert violations("agents.dqn", ["jaxrl.agents.sarsa"]) == ["agents.dqn -> jaxrl.agents.sarsa"]
    assert violations("recipes", ["jaxrl.runs.cli"]) == ["recipes -> jaxrl.runs.cli"]
    assert violations("train", ["flax.linen"]) == ["train -> flax.linen"]
    assert violations("train", ["jaxrl"]) == ["train -> jaxrl, the face"]
    assert violations("runs.checkpoint", ["pickle"]) == ["runs.checkpoint -> pickle"]


def test_the_package_is_not_empty():
    assert len(FILES) > 15
