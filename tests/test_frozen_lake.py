"""FrozenLake against gymnasium: the whole transition tensor, and the frequencies that `step` really has."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map as gymnasium_map
from gymnasium.envs.toy_text.frozen_lake import is_valid

import jaxrl
from jaxrl.envs import frozen_lake
from jaxrl.envs.frozen_lake import State, generate_random_map, tabular

CUSTOM = ("FSFHF", "FHFFS", "GFFFH")
MAPS = [{"map_name": "4x4"}, {"map_name": "8x8"}, {"desc": CUSTOM}]
KINDS = [{"is_slippery": False}, {}, {"success_rate": 0.8, "reward_schedule": (5.0, -1.0, -0.25)}]


def gymnasium_tensor(**overrides):
    """(P [S, A, S], R [S, A], terminated [S, A, S]) of gymnasium's `env.unwrapped.P`."""
    env = gymnasium.make("FrozenLake-v1", **{k: list(v) if k == "desc" else v for k, v in overrides.items()})
    table = env.unwrapped.P
    P, R = np.zeros((len(table), 4, len(table))), np.zeros((len(table), 4))
    ends = np.zeros((len(table), 4, len(table)), bool)
    for s, actions in table.items():
        for a, outcomes in actions.items():
            for chance, after, reward, terminated in outcomes:
                P[s, a, after] += chance
                R[s, a] += chance * reward
                ends[s, a, after] = terminated
    return P, R, ends


@pytest.mark.parametrize("where", MAPS)
@pytest.mark.parametrize("how", KINDS)
def test_transition_tensor_is_gymnasiums(where, how):
    env, params = jaxrl.make("FrozenLake-v1", **where, **how)
    P, R, *_ = tabular(params)
    expected_P, expected_R, _ = gymnasium_tensor(**where, **how)
    np.testing.assert_array_equal(P, expected_P)
    np.testing.assert_array_equal(R, expected_R)
    assert env.observation_space(params).n == len(P)


@pytest.mark.parametrize("where", MAPS)
@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_steps_have_the_tensors_frequencies(where, how, make_key):
    env, params = jaxrl.make("FrozenLake-v1", **where, **how)
    P, R, ends = gymnasium_tensor(**where, **how)
    draws = 400
    places, actions, _ = (x.ravel() for x in np.meshgrid(range(len(P)), range(4), range(draws), indexing="ij"))
    keys = jax.random.split(make_key(11), len(places))
    states = State(jnp.asarray(places, jnp.int32), jnp.zeros(len(places), jnp.int32))
    obs, after, reward, terminated, _ = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))(
        keys, states, jnp.asarray(actions, jnp.int32), params
    )
    count = np.zeros(P.shape)
    np.add.at(count, (places, actions, np.asarray(after.position)), 1)
    assert (count[P == 0] == 0).all()
    np.testing.assert_array_equal(terminated, ends[places, actions, np.asarray(after.position)])
    expected = P * draws
    chi2 = np.divide((count - expected) ** 2, expected, where=expected > 0, out=np.zeros(P.shape)).sum()
    freedom = ((P > 0).sum(2) - 1).sum()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)
    mean = np.asarray(reward, np.float64).reshape(*R.shape, draws).mean(2)
    assert np.abs(mean - R).max() < 0.6 * max(1, np.abs(R).max())
    assert abs((mean - R).mean()) < 0.03 * max(1, np.abs(R).max())
    assert obs.dtype == jnp.int32
    assert reward.dtype == jnp.float32


def test_registered_limits_are_gymnasiums():
    for env_id in ("FrozenLake-v1", "FrozenLake8x8-v1"):
        env, params = jaxrl.make(env_id)
        spec = gymnasium.spec(env_id)
        assert params.max_steps_in_episode == spec.max_episode_steps
        np.testing.assert_array_equal(tabular(params)[0], gymnasium_tensor(**spec.kwargs)[0])
        assert env.name == env_id


def test_desc_replaces_the_named_map():
    _, params = jaxrl.make("FrozenLake-v1", desc=["SG"])
    assert params.desc == ("SG",)
    assert params.max_steps_in_episode == 100


def test_several_starts_are_drawn_alike():
    env, params = jaxrl.make("FrozenLake-v1", desc=CUSTOM)
    starts = np.asarray(jax.vmap(env.reset, (0, None))(jax.random.split(jaxrl.key(0), 2000), params)[0])
    assert set(starts.tolist()) == {1, 9}
    assert abs((starts == 1).mean() - 0.5) < 0.04


def test_slipping_and_starting_draw_apart():
    """With several starts a step that ends draws twice: the start must not tell which way the walker slipped."""
    env, params = jaxrl.make("FrozenLake-v1", desc=("SHS", "FSF", "GFF"), reward_schedule=(0.0, 0.0, 0.0))
    keys = jax.random.split(jaxrl.key(5), 6000)
    state = State(jnp.int32(4), jnp.int32(0))
    obs, _, _, terminated, _, info = jax.vmap(env.step, (0, None, None, None))(keys, state, 3, params)
    hit = np.asarray(terminated)
    assert abs(hit.mean() - 1 / 3) < 0.03
    counts = np.bincount(np.asarray(obs)[hit], minlength=9)[[0, 2, 4]]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 13.8  # 2 degrees of freedom, p = 0.001


def test_success_rate_may_be_vmapped():
    env, params = jaxrl.make("FrozenLake-v1")
    axes = jax.tree.map(lambda _: None, params).replace(success_rate=0)
    step = jax.vmap(jax.vmap(env.step_env, (0, None, None, None)), (None, None, None, axes))
    state = State(jnp.int32(0), jnp.int32(0))
    keys = jax.random.split(jaxrl.key(0), 3000)
    obs = step(keys, state, 2, params.replace(success_rate=jnp.array([0.0, 0.5, 1.0])))[0]
    np.testing.assert_allclose((np.asarray(obs) == 1).mean(1), [0.0, 0.5, 1.0], atol=0.04)


def test_x64_changes_no_dtype():
    env, params = jaxrl.make("FrozenLake-v1")
    with jax.enable_x64(True):
        obs, state, reward, *_ = env.step(jaxrl.key(0), env.reset(jaxrl.key(0), params)[1], 1, params)
    assert (obs.dtype, state.position.dtype, state.time.dtype, reward.dtype) == (
        "int32",
        "int32",
        "int32",
        "float32",
    )


def test_render_highlights_the_walker():
    env, params = jaxrl.make("FrozenLake-v1")
    assert env.render(State(6, 0), params) == "SFFF\nFH\x1b[41mF\x1b[0mH\nFFFH\nHFFG"
    theirs = gymnasium.make("FrozenLake-v1", render_mode="ansi")
    theirs.reset()
    assert env.render(State(0, 0), params) in theirs.render()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"map_name": "5x5"}, "unknown map_name '5x5'"),
        ({"desc": ["SF", "G"]}, "rows of one length"),
        ({"desc": []}, "rows of one length"),
        ({"desc": "SFG"}, "of type tuple"),
        ({"desc": ["SF", "FF"]}, "without a G"),
        ({"desc": ["FF", "FG"]}, "without a S"),
        ({"desc": ["SX", "FG"]}, "the letter 'X'"),
        ({"desc": [1, 2]}, "of type str"),
        ({"success_rate": 1.5}, "success_rate is 1.5"),
        ({"is_slippery": "no"}, "of type bool"),
        ({"is_slippery": 1}, "of type bool"),
        ({"reward_schedule": (1.0, 0.0)}, "three numbers"),
        ({"reward_schedule": (1.0, 0.0, float("inf"))}, "must be a finite number"),
        ({"slippery": False}, "did you mean 'is_slippery'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make("FrozenLake-v1", **overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("desc", [("SHG",), ("SFH", "FHG"), ("SFG", "HHH", "SFF")])
def test_a_goal_out_of_reach_is_warned_of(desc):
    with pytest.warns(UserWarning, match="from some S no path around the holes leads to a G") as warned:
        jaxrl.make("FrozenLake-v1", desc=desc)
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


@pytest.mark.parametrize("desc", [("SG",), ("SFH", "HFH", "GFH"), ("SHGHS",), ("SFF", "HHF", "FFF", "FHH", "FFG")])
def test_solvable_is_gymnasiums_search(desc):
    """Ours takes several starts and any shape; on a square map from corner to corner it is `is_valid`."""
    assert frozen_lake._solvable(desc) == (desc != ("SHGHS",))


def test_random_squares_are_judged_as_gymnasium_judges_them():
    generator = np.random.default_rng(0)
    verdicts = []
    for _ in range(300):
        letters = np.where(generator.random((5, 5)) < 0.6, "F", "H")
        letters[0, 0], letters[-1, -1] = "S", "G"
        verdicts.append(is_valid(letters.tolist(), 5))
        assert frozen_lake._solvable(tuple("".join(row) for row in letters)) == verdicts[-1]
    assert 30 < sum(verdicts) < 270


@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_random_maps_are_drawn_as_gymnasiums(make_key):
    """Solvable; as many frozen cells among those that may be either as gymnasium's own, within chance."""
    maps = [generate_random_map(key, 4, 0.6) for key in jax.random.split(make_key(0), 400)]
    theirs = [gymnasium_map(4, 0.6, seed=seed) for seed in range(400)]
    for desc in maps:
        assert is_valid([list(row) for row in desc], 4)
        assert (desc[0][0], desc[-1][-1]) == ("S", "G")
    ours, expected = (np.array([[list(row) for row in desc] for desc in drawn]) == "F" for drawn in (maps, theirs))
    assert abs(ours.mean() - expected.mean()) < 4.5 * 0.11 * np.sqrt(2 / 400)  # a map's share deviates by 0.11
    assert np.abs(ours.mean(0) - expected.mean(0)).max() < 4.5 * np.sqrt(2 * 0.25 / 400)
    assert generate_random_map(make_key(3)) == generate_random_map(make_key(3)) != generate_random_map(make_key(4))
    _, params = jaxrl.make("FrozenLake-v1", desc=generate_random_map(make_key(0)))
    assert np.array(params.desc).shape == (8,)


def test_all_ice_is_one_map():
    assert generate_random_map(jaxrl.key(0), 3, 1) == ("SFF", "FFF", "FFG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "size is 1; it must be an integer of at least 2"),
        ({"size": 4.0}, "size is 4.0"),
        ({"p": 0}, r"p is 0; it must be a finite number in \(0, 1\]"),
        ({"p": 1.2}, "p is 1.2"),
        ({"size": 6, "p": 0.01}, "have no path from S to G; raise p"),
    ],
)
def test_random_maps_refuse_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        generate_random_map(jaxrl.key(0), **arguments)
    assert "\n" not in str(error.value)


def test_integers_pass_for_floats():
    _, params = jaxrl.make("FrozenLake-v1", reward_schedule=[1, 0, 0], success_rate=1)
    assert params.reward_schedule == (1.0, 0.0, 0.0)
    assert frozen_lake.Params(success_rate=1.0) == params
    assert hash(params) == hash(frozen_lake.Params(success_rate=1.0))
