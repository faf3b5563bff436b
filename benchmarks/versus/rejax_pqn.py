"""rejax's PQN at the settings of its configs/gymnax/cartpole.yaml, a phase of 16 x 128 steps at a time."""

from importlib import import_module
from importlib.metadata import version

import jax
from race import EPISODES, EVERY, Race, compiled, serve

rejax = import_module("rejax")  # by name: only the peer's environment has it
BUDGET = 524_288
algo = rejax.get_algo("pqn").create(
    env="CartPole-v1",
    num_envs=16,
    num_steps=128,
    num_minibatches=16,
    max_grad_norm=10,
    learning_rate=0.0003,
    num_epochs=5,
    total_timesteps=BUDGET,
    eps_start=1,
    eps_end=0.05,
    exploration_fraction=0.5,
    gamma=0.99,
    td_lambda=0.9,
    normalize_observations=False,
)


def play(state, key):
    """Its own evaluation, without the exploration of 0.005 that it does there."""

    def act(obs, key):
        return algo.agent.apply(state.q_ts.params, obs[None], key, epsilon=0.0, method="act")[0]

    evaluate = import_module("rejax.evaluate").evaluate
    return evaluate(act, key, algo.env, algo.env_params, EPISODES, algo.env_params.max_steps_in_episode)[1].mean()


compile_s: list[float] = []
key = jax.random.PRNGKey(0)
begin = compiled(compile_s, algo.init_state, key)
train = compiled(compile_s, algo.train_iteration, begin(key), donate_argnums=0)
evaluate = compiled(compile_s, play, begin(key), key)


def run(seed: int) -> dict:
    key, play_key = jax.random.split(jax.random.PRNGKey(seed))
    jax.block_until_ready(key)
    race = Race(seed)
    state = jax.block_until_ready(begin(key))
    for i in range(BUDGET // EVERY):
        state = jax.block_until_ready(train(state))
        race.mark((i + 1) * EVERY, evaluate, state, jax.random.fold_in(play_key, i))
    return race.result()


versions = {name: version(name) for name in ("rejax", "gymnax", "jax", "flax", "optax")}
serve({"compile_s": compile_s, "versions": versions}, run)
