"""Ape-X: the ladder, first priorities by what the actors hold, copies made when they are due; all against numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import masked_env
from windows import ACTIONS, GAMMA, STATES, Table, batch, fold, tables

import jaxrl
from jaxrl import nets, recipes
from jaxrl.agents import apex as module
from jaxrl.agents import value
from jaxrl.types import Sample

LADDER = [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]


def error(item, online, target):
    """Goal less value of one window, double and n-step, one after the other."""
    obs, action, total, discount, next_obs, allowed = fold(item)
    chosen = int(np.argmax(np.where(allowed, online[next_obs], -np.inf)))
    return total + discount * float(target[next_obs, chosen]) - float(online[obs, action])


def agent_of(optimizer=None, **options):
    return jaxrl.apex(Table(), optimizer or optax.sgd(0.5), gamma=GAMMA, **options)


def state_of(agent, online, target, actors, lanes=2):
    """The agent's state with the learner's tables and the actors' as given."""
    state = agent.init(jaxrl.key(0), jnp.zeros(lanes, jnp.int32))
    as_arrays = [jnp.asarray(table) for table in (online, target, *actors)]
    return state._replace(params=as_arrays[0], target=as_arrays[1], actors=module.Copies(*as_arrays[2:]))


def sample_of(items):
    window = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *items)
    return Sample(window, jnp.arange(len(items)), jnp.ones(len(items)))


def priority_of(agent):
    assert agent.priority is not None
    return jax.jit(agent.priority)


def test_ladder():
    agent = agent_of()
    np.testing.assert_allclose(agent.carry(8), LADDER, rtol=1e-5)
    np.testing.assert_allclose(agent_of(epsilon=0.3, alpha=1.0).carry(3), [0.3, 0.3**1.5, 0.09], rtol=1e-5)
    np.testing.assert_allclose(agent.carry(360)[-1], 6.5536e-4, rtol=1e-5)
    np.testing.assert_allclose(agent.carry(1), [0.4], rtol=1e-6)  # one greedy episode, of which nothing explores


def test_each_actor_explores_at_its_own_rate_by_what_it_copied():
    online, target = tables()
    stale, other = tables(seed=2)
    agent = agent_of()
    state = state_of(agent, online, target, (stale, other))
    ladder = agent.carry(4)

    def acts(carry, key):
        return agent.act(state, carry, jnp.int32(3), key, 0.0)

    keys = jax.random.split(jaxrl.key(3), 20_000)
    actions, carries = jax.jit(jax.vmap(jax.vmap(acts, (None, 0)), (0, None)))(ladder, keys)
    np.testing.assert_array_equal(carries, np.repeat(np.asarray(ladder)[:, None], len(keys), axis=1))
    for epsilon, chosen in zip(np.asarray(ladder), np.asarray(actions)):
        expected = np.full(ACTIONS, epsilon / ACTIONS)
        expected[np.argmax(stale[3])] += 1 - epsilon
        spread = np.sqrt(expected * (1 - expected) / len(keys))
        assert (np.abs(np.bincount(chosen, minlength=ACTIONS) / len(keys) - expected) < 5 * spread).all()
    assert np.argmax(stale[3]) != np.argmax(online[3])
    assert int(agent.act(state, (), jnp.int32(3), keys[0], 0.0, greedy=True)[0]) == np.argmax(online[3])


def test_loss_and_both_priorities_for_every_pattern_of_ends():
    items = batch(length=3)
    online, target = tables()
    stale = tables(seed=2)
    agent = agent_of(optax.sgd(1.0))
    state = state_of(agent, online, target, stale)
    sample = sample_of(items)
    after, priority, metrics = jax.jit(agent.update)(state, sample, jaxrl.key(1), jnp.float32(0))
    own = np.array([error(item, online, target) for item in items])
    actors = np.array([error(item, *stale) for item in items])
    np.testing.assert_allclose(priority, np.abs(own), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(0.5 * own**2), rtol=1e-5)
    expected = online.astype(np.float64)
    for item, gap in zip(items, own):
        obs, action, *_ = fold(item)
        expected[obs, action] += gap / len(items)  # half the square descends by the error itself
    np.testing.assert_allclose(after.params, expected, rtol=1e-4, atol=1e-5)
    first = priority_of(agent)(state, sample.window)
    np.testing.assert_allclose(first, np.abs(actors), rtol=1e-4, atol=1e-5)
    assert np.mean(np.abs(np.abs(actors) - np.abs(own)) > 0.01) > 0.9


def test_against_rlax():
    rlax = pytest.importorskip("rlax")
    online, target = tables()
    agent = agent_of()
    items = batch(length=3)
    _, priority, _ = agent.update(
        state_of(agent, online, target, (online, target)), sample_of(items), jaxrl.key(1), jnp.float32(0)
    )
    compared = 0
    for item, found in zip(items, np.asarray(priority)):
        if item.truncated.any():  # of which rlax does not know
            continue
        values = target[item.next_obs.observation, np.argmax(online[item.next_obs.observation], axis=-1)]
        discounts = jnp.asarray(np.where(item.terminated, 0, GAMMA), jnp.float32)
        goal = rlax.n_step_bootstrapped_returns(jnp.asarray(item.reward), discounts, jnp.asarray(values), 3)[0]
        *_, allowed = fold(item)
        if not item.terminated.any() and not allowed.all():
            continue
        value = float(online[item.obs.observation[0], item.action[0]])
        assert abs(float(goal) - value) == pytest.approx(float(found), abs=1e-5)
        obs, action, total, discount, next_obs, _ = fold(item)
        one = rlax.double_q_learning(
            online[obs], action, jnp.float32(total), jnp.float32(discount), target[next_obs], online[next_obs]
        )
        assert abs(float(one)) == pytest.approx(float(found), abs=1e-5)
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("refresh", [1, 3])
def test_actors_lag_by_exactly_the_set_number(refresh):
    """After t gradient steps they hold the learner, and its target, of after t - t % refresh."""
    agent = agent_of(refresh=refresh, target_update=value.polyak(0.5))
    state = agent.init(jaxrl.key(0), jnp.zeros(2, jnp.int32))
    sample, update = sample_of(batch(length=1)), jax.jit(agent.update)
    history = [(np.asarray(state.params), np.asarray(state.target))]
    for t in range(1, 8):
        state, *_ = update(state, sample, jaxrl.key(t), jnp.float32(0))
        history.append((np.asarray(state.params), np.asarray(state.target)))
        for held, learned in zip(state.actors, history[t - t % refresh]):
            np.testing.assert_array_equal(held, learned)
    assert all(not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(history))


def test_in_the_loop():
    """First priorities in the tree, the ladder after ends of episodes, and copies by the number of updates."""
    env = masked_env()
    num_envs, window, unroll = 3, 3, 4
    buffer = jaxrl.prioritized(300, 1, num_envs, window=window, alpha=1.0, carry=False)
    agent = agent_of(refresh=4)
    run = jaxrl.make_run(env, env.default_params, agent, buffer, jaxrl.LoopConfig(num_envs, unroll, 2, warmup=7))
    online, target = tables()
    stale = tables(seed=2)
    start = jax.jit(lambda key: run.warmup(run.init(key)))(jaxrl.key(0))
    tables_of = state_of(agent, online, target, stale)
    start = start._replace(agent=tables_of)
    step = jax.jit(run.step)
    state, metrics = step(start)
    held = jax.tree.map(np.asarray, buffer.contents(state.buffer, state.clock))
    mass = np.asarray(state.buffer.tree[0])[: 100 * num_envs].reshape(100, num_envs)
    learned = 0
    for row, lane in np.ndindex(7 + unroll - window + 1, num_envs):
        item = jax.tree.map(lambda x, row=row, lane=lane: x[row : row + window, lane], held)
        by_actors = abs(error(item, *stale))
        entered = by_actors if row > 7 - window else 1.0  # those that the warm-up completed have the largest of then
        if mass[row, lane] != pytest.approx(entered, abs=1e-5):
            learned += 1  # it was drawn, and has a learner's own error; the parameters have moved for the second
        else:
            assert abs(by_actors - abs(error(item, online, target))) > 1e-4
    assert 1 <= learned <= 2
    history = [None, state.agent]
    for phase in range(2, 7):  # of two gradient steps each
        state, metrics = step(state)
        np.testing.assert_array_equal(state.carry, agent.carry(num_envs))
        history.append(state.agent)
        expected = history[phase - phase % 2]
        for held, learned in zip(state.agent.actors, (expected.params, expected.target)):
            np.testing.assert_array_equal(held, learned)
    assert float(metrics["episodes"]) > 0


def test_optimiser_is_the_papers():
    """Centred RMSProp of decay 0.95, epsilon 1.5e-7, after a clip of the norm at 40."""
    rule = module.rmsprop(0.1)
    params = jnp.zeros(2)
    state, mean, square, expected = rule.init(params), np.zeros(2), np.zeros(2), np.zeros(2)
    for gradient in (np.array([3.0, 4.0]), np.array([300.0, 400.0]), np.array([-1.0, 0.5])):
        change, state = rule.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, change)
        clipped = gradient * min(1.0, 40.0 / np.linalg.norm(gradient))
        mean, square = 0.95 * mean + 0.05 * clipped, 0.95 * square + 0.05 * clipped**2
        expected -= 0.1 * clipped / np.sqrt(square - mean**2 + 1.5e-7)
        np.testing.assert_allclose(np.asarray(params), expected, rtol=1e-5)


def test_target_is_copied_every_2500_updates():
    agent = agent_of()
    state = agent.init(jaxrl.key(0), jnp.zeros(2, jnp.int32))
    sample, update = sample_of(batch(length=1)), jax.jit(agent.update)
    for updates, copied in ((2_498, False), (2_499, True), (2_500, False)):
        after, *_ = update(state._replace(updates=jnp.int32(updates)), sample, jaxrl.key(0), jnp.float32(0))
        assert np.array_equal(after.target, after.params) == copied


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, r"alpha is -1.0; it must be a finite number in \[0, inf\)"),
        ({"refresh": 0}, "refresh is 0; it must be an integer of at least 1"),
        ({"refresh": 2.5}, "refresh is 2.5"),
        ({"epsilon": 1.5}, r"epsilon is 1.5; it must be a finite number in \[0, 1\]"),
        ({"gamma": -0.1}, "gamma is -0.1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.apex(Table(), **options)


def test_refusals_of_a_run():
    env, params = jaxrl.make("CartPole-v1")

    def begin(agent, num_envs):
        buffer = jaxrl.prioritized(64, 4, num_envs, window=3)
        jaxrl.make_run(env, params, agent, buffer, jaxrl.LoopConfig(num_envs, warmup=4)).init(jaxrl.key(0))

    with pytest.raises(ValueError, match="num_envs of an epsilon ladder is 1; it must be an integer of at least 2"):
        begin(jaxrl.apex(nets.QNetwork(2)), 1)
    with pytest.raises(
        ValueError, match=r"the network gives \[2, 5\] for one observation; this agent's must give \[A\]"
    ):
        begin(jaxrl.apex(nets.QNetwork(2, atoms=5)), 2)


def test_ladders_may_be_swept():
    def carry(alpha):
        return jaxrl.apex(Table(), alpha=alpha).carry(STATES)

    alphas = jnp.array([0.0, 1.0, 7.0])
    expected = 0.4 ** (1 + np.asarray(alphas)[:, None] * np.arange(STATES) / (STATES - 1))
    np.testing.assert_allclose(jax.vmap(carry)(alphas), expected, rtol=1e-5)


def test_the_recipe_has_the_papers_constants():
    config = recipes.default("apex")
    agent, replay = config.agent, config.replay
    assert (config.num_envs, config.learning_starts, replay.capacity, replay.batch_size) == (
        256,
        50_000,
        2_000_000,
        512,
    )
    assert (replay.prioritized, replay.alpha, replay.beta) == (True, 0.6, 0.4)
    assert (agent.learning_rate, agent.learning_rate_end, agent.optimizer) == (6.25e-5, 6.25e-5, "rmsprop")
    assert (agent.optimizer_eps, agent.clip_norm, agent.target_period) == (1.5e-7, 40.0, 2_500)
    assert (agent.gamma, agent.n_step, agent.dueling, agent.ladder_base, agent.ladder_alpha) == (
        0.99,
        3,
        True,
        0.4,
        7.0,
    )
    setup = recipes.build("apex", config, *jaxrl.make("Acrobot-v1"))
    np.testing.assert_allclose(setup.agent.carry(8), LADDER, rtol=1e-5)
    drawn = setup.loop.updates * replay.batch_size / (setup.loop.unroll * setup.loop.num_envs)
    assert drawn == pytest.approx(9.7 / 12.5, abs=0.03)  # windows replayed for one collected, as in the paper


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 1}, "num_envs of an epsilon ladder is 1"),
        ({"agent": {"ladder_alpha": -2.0}}, "alpha is -2.0"),
        ({"agent": {"refresh": 0}}, "refresh is 0"),
        ({"agent": {"noisy": True}}, "apex explores by its ladder: leave both as they are"),
        ({"agent": {"epsilon": {"end": 0.3}}}, "apex explores by its ladder: leave both as they are"),
        ({"replay": {"batch_size": 200_000}}, "batch_size 200000 is more than"),
    ],
)
def test_refusals_of_the_recipe(changes, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.train("apex", "CartPole-v1", **changes)
