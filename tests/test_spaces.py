"""Spaces: samples are contained, what is outside is not, under jit as without; conversions keep what they convert."""

import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import prng, spaces
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

NESTED = Dict({"b": Tuple([Discrete(3), Box(0, 9, (2,), np.int32)]), "a": Box(-1.0, 1.0, (2, 2))})
SPACES = [
    Discrete(1),
    Discrete(7),
    MultiDiscrete([2, 5, 1]),
    Box(-2.0, 3.0, (4,)),
    Box([0.0, 5.0], [1.0, 6.0]),
    Box(-np.inf, np.inf, (3,)),
    Box([-np.inf, 0.0, -1.0, 2.0], [np.inf, np.inf, 1.0, 2.0]),
    Box(-3.4e38, 3.4e38, ()),
    Box(0, 255, (3, 3), np.uint8),
    Box(-128, 127, (64,), np.int8),
    Box(-(2**31), 2**31 - 1, (5,), np.int32),
    Box(0, 1, (4,), bool),
    Tuple([Discrete(2), Tuple([])]),
    Dict({"x": Discrete(2), "none": Dict({})}),
    NESTED,
]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("make_key", [prng.key, jax.random.key])
def test_samples_are_contained_and_survive_flattening(space, make_key):
    sample = jax.vmap(space.sample)(jax.random.split(make_key(3), 50))
    assert np.all(jax.jit(jax.vmap(lambda x: jnp.asarray(space.contains(x))))(sample))
    element = jax.tree.map(lambda x: x[7], sample)
    assert space.contains(element)
    assert space.contains(jax.tree.map(np.asarray, element))
    vector = spaces.flatten(space, element)
    assert vector.shape == (spaces.flatdim(space),)
    back = spaces.unflatten(space, vector)
    assert jax.tree.structure(back) == jax.tree.structure(element)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(element), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_are_hashable_values(space):
    copies = {space, spaces.from_gymnasium(spaces.to_gymnasium(space))}
    assert copies == {space}
    assert str(space).startswith(type(space).__name__)
    with pytest.raises(AttributeError, match="read-only"):
        space.dtype = None


def test_different_spaces_differ():
    assert len(set(SPACES)) == len(SPACES)
    assert Box(0, 1, (2,)) != Box(0, 1, (2,), np.float16)
    assert Discrete(2) != MultiDiscrete([2])


def test_samples_reach_every_element():
    draws = jax.vmap(Discrete(5).sample)(jax.random.split(jax.random.key(0), 500))
    assert set(np.asarray(draws).tolist()) == set(range(5))
    draws = jax.vmap(Box(-2, 1, (), np.int32).sample)(jax.random.split(jax.random.key(0), 500))
    assert set(np.asarray(draws).tolist()) == {-2, -1, 0, 1}
    draws = jax.vmap(Box(2.0, 6.0, ()).sample)(jax.random.split(jax.random.key(0), 4000))
    assert abs(float(draws.mean()) - 4) < 0.1
    assert float(draws.min()) < 2.1
    assert float(draws.max()) > 5.9


@pytest.mark.parametrize(
    ("space", "outside"),
    [
        (Discrete(3), [3, -1, 1.0, True, [1], "1", None, np.int64(3)]),
        (MultiDiscrete([2, 3]), [[2, 0], [0, -1], [0], [[0, 0]], [0.0, 0.0], 0]),
        (Box(0.0, 1.0, (2,)), [[0.0, 1.1], [-0.1, 0.0], [np.nan, 0.0], [0.0], 0.5, [True, True], "no"]),
        (Box(0, 9, (2,), np.int32), [[0, 10], [0.0, 1.0], [0]]),
        (Box(0, 1, (1,), bool), [[0], [1.0]]),
        (Tuple([Discrete(2)]), [(2,), (), (0, 0), 0, {"a": 0}]),
        (Dict({"a": Discrete(2)}), [{"a": 2}, {}, {"a": 0, "b": 0}, {"b": 0}, 0, (0,)]),
    ],
    ids=str,
)
def test_what_is_outside_is_not_contained(space, outside):
    for x in outside:
        assert not space.contains(x), x


def test_contains_is_traceable():
    assert not jax.jit(Discrete(3).contains)(3)
    assert not jax.jit(Discrete(3).contains)(jnp.float32(1))
    assert jax.jit(NESTED.contains)({"a": jnp.zeros((2, 2)), "b": (2, jnp.array([0, 9]))})
    assert not jax.jit(NESTED.contains)({"a": jnp.zeros((2, 2)), "b": (2, jnp.array([0, 10]))})
    assert not jax.jit(NESTED.contains)({"a": jnp.zeros((2, 3)), "b": (2, jnp.array([0, 9]))})


def test_elements_of_a_dict_may_have_attributes():
    assert Dict({"x": Discrete(2)}).contains(types.SimpleNamespace(x=1))
    assert spaces.flatten(Dict({"x": Discrete(2)}), types.SimpleNamespace(x=1)).tolist() == [0, 1]


def test_flattening_is_gymnasiums():
    space = spaces.to_gymnasium(NESTED)
    element = {"a": np.arange(4.0).reshape(2, 2) / 4, "b": (2, np.array([3, 4]))}
    expected = gymnasium.spaces.flatten(space, {"a": element["a"].astype(np.float32), "b": element["b"]})
    np.testing.assert_array_equal(spaces.flatten(NESTED, element), expected)


def test_conversion_keeps_bounds():
    theirs = gymnasium.spaces.Box(np.array([-1, 0.5], np.float32), np.array([np.inf, 2], np.float32))
    assert spaces.to_gymnasium(spaces.from_gymnasium(theirs)) == theirs
    assert spaces.from_gymnasium(gymnasium.spaces.Discrete(4)) == Discrete(4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discrete(0), "integer in 1"),
        (lambda: Discrete(2.0), "integer in 1"),
        (lambda: Discrete(True), "integer in 1"),
        (lambda: Discrete(2**31), "integer in 1"),
        (lambda: MultiDiscrete([]), "non-empty"),
        (lambda: MultiDiscrete([2, 0]), r"nvec\[1\]"),
        (lambda: MultiDiscrete([[2]]), "flat"),
        (lambda: Box(1.0, 0.0, (2,)), "must not exceed"),
        (lambda: Box(np.nan, 0.0, (2,)), "NaN"),
        (lambda: Box([0.0, 0.0], 1.0, (3,)), "must broadcast"),
        (lambda: Box(0, 256, (2,), np.uint8), "uint8 holds 0 to 255"),
        (lambda: Box(-np.inf, 0, (2,), np.int32), "int32 holds"),
        (lambda: Box(0, 2, (2,), bool), "bool holds 0 to 1"),
        (lambda: Box(0, 1, (2,), "word"), "must be a float"),
        (lambda: Tuple([3]), "member 0"),
        (lambda: Dict({1: Discrete(2)}), "must be a string"),
        (lambda: Dict({"a": None}), "member 'a'"),
        (lambda: spaces.unflatten(Discrete(3), jnp.zeros(2)), r"has \(3,\)"),
        (lambda: spaces.flatten(Tuple([Discrete(2)]), (0, 1)), "other members"),
        (lambda: spaces.flatdim("no"), "no jaxrl space"),
        (lambda: spaces.to_gymnasium("no"), "no jaxrl space"),
        (lambda: spaces.from_gymnasium(gymnasium.spaces.Discrete(3, start=1)), "starts at 1"),
        (lambda: spaces.from_gymnasium(gymnasium.spaces.Text(3)), "no counterpart"),
    ],
)
def test_bad_spaces_are_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("n", [1, 3, 1000, 2**16, 2**16 + 1, 2**31 - 1])
def test_discrete_samples_are_uniform(n, x64):
    with jax.enable_x64(x64):
        drawn = jax.vmap(Discrete(n).sample)(jax.random.split(prng.key(1), 30_000))
        assert drawn.dtype == jnp.int32
    drawn = np.asarray(drawn, np.int64)
    assert drawn.min() >= 0 and drawn.max() < n
    cells = min(n, 10)
    edges = -(-np.arange(cells + 1) * n // cells)  # the first number of each cell
    counts = np.bincount(drawn * cells // n, minlength=cells)
    expected = np.diff(edges) / n * 30_000
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
