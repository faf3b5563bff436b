"""`jaxrl show RUN`: the table that a run learned, on its environment's map."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxrl.runs.commands import start_jax
from jaxrl.runs.errors import configuration
from jaxrl.runs.log import say

HELP = """\
usage: jaxrl show RUN [flags]

  jaxrl show runs/q_learning-FrozenLake-v1-seed0                       values and best actions, in the terminal
  jaxrl show runs/q_learning-FrozenLake-v1-seed0 --picture lake.png    the same and every action's value, drawn

  jaxrl show RUN --help    shows every flag
"""


@dataclass(frozen=True)
class ShowOptions:
    """Which table is shown, and where."""

    seed_index: int = 0
    """which of the seeds of a run that trained several, 0 for the first"""
    picture: str | None = None
    """draw the table into this PNG instead"""
    force: bool = False
    """replace a file that is already at --picture"""
    no_cache: bool = False
    """compile afresh, and keep no compiled programs on disk"""


def show(args: list[str]) -> int:
    """`jaxrl show RUN [flags]`."""
    words = [word for word in args[:1] if not word.startswith("-")]
    if not words and {"-h", "--help"} & set(args):
        say(HELP, end="")
        return 0
    from jaxrl import memory
    from jaxrl.runs import flags, letters, pictures, record, tables, views
    from jaxrl.runs.screen import encodes

    with configuration():
        if not words:
            raise ValueError("RUN comes first, as in jaxrl show runs/q_learning-FrozenLake-v1-seed0")
        run = words[0]
        asked = flags.parse(ShowOptions(), args[1:], f"jaxrl show {run}", "Show the table that a run learned.")
        picture = None if asked.picture is None else Path(asked.picture)
        if picture is not None:
            pictures.check("picture", picture, ".png", asked.force)
        start_jax(not asked.no_cache)
        plan, state = record.load(Path(run))
        table = record.table(plan, state, asked.seed_index)
        if table is None:
            raise ValueError(f"{run} was trained by {plan.recipe}, which learns no table; use jaxrl watch {run}")
    title, chosen = record.title(plan, asked.seed_index), plan.chosen
    if picture is not None:
        tables.table_picture(picture, table, chosen.env, chosen.params, title, asked.force)
        say(f"wrote {picture}: {memory.size(picture.stat().st_size)}")
        return 0
    seen = np.count_nonzero(table.visits)
    say(f"{title}: {seen} of {table.q.size} entries were learned from, {table.visits.sum()} times")
    view = views.view(table, chosen.env, chosen.params)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    letters.write(letters.listed(table) if view is None else letters.drawn(view, width, encodes("←↗")))
    return 0
