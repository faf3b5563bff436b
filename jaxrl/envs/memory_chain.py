"""MemoryChain-bsuite: say at the end what was seen at the start. Osband et al. (2020), bsuite's `memory_chain.py`.

As in bsuite an observation is the one before the step: the context is seen at the reset and after the first step,
the query after step `memory_length`, and step `memory_length` + 1, which answers it, ends the episode. As there no
time limit is set. The observation is flat, as in gymnax: bsuite's without its leading axis of 1.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, spaces
from jaxrl.envs import raster
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`num_bits` is static: it fixes shapes."""

    memory_length: int = 5
    num_bits: int = dataclasses.field(default=1, metadata={"static": True})  # of context, one of which is asked for
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """What is to be remembered."""

    context: Array  # int32 [num_bits], 0 or 1
    query: Array  # int32 [], the bit asked for
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """Fair context bits, and any of them as the query."""
    bits = jax.random.bits(key, (params.num_bits + 1,), jnp.uint32)
    context, query = bits[:-1] >> 31, bits[-1] % np.uint32(params.num_bits)  # the remainder's bias is below 2**-20
    return State(context.astype(jnp.int32), query.astype(jnp.int32), time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """The clock moves on; the last action is worth 1 where it is the bit asked for, else -1."""
    del key
    asked = np.arange(params.num_bits) == state.query
    right = jnp.asarray(action, jnp.int32) == jnp.sum(jnp.where(asked, state.context, 0))
    last = state.time == params.memory_length
    reward = jnp.where(last, jnp.where(right, 1.0, -1.0), 0.0)
    return state, reward.astype(jnp.float32), last


def observe(state: State, params: Params) -> Array:
    """float32 [2 + num_bits]: the share of time left, the query at the end, the context, -1 or 1, at the start."""
    time = jnp.maximum(state.time - 1, 0)
    left = (params.memory_length - time).astype(jnp.float32) / params.memory_length
    query = jnp.where(time == params.memory_length - 1, state.query, 0)
    context = jnp.where(time == 0, 2 * state.context - 1, 0)
    parts = [left[None], query[None], context]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


def observation_space(params: Params) -> spaces.Box:
    """Time left, query, context."""
    low = [0.0, 0.0, *[-1.0] * params.num_bits]
    return spaces.Box(low, [1.0, params.num_bits - 1.0, *[1.0] * params.num_bits])


def action_space(params: Params) -> spaces.Discrete:
    """The bit remembered."""
    del params
    return spaces.Discrete(2)


def frame(state: State, params: Params) -> np.ndarray:
    """The clock above, the context below, 0 in blue and 1 in green, the bit asked for marked."""
    width = max(int(params.memory_length) + 2, params.num_bits)
    clock = "." * (int(params.memory_length) + 1) + "E"
    context = "".join(map(str, np.asarray(state.context)))
    letters = [clock.ljust(width), context.ljust(width)]
    palette = {".": raster.GREY, "E": raster.YELLOW, "0": raster.BLUE, "1": raster.GREEN, " ": raster.WHITE}
    picture = raster.board(letters, palette, (0, int(state.time)))
    asked = raster.board(letters, palette, (1, int(state.query)), color=raster.BLACK)
    half = len(picture) // 2
    return np.concatenate([picture[:half], asked[half:]])


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("num_bits", params.num_bits, 1)
    for name in ("memory_length", "max_steps_in_episode"):
        if checks.is_number(getattr(params, name)):
            checks.at_least(name, getattr(params, name), 1)


def memory_chain() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "MemoryChain-bsuite",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        frame_fn=frame,
        check_fn=check,
        splits_fn=never,  # only a reset draws
    )
