"""Planning by linear equations and by the clock: policy iteration, evaluation, a finite horizon."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import lu_factor, lu_solve
from jax.typing import ArrayLike

from jaxrl import checks, memory
from jaxrl.planning import inputs, iterate, model, operators, sweeps
from jaxrl.planning.iterate import LIMIT, Plan
from jaxrl.planning.model import MDP
from jaxrl.planning.operators import Backup


def policy_iteration(mdp: MDP, gamma: ArrayLike, *, limit: int = 1000) -> Plan:
    """An optimal policy, its predecessors evaluated exactly (Howard 1960; Sutton & Barto 2018, section 4.3).

    It starts from a policy that ends episodes wherever one can, and takes another action only where that is better, so
    that at gamma 1 all on the way end too, unless rewards add up for ever. It needs [S, S] matrices. Raises as
    `value_iteration`, and where they do not fit in memory.
    """
    inputs.arguments(mdp, gamma, limit=limit)
    inputs.matrices(mdp)
    inputs.ends(mdp, gamma)
    return iterate.require(_policy_iteration(mdp, gamma, limit), "policy_iteration", limit)


def evaluate(
    mdp: MDP,
    gamma: ArrayLike,
    policy: ArrayLike,
    *,
    method: Literal["exact", "iterative"] = "exact",
    tolerance: ArrayLike = 1e-6,
    limit: int = LIMIT,
) -> Plan:
    """v_pi and q_pi of a policy, chances [S, A] or actions [S] (Sutton & Barto 2018, equations 4.4 to 4.6).

    "exact" solves the linear equations, O(S^3); "iterative" sweeps. The plan's policy is the greedy one of q_pi.
    Raises as `value_iteration`, for what is no policy, and at gamma 1 where it may earn rewards for ever.
    """
    inputs.arguments(mdp, gamma, tolerance, limit)
    checks.one_of("method", method, ("exact", "iterative"))
    inputs.policy(mdp, policy)
    inputs.ends(mdp, gamma, policy)
    if method == "iterative":
        return iterate.require(_evaluate_by_sweeps(mdp, gamma, policy, tolerance, limit), "evaluate", limit)
    inputs.matrices(mdp)
    return iterate.require(_evaluate_exactly(mdp, gamma, policy), "evaluate", limit)


class FiniteHorizon(NamedTuple):
    """Values by the clock: at time t there are `horizon - t` steps to go."""

    values: Array  # [H + 1, S], 0 at time H
    q: Array  # [H, S, A]
    policy: Array  # int32 [H, S], greedy in q


def finite_horizon(mdp: MDP, gamma: ArrayLike, horizon: int, backup: Backup = operators.best) -> FiniteHorizon:
    """Backward induction over a time limit, exact for any gamma in [0, 1] (Puterman 1994, section 4.5).

    q_t(s, a) = R(s, a) + gamma sum_s' p(s'|s, a) v_{t+1}(s'), v_t = backup(q_t), v_H = 0; `backup` is any function
    q [S, A] -> [S]. Raises ValueError for what is no process, gamma outside [0, 1], a horizon below 1, and what does
    not fit in memory.
    """
    inputs.arguments(mdp, gamma)
    checks.at_least("horizon", horizon, 1)
    states, actions = np.shape(mdp.R)
    size = jnp.dtype(model.dtype_of(mdp)).itemsize
    memory.require(f"{horizon} steps of {states} states", horizon * states * ((actions + 2) * size + 4))
    return _finite_horizon(mdp, gamma, operators.partial(backup), horizon)


@functools.partial(jax.jit, static_argnames="limit")
def _policy_iteration(mdp: MDP, gamma: ArrayLike, limit: int) -> Plan:
    look = model.lookahead(mdp, gamma)

    def improved(policy: Array) -> Array:
        """The greedy policy, but the old action where it is as good within rounding."""
        q = look(_solve(model.induced(mdp, policy), gamma))
        old = jnp.take_along_axis(q, policy[:, None], axis=1)[:, 0]
        slack = 16 * jnp.finfo(q.dtype).eps * jnp.max(jnp.abs(q))
        return jnp.where(jnp.max(q, axis=1) > old + slack, operators.improve(q), policy)

    def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        policy, _, count = state
        after = improved(policy)
        return after, jnp.any(after != policy), count + 1

    start = (model.escape(mdp)[1], jnp.ones((), bool), jnp.zeros((), jnp.int32))
    policy, changed, count = jax.lax.while_loop(lambda state: state[1] & (state[2] < limit), body, start)
    v = _solve(model.induced(mdp, policy), gamma)
    q = look(v)
    plan = iterate.finish(v, q, jnp.max(jnp.abs(jnp.max(q, axis=1) - v)), count, ~changed, 0.0)
    return plan._replace(policy=policy)


@jax.jit
def _evaluate_exactly(mdp: MDP, gamma: ArrayLike, policy: ArrayLike) -> Plan:
    followed = model.induced(mdp, policy)
    v = _solve(followed, gamma)
    residual = jnp.max(jnp.abs(model.lookahead(followed, gamma)(v)[:, 0] - v))
    q = model.lookahead(mdp, gamma)(v)
    return iterate.finish(v, q, residual, jnp.ones((), jnp.int32), jnp.ones((), bool), 0.0)


@functools.partial(jax.jit, static_argnames="limit")
def _evaluate_by_sweeps(mdp: MDP, gamma: ArrayLike, policy: ArrayLike, tolerance: ArrayLike, limit: int) -> Plan:
    followed = model.induced(mdp, policy)
    found = sweeps.one_step(followed, gamma, operators.partial(operators.best), tolerance, limit)
    q = model.lookahead(mdp, gamma)(found.values)
    return found._replace(q=q, policy=operators.improve(q))


@functools.partial(jax.jit, static_argnames="horizon")
def _finite_horizon(mdp: MDP, gamma: ArrayLike, backup: Backup, horizon: int) -> FiniteHorizon:
    look = model.lookahead(mdp, gamma)

    def earlier(v: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        q = look(v)
        return backup(q), (v, q)

    last = jnp.zeros(jnp.shape(mdp.R)[0], model.dtype_of(mdp))
    first, (later, q) = jax.lax.scan(earlier, last, None, length=horizon, reverse=True)
    return FiniteHorizon(jnp.concatenate([first[None], later]), q, jnp.argmax(q, axis=2).astype(jnp.int32))


def _solve(followed: MDP, gamma: ArrayLike) -> Array:
    """v [S] of (I - gamma P) v = R for a process of one action; at gamma 1 it is 0 where episodes never end."""
    ends, _ = model.escape(followed)
    gamma = jnp.asarray(gamma, model.dtype_of(followed))
    solvable = followed._replace(terminal=jnp.asarray(followed.terminal) | (~ends & (gamma == 1)))
    P = model.matrix(solvable)
    look = model.lookahead(solvable, gamma)
    factors = lu_factor(jnp.eye(P.shape[0], dtype=P.dtype) - gamma * P)
    v = lu_solve(factors, look(jnp.zeros(P.shape[0], P.dtype))[:, 0])
    return v + lu_solve(factors, look(v)[:, 0] - v)  # takes most of the rounding of the factors away
