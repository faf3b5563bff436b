import dataclasses
import itertools

import gymnax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import nets, recipes
from jaxrl.envs.api import TabularMDP
from jaxrl.envs.tabular import tabular_env
from jaxrl.runs.plan import choose, prepare

DQN = recipes.default("dqn")
TABULAR = recipes.default("q_learning")


def build(recipe, config, env_id=None, **overrides):
    usual = {"dqn": "CartPole-v1", "decqn": "Pendulum-v1"}.get(recipe, "FrozenLake-v1")
    home = recipes.home(recipe) or recipes.base.Home(usual)
    return recipes.build(recipe, config, *jaxrl.make(env_id or home.env, **{**home.overrides, **overrides}))


def change(config, **changes):
    """dataclasses.replace, with `agent__gamma` for a field of a part."""
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        config = dataclasses.replace(
            config, **{outer: change(getattr(config, outer), **{inner: value}) if inner else value}
        )
    return config


@pytest.mark.parametrize("steps", [4_800, 9_600, 16_032])
@pytest.mark.parametrize(("recipe", "unroll"), [*((name, 1) for name in recipes.names()), ("dqn", 4), ("dqn", 7)])
def test_the_budget_is_exact(recipe, unroll, steps):
    starts = min(recipes.default(recipe).learning_starts, 1_000)
    setup = build(
        recipe, change(recipes.default(recipe), steps=steps, unroll=unroll, num_envs=16, learning_starts=starts)
    )
    assert setup.loop.num_envs * (setup.loop.warmup + setup.iterations * unroll) == steps
    assert setup.loop.warmup * setup.loop.num_envs >= starts
    assert setup.iterations >= 1


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("dqn", {"steps": 0}, "steps is 0; it must be an integer of at least 1"),
        ("dqn", {"num_envs": -3}, "num_envs is -3"),
        ("dqn", {"num_envs": 7, "steps": 20_000}, "steps 20000 is not a multiple of num_envs 7; use 19999 or 20006"),
        ("dqn", {"unroll": 0}, "unroll is 0"),
        ("dqn", {"updates": 0}, "updates is 0"),
        ("dqn", {"eval_episodes": 0}, "eval_episodes is 0"),
        ("dqn", {"learning_starts": -1}, "learning_starts is -1"),
        ("dqn", {"learning_starts": 400_000}, "no update would ever run: steps 300000"),
        ("dqn", {"agent__learning_rate": 0.0}, "learning_rate is 0.0; it must be a finite number in"),
        ("dqn", {"agent__learning_rate": float("nan")}, "learning_rate is nan"),
        ("dqn", {"agent__learning_rate": float("inf")}, "learning_rate is inf"),
        ("dqn", {"agent__learning_rate": "1e-3"}, "learning_rate is '1e-3'"),
        ("dqn", {"agent__gamma": 1.01}, "gamma is 1.01"),
        ("dqn", {"agent__n_step": 0}, "n_step is 0"),
        ("dqn", {"agent__polyak": 0.0}, "polyak is 0.0"),
        ("dqn", {"agent__target_period": -1}, "target_period is -1"),
        ("dqn", {"agent__clip_norm": 0.0}, "clip_norm is 0.0"),
        ("dqn", {"agent__loss": "huge"}, "unknown loss 'huge'; did you mean 'huber'"),
        ("dqn", {"agent__optimizer": "adamm"}, "unknown agent.optimizer 'adamm'; did you mean 'adam'"),
        ("dqn", {"agent__optimizer_eps": 0.0}, "optimizer_eps is 0.0"),
        ("dqn", {"agent__reward_scale": 0.0}, "reward_scale is 0.0"),
        ("dqn", {"agent__reward_clip": -1.0}, "reward_clip is -1.0"),
        ("c51", {"agent__v_min": 200.0}, "v_min is 200.0 and v_max 100.0; v_min must be below v_max"),
        ("c51", {"agent__atoms": 1}, "atoms is 1; it must be an integer of at least 2"),
        ("hl_gauss", {"agent__bins": 1}, "bins is 1; it must be an integer of at least 2"),
        ("qr_dqn", {"agent__quantiles": 1}, "quantiles is 1; it must be an integer of at least 2"),
        ("iqn", {"agent__kappa": -1.0}, "kappa is -1.0"),
        ("rainbow", {"replay__alpha": -0.5}, "alpha is -0.5"),
        ("rainbow", {"replay__beta": 1.5}, "beta is 1.5"),
        ("munchausen_dqn", {"agent__temperature": 0.0}, "temperature is 0.0"),
        ("pqn", {"agent__minibatches": 3}, "minibatches is 3, which does not divide the 2048 steps"),
        ("dqn", {"agent__hidden": (64, 0)}, "hidden is 0"),
        ("dqn", {"agent__fourier": -1}, "agent.fourier is -1"),
        ("pqn", {"agent__fourier": 2}, "agent.fourier is 2, but FrozenLake-v1 shows Discrete.*set it to 0"),
        ("dqn", {"rescale": True}, "rescale_observation"),
        ("dqn", {"agent__epsilon__end": 1.5}, "epsilon.end is 1.5"),
        ("dqn", {"agent__epsilon__start": 0.01}, "epsilon.end 0.05 is above agent.epsilon.start 0.01"),
        ("dqn", {"replay__capacity": 0}, "capacity is 0"),
        ("dqn", {"replay__capacity": 32, "agent__n_step": 5}, "capacity=32 is 2 rows of num_envs=16, but window=5"),
        ("dqn", {"replay__batch_size": 0}, "batch_size is 0"),
        ("dqn", {"replay__batch_size": 5_000, "agent__n_step": 5}, "batch_size 5000 is more than the 960 windows"),
        ("dqn", {"replay__capacity": 160, "agent__n_step": 5}, "batch_size 128 is more than the 96 windows"),
        ("dqn", {"num_envs": 1, "steps": 2**31}, "at most 2147483647 can be counted"),
        ("q_learning", {"unroll": 4}, "unroll is 4; a table learns from each step once"),
        ("q_learning", {"updates": 2}, "updates is 2; a table learns from each step once"),
        ("monte_carlo", {"updates": 2}, "updates is 2; a table learns from each step once"),
        ("monte_carlo", {"agent__horizon": -1}, "agent.horizon is -1"),
        ("monte_carlo", {"agent__visit": "last"}, "unknown visit 'last'"),
        ("sarsa", {"agent__n_step": 0}, "agent.n_step is 0"),
        ("sarsa_lambda", {"agent__trace_lambda": 1.5}, "lambda_ is 1.5"),
        ("dyna_q", {"agent__planning": -1}, "planning is -1"),
        ("q_learning", {"features__tilings": 8}, "features.tilings is 8 without bins"),
        ("q_learning_tiles_cartpole", {"features__bins": (4, 4)}, "bins"),
        ("q_learning_tiles_cartpole", {"features__low": (-1.0, 2.0)}, "bounds of tile_coding"),
        ("q_learning", {"agent__alpha": 0.0}, "alpha is 0.0"),
        ("q_learning", {"agent__alpha_power": 2.0}, "alpha_power is 2.0"),
        ("q_learning", {"agent__gamma": -0.5}, "gamma is -0.5"),
        ("q_learning", {"agent__initial": float("nan")}, "initial is nan"),
    ],
)
def test_bad_settings_are_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        build(recipe, change(recipes.default(recipe), **changes))
    assert "\n" not in str(error.value)


def test_what_fits_what():
    with pytest.raises(ValueError, match="unknown recipe 'dqm'; did you mean 'dqn'"):
        recipes.default("dqm")
    with pytest.raises(ValueError, match="needs a row of a table: observations of CartPole-v1 are Box"):
        build("sarsa", TABULAR, "CartPole-v1")
    with pytest.raises(ValueError, match="set features.bins"):
        build("sarsa", TABULAR, "CartPole-v1")
    with pytest.raises(ValueError, match="Blackjack-v1 has no step limit.*set agent.horizon"):
        build("monte_carlo", recipes.default("monte_carlo"), "Blackjack-v1")
    with pytest.raises(ValueError, match="gamma is 1, but state 0 .* reaches no end"):
        endless = tabular_env(TabularMDP(np.ones((1, 2, 1)), np.ones((1, 2)), np.zeros(1, bool), np.ones(1)))
        recipes.build("q_learning", change(TABULAR, agent__gamma=1.0), endless, endless.default_params)
    with pytest.raises(ValueError, match="takes Tabular"):
        build("sarsa", DQN)
    with pytest.raises(ValueError, match="takes no network"):
        recipes.build("sarsa", TABULAR, *jaxrl.make("FrozenLake-v1"), network=nets.QNetwork(4))
    env, params = gymnax.make("Pendulum-v1")
    with pytest.raises(ValueError, match="dqn chooses from Discrete actions, but Pendulum-v1 has"):
        recipes.build("dqn", DQN, env, params)


DEEP = [name for name in recipes.names() if isinstance(recipes.default(name), recipes.Deep) and name != "decqn"]


@pytest.mark.parametrize(
    ("name", "env"), list(zip(DEEP, itertools.cycle(["CartPole-v1", "Breakout-MinAtar", "FrozenLake-v1"])))
)
def test_a_deep_recipe_fits_tables_vectors_and_images(name, env):
    plan = prepare(name, choose(env), recipes.default(name, env))  # traces, compiles nothing
    head = plan.shapes.agent.params["params"]
    assert ("Conv_0" in head["torso"]) == (env == "Breakout-MinAtar" and name != "purejaxrl_dqn")


def test_rainbow_gives_up_each_of_its_six():
    def parts(**changes):
        config = change(recipes.default("rainbow"), **changes)
        plan = prepare("rainbow", choose("CartPole-v1"), config)
        params = plan.shapes.agent.params["params"]
        head = params["advantage" if config.agent.dueling else "q"]
        buffer = type(plan.shapes.buffer).__name__
        return head["kernel"].shape[1], "kernel_scale" in head, "value" in params, buffer, plan.setup.buffer.min_steps

    assert parts() == (2 * 51, True, True, "PrioritizedState", 10)
    assert parts(agent__distributional=False) == (2, True, True, "PrioritizedState", 10)
    assert parts(agent__noisy=False) == (2 * 51, False, True, "PrioritizedState", 10)
    assert parts(agent__dueling=False) == (2 * 51, True, False, "PrioritizedState", 10)
    assert parts(replay__prioritized=False) == (2 * 51, True, True, "Store", 10)
    assert parts(agent__n_step=1) == (2 * 51, True, True, "PrioritizedState", 1)


@pytest.mark.parametrize("width", [1, 5])
def test_a_network_of_another_width_is_refused(width):
    with pytest.raises(ValueError, match=rf"the network gives \[{width}\] values .* its actions, \[2\]"):
        recipes.build("dqn", DQN, *jaxrl.make("CartPole-v1"), network=nets.QNetwork(width))


def test_a_network_learns_a_discrete_observation():
    setup = build("dqn", DQN, "FrozenLake-v1")
    env, params = jaxrl.make("FrozenLake-v1")
    obs, _ = env.reset(jaxrl.key(0), params)
    kernel = setup.agent.init(jaxrl.key(0), obs[None]).params["params"]["torso"]["Dense_0"]["kernel"]
    assert kernel.shape == (16, 120)


def test_a_table_of_tiles_is_as_large_as_the_wrapper_says():
    env, params = jaxrl.make("CartPole-v1")
    tiles = jaxrl.wrappers.tile_coding(env, tilings=4, bins=3, bounds=(-np.ones(4), np.ones(4)))
    setup = recipes.build("q_learning", recipes.default("q_learning"), tiles, params)
    q = setup.agent.init(jaxrl.key(0), jnp.zeros((1, 4), jnp.int32)).q
    assert q.shape == (jaxrl.wrappers.num_states(tiles), 2)


def test_what_a_table_needs_is_put_around_the_environment():
    cards = build("q_learning", TABULAR, "Blackjack-v1")
    assert cards.env.observation_space().n == 32 * 11 * 2
    hands = build("glie_mc_blackjack", recipes.default("glie_mc_blackjack"))
    assert hands.env.limit == 21 and hands.buffer.min_steps == 160 + 21
    for kind, shape in (("tiles", (16 * 5**4, 2)), ("bins", (6 * 6 * 12 * 12, 2))):
        name = f"q_learning_{kind}_cartpole"
        setup = build(name, recipes.default(name))
        obs = setup.env.reset(jaxrl.key(0), setup.env.default_params)[0]
        assert setup.agent.init(jaxrl.key(0), obs[None]).q.shape == shape
    lake = build("monte_carlo", change(recipes.default("monte_carlo"), agent__horizon=30))
    assert lake.env.limit == 30 and lake.buffer.min_steps == 32 + 30


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.home(name)])
def test_a_recipe_that_is_named_after_an_environment_brings_it(name):
    home = recipes.home(name)
    plan = prepare(name, choose(home.env, home.overrides), recipes.default(name, home.env))  # traces, compiles nothing
    env = plan.chosen.env
    assert plan.chosen.id == home.env
    if isinstance(plan.config, recipes.Tabular):
        assert plan.parameters == jaxrl.wrappers.num_states(env) * env.num_actions


def test_its_environment_need_not_be_told():
    result = jaxrl.train("q_learning_tiles_cartpole", steps=6_400, eval_episodes=2)
    assert result.summary["env_steps"] == 6_400 and np.isfinite(result.summary["eval"]["mean"])


def test_recipes_without_an_environment_ask_for_one():
    with pytest.raises(ValueError, match="sarsa got no environment"):
        jaxrl.train("sarsa")
    assert recipes.home("gyx_sarsa_frozenlake") == ("FrozenLake-v1", {"is_slippery": False})


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("dopamine_dqn", {"agent.learning_rate": 1e-4}, "agent.learning_rate_end 0.001 is above agent.learning_rate"),
        ("dqn", {"agent.fourier": 3}, "the limits must be finite and low below high"),
        ("iqn", {"agent.cosines": 0}, "cosines is 0; it must be an integer of at least 1"),
        ("dqn", {"agent.torso": "foo"}, r"unknown agent.torso 'foo' \(one of: auto, mlp\)"),
        ("dqn", {"agent.optimizer": "adm"}, "unknown agent.optimizer 'adm'; did you mean 'adam'"),
        ("dqn", {"network": nets.QNetwork}, "it must be an object with init and apply, such as nets.QNetwork"),
        ("dqn", {"network": 3}, "network is 3; it must be an object with init and apply"),
        (
            "r2d2",
            {"network": nets.RecurrentQNetwork(2, nets.MLP((3,), noisy=True))},
            "the torso is noisy, but no noise",
        ),
        ("apex", {"network": nets.QNetwork(2, nets.MLP((3,)), noisy=True)}, "apex: the network is noisy, but actors"),
    ],
)
def test_settings_that_would_not_do_what_they_say_are_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.train(recipe, "CartPole-v1", **changes)


def test_prioritized_recipes_of_dopamine_draw_by_its_square_root_of_the_loss():
    for name in ("dopamine_rainbow", "dopamine_qr"):
        replay = recipes.default(name, "CartPole-v1").replay
        assert replay.prioritized and (replay.alpha, replay.beta) == (0.5, 0.5)
