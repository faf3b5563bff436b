"""UmbrellaChain-bsuite: only the first action counts, at the end. Osband et al. (2020), bsuite's `umbrella_chain.py`.

As in bsuite there is no time limit. The observation is flat, as in gymnax: bsuite's without its leading axis of 1.
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
from jaxrl.envs.api import NO_LIMIT, PureEnvironment


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`n_distractor` is static: it fixes shapes."""

    chain_length: int = 10
    n_distractor: int = dataclasses.field(default=0, metadata={"static": True})  # 20 in bsuite's experiments
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """The weather, the umbrella, and what distracts."""

    need: Array  # int32 [], 0 or 1
    has: Array  # int32 [], 0 or 1
    noise: Array  # uint32 [(n_distractor + 33) // 32]: from bit 2 on a bit a distractor
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """Whether an umbrella is needed and had, by fair coins."""
    coins = _coins(key, params)
    need, has = coins[0] & 1, coins[0] >> 1 & 1
    return State(need.astype(jnp.int32), has.astype(jnp.int32), coins, time=jnp.zeros((), jnp.int32))


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """The first action takes the umbrella or leaves it; -1 or 1 by a fair coin, at the end by whether it was right."""
    coins = _coins(key, params)
    has = jnp.where(state.time == 0, jnp.asarray(action, jnp.int32), state.has)
    last = state.time + 1 == params.chain_length
    good = jnp.where(last, has == state.need, coins[0] & 1 == 1)
    return State(state.need, has, coins, state.time), jnp.where(good, 1.0, -1.0).astype(jnp.float32), last


def observe(state: State, params: Params) -> Array:
    """float32 [3 + n_distractor]: need, have, the share of time left, distractors."""
    left = (params.chain_length - state.time).astype(jnp.float32) / params.chain_length
    known = [part.astype(jnp.float32)[None] for part in (state.need, state.has, left)]
    bits = state.noise[:, None] >> np.arange(32, dtype=np.uint32)[None] & 1
    return jnp.concatenate([*known, bits.ravel()[2 : 2 + params.n_distractor].astype(jnp.float32)])


def observation_space(params: Params) -> spaces.Box:
    """Need, have, time left, distractors."""
    return spaces.Box(0.0, 1.0, (3 + params.n_distractor,))


def action_space(params: Params) -> spaces.Discrete:
    """0 leaves the umbrella, 1 takes it."""
    del params
    return spaces.Discrete(2)


def frame(state: State, params: Params) -> np.ndarray:
    """The chain below; above it rain or sun, then the umbrella where there is one."""
    width = max(int(params.chain_length) + 1, 2)
    weather = ("S", "R")[int(state.need)] + (".", "U")[int(state.has)]
    letters = [weather.ljust(width), ("." * int(params.chain_length) + "E").ljust(width)]
    palette = {"S": raster.YELLOW, "R": raster.BLUE, "U": raster.PURPLE, "E": raster.GREEN}
    return raster.board(letters, {**palette, ".": raster.GREY, " ": raster.WHITE}, (1, int(state.time)))


def check(params: Params) -> None:
    """Raises ValueError where a concrete value is out of range."""
    checks.at_least("n_distractor", params.n_distractor, 0)
    for name in ("chain_length", "max_steps_in_episode"):
        if checks.is_number(getattr(params, name)):
            checks.at_least(name, getattr(params, name), 1)


def umbrella_chain() -> PureEnvironment:
    """The environment; every setting is a field of `Params`."""
    return PureEnvironment(
        "UmbrellaChain-bsuite",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        frame_fn=frame,
        check_fn=check,
    )


def _coins(key: Array, params: Params) -> Array:
    """Fair bits, two and one for each distractor, packed as `State.noise`."""
    return jax.random.bits(key, ((params.n_distractor + 33) // 32,), jnp.uint32)
