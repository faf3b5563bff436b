"""What is drawn from replay, how often, and what is learned from it."""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import OPTIMIZED
from scipy import stats
from test_replay import SETTINGS, Memory, Setting, built, example, head, random_ends, replay

import jaxrl
from jaxrl import buffers, memory, prng, returns
from jaxrl.buffers import bits
from jaxrl.envs import wrappers
from jaxrl.types import Buffer, Sample, Transition


def filled(setting: Setting, buffer: Buffer, steps: int, rate: float, seed: int = 0):
    """A reference and a state of random steps."""
    rng, known, add = np.random.default_rng(seed), Memory(setting), replay(setting).add
    state = buffer.init(example(setting))
    for t in range(steps):
        state = add(state, known.play(random_ends(rng, setting.num_envs, rate)), np.int32(t))
    return known, state


# How often


@pytest.mark.parametrize("batches", [1, 4])
def test_uniform_draws_each_window_as_often_and_none_that_is_cut(batches):
    setting = SETTINGS["crowded side store"]
    buffer = built(setting, 20_000 // batches)
    known, state = filled(setting, buffer, 14, 0.25)
    clock = np.int32(known.clock)
    sample = jax.device_get(jax.jit(lambda state: buffer.sample(state, prng.key(0), clock, batches))(state))
    drawable = [known.drawable(*pair) for pair in known.everything(known.clock)]
    names, counts = np.unique(sample.index, return_counts=True)
    assert 0 < sum(drawable) < len(drawable) and names[0] == -1 and len(names) == 1 + sum(drawable)
    share = np.array([len(drawable) - sum(drawable)] + [1] * sum(drawable)) / len(drawable)
    assert stats.chisquare(counts, share * counts.sum()).pvalue > 1e-6
    np.testing.assert_array_equal(sample.weight, sample.index >= 0)


def test_windows_within_episodes_are_drawn_as_often():
    setting = SETTINGS["within episodes"]
    buffer = built(setting, 3)
    known, state = filled(setting, buffer, 13, 0.15)
    clock, keys = np.int32(known.clock), jax.random.split(prng.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key, state: buffer.sample(state, key, clock), (0, None)))
    sample = jax.device_get(draw(keys, state))
    everything = known.everything(known.clock)
    drawable = [pair for pair in everything if known.drawable(*pair)]
    names, counts = np.unique(sample.index, return_counts=True)
    assert 3 < len(drawable) < len(everything) and len(names) == len(drawable) and names[0] >= 0
    assert stats.chisquare(counts).pvalue > 1e-6
    np.testing.assert_array_equal(sample.weight, np.ones((4000, 3), np.float32))


def test_without_replacement_every_set_is_as_likely():
    setting = Setting(3, 2)
    buffer = built(setting, 3, replace=False)
    _, state = filled(setting, buffer, 5, 0.0)
    draw = jax.jit(lambda state, key: buffer.sample(state, key, np.int32(5), 6000).index)
    drawn = np.asarray(draw(state, prng.key(0)))
    sets = collections.Counter(frozenset(row) for row in drawn.tolist())
    assert set(sets) == {frozenset(chosen) for chosen in itertools.combinations(np.unique(drawn).tolist(), 3)}
    assert len(sets) == 20 and stats.chisquare(list(sets.values())).pvalue > 1e-6
    assert all(stats.chisquare(np.unique(place, return_counts=True)[1]).pvalue > 1e-6 for place in drawn.T)


@pytest.mark.parametrize(("setting", "batch_size"), [(Setting(7, 3, window=2, stride=2), 9), (Setting(4, 2), 8)])
def test_without_replacement_no_window_is_twice_in_a_batch(setting, batch_size):
    buffer = built(setting, batch_size, replace=False)
    enough = [len(setting.starts(clock)) * setting.num_envs >= batch_size for clock in range(40)]
    assert enough.index(True) == buffer.min_steps and all(enough[buffer.min_steps :])  # from then on, always
    clocks = np.arange(buffer.min_steps, 40, dtype=np.int32)
    state = buffer.init(example(setting))
    names = np.asarray(jax.jit(jax.vmap(lambda clock: buffer.sample(state, prng.key(0), clock, 3).index))(clocks))
    assert names.min() >= 0 and all(len(set(row.tolist())) == batch_size for row in names.reshape(-1, batch_size))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: buffers.uniform(8, 10, 2, replace=False), ["batch_size=10", "raise capacity to 10"]),
        (lambda: buffers.uniform(8, 6, 2, 2, 2, replace=False), ["batch_size=6", "raise capacity to 14"]),
        (lambda: buffers.uniform(8, 2, 2, replace=False, crossing=False), ["replace=False needs crossing=True"]),
        (lambda: buffers.uniform(8, 2, 2, ends=1.5), ["ends is 1.5", "[0, 1]"]),
        (lambda: buffers.uniform(8, 2, 2, stack=0), ["stack is 0", "at least 1"]),
        (lambda: buffers.latest(0, 2), ["batch_size is 0", "at least 1"]),
        (lambda: buffers.latest(2, 0), ["num_envs is 0", "at least 1"]),
        (lambda: buffers.latest(2, 2, window=0), ["window is 0", "at least 1"]),
        (lambda: buffers.latest(2, 2, stride=0), ["stride is 0", "at least 1"]),
        (lambda: buffers.uniform(8, 2, 2, stack=3).init(example(Setting(4, 2))), ["(13,)", "no stack of 3 frames"]),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(build, words):
    with pytest.raises(ValueError) as error:
        build()
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), str(error.value)


# The newest


def test_latest_is_the_newest_windows_in_order():
    batch_size, lanes, rng = 7, 3, np.random.default_rng(0)
    setting = Setting(100, lanes, window=2, stride=3, ends=1.0)  # nothing is ever lost
    buffer, known = buffers.latest(batch_size, lanes, setting.window, setting.stride), Memory(setting)
    add, sample = jax.jit(buffer.add), jax.jit(buffer.sample, static_argnames="batches")
    state, drawn, newest = buffer.init(example(setting)), None, []
    for clock in range(1, 40):
        state = add(state, known.play(random_ends(rng, lanes, 0.4)), np.int32(clock - 1))
        if clock < buffer.min_steps:
            continue
        drawn = jax.device_get(sample(state, prng.key(clock), np.int32(clock)))
        assert drawn.weight.shape == (batch_size,)
        newest = [(s, e) for s in reversed(setting.starts(clock)) for e in range(lanes)][:batch_size]
        known.check(head(drawn, len(newest)), newest)
        np.testing.assert_array_equal(drawn.weight[len(newest) :], 0)
        np.testing.assert_array_equal(drawn.index[len(newest) :], -1)
    assert buffer.min_steps == 2 and len(newest) == batch_size
    twice = sample(state, prng.key(0), np.int32(39), batches=2)
    for i in range(2):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], twice), drawn)


def test_recent_is_what_came_whatever_ends():
    setting, rng = Setting(3, 4, window=3, ends=1.0), np.random.default_rng(0)
    buffer, known = buffers.recent(3, 4), Memory(setting)
    state, add, fresh = buffer.init(example(setting)), jax.jit(buffer.add), jax.jit(buffer.fresh, static_argnums=2)
    for clock in range(1, 12):
        state = add(state, known.play(random_ends(rng, 4, 0.4)), np.int32(clock - 1))
        drawn = jax.device_get(fresh(state, np.int32(clock), 1))
        if clock < 3:
            assert np.all(drawn.index == -1) and not np.any(drawn.weight)
        else:
            known.check(drawn, [(clock - 3, e) for e in range(4)])
        if clock in (1, 2, 11):
            steps = jax.device_get(jax.jit(lambda state, at=clock: buffer.contents(state, np.int32(at)))(state))
            wanted = known.arrays(known.rows[-3:], carry=False)
            jax.tree.map(np.testing.assert_array_equal, steps, wanted)
    assert not buffer.counts(state)


# Memory


def test_bytes_are_those_of_the_arrays_and_checked_before_there_are_any(monkeypatch):
    setting = SETTINGS["stacks"]
    options = {"ends": 0.1, "stack": setting.stack}
    step = jax.tree.map(jnp.asarray, example(setting))
    for buffer in (
        buffers.uniform(70, 4, 3, **options),
        buffers.prioritized(70, 4, 3, **options),
        buffers.latest(4, 3),
        buffers.recent(2, 3),
    ):
        needed = buffer.nbytes(step)
        assert needed == sum(leaf.nbytes for leaf in jax.tree.leaves(buffer.init(step)))
        assert needed == buffer.nbytes(jax.eval_shape(lambda: step))
        with monkeypatch.context() as context:
            context.setattr(memory, "available", lambda free=needed: free)
            buffer.init(step)
            context.setattr(memory, "available", lambda free=needed - 1: free)
            with pytest.raises(ValueError, match=rf"needs {needed} bytes .* are available.*lower it") as error:
                buffer.init(step)
            assert "\n" not in str(error.value)


def test_a_replay_beyond_all_memory_is_refused_unmade():
    obs, flag = jnp.zeros((1, 100_000)), jnp.zeros(1, bool)
    step = Transition(obs, jnp.zeros(1, jnp.int32), jnp.zeros(1), flag, flag, obs)
    with pytest.raises(ValueError, match="uniform: capacity=536870912 needs 2"):
        buffers.uniform(2**29, 1, 1).init(step)


def test_one_observation_a_step_is_stored():
    """By hand: 400 booleans in 50 bytes, once a step and once an end; 4 of action, 4 of reward, a quarter of ends."""
    obs, flag = jnp.zeros((32, 10, 10, 4), bool), jnp.zeros(32, bool)
    step = Transition(obs, jnp.zeros(32, jnp.int32), jnp.zeros(32), flag, flag, obs)
    by_hand = 32_000 * (50 + 4 + 4) + 1000 * 16 + 3200 * 50
    assert by_hand <= buffers.uniform(32_000, 8, 32, ends=0.1).nbytes(step) <= 1.005 * by_hand
    stacked = step._replace(obs=obs[..., None].repeat(4, -1), next_obs=obs[..., None].repeat(4, -1))
    assert buffers.uniform(32_000, 8, 32, ends=0.1, stack=4).nbytes(stacked) <= 1.005 * by_hand


# Bits


def test_booleans_come_back_as_they_were():
    shapes = [(size,) for size in range(1, 71)] + [(3, 7), (10, 10, 4), (1, 1), (2, 0), (8, 8)]
    rng = np.random.default_rng(0)
    items = [rng.random((3, *shape)) < 0.5 for shape in shapes]

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # many small programs
    def there_and_back(items):
        stored, back = [], []
        for shape, x in zip(shapes, items, strict=True):
            leaf = bits.zeros(3, shape, bool)
            leaf = bits.with_data(leaf, bits.encode(leaf, x))
            assert bits.item(leaf) == (shape, jnp.dtype(bool))
            stored.append(bits.data(leaf))
            back.append(bits.decode(leaf, bits.data(leaf)[None]))
        return stored, back

    stored, back = jax.device_get(there_and_back(items))
    for shape, x, packed, y in zip(shapes, items, stored, back, strict=True):
        np.testing.assert_array_equal(y, x[None])
        assert packed.nbytes == 3 * math.ceil(math.prod(shape) / 8)
    assert not any(bits.is_packed(bits.zeros(3, shape, dtype)) for shape, dtype in [((), bool), ((9,), np.uint8)])


def test_lanes_in_words_equal_numpy():
    rng = np.random.default_rng(0)
    lanes = [1, 2, 3, 31, 32, 33, 34, 63, 64, 65, 66, 95, 96, 97, 100]
    flags = [rng.random(n) < rng.choice([0.1, 0.5, 1.0]) for n in lanes]

    @jax.jit
    def packed(flags):
        words = [bits.pack_lanes(x) for x in flags]
        back = [bits.unpack_lanes(word, n) for word, n in zip(words, lanes, strict=True)]
        before = [bits.before(word) for word in words]
        ranks = [bits.ranks(word, base, n) for word, base, n in zip(words, before, lanes, strict=True)]
        return words, back, ranks, [bits.count(word) for word in words]

    for n, x, word, back, rank, count in zip(lanes, flags, *jax.device_get(packed(flags)), strict=True):
        width = math.ceil(n / 32)
        assert width == bits.words(n) and word.shape == (width,) and word.dtype == np.uint32
        place = [(e % width, e // width) for e in range(n)]
        wanted = [sum(1 << bit for e, (at, bit) in enumerate(place) if at == i and x[e]) for i in range(width)]
        assert word.tolist() == wanted and count == x.sum()
        np.testing.assert_array_equal(back, x)
        at, bit = bits.place(np.arange(n), n)
        assert list(zip(at.tolist(), bit.tolist(), strict=True)) == place
        assert rank.tolist() == [sum(x[other] for other in range(n) if place[other] < place[e]) for e in range(n)]


# Learning


def test_n_step_returns_are_those_of_the_episodes():
    """What ends a window early by a limit alone bootstraps from its true final observation."""
    setting, gamma = SETTINGS["strides"], 0.9
    fold = jax.jit(jax.vmap(functools.partial(returns.n_step, gamma=gamma)))
    bootstrapped = 0
    for seed in range(24):
        buffer = replay(setting)
        known, state = filled(setting, buffer, 12 + 3 * seed, 0.25, seed)
        sample = jax.device_get(buffer.fresh(state, np.int32(known.clock), setting.steps - setting.window + 1))
        step = jax.device_get(fold(sample.window))
        for i, (start, env) in enumerate(known.everything(known.clock)):
            if not known.drawable(start, env):
                assert sample.weight[i] == 0
                continue
            episode = known.window(start, env)
            ends = [t for t, s in enumerate(episode) if s.ended]
            episode = episode[: ends[0] + 1] if ends else episode
            target = sum(gamma**t * (s.frames[0] * 7919 % 1009 / 8) for t, s in enumerate(episode))
            last = episode[-1]
            if not last.terminated:
                target += gamma ** len(episode) * value(last.next_frames[0])
            bootstrapped += last.truncated and not last.terminated
            got = step.reward[i] + step.discount[i] * value(int(step.next_obs["frame"][i]))
            np.testing.assert_allclose(got, target, rtol=1e-6)
            assert step.obs["frame"][i] == episode[0].frames[0] and step.action[i] == episode[0].frames[0] % 6
    assert bootstrapped > 20


def value(frame: int) -> float:
    return frame * 37 % 101 * 10.0


class Network:
    """Two layers, without a library."""

    def init(self, key, obs):
        one, two = jax.random.split(key)
        return {"one": jax.random.normal(one, (obs.size, 8)), "two": jax.random.normal(two, (8, 2))}

    def apply(self, params, obs):
        return jnp.tanh(obs.reshape(-1) @ params["one"]) @ params["two"]


def whole(capacity: int, batch_size: int, num_envs: int, window: int) -> Buffer:
    """The naive replay: every leaf of every step in an array of its own, drawn with uniform's own numbers."""
    steps = capacity // num_envs

    def sample(state, key, clock, batches=1):
        shape = (batch_size,) if batches == 1 else (batches, batch_size)
        first = jnp.maximum(clock - steps, 0)
        drawn = jax.random.randint(key, shape, 0, (clock - window + 1 - first) * num_envs, jnp.int32)
        rows = (first + drawn // num_envs)[..., None] + jnp.expand_dims(jnp.arange(window), range(drawn.ndim))
        steps_of = jax.tree.map(lambda x: x[rows % steps, (drawn % num_envs)[..., None]], state)
        return Sample(steps_of, drawn, jnp.ones(shape))

    return buffers.recent(1, num_envs)._replace(
        init=lambda step: jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), step),
        add=lambda state, step, clock: jax.tree.map(lambda x, new: x.at[clock % steps].set(new), state, step),
        sample=sample,
        update=lambda state, index, priority: state,
        min_steps=window,
        ahead=True,
    )


@pytest.mark.parametrize(("window", "stack", "seeds"), [(1, 1, 0), (3, 2, 2)])
def test_dqn_learns_bit_for_bit_as_from_both_observations(window, stack, seeds):
    env, params = jaxrl.make("CartPole-v1", max_steps_in_episode=12)
    env = wrappers.frame_stack(env, stack) if stack > 1 else env
    config = jaxrl.LoopConfig(num_envs=4, unroll=2, updates=2, warmup=5)
    agent = jaxrl.dqn(Network(), optax.adam(1e-2), epsilon=0.3)
    made = {
        "compact": buffers.uniform(160, 8, 4, window, ends=0.3, stack=stack),
        "whole": whole(160, 8, 4, window),
    }
    learned = {}
    for name, buffer in made.items():
        run = jaxrl.make_run(env, params, agent, buffer, config)
        run = jaxrl.vmap_run(run) if seeds else run
        key = jax.random.split(prng.key(1), seeds) if seeds else prng.key(1)

        @functools.partial(jax.jit, compiler_options=OPTIMIZED)
        def train(key, run=run):
            state, metrics = jaxrl.advance(run, run.warmup(run.init(key)), 300)
            return state, metrics

        state, metrics = train(key)
        learned[name] = jax.device_get((state.agent, metrics["episodes"], metrics["return"]))
        if name == "compact":
            assert not any(np.any(count) for count in buffer.counts(state.buffer).values())
            assert np.all(metrics["episodes"] > 150) and state.clock == 605
    jax.tree.map(np.testing.assert_array_equal, learned["compact"], learned["whole"])
