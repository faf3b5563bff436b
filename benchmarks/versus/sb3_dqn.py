"""The settings of CleanRL's dqn.py in Stable-Baselines3's DQN, its loss too: with Huber's own nothing was learned."""

from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from race import EPISODES, Race, serve

torch = import_module("torch")  # by name: only the peer's environment has them
dqn: Any = import_module("stable_baselines3.dqn.dqn")
dqn.F = SimpleNamespace(smooth_l1_loss=torch.nn.functional.mse_loss)
BaseCallback = import_module("stable_baselines3.common.callbacks").BaseCallback
BUDGET, EVERY, LIMIT_S = 500_000, 2_050, 300.0  # marks are multiples of train_freq
torch.set_num_threads(1)
envs = gymnasium.make_vec("CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point")


def greedy(model, seed: int) -> float:
    """The mean return of one whole episode in each of the environments."""
    obs, _ = envs.reset(seed=seed)
    returns, running = np.zeros(EPISODES), np.ones(EPISODES, bool)
    while running.any():
        action, _ = model.predict(obs, deterministic=True)
        obs, reward, terminated, truncated, _ = envs.step(action)
        returns += np.where(running, reward, 0.0)
        running &= ~(terminated | truncated)
    return float(returns.mean())


class Marks(BaseCallback):
    """Evaluates, and stops where it is solved or takes too long."""

    def __init__(self, race: Race) -> None:
        super().__init__()
        self.race = race

    def _on_step(self) -> bool:
        steps = self.num_timesteps
        if steps % EVERY:
            return True
        self.race.mark(steps, greedy, self.model, 1_000_000 * (self.race.seed + 1) + steps)
        return self.race.solved is None and self.race.seconds < LIMIT_S


def made(seed: int):
    return dqn.DQN(
        "MlpPolicy",
        gymnasium.make("CartPole-v1"),
        learning_rate=2.5e-4,
        buffer_size=10_000,
        learning_starts=10_000,
        batch_size=128,
        tau=1.0,
        gamma=0.99,
        train_freq=10,
        gradient_steps=1,
        target_update_interval=500,
        exploration_fraction=0.5,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.05,
        max_grad_norm=float("inf"),
        policy_kwargs={"net_arch": [120, 84]},
        seed=seed,
        device="cpu",
    )


def run(seed: int) -> dict:
    race = Race(seed)
    made(seed).learn(BUDGET, callback=Marks(race))
    return race.result()


made(0)  # torch imports more when it first makes an optimiser


versions = {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium", "numpy")}
serve({"compile_s": [], "versions": versions}, run)
