"""The command line: `jaxrl watch ENV`, `jaxrl train RECIPE [ENV]`, `jaxrl eval RUN`, `jaxrl show RUN`, `jaxrl list`."""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from jaxrl import checks
from jaxrl.runs import commands, show
from jaxrl.runs.errors import CheckpointError, UsageError, WriteError, configuration
from jaxrl.runs.log import say

COMMANDS = {
    "watch": commands.watch,
    "train": commands.train,
    "eval": commands.evaluate,
    "show": show.show,
    "list": commands.show,
}
USAGE, INTERNAL, WRITE = 2, 70, 74  # exit codes; a signal gives 128 + its number

HELP = """\
usage: jaxrl COMMAND ...

Q-learning in one jitted, vectorised program.

  jaxrl train RECIPE [ENV] [flags]   train, evaluate, and leave a run directory
  jaxrl eval RUN [flags]             play whole greedy episodes with what a run learned
  jaxrl watch ENV|RUN [flags]        look at random episodes of an environment, or at greedy ones of a run
  jaxrl show RUN [flags]             look at the table that a run learned
  jaxrl list [flags]                 recipes and environments

  jaxrl train RECIPE [ENV] --help    every setting of that recipe and environment, with its default
  jaxrl --version

for example: jaxrl train dqn CartPole-v1 --seed 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a mistake in the input is one line on standard error."""
    args = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        gc.freeze()  # what was imported stays to the end: to look through it for garbage takes a tenth of a short run
    try:
        try:
            code = _main(args)
        except SystemExit as stop:  # tyro has printed the help that was asked for
            code = int(stop.code or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + signal.SIGINT
    except (UsageError, CheckpointError, WriteError) as error:
        _complain(" ".join(str(error).split()))
        return WRITE if isinstance(error, WriteError) else USAGE
    except Exception as error:
        traceback.print_exc()
        _complain(f"internal error, {type(error).__name__}: please report it with the lines above")
        return INTERNAL


def _main(args: list[str]) -> int:
    if not args:
        _complain("give a command: watch, train, eval, show or list; jaxrl --help shows them")
        return USAGE
    if args[0] in ("-h", "--help", "help"):
        say(HELP, end="")
        return 0
    if args[0] == "--version":
        from importlib.metadata import version

        say(f"jaxrl {version('jaxrl')}")
        return 0
    with configuration():
        checks.one_of("command", args[0], COMMANDS)
    return COMMANDS[args[0]](args[1:])


def _complain(text: str) -> None:
    print(f"jaxrl: {text}", file=sys.stderr)
