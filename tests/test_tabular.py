"""The generic environment: it walks its table, and FrozenLake's table as FrozenLake; what is no process is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import api, tabular, wrappers
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.tabular import State, tabular_env, tabular_mdp, tabular_params


def random_mdp(seed, states=7, actions=3, sparsity=0.5):
    """Sparse rows, chances of many sizes, the last state and another terminal."""
    rng = np.random.default_rng(seed)
    P = rng.exponential(size=(states, actions, states)) ** 2 * (rng.random((states, actions, states)) < sparsity)
    P[..., 0] += 0.05 * (P.sum(-1) == 0)
    P /= P.sum(-1, keepdims=True)
    R = rng.normal(size=(states, actions))
    terminal = np.arange(states) % 4 == 3
    P[terminal], R[terminal] = np.eye(states)[terminal, None], 0
    start = np.where(terminal, 0, rng.random(states))
    start[0] = 0
    return TabularMDP(P, R, terminal, start / start.sum())


MDP = random_mdp(0)


def fits(count, chances, draws):
    """Chi-squared of counts [..., S] of `draws` each."""
    assert (count[chances == 0] == 0).all()
    expected = chances * draws
    chi2 = np.divide((count - expected) ** 2, expected, where=expected > 0, out=np.zeros(chances.shape)).sum()
    freedom = ((chances > 0).sum(-1) - 1).sum()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_steps_and_starts_have_the_tables_frequencies(make_key):
    env = tabular_env(MDP)
    draws = 2000
    s, a, _ = (x.ravel() for x in np.meshgrid(range(7), range(3), range(draws), indexing="ij"))
    states = State(jnp.asarray(s, jnp.int32), jnp.zeros(len(s), jnp.int32))
    keys = jax.random.split(make_key(1), len(s))
    obs, after, reward, terminated, _ = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))(
        keys, states, jnp.asarray(a), env.default_params
    )
    count = np.zeros(MDP.P.shape)
    np.add.at(count, (s, a, np.asarray(obs)), 1)
    fits(count, MDP.P, draws)
    np.testing.assert_array_equal(reward, MDP.R[s, a].astype(np.float32))
    np.testing.assert_array_equal(terminated, MDP.terminal[np.asarray(obs)])
    np.testing.assert_array_equal(obs, after.place)
    start = jax.jit(jax.vmap(env.reset))(keys)[0]
    fits(np.bincount(start, minlength=7), MDP.start, len(keys))
    assert (obs.dtype, reward.dtype, start.dtype) == ("int32", "float32", "int32")


def test_what_cannot_happen_is_never_drawn():
    """Chances that float32 cannot add up to 1, zeros at both ends and between, and u at either end of its range."""
    rng = np.random.default_rng(3)
    draw = jax.jit(jax.vmap(jax.vmap(tabular._draw, (None, 0))))
    for size in (1, 3, 16, 101):
        chances = rng.random((300, size)) ** 8 * (rng.random((300, size)) < 0.4)
        chances[np.arange(300), rng.integers(size, size=300)] += 1e-3
        chances /= chances.sum(-1, keepdims=True)
        chances[::2] *= 1 - 9e-7  # as much as is let pass
        cdf = jnp.asarray(tabular._cdf(chances), jnp.float32)
        edges = np.broadcast_to(np.float32([0, 2.0**-23, 0.5, 1 - 2.0**-23]), (300, 4))
        ties = np.minimum(cdf, np.float32(1 - 2.0**-23))  # the largest that `uniform` gives
        drawn = np.asarray(draw(cdf, jnp.asarray(np.concatenate([edges, ties], axis=1))))
        assert drawn.min() >= 0 and drawn.max() < size
        assert (np.take_along_axis(chances, drawn, 1) > 0).all()


def test_frozen_lakes_table_behaves_as_frozen_lake():
    """Lengths and returns of whole episodes, with actions drawn alike."""
    lake, params = jaxrl.make("FrozenLake-v1")
    table = tabular_env(tabular_mdp(lake, params), params.max_steps_in_episode)

    def episodes(env, key):
        """(return, length, last state) of 4,000 episodes under random actions."""

        def walk(key):
            start_key, key = jax.random.split(key)

            def body(carry, key):
                state, done, total, length = carry
                step_key, action_key = jax.random.split(key)
                action = jax.random.randint(action_key, (), 0, 4)
                _, after, reward, end, _ = env.step_env(step_key, state, action, env.default_params)
                state = api.select(done, state, after)
                cut = env.is_truncated(after, env.default_params)
                return (state, done | end | cut, total + reward * ~done, length + ~done), None

            begin = (env.reset(start_key)[1], jnp.zeros((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))
            state, _, total, length = jax.lax.scan(body, begin, jax.random.split(key, 100))[0]
            return total, length, state[0]

        return map(np.asarray, jax.jit(jax.vmap(walk))(jax.random.split(key, 4000)))

    returns, lengths, last = episodes(lake, jaxrl.key(0))
    mean_returns, table_lengths, table_last = episodes(table, jaxrl.key(1))
    assert abs(returns.mean() - mean_returns.mean()) < 4.5 * np.sqrt(2 * returns.var() / 4000)
    both = np.stack([np.bincount(np.minimum(x, 25), minlength=26) for x in (lengths, table_lengths)])
    ends = np.stack([np.bincount(x, minlength=16) for x in (last, table_last)])
    for counts in (both, ends):
        counts = counts[:, counts.sum(0) >= 10]
        mean = counts.mean(0)
        freedom = counts.shape[1] - 1
        assert ((counts - mean) ** 2 / mean).sum() < freedom + 4.5 * np.sqrt(2 * freedom)


def test_the_process_comes_back():
    env = tabular_env(MDP)
    for got, expected in zip(tabular_mdp(env), MDP, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-15)
    np.testing.assert_array_equal(tabular_mdp(env).P == 0, MDP.P == 0)
    lake, params = jaxrl.make("FrozenLake-v1")
    np.testing.assert_array_equal(tabular_mdp(lake).P, lake.tabular_mdp(params).P)
    scaled = tabular_mdp(wrappers.scale_reward(wrappers.time_limit(lake, 5), 2.0))
    np.testing.assert_array_equal(scaled.R, 2 * lake.tabular_mdp(params).R)
    slippery = tabular_mdp(lake, params.replace(success_rate=0.5))
    np.testing.assert_array_equal(slippery.P, lake.tabular_mdp(params.replace(success_rate=0.5)).P)


def test_environments_without_a_table_say_so():
    cartpole, _ = jaxrl.make("CartPole-v1")
    for env in (cartpole, wrappers.time_limit(cartpole, 5), object()):
        with pytest.raises(ValueError, match="exact transition table") as error:
            tabular_mdp(env)
        assert "\n" not in str(error.value)


def test_a_process_of_its_own_in_every_environment():
    mdps = [random_mdp(seed) for seed in range(5)]
    env = tabular_env(mdps[0])
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *map(tabular_params, mdps))
    draws = 4000
    keys = jax.random.split(jaxrl.key(0), draws)
    step = jax.jit(jax.vmap(jax.vmap(env.step, (0, None, None, None)), (None, None, None, 0)))
    state = State(jnp.int32(2), jnp.int32(0))
    *_, reward, terminated, _, info = step(keys, state, 1, params)
    for i, mdp in enumerate(mdps):
        fits(np.bincount(info["final_observation"][i], minlength=7), mdp.P[2, 1], draws)
        np.testing.assert_array_equal(terminated[i], mdp.terminal[np.asarray(info["final_observation"][i])])
        np.testing.assert_allclose(reward[i], mdp.R[2, 1], rtol=1e-6)
    rewards = np.asarray(jaxrl.rollout(env, params, None, jaxrl.key(0), 5, 30).trajectory.reward)
    for i, mdp in enumerate(mdps):
        assert np.isin(rewards[:, i], mdp.R.astype(np.float32)).all()


def test_ends_start_over_and_the_limit_cuts():
    env = tabular_env(MDP, max_steps=3, name="Walk-v0")
    assert env.name == "Walk-v0"
    keys = jax.random.split(jaxrl.key(0), 500)
    state = State(jnp.int32(6), jnp.int32(2))
    assert 0.1 < MDP.P[6, 2][MDP.terminal].sum() < 0.9
    obs, after, _, terminated, truncated, info = jax.vmap(env.step, (0, None, None))(keys, state, 2)
    np.testing.assert_array_equal(terminated, MDP.terminal[np.asarray(info["final_observation"])])
    assert truncated.all()
    assert not np.asarray(after.time).any()
    assert (MDP.start[np.asarray(obs)] > 0).all()
    assert 0.1 < np.asarray(terminated).mean() < 0.9


def test_starting_and_stepping_draw_apart():
    env = tabular_env(TabularMDP(np.full((2, 1, 2), 0.5), np.zeros((2, 1)), np.zeros(2, bool), np.full(2, 0.5)), 1)
    keys = jax.random.split(jaxrl.key(0), 4000)
    obs, *_, info = jax.vmap(env.step, (0, None, None))(keys, State(jnp.int32(0), jnp.int32(0)), 0)
    assert abs(np.corrcoef(obs, info["final_observation"])[0, 1]) < 0.07


def test_environments_hash_and_recompile_only_for_another_process():
    env = tabular_env(MDP)
    assert hash(env) == hash(env)
    assert env == env
    assert env != tabular_env(MDP)
    changed = env.with_params(env.default_params.replace(max_steps_in_episode=1))
    assert changed.step(jaxrl.key(0), State(jnp.int32(0), jnp.int32(0)), 0)[4]
    assert not env.step(jaxrl.key(0), State(jnp.int32(0), jnp.int32(0)), 0)[4]
    agent = jaxrl.q_learning(7, 3)
    run = jaxrl.make_run(env, env.default_params, agent, jaxrl.recent(1, 4), jaxrl.LoopConfig(4))
    _, metrics = jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 5))(jaxrl.key(0))
    assert float(metrics["env_steps"]) == 20


@pytest.mark.parametrize("x64", [False, True])
def test_dtypes(x64):
    env = tabular_env(MDP)
    with jax.enable_x64(x64):
        obs, state, reward, terminated, *_ = env.step(jaxrl.key(0), env.reset(jaxrl.key(0))[1], 1)
    assert (obs.dtype, state.place.dtype, state.time.dtype) == ("int32", "int32", "int32")
    assert (reward.dtype, terminated.dtype) == ("float32", "bool")
    assert env.observation_space() == jaxrl.spaces.Discrete(7)
    assert env.action_space() == jaxrl.spaces.Discrete(3)


def test_render_names_the_state():
    env = tabular_env(MDP)
    assert env.render(State(2, 5)) == "step 5  state 2 of 7"
    assert env.render(State(3, 6)) == "step 6  state 3 of 7, terminal"
    assert env.frame(State(3, 6)).dtype == np.uint8


def changed(**arrays):
    """MDP with entries replaced, {name: (where, value)}, or whole arrays."""
    parts = {name: np.array(part) for name, part in MDP._asdict().items()}
    for name, change in arrays.items():
        if isinstance(change, tuple):
            parts[name][change[0]] = change[1]
        else:
            parts[name] = change
    return TabularMDP(**parts)


@pytest.mark.parametrize(
    ("mdp", "message"),
    [
        (changed(R=np.zeros((0, 3))), r"R of the process has shape \(0, 3\)"),
        (changed(R=np.zeros((7, 0))), "at least one state and one action"),
        (changed(R=np.zeros(7)), r"it must be \[S, A\]"),
        (changed(P=MDP.P[:, :2]), r"P of the process has shape \(7, 2, 7\)"),
        (changed(P=MDP.P[..., 0]), r"P of the process has shape \(7, 3\)"),
        (changed(terminal=MDP.terminal[:6]), r"terminal of the process has shape \(6,\)"),
        (changed(start=MDP.start[None]), r"start of the process has shape \(1, 7\)"),
        (changed(terminal=np.arange(7)), "it must be bool"),
        (changed(R=((2, 1), np.nan)), r"R\[2, 1\] of the process is nan"),
        (changed(P=((2, 1, 4), -0.25)), r"P\[2, 1, 4\] of the process is -0.25; a chance is at least 0"),
        (changed(P=((2, 1, 4), np.nan)), r"P\[2, 1, 4\] of the process is nan"),
        (changed(P=((2, 1), np.full(7, 0.1))), r"P\[2, 1\] of the process sums to 0.7; chances must sum to 1"),
        (changed(P=((2, 1), np.full(7, 1 / 7 + 4e-7))), r"P\[2, 1\] of the process sums to 1.0000028"),
        (changed(start=np.full(7, 0.2)), "start of the process sums to 1.4"),
        (changed(start=(0, -0.1)), r"start\[0\] of the process is -0.1"),
        (changed(P=(3, np.full((3, 7), 1 / 7))), r"state 3 is terminal, but P\[3, 0, 3\] is 0.142857 and R\[3, 0\] 0;"),
        (changed(R=((3, 2), 1.0)), r"state 3 is terminal, but P\[3, 2, 3\] is 1 and R\[3, 2\] 1; make it absorbing"),
    ],
)
def test_what_is_no_process_is_refused_in_one_line(mdp, message):
    with pytest.raises(ValueError, match=message) as error:
        tabular_env(mdp)
    assert "\n" not in str(error.value)


def test_rounding_and_bad_limits():
    tabular_env(changed(P=((2, 1), np.full(7, 1 / 7 + 1e-8))))
    tabular_env(TabularMDP(*(np.asarray(x, np.float32 if x.dtype != bool else bool) for x in MDP)))
    with pytest.raises(ValueError, match="max_steps is 0; it must be an integer of at least 1"):
        tabular_env(MDP, max_steps=0)
    env = tabular_env(MDP)
    with pytest.raises(ValueError, match="max_steps_in_episode is 0"):
        env.with_params(env.default_params.replace(max_steps_in_episode=0))
