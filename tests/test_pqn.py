"""PQN against its pseudocode in plain Python, and against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import masked_env

import jaxrl
from jaxrl import nets
from jaxrl.agents.pqn import _permutation, pqn
from jaxrl.types import Masked, Sample, Transition

GAMMA, LAMBDA = 0.9, 0.7
N, T, EPOCHS, MINIBATCHES = 3, 4, 2, 3


class TableNetwork:
    """The simplest init/apply pair: a table of action values."""

    def __init__(self, values):
        self.values = jnp.asarray(values, jnp.float32)

    def init(self, key, obs, /):
        return self.values

    def apply(self, params, obs, /):
        return params[obs]


def sample_of(window):
    lanes = len(window.reward)
    return Sample(window, jnp.arange(lanes), jnp.ones(lanes))


def optimizer():
    return optax.chain(optax.clip_by_global_norm(0.5), optax.radam(0.02))


def phase(seed, ends=True):
    """The windows [N, T] of one phase; a row's next_obs is the next row's obs, but where an episode ended."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(N, T + 1, 2)).astype(np.float32)
    next_obs = obs[:, 1:].copy()
    terminated, truncated = np.zeros((N, T), bool), np.zeros((N, T), bool)
    if ends:
        terminated[0, 1] = terminated[1, 3] = truncated[1, 1] = truncated[2, 3] = True
    ended = terminated | truncated
    next_obs[ended] = rng.normal(size=(ended.sum(), 2))
    reward = rng.normal(size=(N, T)).astype(np.float32)
    action = rng.integers(3, size=(N, T)).astype(np.int32)
    return Transition(*map(jnp.asarray, (obs[:, :-1], action, reward, terminated, truncated, next_obs)))


def pseudocode_goals(q, window):
    """Algorithm 1's targets, row by row from the back; {(lane, row): target}."""
    goals = {}
    for lane in range(N):
        after = None  # the lambda-return of the row after
        for row in reversed(range(T)):
            reward = float(window.reward[lane, row])
            bootstrap = float(np.max(q(window.next_obs[lane, row])))
            if window.terminated[lane, row]:
                goal = reward
            elif window.truncated[lane, row] or after is None:
                goal = reward + GAMMA * bootstrap
            else:
                goal = reward + GAMMA * (LAMBDA * after + (1 - LAMBDA) * bootstrap)
            goals[lane, row] = after = goal
    return goals


def pseudocode(network, state, window, order):
    """One phase as the paper has it: goals once, then a gradient step on each minibatch of single transitions."""
    params, memory, rule = state.params, state.optimizer, optimizer()
    goals = pseudocode_goals(lambda obs: network.apply(state.params, obs), window)
    losses, means = [], []
    for epoch in order:
        for places in epoch.reshape(MINIBATCHES, -1):
            rows = [divmod(int(place), T) for place in places]

            def cost(params, rows=rows):
                q = [network.apply(params, window.obs[row])[window.action[row]] for row in rows]
                return sum((q - goals[row]) ** 2 / 2 for q, row in zip(q, rows)) / len(rows), sum(q) / len(rows)

            (loss, mean), gradient = jax.value_and_grad(cost, has_aux=True)(params)
            change, memory = rule.update(gradient, memory, params)
            params = optax.apply_updates(params, change)
            losses.append(loss)
            means.append(mean)
    return params, np.mean(losses), np.mean(means)


def recorder(count):
    """An optimizer that changes nothing and keeps every gradient."""

    def update(gradient, memory, params=None):
        seen, place = memory
        return jax.tree.map(jnp.zeros_like, gradient), (seen.at[place].set(gradient), place + 1)

    return optax.GradientTransformation(lambda params: (jnp.zeros((count, *params.shape)), 0), update)


@pytest.fixture(scope="module")
def drawn():
    """What each gradient step was shown of a phase that tells its transitions apart, and the phase."""
    places = jnp.arange(N * T).reshape(N, T)
    every = jnp.ones((N, T), bool)
    window = Transition(places, places % 3, 1.0 + places, every, ~every, places)
    agent = pqn(
        TableNetwork(jnp.zeros((N * T, 3))), recorder(EPOCHS * MINIBATCHES), epochs=EPOCHS, minibatches=MINIBATCHES
    )
    state = agent.init(jax.random.key(0), jnp.zeros(N, jnp.int32))
    state, *_ = jax.jit(agent.update)(state, sample_of(window), jax.random.key(5), 0.0)
    return np.asarray(state.optimizer[0]), window


def order_of(gradients):
    """Places [EPOCHS, N * T], minibatch by minibatch."""
    return np.stack([np.flatnonzero(seen.any(axis=-1)) for seen in gradients]).reshape(EPOCHS, -1)


def test_every_epoch_shows_each_transition_once_in_an_order_of_its_own(drawn):
    gradients, window = drawn
    order = order_of(gradients)
    np.testing.assert_array_equal(np.sort(order), [np.arange(N * T)] * EPOCHS)
    assert not np.array_equal(order[0], order[1])
    assert not np.array_equal(order[0], np.arange(N * T))


def test_every_order_is_as_likely():
    """Of three places in 6,000 draws, each of the six orders a sixth of them: chi-squared with 5 degrees of freedom."""
    drawn = jax.vmap(lambda key: _permutation(key, 3))(jax.random.split(jax.random.key(0), 6000))
    orders, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
    np.testing.assert_array_equal(np.sort(orders), [[0, 1, 2]] * 6)
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # p = 0.001


def test_a_transition_stays_whole_when_shuffled(drawn):
    """q is 0 and every step terminal: the gradient of a place is minus its own reward, at its own action."""
    gradients, window = drawn
    expected = np.zeros((N * T, 3))
    expected[np.arange(N * T), np.arange(N * T) % 3] = -(1.0 + np.arange(N * T)) / (N * T // MINIBATCHES)
    for epoch in gradients.reshape(EPOCHS, MINIBATCHES, N * T, 3):
        np.testing.assert_allclose(epoch.sum(axis=0), expected, rtol=1e-6)


def test_a_phase_is_the_papers(drawn):
    network = nets.QNetwork(3, nets.MLP((5,), layer_norm=True))
    agent = pqn(network, optimizer(), gamma=GAMMA, lambda_=LAMBDA, epochs=EPOCHS, minibatches=MINIBATCHES)
    state = agent.init(jax.random.key(0), jnp.zeros((N, 2)))
    update = jax.jit(agent.update)
    for count, window in enumerate((phase(0), phase(1, ends=False)), 1):
        found, priority, metrics = update(state, sample_of(window), jax.random.key(5), 0.0)
        params, loss, q = pseudocode(network, state, window, order_of(drawn[0]))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found.params, params)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
        assert float(metrics["q"]) == pytest.approx(q, rel=1e-4, abs=1e-5)
        assert priority.shape == (N,)
        assert int(found.updates) == count * EPOCHS * MINIBATCHES
        state = found


WEIGHTS = [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]
# q [S, A]; the best of state 1 is 5, of 2 is 7, of 3 is 11
Q = [[1.0, 2.0], [3.0, 5.0], [7.0, 4.0], [0.0, 11.0]]


@jax.jit
def step(window, lambda_, weight):
    """The change of q by one step of SGD on all rows of windows [B, 3] at once."""
    agent = pqn(TableNetwork(Q), optax.sgd(1.0), gamma=0.5, lambda_=lambda_, epochs=1, minibatches=1)
    state = agent.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    after, *_ = agent.update(state, sample_of(window)._replace(weight=weight), jax.random.key(1), 0.0)
    return after.params - state.params


def goals(window, lambda_):
    """The targets of a window's rows, told from the gradient: its (obs, action) occur once each."""
    change = step(jax.tree.map(lambda x: x[None], window), lambda_, jnp.ones(1))
    obs = window.obs.observation if isinstance(window.obs, Masked) else window.obs
    return (jnp.asarray(Q) + 3 * change)[obs, window.action]


def window(terminated=(), truncated=(), next_obs=(1, 2, 3)):
    """0 -> 1 -> 2 -> 3 with rewards 1, 2, 4."""
    rows = np.arange(3)
    leaves = jnp.array([0, 1, 2]), jnp.array([0, 1, 1]), jnp.array([1.0, 2.0, 4.0])
    return Transition(
        *leaves, jnp.asarray(np.isin(rows, terminated)), jnp.asarray(np.isin(rows, truncated)), jnp.array(next_obs)
    )


@pytest.mark.parametrize(
    ("window", "lambda_", "expected"),
    [
        # lambda 0: r + gamma max q; 1: everything up to the bootstrap after the last row
        (window(), 0.0, [1 + 5 / 2, 2 + 7 / 2, 4 + 11 / 2]),
        (window(), 1.0, [1 + 2 / 2 + 4 / 4 + 11 / 8, 2 + 4 / 2 + 11 / 4, 4 + 11 / 2]),
        (window(), 0.5, [1 + 5 / 4 + (2 + 7 / 4 + 9.5 / 4) / 4, 2 + 7 / 4 + 9.5 / 4, 9.5]),
        (window(terminated=[1]), 1.0, [1 + 2 / 2, 2, 9.5]),
        (window(terminated=[1]), 0.0, [1 + 5 / 2, 2, 9.5]),
        (window(terminated=[2]), 1.0, [1 + 2 / 2 + 4 / 4, 2 + 4 / 2, 4]),
        # a cut row bootstraps from its true last observation, 3, not from 2, where the next episode began
        (window(truncated=[1], next_obs=(1, 3, 3)), 1.0, [1 + 2 / 2 + 11 / 4, 2 + 11 / 2, 9.5]),
        (window(truncated=[2], next_obs=(1, 2, 1)), 1.0, [1 + 2 / 2 + 4 / 4 + 5 / 8, 2 + 4 / 2 + 5 / 4, 4 + 5 / 2]),
        (window(terminated=[1], truncated=[1]), 1.0, [1 + 2 / 2, 2, 9.5]),
    ],
)
def test_goals_by_hand(window, lambda_, expected):
    np.testing.assert_allclose(goals(window, lambda_), expected, rtol=1e-6)


def test_the_bootstrap_honours_the_mask_and_a_terminal_state_may_allow_nothing():
    plain = window(terminated=[1])
    allowed = jnp.array([[True, False], [False, False], [True, False]])  # at next_obs 1, 2, 3
    masked = plain._replace(obs=Masked(plain.obs, jnp.ones((3, 2), bool)), next_obs=Masked(plain.next_obs, allowed))
    np.testing.assert_allclose(goals(masked, 0.5), [1 + 3 / 4 + 2 / 4, 2, 4 + 0 / 2], rtol=1e-6)


def test_a_weight_of_zero_teaches_nothing():
    both, one, none = (step(jax.tree.map(lambda x: jnp.stack([x, x]), window()), 0.5, jnp.array(w)) for w in WEIGHTS)
    assert jnp.any(both != 0)
    np.testing.assert_allclose(one, both / 2, rtol=1e-6)
    np.testing.assert_array_equal(none, jnp.zeros((4, 2)))


def test_it_never_takes_a_forbidden_action():
    env, params = masked_env(), masked_env().default_params
    agent = pqn(nets.QNetwork(3, nets.MLP((4,), one_hot=4)), epsilon=0.5, epochs=1, minibatches=2)
    run = jaxrl.make_run(env, params, agent, jaxrl.recent(4, 2), jaxrl.LoopConfig(2, unroll=4))
    state, metrics = jax.jit(lambda key: jaxrl.advance(run, run.init(key), 25))(jaxrl.key(0))
    assert 0 < float(metrics["return"]) <= float(metrics["env_steps"])  # a forbidden action pays 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.agent.params))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma is 1.5; it must be a finite number in \[0, 1\]"),
        ({"lambda_": -0.1}, "lambda_ is -0.1"),
        ({"epochs": 0}, "epochs is 0; it must be an integer of at least 1"),
        ({"minibatches": 1.5}, "minibatches is 1.5"),
        ({"epsilon": 2.0}, "epsilon is 2.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pqn(TableNetwork(Q), **options)


@pytest.mark.parametrize(("minibatches", "use"), [(4, "3"), (2, "1 or 3"), (500, "3")])
def test_minibatches_must_divide_a_phase(minibatches, use):
    agent = pqn(TableNetwork(Q), minibatches=minibatches)
    state = jax.eval_shape(agent.init, jax.random.key(0), jnp.zeros(1, jnp.int32))
    batch = sample_of(jax.tree.map(lambda x: x[None], window()))
    message = rf"minibatches is {minibatches}, which does not divide the 3 .*num_envs 1 x unroll 3\); use {use}(\n|$)"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(agent.update, state, batch, jax.random.key(1), 0.0)


def test_a_loop_that_would_learn_twice_or_not_at_all_is_refused():
    env, params = masked_env(), masked_env().default_params
    agent = pqn(nets.QNetwork(3, nets.MLP((4,), one_hot=4)))
    for buffer, loop in (
        (jaxrl.recent(4, 2), jaxrl.LoopConfig(2, unroll=4, updates=2)),
        (jaxrl.recent(3, 2), jaxrl.LoopConfig(2, unroll=4)),
        (jaxrl.recent(5, 2), jaxrl.LoopConfig(2, unroll=4, warmup=1)),
    ):
        with pytest.raises(ValueError, match=r"with unroll 4 use updates=1 and recent\(4, 2\)"):
            jaxrl.make_run(env, params, agent, buffer, loop)
