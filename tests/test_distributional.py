"""Distributional losses against rlax, numpy and hand arithmetic, over every pattern of ends and with masks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from windows import GAMMA, Table, batch, fold, learn, tables

import jaxrl
from jaxrl import nets
from jaxrl.agents import value
from jaxrl.agents.c51 import c51, project
from jaxrl.agents.fqf import fqf
from jaxrl.agents.hl_gauss import histogram, hl_gauss
from jaxrl.agents.iqn import iqn
from jaxrl.agents.qr_dqn import qr_dqn
from jaxrl.types import Transition

ATOMS, V_MIN, V_MAX = 5, -1.5, 2.5
SUPPORT = np.linspace(V_MIN, V_MAX, ATOMS).astype(np.float32)
SUPPORTED = partial(c51, Table(ATOMS), optax.sgd(1.0), atoms=ATOMS, v_min=V_MIN, v_max=V_MAX, gamma=GAMMA)


def pieces(items):
    """What every loss needs of each item: state, action, return, discount, next state, allowed there."""
    columns = [np.asarray(column) for column in zip(*map(fold, items))]
    return [jnp.asarray(c, jnp.float32) if c.dtype == float else jnp.asarray(c) for c in columns]


def check(agent, online, target, items, loss, priority=None):
    """One update is a step along the mean of `loss(params, target, *piece)`, and the priorities are `priority`'s."""
    state, got, metrics = learn(agent, online, target, items)

    @partial(jax.grad, has_aux=True)
    def total(params):
        costs = jax.vmap(partial(loss, params, jnp.asarray(target)))(*pieces(items))
        priorities = jax.vmap(partial(priority or loss, params, jnp.asarray(target)))(*pieces(items))
        return jnp.mean(costs), (jnp.mean(costs), priorities)

    gradient, (mean, priorities) = jax.jit(total)(online)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(metrics["loss"], mean, rtol=1e-5)
    np.testing.assert_allclose(state.params, online - gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got, priorities, rtol=1e-4, atol=1e-5)


DOPAMINE = [  # tests/dopamine/jax/agents/rainbow/rainbow_agent_test.py: points, chances, even points, chances there
    ([0, 1, 2, 3, 4], [0.1, 0.2, 0.1, 0.3, 0.3], [0, 1, 2, 3, 4], [0.1, 0.2, 0.1, 0.3, 0.3]),
    ([0, 1, 2, 3, 4], [0.1, 0.2, 0.1, 0.3, 0.3], [3, 4, 5, 6, 7], [0.7, 0.3, 0.0, 0.0, 0.0]),
    ([4, 3, 2, 1, 0], [0.1, 0.2, 0.1, 0.3, 0.3], [3, 4, 5, 6, 7], [0.9, 0.1, 0.0, 0.0, 0.0]),
    ([0, 2, 4, 6, 8], [0.1, 0.6, 0.1, 0.1, 0.1], [4, 5, 6, 7, 8], [0.8, 0.0, 0.1, 0.0, 0.1]),
    ([1, 3, 4, 5, 6], [0.1, 0.2, 0.5, 0.1, 0.1], [4, 5, 6, 7, 8], [0.8, 0.1, 0.1, 0.0, 0.0]),
    ([0, 2, 4, 6, 8], [0.1, 0.2, 0.3, 0.2, 0.2], [3, 4, 5, 6, 7], [0.3, 0.3, 0.0, 0.2, 0.2]),
    ([3, 4, 5, 6, 7], [0.1, 0.2, 0.3, 0.2, 0.2], [3, 4, 5, 6, 7], [0.1, 0.2, 0.3, 0.2, 0.2]),
    ([0, 2, 4, 6, 8], [0.1, 0.2, 0.2, 0.2, 0.3], [0, 4, 8, 12, 16], [0.2, 0.4, 0.4, 0.0, 0.0]),
    ([8, 9, 10, 12, 14], [0.1, 0.2, 0.4, 0.1, 0.2], [0, 4, 8, 12, 16], [0.0, 0.0, 0.45, 0.45, 0.1]),
]


def test_projection_is_dopamines():
    points, chances, even, expected = (np.array(column, np.float32) for column in zip(*DOPAMINE))
    got = jax.jit(jax.vmap(project))(points, chances, even[:, 0], even[:, -1])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_projection_is_rlaxs():
    rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 4, (64, ATOMS)).astype(np.float32)
    chances = rng.dirichlet(np.ones(ATOMS), 64).astype(np.float32)
    got = jax.jit(jax.vmap(partial(project, v_min=V_MIN, v_max=V_MAX)))(points, chances)
    expected = jax.jit(jax.vmap(rlax.categorical_l2_project, (0, 0, None)))(points, chances, SUPPORT)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(np.sum(got, axis=1), 1, rtol=1e-6)
    means = (np.clip(points, V_MIN, V_MAX) * chances).sum(axis=1)
    np.testing.assert_allclose(np.asarray(got) @ SUPPORT, means, rtol=1e-4, atol=1e-5)  # it moves no mean


no_deprecation = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of a part of rlax by another


@no_deprecation
@pytest.mark.parametrize("double", [False, True])
def test_c51_is_rlaxs(double):
    rlax = pytest.importorskip("rlax")
    online, target = tables(ATOMS)

    def choice(params, target, next_obs, mask):
        logits = (params if double else target)[next_obs]
        return jax.lax.stop_gradient(jnp.where(mask, jax.nn.softmax(logits) @ SUPPORT, -jnp.inf))

    def loss(params, target, obs, action, reward, discount, next_obs, mask):
        selector = choice(params, target, next_obs, mask)
        atoms = jnp.asarray(SUPPORT)
        return rlax.categorical_double_q_learning(
            atoms, params[obs], action, reward, discount, atoms, target[next_obs], selector
        )

    def divergence(params, target, obs, action, reward, discount, next_obs, mask):
        following = jax.nn.softmax(target[next_obs][jnp.argmax(choice(params, target, next_obs, mask))])
        goal = rlax.categorical_l2_project(reward + discount * SUPPORT, following, SUPPORT)
        chances = jax.nn.softmax(params[obs][action])
        return jnp.sum(jnp.where(goal > 0, goal * (jnp.log(jnp.where(goal > 0, goal, 1)) - jnp.log(chances)), 0))

    check(SUPPORTED(double=double), online, target, batch(), loss, divergence)


@no_deprecation
def test_c51_without_masks_is_rlaxs_plain_learning():
    rlax = pytest.importorskip("rlax")
    online, target = tables(ATOMS)

    def loss(params, target, obs, action, reward, discount, next_obs, mask):
        del mask
        atoms = jnp.asarray(SUPPORT)
        return rlax.categorical_q_learning(atoms, params[obs], action, reward, discount, atoms, target[next_obs])

    items = [item._replace(obs=item.obs.observation, next_obs=item.next_obs.observation) for item in batch()]
    _, _, metrics = learn(SUPPORTED(), online, target, items)
    costs = jax.jit(jax.vmap(partial(loss, jnp.asarray(online), jnp.asarray(target))))(*pieces(items))
    np.testing.assert_allclose(metrics["loss"], np.mean(costs), rtol=1e-5)


def test_c51_says_how_far_mass_was_outside():
    """All of it is on the top point, 0.7 of which is 1.75; after the end it is on the reward."""
    online = np.zeros((4, 3, ATOMS), np.float32)
    target = online + np.float32([0, 0, 0, 0, 100])
    agent = SUPPORTED()
    cases = {(1.0, False): 1.0 + GAMMA * V_MAX - V_MAX, (-1.0, False): 0.0, (1.0, True): 0.0}
    cases |= {(3.0, True): 3.0 - V_MAX, (-2.0, True): V_MIN + 2.0}
    for (reward, terminated), distance in cases.items():
        item = Transition(*(np.array([x]) for x in (0, 0, np.float32(reward), terminated, False, 1)))
        _, priority, metrics = learn(agent, online, target, [item])
        assert float(metrics["outside"]) == pytest.approx(distance / (V_MAX - V_MIN), abs=1e-6)
        assert (priority >= 0).all()


@pytest.mark.parametrize(("kappa", "double"), [(1.0, False), (0.0, True), (0.3, True)])
def test_qr_dqn_is_rlaxs(kappa, double):
    rlax = pytest.importorskip("rlax")
    online, target = tables(4)
    middles = (jnp.arange(4) + 0.5) / 4

    def loss(params, target, obs, action, reward, discount, next_obs, mask):
        selector = jnp.where(mask[None], (params if double else target)[next_obs].T, -jnp.inf)
        cost = rlax.quantile_q_learning(
            params[obs].T, middles, action, reward, discount, jax.lax.stop_gradient(selector), target[next_obs].T, kappa
        )
        return cost / (kappa or 1)

    agent = qr_dqn(Table(4), optax.sgd(1.0), quantiles=4, kappa=kappa, double=double, gamma=GAMMA)
    check(agent, online, target, batch(), loss)


def test_quantile_loss_by_hand():
    """Two quantiles, three samples: errors -1, 1, 4 at 1/4 and -3, -1, 2 at 3/4."""
    found, fractions, goal = jnp.array([1.0, 3.0]), jnp.array([0.25, 0.75]), jnp.array([0.0, 2.0, 5.0])
    absolute = (0.75 * 1 + 0.25 * 1 + 0.25 * 4) / 3 + (0.25 * 3 + 0.25 * 1 + 0.75 * 2) / 3
    assert float(value.quantile_loss(found, fractions, goal, 0)) == pytest.approx(absolute)
    # Huber of 2 over 2: |u| <= 2 is u^2 / 4, beyond |u| - 1
    huber = (0.75 * 0.25 + 0.25 * 0.25 + 0.25 * 3) / 3 + (0.25 * 2 + 0.25 * 0.25 + 0.75 * 1) / 3
    assert float(value.quantile_loss(found, fractions, goal, 2.0)) == pytest.approx(huber)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_quantile_loss_is_rlaxs(kappa):
    rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(0)
    found, goal = rng.normal(size=(2, 16, 7)).astype(np.float32)
    fractions = rng.uniform(size=(16, 7)).astype(np.float32)

    def both(loss):
        return jax.vmap(jax.value_and_grad(loss))(found, fractions, goal[:, :5])

    ours, theirs = jax.jit(
        lambda: (
            both(partial(value.quantile_loss, kappa=kappa)),
            both(partial(rlax.quantile_regression_loss, huber_param=kappa)),
        )
    )()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours, theirs)


def test_quantiles_are_where_the_loss_is_flat():
    """Of an exponential's samples quantile f is -log(1 - f): no slope there, and up and down beside it."""
    fractions = (jnp.arange(4) + 0.5) / 4
    samples = -jnp.log1p(-(jnp.arange(4000) + 0.5) / 4000)
    slope = jax.jit(jax.grad(lambda found: value.quantile_loss(found, fractions, samples, 0)))
    right = -jnp.log1p(-fractions)
    np.testing.assert_allclose(slope(right), 0, atol=1e-3)
    # the share of samples that are smaller, less the fraction
    np.testing.assert_allclose(slope(right + 0.1), -jnp.expm1(-right - 0.1) - fractions, atol=1e-3)
    np.testing.assert_allclose(slope(right - 0.1), -jnp.expm1(-right + 0.1) - fractions, atol=1e-3)


class Slanted(Table):
    """Implicit quantiles q + slope (fraction - 1/2), of a table [S, A, 2]."""

    def __init__(self):
        super().__init__(2)

    def apply(self, params, obs, fractions, /):
        q, slope = params[obs].T
        return q[None] + slope[None] * (fractions[:, None] - 0.5)


@pytest.fixture
def even_fractions(monkeypatch):
    """Every draw of fractions is even, so that what a loss of random ones should be is known."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: (jnp.arange(shape[0]) + 0.5) / shape[0])


@pytest.mark.parametrize("double", [False, True])
def test_iqn_is_rlaxs(double, even_fractions):
    rlax = pytest.importorskip("rlax")
    online, target = tables(2)
    own, ahead, acting = ((jnp.arange(n) + 0.5) / n for n in (3, 4, 2))

    def loss(params, target, obs, action, reward, discount, next_obs, mask):
        chooser = Slanted().apply(jax.lax.stop_gradient(params) if double else target, next_obs, acting)
        here, there = Slanted().apply(params, obs, own), Slanted().apply(target, next_obs, ahead)
        chooser = jnp.where(mask[None], chooser, -jnp.inf)
        return rlax.quantile_q_learning(here, own, action, reward, discount, chooser, there, 1.0)

    options = {"fractions": 3, "target_fractions": 4, "acting_fractions": 2}
    agent = iqn(Slanted(), optax.sgd(1.0), gamma=GAMMA, double=double, **options)
    check(agent, online, target, batch(), loss)


def test_iqn_draws_fractions_for_each_item():
    """A quantile of 0 where the return is 1 costs fraction / 2, so that priorities are sums of 6 uniform numbers."""
    zero = np.zeros((4, 3, 2), np.float32)
    item = Transition(*(np.array([x]) for x in (0, 0, np.float32(1), True, False, 0)))
    agent = iqn(Slanted(), optax.sgd(1.0), fractions=6, target_fractions=3, acting_fractions=2)
    _, priority, _ = learn(agent, zero, zero, [item] * 500)
    sums = 2 * np.asarray(priority)
    assert len(np.unique(sums)) == 500
    assert abs(sums.mean() - 3) < 5 * np.sqrt(0.5 / 500)
    assert stats.kstest(sums, stats.norm(3, np.sqrt(0.5)).cdf).pvalue > 1e-3


def test_iqn_acts_by_the_mean_of_quantiles():
    """Action 1 is better by its mean; of two drawn fractions, few say so, as its quantiles are far apart."""
    agent = iqn(Slanted(), acting_fractions=2, epsilon=0.0)
    state = agent.init(jaxrl.key(0), jnp.zeros(1, jnp.int32))._replace(params=jnp.array([[[1.0, 0.0], [1.1, 9.0]]]))
    keys = jax.random.split(jaxrl.key(1), 1000)
    chosen = jax.jit(jax.vmap(lambda key: agent.act(state, (), jnp.int32(0), key, 0.0)[0]))(keys)
    # 1.1 + 9 (m - 1/2) > 1 where m, the mean of two uniform numbers, is above 1/2 - 1/90
    share = 1 - 2 * (0.5 - 1 / 90) ** 2
    assert abs(np.mean(chosen) - share) < 5 * np.sqrt(share * (1 - share) / 1000)
    assert int(agent.act(state, (), jnp.int32(0), keys[0], 0.0, greedy=True)[0]) == 1


def test_implicit_quantiles_by_formula():
    network = nets.ImplicitQuantiles(2, nets.MLP((6,)), hidden=(5,), cosines=4)
    obs, fractions = jnp.array([0.5, -1.0, 2.0]), jnp.array([0.0, 0.3, 0.9])
    params = jax.jit(network.init)(jaxrl.key(0), obs)
    p = jax.tree.map(np.asarray, params)["params"]

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    features = np.maximum(dense(p["torso"]["Dense_0"], np.asarray(obs)), 0)
    for fraction, quantiles in zip(np.asarray(fractions), jax.jit(network.apply)(params, obs, fractions)):
        cosines = np.array([np.cos(np.pi * i * fraction) for i in range(4)])
        x = features * np.maximum(dense(p["embedding"], cosines), 0)
        x = np.maximum(dense(p["MLP_0"]["Dense_0"], x), 0)
        np.testing.assert_allclose(quantiles, dense(p["head"]["q"], x), rtol=1e-5, atol=1e-6)


class Proposing(Table):
    """Quantiles q + slope fraction^2 of a table [S, A, 2], at intervals that a table of logits [S, 3] proposes."""

    def init(self, key, obs, /):
        return {"table": jnp.zeros((4, 3, 2)), "fractions": jnp.zeros((4, 3))}

    def apply(self, params, obs, fractions=None, /):
        q, slope = params["table"][obs].T
        if fractions is not None:
            return q[None] + slope[None] * fractions[:, None] ** 2
        ends = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(params["fractions"][obs]))])
        return ends, self.apply(params, obs, jax.lax.stop_gradient((ends[1:] + ends[:-1]) / 2))


@pytest.mark.parametrize(("double", "entropy"), [(False, 0.0), (True, 0.3)])
def test_fqf_by_definition(double, entropy):
    """Quantiles move as rlax's loss says, proposals down the area between quantile function and stairs, in numpy."""
    rlax = pytest.importorskip("rlax")
    (online, target), (logits, other) = tables(2), np.float32(np.random.default_rng(3).normal(size=(2, 4, 3)))
    online[..., 1], target[..., 1] = abs(online[..., 1]), abs(target[..., 1])  # quantiles rise
    items = batch()
    params, behind = {"table": online, "fractions": logits}, {"table": target, "fractions": other}

    def stairs(logits):
        width = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum()
        ends = np.concatenate([[0.0], np.cumsum(width)])
        return ends, (ends[1:] + ends[:-1]) / 2

    def area(logits, slope):
        """The integral of |F(w) - F(middle)| over each interval, F(w) = slope w^2, less what the entropy is worth."""
        total, width = 0.0, np.diff(stairs(logits)[0])
        for low, middle, high in zip(*(lambda ends, middles: (ends, middles, ends[1:]))(*stairs(logits))):
            total += middle**2 * (middle - low) - (middle**3 - low**3) / 3
            total += (high**3 - middle**3) / 3 - middle**2 * (high - middle)
        return slope * total + entropy * np.sum(width * np.log(width))

    def plain(obs, action, reward, discount, next_obs, mask):
        middles = stairs(logits[obs])[1]
        ends, ahead = stairs((logits if double else other)[next_obs])
        q, slope = (online if double else target)[next_obs].T
        best = np.argmax(np.where(mask, np.diff(ends) @ (q + slope * ahead[:, None] ** 2), -np.inf))
        q, slope = target[next_obs].T
        return obs, action, middles, reward + discount * (q[best] + slope[best] * middles**2)

    obs, action, middles, goal = (np.asarray(x) for x in zip(*(plain(*fold(item)) for item in items)))
    middles, goal = middles.astype(np.float32), goal.astype(np.float32)

    @partial(jax.grad, has_aux=True)
    def total(table):
        def one(obs, action, middles, goal):
            q, slope = table[obs, action]
            return rlax.quantile_regression_loss(q + slope * middles**2, middles, goal, 1.0)

        costs = jax.vmap(one)(obs, action, middles, goal)
        return jnp.mean(costs), costs

    gradient, costs = jax.jit(total)(jnp.asarray(online))
    slope = np.zeros((4, 3))
    for place, chosen in zip(obs, action):
        for i, nudge in enumerate(1e-5 * np.eye(3)):
            rise = area(logits[place] + nudge, online[place, chosen, 1]) - area(
                logits[place] - nudge, online[place, chosen, 1]
            )
            slope[place, i] += rise / 2e-5 / len(items)

    agent = fqf(Proposing(), optax.sgd(1.0), optax.sgd(10.0), gamma=GAMMA, double=double, entropy=entropy)
    state, priority, metrics = learn(agent, params, behind, items)
    np.testing.assert_allclose(priority, costs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(costs), rtol=1e-5)
    np.testing.assert_allclose(state.params["table"], online - gradient, rtol=1e-4, atol=1e-5)
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(state.params["fractions"], logits - 10 * slope, atol=1e-5)


def test_fqf_survives_an_interval_that_vanishes():
    """A share below a float32's precision leaves two ends the same, where the entropy's slope is infinite."""
    table = {"table": jnp.ones((4, 3, 2)), "fractions": jnp.tile(jnp.array([0.0, 40.0, 0.0]), (4, 1))}
    assert (np.diff(Proposing().apply(table, 0)[0]) == 0).any()
    state, *_ = learn(fqf(Proposing(), optax.sgd(1.0), optax.sgd(10.0), gamma=GAMMA), table, table, batch())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_kappa_may_be_traced():
    found, fractions, goal = jnp.array([0.3, -1.0]), jnp.array([0.2, 0.8]), jnp.array([2.0, 0.5, -3.0])
    swept = jax.vmap(partial(value.quantile_loss, found, fractions, goal))(jnp.array([0.0, 0.5, 2.0]))
    alone = [value.quantile_loss(found, fractions, goal, kappa) for kappa in (0.0, 0.5, 2.0)]
    np.testing.assert_allclose(swept, alone, rtol=1e-6)


def test_proposals_of_the_network():
    """Near even at the start; their middles are where the quantiles are taken; neither learns from the other."""
    network = nets.ImplicitQuantiles(2, nets.MLP((6,)), proposals=4)
    obs = jnp.array([0.5, -1.0, 2.0])
    params = jax.jit(network.init)(jaxrl.key(0), obs)
    ends, quantiles = jax.jit(network.apply)(params, obs)
    np.testing.assert_allclose(ends, [0, 0.25, 0.5, 0.75, 1], atol=0.02)
    again = jax.jit(network.apply)(params, obs, (ends[1:] + ends[:-1]) / 2)
    np.testing.assert_allclose(quantiles, again, rtol=1e-5, atol=1e-6)

    def slopes(part):
        return jax.jit(jax.grad(lambda params: network.apply(params, obs)[part][1:].sum()))(params)["params"]

    by_ends, by_quantiles = slopes(0), slopes(1)
    assert np.any(by_ends.pop("fractions")["kernel"])
    assert not np.any(by_quantiles.pop("fractions")["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_ends))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_quantiles["torso"]))


def test_fqf_refuses():
    with pytest.raises(ValueError, match="entropy is -1"):
        fqf(Proposing(), entropy=-1)
    with pytest.raises(ValueError, match="kappa is -0.5"):
        fqf(Proposing(), kappa=-0.5)
    agent = fqf(nets.ImplicitQuantiles(2, nets.MLP((3,))))
    with pytest.raises(
        ValueError, match=r"the network gives \[1, 2\] for one observation; this agent's must give \[N \+ 1\]"
    ):
        jax.eval_shape(agent.init, jaxrl.key(0), jnp.zeros((4, 3)))

    class Nameless(Proposing):
        def init(self, key, obs, /):
            return {"table": jnp.zeros((4, 3, 2))}

        def apply(self, params, obs, fractions=None, /):
            return super().apply({**params, "fractions": jnp.zeros((4, 3))}, obs, fractions)

    with pytest.raises(ValueError, match='no parameters under the name "fractions"'):
        jax.eval_shape(fqf(Nameless()).init, jaxrl.key(0), jnp.zeros(4, jnp.int32))


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.6), (2.49, 0.6), (-1.5, 0.6), (1.1, 0.01), (0.3, 50.0)])
def test_histogram_is_a_truncated_normals(mean, sigma):
    edges = np.linspace(V_MIN, V_MAX, 9)
    exact = stats.truncnorm((V_MIN - mean) / sigma, (V_MAX - mean) / sigma, mean, sigma)
    got = histogram(jnp.float32(mean), 8, V_MIN, V_MAX, sigma)
    np.testing.assert_allclose(got, np.diff(exact.cdf(edges)), atol=2e-6)


def test_a_target_is_learned_as_it_is_three_sigma_within_the_support():
    bins, width = 51, 10 / 51
    centres = width * (np.arange(bins) + 0.5)
    for mean in np.linspace(3 * 0.75 * width, 10 - 3 * 0.75 * width, 7):
        assert histogram(jnp.float32(mean), bins, 0.0, 10.0, 0.75 * width) @ centres == pytest.approx(mean, abs=3e-3)
    assert histogram(jnp.float32(0), bins, 0.0, 10.0, 0.75 * width) @ centres > 0.5 * width


def test_a_target_beyond_reach_keeps_no_priority():
    """|target - q| of the target within the support: a network that says v_max has nothing left to learn of 100."""
    certain = jnp.zeros((4, 3, 51)).at[..., -1].set(50.0)
    items = [item._replace(reward=np.full_like(item.reward, 100.0)) for item in batch()]
    agent = hl_gauss(Table(51), optax.sgd(0.0), bins=51, v_min=V_MIN, v_max=V_MAX, gamma=GAMMA)
    _, priority, metrics = learn(agent, certain, certain, items)
    assert (priority < (V_MAX - V_MIN) / 51).all() and metrics["outside"] > 1


@pytest.mark.parametrize("beyond", [-1e9, -20.0, 20.0, 1e9])
def test_histogram_of_a_target_beyond_is_that_of_its_bound(beyond):
    bound = V_MIN if beyond < 0 else V_MAX
    got, expected = (histogram(jnp.float32(mean), 8, V_MIN, V_MAX, 0.3) for mean in (beyond, bound))
    np.testing.assert_array_equal(got, expected)
    assert float(got.sum()) == pytest.approx(1)


@pytest.mark.parametrize("double", [False, True])
def test_hl_gauss_in_numpy(double):
    """The gradient of cross-entropy by its logits is softmax - goal: in float64, from scipy's normal distribution."""
    bins = 6
    online, target = tables(bins)
    edges = np.linspace(V_MIN, V_MAX, bins + 1)
    centres, sigma = (edges[1:] + edges[:-1]) / 2, 0.75 * (edges[1] - edges[0])

    def softmax(x):
        e = np.exp(np.float64(x) - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    losses, priorities, gradient, outside = [], [], np.zeros_like(online, dtype=np.float64), []
    for item in (items := batch()):
        obs, action, reward, discount, next_obs, mask = fold(item)
        chooser = softmax((online if double else target)[next_obs]) @ centres
        best = np.argmax(np.where(mask, chooser, -np.inf))
        goal = reward + discount * (softmax(target[next_obs][best]) @ centres)
        normal = stats.norm(np.clip(goal, V_MIN, V_MAX), sigma).cdf(edges)
        chances, found = np.diff(normal) / (normal[-1] - normal[0]), softmax(online[obs][action])
        losses.append(-np.sum(chances * np.log(found)))
        priorities.append(abs(np.clip(goal, V_MIN, V_MAX) - found @ centres))
        outside.append(max(V_MIN - goal, goal - V_MAX, 0.0) / (V_MAX - V_MIN))
        gradient[obs, action] += (found - chances) / len(items)
    agent = hl_gauss(Table(bins), optax.sgd(1.0), bins=bins, v_min=V_MIN, v_max=V_MAX, gamma=GAMMA, double=double)
    state, priority, metrics = learn(agent, online, target, items)
    np.testing.assert_allclose(priority, priorities, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(state.params, online - gradient, atol=1e-5)
    assert 0 < float(metrics["outside"]) == pytest.approx(np.mean(outside), rel=1e-4)


@pytest.mark.parametrize("factory", [c51, hl_gauss])
def test_supports_that_are_none_are_refused(factory):
    many = "atoms" if factory is c51 else "bins"
    for v_min, v_max in ((1.0, 1.0), (2.0, -2.0)):
        with pytest.raises(ValueError, match=f"v_min is {v_min} and v_max {v_max}; v_min must be below v_max"):
            factory(Table(), v_min=v_min, v_max=v_max)
    with pytest.raises(ValueError, match="v_max is inf; it must be a finite number"):
        factory(Table(), v_max=float("inf"))
    with pytest.raises(ValueError, match="v_min is nan; it must be a finite number"):
        factory(Table(), v_min=float("nan"))
    with pytest.raises(ValueError, match=f"{many} is 1; it must be an integer of at least 2"):
        factory(Table(), **{many: 1})


@pytest.mark.parametrize("factory", [partial(c51, Table(51)), partial(hl_gauss, Table(51))])
def test_a_support_may_be_swept(factory):
    """Traced bounds pass: a vmap over them is one program."""
    online, target = tables(51)

    def priorities(v_max):
        return learn(factory(v_min=-1.0, v_max=v_max), online, target, batch()[:2])[1]

    assert jax.eval_shape(jax.vmap(priorities), jnp.arange(1.0, 4.0)).shape == (3, 2)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (qr_dqn, {"quantiles": 1}, "quantiles is 1; it must be an integer of at least 2"),
        (qr_dqn, {"kappa": -0.5}, r"kappa is -0.5; it must be a finite number in \[0, inf\)"),
        (iqn, {"kappa": -0.5}, "kappa is -0.5"),
        (iqn, {"fractions": 0}, "fractions is 0; it must be an integer of at least 1"),
        (iqn, {"target_fractions": 0}, "target_fractions is 0"),
        (iqn, {"acting_fractions": 1.5}, "acting_fractions is 1.5"),
        (hl_gauss, {"sigma": 0.0}, r"sigma is 0.0; it must be a finite number in \(0, inf\)"),
        *((factory, {"gamma": 1.1}, "gamma is 1.1") for factory in (c51, qr_dqn, iqn, hl_gauss)),
    ],
)
def test_numbers_out_of_range_are_refused(factory, options, message):
    with pytest.raises(ValueError, match=message):
        factory(Table(), **options)


class Short(Slanted):
    """It leaves out a fraction."""

    def apply(self, params, obs, fractions, /):
        return super().apply(params, obs, fractions[1:])


@pytest.mark.parametrize(
    ("agent", "given", "wanted"),
    [
        (c51(nets.QNetwork(2, nets.MLP((3,)), atoms=7), atoms=8), r"\[2, 7\]", r"\[A, 8\]"),
        (qr_dqn(nets.QNetwork(2, nets.MLP((3,))), quantiles=4), r"\[2\]", r"\[A, 4\]"),
        (hl_gauss(nets.QNetwork(2, nets.MLP((3,)), atoms=7), bins=6), r"\[2, 7\]", r"\[A, 6\]"),
        (iqn(Short(), fractions=8), r"\[7, 3\]", r"\[8, A\]"),
    ],
)
def test_networks_of_another_width_are_refused_before_compiling(agent, given, wanted):
    obs = jnp.zeros((4, 3)) if "8, A" not in wanted else jnp.zeros(4, jnp.int32)
    with pytest.raises(
        ValueError, match=f"the network gives {given} for one observation; this agent's must give {wanted}"
    ):
        jax.eval_shape(agent.init, jaxrl.key(0), obs)
