"""MountainCar, its continuous kin, Acrobot and Pendulum against gymnasium, stepped from the same states."""

import operator

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import acrobot, mountain_car, mountain_car_continuous, pendulum, trig

NUMBER = 10_000
MODULES = {
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Acrobot-v1": acrobot,
    "Pendulum-v1": pendulum,
}
CHANGED = {
    "MountainCar-v0": {
        "goal_velocity": 0.02,
        "gravity": 0.003,
        "force": 0.0012,
        "min_position": -1.1,
        "max_speed": 0.06,
    },
    "MountainCarContinuous-v0": {"goal_velocity": 0.01, "power": 0.002, "min_action": -0.8, "max_action": 0.5},
    "Acrobot-v1": {
        "dt": 0.15,
        "link_length_1": 0.8,
        "link_mass_1": 1.2,
        "link_mass_2": 0.9,
        "link_com_pos_1": 0.45,
        "link_com_pos_2": 0.55,
        "link_moi": 1.1,
        "max_vel_1": 4.0,
        "max_vel_2": 9.0,
        "avail_torque": (-2.0, 0.5, 1.5),
        "book_or_nips": "nips",
    },
    "Pendulum-v1": {"g": 9.0, "m": 1.3, "l": 0.7, "dt": 0.04, "max_speed": 6.0, "max_torque": 1.5},
}


def draw(env_id):
    """(states float64 [N, k], actions): beyond the goals, at the walls and over the speed limits too."""
    rng = np.random.default_rng(3)
    if env_id.startswith("MountainCar"):
        states = rng.uniform((-1.2, -0.07), (0.6, 0.07), (NUMBER, 2))
        states[:1000, 0] = rng.uniform(-1.2, -1.1, 1000)
        states[1000:3000, 0] = rng.uniform(0.35, 0.6, 2000)
    elif env_id == "Acrobot-v1":
        states = rng.uniform(-1, 1, (NUMBER, 4)) * np.array([np.pi, np.pi, 4 * np.pi, 9 * np.pi])
        states[:5000, 2:] *= 0.1
    else:
        states = rng.uniform(-1, 1, (NUMBER, 2)) * np.array([60.0, 8.0])
    if env_id in ("MountainCar-v0", "Acrobot-v1"):
        return states, rng.integers(0, 3, NUMBER)
    return states, rng.uniform(-3, 3, (NUMBER, 1))


def step_ours(env_id, params, states, actions):
    """One `step_env` of each state: (next states [N, k], observations, rewards, terminated)."""
    env, _ = jaxrl.make(env_id)
    batch = MODULES[env_id].State(*jnp.asarray(states).T, time=jnp.zeros(len(states), jnp.int32))
    step = jax.vmap(env.step_env, (None, 0, 0, None))
    obs, after, reward, terminated, _ = step(jaxrl.key(0), batch, jnp.asarray(actions), params)
    return jnp.stack(after[:-1], 1), obs, reward, terminated


def step_gymnasium(env_id, overrides, states, actions):
    """The same by gymnasium, in float64."""
    env = gymnasium.make(env_id).unwrapped
    env.reset()
    for name, value in overrides.items():
        physical = name.startswith(("link", "max_vel", "avail"))
        assert hasattr(env, name.upper() if physical else name)
        setattr(env, name.upper() if physical else name, value)
    rows = []
    for state, action in zip(states, actions, strict=True):
        env.state = state.copy()
        obs, reward, terminated, _, _ = env.step(action)
        rows.append((np.array(env.state, np.float64), obs, reward, terminated))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def clear_of_thresholds(env_id, params, states, actions, after):
    """bool [N]: where rounding to float32 cannot flip a flag or the wall's stop."""
    if env_id == "Acrobot-v1":  # of a faster arm the last bit of the state moves the next one by 1e-5 and more
        slow = np.abs(states[:, 2:]).max(1) < 9
        return slow & (np.abs(-np.cos(after[:, 0]) - np.cos(after[:, 0] + after[:, 1]) - 1) > 1e-5)
    if env_id == "Pendulum-v1":
        return np.ones(len(states), bool)
    if env_id == "MountainCar-v0":
        push = (actions - 1) * params.force
    else:
        push = np.clip(actions[:, 0], params.min_action, params.max_action) * params.power
    speed = states[:, 1] + push - params.gravity * np.cos(3 * states[:, 0])
    place = states[:, 0] + np.clip(speed, -params.max_speed, params.max_speed)
    margin = np.minimum(after[:, 0] - params.goal_position, after[:, 1] - params.goal_velocity)
    return (np.abs(margin) > 1e-5) & (np.abs(place - params.min_position) > 1e-5)


def assert_close(got, expected, tolerance):
    error = np.abs(np.asarray(got, np.float64) - expected) / np.maximum(1, np.abs(expected))
    assert error.max() <= tolerance


@pytest.mark.parametrize("env_id", MODULES)
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("changed", [False, True])
def test_steps_are_gymnasiums(env_id, x64, changed):
    """With the params of the registry, concrete, and with others, traced."""
    overrides = CHANGED[env_id] if changed else {}
    _, params = jaxrl.make(env_id, **overrides)
    states, actions = draw(env_id)
    if not x64:
        states = states.astype(np.float32)
        actions = actions if actions.ndim == 1 else actions.astype(np.float32)
    wide = actions if actions.ndim == 1 else actions.astype(np.float64)
    expected, obs, reward, terminated = step_gymnasium(env_id, overrides, states.astype(np.float64), wide)
    with jax.enable_x64(x64):
        if changed:
            got = jax.jit(step_ours, static_argnums=0)(env_id, params, states, actions)
        else:
            got = jax.jit(lambda s, a: step_ours(env_id, params, s, a))(states, actions)
    after, our_obs, our_reward, our_terminated = map(np.asarray, got)

    kept = np.ones(NUMBER, bool)
    if not x64:
        kept = clear_of_thresholds(env_id, params, states.astype(np.float64), wide, expected)
        assert kept.mean() > (0.6 if env_id == "Acrobot-v1" else 0.99)
        if env_id == "Acrobot-v1":  # -pi and pi are one angle
            after = after.astype(np.float64)
            after[:, :2] += 2 * np.pi * np.round((expected[:, :2] - after[:, :2]) / (2 * np.pi))
    tolerance = 1e-5 if not x64 else 1e-9 if env_id == "Acrobot-v1" else 1e-12
    assert_close(after[kept], expected[kept], tolerance)
    assert_close(our_obs[kept], obs[kept], 1e-5)  # gymnasium's are float32
    np.testing.assert_array_equal(our_terminated[kept], terminated[kept])
    if actions.ndim == 1:
        np.testing.assert_array_equal(our_reward[kept], reward[kept])
    else:
        assert_close(our_reward[kept], reward[kept], 1e-5 if not x64 else 1e-7)  # rewards are float32
    dtype = np.float64 if x64 and env_id != "MountainCarContinuous-v0" else np.float32
    assert (got[0].dtype, our_obs.dtype, our_reward.dtype) == (dtype, dtype, np.float32)
    assert terminated.any() == (env_id != "Pendulum-v1")
    assert not terminated.all()


def policy(env_id, swing, state):
    """Pushes along the motion, which swings up, or does nothing."""
    if env_id == "Pendulum-v1":
        return jnp.where(swing, jnp.sign(state.theta_dot) * 2.5, 0.0)[None]
    if env_id == "Acrobot-v1":
        return jnp.where(swing, jnp.where(state.dtheta2 - state.dtheta1 > 0, 2, 0), 1)
    push = jnp.where(state.velocity >= 0, 1.0, -1.0)
    if env_id == "MountainCar-v0":
        return jnp.where(swing, 1 + push, 1).astype(jnp.int32)
    return jnp.where(swing, 1.2 * push, 0.0)[None]


@pytest.mark.parametrize("env_id", MODULES)
def test_whole_episodes_end_as_gymnasiums(env_id):
    """Every step of an episode that swings up, and of one that idles until the limit."""
    env, params = jaxrl.make(env_id)
    assert params.max_steps_in_episode == gymnasium.spec(env_id).max_episode_steps

    def run(swing):
        def body(state, key):
            action = policy(env_id, swing, state)
            _, after, *rest = env.step(key, state, action, params)
            return after, (state, action, *rest)

        keys = jax.random.split(jaxrl.key(1), params.max_steps_in_episode)
        return jax.lax.scan(body, env.reset(jaxrl.key(2), params)[1], keys)

    theirs = gymnasium.make(env_id, disable_env_checker=True)
    with jax.enable_x64(True):
        last, trails = jax.device_get(jax.jit(jax.vmap(run))(jnp.array([True, False])))
    for lane, swings in enumerate((True, False)):
        theirs.reset()
        for t in range(params.max_steps_in_episode):
            state, action, reward, terminated, truncated, info = jax.tree.map(operator.itemgetter((lane, t)), trails)
            theirs.unwrapped.state = np.array(state[:-1])
            obs, their_reward, *ends, _ = theirs.step(action)
            assert [terminated, truncated] == ends
            np.testing.assert_allclose(reward, their_reward, rtol=1e-6)
            np.testing.assert_allclose(info["final_observation"], obs, atol=1e-6)
            if any(ends):
                break
        assert ends == ([True, False] if swings and env_id != "Pendulum-v1" else [False, True])
        if not swings:
            assert last.time[lane] == 0


STARTS = {
    "MountainCar-v0": [(-0.6, -0.4), None],
    "MountainCarContinuous-v0": [(-0.6, -0.4), None],
    "Acrobot-v1": [(-0.1, 0.1)] * 4,
    "Pendulum-v1": [(-np.pi, np.pi), (-1.0, 1.0)],
}


@pytest.mark.parametrize("env_id", MODULES)
@pytest.mark.parametrize("changed", [False, True])
def test_starts_are_uniform(env_id, changed):
    overrides, bounds = {}, STARTS[env_id]
    if changed and env_id == "Pendulum-v1":
        overrides, bounds = {"x_init": 0.5, "y_init": 2.0}, [(-0.5, 0.5), (-2.0, 2.0)]
    elif changed:
        overrides, bounds = {"reset_low": -0.3, "reset_high": 0.2}, [b and (-0.3, 0.2) for b in bounds]
    env, params = jaxrl.make(env_id, **overrides)
    state = jax.vmap(env.reset, (0, None))(jax.random.split(jaxrl.key(0), NUMBER), params)[1]
    columns = [np.asarray(column) for column in state[:-1]]
    for column, bound in zip(columns, bounds, strict=True):
        if bound is None:
            assert (column == 0).all()
        else:
            counts = np.histogram(column, 10, bound)[0]
            assert counts.sum() == NUMBER
            assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    drawn = [column for column, bound in zip(columns, bounds, strict=True) if bound]
    assert np.abs(np.atleast_2d(np.corrcoef(drawn)) - np.eye(len(drawn))).max() < 0.05


@pytest.mark.parametrize(
    ("env_id", "name"),
    [("MountainCar-v0", "gravity"), ("MountainCarContinuous-v0", "max_action"), ("Acrobot-v1", "link_mass_2")]
    + [("Pendulum-v1", "max_torque")],
)
def test_params_may_be_vmapped(env_id, name):
    """Domain randomisation: each lane has physics of its own, as when it is stepped alone."""
    env, params = jaxrl.make(env_id)
    values = jnp.linspace(0.2, 1.0, 64) * getattr(params, name)
    axes = jax.tree.map(lambda _: None, params).replace(**{name: 0})
    _, state = env.reset(jaxrl.key(0))
    action = jnp.full((1,), 2.0) if env_id in ("MountainCarContinuous-v0", "Pendulum-v1") else 2
    step = jax.vmap(env.step, (None, None, None, axes))
    many = np.asarray(step(jaxrl.key(1), state, action, params.replace(**{name: values}))[0])
    ones = [env.step(jaxrl.key(1), state, action, params.replace(**{name: value}))[0] for value in values]
    np.testing.assert_allclose(many, ones, rtol=1e-6, atol=1e-7)
    assert len(np.unique(many, axis=0)) > 60


@pytest.mark.parametrize("env_id", MODULES)
def test_observations_stay_in_their_space(env_id):
    """Rounding may not take a sine beyond 1."""
    env, params = jaxrl.make(env_id)
    states, actions = draw(env_id)
    _, obs, _, _ = jax.jit(step_ours, static_argnums=0)(env_id, params, states.astype(np.float32), actions)
    space = env.observation_space(params)
    assert jax.vmap(space.contains)(obs).all()
    assert obs.shape[1:] == space.shape == gymnasium.make(env_id).observation_space.shape
    np.testing.assert_array_equal(space.high, gymnasium.make(env_id).observation_space.high)
    np.testing.assert_array_equal(space.low, gymnasium.make(env_id).observation_space.low)


def test_continuous_actions_are_bounded_in_their_space_alone():
    """A scalar passes for an action; the penalty is of the action as given, the push of the clipped."""
    env, params = jaxrl.make("MountainCarContinuous-v0")
    _, state = env.reset(jaxrl.key(0))
    one, much, scalar = (env.step(jaxrl.key(0), state, a) for a in (jnp.ones(1), jnp.full(1, 3.0), 3.0))
    np.testing.assert_array_equal(one[0], much[0])
    np.testing.assert_array_equal(scalar[0], much[0])
    np.testing.assert_allclose((one[2], much[2], scalar[2]), (-0.1, -0.9, -0.9), rtol=1e-6)
    for env_id, high in (("MountainCarContinuous-v0", 1.0), ("Pendulum-v1", 2.0)):
        env, params = jaxrl.make(env_id)
        assert (env.action_space(params).low, env.action_space(params).high) == (-high, high)
        assert env.num_actions == 1


def test_acrobots_noise_is_as_wide_as_asked():
    """Torque 1 with noise of up to 0.5 spreads over what torques from 0.5 to 1.5 do."""
    env, params = jaxrl.make("Acrobot-v1", torque_noise_max=0.5)
    assert env.splits(params)
    assert not jaxrl.make("Acrobot-v1")[0].splits(acrobot.Params())
    _, state = env.reset(jaxrl.key(0))
    keys = jax.random.split(jaxrl.key(1), 2000)
    step = jax.jit(jax.vmap(env.step_env, (0, None, 0, None)))
    noisy = np.asarray(step(keys, state, jnp.full(2000, 2), params)[1].dtheta2)
    low, _, high = np.asarray(
        step(keys[:3], state, jnp.arange(3), acrobot.Params(avail_torque=(0.5, 1.0, 1.5)))[1].dtheta2
    )
    counts = np.histogram(noisy, 10, (low - 1e-6, high + 1e-6))[0]
    assert counts.sum() == 2000
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # the response is almost linear


@pytest.mark.parametrize("x64", [False, True])
def test_sine_and_cosine_hold_for_any_angle(x64):
    angles = np.concatenate([np.linspace(-7, 7, 20_001), np.linspace(-1e4, 1e4, 20_001), [0.0, np.pi / 2, np.pi]])
    with jax.enable_x64(x64):
        angles = angles.astype(np.float64 if x64 else np.float32)
        sine, cosine = map(np.asarray, jax.jit(trig.sincos)(angles))
        beyond = np.asarray(jax.jit(trig.sincos)(np.geomspace(1e4, 1e30, 20_001).astype(angles.dtype)))
    for got, expected in ((sine, np.sin(angles, dtype=float)), (cosine, np.cos(angles, dtype=float))):
        assert np.abs(got.astype(float) - expected).max() <= (1e-15 if x64 else 3e-7)
        assert np.abs(got).max() <= 1
    assert np.abs(beyond).max() <= 1
    assert cosine[20_001 * 2] == 1


def test_sine_never_rounds_beyond_one():
    """Every float32 near a quarter turn."""
    first, last = (int(np.float32(angle).view(np.int32)) for angle in (1.5, 1.65))
    near = np.arange(first, last, dtype=np.int32).view(np.float32)
    sine, _ = jax.jit(trig.sincos)(near)
    assert np.asarray(sine).max() <= 1


@pytest.mark.parametrize("x64", [False, True])
def test_wrapped_angles_are_the_same_angles(x64):
    with jax.enable_x64(x64):
        angles = np.linspace(-1000, 1000, 20_001).astype(np.float64 if x64 else np.float32)
        wrapped = np.asarray(jax.jit(trig.wrap)(angles), np.float64)
    assert np.abs(wrapped).max() <= np.pi + (1e-12 if x64 else 1e-6)
    turns = (angles.astype(np.float64) - wrapped) / (2 * np.pi)
    assert np.abs(turns - np.round(turns)).max() < (1e-12 if x64 else 1e-7)


def test_pictures_mirror_what_is_mirrored():
    """Left and right exchanged; and the car is where its position says."""
    for env_id, state in (
        ("Acrobot-v1", acrobot.State(0.7, -1.1, 0.0, 0.0, 0)),
        ("Pendulum-v1", pendulum.State(0.7, 0.0, 0)),
    ):
        env, _ = jaxrl.make(env_id)
        mirrored = type(state)(*(-x for x in state))
        picture = env.frame(state)
        assert (picture.shape, picture.dtype) == ((160, 240, 3), np.uint8)
        np.testing.assert_array_equal(env.frame(mirrored), picture[:, ::-1])
        assert (picture != env.frame(type(state)(*(0 * x for x in state)))).any()
        assert "\u2580" in env.render(state)
    for env_id, state_type in (
        ("MountainCar-v0", mountain_car.State),
        ("MountainCarContinuous-v0", mountain_car_continuous.State),
    ):
        env, params = jaxrl.make(env_id)
        for position in (-1.0, -0.5, 0.3):
            blue = env.frame(state_type(position, 0.0, 0)) == np.array([52, 101, 195])
            columns = np.nonzero(blue.all(-1))[1]
            assert abs(columns.mean() / 240 * 1.8 - 1.2 - position) < 0.06


@pytest.mark.parametrize(
    ("env_id", "overrides", "message"),
    [
        ("MountainCar-v0", {"force": -0.1}, "force is -0.1"),
        ("MountainCar-v0", {"max_position": -1.3}, "max_position is -1.3"),
        ("MountainCar-v0", {"reset_low": 0.0}, "reset_high is -0.4"),
        ("MountainCar-v0", {"max_speed": 0.0}, "max_speed is 0.0"),
        ("MountainCar-v0", {"goal_velocty": 0.0}, "did you mean 'goal_velocity'"),
        ("MountainCarContinuous-v0", {"min_action": 2.0}, "max_action is 1.0"),
        ("MountainCarContinuous-v0", {"power": float("inf")}, "power of MountainCarContinuous-v0 is inf"),
        ("Acrobot-v1", {"link_mass_1": 0.0}, "link_mass_1 is 0.0"),
        ("Acrobot-v1", {"book_or_nips": "bok"}, "did you mean 'book'"),
        ("Acrobot-v1", {"avail_torque": ()}, "at least one torque"),
        ("Acrobot-v1", {"torque_noise_max": -1.0}, "torque_noise_max is -1.0"),
        ("Acrobot-v1", {"reset_high": -0.2}, "reset_high is -0.2"),
        ("Pendulum-v1", {"dt": 0.0}, "dt is 0.0"),
        ("Pendulum-v1", {"max_torque": -1.0}, "max_torque is -1.0"),
        ("Pendulum-v1", {"max_steps_in_episode": 0}, "at least 1"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(env_id, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make(env_id, **overrides)
    assert "\n" not in str(error.value)
