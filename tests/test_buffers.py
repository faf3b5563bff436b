"""Buffers against a plain-Python memory: a list of rows of which the last C count."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import compiled, copies_of
from scipy import stats

from jaxrl import buffers, prng
from jaxrl.buffers import recent, rings
from jaxrl.types import Buffer, Transition

N = 3
KEYS = {"threefry": jax.random.key, "ours": prng.key}
# with places for more final observations than the steps below have
uniform = functools.partial(buffers.uniform, ends=0.5)
prioritized = functools.partial(buffers.prioritized, ends=0.5)
REPLAYS = {"uniform": uniform, "prioritized": prioritized}
SHAPES = [(1, 1, 1), (5, 3, 1), (7, 3, 2), (8, 2, 3), (4, 4, 1)]  # (C, T, stride)


def make_step(t, seed=0, num_envs=N) -> Transition:
    """Step number t of every environment; its content tells t, the environment and the seed."""
    number = jnp.asarray(t, jnp.int32) * num_envs + jnp.arange(num_envs, dtype=jnp.int32) + 10_000 * seed
    terminated, truncated = number % 7 == 0, number % 11 == 0

    def observe(number):
        picture = jnp.stack([number % 251, number % 13], axis=-1).astype(jnp.uint8)
        return {"number": number, "picture": picture, "bits": (number[:, None] >> jnp.arange(13)[None]) & 1 == 1}

    return Transition(
        obs=observe(number),
        action=number % 5,
        reward=number * 0.5,
        terminated=terminated,
        truncated=truncated,
        next_obs=observe(jnp.where(terminated | truncated, number + 5_000, number + num_envs)),
        carry=(number * 2.0,),
    )


@functools.cache
def every_step() -> Transition:
    """Steps 0 to 63 [64, N, ...] as numpy arrays."""
    with jax.ensure_compile_time_eval():  # the first caller may be tracing
        return jax.device_get(jax.vmap(make_step)(jnp.arange(64)))


def step_at(t: int) -> Transition:
    """`make_step` without any work on the device."""
    return jax.tree.map(lambda x: x[t], every_step())


def jitted(buffer: Buffer) -> Buffer:
    """The same buffer, each function compiled as a whole."""
    return buffer._replace(
        init=jax.jit(buffer.init),
        add=jax.jit(buffer.add),
        sample=jax.jit(buffer.sample, static_argnames="batches"),
        update=jax.jit(buffer.update),
        fresh=jax.jit(buffer.fresh, static_argnums=2),
    )


def history(buffer: Buffer, steps: int, key):
    """The samples [steps, ...] of a run that adds, then samples (also while the buffer is too short)."""

    def tick(state, clock):
        state = buffer.add(state, make_step(clock), clock)
        return state, buffer.sample(state, jax.random.fold_in(key, clock), clock + 1)

    return jax.lax.scan(tick, buffer.init(step_at(0)), jnp.arange(steps, dtype=jnp.int32))[1]


def filled(buffer: Buffer, steps: int):
    """The state after `steps` adds."""

    def add(state, clock):
        return buffer.add(state, make_step(clock), clock), None

    def run():
        return jax.lax.scan(add, buffer.init(step_at(0)), jnp.arange(steps, dtype=jnp.int32))[0]

    return jax.jit(run)()


def allowed_starts(clock: int, rows: int, window: int, stride: int) -> set[int]:
    """The reference: which steps start a window that lies wholly in the last `rows` of `clock` steps."""
    held = range(max(0, clock - rows), clock)
    return {s for s in held if s % stride == 0 and s + window - 1 in held}


def check_windows(window: Transition, length: int, starts: np.ndarray, envs: np.ndarray) -> None:
    """Every leaf [B, T, ...] holds the steps of its environment from its start on, carry the first only."""
    every = every_step()
    rows = starts[:, None] + np.arange(length)
    expected = jax.tree.map(lambda x: x[rows, envs[:, None]], every)._replace(
        carry=jax.tree.map(lambda x: x[starts, envs], every.carry)
    )
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(window), expected)
    assert jax.tree.map(lambda x: x.dtype, window) == jax.tree.map(lambda x: x.dtype, expected)


# What a sample holds


@pytest.mark.parametrize(("rows", "window", "stride"), SHAPES)
@pytest.mark.parametrize("kind", REPLAYS)
def test_replay_equals_a_list_of_rows_at_every_clock(kind, rows, window, stride):
    make_key = jax.random.key if stride == 2 else prng.key
    buffer = REPLAYS[kind](rows * N, 256, N, window=window, stride=stride)
    steps = 3 * rows + 2
    samples = jax.device_get(jax.jit(lambda: history(buffer, steps, make_key(0)))())
    for clock in range(buffer.min_steps, steps + 1):
        sample = jax.tree.map(lambda x, i=clock - 1: x[i], samples)
        first = sample.window.obs["number"][:, 0]
        starts, envs = first // N, first % N
        check_windows(sample.window, window, starts, envs)
        pairs = set(zip(starts.tolist(), envs.tolist(), strict=True))
        allowed = allowed_starts(clock, rows, window, stride)
        assert pairs == {(s, e) for s in allowed for e in range(N)}  # nothing else is drawn, and all of it is
        named = set(zip(first.tolist(), sample.index.tolist(), strict=True))
        assert len(named) == len(set(sample.index.tolist())) == len(pairs)  # one name for each start
        np.testing.assert_array_equal(sample.weight, np.ones(256, np.float32))


@pytest.mark.parametrize("window", [1, 2, 5])
def test_recent_is_the_last_rows_of_every_environment_in_order(window):
    buffer = recent(window, N)
    samples = jax.device_get(jax.jit(lambda: history(buffer, 3 * window + 2, prng.key(0)))())
    for clock in range(buffer.min_steps, 3 * window + 3):
        sample = jax.tree.map(lambda x, i=clock - 1: x[i], samples)
        check_windows(sample.window, window, np.full(N, clock - window), np.arange(N))
        np.testing.assert_array_equal(sample.weight, np.ones(N, np.float32))


def test_recent_ignores_the_key_and_repeats_itself_for_batches():
    buffer = jitted(recent(2, N))
    state = filled(buffer, 5)
    one = buffer.sample(state, jax.random.key(0), jnp.int32(5))
    many = buffer.sample(state, jax.random.key(1), jnp.int32(5), batches=3)
    for i in range(3):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], many), one)


@pytest.mark.parametrize("kind", REPLAYS)
def test_several_batches_are_one_more_axis(kind):
    options = {"stale_priorities": True} if kind == "prioritized" else {}
    buffer = jitted(REPLAYS[kind](24, 16, N, window=2, **options))
    state = filled(buffer, 11)
    sample = jax.device_get(buffer.sample(state, jax.random.key(0), jnp.int32(11), batches=4))
    assert sample.index.shape == sample.weight.shape == (4, 16)
    assert sample.window.obs["picture"].shape == (4, 16, 2, 2) and sample.window.carry[0].shape == (4, 16)
    flat = jax.tree.map(lambda x: x.reshape(64, *x.shape[2:]), sample.window)
    first = flat.obs["number"][:, 0]
    check_windows(flat, 2, first // N, first % N)
    assert len({tuple(row) for row in sample.index.tolist()}) == 4  # not one batch four times


def test_capacity_is_rounded_up_to_whole_rows():
    buffer = uniform(7, 4, N)
    assert buffer.init(step_at(0)).pool["number"].shape[0] == (3 + 1) * N + 5  # rows, the row ahead, final ones


@pytest.mark.parametrize(
    ("buffer", "make_key"),
    [
        (recent(3, N), prng.key),
        (uniform(15, 8, N, window=3), prng.key),
        (prioritized(15, 8, N, window=3), prng.key),
    ],
    ids=["recent", "uniform", "prioritized"],
)
def test_vmapped_seed_equals_single_seed(buffer, make_key):
    def run(seed):
        def tick(state, clock):
            key = jax.random.fold_in(jax.random.fold_in(make_key(0), seed), clock)
            state = buffer.add(state, make_step(clock, seed), clock)
            sample = buffer.sample(state, key, clock + 1)
            priority = sample.window.reward[:, 0] % 7
            state = buffer.update(state, jnp.where(clock >= 2, sample.index, -1), priority)
            return state, sample

        return jax.lax.scan(tick, buffer.init(step_at(0)), jnp.arange(12, dtype=jnp.int32))

    both = jax.jit(jax.vmap(run))(jnp.arange(2))
    single_run = jax.jit(run)
    for seed in range(2):
        single = single_run(jnp.int32(seed))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=seed: x[i], both), single)


@pytest.mark.parametrize("buffer", [uniform(15, 8, N), prioritized(15, 8, N)])
def test_a_key_is_used_once(buffer):
    state = filled(buffer, 6)
    with jax.debug_key_reuse(True):
        jax.jit(buffer.sample)(state, jax.random.key(0), jnp.int32(6))


# How often a window is drawn


@pytest.mark.parametrize("make_key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("clock", [5, 40])
def test_uniform_frequencies(clock, make_key):
    buffer = jitted(uniform(10 * N, 10_000, N, window=2))
    sample = buffer.sample(filled(buffer, clock), make_key(1), jnp.int32(clock))
    counts = np.unique(sample.index, return_counts=True)[1]
    assert len(counts) == (min(clock, 10) - 1) * N
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize(
    ("batch_size", "alpha", "make_key"),
    [(1, 0.6, prng.key), (8, 1.0, prng.key), (10_000, 0.6, prng.key), (8, 0.6, jax.random.key)],
)
def test_prioritized_frequencies_and_weights(batch_size, alpha, make_key):
    options = {"alpha": alpha, "beta": 0.7, "stale_priorities": True}
    buffer = jitted(prioritized(10 * N, batch_size, N, window=2, **options))
    state, clock = filled(buffer, 23), jnp.int32(23)
    windows = buffer.fresh(state, clock, 9)  # all of them
    priority = 0.1 + np.arange(27, dtype=np.float32) % 5
    state = buffer.update(state, windows.index, jnp.asarray(priority))
    sample = jax.device_get(buffer.sample(state, make_key(2), clock, batches=20_000 // batch_size))
    order = {name: i for i, name in enumerate(windows.index.tolist())}
    drawn = np.array([order[name] for name in np.ravel(sample.index).tolist()])
    mass = (priority.astype(np.float64) + 1e-6) ** alpha
    share = mass / mass.sum()
    counts = np.bincount(drawn, minlength=27)
    assert stats.chisquare(counts, share * counts.sum()).pvalue > 1e-6
    weight = (27 * share[drawn].reshape(sample.weight.shape)) ** -0.7
    np.testing.assert_allclose(sample.weight, weight / weight.max(axis=-1, keepdims=True), rtol=1e-5)


# Priorities


def masses(state, rows=4):
    """[C, N]: the mass of the window that starts in each row of each environment."""
    return state.tree[0][: rows * N].reshape(rows, N)


@pytest.mark.parametrize(("rows", "window", "stride"), SHAPES)
def test_priorities_equal_a_dictionary_at_every_step(rows, window, stride):
    """Adds, draws, updates with duplicates and with names from long ago; alpha = 1."""
    buffer = jitted(prioritized(rows * N, 4, N, window=window, stride=stride, alpha=1.0))
    rng = np.random.default_rng(0)
    state, mass, largest, old = buffer.init(step_at(0)), {}, 1.0, []
    for clock in range(3 * rows + window):
        state = buffer.add(state, step_at(clock), jnp.int32(clock))
        allowed = allowed_starts(clock + 1, rows, window, stride)
        mass = {(s, e): mass.get((s, e), largest) for s in allowed for e in range(N)}
        if clock + 1 >= buffer.min_steps:
            draw = jax.device_get(buffer.sample(state, prng.key(clock), jnp.int32(clock + 1)))
            first = draw.window.obs["number"][:, 0]
            old += zip((first // N).tolist(), (first % N).tolist(), draw.index.tolist(), strict=True)
            chosen = [old[i] for i in rng.integers(0, len(old), 12)]
            priority = rng.uniform(0, 3 + clock, 12).astype(np.float32)
            names = np.array([name for *_, name in chosen], np.int32)
            state = buffer.update(state, jnp.asarray(names), jnp.asarray(priority))
            new: dict[tuple[int, int], float] = {}
            for (s, e, _), p in zip(chosen, priority.tolist(), strict=True):
                if s in allowed:
                    new[s, e] = max(new.get((s, e), 0.0), p + 1e-6)
            mass |= new
            largest = max([largest, *new.values()])
        expected = np.zeros((rows, N))
        for (s, e), m in mass.items():
            expected[s % rows, e] = m
        np.testing.assert_allclose(masses(state, rows), expected, rtol=1e-6)
        np.testing.assert_allclose(state.largest, largest, rtol=1e-6)


@pytest.mark.parametrize("window", [1, 3])
def test_a_late_priority_does_not_reach_the_window_that_took_the_row(window):
    rows = 5
    buffer = jitted(prioritized(rows * N, 8, N, window=window, alpha=1.0))
    state = filled(buffer, 9)
    names = buffer.fresh(state, jnp.int32(9), rows - window + 1).index  # all starts, 4 to 9 - window
    for clock in range(9, 9 + 3 * rows):
        state = buffer.add(state, step_at(clock), jnp.int32(clock))
        late = buffer.update(state, names, jnp.full(names.shape, 50.0))
        alive = {s for s in allowed_starts(9, rows, window, 1) if s >= clock + 1 - rows}
        changed = {int(row) for row in np.argwhere(masses(late, rows) > 10)[:, 0]}
        assert changed == {s % rows for s in alive}
        np.testing.assert_array_equal(masses(late, rows) == 0, masses(state, rows) == 0)
        assert late.largest == (jnp.float32(50 + 1e-6) if alive else 1)


def test_names_still_tell_rounds_apart_after_two_thousand_million_steps():
    buffer = jitted(prioritized(5 * N, 64, N, window=2))
    clock = 2**31 - 40
    state = buffer.init(step_at(0))
    for t in range(clock, clock + 12):
        state = buffer.add(state, step_at(t % 50), jnp.int32(t))
    names = np.asarray(buffer.sample(state, jax.random.key(0), jnp.int32(clock + 12)).index)
    assert names.min() >= 0 and len(set(names.tolist())) == 4 * N
    raised = buffer.update(state, jnp.asarray(names), jnp.full(64, 50.0))
    assert np.count_nonzero(masses(raised, 5) > 5) == 4 * N
    for t in range(clock + 12, clock + 17):
        state = buffer.add(state, step_at(t % 50), jnp.int32(t))
    late = buffer.update(state, jnp.asarray(names), jnp.full(64, 50.0))
    np.testing.assert_array_equal(masses(late, 5), masses(state, 5))


def test_invalid_priorities_count_as_the_largest_and_are_counted():
    buffer = jitted(prioritized(4 * N, 8, N, alpha=1.0))
    state = filled(buffer, 4)
    index = buffer.fresh(state, jnp.int32(4), 4).index
    state = buffer.update(state, index[:2], jnp.array([7.0, 0.0]))
    state = buffer.update(state, index[2:6], jnp.array([jnp.nan, jnp.inf, -jnp.inf, -1.0]))
    flat = masses(state).reshape(-1)
    np.testing.assert_allclose(flat, [7, 1e-6, 7, 7, 7, 7, 1, 1, 1, 1, 1, 1], rtol=1e-5)
    assert state.invalid == 4 and state.largest == pytest.approx(7)
    state = buffer.update(state, jnp.full(3, -1), jnp.array([jnp.nan, 9.0, -1.0]))  # fresh's empty lanes
    np.testing.assert_array_equal(masses(state).reshape(-1), flat)
    assert state.invalid == 4 and state.largest == pytest.approx(7)


def test_extreme_priorities_keep_every_window_in_the_draw_and_the_sum_finite():
    buffer = jitted(prioritized(4 * N, 8, N, alpha=8.0))
    state = filled(buffer, 4)
    index = buffer.fresh(state, jnp.int32(4), 4).index
    state = buffer.update(state, index, jnp.array([3e38] * 6 + [0.0] * 6))
    assert (masses(state) > 0).all() and jnp.isfinite(jnp.sum(masses(state)))
    assert np.isfinite(buffer.sample(state, jax.random.key(0), jnp.int32(4)).weight).all()


def test_alpha_zero_is_uniform_and_beta_zero_has_no_weights():
    buffer = jitted(prioritized(4 * N, 8, N, alpha=0.0, beta=0.0))
    state = filled(buffer, 4)
    state = buffer.update(state, buffer.fresh(state, jnp.int32(4), 4).index, jnp.arange(12.0))
    np.testing.assert_array_equal(masses(state), np.ones((4, N)))
    np.testing.assert_array_equal(buffer.sample(state, jax.random.key(0), jnp.int32(4)).weight, np.ones(8))


def test_alpha_and_beta_may_be_traced():
    def run(alpha, beta):
        buffer = prioritized(4 * N, 8, N, alpha=alpha, beta=beta)
        state = filled(buffer, 4)
        state = buffer.update(state, buffer.fresh(state, jnp.int32(4), 4).index, jnp.arange(12.0))
        return masses(state), buffer.sample(state, jax.random.key(0), jnp.int32(4)).weight

    both = jax.jit(jax.vmap(run))(jnp.array([0.3, 1.0]), jnp.array([1.0, 0.5]))
    for i, (alpha, beta) in enumerate([(0.3, 1.0), (1.0, 0.5)]):
        for swept, single in zip(both, jax.jit(lambda a=alpha, b=beta: run(a, b))(), strict=True):
            np.testing.assert_allclose(swept[i], single, rtol=1e-6)


# What the last adds completed


@pytest.mark.parametrize(("window", "stride", "steps"), [(1, 1, 3), (3, 1, 2), (3, 2, 3), (2, 3, 3), (2, 4, 2)])
def test_fresh_windows_are_those_that_the_last_adds_completed(window, stride, steps):
    rows = 9
    buffer = jitted(prioritized(rows * N, 4, N, window=window, stride=stride, alpha=1.0))
    state = buffer.init(step_at(0))
    for clock in range(1, 26):
        state = buffer.add(state, step_at(clock - 1), jnp.int32(clock - 1))
        sample = jax.device_get(buffer.fresh(state, jnp.int32(clock), steps))
        assert sample.index.shape == (-(-steps // stride) * N,)
        newly = range(max(0, clock - steps - window + 1), clock - window + 1)
        completed = [s for s in newly if s % stride == 0]
        known = len(completed) * N
        np.testing.assert_array_equal(sample.weight, np.arange(sample.weight.size) < known)
        np.testing.assert_array_equal(sample.index == -1, np.arange(sample.weight.size) >= known)
        if clock >= window:  # else there is no window to repeat
            first = sample.window.obs["number"][:, 0]
            check_windows(sample.window, window, first // N, first % N)
            assert set((first // N).tolist()) <= allowed_starts(clock, rows, window, stride)
            np.testing.assert_array_equal(first[:known], [s * N + e for s in completed for e in range(N)])
        raised = buffer.update(state, jnp.asarray(sample.index), jnp.full(sample.index.shape, 50.0))
        changed = set(np.argwhere(masses(raised, rows) > 10)[:, 0].tolist())
        assert changed == {s % rows for s in completed}


def test_fresh_of_recent_is_its_sample():
    buffer = jitted(recent(3, N))
    state = filled(buffer, 7)
    sample = buffer.sample(state, jax.random.key(0), jnp.int32(7))
    jax.tree.map(np.testing.assert_array_equal, buffer.fresh(state, jnp.int32(7), 1), sample)


# How it is compiled

ROWS, ENVS, SEEDS = 211, 17, 5  # numbers that no other array's shape has


def big_step(number_of_seeds: int = 0) -> Transition:
    lead = (number_of_seeds, ENVS) if number_of_seeds else (ENVS,)
    obs, flag = jnp.ones((*lead, 4)), jnp.zeros(lead, bool)
    return Transition(obs, jnp.zeros(lead, jnp.int32), jnp.ones(lead), flag, flag, obs)


BIG = {
    "recent": recent(ROWS, ENVS),
    "uniform": uniform(ROWS * ENVS, 8, ENVS, window=3),
    "both": uniform(ROWS * ENVS, 8, ENVS, window=3, ends=1.0),
    "prioritized": prioritized(ROWS * ENVS, 8, ENVS, window=3),
}


def scanned(buffer: Buffer, seeds: int, parts: str, spoil: bool = False) -> tuple[str, list[tuple[int, ...]]]:
    """A scan over `parts` of add, sample and update: its compiled text and the shapes of the buffer's large arrays."""
    over = (lambda function, axes: jax.vmap(function, axes)) if seeds else (lambda function, axes: function)
    step = big_step(seeds)
    state = jax.eval_shape(over(buffer.init, 0), step)

    def tick(carry, key):
        state, clock = carry
        new, total = state, jnp.zeros(())
        if "add" in parts:
            ended = jax.random.bernoulli(key, 0.1, step.reward.shape)
            new = over(buffer.add, (0, 0, None))(state, step._replace(terminated=ended), clock)
        if "sample" in parts:
            sample = over(buffer.sample, (0, None, None))(new, key, clock + 1)
            total += jnp.sum(sample.window.obs) + jnp.sum(sample.window.next_obs) + jnp.sum(sample.window.reward)
            if "update" in parts:
                new = over(buffer.update, 0)(new, sample.index, sample.window.reward[..., 0] + total)
        if spoil:
            leaf = max(jax.tree.leaves(state), key=jnp.size)
            total += leaf.reshape(-1)[total.astype(jnp.int32)]
        return (new, clock + 1), total

    run = jax.jit(lambda state, clock, keys: jax.lax.scan(tick, (state, clock), keys), donate_argnums=0)
    text = compiled(run, state, jnp.int32(9), jax.random.split(prng.key(0), 20)).as_text()
    assert text
    return text, [leaf.shape for leaf in jax.tree.leaves(state) if leaf.size > ROWS]


@pytest.mark.parametrize("seeds", [0, SEEDS], ids=["single", "vmapped"])
@pytest.mark.parametrize("parts", ["add", "sample", "add sample", "add sample update"])
@pytest.mark.parametrize("kind", BIG)
def test_nothing_large_is_copied(kind, parts, seeds):
    text, large = scanned(BIG[kind], seeds, parts)
    assert len(large) >= 3
    for shape in large:
        assert not copies_of(text, shape), shape
    if "add" in parts:  # rows are slices; of what is large only final observations and drawn masses are scattered
        assert len(re.findall(r" dynamic-update-slice\(", text)) >= 4
        shapes = (",".join(map(str, shape)) for shape in set(large))
        scattered = sum(bool(re.search(rf"\[{dims}\]\S* scatter\(", text)) for dims in shapes)
        assert scattered <= {"recent": 0, "both": 0, "uniform": 1, "prioritized": 5 if "update" in parts else 1}[kind]


@pytest.mark.parametrize("seeds", [0, SEEDS], ids=["single", "vmapped"])
def test_the_copy_detector_sees_a_copy(seeds):
    text, large = scanned(BIG["uniform"], seeds, "add sample", spoil=True)
    assert any(copies_of(text, shape) for shape in large)


# Bad input


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: uniform(8, 4, 2, window=5), ["capacity=8", "window=5", "5 rows", "raise capacity to 10"]),
        (lambda: uniform(8, 4, 2, window=3, stride=3), ["stride=3", "raise capacity to 10"]),
        (lambda: uniform(2**31, 4, 2), ["capacity", "2**30"]),
        (lambda: uniform(0, 4, 2), ["capacity is 0", "at least 1"]),
        (lambda: uniform(8, 0, 2), ["batch_size is 0", "at least 1"]),
        (lambda: uniform(8, 4.0, 2), ["batch_size is 4.0", "integer"]),
        (lambda: uniform(8, 4, 0), ["num_envs is 0", "at least 1"]),
        (lambda: uniform(8, 4, 2, window=0), ["window is 0", "at least 1"]),
        (lambda: uniform(8, 4, 2, stride=0), ["stride is 0", "at least 1"]),
        (lambda: recent(0, 2), ["window is 0", "at least 1"]),
        (lambda: recent(2, -1), ["num_envs is -1", "at least 1"]),
        (lambda: prioritized(8, 4, 2, window=5), ["prioritized", "raise capacity to 10"]),
        (lambda: prioritized(8, 0, 2), ["batch_size is 0", "at least 1"]),
        (lambda: prioritized(8, 4, 2, alpha=-0.1), ["alpha is -0.1", "[0, inf)"]),
        (lambda: prioritized(8, 4, 2, alpha=float("nan")), ["alpha is nan", "[0, inf)"]),
        (lambda: prioritized(8, 4, 2, alpha=float("inf")), ["alpha is inf", "finite"]),
        (lambda: prioritized(8, 4, 2, beta=1.5), ["beta is 1.5", "[0, 1]"]),
        (lambda: prioritized(8, 4, 2, beta=-0.5), ["beta is -0.5", "[0, 1]"]),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(build, words):
    with pytest.raises(ValueError) as error:
        build()
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize("buffer", [recent(2, N), uniform(8, 4, N), prioritized(8, 4, N)])
def test_a_step_unlike_the_example_is_refused(buffer):
    step = jax.tree.map(jnp.asarray, step_at(0))
    state = buffer.init(step)
    wrong = {
        "reward is int32[3]": step._replace(reward=step.action),
        "obs['picture'] is float32[3, 2]": step._replace(obs=step.obs | {"picture": jnp.zeros((N, 2))}),
        "action is int32[2]": step._replace(action=jnp.zeros(2, jnp.int32)),
        "init was given PyTreeDef": step._replace(carry=()),
    }
    for words, bad in wrong.items():
        with pytest.raises(ValueError) as error:
            jax.jit(buffer.add)(state, bad, jnp.int32(0))
        assert words in str(error.value) and "\n" not in str(error.value), str(error.value)
    with pytest.raises(ValueError, match=r"first axis must be num_envs=3"):
        buffer.init(make_step(0, num_envs=4))


def test_sampling_too_early_or_too_much_is_refused():
    for buffer in (recent(3, N), uniform(12, 4, N, window=3), prioritized(12, 4, N, window=3)):
        state = buffer.init(step_at(0))
        with pytest.raises(ValueError, match="clock=2 must be at least min_steps=3"):
            buffer.sample(state, jax.random.key(0), jnp.int32(2))
        with pytest.raises(ValueError, match="batches is 0"):
            buffer.sample(state, jax.random.key(0), jnp.int32(3), batches=0)
        with pytest.raises(ValueError, match="steps=3 of window=3 needs 5 rows|only the newest window"):
            buffer.fresh(state, jnp.int32(3), 3)
    with pytest.raises(ValueError, match="stale_priorities=True"):
        buffer.sample(state, jax.random.key(0), jnp.int32(3), batches=2)


def test_the_smallest_ring_always_holds_a_window():
    """C = window + stride - 1 rows hold a start at every clock; one row fewer would at times hold none."""
    for window, stride in [(1, 1), (3, 1), (3, 2), (2, 5)]:
        rows = window + stride - 1
        ring = rings.make_ring("test", rows, 1, window, stride)
        clocks = np.arange(window, 4 * rows + 9, dtype=np.int32)
        counts = jax.jit(jax.vmap(lambda clock, ring=ring: rings.starts(ring, clock)[1]))(clocks)
        expected = [len(allowed_starts(clock, rows, window, stride)) for clock in clocks.tolist()]
        assert counts.tolist() == expected and min(expected) > 0
        if stride > 1:
            assert any(not allowed_starts(clock, rows - 1, window, stride) for clock in clocks.tolist())
