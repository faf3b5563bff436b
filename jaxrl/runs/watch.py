"""Episodes to look at: played one step at a time, shown in a terminal or kept as frames."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl.envs import raster, registry
from jaxrl.runs.plan import Chosen, Plan
from jaxrl.runs.screen import Screen, uncoloured
from jaxrl.types import Agent, Masked, PyTree

_PAUSE = 0.5  # seconds that an episode's last picture stays before the next takes its place


class Policy(NamedTuple):
    """Who plays. `memory` is an argument, so that a network is no constant of the compiled program."""

    act: Callable[[PyTree, PyTree, PyTree, Array], tuple[Array, PyTree]]  # (memory, carry, obs, key) -> action, carry
    memory: PyTree
    carry: PyTree  # at an episode's start


class Moment(NamedTuple):
    """A state of an episode, and what led to it."""

    state: PyTree
    steps: int  # since the start
    action: Any  # None at the start
    reward: float
    total: float  # the return so far, undiscounted
    end: str  # "terminated", "truncated" or "cut" in the last moment, else ""


Play = Callable[[Array, int], Iterator[Moment]]  # (key, most steps or 0) -> the moments of one episode


def at_random(chosen: Chosen) -> Policy:
    """Uniform over the action space, or over what an action mask allows."""
    space = chosen.env.action_space(chosen.params)

    def act(memory: PyTree, carry: PyTree, obs: PyTree, key: Array) -> tuple[Array, PyTree]:
        del memory
        if isinstance(obs, Masked):
            return jax.random.categorical(key, jnp.where(obs.action_mask, 0.0, -jnp.inf)), carry
        return space.sample(key), carry

    return Policy(act, (), ())


def greedy(agent: Agent, state: PyTree) -> Policy:
    """What the agent's state, of one seed, holds best."""

    def act(memory: PyTree, carry: PyTree, obs: PyTree, key: Array) -> tuple[Array, PyTree]:
        return agent.act(memory, carry, obs, key, 0.0, greedy=True)

    return Policy(act, state, jax.tree.map(lambda leaf: leaf[0], agent.carry(1)))


def trained(plan: Plan, state: PyTree, seed_index: int) -> tuple[Policy, Callable[[int], Array]]:
    """What one seed of a run learned, and (seed) -> the key with which `jaxrl eval` evaluates it."""
    if not 0 <= seed_index < plan.seeds:
        raise ValueError(f"seed_index is {seed_index}; the run has {plan.seeds} seeds: use 0..{plan.seeds - 1}")
    if plan.seeds == 1:
        return greedy(plan.setup.agent, state), plan.evaluation_keys
    alone = jax.tree.map(lambda leaf: leaf[seed_index], state)
    return greedy(plan.setup.agent, alone), lambda seed: plan.evaluation_keys(seed)[seed_index]


def player(chosen: Chosen, policy: Policy) -> Play:
    """Plays whole episodes, without the auto-reset: the last state is the one that ended it.

    A key gives the episode that `evaluate` plays with it when asked for one.
    """
    env, params = chosen.env, chosen.params

    @jax.jit
    def begin(key: Array) -> tuple[Array, PyTree, PyTree]:
        key, reset_key = jax.random.split(key)
        return key, *env.reset_env(_only(reset_key), params)

    @jax.jit
    def advance(memory: PyTree, key: Array, obs: PyTree, state: PyTree, carry: PyTree):
        key, act_key, env_key = jax.random.split(key, 3)
        action, carry = policy.act(memory, carry, obs, _only(act_key))
        obs, state, reward, terminated, _ = env.step_env(_only(env_key), state, action, params)
        return (key, obs, state, carry), (action, reward, terminated, env.is_truncated(state, params))

    def play(key: Array, most: int = 0) -> Iterator[Moment]:
        now = (*begin(key), policy.carry)
        moment = Moment(now[2], 0, None, 0.0, 0.0, "")
        yield moment
        while not moment.end:
            now, happened = advance(policy.memory, *now)
            action, reward, terminated, truncated = jax.device_get(happened)
            steps = moment.steps + 1
            end = "terminated" if terminated else "truncated" if truncated else "cut" if steps == most else ""
            moment = Moment(now[2], steps, action, float(reward), moment.total + float(reward), end)
            yield moment

    return play


def picture(chosen: Chosen, state: PyTree) -> np.ndarray:
    """A state's frame. Raises ValueError, with what to do instead, where the environment draws none."""
    if not hasattr(chosen.env, "frame"):
        name = chosen.id or chosen.env.name
        own = name.removeprefix("gymnax:")
        instead = f"watch {own}" if own in registry.list_ids() else "jaxrl list shows the environments that do"
        raise ValueError(f"{name} draws no picture; {instead}")
    return chosen.env.frame(state, chosen.params)


def painter(chosen: Chosen, as_text: bool, columns: int, screen: Screen) -> Callable[[PyTree], str]:
    """(state) -> what to print: coloured half blocks, or without colour or `as_text` the environment's own text.

    An environment without text of its own is shown in plain characters of some darkness. `columns=0` fits the screen.
    """
    inner = chosen.env
    while hasattr(inner, "env"):
        inner = inner.env
    has_text = getattr(inner, "render_fn", None) is not None

    def paint(state: PyTree) -> str:
        if has_text and (as_text or not screen.colours):
            text = chosen.env.render(state, chosen.params)
            return text if screen.colours else uncoloured(text)
        frame = picture(chosen, state)
        draw = raster.half_blocks if screen.blocks and not as_text else raster.shades
        return draw(frame, columns or screen.fit(*frame.shape[:2]))

    return paint


def episodes(play: Play, key_of: Callable[[int], Array], seeds: range, most: int) -> Iterator[tuple[str, Moment]]:
    """The moments of an episode for each seed, with the episode's name."""
    for number, seed in enumerate(seeds, 1):
        for moment in play(key_of(seed), most):
            yield f"episode {number} (seed {seed})", moment


def show(
    moments: Iterable[tuple[str, Moment]], count: int, paint: Callable[[PyTree], str], screen: Screen, fps: float
) -> None:
    """Shows `count` episodes at `fps` pictures a second, 0: as fast as it goes; after each its return."""
    with screen.held():
        due = time.monotonic()
        for name, moment in moments:
            screen.draw(paint(moment.state), f"{name}  {caption(moment)}")
            count -= bool(moment.end)
            if fps:
                due = max(due + 1 / fps, time.monotonic())
                time.sleep(max(due - time.monotonic(), 0) + (_PAUSE if moment.end and count else 0))
            if moment.end:
                screen.say(ending(name, moment), keep=not count)


def caption(moment: Moment) -> str:
    """A moment in words."""
    if moment.action is None:
        return "step 0"
    action = np.array2string(np.asarray(moment.action), precision=3)
    return f"step {moment.steps}  action {action}  reward {moment.reward:.4g}  return {moment.total:.4g}"


def ending(name: str, moment: Moment) -> str:
    """An episode in words, by its last moment."""
    return f"{name}: return {moment.total:.4g} in {moment.steps} step{'s'[: moment.steps != 1]}, {moment.end}"


def _only(key: Array) -> Array:
    """The first of one: what `evaluate` gives the only lane of a single episode."""
    return jax.random.split(key, 1)[0]
