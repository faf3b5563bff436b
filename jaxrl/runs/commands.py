"""What each command does. Whatever is slow to import is imported by the command that needs it."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxrl.runs.errors import configuration
from jaxrl.runs.log import say, si

TRAIN_HELP = """\
usage: jaxrl train RECIPE ENV [flags]

  jaxrl list                           shows the recipes and environments
  jaxrl train dqn CartPole-v1 --help   shows every flag of dqn on CartPole-v1 with its default
"""


@dataclass(frozen=True)
class EvalOptions:
    """How a run is evaluated."""

    episodes: int = 100
    """whole greedy episodes, of each seed"""
    seed: int = 0
    """of the episodes, 0..4294967295"""
    no_cache: bool = False
    """compile afresh, and keep no compiled programs on disk"""


def train(args: list[str]) -> int:
    """`jaxrl train RECIPE ENV [flags]`."""
    words = [word for word in args[:2] if not word.startswith("-")]
    if len(words) < 2 and {"-h", "--help"} & set(args):
        say(TRAIN_HELP, end="")
        return 0
    from jaxrl import recipes
    from jaxrl.envs import registry
    from jaxrl.runs import directory, flags, log, record, signals
    from jaxrl.runs.config import RunOptions, check_seeds
    from jaxrl.runs.plan import choose, prepare

    with configuration():
        if len(words) < 2:
            raise ValueError("RECIPE and ENV come first, as in jaxrl train dqn CartPole-v1; jaxrl list shows them")
        recipe, env_id = words
        default = flags.together(
            config=(recipes.default(recipe, env_id), flags.group()),
            run=(RunOptions(), flags.group(values=False)),
            env=(flags.environment(registry.signature(env_id)), flags.group("env")),
        )
        asked = flags.parse(default, args[2:], f"jaxrl train {recipe} {env_id}", f"Train {recipe} on {env_id}.")
        options: RunOptions = asked.run
        check_seeds(options.seed, options.seeds)
        changed = _changed(asked.env, default.env)
        out = None if options.out is None else Path(options.out)
        if out is not None:
            directory.check(out, options.force)
        _start_jax(not options.no_cache)
        plan = prepare(recipe, choose(env_id, changed), asked.config, options.seed, options.seeds)
        if out is None:
            aside, out = None, directory.create_default(recipe, env_id, options.seed)
        else:
            aside = directory.create(out, options.force)

    reporter = log.reporter(options.quiet)
    with signals.heard() as heard:
        try:
            if aside is not None:
                reporter.line(f"moved the run that was in {out} to {aside}")
            trained = record.run(plan, reporter, out, stop=lambda: heard() is not None)
        finally:
            reporter.close()
        stopped = heard() if trained.summary.get("interrupted") else None
    say(_ending(trained.summary, out))
    return 128 + stopped if stopped else 0


def evaluate(args: list[str]) -> int:
    """`jaxrl eval RUN [flags]`."""
    from jaxrl.runs import flags

    with configuration():
        folders = [word for word in args[:1] if not word.startswith("-")]
        asked = flags.parse(
            EvalOptions(),
            args[len(folders) :],
            "jaxrl eval RUN",
            "Play greedy episodes with what a run learned.",
        )
        if not folders:
            raise ValueError("RUN comes first, as in jaxrl eval runs/dqn-CartPole-v1-seed0 --episodes 1000")
    import jax

    from jaxrl import checks
    from jaxrl.runs import host, record
    from jaxrl.runs.config import check_seeds

    with configuration():
        checks.at_least("episodes", asked.episodes, 1)
        check_seeds(asked.seed)
        _start_jax(not asked.no_cache)
        plan, state = record.load(Path(folders[0]))
        check_seeds(asked.seed, plan.seeds)
    played = plan.evaluation(asked.episodes)(state, plan.evaluation_keys(asked.seed))
    say(_evaluation(host.summarize(jax.device_get(played))))
    return 0


def show(args: list[str]) -> int:
    """`jaxrl list`."""
    from jaxrl import recipes
    from jaxrl.envs import registry

    with configuration():
        if args and args[0] not in ("-h", "--help"):
            raise ValueError(f"unexpected argument {args[0]!r}; jaxrl list takes none")
    say("recipes")
    for name in recipes.names():
        say(f"  {name:<18}{(type(recipes.default(name)).__doc__ or '').splitlines()[0]}")
    say("environments")
    for env_id in registry.list_ids():
        settings = ", ".join(f"{name}={value.default!r}" for name, value in registry.signature(env_id).items())
        say(f"  {env_id:<18}{settings if len(settings) < 200 else settings[:197] + '...'}")
    say(f"  {'gymnax:ID':<18}any environment of gymnax, such as gymnax:Catch-bsuite")
    return 0


def _changed(asked: Any, default: Any) -> dict[str, Any]:
    names = [field.name for field in fields(default)]
    return {name: getattr(asked, name) for name in names if getattr(asked, name) != getattr(default, name)}


def _start_jax(cache: bool) -> None:
    """Finds the device, and keeps compiled programs, small ones too, in the user's cache directory."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"jax has no device for JAX_PLATFORMS={wanted!r} ({error}); unset it or use cpu") from error
    if not cache:
        return
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined] # set at run time
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxrl"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _evaluation(found: dict[str, Any]) -> str:
    ended = (
        "all ended" if found["ended"] == 1.0 else f"{found['ended']:.1%} ended, the others were cut by the step limit"
    )
    seeds = ""
    if len(found["per_seed"]) > 1:
        seeds = " of each seed (" + ", ".join(f"{mean:.4g}" for mean in found["per_seed"]) + ")"
    return (
        f"greedy return {found['mean']:.4f}, std {found['std']:.4f}, {found['episodes']} episodes{seeds}, "
        f"mean length {found['length']:.1f}, {ended}"
    )


def _ending(summary: dict[str, Any], out: Path) -> str:
    what = (
        _evaluation(summary["eval"]) if summary["eval"] else f"stopped at {summary['env_steps']} steps, not evaluated"
    )
    speed = f"{summary['train_s']:.1f} s of training at {si(summary['steps_per_s'])} steps/s"
    return f"{what}; {speed}, {summary['compile_s']:.1f} s of compiling; saved in {out}"
