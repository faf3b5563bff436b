"""Blackjack: the dealer by another enumeration, hands of `step` against the exact process, gymnasium's own hands."""

import itertools
from fractions import Fraction

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import spaces
from jaxrl.envs import api, blackjack
from jaxrl.envs.blackjack import State, dealer_chances

KINDS = [{}, {"sab": False}, {"sab": False, "natural": True}]
END = 714


def index(player, dealer, ace, natural=False):
    """The state of `tabular`."""
    return np.where(natural, 704 + dealer - 1, (player * 11 + dealer) * 2 + ace)


def chi2_fits(count, chances, draws):
    assert (count[chances == 0] == 0).all()
    expected = chances[chances > 0] * draws
    chi2 = ((count[chances > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)


def test_dealers_final_hands_are_exact():
    """Every sequence of cards in exact fractions: the hand as a whole, valued as gymnasium's `sum_hand`."""

    def value(hand):
        return sum(hand) + 10 if 1 in hand and sum(hand) <= 11 else sum(hand)

    def play(hand, chance):
        if value(hand) >= 17:
            total = value(hand)
            outcome = 6 if sorted(hand) == [1, 10] else 0 if total > 21 else total - 16
            chances[outcome] += chance
            return
        for card in range(1, 11):
            play((*hand, card), chance * Fraction(4 if card == 10 else 1, 13))

    for shown in range(1, 11):
        chances = [Fraction(0)] * 7
        play((shown,), Fraction(1))
        assert sum(chances) == 1
        np.testing.assert_allclose(dealer_chances()[shown - 1], [float(c) for c in chances], rtol=1e-13)


def test_what_cannot_happen_is_never_drawn():
    """The largest random word included: only an ace or a ten can become a natural."""
    limits = blackjack._limits()
    assert (limits[1:9, 5] == 2**31).all()
    assert (limits[[0, 9], 5] < 2**31).all()
    assert (np.diff(limits.astype(np.int64), axis=1)[:, :-1] > 0).all()


@pytest.mark.parametrize("how", KINDS)
def test_tabular_is_a_process(how):
    env, params = jaxrl.make("Blackjack-v1", **how)
    P, R, terminal, start = env.tabular_mdp(params)
    np.testing.assert_allclose(P.sum(2), 1, rtol=1e-14)
    assert start.sum() == pytest.approx(1, abs=1e-14)
    assert (P[terminal, :, terminal] == 1).all()
    assert not R[terminal].any()
    assert not start[terminal].any()
    assert (~terminal).sum() == 10 * (18 + 10 + 1)
    assert start[704:END].sum() == pytest.approx(8 / 169)


def solve(mdp):
    """(value of the start, q [S, A]) by plain value iteration, undiscounted."""
    q = np.zeros(mdp.R.shape)
    for _ in range(25):
        q = mdp.R + (mdp.P.reshape(-1, len(mdp.R)) @ (q.max(1) * ~mdp.terminal)).reshape(q.shape)
    return mdp.start @ q.max(1), q


def test_optimal_policy_is_published():
    """Sutton and Barto, figure 5.2: the thresholds from which one sticks; the return of playing so."""
    env, params = jaxrl.make("Blackjack-v1")
    value, q = solve(env.tabular_mdp(params))
    assert value == pytest.approx(-0.043113, abs=5e-7)
    sticks = q[:, 0] > q[:, 1]

    def threshold(dealer, ace):
        return min(t for t in range(12, 22) if all(sticks[index(p, dealer, ace)] for p in range(t, 22)))

    assert [threshold(d, 0) for d in range(1, 11)] == [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]
    assert [threshold(d, 1) for d in range(1, 11)] == [19, 18, 18, 18, 18, 18, 18, 18, 19, 19]


@pytest.mark.parametrize("how", KINDS)
def test_steps_fit_the_exact_process(how):
    """From every hand in play: where a hit leads, what a stick pays."""
    env, params = jaxrl.make("Blackjack-v1", **how)
    P, R, terminal, _ = env.tabular_mdp(params)
    hands = [(p, d, a, False) for p in range(4, 22) for d in range(1, 11) for a in (0, 1) if p >= 12 or not a]
    hands += [(21, d, 1, True) for d in range(1, 11)]
    draws = 2_000
    player, dealer, ace, natural = (np.repeat(x, 2 * draws) for x in np.array(hands).T)
    action = np.tile(np.repeat([0, 1], draws), len(hands))
    states = State(
        jnp.asarray(player, jnp.int32),
        jnp.asarray(dealer, jnp.int32),
        jnp.asarray(ace, jnp.int32),
        jnp.asarray(natural, bool),
        jnp.zeros(len(player), jnp.int32),
    )
    step = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))
    obs, after, reward, ends, _ = jax.device_get(
        step(jax.random.split(jaxrl.key(4), len(player)), states, jnp.asarray(action), params)
    )
    before = index(player, dealer, ace, natural)
    there = np.where(action == 0, END, index(*obs))
    np.testing.assert_array_equal(ends, terminal[there])
    count = np.zeros(P.shape)
    np.add.at(count, (before, action, there), 1)
    alive = ~terminal
    chi2 = np.divide((count - P * draws) ** 2, P * draws, where=P > 0, out=np.zeros(P.shape))[alive].sum()
    freedom = ((P[alive] > 0).sum(2) - 1).sum()
    assert (count[P == 0] == 0).all()
    assert chi2 <= freedom + 4.5 * np.sqrt(2 * freedom)
    total, squares = np.zeros(R.shape), np.zeros(R.shape)
    np.add.at(total, (before, action), reward)
    np.add.at(squares, (before, action), reward.astype(float) ** 2)
    deviation = np.sqrt(np.maximum(squares / draws - (total / draws) ** 2, 0) / draws)
    z = np.abs(total / draws - R)[alive] / np.maximum(deviation, 1e-9)[alive]
    assert z.max() < 4.5
    assert not after.natural[action == 1].any()
    np.testing.assert_array_equal(np.stack(obs)[:, action == 0], np.stack([player, dealer, ace])[:, action == 0])


def test_sticking_on_a_lost_hand_scores_nothing():
    """As in gymnasium, which may be stepped after the end: a draw with a dealer who is bust, else a loss."""
    theirs = gymnasium.make("Blackjack-v1").unwrapped
    theirs.reset(seed=2)
    env, params = jaxrl.make("Blackjack-v1")
    state = State(jnp.int32(25), jnp.int32(6), jnp.int32(0), jnp.zeros((), bool), jnp.int32(3))
    keys = jax.random.split(jaxrl.key(1), 2000)
    reward = np.asarray(jax.jit(jax.vmap(env.step_env, (0, None, None, None)))(keys, state, 0, params)[2])
    expected = []
    for _ in range(2000):
        theirs.player, theirs.dealer = [10, 9, 6], [6, theirs.np_random.integers(1, 11)]
        expected.append(theirs.step(0)[1])
    assert set(reward.tolist()) == set(expected) == {-1.0, 0.0}
    assert abs((reward == 0).mean() - dealer_chances()[5, 0]) < 0.05


def test_a_million_hands_of_the_dealer():
    """Rewards of standing pat with 20 against each card: win, draw and loss in the exact proportion."""
    env, params = jaxrl.make("Blackjack-v1")
    draws = 100_000
    dealer = np.repeat(np.arange(1, 11), draws)
    ones = jnp.ones(len(dealer), jnp.int32)
    states = State(20 * ones, jnp.asarray(dealer, jnp.int32), 0 * ones, ones < 0, 0 * ones)
    step = jax.jit(jax.vmap(env.step_env, (0, 0, None, None)))
    reward = np.asarray(step(jax.random.split(jaxrl.key(8), len(dealer)), states, 0, params)[2])
    chances = dealer_chances()
    for card in range(1, 11):
        row = chances[card - 1]
        count = [(reward[dealer == card] == r).sum() for r in (-1, 0, 1)]
        chi2_fits(np.array(count), np.array([row[5] + row[6], row[4], row[:4].sum()]), draws)


@pytest.mark.parametrize("make_key", [jaxrl.key, jax.random.key])
def test_hands_are_dealt_exactly(make_key):
    env, params = jaxrl.make("Blackjack-v1")
    start = env.tabular_mdp(params).start
    draws = 1_000_000
    obs, state = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(make_key(2), draws), params)
    there = index(*map(np.asarray, obs), np.asarray(state.natural))
    chi2_fits(np.bincount(there, minlength=len(start)), start, draws)
    by_hand = np.zeros(len(start))
    for cards in itertools.product([*range(1, 10), *[10] * 4], repeat=3):
        dealer, hand = cards[0], cards[1:]
        ace = int(1 in hand)
        by_hand[index(sum(hand) + 10 * ace, dealer, ace, set(hand) == {1, 10})] += 1 / 13**3
    np.testing.assert_allclose(start, by_hand, rtol=1e-10)


@pytest.mark.parametrize("how", KINDS)
def test_gymnasiums_own_hands_fit_the_exact_process(how):
    """gymnasium stepped from injected hands, two-card naturals among them."""
    params = {"natural": False, "sab": True} | how
    theirs = gymnasium.make("Blackjack-v1", **params).unwrapped
    theirs.reset(seed=5)
    env, ours = jaxrl.make("Blackjack-v1", **how)
    P, R, *_ = env.tabular_mdp(ours)
    draws = 250
    hands = [(10, 1), (1, 10), (5, 6, 10), (10, 9), (1, 6), (1, 1), (8, 8), (1, 5, 10), (2, 2), (9, 2, 1)]
    for hand, shown in itertools.product(hands, (1, 2, 7, 10)):
        total = sum(hand)
        ace = int(1 in hand and total <= 11)
        state = int(index(total + 10 * ace, shown, ace, sorted(hand) == [1, 10]))
        for action in (0, 1):
            seen, rewards = np.zeros(len(P)), []
            for _ in range(draws):
                theirs.player = list(hand)
                theirs.dealer = [shown, int(theirs.np_random.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10]))]
                obs, reward, ends, *_ = theirs.step(action)
                seen[index(*obs) if action else END] += 1
                rewards.append(reward)
                assert ends == (action == 0 or obs[0] > 21)
            chi2_fits(seen, P[state, action], draws)
            slack = 4.5 * max(np.std(rewards), 0.06) / np.sqrt(draws)
            assert abs(np.mean(rewards) - R[state, action]) < slack


@pytest.mark.parametrize(
    ("how", "shown", "payoffs"),
    [({}, 5, {1.0}), ({}, 10, {0.0, 1.0}), ({"sab": False}, 10, {0.0, 1.0})]
    + [({"sab": False, "natural": True}, 5, {0.0, 1.5}), ({"natural": True}, 5, {1.0})],
)
def test_what_a_natural_pays(how, shown, payoffs):
    """With `sab` it wins against 21 of three cards, else that is a draw; `natural` counts without `sab` alone."""
    env, params = jaxrl.make("Blackjack-v1", **how)
    state = State(jnp.int32(21), jnp.int32(shown), jnp.int32(1), jnp.ones((), bool), jnp.int32(0))
    keys = jax.random.split(jaxrl.key(1), 2000)
    reward = np.asarray(jax.jit(jax.vmap(env.step_env, (0, None, None, None)))(keys, state, 0, params)[2])
    assert set(reward.tolist()) == payoffs
    if shown == 10:  # sab: a draw with a natural alone; else with every 21
        draw = dealer_chances()[9, 6] + (0 if params.sab else dealer_chances()[9, 5])
        assert abs((reward == 0).mean() - draw) < 0.03


def test_registered_as_gymnasiums():
    env, params = jaxrl.make("Blackjack-v1")
    spec = gymnasium.spec("Blackjack-v1")
    theirs = gymnasium.make("Blackjack-v1")
    assert spec.max_episode_steps is None
    assert params.max_steps_in_episode == api.NO_LIMIT
    assert (params.sab, params.natural) == (spec.kwargs["sab"], spec.kwargs["natural"])
    assert spaces.from_gymnasium(theirs.observation_space) == env.observation_space(params)
    assert spaces.from_gymnasium(theirs.action_space) == env.action_space(params)


def test_a_hand_ends_and_the_next_begins():
    env, params = jaxrl.make("Blackjack-v1")
    state = State(jnp.int32(20), jnp.int32(10), jnp.int32(0), jnp.zeros((), bool), jnp.int32(2))
    step = jax.vmap(env.step, (0, None, None, None))
    obs, after, reward, ends, truncated, info = step(jax.random.split(jaxrl.key(0), 500), state, 1, params)
    final = np.stack(info["final_observation"])
    assert set(final[0].tolist()) == set(range(21, 31))
    np.testing.assert_array_equal(ends, final[0] > 21)
    np.testing.assert_array_equal(reward, np.where(final[0] > 21, -1, 0))
    np.testing.assert_array_equal(after.time, np.where(final[0] > 21, 0, 3))
    assert (np.stack(obs)[0] <= 21).all()
    assert not np.asarray(truncated).any()


def test_the_card_of_a_step_and_the_next_hand_draw_apart():
    env, params = jaxrl.make("Blackjack-v1")
    state = State(jnp.int32(20), jnp.int32(10), jnp.int32(0), jnp.zeros((), bool), jnp.int32(2))
    step = jax.jit(jax.vmap(env.step, (0, None, None, None)))
    obs, _, _, ends, _, info = step(jax.random.split(jaxrl.key(6), 60_000), state, 1, params)
    ends = np.asarray(ends)
    count = np.zeros((11, 11))
    np.add.at(count, (np.asarray(info["final_observation"][0])[ends] - 20, np.asarray(obs[1])[ends]), 1)
    weight = np.array([1] * 9 + [4]) / 13
    expected = weight[1:, None] * weight * 60_000
    assert ((count[2:, 1:] - expected) ** 2 / expected).sum() < 89 + 4.5 * np.sqrt(2 * 89)


def test_render_says_both_hands():
    env, params = jaxrl.make("Blackjack-v1")
    assert env.render(State(18, 10, 1, False, 0), params) == "player 18 (usable ace)\ndealer shows 10"
    assert env.render(State(21, 1, 1, True, 0), params) == "player 21 (natural)\ndealer shows ace"
    assert env.render(State(26, 3, 0, False, 0), params) == "player 26 (bust)\ndealer shows 3"
    assert env.render(State(16, 3, 0, False, 0), params) == "player 16 (hard)\ndealer shows 3"
    assert env.frame(State(16, 3, 0, False, 0), params).dtype == np.uint8


@pytest.mark.parametrize("x64", [False, True])
def test_dtypes(x64):
    env, params = jaxrl.make("Blackjack-v1")
    with jax.enable_x64(x64):
        obs, start = env.reset(jaxrl.key(0), params)
        assert env.observation_space(params).contains(obs)
        obs, state, reward, terminated, *_ = env.step(jaxrl.key(0), start, 1, params)
        assert env.observation_space(params).contains(obs)
    assert [leaf.dtype for leaf in start] == ["int32", "int32", "int32", "bool", "int32"]
    assert [leaf.dtype for leaf in state] == ["int32", "int32", "int32", "bool", "int32"]
    assert ([leaf.dtype for leaf in obs], reward.dtype, terminated.dtype) == (["int32"] * 3, "float32", "bool")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_steps_in_episode": 0}, "at least 1"),
        ({"sab": 1}, "of type bool"),
        ({"naturals": True}, "did you mean 'natural'"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxrl.make("Blackjack-v1", **overrides)
    assert "\n" not in str(error.value)
