"""jaxrl: `python ours.py NAME`, of pqn, dqn (the recipes), pqn_rejax and dqn_cleanrl (at the settings of those)."""

import sys
from functools import partial
from importlib.metadata import version

import jax
import optax
from race import EPISODES, EVERY, Race, compiled, serve

import jaxrl
from jaxrl import explore, nets, recipes, xla
from jaxrl.agents import value
from jaxrl.recipes.base import Setup
from jaxrl.train import make_run

env, params = jaxrl.make("CartPole-v1")


def recipe(name: str) -> Setup:
    return recipes.build(name, recipes.default(name, "CartPole-v1"), env, params)


def pqn_rejax() -> Setup:
    agent = jaxrl.pqn(
        nets.QNetwork(2, nets.MLP((64, 64), layer_norm=True)),
        optax.chain(optax.clip(10.0), optax.adam(3e-4)),
        gamma=0.99,
        lambda_=0.9,
        epochs=5,
        minibatches=16,
        epsilon=explore.linear(1.0, 0.05, 262_144),
    )
    return Setup(env, agent, jaxrl.recent(128, 16), jaxrl.LoopConfig(16, unroll=128), 256)


def dqn_cleanrl() -> Setup:
    agent = jaxrl.dqn(
        nets.QNetwork(2, nets.MLP((120, 84))),
        optax.adam(2.5e-4),
        gamma=0.99,
        double=False,
        target_update=value.hard(50),
        epsilon=explore.linear(1.0, 0.05, 250_000),
    )
    return Setup(env, agent, jaxrl.uniform(10_000, 128, 1), jaxrl.LoopConfig(1, unroll=10, warmup=10_000), 49_000)


CONTESTANTS = {
    "pqn": lambda: recipe("pqn"),
    "dqn": lambda: recipe("dqn"),
    "pqn_rejax": pqn_rejax,
    "dqn_cleanrl": dqn_cleanrl,
}
name = sys.argv[1]
setup = CONTESTANTS[name]()
loop, program = setup.loop, make_run(env, params, setup.agent, setup.buffer, setup.loop)
phase = loop.num_envs * loop.unroll
iterations = round(EVERY / phase)  # in a chunk

compile_s: list[float] = []
brief = partial(xla.compiled, brief=True)  # for all but training, as `jaxrl train` has it
key = jaxrl.key(0)
begin = compiled(compile_s, lambda key: program.warmup(program.init(key)), key, finish=brief)
state = begin(key)
train = compiled(
    compile_s,
    program.step if iterations == 1 else lambda state: jaxrl.advance(program, state, iterations),
    state,
    finish=xla.compiled,
    donate_argnums=0,
)
evaluate = compiled(
    compile_s,
    lambda agent, key: jaxrl.evaluate(env, params, setup.agent, agent, key, EPISODES).returns.mean(),
    state.agent,
    key,
    finish=brief,
)


def run(seed: int) -> dict:
    key, play_key = jax.random.split(jaxrl.key(seed))
    jax.block_until_ready(key)
    race = Race(seed)
    state = jax.block_until_ready(begin(key))
    for i in range(setup.iterations // iterations):
        state, _ = jax.block_until_ready(train(state))
        steps = loop.num_envs * loop.warmup + (i + 1) * iterations * phase
        race.mark(steps, evaluate, state.agent, jax.random.fold_in(play_key, i))
        if name.startswith("dqn") and race.solved is not None:
            break
    return race.result()


serve({"compile_s": compile_s, "versions": {name: version(name) for name in ("jax", "flax", "optax")}}, run)
