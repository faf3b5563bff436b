"""`check_env`: every environment passes, and each kind of mistake is named."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import masked_env
from jax import Array

import jaxrl
from jaxrl import spaces
from jaxrl.envs import api, registry, wrappers
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.envs.check import check_env
from jaxrl.types import Masked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    goal: float = 0.9
    max_steps_in_episode: int = 20


class State(NamedTuple):
    place: Array  # float32 []
    time: Array  # int32 []


def reset(key, params):
    return State(jax.random.uniform(key, (), jnp.float32, 0.0, 0.5), jnp.zeros((), jnp.int32))


def step(key, state, action, params):
    move = jax.random.uniform(key, (), jnp.float32, 0.0, 0.2)
    place = jnp.clip(state.place + jnp.where(action == 1, move, -move), 0.0, 1.0)
    return State(place, state.time), place - 0.5, place > params.goal


def drift(**changes: Any) -> PureEnvironment:
    """A sound environment, some part replaced."""
    parts = {
        "name": "Drift-v0",
        "default_params": Params(),
        "reset_fn": reset,
        "step_fn": step,
        "observe_fn": lambda state, params: jnp.stack([state.place, -state.place]),
        "observation_space_fn": lambda params: spaces.Box(-1.0, 1.0, (2,)),
        "action_space_fn": lambda params: spaces.Discrete(2),
    }
    return PureEnvironment(**{**parts, **changes})


def complaint(env, params=None, **settings) -> str:
    with pytest.raises(ValueError, match="^.* breaks [0-9]+ promise") as error:
        check_env(env, params, jaxrl.key(0), **settings)
    return str(error.value)


@pytest.mark.parametrize("env_id", jaxrl.list_ids())
def test_every_environment_passes(env_id):
    env, params = jaxrl.make(env_id)
    check_env(env, params, jaxrl.key(1))


def test_sound_environments_pass():
    check_env(drift())
    check_env(drift(), Params(goal=0.2, max_steps_in_episode=np.int32(3)), jaxrl.key(0), steps=7)
    check_env(masked_env(), key=jaxrl.key(3))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.time_limit(wrappers.sticky_action(env), 7),
        lambda env: wrappers.episode_statistics(wrappers.frame_stack(env, 2)),
    ],
)
def test_wrapped_environments_pass(wrap):
    check_env(wrap(drift()), key=jaxrl.key(0), steps=40)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FourRooms-misc"])
def test_gymnaxs_environments_pass(env_id):
    pytest.importorskip("gymnax")
    check_env(registry.make(f"gymnax:{env_id}")[0], key=jaxrl.key(0))


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Catch-bsuite", "shape=(10, 5), dtype=int32) does not contain an observation: [[0. "),
        ("MountainCar-v0", "state.velocity is weak float32[] after reset and float32[] after step"),
        ("UmbrellaChain-bsuite", "reward of step_env is weak int32[]; it must be float32[]"),
    ],
)
def test_what_gymnaxs_environments_break_is_told(env_id, message):
    pytest.importorskip("gymnax")
    assert message in complaint(registry.make(f"gymnax:{env_id}")[0])


def reset_with(**fields):
    return lambda key, params: reset(key, params)._replace(**fields)


def step_with(place=None, reward=None, terminated=None):
    def changed(key, state, action, params):
        after, *outcome = step(key, state, action, params)
        after = after if place is None else after._replace(place=place(after.place))
        return after, outcome[0] if reward is None else reward(after), terminated(after) if terminated else outcome[1]

    return changed


def python_if(key, state, action, params):
    after, reward, terminated = step(key, state, action, params)
    if after.place > 0.5:
        reward = reward + 1
    return after, reward, terminated


def kept(key, state, action, params, memory=[]):  # noqa: B006 # the mistake that is looked for
    memory.append(state.place)
    return State(state.place + 0 * memory[0], state.time), *step(key, state, action, params)[1:]


def leaks(key, state, action, params):
    memory = []
    jax.lax.scan(lambda carry, x: (carry, memory.append(x)), 0, jnp.zeros(2))
    return step_with(place=lambda x: x + memory[0])(key, state, action, params)


def counted(key, state, action, params, calls=[]):  # noqa: B006 # as above
    calls.append(1)
    return State(state.place, state.time), jnp.float32(len(calls)), jnp.zeros((), bool)


def drawn_by_callback(key, state, action, params, random=np.random.RandomState(0)):  # noqa: B008 # as above
    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def draw(_):
        return np.float32(random.uniform())

    after, reward, terminated = step(key, state, action, params)
    return after, jax.pure_callback(draw, shape, after.place, vmap_method="sequential"), terminated


def without_vmap(key, state, action, params):
    after, reward, terminated = step(key, state, action, params)
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return after, jax.pure_callback(lambda x: x, shape, reward), terminated


def knows_jit(key, state, action, params):
    after, reward, terminated = step(key, state, action, params)
    return after, reward + (0 if isinstance(reward, jax.core.Tracer) else 1), terminated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithName:
    name: str = "drift"
    max_steps_in_episode: int = 20


@dataclasses.dataclass(frozen=True)
class Unregistered:
    goal: float = 0.9
    max_steps_in_episode: int = 20


def sized_by_params(key, params):
    return State(reset(key, params).place + jnp.zeros(params.max_steps_in_episode).sum(), jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reset_fn": reset_with(place=jnp.int32(0))}, "state.place is int32[] after reset and float32[] after step"),
        ({"reset_fn": reset_with(place=0.25)}, "state.place is weak float32[] after reset and float32[] after step"),
        (
            {"step_fn": step_with(place=lambda x: (x,)), "observe_fn": lambda state, params: jnp.zeros(2)},
            "state has the structure ",
        ),
        ({"step_fn": step_with(place=lambda x: x[None])}, "state.place is float32[] after reset and float32[1]"),
        ({"step_fn": step_with(reward=lambda s: s.time)}, "reward of step_env is int32[]; it must be float32[]"),
        ({"step_fn": step_with(reward=lambda s: s.place[None])}, "reward of step_env is float32[1]"),
        ({"step_fn": step_with(terminated=lambda s: s.place)}, "terminated of step_env is float32[]; it must be bool"),
        ({"step_fn": lambda *_: (1, 2)}, "step_env cannot be traced: ValueError: not enough values to unpack"),
        ({"step_fn": python_if}, "it uses if, while, and, or bool() on a traced value; use jnp.where, & and | (test_"),
        ({"step_fn": step_with(reward=lambda s: float(s.place))}, "it asks for a traced number's value"),
        ({"step_fn": step_with(reward=lambda s: np.sin(s.place))}, "it hands a traced value to numpy; use jax.numpy"),
        ({"step_fn": step_with(reward=lambda s: [1.0, 2.0][s.time])}, "it uses a traced value as a Python integer"),
        ({"step_fn": step_with(reward=lambda s: s.place[None][s.place[None] > 0])}, "indexes by a boolean mask"),
        ({"step_fn": leaks}, "step_env cannot be traced: it keeps a traced value of an earlier call; put it into the"),
        ({"step_fn": kept}, "step_env cannot be traced: it keeps a traced value of an earlier call"),
        ({"step_fn": counted}, "step_env is another program each time it is traced"),
        ({"step_fn": drawn_by_callback}, "gave two results from the same keys: a callback draws or remembers"),
        ({"step_fn": without_vmap}, "reset and step cannot be vmapped and scanned: "),
        ({"step_fn": knows_jit}, "step_env gives another result without jit"),
        ({"step_fn": step_with(reward=lambda s: 1 / (s.place - s.place))}, "a reward is not finite: inf (float32) in"),
        ({"step_fn": step_with(place=lambda x: x * jnp.nan)}, "an observation is not finite: [nan nan] (float32) in"),
        (
            {"step_fn": step_with(place=lambda x: x + 1)},
            "shape=(2,), dtype=float32) does not contain an observation: [",
        ),
        ({"observation_space_fn": lambda p: spaces.Discrete(3)}, "Discrete(n=3) does not contain an observation: ["),
        ({"observation_space_fn": lambda p: (2,)}, "observation_space is a tuple; it must be a space"),
        ({"default_params": WithName()}, "params.name is a str, no number; register the class by"),
        ({"default_params": Unregistered()}, "params is a Unregistered, no number; register the class by"),
        ({"default_params": jnp.zeros(3)}, "it cannot be hashed, which jit needs (unhashable type"),
        ({"reset_fn": sized_by_params}, "reset with params as arguments, so that their numbers are traced (mark a"),
    ],
)
def test_mistakes_in_the_functions_are_named(changes, message):
    assert message in complaint(drift(**changes), steps=40)


class Handwritten:
    """Drift with methods of its own, of which a test spoils one."""

    reset = api.reset

    def __init__(self, **changes):
        self._inner = drift()
        for name, value in changes.items():
            setattr(self, name, value)

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def step(self, key, state, action, params=None):
        return api.step(self._inner, key, state, action, params)


def respoilt(change):
    """`step` with its result changed: `change(result as a dict, state before)`."""
    inner = drift()
    names = ("obs", "state", "reward", "terminated", "truncated", "info")

    def spoilt_step(key, state, action, params=None):
        after = dict(zip(names, inner.step(key, state, action, params), strict=True))
        return tuple({**after, **change(after)}.values())

    return {"step": spoilt_step}


def never_resets(key, state, action, params):
    inner = drift()
    obs, state, reward, terminated, info = inner.step_env(key, state, action, params)
    truncated = inner.is_truncated(state, params)
    return obs, state, reward, terminated, truncated, {"final_observation": obs}


def without_last(after):
    return {"info": {**after["info"], "final_observation": after["obs"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reset_env": lambda *_: drift().reset_env(*_)[0]},
            "reset_env returns 1 value(s); it must return 2: obs, sta",
        ),
        ({"step": lambda *_: drift().step(*_)[:5]}, "returns 5 value(s); it must return 6: obs, state, reward, term"),
        (respoilt(lambda after: {"info": {}}), "info of step has no 'final_observation'"),
        (
            respoilt(lambda after: {"info": {"final_observation": after["obs"][0]}}),
            "obs is float32[2] after reset and float32[] in info['final_observation']",
        ),
        (respoilt(without_last), "info['final_observation'] is not the observation of step_env: ["),
        (respoilt(lambda after: {"truncated": jnp.int32(0)}), "truncated of step is int32[]; it must be bool[]"),
        (respoilt(lambda after: {"reward": -after["reward"]}), "step has not step_env's and is_truncated's outcome"),
        (respoilt(lambda after: {"obs": -after["obs"]}), "obs is not final_observation, though the episode goes on: ["),
        ({"step": never_resets, "splits": never}, "after an end obs is not a new episode's"),
        ({"num_actions": 3}, "num_actions is 3, but action_space is Discrete(n=2); it must be 2"),
        ({"action_space": lambda *_: 2}, "action_space is a int; it must be a space"),
    ],
)
def test_mistakes_in_the_methods_are_named(changes, message):
    assert message in complaint(Handwritten(**changes), steps=40)


def test_handwritten_passes():
    check_env(Handwritten(), key=jaxrl.key(0))


def test_a_limit_that_is_passed_is_named():
    class Late(PureEnvironment):
        def is_truncated(self, state, params):
            return state.time > params.max_steps_in_episode

    late = Late(**{f.name: getattr(drift(), f.name) for f in dataclasses.fields(PureEnvironment)})
    assert "an episode goes on at max_steps_in_episode, where is_truncated must be true: seen in" in complaint(late)


def test_masks_are_looked_at():
    env = masked_env()
    nothing = dataclasses.replace(env, observe_fn=lambda s, p: Masked(s.place, jnp.zeros(3, bool)))
    assert "an action_mask allows no action: [False False False] (bool)" in complaint(nothing)
    short = dataclasses.replace(env, observe_fn=lambda s, p: Masked(s.place, jnp.ones(2, bool)))
    assert "obs.action_mask is bool[2]; it must be bool[3], one for each action" in complaint(short)


def test_an_unfinished_environment_is_told_what_it_lacks():
    text = complaint(object())
    assert "object breaks 10 promise(s)" in text
    assert "it has no reset_env; api.PureEnvironment brings" in text


def test_every_finding_has_its_line():
    def observe(state, params):
        return jnp.stack([2 + state.place, jnp.where(state.time == 3, jnp.inf, state.place)])

    lines = complaint(drift(observe_fn=observe)).splitlines()
    assert lines[0] == "Drift-v0 breaks 3 promise(s) of an environment:"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "an observation is not finite",
        f"observation_space {drift().observation_space()} does not contain an observation",
        f"observation_space {drift().observation_space()} does not contain a final observation",
    ]


def test_only_random_steps_of_a_count_are_taken():
    with pytest.raises(ValueError, match="steps is 0; it must be an integer of at least 1"):
        check_env(drift(), steps=0)
