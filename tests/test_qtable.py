"""The table as a thing: what it says against plain lists, what it refuses, and its file."""

import io
import os
import re
import zipfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.qtable import QTable

ROWS = [[0.5, 2.0, 2.0], [-1.0, -3.0, -1.5]]
COUNTS = [[3, 1, 0], [2, 2, 7]]


class State(NamedTuple):
    q: Any
    visits: Any
    average: Any = ()


@pytest.fixture
def table() -> QTable:
    return QTable(np.array(ROWS, np.float32), np.array(COUNTS))


def test_it_says_what_is_in_it(table):
    assert [[table.get(state, action) for action in range(3)] for state in range(2)] == ROWS
    assert table.policy().tolist() == [row.index(max(row)) for row in ROWS] == [1, 0]
    assert table.values().tolist() == [max(row) for row in ROWS]
    assert table.visits.tolist() == COUNTS
    assert type(table.get(np.int64(1), jnp.int32(2))) is float


def test_an_action_that_is_not_allowed_is_not_the_best(table):
    allowed = np.array([[True, False, True], [False, True, True]])
    assert table.policy(allowed).tolist() == [2, 2]
    assert table.values(allowed).tolist() == [2.0, -1.5]
    for bad in (allowed[:1], np.zeros((2, 3), bool)):
        with pytest.raises(ValueError, match=r"allowed has shape \[\d, 3\]; it must be \[2, 3\], with at least one"):
            table.policy(bad)


def test_set_gives_another_table(table):
    other = table.set(0, 2, 9)
    assert other.q.tolist() == [[0.5, 2.0, 9.0], ROWS[1]]
    assert other.visits.tolist() == COUNTS
    assert table.q.tolist() == ROWS
    assert other.q.dtype == np.float32


def test_nothing_writes_into_it():
    q, visits = np.array(ROWS), np.array(COUNTS)
    table = QTable(q, visits)
    q[:], visits[:] = 7, 7
    assert (table.q.tolist(), table.visits.tolist()) == (ROWS, COUNTS)
    for array in (table.q, table.visits, table.set(0, 0, 1.0).q):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    with pytest.raises(AttributeError):
        table.q = q


def test_numbers_become_floats():
    kinds = {np.float32: np.float32, np.float16: np.float32, np.float64: np.float64, np.int32: np.float64}
    for kind, kept in kinds.items():
        assert QTable(np.ones((2, 3), kind), np.array(COUNTS)).q.dtype == kept
    assert QTable(jnp.asarray(ROWS), jnp.asarray(COUNTS)).q.dtype == np.float32
    assert QTable(ROWS, COUNTS).get(1, 2) == -1.5


BAD = {
    "one row": ([1.0, 2.0], [1, 2], "q has shape [2]; it must be [states, actions], such as [16, 4]"),
    "no states": (np.zeros((0, 2)), np.zeros((0, 2), int), "q has shape [0, 2]"),
    "other counts": (ROWS, [[1, 2], [3, 4]], "visits have shape [2, 2] and q [2, 3]; they must have one shape"),
    "words": ([["a"]], [[1]], "q is of <U1; it must be real numbers"),
    "complex": ([[1j]], [[1]], "q is of complex128"),
    "fractions": ([[1.0]], [[0.5]], "visits hold float64; they must be integers of at least 0"),
    "below none": ([[1.0, 2.0]], [[3, -2]], "visits hold -2; they must be"),
}


@pytest.mark.parametrize(("q", "visits", "said"), BAD.values(), ids=BAD)
def test_what_is_no_table_is_refused(q, visits, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        QTable(q, visits)


def test_outside_the_table_is_refused(table):
    for state in (2, -1, True, 1.0, "0", None):
        with pytest.raises(ValueError, match=r"state is .*; the table has 2 states: use an integer in 0\.\.1$"):
            table.get(state, 0)
    for action in (3, -1):
        with pytest.raises(ValueError, match=rf"action is {action}; the table has 3 actions: use an integer in 0\.\.2"):
            table.set(0, action, 1.0)


def test_a_value_that_is_no_finite_number_is_refused(table):
    for value in (np.nan, np.inf, -np.inf, None, "1", True, [1.0, 2.0], 1e39, 1j):
        with pytest.raises(ValueError, match="value is .*; it must be a finite number that float32 can hold"):
            table.set(0, 0, value)
    assert QTable(ROWS, COUNTS).set(0, 0, 1e39).get(0, 0) == 1e39


# from an agent


@pytest.fixture(scope="module")
def trained():
    return jaxrl.train("q_learning", "Corridor-v0", steps=2_000, num_envs=4, seeds=2, eval_episodes=4)


def test_it_is_the_table_of_a_trained_agent(trained):
    for seed in range(2):
        table = QTable.of(trained.state, seed=seed)
        np.testing.assert_array_equal(table.q, trained.params[seed])
        assert table.visits.sum() == 2_000
        assert table.policy()[:9].tolist() == [1] * 9
    with pytest.raises(ValueError, match=r"holds the tables of 2 seeds; choose one by seed=0\.\.1"):
        QTable.of(trained.state)
    with pytest.raises(ValueError, match=r"seed is 2; the table has 2 seeds: use an integer in 0\.\.1"):
        QTable.of(trained.state, seed=2)


def test_one_table_needs_no_seed_and_a_run_has_its_agent():
    class Run(NamedTuple):
        agent: State

    state = State(jnp.asarray(ROWS), jnp.asarray(COUNTS))
    for found in (QTable.of(state), QTable.of(state, seed=0), QTable.of(Run(state))):
        assert found.q.tolist() == ROWS
    with pytest.raises(ValueError, match="seed is 1; the state holds one table: leave it out"):
        QTable.of(state, seed=1)


def test_an_average_takes_the_place_of_the_table():
    average = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert QTable.of(State(jnp.asarray(ROWS), jnp.asarray(COUNTS), jnp.asarray(average))).q.tolist() == average


def test_what_has_no_table_is_refused():
    with pytest.raises(ValueError, match="a dict holds no Q-table; give the state of a tabular agent"):
        QTable.of({"params": 1})


# its file


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_saved_table_is_read_back(kind, tmp_path):
    q = np.array([[0.1, np.nan], [np.inf, -0.0]], kind)
    table = QTable(q, np.array([[1, 2], [3, 2**40]]))
    table.save(tmp_path / "table.npz")
    found = QTable.load(str(tmp_path / "table.npz"))
    assert found.q.tobytes() == q.tobytes()
    assert (found.q.dtype, found.visits.tolist()) == (kind, table.visits.tolist())
    assert os.listdir(tmp_path) == ["table.npz"]
    with np.load(tmp_path / "table.npz", allow_pickle=False) as arrays:  # plain arrays for everybody
        assert set(arrays) == {"format", "q", "visits"}


def test_a_file_is_not_written_over(table, tmp_path):
    path = tmp_path / "table.npz"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"table.npz exists and is not written over; .* force=True to replace it"):
        table.save(path)
    assert path.read_bytes() == b"mine"
    table.save(path, force=True)
    assert QTable.load(path).q.tolist() == ROWS


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_written_whole_or_not_at_all(force, table, tmp_path, monkeypatch):
    path = tmp_path / "table.npz"
    if force:
        table.save(path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        table.set(0, 0, 5.0).save(path, force=force)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_a_damaged_file_is_refused(table, tmp_path):
    """Cut anywhere, or with a byte changed: refused, or where that byte says nothing, read aright."""
    path = tmp_path / "table.npz"
    table.save(path)
    whole, refused = path.read_bytes(), 0
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or holds no Q-table: .*; restore a copy$") as error:
            QTable.load(path)
        assert "\n" not in str(error.value)
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            found = QTable.load(path)
        except ValueError:
            refused += 1
        else:
            assert (found.q.tolist(), found.visits.tolist()) == (ROWS, COUNTS)
    assert refused > len(whole) / 6


def test_a_foreign_file_is_refused(table, tmp_path):
    path = tmp_path / "table.npz"
    foreign = {
        "holds no Q-table: its arrays are a, b;": {"a": np.zeros(2), "b": np.zeros(2)},
        "its arrays are none;": {},
        "its arrays are format, q;": {"format": np.int64(1), "q": np.zeros((2, 2))},
        "has format 2; this jaxrl reads 1": {"format": 2, "q": table.q, "visits": table.visits},
        "visits have shape [2] and q [2, 3]": {"format": 1, "q": table.q, "visits": [1, 2]},
        "q is of <U1": {"format": 1, "q": [["a"]], "visits": [[1]]},
    }
    for said, arrays in foreign.items():
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
        with pytest.raises(ValueError, match=re.escape(said)) as error:
            QTable.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        QTable.load(tmp_path / "absent")


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    data = io.BytesIO()
    np.save(data, np.array([[Bomb()]], object))
    with zipfile.ZipFile(tmp_path / "table.npz", "w") as archive:
        archive.writestr("q.npy", data.getvalue())
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        QTable.load(tmp_path / "table.npz")
    (tmp_path / "plain").write_bytes(data.getvalue())
    with pytest.raises(ValueError, match="not a zip file"):
        QTable.load(tmp_path / "plain")
    assert not (tmp_path / "run").exists()
