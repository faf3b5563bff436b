"""Returns: what a window of experience says the value of its first steps is.

The mathematics is for ONE window [T, ...]; callers vmap. Windows may run across the ends of episodes: a return stops
there, at a termination without a value beyond, at a truncation with the value of the true next observation. What takes
a `discount` and a `trace` stops where these are 0, as `cut` makes them.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.types import NO_LIMIT, PyTree, Transition


class NStep(NamedTuple):
    """A window folded to one step: learn reward + discount * value(next_obs) for (obs, action)."""

    obs: PyTree  # of the window's first step
    action: Array  # of the window's first step
    reward: Array  # [] float: sum of gamma^i r_i over the k steps up to the first end
    discount: Array  # [] float: gamma^k, 0 if the last of them terminated
    next_obs: PyTree  # the true observation after the k steps


def n_step(window: Transition, gamma: ArrayLike) -> NStep:
    """Folds a window into one n-step transition that stops at the first end of an episode.

    Sutton and Barto (2018), eq. 7.1, with k = min(T, steps to the first termination or truncation).
    Shapes: every leaf of `window` [T, ...] except `carry`, which is not used; gamma [].
    Raises AssertionError while tracing if reward, terminated and truncated are not all [T], or gamma not [].
    """
    chex.assert_rank([window.reward, jnp.asarray(gamma)], [1, 0])
    chex.assert_equal_shape([window.reward, window.terminated, window.truncated])
    dtype = jnp.result_type(window.reward, float)
    (length,) = window.reward.shape
    power = jnp.asarray(gamma, dtype) ** jnp.arange(length + 1)
    ended = window.terminated | window.truncated
    ends_before = jnp.cumsum(ended, dtype=jnp.int32) - ended
    taken = ends_before == 0
    last = jnp.sum(taken, dtype=jnp.int32) - 1
    return NStep(
        obs=jax.tree.map(lambda x: x[0], window.obs),
        action=window.action[0],
        reward=jnp.sum(jnp.where(taken, power[:-1] * window.reward, 0)),
        discount=jnp.where(window.terminated[last], 0, power[last + 1]),
        next_obs=jax.tree.map(lambda x: x[last], window.next_obs),
    )


class Episodes(NamedTuple):
    """The episodes of a window, said at each of their rows."""

    start: Array  # [T] int32, the first row of the row's episode; 0 where it began there or before
    end: Array  # [T] int32, its last row; T where it goes on
    whole: Array  # [T] bool, whether it ended in the newest rows and has at most `horizon` steps
    long: Array  # [T] bool, whether it ended there and has more


def episodes(window: Transition, horizon: int) -> Episodes:
    """Finds the episodes that ended in the newest rows, those from row `horizon` on, for learners of whole episodes.

    Windows of unroll + horizon steps, one every unroll steps, show each end in the newest rows once, and with it the
    whole episode and the row before it: an episode that begins in row 0, or before, is longer than the horizon.
    Shapes: terminated, truncated [T]. Raises AssertionError while tracing on others, ValueError for T <= horizon.
    """
    chex.assert_rank([window.terminated, window.truncated], 1)
    ended = window.terminated | window.truncated
    (length,) = ended.shape
    if length <= horizon:
        raise ValueError(
            f"windows of {length} steps cannot show where an episode of {horizon} began; use "
            f"recent(unroll + horizon, num_envs), at least {horizon + 1}"
        )
    row = jnp.arange(length, dtype=jnp.int32)

    def forth(start: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        row, ended = step
        return jnp.where(ended, row + 1, start), start

    def back(end: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        row, ended = step
        end = jnp.where(ended, row, end)
        return end, end

    _, start = jax.lax.scan(forth, jnp.int32(0), (row, ended))
    _, end = jax.lax.scan(back, jnp.int32(length), (row, ended), reverse=True)
    new, fits = (horizon <= end) & (end < length), end - start < horizon
    return Episodes(start, end, new & fits, new & ~fits)


def require_horizon(name: str, horizon: int | None) -> int:
    """The horizon of learner `name`, the most steps of an episode; raises ValueError where it is none."""
    if horizon is None or horizon == NO_LIMIT:
        raise ValueError(
            f"{name} got no horizon (horizon={horizon}); it learns from whole episodes of at most so many steps: wrap "
            "the environment in wrappers.time_limit(env, steps) and give horizon=steps"
        )
    checks.at_least("horizon", horizon, 1)
    return horizon


def lambda_returns(reward: Array, discount: Array, value: Array, lambda_: ArrayLike) -> Array:
    """Returns g [T]: g_t = r_t + discount_t ((1 - lambda_t) v_t + lambda_t g_{t+1}), where g_T = v_{T-1}.

    Sutton and Barto (2018), eq. 12.18; v_t is the bootstrap value AFTER step t, of its true next observation.
    The lambda vector is the only switch: constant for Peng's Q(lambda), 0 where the next action was not
    greedy for Watkins's, 1 for Monte Carlo. Ends of episodes enter through `cut`.
    Shapes: reward, discount, value [T]; lambda_ [] or [T]. Raises AssertionError while tracing on others.
    """
    return off_policy_returns(reward, discount, value, value, lambda_)


def off_policy_returns(reward: Array, discount: Array, value: Array, taken: Array, trace: ArrayLike) -> Array:
    """Returns g [T]: g_t = r_t + discount_t (v_t + c_t (g_{t+1} - q_t)), where g_T = q_{T-1}.

    Munos et al. (2016), eq. 3, as rlax has it: v_t is the value of step t's true next observation under the target
    policy, q_t that of the action taken there, and the trace c_t is pi(a|s) for tree backup (Sutton & Barto 2018,
    eq. 7.16), lambda min(1, pi/mu) for Retrace, lambda for `lambda_returns`, where q_t = v_t.
    Shapes: reward, discount, value, taken [T]; trace [] or [T]. Raises AssertionError while tracing on others.
    """
    chex.assert_rank([reward, discount, value, taken, jnp.asarray(trace)], [1, 1, 1, 1, {0, 1}])
    chex.assert_equal_shape([reward, discount, value, taken])
    dtype = jnp.result_type(reward, discount, value, float)
    trace = jnp.broadcast_to(jnp.asarray(trace, dtype), reward.shape)

    def back(g: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        r, d, v, q, c = step
        g = r + d * (v + c * (g - q))
        return g, g

    steps = tuple(x.astype(dtype) for x in (reward, discount, value, taken, trace))
    _, returns = jax.lax.scan(back, taken[-1].astype(dtype), steps, reverse=True)
    return returns


def cut(window: Transition, gamma: ArrayLike, lambda_: ArrayLike) -> tuple[Array, Array]:
    """Returns (discount [T], lambda_ [T]) for `lambda_returns` that stop at the window's ends of episodes.

    The discount is gamma, 0 where the step terminated; lambda_ is 0 where the step was truncated.
    Shapes: terminated, truncated [T]; gamma [] or [T]; lambda_ [] or [T].
    Raises AssertionError while tracing on others.
    """
    gamma, lambda_ = jnp.asarray(gamma), jnp.asarray(lambda_)
    chex.assert_rank([window.reward, window.terminated, gamma, lambda_], [1, 1, {0, 1}, {0, 1}])
    dtype = jnp.result_type(window.reward, float)
    discount = jnp.where(window.terminated, 0, gamma.astype(dtype))
    return discount, jnp.where(window.truncated, 0, lambda_.astype(dtype))


def n_step_returns(reward: Array, discount: Array, value: Array, trace: ArrayLike, n: int) -> Array:
    """Returns g [T] of at most `n` steps: g_t = r_t + d_t (r_t+1 + d_t+1 (... + d_k v_k)), k = min(t + n, T) - 1.

    Sutton and Barto (2018), eq. 7.1, for every step of a sequence; v_t is the bootstrap value AFTER step t, of its true
    next observation. Where trace, 0 or 1, is 0 the return bootstraps already: ends of episodes enter through `cut`.
    Shapes: reward, discount, value [T]; trace [] or [T]. Raises AssertionError while tracing on others, ValueError for
    n < 1.
    """
    checks.at_least("n of n_step_returns", n, 1)
    chex.assert_rank([reward, discount, value, jnp.asarray(trace)], [1, 1, 1, {0, 1}])
    chex.assert_equal_shape([reward, discount, value])
    trace = jnp.broadcast_to(jnp.asarray(trace, value.dtype), reward.shape)
    returns = reward + discount * value
    for _ in range(min(n, reward.size) - 1):
        ahead = jnp.append(returns[1:], value[-1])
        returns = reward + discount * (value + trace * (ahead - value))
    return returns


def rescale(x: ArrayLike, epsilon: float = 1e-3) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018, section 3.2): large values become small."""
    x = jnp.asarray(x)
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1) - 1) + epsilon * x


def unscale(x: ArrayLike, epsilon: float = 1e-3) -> Array:
    """The inverse of `rescale` (Pohlen et al. 2018, proposition A.2), in a form that cancels little in float32."""
    x = jnp.asarray(x)
    size = jnp.abs(x) + 1 + epsilon
    root = 2 * size / (jnp.sqrt(1 + 4 * epsilon * size) + 1)
    return jnp.sign(x) * (root - 1) * (root + 1)
