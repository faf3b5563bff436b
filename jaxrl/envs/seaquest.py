"""Seaquest-MinAtar: shoot what swims, pick up divers, surface for air. Young and Tian (2019), arXiv 1903.03176.

Fish and submarines cross eight rows of water; submarines shoot. A kill pays 1; a bullet, a fish or a submarine that
touches the player ends the episode, as does running out of oxygen, or surfacing without a diver. Surfacing fills the
oxygen for one diver; with six of them it pays up to 10, by the oxygen left. Each surfacing makes the game harder.

What the authors keep in lists has bounds here that play cannot exceed.

- Enemies have 32 slots. One comes at most every `spawn_speed` steps, and one moves every `move_speed` + 1 steps, so
  that it is gone after 10 * (`move_speed` + 1). At a `move_speed` of 2 that is 30 steps, in which 30 come at most. Of
  those that came at a higher one the next is 15 steps behind, and 60 steps, with eight divers to surface for at most,
  bring 10.
- So enemies of a row, which go one way, never come to one cell at one time: their `move_timer` tells them apart.
- A submarine shoots every 11 steps and its bullet flies for 10, so that the bullet can have the submarine's slot; the
  next submarine in the slot shoots after 10 steps. Bullets of one cell and direction are one to see.
- Two own bullets fly at most: they fly for 10 steps, and one follows after 5. Two divers: they stay for 60 steps, and
  one follows after 30.

Slots lie across words: bit i of each word is slot i's, so that a few operations on single numbers serve all of them.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxrl import spaces
from jaxrl.envs import minatar
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, never
from jaxrl.types import PyTree

CHANNELS = (
    "sub_front",
    "sub_back",
    "friendly_bullet",
    "trail",
    "enemy_bullet",
    "enemy_fish",
    "enemy_sub",
    "oxygen_gauge",
    "diver_gauge",
    "diver",
)
ALL = (minatar.NOTHING, minatar.LEFT, minatar.UP, minatar.RIGHT, minatar.DOWN, minatar.FIRE)
NOWHERE = 252  # the place of what is not there; a place is 16 * row + column, so that its neighbours are off, too
MAX_OXYGEN = 200
MAX_DIVERS = 6
SPAWN_SPEED, MOVE_SPEED = 20, 5  # at the start
DIVER_SPAWN, DIVER_MOVE = 30, 5
COOL_DOWN, ENEMY_COOL_DOWN = 5, 10

_ROW, _COLUMN = (of.astype(np.int32) for of in np.divmod(np.arange(100), 10))  # of each cell
_PLACE = 16 * _ROW + _COLUMN
_WATER = np.where((_ROW > 0) & (_ROW < 9), 2**32 - 1, 0).astype(np.uint32)
_FRONT, _BACK, _BULLET, _TRAIL, _ENEMY_BULLET, _FISH, _SUB, _OXYGEN, _SAVED, _DIVER = (
    np.uint32(1 << channel) for channel in range(len(CHANNELS))
)
_NOTHING = np.uint32(0)

Slots = tuple[Array, ...]  # a number of each slot: word k, uint32 [], holds bit k of all


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`minimal_actions` is static, and changes nothing: the game uses all six; the others may be traced or vmapped."""

    minimal_actions: bool = dataclasses.field(default=True, metadata={"static": True})
    difficulty_ramping: bool = True  # whether surfacing makes the game harder
    sticky_action_prob: float = 0.1  # that the last action is done again
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class Swarm(NamedTuple):
    """Where the things in the slots are."""

    there: Array  # uint32 [], whether there is one
    right: Array  # uint32 [], whether it goes right, else left
    row: Slots  # 3 words: the row less 1
    column: Slots  # 4 words


class Enemies(NamedTuple):
    """Fish and submarines."""

    swarm: Swarm
    sub: Array  # uint32 [], whether it is a submarine, else a fish
    move_timer: Slots  # 3 words: steps until it moves
    shot_timer: Slots  # 4 words: steps until it shoots, if it is a submarine


class Bullet(NamedTuple):
    """One of the player's."""

    place: Array  # int32 []
    right: Array  # bool []


class Diver(NamedTuple):
    """One to be saved."""

    place: Array  # int32 []
    right: Array  # bool []
    move_timer: Array  # int32 [], steps until it moves


class State(NamedTuple):
    """Where everything is; of pairs the older comes first."""

    oxygen: Array  # int32 []
    aboard: Array  # int32 [], divers; -1 after six were brought up
    x: Array  # int32 [], column
    y: Array  # int32 [], row; 0 is the surface
    right: Array  # bool [], the player faces right
    bullets: tuple[Bullet, Bullet]
    enemies: Enemies
    enemy_bullets: Swarm
    divers: tuple[Diver, Diver]
    spawn_speed: Array  # int32 [], steps between enemies
    spawn_timer: Array  # int32 [], steps until the next
    diver_timer: Array  # int32 [], steps until a diver comes
    move_speed: Array  # int32 [], steps that an enemy rests
    ramp_index: Array  # int32 [], how often the game became harder
    shot_timer: Array  # int32 [], steps until the player may shoot
    surface: Array  # bool [], at the surface since before
    last_action: Array  # int32 [], of the six
    time: Array  # int32 []


class Chance(NamedTuple):
    """What a step draws; what does not come is not used."""

    enemy_right: Array  # bool []
    enemy_sub: Array  # bool [], true for one in three
    enemy_row: Array  # int32 [], 1..8
    diver_right: Array  # bool []
    diver_row: Array  # int32 [], 1..8


def reset(key: Array, params: Params) -> State:
    """The player at the surface, nobody else."""
    del key, params
    zero, false, none = jnp.zeros((), jnp.int32), jnp.zeros((), bool), jnp.zeros((), jnp.uint32)
    bullet, diver = Bullet(zero + NOWHERE, false), Diver(zero + NOWHERE, false, zero)
    swarm = Swarm(none, none, (none,) * 3, (none,) * 4)
    return State(
        oxygen=zero + MAX_OXYGEN,
        aboard=zero,
        x=zero + 5,
        y=zero,
        right=false,
        bullets=(bullet, bullet),
        enemies=Enemies(swarm, none, (none,) * 3, (none,) * 4),
        enemy_bullets=swarm,
        divers=(diver, diver),
        spawn_speed=zero + SPAWN_SPEED,
        spawn_timer=zero + SPAWN_SPEED,
        diver_timer=zero + DIVER_SPAWN,
        move_speed=zero + MOVE_SPEED,
        ramp_index=zero,
        shot_timer=zero,
        surface=jnp.ones((), bool),
        last_action=zero,
        time=zero,
    )


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """One step of everything, by the action or, as chance has it, the last one again."""
    bits, kind = jax.random.bits(key, (2,), jnp.uint32)
    chance = Chance(
        enemy_right=(bits & 1) != 0,
        enemy_sub=kind < 2**32 // 3,
        enemy_row=((bits >> 1) & 7).astype(jnp.int32) + 1,
        diver_right=(bits & 16) != 0,
        diver_row=((bits >> 5) & 7).astype(jnp.int32) + 1,
    )
    action = minatar.full(action, ALL, params)
    return play(state, minatar.sticky(bits, action, state.last_action, params.sticky_action_prob), chance, params)


def play(state: State, action: Array, chance: Chance, params: Params) -> tuple[State, Array, Array]:
    """The step when `action`, of the six, is what is done, and chance has it so."""
    action, chance = _once((action, chance))
    state = _once(_move(_once(_come(state, chance)), action))
    state, shot = _once(_shoot(state))
    state, rammed, caught = _once(_swim(_once(_pick_up(state))))
    state, hit = _once(_enemies_shoot(state))
    state, prize, ended = _breathe(state, params)
    return state._replace(last_action=action), (shot + rammed + prize).astype(jnp.float32), caught | hit | ended


def _come(state: State, chance: Chance) -> State:
    """An enemy, unless its row has one that comes the other way, and a diver, where it is time."""
    enemies, swarm = state.enemies, state.enemies.swarm
    due = state.spawn_timer == 0
    right, sub = _all(chance.enemy_right), _all(chance.enemy_sub)
    opposed = swarm.there & _equal(swarm.row, chance.enemy_row - 1) & (swarm.right ^ right)
    new = ~swarm.there & (swarm.there + 1) & _all(due & (opposed == 0))  # the first free slot
    swarm = Swarm(
        there=swarm.there | new,
        right=_choose(new, right, swarm.right),
        row=_put(new, chance.enemy_row - 1, swarm.row),
        column=_put(new, jnp.where(chance.enemy_right, 0, 9), swarm.column),
    )
    enemies = Enemies(
        swarm=swarm,
        sub=_choose(new, sub, enemies.sub),
        move_timer=_put(new, state.move_speed, enemies.move_timer),
        shot_timer=_put(new, jnp.int32(ENEMY_COOL_DOWN), enemies.shot_timer),
    )
    diver_due = state.diver_timer == 0
    start = 16 * chance.diver_row + jnp.where(chance.diver_right, 0, 9)
    return state._replace(
        enemies=enemies,
        spawn_timer=jnp.where(due, state.spawn_speed, state.spawn_timer),
        divers=_queue(diver_due, state.divers, Diver(start, chance.diver_right, jnp.int32(DIVER_MOVE))),
        diver_timer=jnp.where(diver_due, DIVER_SPAWN, state.diver_timer),
    )


def _move(state: State, action: Array) -> State:
    """What the player does."""
    left, up, right, down, fire = (action == one for one in ALL[1:])
    shoots = fire & (state.shot_timer == 0)
    return state._replace(
        x=jnp.clip(state.x + right.astype(jnp.int32) - left.astype(jnp.int32), 0, 9),
        y=jnp.clip(state.y + down.astype(jnp.int32) - up.astype(jnp.int32), 0, 8),
        right=right | (state.right & ~left),
        bullets=_queue(shoots, state.bullets, Bullet(16 * state.y + state.x, state.right)),
        shot_timer=jnp.where(shoots, COOL_DOWN, state.shot_timer),
    )


def _shoot(state: State) -> tuple[State, Array]:
    """The player's bullets fly on, the newer first, and each kills the oldest fish, else submarine, where it is."""
    enemies, swarm = state.enemies, state.enemies.swarm
    bullets, kills = [], jnp.zeros((), jnp.int32)
    for bullet in reversed(state.bullets):
        place = _beyond(bullet.place, bullet.right)
        struck = _at(swarm, place)
        for later in (enemies.sub, *reversed(enemies.move_timer)):
            struck = jnp.where((struck & ~later) != 0, struck & ~later, struck)
        swarm = swarm._replace(there=swarm.there & ~struck)
        kills = kills + (struck != 0)
        bullets.append(Bullet(jnp.where(struck != 0, NOWHERE, place), bullet.right))
    newer, older = bullets
    return state._replace(bullets=(older, newer), enemies=enemies._replace(swarm=swarm)), kills


def _pick_up(state: State) -> State:
    """Divers swim on, the newer first; the player takes those that it meets before or after, six at most."""
    player, aboard, divers = 16 * state.y + state.x, state.aboard, []
    for diver in reversed(state.divers):
        met = (diver.place == player) & (aboard < MAX_DIVERS)
        moves = diver.move_timer == 0
        place = jnp.where(moves, _beyond(diver.place, diver.right), diver.place)
        met = met | (moves & (place == player) & (aboard < MAX_DIVERS))
        aboard = aboard + met
        timer = jnp.where(moves, DIVER_MOVE, diver.move_timer - 1)
        divers.append(Diver(jnp.where(met, NOWHERE, place), diver.right, timer))
    newer, older = divers
    return state._replace(divers=(older, newer), aboard=aboard)


def _swim(state: State) -> tuple[State, Array, Array]:
    """Enemies swim on, into the player or into bullets; (State, how many bullets they met, whether they met it)."""
    enemies, player = state.enemies, 16 * state.y + state.x
    moves = _equal(enemies.move_timer, jnp.int32(0))
    swarm = _fly(enemies.swarm, moves)
    caught = (_at(enemies.swarm, player) | _at(swarm, player)) != 0
    kills, bullets = jnp.zeros((), jnp.int32), []
    for bullet in state.bullets:
        struck = _at(swarm, bullet.place) & moves
        swarm = swarm._replace(there=swarm.there & ~struck)
        kills = kills + (struck != 0)
        bullets.append(Bullet(jnp.where(struck != 0, NOWHERE, bullet.place), bullet.right))
    enemies = enemies._replace(swarm=swarm, move_timer=_put(moves, state.move_speed, _less(enemies.move_timer)))
    older, newer = bullets
    return state._replace(enemies=enemies, bullets=(older, newer)), kills, caught


def _enemies_shoot(state: State) -> tuple[State, Array]:
    """Submarines shoot, and their bullets fly on; whether one met the player."""
    enemies, player = state.enemies, 16 * state.y + state.x
    due = _equal(enemies.shot_timer, jnp.int32(0))
    shoots = due & enemies.swarm.there & enemies.sub
    bullets = jax.tree.map(lambda new, old: _choose(shoots, new, old), enemies.swarm, state.enemy_bullets)
    flown = _fly(bullets, bullets.there)
    hit = (_at(bullets, player) | _at(flown, player)) != 0
    timer = _put(due, jnp.int32(ENEMY_COOL_DOWN), _less(enemies.shot_timer))
    return state._replace(enemies=enemies._replace(shot_timer=timer), enemy_bullets=flown), hit


def _breathe(state: State, params: Params) -> tuple[State, Array, Array]:
    """Timers and oxygen run down, and surfacing ends the episode, or pays and makes the game harder."""
    under = state.y > 0
    surfaces = ~under & ~state.surface
    empty = surfaces & (state.aboard == 0)
    surfaces = surfaces & ~empty
    full = surfaces & (state.aboard == MAX_DIVERS)
    harder = surfaces & params.difficulty_ramping & ((state.spawn_speed > 1) | (state.move_speed > 2))
    faster = harder & (state.move_speed > 2) & (state.ramp_index % 2 == 1)
    after = state._replace(
        oxygen=jnp.where(surfaces, MAX_OXYGEN, state.oxygen - under),
        aboard=jnp.where(full, 0, state.aboard) - surfaces,
        surface=~under & (state.surface | surfaces),
        spawn_timer=jnp.maximum(state.spawn_timer - 1, 0),
        diver_timer=jnp.maximum(state.diver_timer - 1, 0),
        shot_timer=jnp.maximum(state.shot_timer - 1, 0),
        spawn_speed=state.spawn_speed - (harder & (state.spawn_speed > 1)),
        move_speed=state.move_speed - faster,
        ramp_index=state.ramp_index + harder,
    )
    return after, jnp.where(full, state.oxygen * 10 // MAX_OXYGEN, 0), empty | (state.oxygen == 0)


def observe(state: State, params: Params) -> Array:
    """bool [10, 10, 10]: rows, columns, `CHANNELS`."""
    del params
    enemies, swarm, bullets = state.enemies, state.enemies.swarm, state.enemy_bullets
    behind = _once(_fly(swarm._replace(right=~swarm.right), swarm.there).column)
    water = _across(swarm)
    seen = water & _match(swarm.column, _COLUMN)
    code = jnp.where((seen & ~enemies.sub) != 0, _FISH, _NOTHING)
    code = code | jnp.where((seen & enemies.sub) != 0, _SUB, _NOTHING)
    code = code | jnp.where((water & _match(behind, _COLUMN)) != 0, _TRAIL, _NOTHING)
    code = code | jnp.where((_across(bullets) & _match(bullets.column, _COLUMN)) != 0, _ENEMY_BULLET, _NOTHING)
    player = 16 * state.y + state.x
    for place, bit in (
        (player, _FRONT),
        (_beyond(player, ~state.right), _BACK),
        *((bullet.place, _BULLET) for bullet in state.bullets),
        *((diver.place, _DIVER) for diver in state.divers),
        *((_beyond(diver.place, ~diver.right), _TRAIL) for diver in state.divers),
    ):
        code = code | jnp.where(place == _PLACE, bit, _NOTHING)
    bottom = _PLACE - 16 * 9  # the columns of the last row
    oxygen = jnp.maximum(state.oxygen, 0) * 10 // MAX_OXYGEN
    code = code | jnp.where((bottom >= 0) & (bottom < oxygen), _OXYGEN, _NOTHING)
    code = code | jnp.where((bottom >= 9 - state.aboard) & (bottom < 9), _SAVED, _NOTHING)
    return minatar.observation(_once(code).astype(jnp.uint16), len(CHANNELS))


def observation_space(params: Params) -> spaces.Box:
    """Bools [10, 10, 10]."""
    del params
    return minatar.observation_space(len(CHANNELS))


def action_space(params: Params) -> spaces.Discrete:
    """0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire."""
    return minatar.action_space(ALL, params)


def render(state: State, params: Params) -> str:
    """The cells: Pp player, * its bullets, D divers, S submarines, F fish, o bullets, O oxygen, d saved, - trails."""
    order = ("sub_front", "sub_back", "friendly_bullet", "diver", "enemy_sub", "enemy_fish", "enemy_bullet")
    order = (*order, "diver_gauge", "oxygen_gauge", "trail")
    board = observe(state, params)[..., np.array([CHANNELS.index(name) for name in order])]
    return minatar.text(board, "Pp*DSFodO-")


def frame(state: State, params: Params) -> np.ndarray:
    """A colour for each channel."""
    return minatar.frame(observe(state, params))


def seaquest(variant: str = "published") -> PureEnvironment:
    """The environment by the authors' rules; or as gymnax has it, 1,000 steps and no sticky actions."""
    return PureEnvironment(
        "Seaquest-MinAtar",
        minatar.variant(variant, Params()),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        frame_fn=frame,
        check_fn=minatar.check,
        splits_fn=never,  # reset draws nothing
    )


def _queue(comes: Array, pair: tuple, new: tuple) -> tuple:
    """The pair after a new one, where it comes: the older has left the board by then."""
    return jax.tree.map(lambda x, y: jnp.where(comes, x, y), (pair[1], new), pair)


def _beyond(place: Array, right: Array) -> Array:
    """The place one column on, or NOWHERE."""
    place = jnp.where(right, place + 1, place - 1)
    return jnp.where((place & 15) < 10, place, NOWHERE)


def _all(condition: Array) -> Array:
    """uint32 []: every slot, or none."""
    return jnp.where(condition, jnp.uint32(2**32 - 1), jnp.uint32(0))


def _choose(slots: Array, new: Array, old: Array) -> Array:
    return (new & slots) | (old & ~slots)


def _equal(numbers: Slots, value: Array) -> Array:
    """uint32 []: the slots whose number is `value`."""
    differ = [word ^ _all((value >> k & 1) != 0) for k, word in enumerate(numbers)]
    return ~functools.reduce(jnp.bitwise_or, differ)


def _match(numbers: Slots, values: np.ndarray) -> Array:
    """uint32 [100]: `_equal` of each cell's own value."""
    masks = [np.where(values >> k & 1, 2**32 - 1, 0).astype(np.uint32) for k in range(len(numbers))]
    return ~functools.reduce(jnp.bitwise_or, [word ^ mask for word, mask in zip(numbers, masks, strict=True)])


def _across(swarm: Swarm) -> Array:
    """uint32 [100]: the slots in each cell's row."""
    return _match(swarm.row, _ROW - 1) & _WATER & swarm.there


def _put(slots: Array, value: Array, numbers: Slots) -> Slots:
    """The numbers, those of `slots` now `value`."""
    return tuple(_choose(slots, _all((value >> k & 1) != 0), word) for k, word in enumerate(numbers))


def _less(numbers: Slots) -> Slots:
    """Each number less 1."""
    borrow, words = jnp.uint32(2**32 - 1), []
    for word in numbers:
        words.append(word ^ borrow)
        borrow = borrow & ~word
    return tuple(words)


def _at(swarm: Swarm, place: Array) -> Array:
    """uint32 []: the slots of what is at a place."""
    row = (place >> 4) - 1
    return swarm.there & _equal(swarm.row, row) & _equal(swarm.column, place & 15) & _all((row >= 0) & (row < 8))


def _fly(swarm: Swarm, moves: Array) -> Swarm:
    """The swarm, `moves` one column on; gone at the side."""
    carry, words = moves, []
    for word in swarm.column:
        words.append(word ^ carry)
        carry = carry & ~(word ^ swarm.right)
    beside = words[3] & (words[1] | words[2])  # 10 to 15
    return swarm._replace(column=tuple(words), there=swarm.there & ~beside)


def _once(tree: PyTree) -> PyTree:
    """The same, computed once: XLA repeats what has several uses in each of them, but no reduction.

    Without it a step takes seven times as long, and to compile it twenty times.
    """

    def leaf(x: Array) -> Array:
        planes = np.array([True, False]).reshape(2, *[1] * x.ndim)
        return lax.reduce(jnp.where(planes, x[None], x.dtype.type(0)), x.dtype.type(0), lax.bitwise_or, (0,))

    return jax.tree.map(leaf, tree)
