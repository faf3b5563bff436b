"""CliffWalking against gymnasium: the whole transition table, from every cell, and the frequencies of `step`."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import api, raster
from jaxrl.envs.cliff_walking import State

IDS = ["CliffWalking-v1", "CliffWalkingSlippery-v1"]
GOAL = 47


def gymnasium_table(env_id):
    """(P [S, A, S], rewards [S, A, S], terminated [S, A, S]) of gymnasium's `env.unwrapped.P`."""
    P, rewards, ends = np.zeros((48, 4, 48)), np.zeros((48, 4, 48)), np.zeros((48, 4, 48), bool)
    for s, actions in gymnasium.make(env_id).unwrapped.P.items():
        for a, outcomes in actions.items():
            for chance, after, reward, terminated in outcomes:
                P[s, a, after] += chance
                rewards[s, a, after] = reward
                ends[s, a, after] = terminated
    return P, rewards, ends


def gymnasium_means(env_id):
    R = np.zeros((48, 4))
    for s, actions in gymnasium.make(env_id).unwrapped.P.items():
        for a, outcomes in actions.items():
            for chance, _, reward, _ in outcomes:
                R[s, a] += chance * reward  # not by sum, which compensates rounding from Python 3.12 on
    return R


@pytest.mark.parametrize("env_id", IDS)
def test_tabular_is_gymnasiums_table_with_an_absorbing_goal(env_id):
    env, params = jaxrl.make(env_id)
    P, R, terminal, start = env.tabular_mdp(params)
    others = np.arange(48) != GOAL
    np.testing.assert_array_equal(P[others], gymnasium_table(env_id)[0][others])
    np.testing.assert_array_equal(R[others], gymnasium_means(env_id)[others])
    assert (P[GOAL, :, GOAL] == 1).all() and not R[GOAL].any()
    np.testing.assert_array_equal(terminal, ~others)
    np.testing.assert_array_equal(start, gymnasium.make(env_id).unwrapped.initial_state_distrib)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_steps_have_gymnasiums_frequencies_from_every_cell(env_id, make_key):
    """From the goal, too: there `step` goes on as gymnasium does, and only `tabular` stays."""
    env, params = jaxrl.make(env_id)
    P, rewards, ends = gymnasium_table(env_id)
    draws = 600 if params.is_slippery else 2
    s, a, _ = (x.ravel() for x in np.meshgrid(range(48), range(4), range(draws), indexing="ij"))
    states = State(jnp.asarray(s, jnp.int32), jnp.zeros(len(s), jnp.int32))
    obs, after, reward, terminated, _ = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))(
        jax.random.split(make_key(3), len(s)), states, jnp.asarray(a, jnp.int32), params
    )
    obs, reward = np.asarray(obs), np.asarray(reward, float)
    np.testing.assert_array_equal(obs, after.position)
    count = np.zeros(P.shape)
    np.add.at(count, (s, a, obs), 1)
    assert (count[P == 0] == 0).all()
    expected = P * draws
    chi2 = np.divide((count - expected) ** 2, expected, where=expected > 0, out=np.zeros(P.shape)).sum()
    freedom = ((P > 0).sum(2) - 1).sum()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)
    np.testing.assert_array_equal(terminated, ends[s, a, obs])
    twofold = np.isin(s, (36, 37)) & (obs == 36)  # to the start by a border or a plain move, -1, or by the cliff, -100
    np.testing.assert_array_equal(reward[~twofold], rewards[s, a, obs][~twofold])
    assert set(reward[twofold].tolist()) <= {-1.0, -100.0}
    means = np.array([[reward[(s == cell) & (a == action)].mean() for action in range(4)] for cell in (36, 37)])
    assert np.abs(means - gymnasium_means(env_id)[36:38]).max() <= (9 if params.is_slippery else 0)  # 4.5 deviations


def test_optimal_return_is_minus_13():
    env, params = jaxrl.make("CliffWalking-v1")
    P, R, _, start = env.tabular_mdp(params)
    v = np.zeros(48)
    for _ in range(48):
        v = (R + P @ v).max(1)
    assert start @ v == -13


@pytest.mark.parametrize("env_id", IDS)
def test_registered_as_gymnasiums(env_id):
    env, params = jaxrl.make(env_id)
    spec = gymnasium.spec(env_id)
    theirs = gymnasium.make(env_id)
    assert spec.max_episode_steps is None
    assert params.max_steps_in_episode == api.NO_LIMIT
    assert params.is_slippery == spec.kwargs.get("is_slippery", False) == theirs.unwrapped.is_slippery
    assert jaxrl.spaces.from_gymnasium(theirs.observation_space) == env.observation_space(params)
    assert jaxrl.spaces.from_gymnasium(theirs.action_space) == env.action_space(params)
    assert env.name == env_id
    assert env.reset(jaxrl.key(0))[0] == theirs.reset()[0]


def test_an_end_starts_over_and_the_cliff_does_not_end():
    env, params = jaxrl.make("CliffWalking-v1")
    state = State(jnp.int32(35), jnp.int32(12))
    obs, after, reward, terminated, truncated, info = env.step(jaxrl.key(0), state, 2, params)
    assert (obs, after.time, reward, terminated, truncated, info["final_observation"]) == (36, 0, -1, True, False, 47)
    for position, action in ((25, 2), (36, 1)):
        state = State(jnp.int32(position), jnp.int32(3))
        obs, after, reward, terminated, *_ = env.step(jaxrl.key(0), state, action, params)
        assert (obs, after.time, reward, terminated) == (36, 4, -100, False)


@pytest.mark.parametrize("position", [0, 11, 24, 36, 40, 47])
def test_render_is_gymnasiums(position):
    env, params = jaxrl.make("CliffWalking-v1")
    theirs = gymnasium.make("CliffWalking-v1", render_mode="ansi")
    theirs.reset()
    theirs.unwrapped.s = position
    assert env.render(State(position, 0), params) == theirs.render().strip("\n")


def test_frame_shows_cliff_goal_and_walker():
    env, params = jaxrl.make("CliffWalking-v1")
    picture = env.frame(State(14, 0), params)
    assert (picture.shape, picture.dtype) == ((4 * 24, 12 * 24, 3), np.uint8)
    cells = picture[12::24, 12::24]
    walker = (cells == np.array(raster.RED)).all(-1)
    assert np.argwhere(walker).tolist() == [[1, 2]]
    assert (cells[3, 1:11] == raster.BROWN).all()
    assert (cells[3, 11] == raster.GREEN).all()


@pytest.mark.parametrize("x64", [False, True])
def test_dtypes(x64):
    env, params = jaxrl.make("CliffWalkingSlippery-v1")
    with jax.enable_x64(x64):
        obs, state, reward, terminated, *_ = env.step(jaxrl.key(0), env.reset(jaxrl.key(0), params)[1], 1, params)
    dtypes = (obs.dtype, state.position.dtype, state.time.dtype, reward.dtype, terminated.dtype)
    assert dtypes == ("int32", "int32", "int32", "float32", "bool")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"is_slippery": 1}, "of type bool"),
        ({"slippery": True}, "did you mean 'is_slippery'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make("CliffWalking-v1", **overrides)
    assert "\n" not in str(error.value)
