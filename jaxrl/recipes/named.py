"""Recipes with the constants that others published, and the talk's."""

from typing import Any

from jaxrl.envs import wrappers
from jaxrl.recipes.base import Exploration, Home, Recipe
from jaxrl.recipes.deep import (
    C51Agent,
    Deep,
    DQNAgent,
    IQNAgent,
    QRAgent,
    RainbowAgent,
    Replay,
    recipe,
)
from jaxrl.recipes.network import rescaled
from jaxrl.recipes.pqn import MINATAR, PQN, PQNAgent
from jaxrl.recipes.pqn import RECIPES as PQN_RECIPES
from jaxrl.types import PyTree

# what Dopamine scales to [-1, 1], by environment
_LIMITS = {
    "CartPole": ((-2.4, -5.0, -0.2618, -6.2832), (2.4, 5.0, 0.2618, 6.2832)),
    "Acrobot": ((-1.0, -1.0, -1.0, -1.0, -5.0, -5.0), (1.0, 1.0, 1.0, 1.0, 5.0, 5.0)),
    "MountainCar": ((-1.2, -0.07), (0.6, 0.07)),
}
_CONSTANT = Exploration(0.01, 0.01)


def _rescaled(config: Any, env: Any, params: PyTree) -> Any:
    """The environment with observations in [-1, 1] where Dopamine has them so."""
    limits = _LIMITS.get(env.name.rpartition("-")[0])
    return rescaled(config, env, params) if limits is None else wrappers.rescale_observation(env, bounds=limits)


def _dopamine(agent: Any, prioritized: bool = False, **loop: Any) -> Deep:
    """Its classic control: one environment, two layers of 512, 500 steps before learning, 50,000 kept."""
    settings: dict[str, Any] = {"steps": 100_000, "num_envs": 1, "unroll": 4, "learning_starts": 500} | loop
    # its priority is the loss's square root, ours the loss, of Rainbow the part that learning can lower
    replay = Replay(50_000, 128, prioritized=prioritized, alpha=0.5, beta=0.5)
    return Deep(agent=agent, replay=replay, **settings)


def _classic(rate: float, eps: float, **more: Any) -> dict[str, Any]:
    constants = {
        "learning_rate": rate,
        "learning_rate_end": rate,
        "optimizer_eps": eps,
        "clip_norm": 1e9,
        "n_step": 1,
        "target_period": 25,  # of updates, one in four steps
        "hidden": (512, 512),
        "epsilon": _CONSTANT,
    }
    return constants | more


def _minatar(**more: Any) -> dict[str, dict[str, Any]]:
    """Its MinAtar: one convolution, a linear head, 1,000 steps before learning, batches of 32."""
    constants = {
        "steps": 10_000_000,
        "learning_starts": 1_000,
        "unroll": 4,
        "replay.capacity": 100_000,
        "replay.batch_size": 32,
        "agent.learning_rate": 2.5e-4,
        "agent.learning_rate_end": 2.5e-4,
        "agent.optimizer_eps": 3.125e-4,
        "agent.target_period": 250,
        "agent.hidden": (),
        "agent.epsilon": Exploration(1.0, 0.01, 0.025),
    }
    return dict.fromkeys(MINATAR, constants | more)


_LONGER = {name: {"steps": 500_000} for name in ("Acrobot-v1", "MountainCar-v0")}
_CONTROL = "with Dopamine's constants for classic control and MinAtar."

RECIPES: dict[str, Recipe] = {
    "dopamine_dqn": recipe(
        "dqn",
        f"DQN {_CONTROL}",
        _dopamine(DQNAgent(**_classic(1e-3, 3.125e-4), double=False)),
        wrap=_rescaled,
        environments=_LONGER | _minatar(),
    ),
    "dopamine_c51": recipe(
        "c51",
        "C51 with Dopamine's constants, on MinAtar those of its DQN.",
        _dopamine(
            C51Agent(**_classic(1e-5, 3.90625e-6, target_period=1), double=False, atoms=201, v_min=-100.0),
            steps=400_000,
            unroll=1,
        ),
        wrap=_rescaled,
        environments={
            "Acrobot-v1": {
                "steps": 500_000,
                "unroll": 4,
                "agent.learning_rate": 0.1,
                "agent.learning_rate_end": 0.1,
                "agent.optimizer_eps": 3.125e-4,
                "agent.target_period": 25,
                "agent.atoms": 51,
                "agent.v_min": -10.0,
                "agent.v_max": 10.0,
            },
            "MountainCar-v0": {"steps": 500_000},
        }
        | _minatar(**{"agent.atoms": 51}),
    ),
    "dopamine_rainbow": recipe(
        "rainbow",
        "Rainbow with Dopamine's constants: C51, three steps, prioritized replay.",
        _dopamine(
            RainbowAgent(**_classic(0.09, 3.125e-4, n_step=3), double=False, atoms=201, v_min=-10.0, v_max=10.0),
            prioritized=True,
            steps=500_000,
        ),
        wrap=_rescaled,
        environments=_minatar(**{"agent.atoms": 51, "agent.v_min": -100.0, "agent.v_max": 100.0}),
    ),
    "dopamine_qr": recipe(
        "qr_dqn",
        "QR-DQN with Dopamine's constants, on classic control those of its DQN.",
        _dopamine(QRAgent(**_classic(1e-3, 3.125e-4, n_step=3), double=False, quantiles=200), prioritized=True),
        wrap=_rescaled,
        environments=_LONGER | _minatar(),
    ),
    "dopamine_iqn": recipe(
        "iqn",
        "IQN with its fractions as in Dopamine, the rest as of Dopamine's DQN.",
        _dopamine(IQNAgent(**_classic(1e-3, 3.125e-4, n_step=3), double=False, fractions=64, target_fractions=64)),
        wrap=_rescaled,
        environments=_LONGER | _minatar(),
    ),
    "purejaxrl_dqn": recipe(
        "dqn",
        "DQN with PureJaxRL's constants.",
        Deep(
            steps=500_000,
            num_envs=10,
            learning_starts=10_000,
            agent=DQNAgent(
                learning_rate=2.5e-4,
                learning_rate_end=2.5e-4,
                clip_norm=1e9,
                n_step=1,
                target_period=50,  # of updates, one in ten steps
                torso="mlp",
                double=False,
                epsilon=Exploration(1.0, 0.05, 0.5),
            ),
            replay=Replay(10_000, 128),
        ),
    ),
    "talk_dqn": recipe(
        "dqn",
        "The talk's DQN: Huber loss, centred RMSProp, a copied target.",
        Deep(
            steps=500_000,
            num_envs=8,
            agent=DQNAgent(
                learning_rate=2.5e-4,
                learning_rate_end=2.5e-4,
                optimizer="rmsprop",
                optimizer_eps=1e-5,
                n_step=1,
                target_period=100,
                double=False,
                loss="huber",
            ),
            replay=Replay(50_000, 64),
        ),
        home=Home("CartPole-v1"),
    ),
    "purejaxql_pqn": PQN_RECIPES["pqn"]._replace(
        about="PQN with PureJaxQL's constants.",
        default=PQN(
            agent=PQNAgent(
                learning_rate=1e-4, epochs=4, minibatches=16, hidden=(256, 256), epsilon=Exploration(1.0, 0.2, 0.2)
            )
        ),
        environments={
            game: {**settings, "steps": 10_002_432, "agent.epochs": 2}
            for game, settings in PQN_RECIPES["pqn"].environments.items()
            if game in MINATAR
        },
    ),
}
