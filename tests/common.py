"""What several tests need: small environments whose answers are known, and a reader of compiled programs."""

import os
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrl import spaces
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.types import Masked


class Params(NamedTuple):
    max_steps_in_episode: int = 5


class State(NamedTuple):
    place: Array  # [] int32
    time: Array  # [] int32


def masked_env() -> PureEnvironment:
    """Four places in a ring and three actions, of which `place % 3` alone pays and `(place + 1) % 3` is forbidden.

    Taking the forbidden action pays a million, so that an agent which ignores the mask gives itself away.
    """

    def observe(state: State, params: Params) -> Masked:
        return Masked(state.place, jnp.arange(3) != (state.place + 1) % 3)

    def step(key, state: State, action, params: Params):
        reward = jnp.where(action == state.place % 3, 1.0, 0.0)
        reward = jnp.where(action == (state.place + 1) % 3, 1e6, reward)
        return State((state.place + 1) % 4, state.time), reward, jnp.zeros((), bool)

    return PureEnvironment(
        "Masked-v0",
        Params(),
        reset_fn=lambda key, params: State(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=lambda params: spaces.Discrete(4),
        action_space_fn=lambda params: spaces.Discrete(3),
        splits_fn=never,
    )


# for a program that runs longer than it compiles
OPTIMIZED = {"xla_backend_optimization_level": 3}


def as_usual() -> dict[str, bool | int]:
    """Options that undo what `conftest.py` asks of the compiler, where a test is about the program that users get."""
    flags = os.environ.get("XLA_FLAGS", "")
    usual: dict[str, bool | int] = {}
    if "--xla_cpu_use_fusion_emitters=false" in flags:
        usual["xla_cpu_use_fusion_emitters"] = True
    if "--xla_backend_optimization_level=0" in flags:
        usual |= OPTIMIZED
    return usual


def compiled(function, *arguments) -> Any:
    """The usual program of a jitted function."""
    return function.lower(*arguments).compile(compiler_options=as_usual())


def copies_of(text: str, shape: tuple[int, ...]) -> list[str]:
    """The instructions of a compiled program that copy a whole array of `shape`."""
    dims = ",".join(map(str, shape))
    return re.findall(rf"^.*= *\w+\[{dims}\]\S* copy(?:-start)?\(.*$", text, flags=re.MULTILINE)
