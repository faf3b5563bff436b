"""What contestants share, each in an interpreter of its own: the clock, the course, one JSON line a seed."""

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = 2_048  # environment steps between evaluations
EPISODES = 128  # whole greedy ones in an evaluation
THRESHOLD = 475.0


class Race:
    """One seed: its clock stands still while it is evaluated. Solved is the first of two good scores in a row."""

    def __init__(self, seed: int) -> None:
        self.seed, self.seconds, self.began = seed, 0.0, time.perf_counter()
        self.scores: list[float] = []
        self.times: list[float] = []
        self.steps: list[int] = []

    def mark(self, steps: int, score: Callable[..., Any], *args: Any) -> None:
        """Has `score(*args)` after `steps` environment steps. Every program started before must have ended."""
        self.seconds += time.perf_counter() - self.began
        self.scores.append(float(score(*args)))
        self.times.append(self.seconds)
        self.steps.append(steps)
        self.began = time.perf_counter()

    @property
    def solved(self) -> int | None:
        """The mark at which it was."""
        pairs = zip(self.scores, self.scores[1:])
        return next((i for i, pair in enumerate(pairs) if min(pair) >= THRESHOLD), None)

    def result(self) -> dict:
        at = self.solved
        return {
            "seed": self.seed,
            "solved_s": None if at is None else self.times[at],
            "solved_steps": None if at is None else self.steps[at],
            "steps": self.steps[-1],
            "seconds": self.seconds,
            "last_score": self.scores[-1],
        }


def serve(about: dict, run: Callable[[int], dict]) -> None:
    """Says what it is, then answers every seed that it reads."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(int(line))), flush=True)


def compiled(seconds: list[float], function, *args, finish=lambda lowered: lowered.compile(), **options):
    """A jitted function compiled for these arguments, by `finish`; `seconds` gets how long it took."""
    import jax

    gc.freeze()  # everyone's imports are looked through for garbage no more
    began = time.perf_counter()
    program = finish(jax.jit(function, **options).lower(*args))
    seconds.append(time.perf_counter() - began)
    return program
