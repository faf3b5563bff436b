"""Seaquest-MinAtar against the `minatar` package, move by move with the same draws."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_games import Game, Move, column, play

import jaxrl
from jaxrl.envs import minatar, seaquest
from jaxrl.envs.seaquest import NOWHERE, Chance

SCALARS = {
    "oxygen": "oxygen",
    "aboard": "diver_count",
    "x": "sub_x",
    "y": "sub_y",
    "right": "sub_or",
    "spawn_speed": "e_spawn_speed",
    "spawn_timer": "e_spawn_timer",
    "diver_timer": "d_spawn_timer",
    "move_speed": "move_speed",
    "ramp_index": "ramp_index",
    "shot_timer": "shot_timer",
    "surface": "surface",
}


def ours(attributes):
    """The state at an episode's start, nothing in the water."""
    assert not any(attributes[name] for name in ("f_bullets", "e_bullets", "e_fish", "e_subs", "divers"))
    state = seaquest.reset(jaxrl.key(0), seaquest.Params())
    return state._replace(
        **{name: getattr(state, name).dtype.type(attributes[theirs]) for name, theirs in SCALARS.items()}
    )


def numbers(words):
    """int [moves, 32]: what a word, or the words of a number, say of each slot."""
    words = words if isinstance(words, tuple) else (words,)
    return sum(
        (np.asarray(word)[:, None] >> np.arange(32, dtype=np.uint32) & 1).astype(int) << k
        for k, word in enumerate(words)
    )


def seen(state):
    """What the package knows of our states: scalars, and what is there as sorted codes."""
    facts = {name: np.asarray(getattr(state, name), int) for name in (*SCALARS, "last_action")}

    def codes(swarm, *more):
        code = numbers(swarm.row) + 1
        for field in (numbers(swarm.column), numbers(swarm.right), *more):
            code = code * 16 + field
        return np.where(numbers(swarm.there), code, 0)

    sub = numbers(state.enemies.sub)
    timers = (sub, numbers(state.enemies.move_timer), np.where(sub, numbers(state.enemies.shot_timer), 0))
    facts["enemies"] = np.sort(codes(state.enemies.swarm, *timers))
    flying = np.sort(codes(state.enemy_bullets))
    facts["enemy_bullets"] = np.sort(np.where(np.diff(flying, prepend=0) == 0, 0, flying))  # each once
    for name in ("bullets", "divers"):
        pair = [np.stack([np.where(one.place == NOWHERE, -1, field) for field in one]) for one in getattr(state, name)]
        facts[name] = np.where(pair[0][0] >= 0, np.stack(pair), np.stack(pair[::-1]))
    return facts


def known(moves):
    """The same of the package's states after each move."""
    facts = {name: np.array([move.after[theirs] for move in moves], int) for name, theirs in SCALARS.items()}
    facts["last_action"] = column(moves, "done", int)

    def codes(rows):
        codes = np.zeros(32, int)
        for i, (x, y, *rest) in enumerate(rows):
            code = y
            for field in (x, *rest):
                code = code * 16 + int(field)
            codes[i] = code
        return np.sort(codes)

    def pair(rows, fields):
        rows = [[16 * y + x, *map(int, rest)] for x, y, *rest in rows]
        return np.array([*rows, *[[-1] * fields] * 2])[:2]

    def enemies(after):
        for x, y, right, timer in after["e_fish"]:
            yield x, y, right, 0, timer, 0
        for x, y, right, timer, shot in after["e_subs"]:
            yield x, y, right, 1, timer, shot

    facts["enemies"] = np.stack([codes(enemies(move.after)) for move in moves])
    facts["enemy_bullets"] = np.stack([codes(set(map(tuple, move.after["e_bullets"]))) for move in moves])
    facts["bullets"] = np.stack([pair(move.after["f_bullets"], 2) for move in moves], -1)
    facts["divers"] = np.stack([pair(move.after["divers"], 3) for move in moves], -1)
    return facts


def chance_of(draws):
    """What a move of the package drew, as ours."""
    results = [draw.result for draw in draws]
    right, sub, row = results[:3] if len(results) in (3, 5) else (0.9, 0.9, 1)
    diver_right, diver_row = results[-2:] if len(results) in (2, 5) else (0.9, 1)
    return Chance(right < 0.5, sub < 1 / 3, np.int32(row), diver_right < 0.5, np.int32(diver_row))


def random_player(now, random):
    return random.randint(6)


def diver_saver(now, random):
    """Fetches divers, shoots at its row, comes up for air with a diver, or with six."""
    if random.rand() < 0.1:
        return random.randint(6)
    if (now.oxygen < 70 and now.diver_count > 0) or now.diver_count == 6:
        return minatar.UP
    targets = [(d[0] + (2 if d[2] else -2), d[1]) for d in now.divers] or [(5, 4)]
    x, y = min(targets, key=lambda place: abs(place[0] - now.sub_x) + abs(place[1] - now.sub_y))
    ahead = [e for e in (*now.e_fish, *now.e_subs) if e[1] == now.sub_y and (e[0] > now.sub_x) == now.sub_or]
    if ahead and now.shot_timer == 0 and random.rand() < 0.7:
        return minatar.FIRE
    moves = [minatar.LEFT if x < now.sub_x else minatar.RIGHT] * (x != now.sub_x)
    moves += [minatar.UP if y < now.sub_y else minatar.DOWN] * (y != now.sub_y)
    return moves[random.randint(len(moves))] if moves else minatar.NOTHING


def bather(now, random):
    """Waits at the surface while the water fills, and dives for a moment."""
    return random.choice([0, 1, 3, 5] if random.rand() < 0.97 else [4])


def gunner(now, random):
    """Goes up and down at the side and shoots."""
    return random.choice([5, 5, 2, 4, 1 if now.sub_x < 5 else 3, 3 if now.sub_x < 5 else 1])


def ramped(now, random):
    """A start as hard as after some surfacings."""
    index = random.randint(30)
    return {
        "ramp_index": min(index, 19),
        "e_spawn_speed": max(20 - index, 1),
        "move_speed": max(5 - index // 2, 2),
        "e_spawn_timer": 1,
        "diver_count": random.randint(7),
        "oxygen": random.randint(1, 201),
    }


RECORDS = {
    "random": {"moves": 10_000, "seed": 0},
    "saver": {"moves": 6_000, "seed": 10, "policy": diver_saver},
    "saver of six": {"moves": 6_000, "seed": 20, "policy": diver_saver, "starts": ramped},
    "bather": {"moves": 5_000, "seed": 30, "policy": bather, "starts": ramped},
    "gunner": {"moves": 6_000, "seed": 40, "policy": gunner, "starts": ramped},
    "no ramping": {"moves": 3_000, "seed": 50, "policy": diver_saver, "difficulty_ramping": False},
}


@pytest.fixture(scope="module", params=RECORDS)
def record(request):
    return request.param, play("seaquest", **RECORDS[request.param])


@jax.jit
def replay(begins, starts, actions, chances, params):
    """Our states, rewards, ends and observations: begun anew from `starts` where `begins`, else our own goes on."""

    def body(state, move):
        begin, start, action, chance = move
        state = jax.tree.map(lambda new, old: jnp.where(begin, new, old), start, state)
        state, reward, terminated = seaquest.play(state, action, chance, params)
        return state, (state, reward, terminated, seaquest.observe(state, params))

    return jax.lax.scan(body, jax.tree.map(lambda x: x[0], starts), (begins, starts, actions, chances))[1]


def test_moves_are_the_packages(record):
    name, moves = record
    begins = np.array([True, *column(moves, "terminated")[:-1]])
    starts = [ours(move.before)._replace(last_action=np.int32(move.last)) for move in itertools.compress(moves, begins)]
    starts = jax.tree.map(lambda *xs: np.stack(xs)[np.cumsum(begins) - 1], *starts)
    chances = jax.tree.map(lambda *xs: np.stack(xs), *[chance_of(move.draws) for move in moves])
    params = seaquest.Params(difficulty_ramping=name != "no ramping")
    got = jax.device_get(replay(begins, starts, column(moves, "done", np.int32), chances, params))
    expected = known(moves)
    for field, value in seen(got[0]).items():
        np.testing.assert_array_equal(value, expected[field], field)
    np.testing.assert_array_equal(got[1], column(moves, "reward"))
    np.testing.assert_array_equal(got[2], column(moves, "terminated"))
    np.testing.assert_array_equal(got[3], column(moves, "observation"))


def test_records_hold_every_event():
    """Each rule is met often enough that a break of it would show."""
    count = collections.Counter()
    for name in RECORDS:
        for move in play("seaquest", **{**RECORDS[name], "moves": 2_000}):
            before, after = move.before, move.after
            surfaced = after["surface"] and not before["surface"]
            count["kill"] += move.reward == 1
            count["two kills"] += move.reward == 2
            count["prize"] += surfaced and after["diver_count"] == -1
            count["surfaced"] += surfaced
            count["surfaced with none"] += after["sub_y"] == 0 < before["sub_y"] and before["diver_count"] == 0
            count["faster"] += after["move_speed"] < before["move_speed"]
            count["diver taken"] += after["diver_count"] > before["diver_count"]
            count["no air"] += before["oxygen"] == 0
            count["enemy shot"] += len(after["e_bullets"]) > len(before["e_bullets"])
            count["crowd"] += len(after["e_fish"]) + len(after["e_subs"]) > 12
            count["one cell"] += len({(x, y) for x, y, *_ in after["e_fish"]}) < len(after["e_fish"])
            count["turned away"] += len(move.draws) >= 3 and not any(
                x in (0, 9) for x, *_ in after["e_fish"] + after["e_subs"]
            )
            count["caught"] += move.terminated and before["oxygen"] > 0 and after["sub_y"] > 0
    assert len(count) == 13 and min(count.values()) >= 3, count


class Script:
    """Draws in the package's place: every enemy comes in row 1, going right, and is a submarine as `kinds` has it."""

    def __init__(self, kinds):
        self._draws = iter(np.ravel([[0.1, 0.1 if sub else 0.9] for sub in kinds]))
        self.log = []

    def rand(self):
        return next(self._draws)

    def randint(self, low, high):
        return low


@pytest.mark.parametrize("subs", [False, True])
def test_the_most_crowded_row_fits(subs):
    """An enemy every step in one row, the player at the surface: 30 at once, the most there can be."""
    game = Game("seaquest")
    game.now.random = Script([subs] * 70)
    game.inject(e_spawn_speed=1, move_speed=2, e_spawn_timer=0, d_spawn_timer=10_000, ramp_index=19)
    state = ours(game.attributes())
    right = jnp.ones((), bool)
    chance = Chance(right, right & subs, jnp.int32(1), right, jnp.int32(1))
    move = jax.jit(seaquest.play)
    most = 0
    for _ in range(70):
        game.now.terminal = False
        game.now.act(0)
        state, *_ = move(state, jnp.int32(0), chance, seaquest.Params())
        found = jax.tree.map(lambda x: np.asarray(x)[None], state)
        after = game.attributes()
        np.testing.assert_array_equal(
            np.sort(seen(found)["enemies"][0])[::-1][:32] > 0,
            np.arange(32) < len(after["e_fish"]) + len(after["e_subs"]),
        )
        most = max(most, len(after["e_fish"]) + len(after["e_subs"]))
        np.testing.assert_array_equal(seaquest.observe(state, seaquest.Params()), game.observe())
    assert most == 29  # one leaves as the next comes


@pytest.mark.parametrize("seed", range(3))
def test_the_oldest_fish_in_a_cell_is_shot_then_the_oldest_submarine(seed):
    """A gun at the end of a full row; the game goes on after each end."""
    kinds = np.random.RandomState(seed).rand(190) < 0.5
    game = Game("seaquest")
    game.now.random = Script(kinds)
    game.inject(e_spawn_speed=1, move_speed=2, e_spawn_timer=0, d_spawn_timer=10_000, ramp_index=19)
    start = ours(game.attributes())
    actions = [minatar.RIGHT] * 4 + [minatar.DOWN, minatar.LEFT, minatar.RIGHT, minatar.LEFT] + [minatar.FIRE] * 182
    moves = []
    for action in actions:
        game.now.terminal = False
        reward, _ = game.now.act(action)
        moves.append(Move({}, 0, action, 0, action, [], game.attributes(), reward, False, game.observe()))
    n = len(actions)
    right, rows = np.ones(n, bool), np.ones(n, np.int32)
    starts = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], n, 0), start)
    got = replay(
        np.arange(n) == 0,
        starts,
        np.array(actions, np.int32),
        Chance(right, kinds, rows, right, rows),
        seaquest.Params(),
    )
    expected = known(moves)
    for field, value in seen(jax.device_get(got[0])).items():
        np.testing.assert_array_equal(value, expected[field], field)
    np.testing.assert_array_equal(got[1], column(moves, "reward"))
    assert np.asarray(got[1]).sum() > 20


def test_enemies_of_a_row_are_told_apart_by_their_timers():
    """Two of a row, however the speed falls while they cross: never in one cell with one timer."""
    drops = np.array(list(itertools.combinations(range(0, 90, 2), 3)))
    for speed, gap in ((5, 15), (5, 19), (4, 15), (3, 15)):
        falls = drops[:, : speed - 2]
        cell, timer = np.zeros((2, len(drops)), int), np.full((2, len(drops)), speed)
        for time in range(90):
            now = speed - (falls <= time).sum(1)
            there = np.array([time >= 0, time >= gap])
            timer[1] = np.where(time == gap, now, timer[1])
            moves = (timer == 0) & there[:, None]
            cell += moves
            timer = np.where(moves, now, timer - there[:, None])
            if time >= gap:
                assert (cell[0] > cell[1]).all()


def test_draws_have_the_authors_chances():
    """A third submarines, all rows and both sides alike, the last action again in one of ten."""
    env, params = jaxrl.make("Seaquest-MinAtar")
    due = env.reset(jaxrl.key(0), params)[1]._replace(spawn_timer=jnp.int32(0), diver_timer=jnp.int32(0))
    due = due._replace(last_action=jnp.int32(minatar.RIGHT))
    keys = jax.random.split(jaxrl.key(1), 20_000)
    step = jax.jit(jax.vmap(seaquest.step, (0, None, None, None)))
    after = jax.device_get(step(keys, due, minatar.LEFT, params)[0])
    swarm = after.enemies.swarm
    assert (swarm.there == 1).all()
    assert abs((after.x == 6).mean() - 0.1) < 0.01
    assert abs((after.enemies.sub & 1).mean() - 1 / 3) < 0.015
    places = (
        numbers(swarm.row)[:, 0] * 2 + (swarm.right & 1),
        (after.divers[1].place // 16 - 1) * 2 + after.divers[1].right,
    )
    counts = np.zeros((16, 16))
    np.add.at(counts, places, 1)
    expected = len(keys) / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 4.5 * np.sqrt(2 * 255)


def test_gymnaxs_variant_and_bad_settings():
    _, params = jaxrl.make("Seaquest-MinAtar", variant="gymnax")
    assert (params.sticky_action_prob, params.max_steps_in_episode) == (0.0, 1000)
    env, params = jaxrl.make("Seaquest-MinAtar", minimal_actions=False, difficulty_ramping=False)
    assert env.num_actions == 6
    for settings, message in (
        ({"variant": "atari"}, "unknown variant 'atari'"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob is 1.5"),
        ({"max_steps_in_episode": 0}, "max_steps_in_episode is 0"),
        ({"difficulty_ramping": 1}, "of type bool"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            jaxrl.make("Seaquest-MinAtar", **settings)
        assert "\n" not in str(error.value)


def test_render_and_frame():
    env, params = jaxrl.make("Seaquest-MinAtar")
    _, state = env.reset(jaxrl.key(0), params)
    lines = env.render(state, params).splitlines()
    assert lines == [".....Pp...", *[".........."] * 8, "OOOOOOOOOO"]
    assert env.frame(state, params).shape == (160, 160, 3)
