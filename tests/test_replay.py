"""The compact replay against plain lists of steps: every window held, to the bit, whatever ends, whenever it wraps."""

import collections
import functools
import itertools
import math
from typing import NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from jaxrl import buffers, prng
from jaxrl.types import Buffer, Masked, Sample, Transition

BATCH = 16


class Setting(NamedTuple):
    """A replay of `steps` steps of every environment."""

    steps: int
    num_envs: int
    window: int = 1
    stride: int = 1
    ends: float = 0.25
    stack: int = 1
    crossing: bool = True
    carry: bool = True
    rich: bool = False  # observations of every kind of leaf, and with an action mask

    @property
    def finals(self) -> float:
        """Places for final observations; infinitely many where each step has its own."""
        places = max(math.ceil(self.ends * self.steps * self.num_envs), self.num_envs)
        return math.inf if places >= self.steps * self.num_envs else places

    @property
    def lanes(self) -> list[int]:
        """The environments in the order in which they take places: words of 32 lanes, dealt in turn."""
        words = math.ceil(self.num_envs / 32)
        return sorted(range(self.num_envs), key=lambda e: (e % words, e // words))

    def starts(self, clock: int) -> list[int]:
        """Where complete windows start, oldest first."""
        held = range(max(0, clock - self.steps), clock)
        return [s for s in held if s % self.stride == 0 and s + self.window <= clock]


SETTINGS = {
    "single steps": Setting(7, 3, rich=True),
    "crowded side store": Setting(9, 5, window=3, ends=0.0),
    "strides": Setting(11, 3, window=4, stride=3, ends=0.3),
    "two words of lanes": Setting(6, 40, window=2, ends=0.2),
    "stacks": Setting(7, 3, window=3, stride=2, ends=0.2, stack=4, rich=True),
    "both observations": Setting(5, 4, window=2, stride=2, ends=1.0, stack=2, carry=False),
    "one window": Setting(3, 2, window=3, ends=0.1, stack=5),
    "within episodes": Setting(8, 4, window=3, ends=0.2, crossing=False),
}


@functools.cache
def replay(setting: Setting, batch_size: int = BATCH, **options) -> Buffer:
    """The buffer, each function compiled."""
    buffer = built(setting, batch_size, **options)
    return buffer._replace(
        init=jax.jit(buffer.init),
        add=jax.jit(buffer.add, donate_argnums=0),
        sample=jax.jit(buffer.sample, static_argnames="batches"),
        fresh=jax.jit(buffer.fresh, static_argnums=2),
    )


def built(setting: Setting, batch_size: int = BATCH, **options) -> Buffer:
    capacity = (setting.steps - 1) * setting.num_envs + 1  # rounded up
    sizes = capacity, batch_size, setting.num_envs, setting.window, setting.stride
    options |= {"crossing": setting.crossing, "stack": setting.stack, "carry": setting.carry, "ends": setting.ends}
    return buffers.uniform(*sizes, **options)


# The reference: a frame is a number that no other frame has, and the rest of a step follows from its newest frame


def observation(setting: Setting, frames):
    """What the agent sees of stacks of frames [..., stack]."""
    shown = frames if setting.stack > 1 else frames[..., 0]
    digits = shown.astype(np.uint32)[(..., None, slice(None)) if setting.stack > 1 else (..., None)]
    shift = np.arange(13, dtype=np.uint32)[(slice(None), None) if setting.stack > 1 else slice(None)]
    seen = {"frame": shown.astype(np.int32), "bits": (digits * np.uint32(2654435761) >> shift + np.uint32(7)) & 1 == 1}
    if not setting.rich:
        return seen
    seen |= {"byte": (shown % 251).astype(np.uint8), "flag": shown % 3 == 0}
    return Masked(seen, frames[..., -1:] % np.arange(2, 7) == 0)


def carry_of(frames):
    return {"memory": np.stack([frames[..., -1] * 0.5, -frames[..., 0]], axis=-1).astype(np.float32)}


def transition(setting: Setting, frames, terminated, truncated, next_frames, carry) -> Transition:
    return Transition(
        obs=observation(setting, frames),
        action=(frames[..., -1] % 6).astype(np.int32),
        reward=(frames[..., -1] * 7919 % 1009 / 8).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        next_obs=observation(setting, next_frames),
        carry=carry,
    )


def head(tree, count: int):
    return jax.tree.map(lambda x: x[:count], tree)


def equal(got, wanted) -> None:
    got = jax.device_get(got)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(lambda x: (x.shape, x.dtype), wanted)


def example(setting: Setting) -> Transition:
    return Memory(setting).play([""] * setting.num_envs)


class Step(NamedTuple):
    frames: tuple[int, ...]
    terminated: bool
    truncated: bool
    next_frames: tuple[int, ...]
    lost: bool = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class Memory:
    """Every step of every environment so far, in lists, and what the replay ought to know of them."""

    def __init__(self, setting: Setting, first: int = 0):
        self.setting, self.first = setting, first  # the clock before the first step
        self.rows: list[list[Step]] = []
        self.numbers = itertools.count(1)
        self.now = [self.begin() for _ in range(setting.num_envs)]

    def begin(self) -> tuple[int, ...]:
        return (next(self.numbers),) * self.setting.stack

    @property
    def clock(self) -> int:
        return self.first + len(self.rows)

    def play(self, ends: list[str]) -> Transition:
        """One step; `ends` says which lanes are "terminated", "truncated", both or neither."""
        row = []
        for lane, end in enumerate(ends):
            frames = self.now[lane]
            step = Step(frames, "terminated" in end, "truncated" in end, (*frames[1:], next(self.numbers)))
            self.now[lane] = self.begin() if step.ended else step.next_frames
            row.append(step)
        given = self.arrays([row])
        held = self.rows[max(0, len(self.rows) - self.setting.steps + 1) :]
        free = self.setting.finals - sum(step.ended and not step.lost for row in held for step in row)
        for lane in self.setting.lanes:
            if row[lane].ended:
                row[lane] = row[lane]._replace(lost=free <= 0)
                free -= free > 0
        self.rows.append(row)
        return jax.tree.map(lambda x: x[0], given)

    def arrays(self, rows: list[list[Step]], carry: bool = True) -> Transition:
        """Rows of steps as one transition; a lost observation reads as its step's own."""
        frames = np.array([[step.frames for step in row] for row in rows])
        after = [[(*s.frames[1:], s.frames[-1]) if s.lost else s.next_frames for s in row] for row in rows]
        terminated = np.array([[step.terminated for step in row] for row in rows])
        truncated = np.array([[step.truncated for step in row] for row in rows])
        kept = carry_of(frames) if carry else ()
        return transition(self.setting, frames, terminated, truncated, np.array(after), kept)

    def window(self, start: int, env: int) -> list[Step]:
        at = start - self.first
        return [self.rows[t][env] for t in range(at, at + self.setting.window)]

    def drawable(self, start: int, env: int) -> bool:
        steps = self.window(start, env)
        if not self.setting.crossing and any(step.ended for step in steps[:-1]):
            return False
        return not any(step.lost and not step.terminated for step in steps)

    def check_windows(self, windows: Transition, pairs: list[tuple[int, int]]) -> None:
        steps = [self.window(*pair) for pair in pairs]
        wanted = self.arrays(steps, carry=False)
        if self.setting.carry:
            wanted = wanted._replace(carry=carry_of(np.array([row[0].frames for row in steps])))
        equal(windows, wanted)

    def check(self, sample: Sample, pairs: list[tuple[int, int]]) -> None:
        """A sample is the windows `pairs` of (start, env), without a name where they are not to be drawn."""
        self.check_windows(sample.window, pairs)
        drawable = [self.drawable(*pair) for pair in pairs]
        np.testing.assert_array_equal(sample.weight, np.array(drawable, np.float32))
        np.testing.assert_array_equal(np.asarray(sample.index) >= 0, drawable)
        known = {pair: name for pair, name in zip(pairs, np.asarray(sample.index).tolist()) if name >= 0}
        assert len(known) == len(set(known.values()))

    def everything(self, clock: int) -> list[tuple[int, int]]:
        return [(s, e) for s in self.setting.starts(clock) for e in range(self.setting.num_envs)]

    def find(self, sample: Sample) -> list[tuple[int, int]]:
        """The windows of a sample, known by their first frames."""
        seen = sample.window.obs
        frames = np.asarray((seen.observation if self.setting.rich else seen)["frame"])[:, 0]
        frames = frames.reshape(len(frames), -1)[:, -1].tolist()
        places = {self.window(s, e)[0].frames[-1]: (s, e) for s, e in self.everything(self.clock)}
        return [places[frame] for frame in frames]  # a frame that is not held has no place

    def lost(self) -> dict[str, int]:
        lost = [step for row in self.rows for step in row if step.lost]
        copied = sum(step.terminated for step in lost)
        return {"copied": copied, "cut": len(lost) - copied}


KINDS = ["terminated", "truncated", "terminated truncated"]


def random_ends(rng: np.random.Generator, lanes: int, rate: float, kinds: list[str] = KINDS) -> list[str]:
    return [str(rng.choice(kinds)) if rng.random() < rate else "" for _ in range(lanes)]


class Replay(RuleBasedStateMachine):
    """A replay and its reference side by side, in whatever order hypothesis adds and looks."""

    make = staticmethod(lambda setting: replay(setting))

    def __init__(self, setting: Setting):
        super().__init__()
        self.setting, self.buffer, self.memory = setting, self.make(setting), Memory(setting)
        self.state = self.buffer.init(example(setting))

    def play(self, ends: list[str]) -> None:
        clock = np.int32(self.memory.clock)
        self.state = self.buffer.add(self.state, self.memory.play(ends), clock)

    @rule(
        steps=strategies.integers(1, 15),
        rate=strategies.sampled_from([0.0, 0.05, 0.3, 1.0]),
        kinds=strategies.sampled_from([KINDS[:1], KINDS[1:2], KINDS]),
        seed=strategies.integers(0, 1000),
    )
    def add(self, steps, rate, kinds, seed):
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            self.play(random_ends(rng, self.setting.num_envs, rate, kinds))

    @rule(data=strategies.data())
    def add_one(self, data):
        end = strategies.sampled_from(["", *KINDS])
        lanes = self.setting.num_envs
        self.play(data.draw(strategies.lists(end, min_size=lanes, max_size=lanes)))

    @precondition(lambda self: self.memory.clock >= self.setting.window)
    @rule(seed=strategies.integers(0, 1000))
    def sample(self, seed):
        sample = jax.device_get(self.buffer.sample(self.state, prng.key(seed), np.int32(self.memory.clock)))
        self.check_sample(sample)

    def check_sample(self, sample: Sample) -> None:
        self.memory.check(sample, self.memory.find(sample))

    @precondition(lambda self: self.memory.clock >= self.setting.window)
    @rule()
    def every_window(self):
        setting, clock = self.setting, self.memory.clock
        sample = jax.device_get(self.buffer.fresh(self.state, np.int32(clock), setting.steps - setting.window + 1))
        pairs = self.memory.everything(clock)
        self.memory.check(head(sample, len(pairs)), pairs)
        np.testing.assert_array_equal(sample.index[len(pairs) :], -1)
        np.testing.assert_array_equal(sample.weight[len(pairs) :], 0)

    @invariant()
    def counts_what_is_lost(self):
        counts = self.buffer.counts(self.state)
        assert {name: int(counts[name]) for name in ("copied", "cut")} == self.memory.lost()


class Prioritized(Replay):
    """The same of prioritized replay, beside a dictionary of masses; alpha is 1, beta a half."""

    make = staticmethod(lambda setting: prioritized(setting))

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.mass: dict[tuple[int, int], float] = {}
        self.names: dict[tuple[int, int], int] = {}  # of every window so far
        self.largest = 1.0

    def play(self, ends: list[str]) -> None:
        super().play(ends)
        pairs = [pair for pair in self.memory.everything(self.memory.clock) if self.memory.drawable(*pair)]
        self.mass = {pair: self.mass.get(pair, self.largest) for pair in pairs}

    @precondition(lambda self: self.memory.clock >= self.setting.window)
    @rule(seed=strategies.integers(0, 1000))
    def learn(self, seed):
        """Priorities for windows held and for some from long ago."""
        rng, setting = np.random.default_rng(seed), self.setting
        every = self.buffer.fresh(self.state, np.int32(self.memory.clock), setting.steps - setting.window + 1)
        index = np.asarray(every.index).tolist()
        pairs = self.memory.everything(self.memory.clock)
        self.names |= {pair: name for pair, name in zip(pairs, index) if self.memory.drawable(*pair)}
        if not self.names:
            return
        known = list(self.names)[-3 * len(pairs) :]
        chosen = [known[i] for i in rng.integers(0, len(known), 12)]
        priority = rng.uniform(0, 3, 12).astype(np.float32)
        names = np.array([self.names[pair] for pair in chosen], np.int32)
        self.state = self.buffer.update(self.state, names, priority)
        new: dict[tuple[int, int], float] = {}
        for pair, p in zip(chosen, priority.tolist()):
            if pair in self.mass:
                new[pair] = max(new.get(pair, 0.0), p + 1e-6)
        self.mass |= new
        self.largest = max([self.largest, *new.values()])

    def check_sample(self, sample: Sample) -> None:
        if not self.mass:
            assert np.all(sample.index == -1) and not np.any(sample.weight)
            return
        pairs = self.memory.find(sample)
        self.memory.check_windows(sample.window, pairs)
        mass = np.array([self.mass[pair] for pair in pairs])  # none that may not be drawn
        np.testing.assert_allclose(sample.weight, (mass.min() / mass) ** 0.5, rtol=1e-5)
        assert all(self.names.get(pair, name) == name for pair, name in zip(pairs, sample.index.tolist()))


@functools.cache
def prioritized(setting: Setting) -> Buffer:
    sizes = setting.steps * setting.num_envs, BATCH, setting.num_envs, setting.window, setting.stride
    buffer = buffers.prioritized(*sizes, alpha=1.0, beta=0.5, crossing=setting.crossing, ends=setting.ends)
    return buffer._replace(
        init=jax.jit(buffer.init),
        add=jax.jit(buffer.add, donate_argnums=0),
        sample=jax.jit(buffer.sample),
        update=jax.jit(buffer.update, donate_argnums=0),
        fresh=jax.jit(buffer.fresh, static_argnums=2),
    )


MACHINES = {name: (Replay, setting) for name, setting in SETTINGS.items() if setting.crossing} | {
    "priorities within episodes": (Prioritized, SETTINGS["within episodes"]),
    "priorities, two words of lanes": (Prioritized, Setting(5, 33, window=2, stride=2, ends=0.2)),
}


@pytest.mark.parametrize(("machine", "setting"), MACHINES.values(), ids=MACHINES)
def test_any_order_of_adds_and_looks(machine, setting):
    settings = hypothesis.settings(
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    run_state_machine_as_test(functools.partial(machine, setting), settings=settings)


def check_everything(memory: Memory, buffer: Buffer, state) -> None:
    setting = memory.setting
    sample = buffer.fresh(state, np.int32(memory.clock), setting.steps - setting.window + 1)
    pairs = memory.everything(memory.clock)
    memory.check(head(jax.device_get(sample), len(pairs)), pairs)


@pytest.mark.parametrize("name", ["crowded side store", "two words of lanes"])
def test_the_number_of_finals_stored_may_wrap(name):
    """Its modulus, a multiple of the places, is 2^31 or less: all windows stay right on the way past it."""
    setting, rng = SETTINGS[name], np.random.default_rng(0)
    buffer, memory, places = replay(setting), Memory(setting), int(setting.finals)
    state = buffer.init(example(setting))
    state = state._replace(stored=jnp.uint32((2**31 - 1) // places * places - 3 * places + 2))
    for _ in range(4 * setting.steps):
        state = buffer.add(state, memory.play(random_ends(rng, setting.num_envs, 0.3)), np.int32(memory.clock - 1))
        if memory.clock >= setting.window:
            check_everything(memory, buffer, state)
    assert state.stored < 2**20  # it has wrapped
    assert min(memory.lost().values()) > 0


@pytest.mark.parametrize("name", ["strides", "stacks", "two words of lanes"])
def test_the_clock_may_come_to_its_largest(name):
    setting, rng = SETTINGS[name], np.random.default_rng(0)
    buffer, memory = replay(setting), Memory(setting, first=2**31 - 50)
    state = buffer.init(example(setting))
    for age in range(1, 49):
        state = buffer.add(state, memory.play(random_ends(rng, setting.num_envs, 0.2)), np.int32(memory.clock - 1))
        if age >= setting.steps + setting.stack:  # no window reaches to before the first
            check_everything(memory, buffer, state)
            sample = jax.device_get(buffer.sample(state, prng.key(age), np.int32(memory.clock)))
            assert set(memory.find(sample)) <= set(memory.everything(memory.clock))


@pytest.mark.parametrize(("name", "clock"), [("single steps", 4), ("strides", 25), ("stacks", 5), ("stacks", 23)])
def test_contents_are_the_steps_held(name, clock):
    setting, rng = SETTINGS[name], np.random.default_rng(0)
    buffer, memory = replay(setting), Memory(setting)
    state = buffer.init(example(setting))
    for t in range(clock):
        state = buffer.add(state, memory.play(random_ends(rng, setting.num_envs, 0.4)), np.int32(t))
    steps = jax.jit(lambda state: buffer.contents(state, np.int32(clock)))(state)
    equal(steps, memory.arrays(memory.rows[-setting.steps :], carry=False))


# A long run: a million steps, many rounds of the ring


class History(NamedTuple):
    """Steps [t, N] of a run as numpy arrays."""

    frames: np.ndarray  # [t, N, stack]
    terminated: np.ndarray
    truncated: np.ndarray
    next_frames: np.ndarray  # [t, N, stack], the true ones
    lost: np.ndarray


def history(setting: Setting, steps: int, seed: int) -> History:
    """Random ends, at a rate that changes every 41 steps from none to every step."""
    rng = np.random.default_rng(seed)
    lanes, stack = setting.num_envs, setting.stack
    rate = np.repeat(rng.choice([0.0, 0.01, 0.05, 0.2, 1.0], steps // 41 + 1, p=[0.2, 0.3, 0.3, 0.15, 0.05]), 41)[
        :steps
    ]
    terminated, truncated = rng.random((2, steps, lanes)) < rate[:, None]
    ended = terminated | truncated
    fresh, newest = 2 * np.arange(steps * lanes).reshape(1, steps, lanes) + np.array([1, 2])[:, None, None]
    frames, next_frames = np.empty((2, steps, lanes, stack), np.int64)
    now = np.broadcast_to(-1 - np.arange(lanes)[:, None], (lanes, stack))
    for t in range(steps):
        frames[t] = now
        next_frames[t] = np.concatenate([now[:, 1:], newest[t][:, None]], axis=1)
        now = np.where(ended[t][:, None], fresh[t][:, None], next_frames[t])
    return History(frames, terminated, truncated, next_frames, lost_of(setting, ended))


def lost_of(setting: Setting, ended: np.ndarray) -> np.ndarray:
    """[t, N]: the ends that found no place."""
    lost = np.zeros_like(ended)
    kept = collections.deque([0] * (setting.steps - 1), setting.steps - 1)
    for t in range(len(ended)):
        places = np.array(setting.lanes)[ended[t][setting.lanes]]
        free = min(setting.finals - sum(kept), setting.num_envs)
        lost[t, places[int(free) :]] = True
        kept.append(min(len(places), int(free)))
    return lost


def check_history(setting: Setting, run: History, start, env, sample: Sample, known) -> None:
    """The windows at (start, env) [...] of a run, of which those not `known` are no part of it."""
    rows, lanes = start[..., None] + np.arange(setting.window), env[..., None]
    frames, terminated, truncated, next_frames, lost = (x[rows, lanes] for x in run)
    copied = np.concatenate([frames[..., 1:], frames[..., -1:]], axis=-1)
    carry = carry_of(frames[..., 0, :])
    wanted = transition(setting, frames, terminated, truncated, np.where(lost[..., None], copied, next_frames), carry)
    equal(jax.tree.map(lambda x: x[known], sample.window), jax.tree.map(lambda x: x[known], wanted))
    drawable = ~np.any(lost & ~terminated, axis=-1)[known]
    np.testing.assert_array_equal(sample.weight[known], drawable.astype(np.float32))
    np.testing.assert_array_equal(sample.index[known] >= 0, drawable)


LONG = {
    "two words of lanes": (Setting(50, 40, window=3, ends=0.03), 23_000),
    "stacks": (Setting(33, 7, window=4, stride=2, ends=0.05, stack=3), 12_000),
}


@pytest.mark.parametrize(("setting", "steps"), LONG.values(), ids=LONG)
def test_a_long_run(setting, steps):
    run = history(setting, steps, seed=0)
    carry = carry_of(run.frames)
    given = transition(setting, run.frames, run.terminated, run.truncated, run.next_frames, carry)
    buffer, chunk = built(setting, 8), steps // 10
    all_steps = setting.steps - setting.window + 1

    @functools.partial(jax.jit, donate_argnums=0)
    def play(state, given, clock):
        def tick(carry, step):
            state, clock = carry
            state = buffer.add(state, step, clock)
            sample = buffer.sample(state, jax.random.fold_in(prng.key(0), clock), clock + 1)
            return (state, clock + 1), sample

        (state, clock), samples = jax.lax.scan(tick, (state, clock), given)
        return state, samples, buffer.fresh(state, clock, all_steps), buffer.counts(state)

    state = buffer.init(example(setting))
    place = {frame: (t, e) for t, row in enumerate(run.frames[..., -1].tolist()) for e, frame in enumerate(row)}
    cut, counts = 0, {}
    for low in range(0, steps, chunk):
        part = jax.tree.map(lambda x, low=low: x[low : low + chunk], given)
        state, samples, every, counts = jax.device_get(play(state, part, np.int32(low)))
        clock = np.arange(low, low + chunk)[:, None] + 1
        first = samples.window.obs["frame"][:, :, 0].reshape(chunk, 8, -1)[..., -1].tolist()
        found = np.array([[place.get(frame, (-1, -1)) for frame in row] for row in first])
        start, env = found[..., 0], found[..., 1]
        known = np.broadcast_to(clock >= setting.window, start.shape)
        assert np.all(~known | ((start % setting.stride == 0) & (start >= 0)))
        assert np.all(~known | ((start >= clock - setting.steps) & (start <= clock - setting.window)))
        check_history(setting, run, start, env, samples, known & (start >= 0))
        starts = np.array(setting.starts(low + chunk))
        start, env = (x.reshape(-1) for x in np.meshgrid(starts, np.arange(setting.num_envs), indexing="ij"))
        check_history(setting, run, start, env, head(every, len(start)), np.ones(len(start), bool))
        assert np.all(every.index[len(start) :] == -1)
        cut += np.sum(every.weight == 0) - (len(every.index) - len(start))
        so_far = run.lost[: low + chunk]
        ending = run.terminated[: low + chunk]
        assert {"copied": np.sum(so_far & ending), "cut": np.sum(so_far & ~ending)} == counts
    assert cut > 0 and counts["cut"] > 300  # or it tested little
