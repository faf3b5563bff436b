"""Wrappers: pure functions from an environment to an environment, which compose in any order that makes sense.

    from jaxrl.envs import wrappers

    env, params = jaxrl.make("CartPole-v1")
    env = wrappers.sticky_action(env, 0.1)
    env = wrappers.tile_coding(env, tilings=16, bins=4, bounds=((-2.4, -3, -0.21, -3.5), (2.4, 3, 0.21, 3.5)))
    env = wrappers.episode_statistics(env)
    agent = jaxrl.q_learning(wrappers.num_states(env), env.num_actions)

The innermost acts first on what the environment gives and last on an action. `params` stay the environment's own,
and every number in them may be traced or vmapped; spaces and bounds are those of `env.default_params`, so that
params with other static fields are given by `env.with_params(params)`, which wraps anew. Equal wrappers around
equal environments are equal: nothing is compiled twice. `info["final_observation"]` is wrapped like any other.
Where an observation is `Masked` its inside is wrapped and the mask stays.

A wrapper of your own is a function that returns `Wrapped(env, itself, its_settings, ...)` with the few pure functions
that differ, `bind` giving them what they need to know:

    def offset_reward(env, by):
        return Wrapped(env, offset_reward, (by,), reward_fn=bind(jnp.add, by))
"""

from jaxrl.envs.wrappers.actions import (
    clip_reward,
    decouple_action,
    discretize_action,
    mask_action,
    scale_reward,
    sticky_action,
)
from jaxrl.envs.wrappers.base import Wrapped, WrappedState, bind
from jaxrl.envs.wrappers.episodes import checked, episode_statistics, time_aware, time_limit
from jaxrl.envs.wrappers.indices import discretize_observation, index_observation, num_states, tile_coding
from jaxrl.envs.wrappers.observations import flatten, frame_stack, rescale_observation
from jaxrl.envs.wrappers.previous import previous_step

__all__ = [
    "Wrapped",
    "WrappedState",
    "bind",
    "checked",
    "clip_reward",
    "decouple_action",
    "discretize_action",
    "discretize_observation",
    "episode_statistics",
    "flatten",
    "frame_stack",
    "index_observation",
    "mask_action",
    "num_states",
    "previous_step",
    "rescale_observation",
    "scale_reward",
    "sticky_action",
    "tile_coding",
    "time_aware",
    "time_limit",
]
