"""Greedy evaluation: exactly one whole episode in every lane, so that short episodes are not counted more often."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.types import NO_LIMIT, Agent, PyTree
from jaxrl.vector import params_axes


class Evaluation(NamedTuple):
    """What each episode was."""

    returns: Array  # [episodes] float32, undiscounted
    lengths: Array  # [episodes] int32
    ended: Array  # [episodes] bool: false where only max_steps stopped it


def evaluate(
    env: Any,
    params: PyTree,
    agent: Agent,
    state: PyTree,
    key: Array,
    episodes: int,
    max_steps: ArrayLike | None = None,
) -> Evaluation:
    """Plays `episodes` episodes at once with the greedy policy of agent state `state`.

    A leaf of `params` with one more axis than its default has a value for each episode. `max_steps` defaults to the
    environment's own `params.max_steps_in_episode`. Raises ValueError for episodes or steps below 1, and where neither
    gives a limit. Pure: jit it, vmap it over agent states and keys.
    """
    checks.at_least("episodes", episodes, 1)
    limit: Any = getattr(params, "max_steps_in_episode", None) if max_steps is None else max_steps
    known = limit is not None and not isinstance(limit, Tracer) and jnp.ndim(limit) == 0
    if limit is None or (known and int(limit) >= NO_LIMIT):
        raise ValueError(f"{env.name} has no step limit, so an episode may never end; give max_steps")
    if known:
        checks.at_least("max_steps", int(limit), 1)
    axes = params_axes(env, params, episodes)

    def play(lane):
        env_state, obs, carry, key, result, steps = lane
        key, act_key, env_key = jax.random.split(key, 3)
        act = jax.vmap(lambda c, o, k: agent.act(state, c, o, k, 0.0, greedy=True))
        action, carry = act(carry, obs, jax.random.split(act_key, episodes))
        obs, env_state, reward, terminated, _ = jax.vmap(env.step_env, (0, 0, 0, axes))(
            jax.random.split(env_key, episodes), env_state, action, params
        )
        truncated = jax.vmap(env.is_truncated, (0, axes))(env_state, params)
        returns = result.returns + jnp.where(result.ended, 0.0, reward).astype(jnp.float32)
        lengths = result.lengths + jnp.where(result.ended, 0, 1)
        result = Evaluation(returns, lengths, result.ended | terminated | truncated)
        return env_state, obs, carry, key, result, steps + 1

    def running(lane):
        return (lane[-1] < jnp.max(jnp.asarray(limit))) & ~jnp.all(lane[-2].ended)

    key, reset_key = jax.random.split(key)
    obs, env_state = jax.vmap(env.reset_env, (0, axes))(jax.random.split(reset_key, episodes), params)
    none = Evaluation(jnp.zeros(episodes, jnp.float32), jnp.zeros(episodes, jnp.int32), jnp.zeros(episodes, bool))
    lane = (env_state, obs, agent.carry(episodes), key, none, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(running, play, lane)[-2]
