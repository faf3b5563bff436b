"""Q-learning (Watkins 1989) and double Q-learning (van Hasselt 2010)."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks, explore, returns
from jaxrl.agents.tabular import TableState, action_values, indices, shell, tabular_agent, towards_best
from jaxrl.types import Agent, Metrics, PyTree, Sample, Transition


def q_learning(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Moves Q(s, a) towards r + gamma max_a' Q(s', a') (Sutton & Barto 2018, equation 6.8).

    A buffer window of n makes it uncorrected n-step Q-learning. `options` are those of `tabular.shell`. With `policy=`
    it is TD(0), and a whole batch of steps in one Sample, repeated until nothing changes, makes that batch TD: the
    values of the most likely model (section 6.3).
    """
    checks.in_range("gamma", gamma, 0, 1)
    return tabular_agent(num_states, num_actions, towards_best(gamma), **options)


def double_q_learning(num_states: int, num_actions: int, *, gamma: ArrayLike = 0.99, **options) -> Agent:
    """Two tables; a coin says which moves, towards r + gamma Q_other(s', argmax_a' Q(s', a')).

    van Hasselt (2010), algorithm 1; Sutton & Barto (2018), equation 6.10. It behaves by their mean, the state's `q`;
    the tables are rows 0..S-1 and S..2S-1 of `memory`. `options` are those of `tabular.shell`.
    """
    checks.in_range("gamma", gamma, 0, 1)
    base = shell(num_states, num_actions, **options)

    def together(tables: TableState) -> TableState:
        first = jax.tree.map(lambda leaf: leaf[:num_states], tables)
        second = jax.tree.map(lambda leaf: leaf[num_states:], tables)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
        return TableState(mean.q, first.visits + second.visits, mean.average, tables)

    def init(key: Array, obs: PyTree) -> TableState:
        del key
        return together(jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), base.init(obs)))

    def update(state: TableState, sample: Sample, key: Array, steps: Array) -> tuple[TableState, Array, Metrics]:
        del steps
        tables: TableState = state.memory

        def item(window: Transition, coin: Array) -> tuple[Array, Array, Array, Array]:
            step = returns.n_step(window, gamma)
            here, there = coin * num_states, (1 - coin) * num_states
            _, mask = explore.split_mask(step.next_obs)
            following = indices(step.next_obs)
            best = explore.greedy(action_values(tables.q, following + here), mask=mask)
            value = action_values(tables.q, following + there)[best]
            active = indices(step.obs) + here
            predicted = action_values(tables.q, active)[step.action]
            return active, step.action, step.reward + step.discount * value - predicted, predicted

        coins = jax.random.bernoulli(key, shape=sample.weight.shape).astype(jnp.int32)
        active, action, error, predicted = jax.vmap(item)(base.seen(sample.window), coins)
        metrics = {"loss": jnp.mean(jnp.square(error)), "q": jnp.mean(predicted)}
        return together(base.learn(tables, active, action, error, sample.weight)), jnp.abs(error), metrics

    return Agent(init, base.carry, base.act, update)
