"""Planning by sweeps: value iteration, the fixed point of any backup, and modified policy iteration."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.envs.api import TabularMDP
from jaxrl.planning import inputs, iterate, model, operators
from jaxrl.planning.iterate import LIMIT, Plan
from jaxrl.planning.model import MDP
from jaxrl.planning.operators import Backup
from jaxrl.types import PyTree

_TOGETHER = 8  # a vector register of lanes, whose values stay in a core's cache


def value_iteration(mdp: MDP, gamma: ArrayLike, *, tolerance: ArrayLike = 1e-6, limit: int = LIMIT) -> Plan:
    """The optimal values within `tolerance` (Bellman 1957; Sutton & Barto 2018, equation 4.10).

    It stops by bounds on the error, see `iterate.to_fixed_point`; in float32 rounding may stop it before, `residual`
    tells. vmap over gamma or the leaves of the process. At gamma 1 the greedy policy may circle among equally good
    actions; that of `policy_iteration` does not. Raises ValueError for what is no process, gamma outside [0, 1], at
    gamma 1 where rewards never end, and where `limit` sweeps are not enough; of what is traced only the shapes are
    checked, and `converged` tells the rest.
    """
    inputs.arguments(mdp, gamma, tolerance, limit)
    inputs.ends(mdp, gamma)
    return iterate.require(one_step(mdp, gamma, Partial(operators.best), tolerance, limit), "value_iteration", limit)


def fixed_point(
    mdp: MDP,
    gamma: ArrayLike,
    backup: Backup,
    *,
    n: int = 1,
    lambda_: ArrayLike = 1.0,
    behaviour: ArrayLike | Backup | None = None,
    tolerance: ArrayLike = 1e-6,
    limit: int = LIMIT,
) -> Plan:
    """The q [S, A] that a learner's expected update leaves as it is: Q = R + gamma P backup(Q); values are backup(Q).

    With n > 1 the update looks n steps ahead along the behaviour mu without correction: Q = G_n, where
    G_1 = R + gamma P backup(Q), G_h = R + gamma P [(1 - lambda) backup(Q) + lambda sum_a mu(a|.) G_{h-1}(., a)]
    (Sutton & Barto 2018, equation 12.18). `behaviour` is chances [S, A], actions [S], or a function of Q to chances:
    then there may be no fixed point, and no convergence. `backup`, [S, A] to [S], must be monotone and rise by c where
    q does, as means and maxima do. Raises as `value_iteration`, for n below 1, lambda outside [0, 1], and n > 1 without
    a behaviour.
    """
    inputs.arguments(mdp, gamma, tolerance, limit)
    checks.at_least("n", n, 1)
    inputs.number("lambda_", lambda_)
    inputs.ends(mdp, gamma)
    if n == 1:
        return iterate.require(one_step(mdp, gamma, operators.partial(backup), tolerance, limit), "fixed_point", limit)
    if behaviour is None:
        raise ValueError(f"n is {n} without a behaviour; give chances [S, A], or epsilon_greedy(epsilon)")
    if not callable(behaviour):
        inputs.policy(mdp, behaviour)
        behaviour = Partial(_always, operators.chances(behaviour, jnp.shape(mdp.R)[1]))
    found = _n_steps(mdp, gamma, operators.partial(backup), operators.partial(behaviour), lambda_, tolerance, n, limit)
    return iterate.require(found, "fixed_point", limit)


def modified_policy_iteration(
    mdp: MDP, gamma: ArrayLike, sweeps: int = 10, *, tolerance: ArrayLike = 1e-6, limit: int = LIMIT
) -> Plan:
    """Value iteration with `sweeps` cheap sweeps of the greedy policy after each of its own.

    Puterman & Shin (1978); Sutton & Barto (2018), section 4.6. Raises as `value_iteration`, and for sweeps below 1.
    """
    inputs.arguments(mdp, gamma, tolerance, limit)
    checks.at_least("sweeps", sweeps, 1)
    inputs.ends(mdp, gamma)
    return iterate.require(_modified(mdp, gamma, tolerance, sweeps, limit), "modified_policy_iteration", limit)


@functools.partial(jax.jit, static_argnames="limit")
def one_step(mdp: MDP, gamma: ArrayLike, backup: Backup, tolerance: ArrayLike, limit: int) -> Plan:
    """The fixed point of Q = R + gamma P backup(Q), by sweeps over its values; nothing is checked.

    What is solved together waits for the slowest. So discounts that are vmapped over a sparse process, whose sweep is
    no matrix product, are solved `_TOGETHER` at a time, like with like.
    """

    def solve(mdp: MDP, gamma: Array, backup: Backup, tolerance: Array) -> Plan:
        look = model.lookahead(mdp, gamma)

        def sweep(v: Array) -> Array:
            return backup(look(v))

        v, count, converged = iterate.to_fixed_point(sweep, _zeros(mdp)[:, 0], gamma, tolerance, limit)
        q = look(v)
        values = backup(q)
        return iterate.finish(values, q, jnp.max(jnp.abs(values - v)), count, converged, tolerance)

    one = jax.custom_batching.custom_vmap(solve)

    @one.def_vmap
    def many(size: int, batched: list, *arguments: PyTree) -> tuple[Plan, PyTree]:
        together = jax.vmap(solve, jax.tree.map(lambda has_lanes: 0 if has_lanes else None, batched))
        if isinstance(mdp, TabularMDP) or not batched[1] or jax.default_backend() != "cpu":
            plans = together(*arguments)
            return plans, jax.tree.map(lambda _: True, plans)

        def some(lanes: Array) -> Plan:
            return together(*jax.tree.map(lambda has_lanes, x: x[lanes] if has_lanes else x, tuple(batched), arguments))

        order = jnp.argsort(arguments[1])
        chunks = jnp.pad(order, (0, -size % _TOGETHER), mode="edge").reshape(-1, _TOGETHER)
        plans = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[jnp.argsort(order)], jax.lax.map(some, chunks))
        return plans, jax.tree.map(lambda _: True, plans)

    dtype = model.dtype_of(mdp)
    return one(mdp, jnp.asarray(gamma, dtype), backup, jnp.asarray(tolerance, dtype))


@functools.partial(jax.jit, static_argnames=("n", "limit"))
def _n_steps(mdp, gamma, backup, behaviour, lambda_, tolerance, n: int, limit: int) -> Plan:
    look = model.lookahead(mdp, gamma)
    start = _zeros(mdp)
    gamma, mix = jnp.asarray(gamma, start.dtype), jnp.asarray(lambda_, start.dtype)

    def sweep(q: Array) -> Array:
        bootstrap, policy = backup(q), behaviour(q)

        def longer(_: int, g: Array) -> Array:
            return look((1 - mix) * bootstrap + mix * jnp.sum(policy * g, axis=1))

        return jax.lax.fori_loop(1, n, longer, look(bootstrap))

    modulus = jax.lax.fori_loop(1, n, lambda _, m: gamma * (1 - mix + mix * m), gamma)
    before, count, converged = iterate.to_fixed_point(sweep, start, modulus, tolerance, limit)
    q = sweep(before)
    return iterate.finish(backup(q), q, jnp.max(jnp.abs(q - before)), count, converged, tolerance)


@functools.partial(jax.jit, static_argnames=("sweeps", "limit"))
def _modified(mdp: MDP, gamma: ArrayLike, tolerance: ArrayLike, sweeps: int, limit: int) -> Plan:
    look = model.lookahead(mdp, gamma)

    def optimal(v: Array) -> Array:
        return jnp.max(look(v), axis=1)

    def sweep(v: Array) -> Array:
        q = look(v)
        followed = model.lookahead(model.induced(mdp, operators.improve(q)), gamma)
        return jax.lax.fori_loop(0, sweeps, lambda _, v: followed(v)[:, 0], jnp.max(q, axis=1))

    start = _zeros(mdp)[:, 0]
    v, count, converged = iterate.to_fixed_point(sweep, start, gamma, tolerance, limit, optimal, sweeps + 1)
    q = look(v)
    values = jnp.max(q, axis=1)
    return iterate.finish(values, q, jnp.max(jnp.abs(values - v)), count, converged, tolerance)


def _zeros(mdp: MDP) -> Array:
    return jnp.zeros(jnp.shape(mdp.R), model.dtype_of(mdp))


def _always(policy: Array, q: Array) -> Array:
    return jnp.asarray(policy, q.dtype)
