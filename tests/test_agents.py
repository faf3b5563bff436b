"""Each learner's mathematics against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import jaxrl
from jaxrl import explore
from jaxrl.agents import value
from jaxrl.types import Masked, Sample, Transition


class TableNetwork:
    """The simplest init/apply pair: a table of action values."""

    def __init__(self, values):
        self.values = jnp.asarray(values, jnp.float32)

    def init(self, key, obs, /):
        return self.values

    def apply(self, params, obs, /):
        return params[obs]


def window(obs, action, reward, next_obs, terminated=None, truncated=None):
    """A batch of one window."""
    never = [False] * len(reward)
    leaves = (obs, action, jnp.float32(jnp.array(reward)), terminated or never, truncated or never, next_obs)
    obs, action, reward, terminated, truncated, next_obs = (jnp.asarray(leaf)[None] for leaf in leaves)
    return Transition(obs, action, reward, terminated, truncated, next_obs)


def sample(*windows, weight=None):
    batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *windows)
    size = len(windows)
    return Sample(batch, jnp.arange(size), jnp.ones(size) if weight is None else jnp.asarray(weight))


ONLINE = [[1.0, 2.0], [3.0, 5.0], [0.0, 0.0]]
TARGET = [[0.0, 0.0], [7.0, 4.0], [0.0, 0.0]]
STEP = window([0], [1], [0.5], [1])


def dqn_update(batch, **options):
    agent = jaxrl.dqn(TableNetwork(ONLINE), optax.sgd(1.0), gamma=0.9, **options)
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))._replace(target=jnp.array(TARGET))
    return jax.jit(agent.update)(state, batch, jax.random.key(1), jnp.float32(0))


@pytest.mark.parametrize(
    ("double", "batch", "target"),
    [
        (True, sample(STEP), 0.5 + 0.9 * 4.0),  # online picks action 1, the target values it at 4
        (False, sample(STEP), 0.5 + 0.9 * 7.0),
        (False, sample(window([0], [1], [0.5], [1], terminated=[True])), 0.5),
        (False, sample(window([0], [1], [0.5], [1], truncated=[True])), 0.5 + 0.9 * 7.0),
        (False, sample(window([0, 2], [1, 0], [0.5, 2.0], [2, 1])), 0.5 + 0.9 * 2.0 + 0.81 * 7.0),
        (False, sample(window([0, 2], [1, 0], [0.5, 2.0], [1, 2], truncated=[True, False])), 0.5 + 0.9 * 7.0),
    ],
)
def test_dqn_targets(double, batch, target):
    state, priority, metrics = dqn_update(batch, double=double)
    error = target - 2.0
    assert float(priority[0]) == pytest.approx(abs(error), rel=1e-6)
    assert float(metrics["loss"]) == pytest.approx(error**2, rel=1e-6)
    assert float(metrics["q"]) == 2.0
    expected = np.array(ONLINE)
    expected[0, 1] += 2 * error  # one step of gradient descent on error^2, and on nothing else
    np.testing.assert_allclose(state.params, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("double", "allowed", "expected"),
    [
        (True, [True, True], 1.0),
        (True, [True, False], 2.0),
        (False, [True, True], 2.0),
        (False, [False, True], 1.0),
    ],
)
def test_masks_give_reagents_published_targets(double, allowed, expected):
    """ReAgent's test_dqn_base.py: q [3, 4] of the network, [2, 1] of its target, with and without possible actions."""
    agent = jaxrl.dqn(TableNetwork([[0.0, 0.0], [3.0, 4.0]]), optax.sgd(1.0), gamma=1.0, double=double)
    step = window([0], [0], [0.0], [1])
    masked = step._replace(next_obs=Masked(step.next_obs, jnp.array([[allowed]])))
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    state = state._replace(target=jnp.array([[0.0, 0.0], [2.0, 1.0]]))
    _, priority, _ = agent.update(state, sample(masked), jax.random.key(1), jnp.float32(0))
    assert float(priority[0]) == expected


def test_huber_loss_is_linear_beyond_one():
    state, _, metrics = dqn_update(sample(STEP), loss="huber")
    error = 0.5 + 0.9 * 4.0 - 2.0
    assert float(metrics["loss"]) == pytest.approx(error - 0.5, rel=1e-6)
    assert float(state.params[0, 1]) == pytest.approx(3.0)


def test_weights_scale_losses_not_priorities():
    _, plain, _ = dqn_update(sample(STEP, STEP))
    state, priority, _ = dqn_update(sample(STEP, STEP, weight=[1.0, 0.0]))
    np.testing.assert_array_equal(priority, plain)
    assert float(state.params[0, 1]) == pytest.approx(2.0 + 2.1, rel=1e-6)  # half of the gradient of one


def test_rewards_may_be_scaled_or_clipped_for_the_learner_alone():
    def priority(state, window):
        return window.reward[:, 0]

    plain = jaxrl.dqn(TableNetwork(ONLINE), optax.sgd(1.0), gamma=0.9, double=False)
    agent = value.with_rewards(plain._replace(priority=priority), lambda reward: jnp.clip(0.1 * reward, -1.0, 1.0))
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    batch = sample(STEP, window([2], [0], [30.0], [1]))
    _, errors, _ = agent.update(state, batch, jax.random.key(1), jnp.float32(0))
    np.testing.assert_allclose(errors, [abs(0.05 + 0.9 * 5.0 - 2.0), 1.0 + 0.9 * 5.0], rtol=1e-6)
    np.testing.assert_allclose(agent.priority(state, batch.window), [0.05, 1.0], rtol=1e-6)
    assert value.with_rewards(plain, jnp.sign).priority is None
    assert (agent.act, agent.init, agent.carry) == (plain.act, plain.init, plain.carry)


def test_targets_follow():
    polyak, _, _ = dqn_update(sample(STEP), target_update=value.polyak(0.25))
    np.testing.assert_allclose(polyak.target, 0.75 * np.array(TARGET) + 0.25 * np.array(polyak.params), rtol=1e-6)
    agent = jaxrl.dqn(TableNetwork(ONLINE), optax.sgd(0.1), target_update=value.hard(3))
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    for i in range(1, 7):
        before = state.target
        state, *_ = agent.update(state, sample(STEP), jax.random.key(1), jnp.float32(0))
        np.testing.assert_array_equal(state.target, state.params if i % 3 == 0 else before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma is 1.5; it must be a finite number in \[0, 1\]"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"loss": "hubert"}, "unknown loss 'hubert'; did you mean 'huber'"),
    ],
)
def test_dqn_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.dqn(TableNetwork(ONLINE), **options)
    with pytest.raises(ValueError, match="polyak is 0"):
        value.polyak(0)
    with pytest.raises(ValueError, match="target period is 0"):
        value.hard(0)


def tabular_update(factory, batch, q, **options):
    agent = factory(3, 2, gamma=0.9, **{"alpha": 0.5, "epsilon": 0.2, **options})
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))._replace(q=jnp.array(q))
    return jax.jit(agent.update)(state, batch, jax.random.key(0), jnp.float32(0))


@pytest.mark.parametrize(
    ("factory", "batch", "target"),
    [
        (jaxrl.q_learning, sample(STEP), 0.5 + 0.9 * 5.0),
        (jaxrl.q_learning, sample(window([0], [1], [0.5], [1], terminated=[True])), 0.5),
        (jaxrl.q_learning, sample(window([0], [1], [0.5], [1], truncated=[True])), 0.5 + 0.9 * 5.0),
        (jaxrl.expected_sarsa, sample(STEP), 0.5 + 0.9 * (0.1 * 3.0 + 0.9 * 5.0)),
        (jaxrl.expected_sarsa, sample(window([0], [1], [0.5], [1], terminated=[True])), 0.5),
        (jaxrl.sarsa, sample(window([0, 1], [1, 0], [0.5, 9.0], [1, 2])), 0.5 + 0.9 * 3.0),
        (jaxrl.sarsa, sample(window([0, 1], [1, 0], [0.5, 9.0], [1, 2], terminated=[True, False])), 0.5),
    ],
)
def test_tabular_targets(factory, batch, target):
    state, priority, metrics = tabular_update(factory, batch, ONLINE)
    expected = np.array(ONLINE)
    expected[0, 1] += 0.5 * (target - 2.0)
    np.testing.assert_allclose(state.q, expected, rtol=1e-6)
    assert float(priority[0]) == pytest.approx(abs(target - 2.0), rel=1e-5)
    assert float(metrics["q"]) == 2.0
    np.testing.assert_array_equal(state.visits, [[0, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize("factory", [jaxrl.q_learning, jaxrl.expected_sarsa])
def test_a_terminal_state_may_allow_no_action(factory):
    step = window([0], [1], [0.5], [1], terminated=[True])
    none, every = jnp.zeros((1, 1, 2), bool), jnp.ones((1, 1, 2), bool)
    masked = step._replace(obs=Masked(step.obs, every), next_obs=Masked(step.next_obs, none))
    state, *_ = tabular_update(factory, sample(masked), ONLINE)
    assert float(state.q[0, 1]) == pytest.approx(2.0 + 0.5 * (0.5 - 2.0))


def test_sarsa_draws_at_a_truncated_end():
    """The step after is of another episode: its action must not be used, the policy's own at next_obs is."""
    batch = sample(window([0, 2], [1, 0], [0.5, 9.0], [1, 2], truncated=[True, False]))
    agent = jaxrl.sarsa(3, 2, gamma=0.9, alpha=0.5, epsilon=0.2)
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))._replace(q=jnp.array(ONLINE))
    update = jax.jit(jax.vmap(lambda key: agent.update(state, batch, key, jnp.float32(0))[0].q[0, 1]))
    drawn = update(jax.random.split(jax.random.key(0), 300))
    greedy, other = (2.0 + 0.5 * (0.5 + 0.9 * q - 2.0) for q in (5.0, 3.0))
    share = np.mean(np.isclose(drawn, greedy))
    assert np.isclose(drawn, greedy).sum() + np.isclose(drawn, other).sum() == 300
    assert abs(share - 0.9) < 5 * np.sqrt(0.09 / 300)


def test_sarsa_needs_windows_of_two():
    with pytest.raises(ValueError, match="use a buffer with window=2"):
        tabular_update(jaxrl.sarsa, sample(STEP), ONLINE)


HITS = [window([0], [1], [reward], [1], terminated=[True]) for reward in (1.0, 2.0, 6.0)]


def test_duplicates_move_a_cell_by_the_mean_of_their_errors():
    other = window([2], [0], [4.0], [1], terminated=[True])
    state, *_ = tabular_update(jaxrl.q_learning, sample(*HITS, other), np.zeros((3, 2), np.float32))
    np.testing.assert_allclose(state.q, [[0, 0.5 * 3.0], [0, 0], [0.5 * 4.0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(state.visits, [[0, 3], [0, 0], [1, 0]])


def test_a_weight_of_zero_is_no_hit():
    batch = sample(*HITS)._replace(weight=jnp.array([1.0, 0.0, 1.0]))
    state, *_ = tabular_update(jaxrl.q_learning, batch, np.zeros((3, 2), np.float32))
    np.testing.assert_allclose(state.q, [[0, 0.5 * 3.5], [0, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(state.visits, [[0, 2], [0, 0], [0, 0]])
    nothing = batch._replace(weight=jnp.zeros(3))
    state, *_ = tabular_update(jaxrl.q_learning, nothing, np.zeros((3, 2), np.float32), alpha_power=1.0)
    np.testing.assert_array_equal(state.q, np.zeros((3, 2)))


def test_visit_counts_make_the_sample_average_exactly():
    agent = jaxrl.q_learning(3, 2, gamma=0.9, alpha=1.0, alpha_power=1.0)
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    for batch in (sample(HITS[0]), sample(*HITS), sample(HITS[2], HITS[2])):
        state, *_ = agent.update(state, batch, jax.random.key(0), jnp.float32(0))
    assert float(state.q[0, 1]) == pytest.approx((1 + 1 + 2 + 6 + 6 + 6) / 6, rel=1e-6)


def test_visit_count_steps_never_overshoot():
    """1,000 hits at once with a slow decay would be a step of 1000^0.5, were it not held at 1."""
    batch = jax.tree.map(lambda leaf: jnp.repeat(leaf, 300, axis=0), sample(*HITS))
    state, *_ = tabular_update(jaxrl.q_learning, batch, np.zeros((3, 2), np.float32), alpha=1.0, alpha_power=0.5)
    assert float(state.q[0, 1]) == pytest.approx(3.0, rel=1e-5)


def test_tiles_share_a_step():
    """k active indices: the value is their sum, and one step of alpha moves that sum by alpha of the error."""
    agent = jaxrl.q_learning(4, 2, gamma=0.9, alpha=0.5)
    obs = jnp.array([[0, 2]])
    state = agent.init(jax.random.key(0), obs)._replace(q=jnp.arange(8.0).reshape(4, 2))
    step = Transition(
        *(jnp.asarray(x)[None] for x in ([[0, 2]], [1], jnp.float32(jnp.array([3.0])), [True], [False], [[1, 3]]))
    )
    state, *_ = agent.update(state, Sample(step, jnp.arange(1), jnp.ones(1)), jax.random.key(0), jnp.float32(0))
    error = 3.0 - (1.0 + 5.0)
    np.testing.assert_allclose(state.q[:, 1], [1 + 0.25 * error, 3, 5 + 0.25 * error, 7], rtol=1e-6)
    np.testing.assert_array_equal(state.q[:, 0], [0, 2, 4, 6])


@pytest.mark.parametrize("obs", [jnp.zeros((4, 3)), jnp.zeros((4, 2, 2), jnp.int32), (jnp.zeros(4, jnp.int32),) * 2])
def test_tabular_agents_refuse_other_observations(obs):
    with pytest.raises(ValueError, match="a tabular agent got an observation of"):
        jaxrl.q_learning(3, 2).init(jax.random.key(0), obs)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"alpha": 2.0}, {"alpha_power": -1.0}, {"gamma": -0.1}, {"gamma": float("inf")}]
)
def test_tabular_agents_refuse_numbers_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is"):
        jaxrl.q_learning(3, 2, **options)


def test_a_deep_agent_may_explore_by_a_softmax():
    """Values 0, 1, 2 at temperature 2: chances in proportion to exp(0), exp(1/2), exp(1); greedy play is as ever."""

    agent = jaxrl.dqn(TableNetwork([[0, 1, 2]]), epsilon=explore.softmax(lambda steps: steps / 5))
    obs = jnp.zeros(1, jnp.int32)
    state, obs = agent.init(jaxrl.key(0), obs), obs[0]
    keys = jax.random.split(jaxrl.key(1), 4_000)
    actions = jax.jit(jax.vmap(lambda key: agent.act(state, (), obs, key, 10.0)[0]))(keys)
    chances = np.exp([0, 0.5, 1]) / np.exp([0, 0.5, 1]).sum()
    assert stats.chisquare(np.bincount(actions, minlength=3), 4_000 * chances).pvalue > 1e-3
    assert int(agent.act(state, (), obs, keys[0], 10.0, greedy=True)[0]) == 2
    with pytest.raises(ValueError, match="temperature of a softmax is 0"):
        explore.softmax(0.0)
