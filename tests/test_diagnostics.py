"""What agents can tell besides: against hand arithmetic, and that it costs nothing where it is not asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from windows import ACTIONS, STATES, Table, learn

import jaxrl
from jaxrl import nets
from jaxrl.agents import diagnostics, value
from jaxrl.types import Sample, Transition

ITEM = Transition(*(np.array([x]) for x in (1, 0, np.float32(2), True, False, 0)))  # obs 1, action 0: 2 and the end


def told(agent, items):
    return learn(agent, np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS)), items)[2]


def test_priorities_and_the_gradients_norm_by_hand():
    """Errors 2 and 6 of two entries: the gradient of the mean of their squares is -2 and -6."""
    items = [ITEM, ITEM._replace(obs=np.array([2]), reward=np.float32([6]))]
    optimizer = diagnostics.measured(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))
    agent = diagnostics.with_metrics(jaxrl.dqn(Table(), optimizer), diagnostics.priorities, diagnostics.gradient_norm)
    metrics = told(agent, items)
    assert float(metrics["priority"]) == pytest.approx(4.0)
    assert float(metrics["largest_priority"]) == pytest.approx(6.0)
    assert float(metrics["gradient_norm"]) == pytest.approx(np.sqrt(40), rel=1e-6)  # before it was clipped


def test_what_it_learns_is_the_same():
    plain = jaxrl.dqn(Table(), optax.sgd(1.0))
    told_of = diagnostics.with_metrics(
        jaxrl.dqn(Table(), diagnostics.measured(optax.sgd(1.0))), diagnostics.priorities, diagnostics.gradient_norm
    )
    zero = np.zeros((STATES, ACTIONS))
    np.testing.assert_array_equal(
        learn(plain, zero, zero, [ITEM])[0].params, learn(told_of, zero, zero, [ITEM])[0].params
    )


def test_dormant_units_by_hand():
    """Two of four units of the first layer do next to nothing, none of the two of the second."""
    network = nets.QNetwork(2, nets.MLP((4, 2)))
    obs = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    params = jax.tree.map(jnp.zeros_like, network.init(jaxrl.key(0), obs[0]))
    torso = params["params"]["torso"]
    torso["Dense_0"]["kernel"] = jnp.array([[1.0, 0.0, -1.0, 0.001], [1.0, 2.0, -1.0, 0.0]])
    torso["Dense_1"]["kernel"] = jnp.ones((4, 2))
    agent = jaxrl.dqn(network, optax.sgd(0.0))
    state = agent.init(jaxrl.key(0), obs)._replace(params=params)
    window = Transition(*(np.zeros((2, 1), dtype) for dtype in (int, int, np.float32, bool, bool, int)))
    window = window._replace(obs=obs[:, None], next_obs=obs[:, None])
    found = diagnostics.dormant(network)(state, Sample(window, np.zeros(2, int), np.ones(2)), jnp.zeros(2))
    assert float(found["dormant_share"]) == pytest.approx(2 / 6)  # the one below zero, and the one of 0.0005


@pytest.mark.parametrize(
    "network",
    [
        nets.ImplicitQuantiles(2, nets.MLP((4,)), hidden=(3,)),
        nets.ImplicitQuantiles(2, nets.MLP((4,)), hidden=(3,), proposals=5),
        nets.RecurrentQNetwork(2, nets.MLP((4,)), nets.LSTM(3)),
    ],
)
def test_every_network_tells_of_its_layers(network):
    """One of the torso and one after it: all units of the second are dormant where nothing leads to it."""
    obs = jax.random.normal(jaxrl.key(1), (6, 2))
    memory = (network.start(),) if hasattr(network, "start") else ()
    params = network.init(jaxrl.key(0), *memory, obs[0])
    state = value.ValueState(params, (), (), jnp.zeros((), jnp.int32))
    sample = Sample(Transition(obs[:, None], *[()] * 6), np.zeros(6, int), np.ones(6))
    alive = diagnostics.dormant(network)(state, sample, jnp.zeros(6))["dormant_share"]
    torso = jax.tree.map(jnp.zeros_like, params["params"]["torso"])
    params["params"]["torso"] = {"Dense_0": {**torso["Dense_0"], "bias": jnp.array([1.0, 0.0, 0.0, 0.0])}}
    dead = diagnostics.dormant(network)(state._replace(params=params), sample, jnp.zeros(6))["dormant_share"]
    assert float(alive) < 3 / 7 <= float(dead)


def test_bad_measures_are_refused():
    with pytest.raises(ValueError, match="'q' is a metric already"):
        told(diagnostics.with_metrics(jaxrl.dqn(Table()), lambda state, sample, priority: {"q": priority}), [ITEM])
    with pytest.raises(ValueError, match="keeps no norm; give it diagnostics.measured"):
        told(diagnostics.with_metrics(jaxrl.dqn(Table()), diagnostics.gradient_norm), [ITEM])
    with pytest.raises(ValueError, match="threshold is 2"):
        diagnostics.dormant(Table(), 2)


def test_a_recipe_tells_all_of_them_where_asked():
    env, params = jaxrl.make("CartPole-v1")
    metrics = {}
    for wanted in (False, True):
        config = jaxrl.recipes.default("c51")
        config = jaxrl.recipes.replaced(config, {"agent.diagnostics": wanted, "agent.hidden": (8,), "steps": 2_000})
        setup = jaxrl.recipes.build("c51", config, env, params)
        run = jaxrl.make_run(setup.env, params, setup.agent, setup.buffer, setup.loop)
        metrics[wanted] = set(jax.eval_shape(lambda key, run=run: run.step(run.init(key)), jaxrl.key(0))[1])
    assert metrics[True] - metrics[False] == {"priority", "largest_priority", "gradient_norm", "dormant_share"}
