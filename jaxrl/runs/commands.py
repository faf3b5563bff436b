"""What each command does. What is slow to import and not of the package itself, only its own command imports."""

import os
from dataclasses import dataclass, fields
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from jaxrl import memory
from jaxrl.runs.errors import configuration
from jaxrl.runs.log import say, si

TRAIN_HELP = """\
usage: jaxrl train RECIPE [ENV] [flags]

  jaxrl list                           shows the recipes and environments; some recipes bring theirs
  jaxrl train dqn CartPole-v1 --help   shows every flag of dqn on CartPole-v1 with its default
"""


WATCH_HELP = """\
usage: jaxrl watch ENV|RUN [flags]

  jaxrl watch CartPole-v1                     random episodes of an environment
  jaxrl watch runs/dqn-CartPole-v1-seed0      greedy episodes of what a run learned, in its environment

  jaxrl watch CartPole-v1 --help              shows every flag, and every setting of the environment
"""


@dataclass(frozen=True)
class WatchOptions:
    """What is played, and how it is shown."""

    episodes: int = 1
    """how many, one after the other, of seeds SEED, SEED+1, ..."""
    seed: int = 0
    """of the first episode, 0..4294967295; a run's is the one that jaxrl eval plays with --episodes 1"""
    max_steps: int = 0
    """cut an episode after so many steps; 0: it goes on to its end"""
    fps: float = 15.0
    """pictures a second; 0: as fast as it goes"""
    columns: int = 0
    """width of a picture in characters; 0: as the terminal has room"""
    text: bool = False
    """the environment's own text, or its picture in plain characters; also where NO_COLOR is set"""
    gif: str | None = None
    """write the episodes to this animated GIF instead of showing them"""
    force: bool = False
    """replace a file that is already at --gif"""
    no_cache: bool = False
    """compile afresh, and keep no compiled programs on disk"""


@dataclass(frozen=True)
class TrainedOptions:
    """Who plays."""

    seed_index: int = 0
    """which of the seeds of a run that trained several, 0 for the first"""


@dataclass(frozen=True)
class ListOptions:
    """What is listed."""

    pictures: str | None = None
    """draw every environment into this PNG instead"""
    force: bool = False
    """replace a file that is already at --pictures"""
    no_cache: bool = False
    """compile afresh, and keep no compiled programs on disk"""


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
    """`jaxrl train RECIPE [ENV] [flags]`."""
    words = list(takewhile(lambda word: not word.startswith("-"), args[:2]))
    if not words and {"-h", "--help"} & set(args):
        say(TRAIN_HELP, end="")
        return 0
    from jaxrl import recipes
    from jaxrl.envs import registry
    from jaxrl.runs import directory, flags, log, record, signals
    from jaxrl.runs.config import RunOptions, check_seeds
    from jaxrl.runs.plan import choose, prepare

    with configuration():
        if not words:
            raise ValueError("RECIPE and ENV come first, as in jaxrl train dqn CartPole-v1; jaxrl list shows them")
        recipe, home = words[0], recipes.home(words[0])
        if len(words) < 2 and home is None:
            if {"-h", "--help"} & set(args):
                say(TRAIN_HELP, end="")
                return 0
            raise ValueError(f"give an environment, as in jaxrl train {recipe} CartPole-v1; jaxrl list shows them")
        env_id, own = (words[1], {}) if len(words) > 1 or home is None else home
        signature = {name: (kind, own.get(name, value)) for name, (kind, value) in registry.signature(env_id).items()}
        default = flags.together(
            config=(recipes.default(recipe, env_id), flags.group()),
            run=(RunOptions(), flags.group(values=False)),
            env=(flags.environment(signature), flags.group("env")),
        )
        given = args[len(words) :]
        asked = flags.parse(default, given, f"jaxrl train {' '.join(words)}", f"Train {recipe} on {env_id}.")
        options: RunOptions = asked.run
        check_seeds(options.seed, options.seeds)
        changed = {**own, **_changed(asked.env, default.env)}
        out = None if options.out is None else Path(options.out)
        if out is not None:
            directory.check(out, options.force)
        start_jax(not options.no_cache)
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
    if stopped:
        return 128 + stopped
    return 1 if "diverged" in trained.summary else 0


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
        start_jax(not asked.no_cache)
        plan, state = record.load(Path(folders[0]))
        check_seeds(asked.seed, plan.seeds)
        plan.check_episodes("episodes", asked.episodes)
    played = plan.evaluation(asked.episodes)(state, plan.evaluation_keys(asked.seed))
    say(_evaluation(host.summarize(jax.device_get(played))))
    return 0


def watch(args: list[str]) -> int:
    """`jaxrl watch ENV|RUN [flags]`."""
    words = [word for word in args[:1] if not word.startswith("-")]
    if not words and {"-h", "--help"} & set(args):
        say(WATCH_HELP, end="")
        return 0
    from jaxrl import checks
    from jaxrl.envs import registry
    from jaxrl.runs import flags, pictures, record
    from jaxrl.runs import watch as watching
    from jaxrl.runs.config import check_seeds
    from jaxrl.runs.plan import choose, keys
    from jaxrl.runs.screen import Screen

    with configuration():
        if not words:
            raise ValueError("ENV or RUN comes first, as in jaxrl watch CartPole-v1; jaxrl list shows environments")
        what = words[0]
        is_env = what in registry.list_ids() or what.startswith("gymnax:") or not ("/" in what or Path(what).exists())
        who: dict[str, tuple[Any, Any]] = (
            {"env": (flags.environment(registry.signature(what)), flags.group("env"))}
            if is_env
            else {"run": (TrainedOptions(), flags.group())}
        )
        default = flags.together(watch=(WatchOptions(), flags.group(values=False)), **who)
        asked = flags.parse(default, args[1:], f"jaxrl watch {what}", f"Look at episodes of {what}.")
        options: WatchOptions = asked.watch
        for name, low in (("episodes", 1), ("max_steps", 0), ("columns", 0)):
            checks.at_least(name, getattr(options, name), low)
        checks.in_range("fps", options.fps, 0, float("inf"))
        check_seeds(options.seed)
        check_seeds(options.seed, options.episodes)
        gif = None if options.gif is None else Path(options.gif)
        if gif is not None:
            pictures.check("gif", gif, ".gif", options.force)
        start_jax(not options.no_cache)
        if is_env:
            chosen = choose(what, _changed(asked.env, default.env))
            policy, key_of = watching.at_random(chosen), partial(keys, seeds=1)
        else:
            plan, state = record.load(Path(what))
            check_seeds(options.seed + options.episodes - 1, plan.seeds)
            policy, key_of = watching.trained(plan, state, asked.run.seed_index)
            chosen = plan.chosen
        play, screen = watching.player(chosen, policy), Screen()
        paint = watching.painter(chosen, options.text, options.columns, screen)
        first = next(play(key_of(options.seed), 0))
        paint(first.state) if gif is None else watching.picture(chosen, first.state)  # what has no picture is refused

    seeds = range(options.seed, options.seed + options.episodes)
    moments = watching.episodes(play, key_of, seeds, options.max_steps)
    if gif is None:
        watching.show(moments, options.episodes, paint, screen, options.fps)
        return 0
    frames = []
    for name, moment in moments:
        frames.append(watching.picture(chosen, moment.state))
        if moment.end:
            say(watching.ending(name, moment))
    say(f"wrote {gif}: {len(frames)} pictures, {memory.size(pictures.animation(gif, frames, options.fps))}")
    return 0


def show(args: list[str]) -> int:
    """`jaxrl list [flags]`."""
    from jaxrl import recipes
    from jaxrl.envs import registry
    from jaxrl.runs import flags

    with configuration():
        asked = flags.parse(ListOptions(), args, "jaxrl list", "List the recipes and environments.")
    if asked.pictures is not None:
        return _sheet(asked)
    say("recipes")
    for name in recipes.names():
        home = recipes.home(name)
        say(f"  {name:<34}{recipes.about(name)}{f' ({home.env})' if home else ''}")
    say("environments, the settings of which are shown by jaxrl watch ENV --help")
    for env_id in registry.list_ids():
        say(f"  {env_id:<34}{_about(env_id)}")
    say(f"  {'gymnax:ID':<34}any environment of gymnax, such as gymnax:Catch-bsuite")
    return 0


def _sheet(options: ListOptions) -> int:
    from jaxrl.envs import registry
    from jaxrl.runs import pictures

    path, env_ids = Path(options.pictures or ""), registry.list_ids()
    with configuration():
        pictures.check("pictures", path, ".png", options.force)
        start_jax(not options.no_cache)
    say(f"wrote {path}: {len(env_ids)} pictures, {memory.size(pictures.sheet(path, env_ids))}")
    return 0


def _about(env_id: str) -> str:
    """A sentence of the docstring of an environment's factory; of its module, where that alone tells what it is."""
    import inspect
    import re

    from jaxrl.envs import registry

    factory = registry.find(env_id)
    text, module = factory.__doc__ or "", inspect.getmodule(factory)
    if module is not None and module.__name__.startswith("jaxrl.envs.") and not text.startswith(f"{env_id}:"):
        text = module.__doc__ or ""
    line = (text.strip().splitlines() or [""])[0]
    name, _, told = line.partition(": ")
    return re.split(r", as gymnasium|\. |\.$", told if told and (env_id in name or " " not in name) else line)[0]


def _changed(asked: Any, default: Any) -> dict[str, Any]:
    names = [field.name for field in fields(default)]
    return {name: getattr(asked, name) for name in names if getattr(asked, name) != getattr(default, name)}


def start_jax(cache: bool) -> None:
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
