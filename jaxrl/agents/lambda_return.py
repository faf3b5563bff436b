"""The off-line lambda-return algorithm: forward views, learned from whole episodes.

The buffer is `recent(unroll + horizon, num_envs)`, updates 1: an episode of at most `horizon` steps that ends in the
newest `unroll` rows of a window then lies in it whole, and is learned from in that learn phase alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents.tabular import Rows, TableState, action_values, indices, shell
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


class Progress(NamedTuple):
    """What goes on from step to step of a learn phase."""

    table: TableState
    loss: Array  # [] float, the sum of squared errors
    q: Array  # [] float, the sum of predictions


def lambda_return(
    num_states: int,
    num_actions: int,
    *,
    horizon: int | None,
    gamma: ArrayLike = 0.99,
    lambda_: ArrayLike = 0.9,
    target: str = "sarsa",
    **options,
) -> Agent:
    """Moves Q(s, a) towards G_t = r + gamma ((1 - lambda) V(s') + lambda G_{t+1}) at the end of every episode.

    Sutton & Barto (2018), section 12.1, equations 12.2 to 12.4. V(s') is
    - "sarsa": Q(s', a') of the next action; at a truncated end one is drawn from the current policy: the forward view
      of SARSA(lambda), and with `policy=`, which learns V, of TD(lambda);
    - "watkins": max Q(s', .), with lambda 0 where the next action was not greedy: of Watkins's Q(lambda);
    - "peng": max Q(s', .): of Peng's Q(lambda).

    The returns of an episode are those of the table that its learning begins with; its steps then move the table one
    after the other, oldest first, so that an entry visited twice moves twice. Episodes that end in one learn phase
    follow each other: one environment is the book's algorithm whatever the unroll. What several environments did at the
    same time is one `learn` of `tabular.shell`, whose `options` these are. lambda_ 1 is Monte Carlo of every visit.
    Truncated episodes bootstrap at their end and are learned from.

    Metrics: `learned_episodes`, the truncated ones among them `cut_episodes`, and `long_episodes`, longer than the
    horizon and not learned from. Raises ValueError for gamma or lambda_ outside [0, 1], an unknown target, no horizon,
    and windows of at most horizon steps.
    """
    limit = returns.require_horizon("lambda_return", horizon)
    checks.in_range("gamma", gamma, 0, 1)
    checks.in_range("lambda_", lambda_, 0, 1)
    checks.one_of("target", target, ("sarsa", "watkins", "peng"))
    base = shell(num_states, num_actions, **options)

    def goals(q: Rows, window: Transition, last: Array, drawn: Array) -> Array:
        """The lambda-returns [T] of the episode that ends in row `last`, after which `drawn` would be done."""
        ahead = jax.vmap(q)(window.next_obs)  # [T, A]
        following = jnp.roll(window.action, -1).at[last].set(drawn)
        value = taken = jax.vmap(lambda row, action: row[action])(ahead, following)
        trace = jnp.broadcast_to(jnp.asarray(lambda_, value.dtype), value.shape)
        if target != "sarsa":
            value = jax.vmap(lambda row, obs: explore.best(row, explore.split_mask(obs)[1]))(ahead, window.next_obs)
        if target == "watkins":
            trace = jnp.where(taken >= value, trace, 0)
        value = jnp.where(window.terminated, 0, value)  # an end may allow no action: -inf
        discount, trace = returns.cut(window, gamma, trace)
        return returns.lambda_returns(window.reward, discount, value, trace)

    def update(state: TableState, sample: Sample, key: Array, steps: ArrayLike) -> tuple[TableState, Array, Metrics]:
        window = base.seen(sample.window)._replace(carry=(), reward=sample.window.reward.astype(float))
        lanes, length = window.reward.shape
        row = jnp.arange(length, dtype=jnp.int32)
        found = jax.vmap(lambda window: returns.episodes(window, limit))(window)
        whole = found.whole & (sample.weight > 0)[:, None]
        ended = window.terminated | window.truncated
        last = whole & ended
        turn = jnp.cumsum(last, axis=1, dtype=jnp.int32) - last  # [N, T], how many are learned from before it
        active, action = jnp.moveaxis(jax.vmap(jax.vmap(indices))(window.obs), 1, 0), window.action.T

        def episode(number: Array, before: Progress) -> Progress:
            """Every environment's episode of this number."""
            table = before.table
            q, mine = base.values(table), whole & (turn == number)

            def lane(window: Transition, carry: PyTree, mine: Array, key: Array) -> Array:
                end = jnp.max(jnp.where(mine, row, 0))
                after = jax.tree.map(lambda leaf: leaf[end], window.next_obs)
                return goals(q, window, end, explore.draw(base.policy(table, carry, steps)(after), key))

            keys = jax.random.split(jax.random.fold_in(key, number), lanes)
            goal = jax.vmap(lane)(window, sample.window.carry, mine, keys).T
            weight = (mine * sample.weight[:, None]).T

            def step(row: Array, progress: Progress) -> Progress:
                at = active[row], action[row]
                predicted = jax.vmap(lambda active, action: action_values(progress.table.q, active)[action])(*at)
                error = goal[row] - predicted
                counted = weight[row] > 0
                return Progress(
                    base.learn(progress.table, *at, error, weight[row]),
                    progress.loss + jnp.sum(jnp.where(counted, jnp.square(error), 0)),
                    progress.q + jnp.sum(jnp.where(counted, predicted, 0)),
                )

            some = jnp.any(mine, axis=0)
            first, stop = jnp.min(jnp.where(some, row, length)), jnp.max(jnp.where(some, row + 1, 0))
            return jax.lax.fori_loop(first, stop, step, before)

        none = jnp.zeros((), state.q.dtype)
        learned = jnp.sum(last, axis=1, dtype=jnp.int32)
        state, loss, q = jax.lax.fori_loop(0, jnp.max(learned), episode, Progress(state, none, none))
        number = jnp.maximum(jnp.sum(whole), 1)
        metrics = {
            "loss": loss / number,
            "q": q / number,
            "learned_episodes": jnp.sum(last, dtype=jnp.float32),
            "cut_episodes": jnp.sum(last & ~window.terminated, dtype=jnp.float32),
            "long_episodes": jnp.sum(found.long & ended, dtype=jnp.float32),
        }
        return state, sample.weight, metrics

    return Agent(lambda key, obs: base.init(obs), base.carry, base.act, update, rows=lambda unroll: unroll + limit)
