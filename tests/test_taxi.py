"""Taxi against gymnasium: the whole transition table with rain and without, fickle passengers, masks, pictures."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import raster, taxi
from jaxrl.envs.taxi import State

RAIN = [{}, {"is_rainy": True}, {"is_rainy": True, "rainy_probability": 0.5}]
FICKLE = [{"fickle_passenger": True}, {"fickle_passenger": True, "is_rainy": True, "fickle_probability": 0.7}]
INDICES = np.arange(500)
CELL, PASSENGER, DESTINATION = INDICES // 20, INDICES // 4 % 5, INDICES % 4
TERMINAL = (PASSENGER == DESTINATION) & (CELL == np.array([0, 4, 20, 23])[DESTINATION])


@functools.cache
def gymnasium_table(**overrides):
    """(P [S, A, S], R [S, A], rewards [S, A, S], terminated [S, A, S]) of gymnasium's `env.unwrapped.P`."""
    P, R = np.zeros((500, 6, 500)), np.zeros((500, 6))
    rewards, ends = np.zeros((500, 6, 500)), np.zeros((500, 6, 500), bool)
    for s, actions in gymnasium.make("Taxi-v4", **overrides).unwrapped.P.items():
        for a, outcomes in actions.items():
            for chance, after, reward, terminated in outcomes:
                P[s, a, after] += chance
                R[s, a] += chance * reward
                rewards[s, a, after], ends[s, a, after] = reward, terminated
    return P, R, rewards, ends


def states_of(index, fickle=False):
    """The State of observation indices [N]."""
    index = np.asarray(index)
    parts = (index // 20, index // 4 % 5, index % 4)
    return State(
        *(jnp.asarray(part, jnp.int32) for part in parts),
        jnp.broadcast_to(jnp.asarray(fickle), index.shape),
        jnp.zeros(index.shape, jnp.int32),
    )


@functools.cache
def program(env):
    return jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))


def sample(env, params, draws, fickle=False, make_key=jaxrl.key):
    """(s, a, state after, reward, terminated, obs) of `draws` steps from every state and action, numpy."""
    s, a, _ = (x.ravel() for x in np.meshgrid(INDICES, range(6), range(draws), indexing="ij"))
    keys = jax.random.split(make_key(9), len(s))
    obs, after, reward, terminated, _ = program(env)(keys, states_of(s, fickle), jnp.asarray(a, jnp.int32), params)
    return s, a, *jax.device_get((after, reward, terminated, obs))


def chi2_bound(count, P, draws):
    """Asserts that counts [S, A, S] of `draws` each fit P."""
    assert (count[P == 0] == 0).all()
    expected = P * draws
    chi2 = np.divide((count - expected) ** 2, expected, where=expected > 0, out=np.zeros(P.shape)).sum()
    freedom = ((P > 0).sum(2) - 1).sum()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("how", RAIN)
def test_tabular_is_gymnasiums_table_with_absorbing_ends(how):
    env, params = jaxrl.make("Taxi-v4", **how)
    P, R, terminal, start = env.tabular_mdp(params)
    expected_P, expected_R, *_ = gymnasium_table(**how)
    np.testing.assert_array_equal(terminal, TERMINAL)
    np.testing.assert_array_equal(P[~terminal], expected_P[~terminal])
    np.testing.assert_array_equal(R[~terminal], expected_R[~terminal])
    np.testing.assert_array_equal(P[terminal], np.eye(500)[terminal, None].repeat(6, 1))
    assert not R[terminal].any()
    np.testing.assert_allclose(start, gymnasium.make("Taxi-v4").unwrapped.initial_state_distrib, rtol=1e-15)


@pytest.mark.parametrize(
    ("how", "make_key"), [*((how, jaxrl.key) for how in RAIN), (RAIN[1], jax.random.key)], ids=[*"abc", "threefry"]
)
def test_steps_have_gymnasiums_frequencies_from_every_state(how, make_key):
    """From terminal states, too: there `step` goes on as gymnasium does, and only `tabular` stays."""
    env, params = jaxrl.make("Taxi-v4", **how)
    P, _, rewards, ends = gymnasium_table(**how)
    draws = 60 if params.is_rainy else 1
    s, a, _, reward, terminated, obs = sample(env, params, draws, make_key=make_key)
    count = np.zeros(P.shape)
    np.add.at(count, (s, a, obs.observation), 1)
    chi2_bound(count, P, draws)
    np.testing.assert_array_equal(reward, rewards[s, a, obs.observation])
    np.testing.assert_array_equal(terminated, ends[s, a, obs.observation])


@pytest.mark.parametrize("how", FICKLE)
def test_a_fickle_passenger_changes_the_destination_with_the_first_move(how):
    """gymnasium's rule on top of its table: one of the three others, if the taxi moved with the passenger inside."""
    env, params = jaxrl.make("Taxi-v4", **how)
    dry, *_ = gymnasium_table(**{k: v for k, v in how.items() if "rain" in k})
    moved = CELL[:, None] != CELL[None]
    changes = (PASSENGER == 4)[:, None] & moved  # [S, S]
    full = np.zeros((1000, 6, 1000))
    full[:500, :, :500] = dry
    full[500:, :, 500:] = dry * ~changes[:, None]
    for turn in (1, 2, 3):
        other = INDICES - DESTINATION + (DESTINATION + turn) % 4
        full[500:, :, other] += dry * changes[:, None] / 3
    P, R, terminal, start = env.tabular_mdp(params)
    ends = np.tile(TERMINAL, 2)
    np.testing.assert_array_equal(terminal, ends)
    np.testing.assert_allclose(P[~ends], full[~ends], rtol=1e-15)
    np.testing.assert_allclose(P.sum(2), 1, rtol=1e-15)
    for half, share in ((slice(500), 1 - params.fickle_probability), (slice(500, 1000), params.fickle_probability)):
        expected = gymnasium.make("Taxi-v4").unwrapped.initial_state_distrib * share
        np.testing.assert_allclose(start[half], expected, rtol=1e-14)
        np.testing.assert_array_equal(R[half][~TERMINAL], gymnasium_table(is_rainy=params.is_rainy)[1][~TERMINAL])
    for fickle in (False, True):
        s, a, after, _, _, obs = sample(env, params, 30, fickle)
        count = np.zeros((500, 6, 1000))
        np.add.at(count, (s, a, obs.observation + 500 * after.fickle), 1)
        chi2_bound(count, full[500 * fickle : 500 * fickle + 500], 30)


def test_gymnasium_itself_is_fickle_so():
    """Its step from injected states, since its table leaves the fickle passenger out."""
    theirs = gymnasium.make("Taxi-v4", fickle_passenger=True).unwrapped
    theirs.reset(seed=1)
    env, params = jaxrl.make("Taxi-v4", fickle_passenger=True)
    P = env.tabular_mdp(params).P
    for s in (1, 18, 49, 219, 218, 337, 338):  # the rider's and others', at walls and away from them
        for a in (0, 1, 2, 3, 5):
            seen = np.zeros(1000)
            for _ in range(120):
                theirs.s, theirs.fickle_step = s, True
                after = theirs.step(a)[0]
                seen[after + 500 * theirs.fickle_step] += 1
            row = P[s + 500, a]
            assert (seen[row == 0] == 0).all()
            freedom = (row > 0).sum() - 1
            chi2 = ((seen - 120 * row)[row > 0] ** 2 / (120 * row[row > 0])).sum()
            assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("how", [{}, *FICKLE])
def test_starts_are_uniform(how):
    env, params = jaxrl.make("Taxi-v4", **how)
    start = env.tabular_mdp(params).start
    draws = 60_000
    obs, state = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jaxrl.key(1), draws), params)
    index = np.asarray(obs.observation) + 500 * np.asarray(state.fickle)
    count = np.bincount(index, minlength=len(start))
    chi2_bound(count[None, None], start[None, None], draws)


def test_masks_are_gymnasiums_and_may_be_left_out():
    env, params = jaxrl.make("Taxi-v4")
    theirs = gymnasium.make("Taxi-v4").unwrapped
    obs = jax.jit(jax.vmap(env.get_obs))(states_of(INDICES))
    np.testing.assert_array_equal(obs.observation, INDICES)
    np.testing.assert_array_equal(obs.action_mask, [theirs.action_mask(s) for s in INDICES])
    assert obs.action_mask.dtype == bool
    plain, plain_params = jaxrl.make("Taxi-v4", action_mask=False)
    np.testing.assert_array_equal(jax.jit(jax.vmap(plain.get_obs))(states_of(INDICES)), INDICES)
    assert plain.observation_space(plain_params) == env.observation_space(params) == jaxrl.spaces.Discrete(500)
    assert obs.observation.dtype == jnp.int32


def test_optimal_return_is_that_of_the_shortest_ways():
    """Found by breadth-first search of gymnasium's table; 7.93 in the mean, not the 8.46 of its registry's comment."""
    table = gymnasium.make("Taxi-v4").unwrapped.P
    steps = {s: 0 for s in INDICES[TERMINAL]}
    while len(steps) < 500:
        near = [s for s in table if s not in steps and any(table[s][a][0][1] in steps for a in table[s])]
        if not near:
            break
        steps |= {s: 1 + min(steps.get(table[s][a][0][1], 999) for a in table[s]) for s in near}
    env, params = jaxrl.make("Taxi-v4")
    P, R, _, start = env.tabular_mdp(params)
    v = np.zeros(500)
    for _ in range(60):
        v = (R + (P.reshape(3000, 500) @ v).reshape(500, 6)).max(1)
    begins = np.flatnonzero(start)
    np.testing.assert_allclose(v[begins], [21 - steps[s] for s in begins])
    assert start @ v == pytest.approx(7.93, abs=1e-12)
    assert params.max_steps_in_episode == gymnasium.spec("Taxi-v4").max_episode_steps


def test_probabilities_may_be_vmapped():
    env, params = jaxrl.make("Taxi-v4", is_rainy=True, fickle_passenger=True)
    axes = jax.tree.map(lambda _: None, params).replace(rainy_probability=0, fickle_probability=0)
    swept = params.replace(rainy_probability=jnp.array([0.0, 0.5, 1.0]), fickle_probability=jnp.array([0.0, 0.5, 1.0]))
    keys = jax.random.split(jaxrl.key(2), 3000)
    step = jax.jit(jax.vmap(jax.vmap(env.step_env, (0, None, None, None)), (None, None, None, axes)))
    after = step(keys, jax.tree.map(lambda x: x[()], states_of(244)), 0, swept)[1]
    np.testing.assert_allclose((np.asarray(after.cell) == 17).mean(1), [0.0, 0.5, 1.0], atol=0.04)
    reset = jax.jit(jax.vmap(jax.vmap(env.reset_env, (0, None)), (None, axes)))
    np.testing.assert_allclose(np.asarray(reset(keys, swept)[1].fickle).mean(1), [0.0, 0.5, 1.0], atol=0.04)


def test_rain_and_mood_draw_apart():
    """Which way the rain drives the taxi must not tell the new destination."""
    env, params = jaxrl.make("Taxi-v4", is_rainy=True, rainy_probability=0.34, fickle_passenger=True)
    state = jax.tree.map(lambda x: x[()], states_of((12 * 5 + 4) * 4, True))
    keys = jax.random.split(jaxrl.key(5), 9000)
    after = jax.jit(jax.vmap(env.step_env, (0, None, None, None)))(keys, state, 0, params)[1]
    count = np.zeros((25, 4))
    np.add.at(count, (np.asarray(after.cell), np.asarray(after.destination)), 1)
    count = count[[11, 13, 17], 1:]
    expected = np.array([0.33, 0.33, 0.34])[:, None] * 3000 * np.ones(3)
    assert count.sum() == 9000
    assert ((count - expected) ** 2 / expected).sum() < 26.1  # 8 degrees of freedom, p = 0.001


def test_render_is_gymnasiums_in_every_state():
    env, params = jaxrl.make("Taxi-v4")
    theirs = gymnasium.make("Taxi-v4", render_mode="ansi")
    theirs.reset()
    for s in INDICES:
        theirs.unwrapped.s = int(s)
        state = State(CELL[s], PASSENGER[s], DESTINATION[s], False, 0)
        assert env.render(state, params) == theirs.unwrapped.render().rstrip("\n")


def test_frame_shows_everybody():
    env, params = jaxrl.make("Taxi-v4")
    picture = env.frame(State(12, 0, 3, False, 0), params)
    assert (picture.shape, picture.dtype) == ((7 * 24, 11 * 24, 3), np.uint8)
    cells = picture[12::24, 12::24]
    assert tuple(cells[3, 5]) == raster.YELLOW
    assert tuple(cells[1, 1]) == raster.BLUE
    assert tuple(cells[5, 7]) == raster.PURPLE
    assert tuple(env.frame(State(12, 4, 3, False, 0), params)[3 * 24 + 12, 5 * 24 + 12]) == raster.GREEN


@pytest.mark.parametrize("x64", [False, True])
def test_dtypes(x64):
    env, params = jaxrl.make("Taxi-v4", is_rainy=True, fickle_passenger=True)
    with jax.enable_x64(x64):
        _, start = env.reset(jaxrl.key(0), params)
        obs, state, reward, terminated, *_ = env.step(jaxrl.key(0), start, 5, params)
    assert [leaf.dtype for leaf in start] == ["int32", "int32", "int32", "bool", "int32"]
    assert [leaf.dtype for leaf in state] == ["int32", "int32", "int32", "bool", "int32"]
    assert (obs.observation.dtype, reward.dtype, terminated.dtype) == ("int32", "float32", "bool")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rainy_probability": 1.5}, "rainy_probability is 1.5"),
        ({"fickle_probability": -0.1}, "fickle_probability is -0.1"),
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"is_rainy": 1}, "of type bool"),
        ({"rainy": True}, "did you mean 'is_rainy'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make("Taxi-v4", **overrides)
    assert "\n" not in str(error.value)
    assert hash(taxi.Params()) == hash(taxi.Params())
