"""How a table is shown: what stands where against the exact processes, arrows by hand, and the command."""

import os
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl.envs import registry, wrappers
from jaxrl.envs.layout import on_map
from jaxrl.qtable import QTable
from jaxrl.runs import letters, library, tables, views
from jaxrl.runs.cli import main

MAPS = {
    "FrozenLake-v1": {"is_slippery": False},
    "FrozenLake8x8-v1": {"is_slippery": False},
    "CliffWalking-v1": {},
    "CliffWalkingSlippery-v1": {"is_slippery": False},
    "GridWorld-v0": {},
    "WindyGridWorld-v0": {"wind": (0,) * 10, "moves": 8},
    "DynaMaze-v0": {},
    "Corridor-v0": {},
    "Taxi-v4": {},
}
LAKE = {"desc": ("SF", "HG"), "is_slippery": False}


def table(q, visits=None) -> QTable:
    q = np.asarray(q, np.float64)
    return QTable(q, np.ones(q.shape, int) if visits is None else np.asarray(visits))


def viewed(q, visits=None, env_id="FrozenLake-v1", **overrides) -> views.View:
    found = views.view(table(q, visits), *registry.make(env_id, **(overrides or LAKE)))
    assert found is not None
    return found


# where states stand


@pytest.mark.parametrize("env_id", MAPS)
def test_moves_on_the_map_are_those_of_the_exact_process(env_id):
    """Every move from every open cell leads to its neighbour, or where a wall or the border is, nowhere."""
    env, params = registry.make(env_id, **MAPS[env_id])
    mdp, layout = env.tabular_mdp(params), env.layout_fn(params)
    rows, columns = layout.marks.shape
    shut = {frozenset(pair) for pair in layout.walls}
    moves = 0
    for panel, row, column in np.argwhere(views.stands(layout)).tolist():
        state = layout.states[panel, row, column]
        if layout.marks[row, column] in ("A", "B"):  # every action leads elsewhere
            continue
        for action, move in enumerate(layout.actions):
            if isinstance(move, str):
                continue
            place = (min(max(row + move[0], 0), rows - 1), min(max(column + move[1], 0), columns - 1))
            if layout.marks[place] == "wall" or frozenset([(row, column), place]) in shut:
                place = (row, column)
            if env_id.startswith("Cliff") and layout.marks[place] == "hole":
                place = (3, 0)
            assert mdp.P[state, action, layout.states[panel][place]] == 1, (row, column, move)
            moves += 1
    assert moves > 15


@pytest.mark.parametrize("env_id", [*MAPS, "RandomWalk-v0"])
def test_marks_are_the_ends_and_starts_of_the_exact_process(env_id):
    env, params = registry.make(env_id)
    mdp, layout = env.tabular_mdp(params), env.layout_fn(params)
    for panel in layout.states if env_id != "Taxi-v4" else ():
        ends = np.isin(layout.marks, ["goal", "end"] if env_id.startswith("Cliff") else ["goal", "hole", "end"])
        assert mdp.terminal[panel].tolist() == ends.tolist()
    starts = np.isin(layout.marks, ["start"])
    if starts.any():
        assert (mdp.start[layout.states[0]] > 0).tolist() == starts.tolist()


def test_every_trip_of_the_taxi_has_its_panel():
    env, params = registry.make("Taxi-v4")
    layout = env.layout_fn(params)
    for title, states in zip(layout.titles, layout.states, strict=True):
        place, to = re.fullmatch(r"(?:waiting at (\w)|riding), to (\w)", title).groups()
        cell, passenger, destination = states // 20, states // 4 % 5, states % 4
        assert (passenger == ("RGYB".index(place) if place else 4)).all()
        assert (destination == "RGYB".index(to)).all()
        assert cell.ravel().tolist() == list(range(25))
    assert len(set(layout.states.ravel().tolist())) == 16 * 25
    assert len(layout.walls) == 6


def test_blackjack_has_each_hand_from_eleven_on():
    env, params = registry.make("Blackjack-v1")
    mdp, layout = env.tabular_mdp(params), env.layout_fn(params)
    hands = {state for state in range(704) if not mdp.terminal[state] and state // 22 >= 11}
    assert set(layout.states[layout.states >= 0].tolist()) == hands
    ticks = [[("A" if card == 1 else str(card)) for card in layout.states[1, row] // 2 % 11] for row in range(11)]
    assert ticks == [list(layout.ticks[1])] * 11
    assert (layout.states[1, :, 0] // 22).tolist() == list(layout.ticks[0])
    assert (layout.states[0][:-1] % 2 == 1).all() and (layout.states[1] % 2 == 0).all()


def test_a_wrapper_that_keeps_observations_keeps_the_map():
    env, params = registry.make("FrozenLake-v1", **LAKE)
    q = np.arange(16.0).reshape(4, 4)
    for wrapped in (wrappers.time_limit(env, 5), wrappers.scale_reward(env, 2.0), wrappers.sticky_action(env, 0.1)):
        np.testing.assert_array_equal(views.view(table(q), wrapped, params).values[0, 0], [3, 7])
    blackjack, params = registry.make("Blackjack-v1")
    indexed = wrappers.index_observation(blackjack)
    assert views.view(table(np.zeros((704, 2))), indexed, params).layout.actions[0] == "stick"


def test_what_is_not_on_a_map_has_no_view():
    env, params = registry.make("FrozenLake-v1", **LAKE)
    assert views.view(table(np.zeros((4, 3))), env, params) is None  # other actions
    assert views.view(table(np.zeros((3, 4))), env, params) is None  # too few states
    assert views.view(table(np.zeros((3, 10))), *registry.make("MaximizationBias-v0")) is None
    assert views.view(table(np.zeros((4, 4))), wrappers.frame_stack(env, 2), params) is None
    cart, params = registry.make("CartPole-v1")
    for wrapped in (wrappers.flatten(cart), wrappers.tile_coding(cart, 2, 2, ((-1,) * 4, (1,) * 4))):
        assert views.view(table(np.zeros((5, 2))), wrapped, params) is None  # no bins, and a table of others


# what is shown there


def test_values_ties_and_what_was_never_visited():
    visits = [[1, 1, 1, 1], [0, 2, 0, 1], [0] * 4, [0] * 4]
    found = viewed([[0.1, 0.3, 0.3 + 1e-9, 0.2], [5.0, 1.0, 9.0, 2.0], [7.0] * 4, [8.0] * 4], visits)
    assert found.best[0, 0].tolist() == [[False, True, True, False], [False, False, True, False]]
    np.testing.assert_array_equal(found.values[0], [[0.3 + 1e-9, 9.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.q[0, 0, 1], [np.nan, 1.0, np.nan, 2.0])
    assert not found.best[0, 1].any()
    unseen = viewed(np.ones((4, 4)), [[0] * 4, [1] * 4, [0] * 4, [0] * 4])
    assert np.isnan(unseen.values[0, 0, 0]) and not unseen.best[0, 0, 0].any()
    without = viewed(np.ones((4, 4)), np.zeros((4, 4), int))  # no visits at all: a table from elsewhere
    assert without.values[0, 0].tolist() == [1, 1]


def test_what_differs_by_more_than_rounding_is_no_tie():
    found = viewed([[1.0, 1.0 + 1e-5, 0.0, 0.0], [0.0, 0.0, 1.0 + 1e-8, 1.0], [0.0] * 4, [0.0] * 4])
    assert found.best[0, 0].tolist() == [[False, True, False, False], [False, False, True, True]]


def test_a_forbidden_action_is_never_best():
    env, params = registry.make("Taxi-v4")
    q = np.full((500, 6), -5.0)
    q[:, 4:] = 0.0  # never tried where the mask forbids it
    found = views.view(table(q), env, params)
    for panel, title in enumerate(found.layout.titles):
        place = title[len("waiting at ")] if title.startswith("waiting") else None
        pickup = found.layout.marks == place if place else np.zeros((5, 5), bool)
        assert (found.best[panel, ..., 4] == pickup).all()
        assert ((found.values[panel] == 0) == (pickup if place else found.layout.marks != "")).all()


def test_the_exact_arrows_of_frozen_lake():
    """The optimal policy of the slippery 4 x 4 lake at gamma 0.99 by value iteration in numpy; arrows as drawn."""
    env, params = registry.make("FrozenLake-v1")
    mdp = env.tabular_mdp(params)
    q = np.zeros((16, 4))
    for _ in range(2_000):
        q = mdp.R + 0.99 * mdp.P @ np.where(mdp.terminal, 0, q.max(1))
    found = views.view(table(q), env, params)
    signs = {(0, 0): "H", (-1, 0): "<", (1, 0): ">", (0, -1): "^", (0, 1): "v"}
    drawn = np.full((4, 4), "    ")
    for x, y, right, down in tables.arrows(found):
        row, column = round(y + down / 2), round(x + right / 2)
        drawn[row, column] = drawn[row, column].strip() + signs[(np.sign(round(right, 6)), np.sign(round(down, 6)))]
    hole = "    "
    assert drawn.tolist() == [list("<^^^"), ["<", hole, "<>", hole], ["^", "v", "<", hole], [hole, ">", "v", hole]]


def test_where_arrows_start_and_end():
    found = viewed([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0] * 4, [0.0] * 4])
    single, left, up = tables.arrows(found)
    np.testing.assert_allclose(single, [0, -0.26, 0, 0.52])  # one: centred on its cell
    np.testing.assert_allclose(left, [0.9, 0, -0.32, 0])  # several: from the middle outwards
    np.testing.assert_allclose(up, [1, -0.1, 0, -0.32])


@pytest.mark.parametrize("count", [2, 4, 8])
def test_sectors_share_the_square_evenly(count):
    moves = {
        2: [(0, -1), (0, 1)],
        4: [(0, -1), (1, 0), (0, 1), (-1, 0)],
        8: [(-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1), (1, 1), (1, -1)],
    }[count]
    total = 0.0
    for down, right in moves:
        shape = tables.sector((down, right), moves)
        x, y = shape.T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        total += area
        assert np.abs(shape).max() == pytest.approx(0.5)
        assert shape.mean(0) @ [right, down] > 0.1
    assert total == pytest.approx(1)
    if count == 4:
        corners = {tuple(map(float, np.round(corner, 6))) for corner in tables.sector((1, 0), moves)}
        assert corners == {(0.0, 0.0), (-0.5, 0.5), (0.5, 0.5)}


def test_a_plane_through_bins_is_the_table():
    env, params = registry.make("MountainCar-v0")
    q = np.random.default_rng(0).normal(size=(12, 3))
    found = views.view(table(q), wrappers.discretize_observation(env, (4, 3)), params)
    assert found.layout.actions == ("push left", "coast", "push right")
    assert found.layout.axes == ("velocity", "position")
    np.testing.assert_allclose(found.span, (-1.2, 0.6, -0.07, 0.07), rtol=1e-6)
    for row, column in np.ndindex(60, 60):
        velocity, position = (59.5 - row) / 60, (column + 0.5) / 60
        cell = int(position * 4) * 3 + int(velocity * 3)
        np.testing.assert_array_equal(found.q[0, row, column], q[cell])


def test_a_plane_through_tiles_adds_them_up():
    env, params = registry.make("CartPole-v1")
    bounds = ((-2.4, -3, -0.2, -3.5), (2.4, 3, 0.2, 3.5))
    tiles = wrappers.tile_coding(env, tilings=4, bins=2, bounds=bounds)
    rows, rng = wrappers.num_states(tiles), np.random.default_rng(0)
    q, visits = rng.normal(size=(rows, 2)), rng.integers(0, 8, (rows, 2))
    found = views.view(table(q, visits), tiles, params)
    assert found.layout.titles == ("cart position, cart velocity in the middle",)
    state = env.reset(jax.random.key(0), params)[1]
    for row, column in ((0, 0), (59, 0), (0, 59), (33, 12), (20, 40), (59, 59)):
        angle, spin = -0.2 + 0.4 * (column + 0.5) / 60, 3.5 - 7 * (row + 0.5) / 60
        obs = np.array([0, 0, angle, spin], np.float32)
        state = state._replace(**dict(zip(state._fields[:4], obs, strict=True)))
        active = np.asarray(tiles.get_obs(state, params))
        known = (visits[active] > 0).all(0)
        np.testing.assert_allclose(found.q[0, row, column], np.where(known, q[active].sum(0), np.nan), rtol=1e-6)
    assert np.isnan(found.values).any() and np.isfinite(found.values).any()


def test_limits_leave_out_what_only_the_worst_actions_say():
    values = np.array([-14.0, -1.0, np.nan])
    assert views.limits(values, np.array([-112.0, -14.0, -1.0])) == (-27.0, -1.0)
    assert views.limits(values, np.array([-15.0, np.inf])) == (-15.0, -1.0)
    assert views.limits(np.zeros(3), np.zeros(3)) == (-0.5, 0.5)
    assert views.limits(np.full(2, np.nan), np.full(2, np.nan)) == (0.0, 1.0)


# as a picture

PICTURES = {
    "a map": ("FrozenLake-v1", {}, 16, 4, None),
    "an empty map": ("FrozenLake-v1", {}, 16, 4, 0),
    "a wide map": ("CliffWalking-v1", {}, 48, 4, None),
    "nine moves": ("WindyGridWorld-v0", {"moves": 9}, 70, 9, None),
    "values alone": ("RandomWalk-v0", {}, 7, 1, None),
    "values of a policy": ("DynaMaze-v0", {}, 54, 1, None),
    "many maps": ("Taxi-v4", {}, 500, 6, None),
    "choices": ("Blackjack-v1", {}, 704, 2, None),
    "no map": ("MaximizationBias-v0", {}, 3, 10, None),
    "a large table": ("MaximizationBias-v0", {}, 12_345, 3, None),
    "infinities": ("FrozenLake-v1", {}, 16, 4, np.inf),
    "no numbers": ("FrozenLake-v1", {}, 16, 4, np.nan),
}


@pytest.mark.parametrize(("env_id", "overrides", "states", "actions", "value"), PICTURES.values(), ids=PICTURES)
def test_pictures(env_id, overrides, states, actions, value, tmp_path):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(states, actions)) if value is None else np.full((states, actions), float(value))
    visits = rng.integers(0, 3, q.shape)
    path = tmp_path / "table.png"
    tables.table_picture(path, QTable(q, visits), *registry.make(env_id, **overrides))
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")
    assert int.from_bytes(data[16:20]) >= 400  # pixels wide
    assert os.listdir(tmp_path) == ["table.png"]


def test_a_picture_is_not_written_over(tmp_path, monkeypatch):
    env, params = registry.make("Corridor-v0", length=3)
    path = tmp_path / "table.png"
    tables.table_picture(path, table(np.zeros((3, 2))), env, params)
    first = path.read_bytes()
    with pytest.raises(ValueError, match="table.png exists and is not written over; .* force to replace it"):
        tables.table_picture(path, table(np.ones((3, 2))), env, params)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        tables.table_picture(path, table(np.ones((3, 2))), env, params, force=True)
    monkeypatch.undo()
    assert path.read_bytes() == first and os.listdir(tmp_path) == ["table.png"]
    tables.table_picture(path, table(np.arange(6.0).reshape(3, 2)), env, params, force=True)
    assert path.read_bytes() != first


# as text


def text(lines) -> list[str]:
    return ["".join(part for part, _ in line).rstrip() for line in lines]


def test_text_of_a_map():
    q = [[0.25, 0.5, 0.5, -1.0], [0.1, 0.0, 0.0, 0.0], [9.0] * 4, [9.0] * 4]
    found = viewed(q)
    legend = "S start, G goal, H hole or cliff, values 0.1 to 0.5, the higher the lighter"
    assert text(letters.drawn(found)) == [" S↓→ 0.50   ← 0.10", "    H        G", legend]
    assert text(letters.drawn(found, unicode=False))[0] == " Sv> 0.50   < 0.10"
    assert text(letters.drawn(found, width=10))[:2] == [" S↓→   ←", "  H   G"]  # no room for the values
    styles = [style for line in letters.drawn(found) for part, style in line if "0." in part and "values" not in part]
    assert styles == ["black on rgb(253,231,37)", "bright_white on rgb(33,145,140)"]  # of -0.3 to 0.5


def test_text_of_what_was_never_visited():
    found = viewed(np.ones((4, 4)), [[1] * 4, [0] * 4, [0] * 4, [0] * 4])
    lines = text(letters.drawn(found))
    assert lines[0].split() == ["S←↓→↑", "1", "?"]
    assert lines[-1] == "S start, G goal, H hole or cliff, ? never visited, values 1 to 1, the higher the lighter"


def test_text_of_walls_and_of_panels_side_by_side():
    q = np.zeros((500, 6))
    q[:, 0], q[:, 4], q[:, 5] = 1, 2, 3
    found = views.view(table(q), *registry.make("Taxi-v4"))
    lines = text(letters.drawn(found, width=90))
    assert re.fullmatch(r"waiting at G, to R +waiting at Y, to R", lines[0])
    assert lines[1] == " R ↓ 1   ↓ 1|  ↓ 1   ↓ 1 G P 2    R ↓ 1   ↓ 1|  ↓ 1   ↓ 1 G ↓ 1"
    assert len(text(letters.drawn(found))) > len(lines)
    assert lines[-1].startswith("P pick up, D drop off, values 0 to 3")


def test_text_of_choices_has_their_initials():
    q = np.zeros((704, 2))
    q[:, 1] = np.where(np.arange(704) // 22 < 17, 0.5, -0.5)
    lines = text(letters.drawn(views.view(table(q), *registry.make("Blackjack-v1"))))
    assert lines[:3] == [
        "usable ace",
        "rows: player sum, columns: dealer showing",
        "        A      2      3      4      5      6      7      8      9     10",
    ]
    assert lines[3].split() == ["21", *["S", "0.00"] * 10]
    assert lines[8].split() == ["16", *["H", "0.50"] * 10]
    assert lines[13].split() == ["11"]
    assert lines[-1] == "S stick, H hit, values 0 to 0.5, the higher the lighter"


def test_signs_are_told_apart():
    marks = on_map(["S."], ((0, 1), "stay", "sleep", "hop", (3, 3)))
    q = np.zeros((1, 1, 2, 5))
    found = views.View(marks, q, q.max(-1), q == 0)
    assert letters._signs(found, True) == ["→", "1", "2", "H", "4"]
    legend = "S start, 1 stay, 2 sleep, H hop, * more than 4 actions, values 0 to 0, the higher the lighter"
    assert text(letters.drawn(found))[-1] == legend


def test_text_of_a_plane():
    env, params = registry.make("MountainCar-v0")
    bins = wrappers.discretize_observation(env, (2, 1))
    found = views.view(table([[0, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]), bins, params)
    lines = text(letters.drawn(found))
    assert lines[0] == "velocity from 0.07 down to -0.07, position from -1.2 to 0.6"
    assert lines[1:31] == ["C" * 30 + "?" * 30] * 30
    assert lines[31].startswith("0 push left, C coast, 2 push right, ? never visited")


def test_text_without_a_map():
    lines = text(letters.listed(table([[1.5, -2.0], [0.0, 3.0]], [[1, 1], [0, 1]])))
    assert lines == ["state     0       1", "    0  1.50*  -2.00", "    1     -    3.00*"]
    many = text(letters.listed(table(np.zeros((50, 1)))))
    assert len(many) == 42
    assert many[-1] == "and 10 more states; --picture FILE.png draws all"


# the command


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    """A run of two seeds on a small slippery lake."""
    out = tmp_path_factory.mktemp("lake") / "run"
    words = "--steps 400 --num-envs 4 --seeds 2 --seed 3 --env.desc SF FG --quiet --no-cache"
    assert main(["train", "q_learning", "FrozenLake-v1", *words.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(capsys, *args: str) -> str:
    capsys.readouterr()
    assert main(["show", *args, "--no-cache"]) == 0
    return capsys.readouterr().out


def refused(capsys, *args: str) -> str:
    capsys.readouterr()
    before = sorted(Path.cwd().rglob("*"))
    assert main(["show", *args]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def test_show_is_the_table_of_the_run(lake, capsys):
    _, _, _, state = library.load(lake)
    assert np.abs(state.q[0] - state.q[1]).max() > 0.01
    for index in range(2):
        out = shown(capsys, str(lake), "--seed-index", str(index)).splitlines()
        found = QTable.of(state, seed=index)
        seen = (found.visits > 0).sum()
        told = f"{seen} of 16 entries were learned from, 400 times"
        assert out[0] == f"q_learning on FrozenLake-v1, seed {3 + index}: {told}"
        values = [f"{value:.2f}" for value in found.values()[:3]]
        assert re.findall(r"\d\.\d\d", "".join(out[1:3])) == values
        assert "\x1b" not in "".join(out)
        assert not any(line.endswith(" ") for line in out)
    assert shown(capsys, str(lake)) == shown(capsys, str(lake), "--seed-index", "0")


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_has_colours_unless_no_color(no_color, lake, capsys, monkeypatch):
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = shown(capsys, str(lake))
    assert bool(re.search(r"\x1b\[[\d;]*4[08];", out) or re.search(r"\x1b\[[\d;]*(4\d|10\d)m", out)) is not no_color
    assert "start, G goal" in out


def test_a_picture_of_a_run(lake, capsys):
    out = shown(capsys, str(lake), "--picture", "lake.png")
    assert re.fullmatch(r"wrote lake.png: [\d.]+ KiB\n", out)
    assert Path("lake.png").read_bytes() == (lake / "table.png").read_bytes()  # what the run left, of its first seed
    assert "is there already" in refused(capsys, str(lake), "--picture", "lake.png")
    shown(capsys, str(lake), "--picture", "lake.png", "--force", "--seed-index", "1")
    assert Path("lake.png").read_bytes() != (lake / "table.png").read_bytes()


def test_bad_input_is_one_line(lake, capsys):
    assert "RUN comes first" in refused(capsys)
    assert "does not exist" in refused(capsys, "nowhere")
    assert "seed_index is 2; the run has 2 seeds: use 0..1" in refused(capsys, str(lake), "--seed-index", "2")
    assert "seed_index is -1" in refused(capsys, str(lake), "--seed-index", "-1")
    assert "must end in .png" in refused(capsys, str(lake), "--picture", "lake.jpg")
    assert "no directory" in refused(capsys, str(lake), "--picture", "no/lake.png")
    assert "did you mean --picture" in refused(capsys, str(lake), "--pictur", "lake.png")
    shutil.copytree(lake, "damaged")
    Path("damaged/agent.safetensors").write_bytes(b"")
    assert "0 bytes" in refused(capsys, "damaged")


def test_a_deep_run_has_no_table(capsys):
    settings = {"steps": 256, "num_envs": 8, "learning_starts": 64, "eval_episodes": 2}
    agent, replay = {"hidden": (4,), "n_step": 1}, {"batch_size": 8, "capacity": 128}
    library.train("dqn", "Corridor-v0", out="deep", agent=agent, replay=replay, **settings)
    assert not Path("deep/table.png").exists()
    said = refused(capsys, "deep")
    assert said == "jaxrl: deep was trained by dqn, which learns no table; use jaxrl watch deep\n"


def test_help(capsys):
    for args in (["show", "--help"], ["--help"]):
        assert main(args) == 0
        assert "jaxrl show RUN" in capsys.readouterr().out
