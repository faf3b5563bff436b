"""CartPole against gymnasium, stepped side by side from the same states, and against logged transitions."""

import json
import math
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import cartpole, trig

TIMELINE = Path(__file__).parents[2] / "shared" / "data" / "horizon_cartpole_timeline.json"
TOLERANCE = {False: 1e-6, True: 1e-12}
FIELDS = ("x", "x_dot", "theta", "theta_dot")


def states_within(x: float, theta: float, number: int = 10_000) -> np.ndarray:
    """float64 [number, 4]: the positions up to the termination bounds, fast and slow."""
    rng = np.random.default_rng(5)
    states = rng.uniform(-1, 1, (number, 4)) * np.array([x, 3.0, theta, 4.0])
    states[:4] = [[x, 0, theta, 0], [-x, 0, -theta, 0], [0, 0, 0, 0], [x, 3, theta, 4]]
    return states


def step_ours(params, states, actions):
    """One `step_env` of each state [N, 4]: (next state [N, 4], observation [N, 4], reward [N], terminated [N])."""
    env, _ = jaxrl.make("CartPole-v1")
    batch = cartpole.State(*jnp.asarray(states).T, time=jnp.zeros(len(states), jnp.int32))
    step = jax.vmap(env.step_env, (None, 0, 0, None))
    obs, after, reward, terminated, _ = step(jaxrl.key(0), batch, jnp.asarray(actions), params)
    return jnp.stack(after[:4], 1), obs, reward, terminated


def step_gymnasium(states, actions, theta_threshold=None):
    """The same by gymnasium, in float64."""
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset()
    if theta_threshold is not None:
        env.theta_threshold_radians = theta_threshold
    after, rewards, ends = [], [], []
    for state, action in zip(states, actions, strict=True):
        env.state, env.steps_beyond_terminated = state, None
        _, reward, terminated, _, _ = env.step(int(action))
        after.append(env.state)
        rewards.append(reward)
        ends.append(terminated)
    return np.array(after), np.array(rewards), np.array(ends)


def assert_close(got, expected, tolerance):
    error = np.abs(np.asarray(got, np.float64) - expected) / np.maximum(1, np.abs(expected))
    assert error.max() <= tolerance


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("theta_threshold", [None, 1.0])
@pytest.mark.parametrize("traced", [False, True])
def test_steps_are_gymnasiums(x64, theta_threshold, traced):
    overrides = {} if theta_threshold is None else {"theta_threshold_radians": theta_threshold}
    _, params = jaxrl.make("CartPole-v1", **overrides)
    dtype = np.float64 if x64 else np.float32
    states = states_within(params.x_threshold, params.theta_threshold_radians).astype(dtype)
    states = np.nextafter(states, np.zeros_like(states))  # rounding may not put them outside
    actions = np.random.default_rng(6).integers(0, 2, len(states))
    expected, reward, terminated = step_gymnasium(states.astype(np.float64), actions, theta_threshold)
    with jax.enable_x64(x64):
        step = jax.jit(step_ours) if traced else step_ours
        got, obs, our_reward, our_terminated = step(params, states, actions)
    assert got.dtype == obs.dtype == dtype
    assert_close(got, expected, TOLERANCE[x64])
    np.testing.assert_array_equal(obs, got)
    np.testing.assert_array_equal(our_reward, reward)
    np.testing.assert_array_equal(our_terminated, terminated)
    assert 0.01 < terminated.mean() < 0.99


def test_whole_episodes_are_gymnasiums():
    """The same actions from the same start end both on the same step: by the pole, and by the limit."""
    env, params = jaxrl.make("CartPole-v1")
    theirs = gymnasium.make("CartPole-v1")
    with jax.enable_x64(True):
        step = jax.jit(env.step)
        obs, state = env.reset(jaxrl.key(4))
        for policy in ("balance", "fall"):
            theirs.reset()
            for time in range(1, 501):
                theirs.unwrapped.state = np.array(state[:4])  # the pole is unstable: rounding would grow
                angle, spin = float(obs[2]), float(obs[3])
                action = int(angle + 0.5 * spin + 0.05 * float(obs[0]) + 0.1 * float(obs[1]) > 0)
                action = action if policy == "balance" else 1
                obs, state, reward, terminated, truncated, info = step(jaxrl.key(time), state, action, params)
                their_obs, their_reward, *their_ends, _ = theirs.step(action)
                np.testing.assert_allclose(info["final_observation"], their_obs, atol=1e-6)
                assert (reward, [terminated, truncated]) == (their_reward, their_ends)
                if terminated or truncated:
                    break
            assert truncated if policy == "balance" else terminated
            assert state.time == 0


@pytest.mark.parametrize("x64", [False, True])
def test_logged_transitions_replay(x64):
    """Transitions that another system logged from Gym's CartPole (Horizon, 2019)."""
    if not TIMELINE.exists():
        pytest.skip(f"no {TIMELINE.name} in shared/data beside the repository")
    rows = [json.loads(line) for line in TIMELINE.read_text().splitlines()]
    before, after = (
        np.array([[row[name][str(i)] for i in range(4)] for row in rows])
        for name in ("state_features", "next_state_features")
    )
    actions = np.array([row["action"] for row in rows])
    with jax.enable_x64(x64):
        states = before if x64 else before.astype(np.float32)
        got, _, reward, terminated = step_ours(cartpole.Params(), states, actions)
    assert_close(got, after, TOLERANCE[x64])
    np.testing.assert_array_equal(reward, [row["reward"] for row in rows])
    ended = np.array([not any(row["possible_next_actions"]) for row in rows])
    cut = np.array([row["sequence_number"] == 199 for row in rows])  # by the limit of CartPole-v0, 200 steps
    np.testing.assert_array_equal(terminated, ended & ~cut)
    assert len(rows) > 3000


@pytest.mark.parametrize("x64", [False, True])
def test_sine_and_cosine_hold_for_any_angle(x64):
    angles = np.concatenate([np.linspace(-7, 7, 20_001), np.linspace(-1e4, 1e4, 20_001)])
    with jax.enable_x64(x64):
        angles = angles.astype(np.float64 if x64 else np.float32)
        sine, cosine = jax.jit(trig.sincos)(angles)
    for got, expected in ((sine, np.sin(angles, dtype=float)), (cosine, np.cos(angles, dtype=float))):
        assert np.abs(np.asarray(got, float) - expected).max() <= (1e-15 if x64 else 3e-7)


def test_starts_are_uniform_near_rest():
    env, _ = jaxrl.make("CartPole-v1")
    starts = np.asarray(jax.vmap(env.reset)(jax.random.split(jaxrl.key(0), 10_000))[0])
    assert np.abs(starts).max() <= 0.05
    histogram = np.stack([np.histogram(column, 10, (-0.05, 0.05))[0] for column in starts.T])
    assert ((histogram - 1000) ** 2 / 1000).sum(1).max() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert np.abs(np.corrcoef(starts.T) - np.eye(4)).max() < 0.05


def test_params_may_be_vmapped():
    """Domain randomisation: each lane has physics of its own."""
    env, params = jaxrl.make("CartPole-v1")
    lengths = jnp.array([0.5, 1.0, 2.0])
    axes = jax.tree.map(lambda _: None, params).replace(length=0)
    obs, state = env.reset(jaxrl.key(0))
    step = jax.vmap(env.step, (None, None, None, axes))
    many = step(jaxrl.key(1), state, 1, params.replace(length=lengths))[0]
    for i, length in enumerate(lengths):
        one = env.step(jaxrl.key(1), state, 1, params.replace(length=length))[0]
        np.testing.assert_allclose(many[i], one, rtol=1e-6)
    assert len(set(np.asarray(many)[:, 3].tolist())) == 3


def test_observation_space_holds_what_failed():
    env, params = jaxrl.make("CartPole-v1", theta_threshold_radians=0.3)
    space = env.observation_space(params)
    assert space.contains(jnp.array([4.8, 1e6, 0.6, -1e6], jnp.float32))
    assert not space.contains(jnp.array([0.0, 0.0, 0.61, 0.0], jnp.float32))
    assert env.action_space(params).n == env.num_actions == 2


def test_render_shows_the_cart():
    env, params = jaxrl.make("CartPole-v1")
    state = cartpole.State(x=2.4, x_dot=0.0, theta=math.radians(6), theta_dot=0.0, time=3)
    caption, pole, track = env.render(state).split("\n")
    assert caption == "step 3  x +2.400  angle +6.00 degrees"
    assert pole == " " * 60 + "/"
    assert track == "-" * 60 + "\x1b[7m#\x1b[0m"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"masspole": 0.0}, "masspole is 0.0"),
        ({"tau": -0.02}, "tau is -0.02"),
        ({"gravity": float("nan")}, "gravity of CartPole-v1 is nan"),
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"max_steps_in_episode": 10.5}, "of type int"),
        ({"length": "long"}, "of type float"),
        ({"length": np.ones(3)}, "vmap over params"),
        ({"theta_threshold": 1.0}, "did you mean 'theta_threshold_radians'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make("CartPole-v1", **overrides)
    assert "\n" not in str(error.value)
