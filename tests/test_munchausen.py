"""Munchausen agents against the paper's equations in plain numpy, over every pattern of ends and with masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from windows import ACTIONS, GAMMA, Table, batch, learn, tables

import jaxrl
from jaxrl import nets
from jaxrl.agents.munchausen import munchausen_dqn, munchausen_iqn

ALPHA, TEMPERATURE, FLOOR = 0.8, 0.6, -1.0


def policy(q, allowed):
    """The softmax of q / temperature among the allowed actions; nothing where there is none."""
    chances = np.zeros(ACTIONS)
    for action in range(ACTIONS):
        if allowed[action]:
            chances[action] = np.exp(np.float64(q[action]) / TEMPERATURE)
    return chances / chances.sum() if any(allowed) else chances


def soft(values, q, allowed):
    """Sum of pi (value - temperature log pi) over the allowed actions."""
    chances = policy(q, allowed)
    return sum(chances[a] * (values[a] - TEMPERATURE * np.log(chances[a])) for a in range(ACTIONS) if allowed[a])


def target_of(item, q, values):
    """The return of a window with the bonus in every reward, then `values` [..., A] of the last state, softly."""
    total, discount = 0.0, 1.0
    for step in range(len(item.reward)):
        log = np.log(policy(q[item.obs.observation[step]], item.obs.action_mask[step])[item.action[step]])
        bonus = ALPHA * min(max(TEMPERATURE * log, FLOOR), 0.0)
        total += discount * (item.reward[step] + bonus)
        discount *= 0.0 if item.terminated[step] else GAMMA
        if item.terminated[step] or item.truncated[step]:
            break
    place, allowed = item.next_obs.observation[step], item.next_obs.action_mask[step]
    return np.array([total + discount * soft(v, q[place], allowed) for v in np.atleast_2d(values[place])])


OPTIONS = {"alpha": ALPHA, "temperature": TEMPERATURE, "floor": FLOOR, "gamma": GAMMA}


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_munchausen_dqn_in_numpy(loss):
    online, target = tables()
    items = batch(length=3, repeat=2)
    errors, gradient = [], np.zeros(online.shape)
    for item in items:
        place, action = item.obs.observation[0], item.action[0]
        (error,) = target_of(item, target, target) - online[place, action]
        errors.append(error)
        slope = 2 * error if loss == "squared" else np.clip(error, -1, 1)
        gradient[place, action] -= slope / len(items)
    agent = munchausen_dqn(Table(), optax.sgd(1.0), loss=loss, **OPTIONS)
    state, priority, metrics = learn(agent, online, target, items)
    size = np.abs(errors)
    costs = size**2 if loss == "squared" else np.where(size < 1, size**2 / 2, size - 0.5)
    np.testing.assert_allclose(priority, size, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], costs.mean(), rtol=1e-5)
    np.testing.assert_allclose(state.params, online - gradient, rtol=1e-4, atol=1e-5)


class Slanted(Table):
    """Implicit quantiles q + slope (fraction - 1/2), of a table [S, A, 2]."""

    def __init__(self):
        super().__init__(2)

    def apply(self, params, obs, fractions, /):
        q, slope = params[obs].T
        return q[None] + slope[None] * (fractions[:, None] - 0.5)


def test_munchausen_iqn_in_numpy(monkeypatch):
    """With even fractions for drawn ones, whose mean over a straight line is its middle: the policy is of q."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: (jnp.arange(shape[0]) + 0.5) / shape[0])
    online, target = tables(2)
    own, ahead = (np.arange(3) + 0.5) / 3, (np.arange(4) + 0.5) / 4
    items = batch()
    costs = []
    for item in items:
        values = target[:, None, :, 0] + target[:, None, :, 1] * (ahead[None, :, None] - 0.5)  # [S, K, A]
        goal = target_of(item, target[:, :, 0], values)
        q, slope = online[item.obs.observation[0], item.action[0]]
        cost = 0.0
        for fraction in own:
            for sample in goal:
                error = sample - (q + slope * (fraction - 0.5))
                huber = error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5
                cost += abs(fraction - (error < 0)) * huber / len(goal)
        costs.append(cost)
    agent = munchausen_iqn(
        Slanted(), optax.sgd(1.0), fractions=3, target_fractions=4, acting_fractions=2, kappa=1.0, **OPTIONS
    )
    _, priority, metrics = learn(agent, online, target, items)
    np.testing.assert_allclose(priority, costs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(costs), rtol=1e-5)


def test_without_bonus_and_temperature_it_is_deep_q_learning():
    """alpha 0 and a temperature near 0: the value of s' is its largest target value."""
    online, target = tables()
    items = batch()
    agent = munchausen_dqn(Table(), optax.sgd(1.0), alpha=0.0, temperature=1e-6, gamma=GAMMA)
    _, priority, _ = learn(agent, online, target, items)
    errors = []
    for item in items:
        total, discount = 0.0, 1.0
        for step in range(2):
            total += discount * item.reward[step]
            discount *= 0.0 if item.terminated[step] else GAMMA
            if item.terminated[step] or item.truncated[step]:
                break
        q = np.where(item.next_obs.action_mask[step], target[item.next_obs.observation[step]], -np.inf)
        following = discount * q.max() if discount else 0.0
        errors.append(abs(total + following - online[item.obs.observation[0], item.action[0]]))
    np.testing.assert_allclose(priority, errors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factory", [munchausen_dqn, munchausen_iqn])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, r"alpha is -0.1; it must be a finite number in \[0, 1\]"),
        ({"temperature": 0.0}, r"temperature is 0.0; it must be a finite number in \(0, inf\)"),
        ({"floor": 0.5}, r"floor is 0.5; it must be a finite number in \(-inf, 0\]"),
        ({"gamma": 2.0}, "gamma is 2.0"),
    ],
)
def test_numbers_out_of_range_are_refused(factory, options, message):
    with pytest.raises(ValueError, match=message):
        factory(Table(), **options)


def test_other_input_is_refused():
    with pytest.raises(ValueError, match="unknown loss 'hubert'; did you mean 'huber'"):
        munchausen_dqn(Table(), loss="hubert")
    with pytest.raises(ValueError, match="kappa is -1"):
        munchausen_iqn(Table(), kappa=-1)
    with pytest.raises(ValueError, match="target_fractions is 0; it must be an integer of at least 1"):
        munchausen_iqn(Table(), target_fractions=0)
    agent = munchausen_dqn(nets.QNetwork(2, nets.MLP((3,)), atoms=4))
    with pytest.raises(
        ValueError, match=r"the network gives \[2, 4\] for one observation; this agent's must give \[A\]"
    ):
        jax.eval_shape(agent.init, jaxrl.key(0), jnp.zeros((4, 3)))
