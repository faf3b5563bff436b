"""Wrappers against gymnasium's own on the same trajectories, and against hand arithmetic."""

import dataclasses
import math
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import masked_env
from gymnasium import wrappers as theirs
from jax import Array
from jax.experimental import checkify

import jaxrl
from jaxrl import spaces
from jaxrl.envs import api, wrappers
from jaxrl.envs.api import PureEnvironment
from jaxrl.envs.gymnax import GymnaxEnvironment
from jaxrl.types import Masked

STEPS = 300
BOUNDS = ((-2.4, -5, -math.pi / 12, -2 * math.pi), (2.4, 5, math.pi / 12, 2 * math.pi))  # Dopamine's for CartPole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    max_steps_in_episode: int = 6
    bad: float = math.nan


class State(NamedTuple):
    echo: Any  # what the last action was
    time: Array  # int32 []


def echo_env(space, **functions) -> PureEnvironment:
    """Observes the action that it was given; reward is 3 less its sum."""

    def observe(state, params):
        return state.echo

    return PureEnvironment(
        "Echo-v0",
        Params(),
        reset_fn=lambda key, params: State(jnp.zeros(space.shape, space.dtype), jnp.zeros((), jnp.int32)),
        step_fn=functions.pop(
            "step",
            lambda key, state, action, params: (
                State(jnp.asarray(action, space.dtype), state.time),
                jnp.float32(3) - jnp.sum(action).astype(jnp.float32),
                jnp.zeros((), bool),
            ),
        ),
        observe_fn=functions.pop("observe", observe),
        observation_space_fn=lambda params: functions.get("observations", space),
        action_space_fn=lambda params: space,
    )


class Noisy:
    """An environment in gymnax's form whose observation is drawn anew at every look."""

    num_actions = 2

    def reset_env(self, key, params):
        return jax.random.uniform(key, (3,)), State(jnp.zeros(()), jnp.zeros((), jnp.int32))

    def step_env(self, key, state, action, params):
        obs = jax.random.uniform(key, (3,))
        return obs, State(obs.sum(), state.time + 1), obs[0], obs[1] > 0.9, {}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode

    def observation_space(self, params):
        return spaces.Box(0, 1, (3,))

    def action_space(self, params):
        return spaces.Discrete(2)


def noisy_env():
    return GymnaxEnvironment("Noisy-v0", Noisy(), Params())


def walk(env, params, actions, seed=0):
    """(first obs, obs [T], reward [T], terminated [T], truncated [T], info [T], state [T]) of given actions."""

    def run(key):
        obs, state = env.reset(key, params)

        def body(state, key_and_action):
            obs, state, *rest = env.step(key_and_action[0], state, key_and_action[1], params)
            return state, (obs, *rest, state)

        return obs, *jax.lax.scan(body, state, (jax.random.split(key, len(actions)), actions))[1]

    return jax.device_get(jax.jit(run)(jaxrl.key(seed)))


def random_actions(env, steps=STEPS):
    return jax.vmap(env.action_space().sample)(jax.random.split(jax.random.key(1), steps))


class Replay(gymnasium.Env):
    """A recorded walk as gymnasium's environment."""

    def __init__(self, env, trail, limit=None):
        self.observation_space = spaces.to_gymnasium(env.observation_space())
        self.action_space = spaces.to_gymnasium(env.action_space())
        self.trail, self.time, self.first = trail, 0, trail[0]

    def reset(self, *, seed=None, options=None):
        return self.first, {}

    def step(self, action):
        _, obs, reward, terminated, truncated, info, _ = self.trail
        t, self.time = self.time, self.time + 1
        self.first = jax.tree.map(lambda x: x[t], obs)
        final = jax.tree.map(lambda x: x[t], info["final_observation"])
        return final, float(reward[t]), bool(terminated[t]), bool(truncated[t]), {}


def gymnasium_walk(env, actions):
    """What `walk` gives, without the state, of a gymnasium environment that is reset at every end."""
    first, _ = env.reset()
    rows = []
    for action in np.asarray(actions):
        final, reward, terminated, truncated, info = env.step(action)
        obs = env.reset()[0] if terminated or truncated else final
        rows.append((obs, reward, terminated, truncated, {**info, "final_observation": final}))
    obs, reward, terminated, truncated, infos = zip(*rows, strict=True)
    return first, np.array(obs), np.array(reward), np.array(terminated), np.array(truncated), infos


def beside_gymnasium(env, ours, gyms):
    """Both walks of the same episodes: our wrapper `ours` and gymnasium's `gyms` around a replay of the bare one."""
    actions = random_actions(env)
    bare = walk(env, env.default_params, actions)
    return walk(ours(env), env.default_params, actions), gymnasium_walk(gyms(Replay(env, bare)), actions)


def assert_same_walk(got, expected, tolerance=1e-6):
    finals = got[5]["final_observation"], np.array([info["final_observation"] for info in expected[5]])
    for x, y in (*zip(got[:5], expected[:5], strict=True), finals):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
    assert 3 < np.sum(got[3] | got[4]) < STEPS


def cartpole(**overrides):
    return jaxrl.make("CartPole-v1", **overrides)[0]


def mountain_car(**overrides):
    return jaxrl.make("MountainCar-v0", **overrides)[0]


PAIRS = {
    "stack": (
        lambda: cartpole(max_steps_in_episode=15),
        lambda env: wrappers.frame_stack(env, 3, axis=0),
        lambda env: theirs.FrameStackObservation(env, 3),
    ),
    "clip": (
        lambda: echo_env(spaces.Discrete(5)),
        lambda env: wrappers.clip_reward(env, -0.5, 1.5),
        lambda env: theirs.ClipReward(env, -0.5, 1.5),
    ),
    "scale": (
        lambda: echo_env(spaces.Discrete(5)),
        lambda env: wrappers.scale_reward(env, -0.25),
        lambda env: theirs.TransformReward(env, lambda reward: -0.25 * reward),
    ),
    "rescale": (
        lambda: mountain_car(max_steps_in_episode=40),
        lambda env: wrappers.rescale_observation(env, -2, 3),
        lambda env: theirs.RescaleObservation(env, np.float32(-2), np.float32(3)),
    ),
    "bins": (
        lambda: mountain_car(max_steps_in_episode=40),
        lambda env: wrappers.discretize_observation(env, (40, 20)),
        lambda env: theirs.DiscretizeObservation(env, (40, 20)),
    ),
    "aware": (
        lambda: cartpole(max_steps_in_episode=15),
        wrappers.time_aware,
        lambda env: theirs.TimeAwareObservation(theirs.TimeLimit(env, 15), normalize_time=True),
    ),
    "flatten": (
        lambda: jaxrl.make("Blackjack-v1")[0],
        wrappers.flatten,
        theirs.FlattenObservation,
    ),
    "flatten grid": (
        lambda: jaxrl.make("gymnax:Catch-bsuite")[0],
        wrappers.flatten,
        theirs.FlattenObservation,
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_walk_is_gymnasiums(pair):
    make, ours, gyms = PAIRS[pair]
    env = make()
    got, expected = beside_gymnasium(env, ours, gyms)
    assert_same_walk(got, expected)
    space, theirs_space = ours(env).observation_space(), gyms(Replay(env, got)).observation_space
    assert space.shape == theirs_space.shape
    assert jax.vmap(space.contains)(jnp.asarray(got[1])).all()
    assert got[1].dtype == space.dtype


def test_rescaling_by_given_bounds_is_dopamines():
    """`obs / max` for CartPole's symmetric bounds; beyond them the result is beyond, and still in the space."""
    env = cartpole()
    wrapped = wrappers.rescale_observation(env, bounds=BOUNDS)
    actions = jnp.ones(STEPS, jnp.int32)
    bare, got = walk(env, env.default_params, actions), walk(wrapped, env.default_params, actions)
    np.testing.assert_allclose(got[1], bare[1] / np.array(BOUNDS[1]), rtol=1e-5, atol=1e-6)
    space = wrapped.observation_space()
    np.testing.assert_allclose(space.high, [2, np.inf, 8 / 5, np.inf], rtol=1e-5)
    limits = env.observation_space()
    assert space.contains(wrapped.observe_fn(jnp.asarray(limits.high), (), None))
    assert np.abs(got[5]["final_observation"]).max() > 1


@pytest.mark.parametrize("low", [-1.2, -0.3, 7.0])
@pytest.mark.parametrize("width", [0.1, 1.8, 333.3])
def test_rescaled_limits_stay_inside(low, width):
    env = echo_env(spaces.Discrete(2), observations=spaces.Box(low, low + width, (1,)))
    wrapped = wrappers.rescale_observation(env)
    limits = env.observation_space()
    ends = jax.jit(wrapped.observe_fn)(jnp.stack([limits.low, limits.high])[:, 0], (), None)
    np.testing.assert_allclose(ends, [-1, 1], atol=3e-7)
    assert wrapped.observation_space().contains(ends[:1]) and wrapped.observation_space().contains(ends[1:])


def test_stacks_are_padded_with_the_first_observation():
    env = wrappers.frame_stack(echo_env(spaces.Discrete(9)), 3)
    first, obs, *_, info, _ = walk(env, Params(), jnp.arange(1, 9))
    np.testing.assert_array_equal(first, [0, 0, 0])
    np.testing.assert_array_equal(obs[:5], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    np.testing.assert_array_equal(info["final_observation"][5], [4, 5, 6])
    np.testing.assert_array_equal(obs[5:], [[0, 0, 0], [0, 0, 7], [0, 7, 8]])
    assert env.observation_space() == spaces.MultiDiscrete([9, 9, 9])


def test_a_stack_of_pictures_has_its_axis_last():
    env = wrappers.frame_stack(jaxrl.make("gymnax:Catch-bsuite")[0], 4)
    assert env.observation_space().shape == env.reset(jaxrl.key(0))[0].shape == (10, 5, 4)


@pytest.mark.parametrize("bins", [4, (5, 3)])
def test_discrete_actions_are_gymnasiums_grid(bins):
    box = spaces.Box(np.array([-2.0, 1.0]), np.array([2.0, 4.0]))
    env = wrappers.discretize_action(echo_env(box), bins)
    gym = theirs.DiscretizeAction(Replay(echo_env(box), (None,)), bins)
    indices = jnp.arange(-1, env.num_actions + 1)  # a Discrete action outside is taken as the nearest inside
    state = env.reset(jaxrl.key(0))[1]
    points = jax.vmap(lambda action: env.step(jaxrl.key(0), state, action)[0])(indices)
    expected = [gym.action(i) for i in range(env.num_actions)]
    np.testing.assert_allclose(points, [expected[0], *expected, expected[-1]], atol=1e-6)
    assert env.action_space() == spaces.Discrete(int(gym.action_space.n))


def test_a_grid_may_go_from_limit_to_limit():
    env = wrappers.discretize_action(echo_env(spaces.Box(-2.0, 2.0, (1,))), 3, ends=True)
    state = env.reset(jaxrl.key(0))[1]
    points = jax.vmap(lambda action: env.step(jaxrl.key(0), state, action)[0])(jnp.arange(3))
    np.testing.assert_array_equal(points, [[-2], [0], [2]])


def test_sticky_actions_repeat_what_was_executed():
    """Each lane asks for the successor of the action executed last, so that every repetition shows."""
    prob, lanes, steps = 0.3, 5_000, 12
    env = wrappers.sticky_action(echo_env(spaces.Discrete(5)), prob)

    def body(carry, key):
        executed, state = carry
        asked = (executed + 1) % 5
        obs, state, *_, info = jax.vmap(env.step)(jax.random.split(key, lanes), state, asked)
        return (obs, state), (executed, asked, info["final_observation"])

    start = jax.vmap(env.reset)(jax.random.split(jaxrl.key(0), lanes))
    before, asked, executed = jax.device_get(
        jax.jit(lambda: jax.lax.scan(body, start, jax.random.split(jaxrl.key(1), steps))[1])()
    )
    sticks = executed != asked
    assert not sticks[[0, 6]].any()  # the first steps of the two episodes
    np.testing.assert_array_equal(executed, np.where(sticks, before, asked))
    later = np.delete(sticks, [0, 6], axis=0)
    after_a_repeat = sticks[2:6][sticks[1:5]]
    for sample in (later, after_a_repeat):
        expected = sample.size * np.array([prob, 1 - prob])
        counts = np.array([sample.sum(), sample.size - sample.sum()])
        assert ((counts - expected) ** 2 / expected).sum() < 10.8  # chi-squared, 1 degree of freedom, p = 0.001


def test_stickiness_has_a_key_of_its_own():
    """What the environment draws in the same step is independent of it: chi-squared on the 2 x 2 table."""

    def step(key, state, action, params):
        return State(action, state.time), jax.random.uniform(key), jnp.zeros((), bool)

    env = wrappers.sticky_action(echo_env(spaces.Discrete(2), step=step), 0.5)
    state = env.step(jaxrl.key(0), env.reset(jaxrl.key(0))[1], 1)[1]
    keys = jax.random.split(jaxrl.key(1), 10_000)
    executed, _, reward, *_ = jax.vmap(env.step, (0, None, None))(keys, state, 0)
    counts = np.array([np.sum((executed == i) & ((reward > 0.5) == j)) for i in (0, 1) for j in (0, 1)])
    assert ((counts - 2500) ** 2 / 2500).sum() < 16.3  # 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_certain_stickiness(prob):
    env = wrappers.sticky_action(echo_env(spaces.Box(-1.0, 1.0, (2,))), prob)
    actions = jnp.linspace(-1, 1, 10).reshape(5, 2)
    obs = walk(env, Params(), actions)[1]
    np.testing.assert_allclose(obs, actions if prob == 0 else jnp.tile(actions[:1], (5, 1)))


def test_a_forbidden_action_is_not_repeated():
    """masked_env pays 100 for a forbidden action: place p forbids (p + 1) % 3."""
    env = wrappers.sticky_action(masked_env(), 1.0)
    _, obs, reward, *_ = walk(env, env.default_params, jnp.array([0, 1, 2, 0, 0]))
    np.testing.assert_array_equal(obs.observation[:4], [1, 2, 3, 0])
    assert reward.max() == 1  # executed: 0, 0, then 2 as place 2 forbids 0


def test_tiles_are_worked_out_by_hand():
    """4 tilings of 2 x 3 tiles on [0, 1] x [0, 3], shifted by j/4 and 3j/4 mod 1 tiles; a tiling has 3 x 4."""
    env = echo_env(spaces.Discrete(2), observations=spaces.Box(np.zeros(2), np.array([1.0, 3.0])))
    coded = wrappers.tile_coding(env, 4, (2, 3))

    def by_hand(x, y):
        rows = []
        for j in range(4):
            column = math.floor(2 * min(max(x, 0), 1) + (j * 1 % 4) / 4)
            row = math.floor(min(max(y, 0), 3) + (j * 3 % 4) / 4)
            rows.append(j * 12 + column * 4 + row)
        return rows

    points = np.random.default_rng(0).uniform([-0.2, -0.5], [1.2, 3.5], (500, 2)).astype(np.float32)
    points[:4] = [[0, 0], [1, 3], [0.125, 0.25], [0.5, 1]]
    active = jax.jit(jax.vmap(lambda point: coded.observe_fn(point, (), None)))(points)
    np.testing.assert_array_equal(active, [by_hand(float(x), float(y)) for x, y in points])
    np.testing.assert_array_equal(active[0], [0, 12, 24, 36])
    np.testing.assert_array_equal(active[1], [11, 23, 35, 47])
    assert wrappers.num_states(coded) == 48 and coded.observation_space() == spaces.MultiDiscrete([48] * 4)
    assert len(np.unique(active)) == 48


def test_near_points_share_tiles_as_wide_as_the_tiling():
    """Asymmetric offsets (Sutton & Barto, figure 9.11): a move of 1/k tile in one dimension changes one tile."""
    env = echo_env(spaces.Discrete(2), observations=spaces.Box(np.zeros(2), np.ones(2)))
    coded = wrappers.tile_coding(env, 8, 4)
    grid = (np.stack(np.meshgrid(np.arange(31), np.arange(31)), -1).reshape(-1, 2) + 0.5) / 32
    active = jax.vmap(lambda point: coded.observe_fn(point, (), None))
    here, right = active(jnp.asarray(grid)), active(jnp.asarray(grid + np.array([1 / 32, 0])))
    np.testing.assert_array_equal(np.sum(np.asarray(here) != np.asarray(right), 1), 1)


def test_blackjack_becomes_one_index():
    env, params = jaxrl.make("Blackjack-v1")
    indexed = wrappers.index_observation(env)
    actions = random_actions(env)
    (total, dealer, ace), got = walk(env, params, actions)[1], walk(indexed, params, actions)[1]
    np.testing.assert_array_equal(got, (total * 11 + dealer) * 2 + ace)
    assert wrappers.num_states(indexed) == indexed.observation_space().n == 704
    assert len(np.unique(got)) > 50


def test_nested_choices_become_one_index():
    space = spaces.Dict(
        {"b": spaces.MultiDiscrete([3, 4]), "a": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(5)])}
    )
    observe = lambda state, params: {"a": (1, 3), "b": jnp.array([2, 1])}  # noqa: E731 # beside its space
    env = wrappers.index_observation(echo_env(spaces.Discrete(2), observations=space, observe=observe))
    assert env.reset(jaxrl.key(0))[0] == ((1 * 5 + 3) * 3 + 2) * 4 + 1
    assert env.observation_space() == spaces.Discrete(2 * 5 * 3 * 4)


def test_num_states_is_seen_through_wrappers_that_leave_observations_alone():
    coded = wrappers.tile_coding(mountain_car(), 8, 8)
    assert wrappers.num_states(wrappers.episode_statistics(wrappers.clip_reward(coded))) == 8 * 81
    assert wrappers.num_states(jaxrl.make("FrozenLake-v1")[0]) == 16
    for env in (cartpole(), wrappers.frame_stack(jaxrl.make("FrozenLake-v1")[0], 2), wrappers.flatten(coded)):
        with pytest.raises(ValueError, match="no rows of a table; wrap it in index_observation"):
            wrappers.num_states(env)


def test_a_limit_truncates_and_an_earlier_one_inside_holds():
    actions = jnp.zeros(20, jnp.int32)
    for steps, expected in ((4, 4), (6, 6), (100, 6)):
        _, _, _, terminated, truncated, info, _ = walk(
            wrappers.time_limit(echo_env(spaces.Discrete(2)), steps), Params(), actions
        )
        assert not terminated.any()
        np.testing.assert_array_equal(truncated, np.arange(1, 21) % expected == 0)
    env = wrappers.time_limit(cartpole(), 12)
    *_, terminated, truncated, info, _ = walk(env, env.default_params, jnp.ones(60, jnp.int32))
    assert terminated.any() and not truncated.any()  # a pole pushed one way falls in 8 to 11 steps
    np.testing.assert_array_equal(info["truncated"], truncated)


def test_awareness_takes_the_earlier_limit():
    inner = cartpole()
    for env, limit in (
        (wrappers.time_aware(wrappers.time_limit(inner, 5)), 5),
        (wrappers.time_limit(wrappers.time_aware(inner), 5), 500),
        (wrappers.time_aware(wrappers.clip_reward(wrappers.time_limit(inner, 600))), 500),
        (wrappers.time_aware(wrappers.flatten(wrappers.time_limit(echo_env(spaces.Discrete(3)), 4))), 4),
    ):
        first, obs, *_, truncated, info, _ = walk(env, env.default_params, jnp.ones(8, jnp.int32))
        assert first[-1] == 0
        np.testing.assert_allclose(info["final_observation"][:4, -1], np.arange(1, 5) / limit, rtol=1e-6)
        np.testing.assert_array_equal(obs[truncated][:, -1], 0)


def test_statistics_are_gymnax_logwrappers():
    purerl = pytest.importorskip("gymnax.wrappers.purerl")
    env = wrappers.time_limit(cartpole(), 14)
    actions = random_actions(env)
    ours = walk(wrappers.episode_statistics(env), env.default_params, actions)
    gymnaxs = walk(purerl.LogWrapper(env), env.default_params, actions)
    for name in ("returned_episode_returns", "returned_episode_lengths", "returned_episode"):
        np.testing.assert_array_equal(ours[5][name], gymnaxs[5][name])
    assert ours[3].any() and ours[4].any()


def test_statistics_of_episodes_by_hand():
    env = wrappers.episode_statistics(wrappers.time_limit(echo_env(spaces.Discrete(5)), 3))
    *_, info, state = walk(env, Params(), jnp.array([0, 1, 2, 3, 3, 3, 4, 0]))
    np.testing.assert_array_equal(info["returned_episode"], [0, 0, 1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(info["returned_episode_returns"], [0, 0, 6, 6, 6, 0, 0, 0])
    np.testing.assert_array_equal(info["returned_episode_lengths"], [0, 0, 3, 3, 3, 3, 3, 3])
    np.testing.assert_array_equal(state.memory.episode_return, [3, 5, 0, 0, 0, 0, -1, 2])


def test_the_order_of_wrappers_counts():
    inner, actions = echo_env(spaces.Discrete(5)), jnp.array([0, 1, 2, 4, 0, 0])
    rewards = np.array([3.0, 2, 1, -1, 3, 3])
    for wrap, expected in (
        (lambda env: wrappers.clip_reward(wrappers.scale_reward(env, 0.5), -1, 1), np.clip(rewards / 2, -1, 1)),
        (lambda env: wrappers.scale_reward(wrappers.clip_reward(env, -1, 1), 0.5), np.clip(rewards, -1, 1) / 2),
    ):
        np.testing.assert_array_equal(walk(wrap(inner), Params(), actions)[2], expected)
    for wrap, total in (
        (lambda env: wrappers.clip_reward(wrappers.episode_statistics(env)), rewards.sum()),
        (lambda env: wrappers.episode_statistics(wrappers.clip_reward(env)), np.clip(rewards, -1, 1).sum()),
    ):
        assert walk(wrap(inner), Params(), actions)[5]["returned_episode_returns"][-1] == total


def everything(env):
    env = wrappers.time_limit(wrappers.sticky_action(wrappers.scale_reward(env, 2.0)), 9)
    env = wrappers.time_aware(wrappers.flatten(wrappers.frame_stack(env, 2)))
    return wrappers.clip_reward(wrappers.episode_statistics(env), -1.5, 1.5)


@pytest.mark.parametrize("make", [cartpole, noisy_env])
def test_step_is_step_env_then_a_reset(make):
    """The promise of every environment: obs after an end is the new episode's, the final one is kept beside."""
    env = everything(make())
    params = env.default_params
    keys, actions = jax.random.split(jaxrl.key(0), 60), random_actions(env, 60)
    _, obs, reward, terminated, truncated, info, state = walk(env, params, actions)
    before = jax.tree.map(lambda a, b: np.append(a[None], b[:-1], 0), env.reset(jaxrl.key(0), params)[1], state)
    step_keys, reset_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    stepped = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))(step_keys, before, actions, params)
    fresh = jax.jit(jax.vmap(env.reset_env, (0, None)))(reset_keys, params)[0]
    done = terminated | truncated
    assert truncated.any() and 3 < done.sum() < 60
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(info["final_observation"], stepped[0], **close)
    np.testing.assert_allclose(obs, np.where(done[:, None], fresh, stepped[0]), **close)
    np.testing.assert_allclose(reward, stepped[2], **close)
    np.testing.assert_array_equal(info["returned_episode"], done)


def test_observations_that_cannot_be_made_again_are_selected():
    env, actions = noisy_env(), jnp.zeros(40, jnp.int32)
    bare = walk(env, env.default_params, actions)
    assert bare[3].any() and bare[4].any()
    wrapped = wrappers.rescale_observation(wrappers.flatten(env), 0, 10)
    got = walk(wrapped, env.default_params, actions)
    np.testing.assert_allclose(got[1], bare[1] * 10, rtol=1e-5)
    np.testing.assert_allclose(got[5]["final_observation"], bare[5]["final_observation"] * 10, rtol=1e-5)
    stacked = walk(wrappers.frame_stack(env, 2), env.default_params, actions)
    np.testing.assert_array_equal(stacked[1][..., -1], bare[1])
    with pytest.raises(ValueError, match="Noisy-v0 cannot observe a state again"):
        wrapped.get_obs(got[-1])


def test_masks_stay():
    env = masked_env()
    actions = jnp.zeros(7, jnp.int32)
    bare = walk(env, env.default_params, actions)
    for wrap in (wrappers.flatten, lambda env: wrappers.frame_stack(env, 2), wrappers.index_observation):
        got = walk(wrap(env), env.default_params, actions)
        assert isinstance(got[1], Masked)
        np.testing.assert_array_equal(got[1].action_mask, bare[1].action_mask)
    flat = walk(wrappers.flatten(env), env.default_params, actions)[1].observation
    np.testing.assert_array_equal(flat, np.eye(4)[bare[1].observation])


def test_params_may_be_vmapped():
    env = wrappers.frame_stack(wrappers.rescale_observation(cartpole(), bounds=BOUNDS), 2)
    params = env.default_params
    axes = jax.tree.map(lambda _: None, params).replace(length=0)
    lengths = jnp.array([0.5, 1.0, 2.0])
    _, state = env.reset(jaxrl.key(0))
    many = jax.vmap(env.step, (None, None, None, axes))(jaxrl.key(1), state, 1, params.replace(length=lengths))[0]
    for i, length in enumerate(lengths):
        one = env.step(jaxrl.key(1), state, 1, params.replace(length=length))[0]
        np.testing.assert_allclose(many[i], one, rtol=1e-5)
    assert len(set(np.asarray(many)[:, 3, 1].tolist())) == 3


def test_equal_wrappers_are_equal_and_compile_once():
    one, two = everything(cartpole()), everything(cartpole())
    assert one == two and hash(one) == hash(two)
    assert one != everything(cartpole(length=0.7))
    assert wrappers.tile_coding(mountain_car(), 8, 8) != wrappers.tile_coding(mountain_car(), 8, 9)
    state = one.reset(jaxrl.key(0))[1]
    one.step(jaxrl.key(0), state, 0)
    compiled = api.step._cache_size()
    two.step(jaxrl.key(0), state, 0)
    assert api.step._cache_size() == compiled


def offset_reward(env, by):
    return wrappers.Wrapped(env, offset_reward, (by,), reward_fn=wrappers.bind(jnp.add, by))


def test_a_wrapper_of_ones_own():
    env = offset_reward(wrappers.clip_reward(echo_env(spaces.Discrete(5))), 10.0).with_params(Params(4))
    *_, reward, _, truncated, _, _ = walk(env, env.default_params, jnp.array([0, 3, 4, 0]))
    np.testing.assert_array_equal(reward, [11, 10, 9, 11])
    np.testing.assert_array_equal(truncated, [0, 0, 0, 1])
    assert env == offset_reward(env.env, 10.0) != offset_reward(env.env, 11.0)


def test_other_params_are_wrapped_anew():
    env = wrappers.clip_reward(wrappers.flatten(jaxrl.make("Corridor-v0")[0]))
    longer = env.with_params(jaxrl.make("Corridor-v0", length=17)[1])
    assert longer.observation_space().shape == longer.reset(jaxrl.key(0))[0].shape == (17,)
    with pytest.raises(ValueError, match="length is 1"):
        env.with_params(dataclasses.replace(env.default_params, length=1))


def test_the_inside_shows_through():
    inner = jaxrl.make("FrozenLake-v1")[0]
    env = wrappers.episode_statistics(wrappers.time_limit(wrappers.scale_reward(wrappers.flatten(inner), 3.0), 9))
    state = env.reset(jaxrl.key(0))[1]
    assert (env.name, env.num_actions, env.default_params) == ("FrozenLake-v1", 4, inner.default_params)
    assert env.render(state) == inner.render(state.env.env)
    np.testing.assert_array_equal(env.frame(state), inner.frame(state.env.env))
    np.testing.assert_array_equal(env.get_obs(state), np.eye(16)[0])
    mdp, bare = env.tabular_mdp(), inner.tabular_mdp()
    np.testing.assert_array_equal(mdp.P, bare.P)
    np.testing.assert_allclose(mdp.R, bare.R * 3)
    with pytest.raises(ValueError, match="ask the environment inside"):
        wrappers.sticky_action(inner).tabular_mdp()
    with pytest.raises(ValueError, match="gymnax:Catch-bsuite has no picture"):
        catch = wrappers.flatten(jaxrl.make("gymnax:Catch-bsuite")[0])
        catch.render(catch.reset(jaxrl.key(0))[1])


def nan_env():
    """Action 1 gives reward NaN, action 2 an infinite observation."""

    def step(key, state, action, params):
        echo = jnp.where(action == 2, jnp.inf, 0.0)
        return State(echo, state.time), jnp.where(action == 1, params.bad, 0.0), jnp.zeros((), bool)

    env = echo_env(spaces.Discrete(3), step=step, observe=lambda state, params: {"x": state.echo * jnp.ones(2)})
    return dataclasses.replace(env, reset_fn=lambda key, params: State(jnp.zeros(()), jnp.zeros((), jnp.int32)))


MISTAKES = [
    (3, r"Echo-v0: action 3 is outside Discrete"),
    (-1, r"Echo-v0: action -1 is outside Discrete"),
    (1, r"Echo-v0: reward nan is not finite"),
    (2, r"Echo-v0: observation\['x'\] \[inf inf\] is not finite"),
]


def test_checked_mistakes_are_named():
    env = wrappers.time_limit(wrappers.checked(nan_env()), 4)
    state = env.reset(jaxrl.key(0))[1]
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    keys = jax.random.split(jaxrl.key(0), 3)
    one, many = jax.jit(checkify.checkify(env.step)), jax.jit(checkify.checkify(jax.vmap(env.step)))
    for action, message in MISTAKES:
        with pytest.raises(ValueError, match=message):
            env.step(jaxrl.key(0), state, action)
        with pytest.raises(ValueError, match=message):
            one(jaxrl.key(0), state, action, Params())[0].throw()
        with pytest.raises(ValueError, match=message):
            many(keys, states, jnp.array([0, action, 0]))[0].throw()
    error, out = many(keys, states, jnp.zeros(3, jnp.int32))
    error.throw()
    np.testing.assert_array_equal(out[1].memory, 1)


def test_checked_steps_are_the_unchecked_ones():
    env = cartpole()
    state = env.reset(jaxrl.key(0))[1]
    expected = env.step(jaxrl.key(1), state, 1)
    got = wrappers.checked(env).step(jaxrl.key(1), state, 1)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, expected)


@pytest.mark.parametrize("action", [np.ones(3, np.int32), 1.0, True])
def test_an_action_of_another_kind_is_refused_while_tracing(action):
    env = wrappers.checked(cartpole())
    state = env.reset(jaxrl.key(0))[1]
    with pytest.raises(ValueError, match=r"CartPole-v1: an action .* is no element of Discrete"):
        jax.jit(env.step)(jaxrl.key(0), state, action)


def test_a_whole_run_may_be_checked():
    env, params = jaxrl.make("FrozenLake-v1")
    env = wrappers.checked(env)
    agent = jaxrl.q_learning(16, 5)  # one action too many
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(1, 4), jaxrl.LoopConfig(4))
    error, _ = checkify.checkify(lambda state: jaxrl.advance(run, state, 50))(run.init(jaxrl.key(0)))
    with pytest.raises(ValueError, match="FrozenLake-v1: action 4 is outside"):
        error.throw()


LAKE, CART, CAR = (lambda: jaxrl.make("FrozenLake-v1")[0]), cartpole, mountain_car
REFUSED = [
    (lambda: wrappers.flatten(jaxrl.make("CartPole-v1")), "flatten got a tuple; it wraps an environment"),
    (lambda: wrappers.clip_reward(jaxrl.make("CartPole-v1")), "clip_reward got a tuple"),
    (lambda: wrappers.frame_stack(CART(), 0), "k of frame_stack is 0; it must be an integer of at least 1"),
    (lambda: wrappers.frame_stack(CART(), 2.5), "k of frame_stack is 2.5"),
    (lambda: wrappers.frame_stack(CART(), 2, 2), "axis of frame_stack is 2"),
    (lambda: wrappers.frame_stack(jaxrl.make("Blackjack-v1")[0], 2), "flatten it first"),
    (lambda: wrappers.mask_action(jaxrl.make("Pendulum-v1")[0], lambda obs: obs), "mask_action needs Discrete actions"),
    (lambda: wrappers.mask_action(CART(), lambda obs: obs > 0), r"gives bool\[4\] .* each of its actions, \[2\]"),
    (lambda: wrappers.sticky_action(CART(), 1.5), r"prob of sticky_action is 1.5.*\[0, 1\]"),
    (lambda: wrappers.sticky_action(CART(), -0.1), "prob of sticky_action is -0.1"),
    (lambda: wrappers.sticky_action(CART(), math.nan), "prob of sticky_action is nan"),
    (lambda: wrappers.sticky_action(CART(), "often"), "prob of sticky_action is 'often'"),
    (lambda: wrappers.clip_reward(CART(), 1, 1), "low must be below high"),
    (lambda: wrappers.clip_reward(CART(), math.nan, 1), "low must be below high"),
    (lambda: wrappers.clip_reward(CART(), None, 1), "they must be numbers"),
    (lambda: wrappers.scale_reward(CART(), math.inf), "factor of scale_reward is inf"),
    (lambda: wrappers.rescale_observation(CART()), r"entries \[1, 3\] of CartPole-v1.*give bounds=\(low, high\)"),
    (lambda: wrappers.rescale_observation(jaxrl.make("gymnax:CartPole-v1")[0]), r"entries \[1, 3\] of gymnax:CartPole"),
    (lambda: wrappers.rescale_observation(CART(), bounds=3), r"they must be \(low, high\)"),
    (lambda: wrappers.rescale_observation(CART(), bounds=((0, 0), (1, 1))), r"or of shape \(4,\)"),
    (lambda: wrappers.rescale_observation(CART(), bounds=(1, -1)), "low below high everywhere"),
    (lambda: wrappers.rescale_observation(CART(), bounds=(-math.inf, 1)), "they must be finite"),
    (lambda: wrappers.rescale_observation(CAR(), 1, -1), "low and high of rescale_observation are 1.0 and -1.0"),
    (lambda: wrappers.rescale_observation(LAKE()), "needs a Box observation space, but FrozenLake-v1 has Discrete"),
    (lambda: wrappers.discretize_observation(CART(), 3), r"give bounds=\(low, high\)"),
    (lambda: wrappers.discretize_observation(CAR(), 0), "bins of discretize_observation is 0"),
    (lambda: wrappers.discretize_observation(CAR(), (3, 3, 3)), "one for each of 2 dimensions"),
    (lambda: wrappers.discretize_observation(CAR(), 50_000), "use fewer bins"),
    (lambda: wrappers.tile_coding(CAR(), 0, 8), "tilings of tile_coding is 0"),
    (lambda: wrappers.tile_coding(CAR(), 8, (8, 0)), "bins of tile_coding is 0"),
    (lambda: wrappers.tile_coding(CART(), 8, 8), r"give bounds=\(low, high\)"),
    (lambda: wrappers.tile_coding(LAKE(), 8, 8), "needs a Box observation space"),
    (lambda: wrappers.index_observation(CART()), "index_observation needs discrete observations, but one is Box"),
    (lambda: wrappers.discretize_action(CART(), 3), "needs a Box action space, but CartPole-v1 has Discrete"),
    (lambda: wrappers.discretize_action(jaxrl.make("Pendulum-v1")[0], 0), "bins of discretize_action is 0"),
    (lambda: wrappers.discretize_action(jaxrl.make("Pendulum-v1")[0], 1, True), "takes at least 2"),
    (lambda: wrappers.discretize_action(echo_env(spaces.Box(-np.inf, 1, (1,))), 3), "needs finite limits"),
    (lambda: wrappers.time_limit(CART(), 0), "steps of time_limit is 0"),
    (
        lambda: wrappers.time_limit(wrappers.clip_reward(wrappers.episode_statistics(CART())), 9),
        "put episode_statistics",
    ),
    (lambda: wrappers.time_aware(LAKE()), "time_aware needs a Box observation space"),
    (lambda: wrappers.time_aware(wrappers.frame_stack(CART(), 2)), "flatten it first"),
    (lambda: wrappers.time_aware(cartpole(max_steps_in_episode=api.NO_LIMIT)), "wrap it in time_limit first"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_bad_input_is_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_an_action_mask_is_shown_with_each_observation_and_joins_another():
    """Three places may not be left to the right, and the inner environment forbids one action besides."""

    def allowed(place):
        return jnp.array([True, True, False]) | (place == 3)

    env = wrappers.mask_action(masked_env(), allowed)
    obs, state = env.reset(jaxrl.key(0), env.default_params)
    for place in (0, 1, 2, 3, 0):
        inner = np.arange(3) != (place + 1) % 3
        np.testing.assert_array_equal(obs.action_mask, inner & np.asarray(allowed(place)))
        assert int(obs.observation) == place
        obs, state, *_ = env.step(jaxrl.key(1), state, 0, env.default_params)


def test_a_pole_is_balanced_by_allowed_pushes_alone():
    """Near the edges only pushes inwards are allowed; what is forbidden is never done."""

    def inwards(obs):
        return jnp.stack([obs[0] > -1.2, obs[0] < 1.2])

    env, params = jaxrl.make("CartPole-v1")
    env = wrappers.mask_action(env, inwards)
    settings = {"steps": 3_200, "learning_starts": 320, "agent.hidden": (16,), "eval_episodes": 1}
    result = jaxrl.train("dqn", (env, params), **settings)
    for x in (-2.0, 2.0):
        for seed in range(20):
            obs = jax.random.normal(jaxrl.key(seed), (4,)).at[0].set(x)
            shown = Masked(obs, inwards(obs))
            assert int(result.act(shown)) == (x < 0)
