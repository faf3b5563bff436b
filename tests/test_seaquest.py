"""Seaquest-MinAtar against the `minatar` package, move by move with the same draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_games import column, play

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
