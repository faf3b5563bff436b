"""The sum tree against dictionaries, float64 sums and the frequencies that the masses ask for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import OPTIMIZED, compiled, copies_of
from scipy import stats

from jaxrl import prng
from jaxrl.buffers import sumtree
from jaxrl.buffers.sumtree import FAN

draw = jax.jit(sumtree.draw)
EDGE = np.float32(1 - 2.0**-24)  # the largest float below 1


@jax.jit
def tree_of(mass):
    return sumtree.set_block(sumtree.zeros(mass.size), jnp.int32(0), mass)


def masses_of(rng, leaves, decades):
    """Masses over many orders of magnitude, a third of them zero."""
    mass = 10 ** rng.uniform(-decades, 0, leaves) * (rng.uniform(size=leaves) < 0.67)
    mass[leaves // 2] = 1.0
    return mass.astype(np.float32)


def check_sums(tree, leaves):
    """Every entry is the float32 sum of its children to the bit, and nothing lies beyond the leaves."""
    tree = jax.device_get(tree)
    for below, level in zip(tree, [*tree[1:], np.asarray(sumtree.total(tree))[None]], strict=True):
        children = below.reshape(-1, FAN)
        sums = children[:, 0]
        for j in range(1, FAN):
            sums = sums + children[:, j]
        np.testing.assert_array_equal(level[: sums.size], sums)
        assert not level[sums.size :].any()
    assert not tree[0][leaves:].any()
    exact = tree[0].astype(np.float64).sum()
    np.testing.assert_allclose(sumtree.total(tree), exact, rtol=1e-6)


# What the tree holds


@pytest.mark.parametrize("leaves", [1, 3, 6, 8, 9, 64, 65, 1000])
def test_sizes(leaves):
    tree = sumtree.zeros(leaves)
    assert tree[0].size >= leaves and tree[-1].size == FAN and sumtree.total(tree) == 0
    assert sum(level.size for level in tree) <= 1.15 * leaves + 4 * FAN
    check_sums(tree_of(jnp.ones(leaves)), leaves)
    assert sumtree.total(tree_of(jnp.ones(leaves))) == leaves


def test_a_million_leaves_cost_little_memory():
    for leaves in (100_000, 98 * 1024, 2**20):
        tree = jax.eval_shape(lambda n=leaves: sumtree.zeros(n))
        assert sum(level.size for level in tree) < 1.16 * leaves


@pytest.mark.parametrize(("rows", "lanes"), [(2, 3), (50, 1), (7, 16), (5, 70)])
def test_masses_equal_a_dictionary(rows, lanes):
    """Blocks, scattered leaves with duplicates in any order, dead ones."""
    rng = np.random.default_rng(0)
    tree, expected = sumtree.zeros(rows * lanes), dict.fromkeys(range(rows * lanes), 0.0)
    set_block, set_leaves = jax.jit(sumtree.set_block), jax.jit(sumtree.set_leaves)
    for _ in range(40):
        first = int(rng.integers(rows)) * lanes
        block = masses_of(rng, lanes, 6)
        tree = set_block(tree, jnp.int32(first), block)
        expected |= {first + i: m for i, m in enumerate(block.tolist())}
        leaf = rng.integers(0, min(20, rows * lanes), 12).astype(np.int32)
        mass, live = masses_of(rng, 12, 6), rng.uniform(size=12) < 0.7
        tree = set_leaves(tree, leaf, mass, live)
        new: dict[int, float] = {}
        for i, m, alive in zip(leaf.tolist(), mass.tolist(), live.tolist(), strict=True):
            if alive:
                new[i] = max(new.get(i, 0.0), m)
        expected |= new
        np.testing.assert_array_equal(tree[0][: rows * lanes], np.array(list(expected.values()), np.float32))
        check_sums(tree, rows * lanes)


def test_dead_leaves_may_have_any_number():
    tree = tree_of(jnp.ones(100))
    same = sumtree.set_leaves(tree, jnp.array([-1, 2**30, 3]), jnp.full(3, 9.0), jnp.zeros(3, bool))
    jax.tree.map(np.testing.assert_array_equal, same, tree)


def test_sums_do_not_drift():
    """A million changes of every order of magnitude; at the end the tree is the one built from its leaves at once."""
    rows, lanes = 40, 25

    def tick(tree, key):
        keys = jax.random.split(key, 4)
        mass = 10 ** jax.random.uniform(keys[0], (lanes + 64,), minval=-20, maxval=5)
        tree = sumtree.set_block(tree, jax.random.randint(keys[1], (), 0, rows) * lanes, mass[:lanes])
        leaf = jax.random.randint(keys[2], (64,), 0, rows * lanes)
        return sumtree.set_leaves(tree, leaf, mass[lanes:], jax.random.bernoulli(keys[3], 0.9, (64,))), None

    run = jax.jit(lambda keys: jax.lax.scan(tick, sumtree.zeros(rows * lanes), keys)[0])
    tree = run(jax.random.split(prng.key(0), 1_000_000 // (lanes + 64)))
    check_sums(tree, rows * lanes)
    jax.tree.map(np.testing.assert_array_equal, tree, tree_of(tree[0][: rows * lanes]))


# What is drawn


def test_strata_are_equal_shares_of_the_mass():
    unit = np.random.default_rng(0).uniform(size=(50, 24)).astype(np.float32)
    leaf, mass = draw(tree_of(jnp.ones(24)), unit, unit[::-1])
    np.testing.assert_array_equal(leaf, np.tile(np.arange(24), (50, 1)))
    np.testing.assert_array_equal(mass, np.ones((50, 24)))


@pytest.mark.parametrize("decades", [0, 3, 20, 37])
def test_no_mass_of_zero_is_ever_drawn(decades):
    """Also not at the very ends of the strata, and where the sums round."""
    ends = np.array([0, 0.5, EDGE], np.float32)
    unit, dither = (np.repeat(x.ravel()[:, None], 2048, 1) for x in np.meshgrid(ends, ends))
    for seed in range(8):
        mass = masses_of(np.random.default_rng(seed), 3001, decades)
        mass[:5] = mass[-5:] = 0
        leaf, drawn = jax.device_get(draw(tree_of(mass), unit, dither))
        assert leaf.min() >= 0 and leaf.max() < mass.size and (drawn > 0).all()
        np.testing.assert_array_equal(mass[leaf], drawn)
        assert (np.diff(leaf) >= 0).all()  # strata in order


def test_one_positive_leaf_is_always_drawn_and_none_where_all_are_zero():
    unit, dither = np.array([[0, 0.5, EDGE]] * 2, np.float32), np.array([[0] * 3, [EDGE] * 3], np.float32)
    for place in (0, 7, 8, 299, 300):
        for mass in (1e-30, 1.0, 1e30):
            leaf, drawn = draw(tree_of(jnp.zeros(301).at[place].set(mass)), unit, dither)
            np.testing.assert_array_equal(leaf, np.full((2, 3), place))
            np.testing.assert_array_equal(drawn, np.full((2, 3), np.float32(mass)))
    leaf, drawn = draw(tree_of(jnp.zeros(301)), unit, dither)
    assert not leaf.any() and not drawn.any()


@pytest.mark.parametrize(("leaves", "draws"), [(10, 2**18), (1000, 2**20)])
@pytest.mark.parametrize("strata", [1, 7, 256])
def test_frequencies(leaves, draws, strata):
    mass = masses_of(np.random.default_rng(leaves), leaves, 3)
    unit, dither = jax.random.uniform(jax.random.key(strata), (2, draws // strata, strata))
    counts = np.bincount(np.ravel(draw(tree_of(mass), unit, dither)[0]), minlength=leaves)
    assert not counts[mass == 0].any()
    share = mass[mass > 0].astype(np.float64) / mass.sum(dtype=np.float64)
    assert stats.chisquare(counts[mass > 0], share * counts.sum()).pvalue > 1e-6


def test_a_million_leaves_are_drawn_as_their_masses_ask():
    """2^24 draws, the leaves grouped by place and by mass."""
    leaves, strata, rounds = 2**20, 4096, 4096
    mass = np.random.default_rng(0).permutation(np.linspace(0.0, 2.0, leaves)).astype(np.float32)
    mass[:: leaves // 64] = 0

    def tick(counts, key):
        unit, dither = jax.random.uniform(key, (2, strata))
        return counts.at[sumtree.draw(tree, unit, dither)[0]].add(1), None

    tree = tree_of(mass)
    run = jax.jit(lambda keys: jax.lax.scan(tick, jnp.zeros(leaves, jnp.int32), keys)[0], compiler_options=OPTIMIZED)
    counts = np.asarray(run(jax.random.split(prng.key(0), rounds)))
    assert not counts[mass == 0].any()
    expected = mass.astype(np.float64) / mass.sum(dtype=np.float64) * strata * rounds
    for groups in (np.arange(leaves) % 2**14, np.arange(leaves) >> 6, np.arange(leaves) & 63, np.argsort(mass) >> 6):
        seen, wanted = (np.bincount(groups, weights=x) for x in (counts, expected))
        often = wanted > 20
        chi2 = np.sum((seen - wanted)[often] ** 2 / wanted[often])
        assert stats.chi2.sf(chi2, often.sum()) > 1e-6


@pytest.mark.parametrize("strata", [1, 3, 256])
def test_a_leaf_among_a_million_has_its_share_of_the_grid(strata):
    """The ends of leaves, by bisection over all 46 bits of a quantile, are 1e-6 of a leaf from where they belong."""
    leaves = 2**20
    mass = np.random.default_rng(0).uniform(0.5, 1.5, leaves).astype(np.float32)
    ends = np.cumsum(mass, dtype=np.float64) / mass.sum(dtype=np.float64) * strata
    bits = 23 - (strata - 1).bit_length()  # of the unit that count; the dither has 23
    stratum = np.arange(strata)
    place = np.searchsorted(ends, stratum + np.random.default_rng(1).uniform(0.1, 0.9, (200, strata)))
    inside = (ends[place] < stratum + 1) & (ends[place - 1] > stratum) & (place > 0)
    tree = tree_of(mass)

    def edge(place):
        low, high = np.zeros(place.shape, np.int64), np.full(place.shape, 1 << (bits + 23))
        while (high - low).max() > 1:
            middle = (low + high) // 2
            unit, dither = (middle >> 23) / 2.0**bits, (middle & (2**23 - 1)) / 2.0**23
            leaf = np.asarray(draw(tree, unit.astype(np.float32), dither.astype(np.float32))[0])
            low, high = np.where(leaf < place, middle, low), np.where(leaf < place, high, middle)
        return high / 2.0 ** (bits + 23)

    error = ((edge(place + 1) - edge(place)) / (ends[place] - ends[place - 1]) - 1)[inside]
    assert np.sqrt(np.mean(error**2)) < 1.5e-6 and np.abs(error).max() < 1e-5


# How it is compiled

LEAVES, BLOCK, SEEDS = 1232, 77, 5  # numbers that no other array's shape has


def scanned(seeds: int, draws: bool = True, spoil: bool = False) -> tuple[str, list[tuple[int, ...]]]:
    """The compiled text of a scan that sets two blocks, draws and sets what was drawn, and the shapes of the levels."""

    def tick(tree, xs):
        key, first = xs
        new = sumtree.set_block(tree, first, jax.random.uniform(key, (BLOCK,)))
        new = sumtree.set_block(new, first + BLOCK, jax.random.uniform(key, (BLOCK,)))
        unit, dither = jax.random.uniform(key, (2, 32))
        leaf, mass = sumtree.draw(new, unit, dither) if draws else ((unit * LEAVES).astype(jnp.int32), dither)
        old = [level.at[leaf % level.size].get().sum() for level in tree] if spoil else 0.0
        return sumtree.set_leaves(new, leaf, mass / 2, leaf >= 0), (mass, old)

    def run(tree, keys, firsts):
        return jax.lax.scan(jax.vmap(tick, in_axes=(0, (0, None))) if seeds else tick, tree, (keys, firsts))

    tree = jax.eval_shape(lambda: sumtree.zeros(LEAVES))
    if seeds:
        tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), tree)
    keys = jax.eval_shape(lambda: jax.random.split(prng.key(0), (9, seeds) if seeds else 9))
    text = compiled(jax.jit(run, donate_argnums=0), tree, keys, jax.ShapeDtypeStruct((9,), jnp.int32)).as_text()
    assert text
    return text, [level.shape for level in tree]


@pytest.mark.parametrize(("seeds", "draws"), [(0, True), (0, False), (SEEDS, True)])
def test_no_level_is_copied(seeds, draws):
    text, levels = scanned(seeds, draws)
    assert len(levels) == 4
    for shape in levels[:-1]:  # the last is the FAN children of the root, as large as any batch of them
        assert not copies_of(text, shape) and not copies_of(text, (*shape[:-1], shape[-1] // FAN, FAN))
    assert len(re.findall(r" dynamic-update-slice\(", text)) >= len(levels)


@pytest.mark.parametrize("seeds", [0, SEEDS], ids=["single", "vmapped"])
def test_the_copy_detector_sees_a_copy(seeds):
    text, levels = scanned(seeds, spoil=True)
    for shape in levels[:-1]:
        assert copies_of(text, shape), shape
