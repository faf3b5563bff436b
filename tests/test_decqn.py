"""Decoupled Q-networks: against DQN where there is one dimension, by hand and by numpy loops where there are more."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from windows import STATES, batch, fold, learn

import jaxrl
from jaxrl import nets, recipes, spaces
from jaxrl.agents import value
from jaxrl.agents.decqn import taken
from jaxrl.envs import wrappers
from jaxrl.envs.api import PureEnvironment, never
from jaxrl.runs import watch
from jaxrl.types import Masked

GAMMA = 0.7
BINS = 3


class Rows:
    """An init/apply pair: a table [S, D, bins]."""

    def __init__(self, dimensions, bins=BINS):
        self.shape = (STATES, dimensions, bins)

    def init(self, key, obs, /):
        return jnp.zeros(self.shape)

    def apply(self, params, obs, /):
        return params[obs]


def rows_of(dimensions, seed=3, bins=BINS):
    """Online and target tables [S, D, bins]."""
    return np.random.default_rng(seed).normal(size=(2, STATES, dimensions, bins)).astype(np.float32)


def items_of(sizes, masked, length=2):
    """`windows.batch` with an action for each dimension, and masks [D, bins] in place of [A] where `masked`."""
    rng, items = np.random.default_rng(5), []
    for item in batch(length=length):
        action = np.stack([rng.integers(n, size=length) for n in sizes], axis=-1)
        obs, next_obs = item.obs.observation, item.next_obs.observation
        if masked:
            ahead = rng.random((length, len(sizes), BINS)) < 0.5
            ahead[np.arange(length)[:, None], np.arange(len(sizes)), rng.integers(sizes, size=(length, len(sizes)))] = (
                True
            )
            ahead &= ~item.terminated[:, None, None]
            obs, next_obs = Masked(obs, np.ones_like(ahead)), Masked(next_obs, ahead)
        items.append(item._replace(obs=obs, action=action, next_obs=next_obs))
    return items


def error_of(item, online, target, sizes, double):
    """Goal less value of one window, one dimension after the other."""
    masks = item.next_obs.action_mask if isinstance(item.next_obs, Masked) else None
    plain = item if masks is None else item._replace(obs=item.obs.observation, next_obs=item.next_obs.observation)
    obs, _, total, discount, next_obs, _ = fold(plain._replace(action=item.action[:, 0]))
    ended = item.terminated | item.truncated
    last = int(np.argmax(ended)) if ended.any() else len(ended) - 1
    here, following = [], []
    for d, bins in enumerate(sizes):
        here.append(float(online[obs, d, item.action[0, d]]))
        values = (online if double else target)[next_obs, d]
        allowed = [b for b in range(bins) if masks is None or masks[last, d, b]]
        following.append(float(target[next_obs, d, max(allowed, key=lambda b: values[b])]) if allowed else 0.0)
    return total + discount * np.mean(following) - np.mean(here)


@pytest.mark.parametrize(
    ("sizes", "masked", "double"),
    [((3, 3), False, True), ((3, 3), True, False), ((2, 3), True, True), ((3, 1, 2), False, False)],
)
def test_errors_for_every_pattern_of_ends(sizes, masked, double):
    items = items_of(sizes, masked)
    online, target = rows_of(len(sizes))
    agent = jaxrl.decqn(Rows(len(sizes)), optax.sgd(1.0), nvec=sizes, gamma=GAMMA, double=double)
    state, priority, metrics = learn(agent, online, target, items)
    errors = np.array([error_of(item, online, target, sizes, double) for item in items])
    np.testing.assert_allclose(priority, np.abs(errors), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(errors**2), rtol=1e-5)
    expected = online.astype(np.float64)
    for item, error in zip(items, errors):
        obs = int((item.obs.observation if masked else item.obs)[0])
        expected[obs, np.arange(len(sizes)), item.action[0]] += 2 * error / len(sizes) / len(items)
    np.testing.assert_allclose(state.params, expected, rtol=1e-4, atol=1e-5)


def test_by_hand():
    """Two dimensions: q(s, a) = (1 + 5) / 2; ahead the online network takes bins 2 and 0, worth 10 and 30 there."""
    online = np.zeros((STATES, 2, BINS), np.float32)
    target = np.zeros_like(online)
    online[0] = [[1.0, 0.0, 0.0], [0.0, 0.0, 5.0]]
    online[1] = [[0.0, 1.0, 2.0], [9.0, 8.0, 0.0]]
    target[1] = [[90.0, 50.0, 10.0], [30.0, 70.0, 80.0]]
    (item,) = (item for item in items_of((3, 3), False, length=1)[:1])
    item = item._replace(obs=np.array([0]), action=np.array([[0, 2]]), reward=np.array([0.5], np.float32))
    item = item._replace(next_obs=np.array([1]), terminated=np.array([False]), truncated=np.array([False]))
    for options, following in (({}, (10 + 30) / 2), ({"double": False}, (90 + 80) / 2)):
        agent = jaxrl.decqn(Rows(2), optax.sgd(1.0), gamma=0.9, loss="huber", **options)
        state, priority, metrics = learn(agent, online, target, [item])
        error = 0.5 + 0.9 * following - 3.0
        assert float(priority[0]) == pytest.approx(error, rel=1e-6)
        assert float(metrics["loss"]) == pytest.approx(error - 0.5, rel=1e-6)
        assert float(metrics["q"]) == 3.0
        assert float(state.params[0, 0, 0]) == pytest.approx(1.5)  # Huber's slope is 1, half of it for each
        assert float(state.params[0, 1, 2]) == pytest.approx(5.5)


def test_one_dimension_is_dqn():
    """The same run on the same environment in bins: every action, every parameter."""
    env, params = jaxrl.make("Pendulum-v1")
    torso = nets.MLP((8,))

    def run(agent, env):
        run = jaxrl.make_run(env, params, agent, jaxrl.uniform(200, 8, 4, window=3), jaxrl.LoopConfig(4, warmup=6))
        return jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 40))(jaxrl.key(0))

    options = {"loss": "huber", "epsilon": 0.3}
    one, _ = run(jaxrl.dqn(nets.QNetwork(3, torso), **options), wrappers.discretize_action(env, 3, ends=True))
    decoupled, _ = run(jaxrl.decqn(nets.QNetwork(1, torso, atoms=3), **options), wrappers.decouple_action(env))
    np.testing.assert_array_equal(decoupled.env_state.theta, one.env_state.theta)
    np.testing.assert_array_equal(decoupled.buffer.action[:, 0], one.buffer.action)
    for a, b in zip(jax.tree.leaves(decoupled.agent), jax.tree.leaves(one.agent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 3), (3, 1)])
def test_each_dimension_explores_for_itself_among_its_bins(sizes):
    agent = jaxrl.decqn(Rows(2), nvec=sizes, epsilon=0.5)
    online, _ = rows_of(2)
    online[0, np.arange(BINS) >= np.array(sizes)[:, None]] = 100.0  # bins that do not exist look best
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))._replace(params=jnp.asarray(online))
    keys = jax.random.split(jaxrl.key(1), 20_000)
    actions, _ = jax.jit(jax.vmap(lambda key: agent.act(state, (), jnp.int32(0), key, 0.0)))(keys)
    chances = []
    for d, bins in enumerate(sizes):
        chance = np.full(BINS, 0.0)
        chance[:bins] = 0.5 / bins
        chance[np.argmax(online[0, d, :bins])] += 0.5
        chances.append(chance)
    joint = np.outer(*chances)  # independent
    found = np.zeros((BINS, BINS))
    np.add.at(found, tuple(np.asarray(actions).T), 1 / len(keys))
    assert (np.abs(found - joint) <= 5 * np.sqrt(joint * (1 - joint) / len(keys))).all()
    greedy, _ = agent.act(state, (), jnp.int32(0), keys[0], 0.0, greedy=True)
    np.testing.assert_array_equal(greedy, [np.argmax(online[0, d, :bins]) for d, bins in enumerate(sizes)])


def aiming():
    """One state, two dimensions of 2 and 3 bins; only bin 1 of the first and bin 2 of the second pay, each a half."""

    def step(key, state, action, params):
        del key
        reward = 0.5 * (action[0] == 1) + 0.5 * (action[1] == 2)
        return state, reward.astype(jnp.float32), jnp.zeros((), bool)

    masked = jaxrl.make("Corridor-v0", max_steps_in_episode=4)
    state = masked[0].reset(jaxrl.key(0), masked[1])[1]
    return PureEnvironment(
        "Aiming-v0",
        masked[1],
        reset_fn=lambda key, params: jax.tree.map(jnp.zeros_like, state),
        step_fn=step,
        observe_fn=lambda state, params: jnp.zeros((), jnp.int32),
        observation_space_fn=lambda params: spaces.Discrete(1),
        action_space_fn=lambda params: spaces.MultiDiscrete((2, 3)),
        splits_fn=never,
    )


def test_learns_each_dimension_from_their_mean():
    env = aiming()
    agent = jaxrl.decqn(Rows(2), optax.adam(1e-2), nvec=(2, 3), gamma=0.5, epsilon=0.5)
    buffer = jaxrl.uniform(400, 16, 4, window=2)
    run = jaxrl.make_run(env, env.default_params, agent, buffer, jaxrl.LoopConfig(4, warmup=4))
    state, _ = jax.jit(lambda key: jaxrl.advance(run, run.warmup(run.init(key)), 400))(jaxrl.key(0))
    assert state.buffer.action.shape[1:] == (2,)
    held = buffer.contents(state.buffer, state.clock)
    paid = 0.5 * (held.action[..., 0] == 1) + 0.5 * (held.action[..., 1] == 2)
    np.testing.assert_array_equal(held.reward, paid)
    result = jaxrl.evaluate(env, env.default_params, agent, state.agent, jaxrl.key(1), 3)
    np.testing.assert_array_equal(result.returns, 4.0)


def echo(box):
    """An environment whose observation is the action it took."""
    pendulum, params = jaxrl.make("Pendulum-v1")
    start = pendulum.reset(jaxrl.key(0), params)[1]

    def step(key, state, action, params):
        del key
        assert action.shape == box.shape
        return state, jnp.sum(action.astype(jnp.float32)), jnp.zeros((), bool)

    return PureEnvironment(
        "Echo-v0",
        params,
        reset_fn=lambda key, params: start,
        step_fn=step,
        observe_fn=lambda state, params: state.theta,
        observation_space_fn=lambda params: spaces.Box(-1.0, 1.0, ()),
        action_space_fn=lambda params: box,
        splits_fn=never,
    )


def points(box, bins, action):
    env = wrappers.decouple_action(echo(box), bins)
    return env.act_fn(None, jnp.asarray(action), ())


def test_bins_go_from_limit_to_limit():
    box = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]))
    env = wrappers.decouple_action(echo(box), (3, 5))
    assert env.action_space() == spaces.MultiDiscrete((3, 5))
    assert env.num_actions == 2
    for action in np.ndindex(3, 5):
        np.testing.assert_allclose(points(box, (3, 5), action), [-2.0 + 2.0 * action[0], 2.5 * action[1]])
    np.testing.assert_array_equal(points(box, (3, 5), [-7, 9]), [-2.0, 10.0])  # the nearest there is
    square = spaces.Box(-1.0, 1.0, (2, 2))
    np.testing.assert_array_equal(points(square, 3, [0, 1, 2, 1]), [[-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(points(spaces.Box(-1.0, 3.0, ()), 2, [1]), 3.0)
    assert points(spaces.Box(0, 10, (1,), np.int32), 6, [2]).tolist() == [4]
    _, _, reward, *_ = jax.jit(env.step)(jaxrl.key(0), env.reset(jaxrl.key(0))[1], jnp.array([2, 1]))
    assert float(reward) == 4.5
    assert env.settings == ((3, 5),)
    assert env.with_params(env.default_params).action_space() == env.action_space()


def test_decoupled_and_joint_bins_are_the_same_points():
    box = spaces.Box(np.array([-2.0, 0.0, 1.0]), np.array([2.0, 10.0, 4.0]))
    bins = (3, 2, 4)
    joint = wrappers.discretize_action(echo(box), bins, ends=True)
    for index, action in enumerate(np.ndindex(*bins)):
        np.testing.assert_array_equal(joint.act_fn(None, index, ()), points(box, bins, action))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrappers.decouple_action(jaxrl.make("CartPole-v1")[0]), "decouple_action needs a Box action space"),
        (lambda: wrappers.decouple_action(jaxrl.make("Pendulum-v1")[0], 1), "takes at least 2 a dimension"),
        (lambda: wrappers.decouple_action(jaxrl.make("Pendulum-v1")[0], 0), "bins of decouple_action is 0"),
        (lambda: wrappers.decouple_action(jaxrl.make("Pendulum-v1")[0], (3, 3)), "one for each of 1 dimensions"),
        (lambda: wrappers.decouple_action(echo(spaces.Box(-np.inf, 1, (1,)))), "decouple_action needs finite limits"),
        (lambda: wrappers.decouple_action(jaxrl.make("Pendulum-v1")), "decouple_action got a tuple"),
        (lambda: jaxrl.decqn(Rows(2), gamma=2.0), "gamma is 2.0"),
        (lambda: jaxrl.decqn(Rows(2), loss="hubert"), "unknown loss 'hubert'; did you mean 'huber'"),
        (lambda: jaxrl.decqn(Rows(2), nvec=(3, 0)), r"nvec\[1\] is 0; it must be an integer of at least 1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


PENDULUM = jaxrl.make("Pendulum-v1")[0]
decoupled = functools.partial(wrappers.decouple_action, PENDULUM)


@pytest.mark.parametrize(
    ("env", "agent", "message"),
    [
        (
            lambda: PENDULUM,
            lambda: jaxrl.decqn(nets.QNetwork(1, atoms=3)),
            r"action space of Pendulum-v1 is Box; .* use decqn with wrappers.decouple_action\(env\), or any other "
            r"agent with wrappers.discretize_action\(env, bins\)",
        ),
        (
            decoupled,
            lambda: jaxrl.dqn(nets.QNetwork(3)),
            r"shape \[\] .* but Pendulum-v1 has MultiDiscrete actions of shape \[1\]; use an agent that fits: decqn",
        ),
        (
            lambda: jaxrl.make("CartPole-v1")[0],
            lambda: jaxrl.decqn(nets.QNetwork(1, atoms=2)),
            r"shape \[1\] .* CartPole-v1 has Discrete actions of shape \[\]; use an agent that fits: dqn or any",
        ),
        (
            decoupled,
            lambda: jaxrl.decqn(nets.QNetwork(2, atoms=3)),
            r"chooses an action of shape \[2\] for one environment, but Pendulum-v1 has .* of shape \[1\]",
        ),
        (
            lambda: jaxrl.make("CartPole-v1")[0],
            lambda: jaxrl.dqn(nets.QNetwork(2, atoms=5)),
            r"the network gives \[2, 5\] for one observation; this agent's must give \[A\]",
        ),
        (
            decoupled,
            lambda: jaxrl.decqn(nets.QNetwork(3)),
            r"the network gives \[3\] for one observation; it must give \[D, bins\]: .* another agent, such as dqn",
        ),
        (
            decoupled,
            lambda: jaxrl.decqn(nets.QNetwork(1, atoms=3), nvec=(5,)),
            r"the network gives \[1, 3\] for one observation; it must give \[1, 5\], the bins of each dimension",
        ),
    ],
)
def test_refusals_of_a_run(env, agent, message):
    env = env()
    with pytest.raises(ValueError, match=message):
        buffer = jaxrl.uniform(64, 4, 2)
        run = jaxrl.make_run(env, env.default_params, agent(), buffer, jaxrl.LoopConfig(2, warmup=2))
        jax.eval_shape(run.init, jaxrl.key(0))


def test_a_value_needs_an_action_of_every_dimension():
    assert float(taken(jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([1, 0]))) == 2.5
    with pytest.raises(AssertionError):
        taken(jnp.zeros((2, 3)), jnp.int32(0))
    assert value.ValueState._fields == jaxrl.decqn(Rows(1)).init(jaxrl.key(0), jnp.zeros(1, jnp.int32))._fields


def test_a_recipe_carries_actions_of_every_dimension(tmp_path):
    options = {"steps": 2_000, "learning_starts": 400, "eval_episodes": 2}
    result = jaxrl.train("decqn", "Pendulum-v1", **options, out=tmp_path / "run")
    assert result.act(jnp.array([1.0, 0.0, 0.0])).shape == (1,)
    env, params, agent, state = jaxrl.load(tmp_path / "run")
    assert env.action_space(params) == spaces.MultiDiscrete((3,))
    play = watch.player(watch.Chosen(env, params, None, {}), watch.greedy(agent, state))
    moments = list(play(jaxrl.key(0), 3))
    assert [moment.action.shape for moment in moments[1:]] == [(1,)] * 3


def test_the_recipe_makes_bins_and_scales_what_has_limits():
    config = recipes.default("decqn", "Pendulum-v1")
    setup = recipes.build("decqn", config, *jaxrl.make("Pendulum-v1"))
    space = setup.env.observation_space(setup.env.default_params)
    np.testing.assert_array_equal([space.low, space.high], [[-1.0] * 3, [1.0] * 3])
    plain = dataclasses.replace(config, rescale=False, agent=dataclasses.replace(config.agent, bins=5))
    setup = recipes.build("decqn", plain, *jaxrl.make("Pendulum-v1"))
    assert setup.env.observation_space(setup.env.default_params).high[2] == 8.0
    assert setup.env.action_space(setup.env.default_params) == spaces.MultiDiscrete((5,))
    env = aiming()
    setup = recipes.build("decqn", recipes.default("decqn"), env, env.default_params)
    assert setup.env == env
    with pytest.raises(ValueError, match="decqn chooses from MultiDiscrete actions, but CartPole-v1 has Discrete"):
        recipes.build("decqn", recipes.default("decqn"), *jaxrl.make("CartPole-v1"))
    few = dataclasses.replace(config, agent=dataclasses.replace(config.agent, bins=1))
    with pytest.raises(ValueError, match="agent.bins is 1; it must be an integer of at least 2"):
        recipes.build("decqn", few, *jaxrl.make("Pendulum-v1"))
    headed = dataclasses.replace(config, agent=dataclasses.replace(config.agent, dueling=True))
    with pytest.raises(ValueError, match="agent.dueling is true, but decqn's heads are of dimensions"):
        recipes.build("decqn", headed, *jaxrl.make("Pendulum-v1"))


def test_counts_of_bins_may_be_an_array_but_not_none_at_all():
    given = jaxrl.decqn(Rows(2), nvec=np.array([3, 3])).init(jaxrl.key(0), jnp.zeros(1, jnp.int32))
    assert given._fields == value.ValueState._fields
    with pytest.raises(ValueError, match="nvec is empty; give the number of bins of each dimension"):
        jaxrl.decqn(Rows(2), nvec=())
