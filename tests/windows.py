"""Windows of every pattern of ends to test losses on, and one update of an agent whose network is a table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.types import Masked, Sample, Transition

GAMMA = 0.7
STATES, ACTIONS = 4, 3


class Table:
    """The simplest init/apply pair: a table [S, A, *width] of what a network says of each observation."""

    def __init__(self, *width):
        self.width = width

    def init(self, key, obs, /):
        return jnp.zeros((STATES, ACTIONS, *self.width))

    def apply(self, params, obs, /):
        return params[obs]


def tables(*width, seed=1):
    """Online and target parameters [S, A, ...]."""
    return np.random.default_rng(seed).normal(size=(2, STATES, ACTIONS, *width)).astype(np.float32)


def batch(length=2, repeat=3, seed=0):
    """Windows [T]: at each step an episode goes on, terminates or is cut; where it terminates no action is allowed."""
    rng = np.random.default_rng(seed)
    items = []
    for ends in itertools.product(("", "terminated", "truncated"), repeat=length):
        for _ in range(repeat):
            terminated, truncated = (np.array([end == name for end in ends]) for name in ("terminated", "truncated"))
            action = rng.integers(ACTIONS, size=length)
            here = (rng.random((length, ACTIONS)) < 0.5) | (np.arange(ACTIONS)[None] == action[:, None])
            best = rng.integers(ACTIONS, size=length)
            ahead = (rng.random((length, ACTIONS)) < 0.5) | (np.arange(ACTIONS)[None] == best[:, None])
            obs, next_obs = rng.integers(STATES, size=(2, length))
            reward = rng.normal(0, 1.5, length).astype(np.float32)
            next_obs = Masked(next_obs, ahead & ~terminated[:, None])
            items.append(Transition(Masked(obs, here), action, reward, terminated, truncated, next_obs))
    return items


def fold(item):
    """(obs, action, return, discount, next_obs, allowed there) of a window, one step after the other."""
    obs, next_obs = item.obs, item.next_obs
    if isinstance(next_obs, Masked):
        obs, next_obs, mask = obs.observation, next_obs.observation, next_obs.action_mask
    else:
        mask = np.ones((len(next_obs), ACTIONS), bool)
    total, discount = 0.0, 1.0
    for step in range(len(item.reward)):
        total += discount * float(item.reward[step])
        discount *= 0.0 if item.terminated[step] else GAMMA
        if item.terminated[step] or item.truncated[step]:
            break
    return int(obs[0]), int(item.action[0]), total, discount, int(next_obs[step]), mask[step]


def learn(agent, online, target, items):
    """One update on a batch of windows: (state, priorities [B], metrics)."""
    window = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *items)
    size = len(items)
    sample = Sample(window, jnp.arange(size), jnp.ones(size))
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    state = state._replace(params=jax.tree.map(jnp.asarray, online), target=jax.tree.map(jnp.asarray, target))
    return jax.jit(agent.update)(state, sample, jaxrl.key(1), jnp.float32(0))
