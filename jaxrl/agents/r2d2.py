"""R2D2: recurrent Q-learning from replayed sequences (Kapturowski et al. 2019).

The buffer is `prioritized`, its `window` longer than the burn-in; a window has the agent's memory at its start.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents import recurrent, value
from jaxrl.types import Agent, PyTree, Transition


def r2d2(
    network: recurrent.Network,
    optimizer: optax.GradientTransformation | None = None,
    *,
    gamma: ArrayLike = 0.997,
    n_step: int = 5,
    burn_in: int = 40,
    eta: ArrayLike = 0.9,
    rescale: float | None = 1e-3,
    double: bool = True,
    target_update: value.TargetUpdate | None = None,
    epsilon: explore.Rule = 0.05,
) -> Agent:
    """Regression of q(s_t, a_t) on h(r_t + ... + gamma^k h^-1(q_target(s_t+k, a'))) along whole sequences.

    Kapturowski et al. (2019), section 2.3 and 3. The first `burn_in` steps of a window only bring the stored memory up
    to date, that of the online and that of the target network; the others are learned from, each with a return of
    `n_step` steps, or of those until its episode or the window ends. Where an episode ends the memory starts anew; one
    that is cut bootstraps from its true last observation by the memory before. a' is the target network's best action,
    or with `double` the online network's. `rescale` is epsilon of h, `returns.rescale`; None leaves values as they are.
    The loss is the mean over the steps of half the squared errors, the priority of a sequence eta max |error| +
    (1 - eta) mean |error|. Defaults: Adam at 1e-4, a target network copied every 2,500 updates.

    Raises ValueError for a gamma or eta outside [0, 1], n_step < 1, burn_in < 0, rescale <= 0 and, where the run is
    traced, a burn_in that leaves nothing of a window and a network that does not give (q [A], carry).
    """
    checks.in_range("gamma", gamma, 0, 1)
    checks.at_least("n_step", n_step, 1)
    checks.at_least("burn_in", burn_in, 0)
    checks.in_range("eta", eta, 0, 1)
    if rescale is not None:
        checks.in_range("rescale", rescale, 0, 1, open_low=True)

    def td_loss(params: PyTree, target: PyTree, window: Transition, key: Array):
        del key
        (length,) = window.reward.shape
        if burn_in >= length:
            raise ValueError(
                f"r2d2: burn_in is {burn_in}, but the buffer's windows have {length} steps, of which none would be "
                f"learned from; set burn_in to at most {length - 1} or window to at least {burn_in + 1}"
            )
        steps, carry = window._replace(carry=()), window.carry
        after = recurrent.unroll(network, target, carry, steps).after
        if burn_in:
            first = jax.tree.map(lambda leaf: leaf[:burn_in], steps)
            carry = jax.lax.stop_gradient(recurrent.unroll(network, params, carry, first).carry)
        rows, after = jax.tree.map(lambda leaf: leaf[burn_in:], (steps, after))
        seen = recurrent.unroll(network, params, carry, rows)
        _, mask = explore.split_mask(rows.next_obs)
        following = recurrent.ahead(network, target, after, rows)
        chooser = following
        if double:
            still, after = jax.lax.stop_gradient((params, seen.after))
            chooser = recurrent.ahead(network, still, after, rows)
        chosen = explore.greedy(chooser, mask=mask)
        following = jnp.take_along_axis(following, chosen[:, None], axis=1)[:, 0]
        following = following if rescale is None else returns.unscale(following, rescale)
        discount, trace = returns.cut(rows, gamma, 1.0)
        goal = returns.n_step_returns(rows.reward, discount, following, trace, n_step)
        goal = goal if rescale is None else returns.rescale(goal, rescale)
        q = jnp.take_along_axis(seen.q, rows.action[:, None], axis=1)[:, 0]
        error = goal - q  # no slope leads through the goal: it is the target network's, chosen or not
        size = jnp.abs(error)
        priority = jnp.add(eta * jnp.max(size), (1 - eta) * jnp.mean(size))
        return jnp.mean(optax.l2_loss(error)), priority, {"q": jnp.mean(q)}

    return value.value_agent(
        recurrent.init(network),
        recurrent.values(network),
        td_loss,
        optimizer or optax.adam(1e-4),
        target_update or value.hard(2500),
        epsilon,
        recurrent.carry(network),
    )
