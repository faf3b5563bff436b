"""Training of other projects at their own settings: `python peer_steps.py ROW [CHECKOUT]`, ROW of throughput.py.

CHECKOUT is the repository of PureJaxRL or PureJaxQL, which no package index has. Their files stay as they are: what
they need of an older jax, and the loggers that they import, are put in their way here. All learn from the first step
on, without evaluation.
"""

import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

import jax
from race import compiled, serve

warnings.simplefilter("ignore")  # of dtypes, dozens
GAMES = {"cartpole": "CartPole-v1", "breakout": "Breakout-MinAtar"}


def purejaxrl(game: str, steps: int) -> Callable[[jax.Array], Any]:
    """PureJaxRL's DQN, by the settings of its dqn.py."""
    config = {
        "NUM_ENVS": 10,
        "BUFFER_SIZE": 10_000,
        "BUFFER_BATCH_SIZE": 128,
        "TOTAL_TIMESTEPS": steps,
        "EPSILON_START": 1.0,
        "EPSILON_FINISH": 0.05,
        "EPSILON_ANNEAL_TIME": 250_000,
        "TARGET_UPDATE_INTERVAL": 500,
        "LR": 2.5e-4,
        "LEARNING_STARTS": 0,
        "TRAINING_INTERVAL": 10,
        "GAMMA": 0.99,
        "TAU": 1.0,
        "ENV_NAME": GAMES[game],
    }
    return theirs("purejaxrl.dqn").make_train(config)


def purejaxql(game: str, steps: int) -> Callable[[jax.Array], Any]:
    """PureJaxQL's PQN, by its pqn_cartpole.yaml or pqn_minatar.yaml."""
    config = {
        "TOTAL_TIMESTEPS": steps,
        "TOTAL_TIMESTEPS_DECAY": steps,
        "EPS_START": 1.0,
        "NORM_TYPE": "layer_norm",
        "MAX_GRAD_NORM": 10,
        "LR_LINEAR_DECAY": True,
        "GAMMA": 0.99,
        "ENV_NAME": GAMES[game],
        "TEST_DURING_TRAINING": False,
        "WANDB_MODE": "disabled",
    }
    if game == "cartpole":
        module = "purejaxql.pqn_gymnax"
        config |= {"NUM_ENVS": 32, "NUM_STEPS": 64, "NUM_MINIBATCHES": 16, "NUM_EPOCHS": 4, "HIDDEN_SIZE": 256}
        config |= {"LR": 1e-4, "LAMBDA": 0.95, "REW_SCALE": 0.1, "EPS_FINISH": 0.2, "EPS_DECAY": 0.2}
    else:
        module = "purejaxql.pqn_minatar"
        config |= {"NUM_ENVS": 128, "NUM_STEPS": 32, "NUM_MINIBATCHES": 32, "NUM_EPOCHS": 2}
        config |= {"LR": 5e-4, "LAMBDA": 0.65, "EPS_FINISH": 0.05, "EPS_DECAY": 0.1}
    return theirs(module).make_train(config)


def rejax(game: str, steps: int) -> Callable[[jax.Array], Any]:
    """rejax's DQN, by its configs/gymnax/cartpole.yaml."""
    kind = import_module("rejax").get_algo("dqn")
    algo = kind.create(
        env=GAMES[game],
        agent="DuelingQNetwork",
        agent_kwargs={"activation": "swish"},
        num_envs=10,
        buffer_size=50_000,
        fill_buffer=0,
        batch_size=100,
        max_grad_norm=10,
        learning_rate=0.001,
        num_epochs=5,
        total_timesteps=steps,
        polyak=0.98,
        eps_start=1,
        eps_end=0.05,
        exploration_fraction=0.5,
        gamma=0.99,
        ddqn=True,
        normalize_observations=False,
    )

    def train(key: jax.Array) -> Any:
        return jax.lax.fori_loop(0, steps // 10, lambda _, state: algo.train_iteration(state), algo.init_state(key))

    return train


def theirs(module: str) -> Any:
    """A module of the checkout."""
    for name in ("wandb", "hydra", "omegaconf"):
        sys.modules[name] = ModuleType(name)
    sys.modules["omegaconf"].__dict__["OmegaConf"] = None
    jax.__dict__["tree_map"] = jax.tree.map
    sys.path.insert(0, sys.argv[2])
    return import_module(module)


ROWS = {
    "pqn_cartpole": (purejaxql, "cartpole", 102_400),
    "dqn_cartpole": (purejaxrl, "cartpole", 200_000),
    "dqn_rejax": (rejax, "cartpole", 20_000),
    "pqn_breakout": (purejaxql, "breakout", 40_960),
    "dqn_breakout": (purejaxrl, "breakout", 60_000),
}
make, game, steps = ROWS[sys.argv[1]]
compile_s: list[float] = []
train = compiled(compile_s, make(game, steps), jax.random.PRNGKey(0))


def run(seed: int) -> dict[str, float]:
    key = jax.block_until_ready(jax.random.PRNGKey(seed))
    began = time.perf_counter()
    jax.block_until_ready(train(key))
    return {"steps_per_s": steps / (time.perf_counter() - began)}


serve({"compile_s": compile_s, "versions": {name: version(name) for name in ("gymnax", "jax", "flax", "optax")}}, run)
