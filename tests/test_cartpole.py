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
from jaxrl.envs import cartpole

TIMELINE = Path(__file__).parents[2] / "shared" / "data" / "horizon_cartpole_timeline.json"
TOLERANCE = {False: 1e-6, True: 1e-12}
HEAVIER = {
    "gravity": 12.0,
    "masscart": 1.5,
    "masspole": 0.3,
    "length": 0.8,
    "x_threshold": 2.0,
    "kinematics_integrator": "semi-implicit euler",
}


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


def step_gymnasium(states, actions, sutton_barto_reward=False, **overrides):
    """The same by gymnasium, in float64."""
    env = gymnasium.make("CartPole-v1", sutton_barto_reward=sutton_barto_reward).unwrapped
    env.reset()
    for name, value in overrides.items():
        assert hasattr(env, name)
        setattr(env, name, value)
    env.total_mass, env.polemass_length = env.masspole + env.masscart, env.masspole * env.length
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
@pytest.mark.parametrize(
    "overrides",
    [{}, {"theta_threshold_radians": 1.0}, {"sutton_barto_reward": True, "force_mag": 12.0, "tau": 0.03}, HEAVIER],
)
@pytest.mark.parametrize("traced", [False, True])
def test_steps_are_gymnasiums(x64, overrides, traced):
    _, params = jaxrl.make("CartPole-v1", **overrides)
    dtype = np.float64 if x64 else np.float32
    states = states_within(params.x_threshold, params.theta_threshold_radians).astype(dtype)
    states = np.nextafter(states, np.zeros_like(states))  # rounding may not put them outside
    actions = np.random.default_rng(6).integers(0, 2, len(states))
    expected, reward, terminated = step_gymnasium(states.astype(np.float64), actions, **overrides)
    with jax.enable_x64(x64):
        step = jax.jit(step_ours) if traced else step_ours
        got, obs, our_reward, our_terminated = step(params, states, actions)
    assert got.dtype == obs.dtype == dtype
    assert_close(got, expected, TOLERANCE[x64])
    assert_close(obs, np.asarray(got, np.float64), TOLERANCE[x64])  # which are two computations to some compilers
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


@pytest.mark.parametrize("bounds", [(-0.05, 0.05), (-0.02, 0.2)])
def test_starts_are_uniform(bounds):
    env, params = jaxrl.make("CartPole-v1", reset_low=bounds[0], reset_high=bounds[1])
    starts = np.asarray(jax.vmap(env.reset, (0, None))(jax.random.split(jaxrl.key(0), 10_000), params)[0])
    histogram = np.stack([np.histogram(column, 10, bounds)[0] for column in starts.T])
    assert (histogram.sum(1) == 10_000).all()
    assert ((histogram - 1000) ** 2 / 1000).sum(1).max() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert np.abs(np.corrcoef(starts.T) - np.eye(4)).max() < 0.05
    theirs = [
        gymnasium.make("CartPole-v1").reset(seed=i, options=dict(zip(("low", "high"), bounds)))[0] for i in (1, 2)
    ]
    assert (np.abs(np.array(theirs) - np.mean(bounds)) <= np.ptp(bounds) / 2).all()


def test_params_may_be_vmapped():
    """Domain randomisation: 1,024 pole lengths are 1,024 single steps."""
    env, params = jaxrl.make("CartPole-v1")
    lengths = np.linspace(0.2, 2.0, 1024, dtype=np.float32)
    axes = jax.tree.map(lambda _: None, params).replace(length=0)
    _, state = env.reset(jaxrl.key(0))
    step = jax.vmap(env.step, (None, None, None, axes))
    many = np.asarray(step(jaxrl.key(1), state, 1, params.replace(length=jnp.asarray(lengths)))[0])
    ones = [env.step(jaxrl.key(1), state, 1, params.replace(length=length))[0] for length in lengths]
    np.testing.assert_allclose(many, np.array(ones), rtol=1e-6, atol=1e-7)
    assert len(np.unique(many[:, 3])) > 1000


def test_the_old_id_is_cut_at_200_and_hidden_velocities_are_hidden():
    for env_id in ("CartPole-v0", "CartPole-v1"):
        env, params = jaxrl.make(env_id)
        assert env.name == env_id
        assert params.max_steps_in_episode == gymnasium.spec(env_id).max_episode_steps
    env, params = jaxrl.make("PositionOnlyCartPole-v1")
    full, _ = jaxrl.make("CartPole-v1")
    assert (env.name, params) == ("PositionOnlyCartPole-v1", full.default_params)
    obs, state = env.reset(jaxrl.key(0))
    for time in range(12):
        space = env.observation_space(params)
        assert (space.shape, obs.shape, bool(space.contains(obs))) == ((2,), (2,), True)
        np.testing.assert_array_equal(obs, full.get_obs(state)[::2])
        their_obs, their_state, *_ = full.step(jaxrl.key(time), state, 1)
        obs, state, *_ = env.step(jaxrl.key(time), state, 1)
        np.testing.assert_allclose(obs, their_obs[::2], rtol=1e-6)
        np.testing.assert_allclose(tuple(state), tuple(their_state), rtol=1e-6)


@pytest.mark.parametrize(("overrides", "half"), [({}, 1.2), ({"x_threshold": 1.5}, 0.75)])
def test_beyond_half_the_track_only_a_push_back_is_allowed(overrides, half):
    env, params = jaxrl.make("MaskedCartPole-v1", **overrides)
    half = np.float32(half)
    inside, outside = np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(9))
    left, right, both = [True, False], [False, True], [True, True]
    for x, allowed in [
        (2 * half + 0.1, left),  # where the episode has ended
        (outside, left),
        (half, both),
        (inside, both),
        (0, both),
        (-inside, both),
        (-half, both),
        (-outside, right),
        (-2 * half - 0.1, right),
    ]:
        state = cartpole.State(*jnp.array([x, -3.0, 0.1, 3.0], jnp.float32), time=jnp.zeros((), jnp.int32))
        for get_obs in (env.get_obs, jax.jit(env.get_obs)):
            obs = get_obs(state, params)
            np.testing.assert_array_equal(obs.observation, np.array([x, -3.0, 0.1, 3.0], np.float32))
            assert (obs.action_mask.dtype, obs.action_mask.tolist()) == (bool, allowed), x


def test_a_mask_leaves_the_physics_alone():
    """A push is done even where the mask forbids it: every step is CartPole's, resets too."""
    env, params = jaxrl.make("MaskedCartPole-v1")
    full, full_params = jaxrl.make("CartPole-v1")
    assert (env.name, params) == ("MaskedCartPole-v1", full_params)
    assert str(env.observation_space(params)) == str(full.observation_space(params))
    states = states_within(params.x_threshold, params.theta_threshold_radians, 2_000).astype(np.float32)
    batch = cartpole.State(*jnp.asarray(states).T, time=jnp.zeros(len(states), jnp.int32))
    actions = np.random.default_rng(7).integers(0, 2, len(states))
    keys = jax.random.split(jaxrl.key(0), len(states))
    results = [jax.jit(jax.vmap(each.step, (0, 0, 0, None)))(keys, batch, actions, params) for each in (env, full)]
    (obs, *ours, info), (their_obs, *theirs, their_info) = results
    jax.tree.map(lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6), ours, theirs)
    terminated = np.asarray(theirs[2])
    assert 0.01 < terminated.mean() < 0.99
    for shown, expected in ((obs, their_obs), (info["final_observation"], their_info["final_observation"])):
        np.testing.assert_allclose(shown.observation, expected, rtol=1e-5, atol=1e-6)
        for x, allowed in zip(np.asarray(shown.observation[:, 0], np.float64), np.asarray(shown.action_mask)):
            assert allowed.tolist() == ([True, False] if x > 1.2 else [False, True] if x < -1.2 else [True, True])
    outwards = (np.abs(states[:, 0]) > 1.2) & ((states[:, 0] > 0) == actions)
    assert (outwards & ~terminated).sum() > 100
    assert np.asarray(obs.action_mask)[terminated].all()  # they begin anew in the middle


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


def test_frame_mirrors_what_is_mirrored():
    env, params = jaxrl.make("CartPole-v1")
    state = cartpole.State(x=1.1, x_dot=0.0, theta=0.15, theta_dot=0.0, time=3)
    picture = env.frame(state)
    assert (picture.shape, picture.dtype) == ((160, 240, 3), np.uint8)
    np.testing.assert_array_equal(env.frame(state._replace(x=-1.1, theta=-0.15)), picture[:, ::-1])
    cart = np.nonzero((picture == np.array([24, 24, 27])).all(-1))[1]
    assert abs(cart.mean() / 240 * 2 * 1.05 * 2.4 - 1.05 * 2.4 - 1.1) < 0.05


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"masspole": 0.0}, "masspole is 0.0"),
        ({"tau": -0.02}, "tau is -0.02"),
        ({"gravity": float("nan")}, "gravity of CartPole-v1 is nan"),
        ({"reset_low": 0.1}, "reset_high is 0.05"),
        ({"kinematics_integrator": "eular"}, "did you mean 'euler'"),
        ({"sutton_barto_reward": 1}, "of type bool"),
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
