"""A run on disk: written while it trains, read back to evaluate it."""

import dataclasses
import json
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl import memory, recipes
from jaxrl.qtable import QTable
from jaxrl.runs import checkpoint, directory, host, log, plot, tables
from jaxrl.runs import config as configs
from jaxrl.runs.errors import CheckpointError, writing
from jaxrl.runs.plan import Chosen, Plan, choose, prepare
from jaxrl.types import PyTree

FORMAT = 1


class Loaded(NamedTuple):
    """A run read back."""

    plan: Plan
    state: PyTree  # the agent's; [seeds, ...] for several seeds


def run(
    plan: Plan,
    reporter: log.Reporter,
    out: Path | None,
    stop: Callable[[], bool] = lambda: False,
    callback: host.Callback | None = None,
) -> host.Trained:
    """Trains, and with `out`, a directory that `directory.create` made, leaves the run there.

    What was learned is there before it is evaluated, and where training ends with an error. Raises WriteError.
    """
    reporter.line(headline(plan))
    if out is None:
        return host.train(plan, reporter, stop=stop, callback=callback)
    reporter.line(f"writing to {out}")
    settings = describe(plan)

    def on_row(row: dict[str, Any]) -> None:
        with writing(out / directory.METRICS):
            log.append_json(out / directory.METRICS, row)

    def on_learned(agent: PyTree) -> None:
        with writing(out):
            checkpoint.save(out, agent, also=(directory.CONFIG,))

    with directory.hold(out):
        try:
            with writing(out):
                directory.write_json(out / directory.CONFIG, settings)
            trained = host.train(plan, reporter, on_row, stop, callback, on_learned)
        except (KeyboardInterrupt, OSError):
            directory.discard(out)
            raise
        with writing(out):
            directory.write_json(out / directory.SUMMARY, trained.summary)
            named = f"{plan.recipe} on {plan.env_name}, {_seeds(plan)}"
            plot.curve(out / directory.CURVE, trained.rows, named, trained.summary["eval"])
            learned = table(plan, trained.agent)
            if learned is not None:
                chosen = plan.chosen
                tables.table_picture(out / directory.TABLE, learned, chosen.env, chosen.params, title(plan), force=True)
    return trained


def table(plan: Plan, state: PyTree, seed_index: int = 0) -> QTable | None:
    """The table that one of the seeds learned, None of a network. Raises ValueError for a seed that is not there."""
    if not 0 <= seed_index < plan.seeds:
        raise ValueError(f"seed_index is {seed_index}; the run has {plan.seeds} seeds: use 0..{plan.seeds - 1}")
    if not hasattr(state, "visits"):
        return None
    return QTable.of(state, seed=None if plan.seeds == 1 else seed_index)


def title(plan: Plan, seed_index: int = 0) -> str:
    """One of a run's seeds in words."""
    return f"{plan.recipe} on {plan.env_name}, seed {plan.seed + seed_index}"


def load(folder: Path, env: Any = None, params: PyTree = None, network: Any = None) -> Loaded:
    """The plan and agent state of a run that has ended.

    `env` and `network` are needed where the run was trained on objects of one's own. Raises ValueError where
    `folder` holds no run or another environment's, CheckpointError where a file is damaged.
    """
    settings = read_config(folder)
    checkpoint.verify(folder)
    plan = _rebuild(folder, settings, env, params, network)
    _same_environment(folder, settings["env"], describe_env(plan.chosen))
    return Loaded(plan, checkpoint.load(folder, plan.shapes.agent))


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json. Raises ValueError where there is none, CheckpointError where it is damaged."""
    path = folder / directory.CONFIG
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} {what}; give the directory of a run, such as runs/dqn-CartPole-v1-seed0")
    if not path.is_file():
        raise ValueError(f"{folder} is no run: it has no {directory.CONFIG}; give a directory that jaxrl train wrote")
    try:
        settings = json.loads(path.read_bytes())
        version = settings["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or was not written by jaxrl ({error!r}); restore a copy") from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version!r}, this jaxrl reads {FORMAT}: use the jaxrl that wrote it")
    return settings


def describe(plan: Plan) -> dict[str, Any]:
    """config.json: everything that a run was, resolved."""
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "recipe": plan.recipe,
        "env": describe_env(plan.chosen),
        "config": dataclasses.asdict(plan.config),
        "seed": plan.seed,
        "seeds": plan.seeds,
        "custom_network": plan.custom_network,
        "loop": {**dataclasses.asdict(plan.setup.loop), "iterations": plan.setup.iterations},
        "parameters": plan.parameters,
        "replay_bytes": plan.replay_bytes,
        "versions": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "x64": jax.config.read("jax_enable_x64"),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def describe_env(chosen: Chosen) -> dict[str, Any]:
    """An environment as far as text can tell it from another."""
    params = chosen.params
    if dataclasses.is_dataclass(params):
        fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    else:
        fields = params._asdict() if hasattr(params, "_asdict") else {}
    return {
        "id": chosen.id,
        "name": chosen.env.name,
        "overrides": chosen.overrides,
        "params": {name: repr(value) for name, value in fields.items()},
        "observation_space": repr(chosen.env.observation_space(params)),
        "action_space": repr(chosen.env.action_space(params)),
    }


def versions() -> dict[str, str]:
    """Of jaxrl and what its numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("jaxrl", "jax", "jaxlib", "flax", "optax", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def headline(plan: Plan) -> str:
    """A run in one line, before it starts."""
    device = jax.devices()[0]
    replay = plan.replay_bytes
    return (
        f"{plan.recipe} on {plan.env_name}, {_seeds(plan)}, {plan.config.steps} steps, "
        f"{device.platform} ({device.device_kind}): {plan.parameters} parameters, "
        f"replay memory of {_transitions(plan)}, {replay} bytes ({memory.size(replay)})"
    )


def _transitions(plan: Plan) -> str:
    held, asked = plan.setup.buffer.capacity, getattr(getattr(plan.config, "replay", None), "capacity", None)
    rounded = f" ({asked} rounded up to whole steps of {plan.config.num_envs} environments)"
    return f"{held} transitions{'' if asked in (None, held) else rounded}"


def _seeds(plan: Plan) -> str:
    return f"seed {plan.seed}" if plan.seeds == 1 else f"seeds {plan.seed}..{plan.seed + plan.seeds - 1}"


def _rebuild(folder: Path, settings: dict[str, Any], env: Any, params: PyTree, network: Any) -> Plan:
    stored = settings["env"]
    if env is None and stored["id"] is None:
        raise ValueError(
            f"{folder} was trained on an environment object, {stored['name']}; load it with env=(env, params)"
        )
    if network is None and settings["custom_network"]:
        raise ValueError(f"{folder} was trained with a network of your own; load it with network=")
    if env is None:
        chosen = choose(stored["id"], stored["overrides"])
    else:
        chosen = choose(env, None, params)
    config = configs.override(recipes.default(settings["recipe"], stored["id"] or ""), settings["config"])
    return prepare(settings["recipe"], chosen, config, settings["seed"], settings["seeds"], network)


def _same_environment(folder: Path, stored: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises ValueError naming the first thing in which the environment is not the one that the run saw."""
    before = {
        "name": stored["name"],
        **stored["params"],
        **{k: stored[k] for k in ("observation_space", "action_space")},
    }
    now = {
        "name": found["name"],
        **found["params"],
        **{k: found[k] for k in ("observation_space", "action_space")},
    }
    for name, value in before.items():
        if name in now and now[name] != value:
            raise ValueError(
                f"{folder} was written by another environment: {name} was {value}, now it is {now[name]}; "
                "load it with the environment that it was trained on"
            )
