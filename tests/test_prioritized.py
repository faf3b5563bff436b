"""Prioritized replay beyond what every buffer does: ranks, schedules, windows that may not be drawn, bad priorities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import compiled, copies_of
from jax.experimental import checkify
from scipy import stats

from jaxrl import explore, prng
from jaxrl.buffers import prioritized
from jaxrl.types import Transition

N = 4


def make_step(t, ended=None) -> Transition:
    """Step t of N environments; `ended` [N] bool terminates."""
    number = jnp.float32(t) * N + jnp.arange(N, dtype=jnp.float32)
    ended = jnp.zeros(N, bool) if ended is None else jnp.asarray(ended)
    action, never = jnp.zeros(N, jnp.int32), jnp.zeros(N, bool)
    return Transition(number[:, None], action, number, ended, never, number[:, None] + N)


def filled(buffer, steps, ended=lambda t: None):
    """The state after `steps` adds."""
    add, state = jax.jit(buffer.add), buffer.init(make_step(0))
    for t in range(steps):
        state = add(state, make_step(t, ended(t)), jnp.int32(t))
    return state


def drawn(sample) -> np.ndarray:
    """The number of the first step of each window, [batches * B]."""
    return np.ravel(sample.window.reward[..., 0]).astype(int)


# Ranks


@pytest.mark.parametrize(("batch_size", "alpha"), [(1, 0.7), (8, 1.0), (4096, 0.7)])
def test_rank_frequencies_and_weights(batch_size, alpha):
    """P(i) = rank^-alpha / sum (Schaul et al. 2016, sec. 3.3), of windows of which some are incomplete."""
    options = {"variant": "rank", "alpha": alpha, "beta": 0.5, "stale_priorities": True}
    buffer, clock = prioritized(5 * N, batch_size, N, window=2, **options), jnp.int32(8)
    state = filled(buffer, 8)
    windows = buffer.fresh(state, clock, 4)
    priority = np.random.default_rng(0).permutation(16).astype(np.float32) ** 3
    state = buffer.update(state, windows.index, priority)
    sample = jax.jit(buffer.sample, static_argnames="batches")(state, prng.key(1), clock, batches=2**15 // batch_size)
    place = drawn(sample) - int(windows.window.reward[0, 0])
    rank = 1.0 + np.argsort(np.argsort(-priority))
    share = rank**-alpha / np.sum(rank**-alpha)
    counts = np.bincount(place, minlength=16)
    assert stats.chisquare(counts, share * counts.sum()).pvalue > 1e-6
    weight = ((16 * share[place]) ** -0.5).reshape(sample.weight.shape)
    np.testing.assert_allclose(sample.weight, weight / weight.max(axis=-1, keepdims=True), rtol=1e-5)


def test_ranks_forget_how_large_a_priority_is():
    buffer = prioritized(4 * N, 64, N, variant="rank")
    state, clock = filled(buffer, 4), jnp.int32(4)
    index = buffer.fresh(state, clock, 4).index
    priority = np.arange(16, dtype=np.float32)
    both = [buffer.sample(buffer.update(state, index, p), prng.key(0), clock) for p in (priority, priority**9 + 1)]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_new_windows_enter_with_the_largest_rank():
    buffer = prioritized(4 * N, 8, N, variant="rank")
    state = filled(buffer, 3)
    state = buffer.update(state, buffer.fresh(state, jnp.int32(3), 3).index, jnp.arange(12.0))
    state = buffer.add(state, make_step(3), jnp.int32(3))
    np.testing.assert_allclose(state.tree[0][: 4 * N], [*range(12), *[11] * N], rtol=1e-5, atol=1e-5)


# Beta


def test_beta_may_be_a_schedule_of_environment_steps():
    schedule = explore.linear(0.4, 1.0, 100)
    samples = []
    for beta in (schedule, float(schedule(10 * N))):
        buffer = prioritized(10 * N, 32, N, beta=beta)
        state = filled(buffer, 10)
        state = buffer.update(state, buffer.fresh(state, jnp.int32(10), 10).index, jnp.arange(40.0))
        samples.append(jax.jit(buffer.sample)(state, prng.key(0), jnp.int32(10)))
    assert len(set(samples[0].weight.tolist())) > 2
    np.testing.assert_allclose(samples[0].weight, samples[1].weight, rtol=1e-6)


# Windows that may not be drawn


@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_windows_that_cross_an_end_are_never_drawn(variant):
    steps, rows, window = 23, 10, 3
    ended = np.random.default_rng(0).uniform(size=(steps, N)) < 0.25
    buffer = prioritized(rows * N, 4096, N, window, variant=variant, crossing=False, ends=1.0)
    sample = jax.jit(buffer.sample)(filled(buffer, steps, lambda t: ended[t]), prng.key(0), jnp.int32(steps))
    held = range(steps - rows, steps - window + 1)
    allowed = {s * N + e for s in held for e in range(N) if not ended[s : s + window - 1, e].any()}
    assert 0 < len(allowed) < len(held) * N
    assert set(drawn(sample).tolist()) == allowed and (sample.weight > 0).all()


@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_where_nothing_may_be_drawn_weights_are_zero_and_updates_ignored(variant):
    buffer = prioritized(6 * N, 8, N, 2, variant=variant, crossing=False)
    state = filled(buffer, 9, lambda t: np.ones(N, bool))
    sample = jax.jit(buffer.sample)(state, prng.key(0), jnp.int32(9))
    np.testing.assert_array_equal(sample.weight, np.zeros(8))
    np.testing.assert_array_equal(sample.index, np.full(8, -1))
    same = jax.jit(buffer.update)(state, sample.index, jnp.full(8, 5.0))
    jax.tree.map(np.testing.assert_array_equal, same, state)


# Bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5])
def test_a_bad_priority_is_an_error_outside_of_jit_and_for_checkify(bad):
    buffer = prioritized(4 * N, 3, N)
    state = filled(buffer, 4)
    index = buffer.fresh(state, jnp.int32(4), 4).index[:3]
    priority = jnp.array([1.0, bad, np.nan])
    with pytest.raises(ValueError, match=rf"priority {bad} must be finite and at least 0") as error:
        buffer.update(state, index, priority)
    assert "\n" not in str(error.value)
    for update in (buffer.update, jax.jit(buffer.update)):
        checked = jax.jit(checkify.checkify(update))
        with pytest.raises(checkify.JaxRuntimeError, match=rf"priority {bad} must be"):
            checked(state, index, priority)[0].throw()
        assert checked(state, index, jnp.ones(3))[0].get() is None
        assert checked(state, jnp.full(3, -1), priority)[0].get() is None
    assert buffer.counts(jax.jit(buffer.update)(state, index, priority))["invalid"] == 2


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown variant of prioritized 'ranks'; did you mean 'rank'"):
        prioritized(8, 4, 2, variant="ranks")


# How it is compiled


@pytest.mark.parametrize("seeds", [0, 3], ids=["single", "vmapped"])
@pytest.mark.parametrize("window", [1, 3])
def test_no_mass_is_copied_in_the_loop(window, seeds):
    buffer = prioritized(211 * N, 8, N, window)

    def tick(state, xs):
        key, clock = xs
        state = buffer.add(state, make_step(clock), clock)
        sample = buffer.sample(state, key, clock + 1)
        return buffer.update(state, sample.index, sample.window.reward[:, 0]), sample.weight

    def run(state, keys, clocks):
        return jax.lax.scan(jax.vmap(tick, in_axes=(0, (0, None))) if seeds else tick, state, (keys, clocks))

    state = jax.eval_shape(buffer.init, make_step(0))
    keys = jax.eval_shape(lambda: jax.random.split(prng.key(0), (9, seeds) if seeds else 9))
    if seeds:
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), state)
    text = compiled(jax.jit(run, donate_argnums=0), state, keys, jax.ShapeDtypeStruct((9,), jnp.int32)).as_text()
    assert text
    for level in state.tree[:-1]:  # the last is the few children of the root
        assert not copies_of(text, level.shape), level.shape
