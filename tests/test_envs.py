"""What every environment owes: the interface, auto-reset at both ends, purity, both kinds of key; and the registry."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import corridor, registry
from jaxrl.envs.api import PureEnvironment

IDS = [
    ("CartPole-v1", {"max_steps_in_episode": 30}),
    ("FrozenLake-v1", {"max_steps_in_episode": 6}),
    ("FrozenLake-v1", {"is_slippery": False, "max_steps_in_episode": 6}),
    ("FrozenLake8x8-v1", {"max_steps_in_episode": 9}),
    ("Corridor-v0", {"length": 4, "max_steps_in_episode": 9}),
    ("Corridor-v0", {"length": 4, "one_hot": True, "max_steps_in_episode": 9}),
    ("Corridor-v0", {"terminal": False, "max_steps_in_episode": 5}),
    ("gymnax:Catch-bsuite", {"max_steps_in_episode": 7}),
]
KEYS = [jaxrl.key, jax.random.key]


@pytest.fixture(params=IDS, ids=lambda item: " ".join([item[0], *map(str, item[1].values())]))
def env_params(request):
    env_id, overrides = request.param
    return registry.make(env_id, **overrides)


def walk(env, params, key, steps=60):
    """A random walk by `step`, one list entry a step: ((key, state, action), obs, state, reward, ...)."""

    def body(state, key):
        step_key, action_key = jax.random.split(key)
        action = jax.random.randint(action_key, (), 0, env.num_actions)
        after = env.step(step_key, state, action, params)
        return after[1], ((step_key, state, action), *after)

    def run(key):
        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, steps))[1]

    trail = jax.jit(run)(key)
    keys = trail[0][0]
    trail = jax.device_get(((None, *trail[0][1:]), *trail[1:]))
    steps_taken = [jax.tree.map(lambda x, t=t: x[t], trail) for t in range(steps)]
    return [((keys[t], *before[1:]), *after) for t, (before, *after) in enumerate(steps_taken)]


def assert_equal(x, y):
    jax.tree.map(np.testing.assert_array_equal, x, y)


def assert_close(x, y):
    """Equal up to the rounding by which two compiled programs of the same arithmetic may differ."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), x, y)


@pytest.mark.parametrize("make_key", KEYS)
def test_step_is_step_env_then_a_reset_at_either_end(env_params, make_key):
    env, params = env_params
    trail = walk(env, params, make_key(7))
    keys = jnp.stack([key for (key, _, _), *_ in trail])
    if env.splits(params):
        step_keys, reset_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    else:
        step_keys = reset_keys = keys
    step_env, reset = jax.jit(env.step_env), jax.jit(env.reset_env)
    ends = set()
    length = 0
    for t, ((_, state, action), obs, after, reward, terminated, truncated, info) in enumerate(trail):
        true_obs, true_state, true_reward, true_end, _ = step_env(step_keys[t], state, action, params)
        length += 1
        assert_close((reward, terminated, info["final_observation"]), (true_reward, true_end, true_obs))
        assert truncated == (length >= params.max_steps_in_episode)
        fresh = terminated or truncated
        assert_close((obs, after), reset(reset_keys[t], params) if fresh else (true_obs, true_state))
        if fresh:
            ends.add((bool(terminated), bool(truncated)))
            assert int(true_state.time) == length
            length = 0
    assert ends, "no episode ended"


def test_both_ends_may_come_at_once():
    env, params = registry.make("Corridor-v0", length=3, max_steps_in_episode=2)
    obs, state = env.reset(jaxrl.key(0))
    for ends in ((False, False), (True, True)):
        obs, state, reward, terminated, truncated, info = env.step(jaxrl.key(0), state, 1)
        assert (terminated, truncated) == ends
    assert (reward, obs, state.time, info["final_observation"]) == (1, 0, 0, 2)


def test_observations_and_dtypes_are_as_declared(env_params):
    env, params = env_params
    space = env.observation_space(params)
    trail = walk(env, params, jaxrl.key(1), 20)
    start, state = env.reset(jaxrl.key(1), params)
    for _, obs, after, reward, terminated, truncated, info in trail:
        for seen in (obs, info["final_observation"]):
            assert (seen.shape, seen.dtype) == (start.shape, start.dtype)
            assert seen.shape == space.shape
            if not env.name.startswith("gymnax:"):  # gymnax's Catch declares int32 and gives float32
                assert space.contains(seen)
                assert seen.dtype == space.dtype
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (jnp.float32, bool, bool)
        assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]
    assert env.action_space(params).n == env.num_actions


def test_jit_equals_eager(env_params):
    env, params = env_params
    for (key, state, action), *compiled in walk(env, params, jaxrl.key(2), 7):
        with jax.disable_jit():
            eager = env.step(key, state, action, params)
        assert_close(tuple(compiled), eager)


def test_vmap_equals_a_loop_and_scan(env_params):
    env, params = env_params
    keys = jax.random.split(jaxrl.key(3), 5)

    def run(key):
        def body(state, key):
            _, state, reward, *ends, _ = env.step(key, state, key_to_action(key), params)
            return state, (reward, *ends)

        def key_to_action(key):
            return jax.random.randint(key, (), 0, env.num_actions)

        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, 40))

    many = jax.jit(jax.vmap(run))(keys)
    for i in range(5):
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-4),
            many,
            jax.jit(run)(keys[i]),
        )


def test_same_key_same_episode(env_params):
    env, params = env_params
    assert_equal(walk(env, params, jaxrl.key(4), 10)[-1][1:], walk(env, params, jaxrl.key(4), 10)[-1][1:])


def test_no_params_means_the_params_made(env_params):
    env, params = env_params
    key = jaxrl.key(5)
    obs, state = env.reset(key)
    assert_equal((obs, state), env.reset(key, params))
    assert_equal(env.step(key, state, 1), env.step(key, state, 1, params))
    assert env.action_space() == env.action_space(params)


def test_environments_are_values():
    for env_id, overrides in IDS[:-1]:
        one, other = registry.make(env_id, **overrides)[0], registry.make(env_id, **overrides)[0]
        assert one == other
        assert hash(one) == hash(other)
        assert one != registry.make(env_id)[0]


def test_keys_are_used_once(env_params):
    env, params = env_params
    key = jax.random.key(0)
    with jax.debug_key_reuse(True):
        reset_key, step_key = jax.random.split(key)
        _, state = jax.jit(env.reset)(reset_key, params)
        jax.block_until_ready(jax.jit(env.step)(step_key, state, 1, params))


def test_corridor_pays_at_its_end():
    env, params = registry.make("Corridor-v0", length=4)
    state = corridor.State(jnp.int32(0), jnp.int32(0))
    cells = []
    for action in (0, 1, 1, 0, 1, 1):
        state, reward, terminated = corridor.step(jaxrl.key(0), state, action, params)
        cells.append((int(state.cell), float(reward), bool(terminated)))
    assert cells == [(0, 0, False), (1, 0, False), (2, 0, False), (1, 0, False), (2, 0, False), (3, 1, True)]
    assert env.render(state) == "...\x1b[41mG\x1b[0m"


def test_endless_corridor_pays_every_step_and_is_only_cut():
    env, params = registry.make("Corridor-v0", terminal=False, max_steps_in_episode=5)
    ends = [(float(r), bool(te), bool(tr)) for _, _, _, r, te, tr, _ in walk(env, params, jaxrl.key(0), 10)]
    assert ends == [(1, False, i % 5 == 4) for i in range(10)]


def test_ids_are_listed_and_registered():
    ids = registry.list_ids()
    assert ids == sorted(ids) and len(ids) > 30
    assert {env_id: registry.make(env_id)[0].name for env_id in ids} == {env_id: env_id for env_id in ids}
    try:
        registry.register("Mine-v0", lambda length=3: registry.make("Corridor-v0", length=length)[0])
        env, params = registry.make("Mine-v0", length=7)
        assert isinstance(env, PureEnvironment)
        assert params.length == 7
        with pytest.raises(ValueError, match="is taken; choose another or pass overwrite=True"):
            registry.register("Mine-v0", corridor.corridor)
        registry.register("Mine-v0", corridor.corridor, overwrite=True)
        assert registry.make("Mine-v0")[1].length == 10
        with pytest.raises(ValueError, match="vmap over params"):
            registry.make("Mine-v0", max_steps_in_episode=np.arange(1, 3))
    finally:
        registry._factories.pop("Mine-v0", None)


def test_signature_lists_what_make_takes():
    assert registry.signature("FrozenLake-v1") == {
        "map_name": (str, "4x4"),
        "desc": (tuple[str, ...], ("SFFF", "FHFH", "FFFH", "HFFG")),
        "is_slippery": (bool, True),
        "success_rate": (float, 1 / 3),
        "reward_schedule": (tuple[float, ...], (1.0, 0.0, 0.0)),
        "max_steps_in_episode": (int, 100),
    }


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: registry.make("CartPole-v9"),
            "unknown environment 'CartPole-v9'; did you mean 'CartPole-v1'?",
        ),
        (lambda: registry.make("zzz"), "known: Acrobot-v1, Asterix-MinAtar"),
        (lambda: registry.make(3), "unknown environment 3"),
        (lambda: registry.make("Corridor-v0", lenght=3), "did you mean 'length'"),
        (lambda: registry.make("Corridor-v0", length=1), "length is 1; it must be an integer of at least 2"),
        (lambda: registry.make("Corridor-v0", length=True), "must be of type int"),
        (lambda: registry.signature("nothing"), "unknown environment"),
        (lambda: registry.register("", corridor.corridor), "non-empty"),
        (lambda: registry.register("gymnax:Mine", corridor.corridor), "not starting with 'gymnax:'"),
        (lambda: registry.register("Mine-v0", None), "must be a function"),
    ],
)
def test_bad_use_is_refused_in_one_line(act, message):
    with pytest.raises(ValueError) as error:
        act()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_import_makes_no_array_and_leaves_gymnax_out():
    code = (
        "import sys, jax, jaxrl.envs.registry as r, jaxrl.spaces\n"
        "[(r.make(i), r.make(i)[0].observation_space()) for i in r.list_ids()]\n"
        "assert not jax.live_arrays(), jax.live_arrays()\n"
        "assert not {'gymnax', 'gymnasium', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
