"""Returns against definitions written apart, in plain Python, over every pattern of ends."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import returns
from jaxrl.types import Transition

T = 4
KINDS = [(False, False), (True, False), (False, True), (True, True)]  # (terminated, truncated)
PATTERNS = np.array(list(itertools.product(KINDS, repeat=T)))  # [256, T, 2]
GAMMAS = [0.0, 0.9, 1.0]


def windows() -> Transition:
    """One window for every pattern [256, T, ...], all of its numbers different."""
    rng = np.random.default_rng(0)
    batch = len(PATTERNS)
    steps = np.arange(batch * T, dtype=np.int32).reshape(batch, T)
    return Transition(
        obs={"id": jnp.asarray(steps), "picture": jnp.ones((batch, T, 3), jnp.uint8)},
        action=jnp.asarray(steps % 7),
        reward=jnp.asarray(rng.normal(size=(batch, T)), jnp.float32),
        terminated=jnp.asarray(PATTERNS[..., 0]),
        truncated=jnp.asarray(PATTERNS[..., 1]),
        next_obs={"id": jnp.asarray(steps + 5000), "picture": jnp.zeros((batch, T, 3), jnp.uint8)},
        carry=jnp.zeros((batch, 2)),
    )


def k_step_return(reward, terminated, value, gamma: float, t: int, k: int) -> float:
    """r_t + gamma r_{t+1} + ... k rewards, and gamma^k times the value after them unless terminated."""
    total = sum(gamma**i * reward[t + i] for i in range(k))
    return total + (0.0 if terminated[t + k - 1] else gamma**k * value[t + k - 1])


def steps_to_end(pattern, t: int) -> int:
    """How many steps from t the window lets one take: to the first end of either kind, or all."""
    for k in range(1, T - t + 1):
        if pattern[t + k - 1].any():
            return k
    return T - t


def mixture(pattern, reward, value, gamma: float, lambdas, t: int) -> float:
    """The lambda return of step t as the weighted mean of explicit k-step returns (O(T^2) for a window)."""
    total, weight = 0.0, 1.0
    longest = steps_to_end(pattern, t)
    for k in range(1, longest + 1):
        share = weight if k == longest else weight * (1 - lambdas[t + k - 1])
        total += share * k_step_return(reward, pattern[:, 0], value, gamma, t, k)
        weight *= lambdas[t + k - 1]
    return total


@pytest.mark.parametrize("gamma", GAMMAS)
def test_n_step_on_every_pattern(gamma):
    batch = windows()
    out = jax.device_get(jax.jit(jax.vmap(returns.n_step, in_axes=(0, None)))(batch, gamma))
    batch = jax.device_get(batch)
    for b, pattern in enumerate(PATTERNS):
        k = steps_to_end(pattern, 0)
        reward = batch.reward[b].astype(np.float64)
        assert out.reward[b] == pytest.approx(sum(gamma**i * reward[i] for i in range(k)), abs=1e-6)
        assert out.discount[b] == pytest.approx(0.0 if pattern[k - 1, 0] else gamma**k, abs=1e-6)
        assert out.next_obs["id"][b] == 5000 + b * T + k - 1
        assert out.obs["id"][b] == b * T and out.action[b] == batch.action[b, 0]
    assert out.obs["picture"].dtype == jnp.uint8 and out.obs["picture"].shape == (len(PATTERNS), 3)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0, "vector"])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_lambda_returns_on_every_pattern(gamma, lambda_):
    batch = windows()
    rng = np.random.default_rng(1)
    value = jnp.asarray(rng.normal(size=(len(PATTERNS), T)), jnp.float32)
    lambdas = rng.uniform(size=T) if lambda_ == "vector" else np.full(T, lambda_)

    def one(window, value):
        discount, mix = returns.cut(window, gamma, jnp.asarray(lambdas, jnp.float32))
        return returns.lambda_returns(window.reward, discount, value, mix)

    out = jax.jit(jax.vmap(one))(batch, value)
    rewards, values = np.asarray(batch.reward).tolist(), np.asarray(value).tolist()
    expected = [
        [mixture(pattern, r, v, gamma, lambdas, t) for t in range(T)]
        for pattern, r, v in zip(PATTERNS, rewards, values, strict=True)
    ]
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_lambda_returns_agree_with_rlax(lambda_):
    rlax = pytest.importorskip("rlax", reason="rlax is only a second source for this formula")
    batch = windows()
    value = jnp.asarray(np.random.default_rng(2).normal(size=(len(PATTERNS), T)), jnp.float32)
    discount, mix = jax.vmap(returns.cut, in_axes=(0, None, None))(batch, 0.9, lambda_)
    ours = jax.vmap(returns.lambda_returns)(batch.reward, discount, value, mix)
    theirs = jax.vmap(rlax.lambda_returns)(batch.reward, discount, value, mix)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_one_step_of_either_is_the_one_step_target():
    window = jax.tree.map(lambda x: x[0, :1], windows())
    out = returns.n_step(window, 0.9)
    assert out.reward == window.reward[0] and out.discount == pytest.approx(0.9)
    target = returns.lambda_returns(window.reward, jnp.array([0.9]), jnp.array([2.0]), 0.3)
    np.testing.assert_allclose(target, window.reward + 1.8, atol=1e-6)


def test_cut_shapes_and_values():
    window = jax.tree.map(lambda x: x[PATTERNS.shape[0] - 1], windows())  # every step is both
    discount, mix = returns.cut(window, 0.9, 0.7)
    np.testing.assert_array_equal(discount, np.zeros(T, np.float32))
    np.testing.assert_array_equal(mix, np.zeros(T, np.float32))
    running = window._replace(terminated=jnp.zeros(T, bool), truncated=jnp.zeros(T, bool))
    discount, mix = returns.cut(running, 0.9, jnp.arange(T) / 10)
    np.testing.assert_allclose(discount, np.full(T, 0.9), rtol=1e-6)
    np.testing.assert_allclose(mix, np.arange(T) / 10, rtol=1e-6)


def test_rewards_after_the_end_do_not_leak():
    window = jax.tree.map(lambda x: x[0], windows())
    window = window._replace(
        truncated=jnp.array([False, True, False, False]), reward=jnp.array([1.0, 2.0, jnp.nan, jnp.inf])
    )
    assert returns.n_step(window, 0.5).reward == 2.0


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_with_respect_to_gamma(gamma):
    window = jax.tree.map(lambda x: x[0], windows())  # no end
    r = np.asarray(window.reward, np.float64)
    slope = jax.grad(lambda g: returns.n_step(window, g).reward)(gamma)
    assert slope == pytest.approx(r[1] + 2 * gamma * r[2] + 3 * gamma**2 * r[3], abs=1e-5)
    slope = jax.grad(lambda g: returns.n_step(window, g).discount)(gamma)
    assert slope == pytest.approx(4 * gamma**3, abs=1e-5)


def test_gradients_with_respect_to_values():
    def first(value):
        return returns.lambda_returns(jnp.zeros(3), jnp.full(3, 0.5), value, 0.5)[0]

    np.testing.assert_allclose(jax.grad(first)(jnp.zeros(3)), [0.25, 0.0625, 0.03125], atol=1e-7)


def test_dtypes_with_and_without_x64():
    window = jax.tree.map(lambda x: x[0], windows())
    assert returns.n_step(window, 0.9).reward.dtype == jnp.float32
    with jax.enable_x64(True):
        out = jax.jit(returns.n_step)(window, 0.9)
        assert (out.reward.dtype, out.discount.dtype) == (jnp.float32, jnp.float32)
        assert out.obs["id"].dtype == jnp.int32 and out.action.dtype == jnp.int32
        value = jnp.arange(T, dtype=jnp.float64)
        targets = returns.lambda_returns(window.reward, jnp.full(T, 0.9), value, 0.9)
        assert targets.dtype == jnp.float64
        exact = window._replace(reward=window.reward.astype(jnp.float64))
        expected = k_step_return(exact.reward.tolist(), [False] * T, [0.0] * T, 0.9, 0, T)
        assert returns.n_step(exact, 0.9).reward == pytest.approx(expected, abs=1e-14)


def test_wrong_ranks_are_refused_while_tracing():
    batch = windows()
    window = jax.tree.map(lambda x: x[0], batch)
    vector = jnp.zeros(T)
    for call in (
        lambda: returns.n_step(batch, 0.9),
        lambda: returns.n_step(window, vector),
        lambda: returns.n_step(window._replace(truncated=jnp.zeros(T + 1, bool)), 0.9),
        lambda: returns.lambda_returns(batch.reward, vector, vector, 0.9),
        lambda: returns.lambda_returns(vector, vector, jnp.zeros(T + 1), 0.9),
        lambda: returns.cut(batch, 0.9, 0.9),
    ):
        with pytest.raises(AssertionError):
            call()
