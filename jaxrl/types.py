"""The nouns: what environments, agents, buffers and the loop hand to each other.

An algorithm is a NamedTuple of pure functions; the four kinds of module meet only in the data below.
Axis letters are the same everywhere: N environments, B batch, T window, A actions, S states, C rows of a ring.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jax import Array
from jax.typing import ArrayLike

PyTree = Any
Metrics = dict[str, Array]  # sums and counts, so that they add up over iterations, seeds and devices
Schedule = Callable[[ArrayLike], Array]  # environment steps so far [] -> value []
NO_LIMIT = 2**31 - 1  # a `max_steps_in_episode` that is never reached
# what an environment's step gives: obs, state, reward, terminated, truncated, info
Step = tuple[PyTree, PyTree, Array, Array, Array, dict[str, Any]]


class Masked(NamedTuple):
    """An observation that says which actions are allowed, so that the bootstrap at next_obs has its mask too."""

    observation: PyTree
    action_mask: Array  # [..., A] bool, at least one true


class Transition(NamedTuple):
    """One step of experience, facts only; leading axes are [], [N] or [B, T]."""

    obs: PyTree  # what the agent saw
    action: Array  # int32, the index it chose, or [..., D] one in each dimension
    reward: Array  # float32
    terminated: Array  # bool: the task itself ended, so there is no value beyond
    truncated: Array  # bool: only a limit cut it, so the value of next_obs still counts
    next_obs: PyTree  # the true next observation, before any auto-reset
    carry: PyTree = ()  # the agent's memory before it acted; [B, ...] in a window: at the window's start


class Sample(NamedTuple):
    """A batch of windows drawn from a buffer."""

    window: Transition  # [B, T, ...]
    index: Array  # type: ignore[assignment] # hides tuple.index, which nobody needs; [B] int32: for Buffer.update
    weight: Array  # [B] float32: importance weight, 1 where sampling is uniform; 0, and index -1, where no window is


class Act(Protocol):
    """Chooses for ONE environment; the loop vmaps it."""

    def __call__(
        self, state: PyTree, carry: PyTree, obs: PyTree, key: Array, steps: ArrayLike, greedy: bool = False
    ) -> tuple[Array, PyTree]: ...


class Agent(NamedTuple):
    """A learner: pure functions over a state of its own. `steps` is environment steps so far, float32."""

    init: Callable[[Array, PyTree], PyTree]  # (key, obs [N, ...]) -> state
    carry: Callable[[int], PyTree]  # (num_envs) -> memory at an episode's start [N, ...]
    act: Act  # (state, carry, obs, key, steps, greedy=False) -> (action [], carry)
    update: Callable[
        [PyTree, Sample, Array, Array], tuple[PyTree, Array, Metrics]
    ]  # (state, sample, key, steps) -> (state, priority [B], metrics: means over the batch)
    priority: Callable[[PyTree, Transition], Array] | None = None  # (state, window [B, T]) -> [B], the actor's own
    rows: Callable[[int], int] | None = None  # (unroll) -> T of the newest windows, if each step is to be seen once


class SampleFn(Protocol):
    """Draws windows; with `batches` > 1 every leaf of the Sample gains that leading axis."""

    def __call__(self, state: PyTree, key: Array, clock: Array, batches: int = 1) -> Sample: ...


class Buffer(NamedTuple):
    """A memory of transitions: pure functions over a state whose layout is its secret.

    `clock` is the number of adds so far: an unbatched scalar that the loop keeps, also when seeds are vmapped,
    so that every write stays one contiguous slice update.
    """

    init: Callable[[Transition], PyTree]  # (step [N], an example) -> state
    add: Callable[[PyTree, Transition, Array], PyTree]  # (state, step [N], clock before this add) -> state
    sample: SampleFn  # (state, key, clock, batches=1) -> Sample
    update: Callable[[PyTree, Array, Array], PyTree]  # (state, index [B], priority [B]) -> state
    fresh: Callable[[PyTree, Array, int], Sample]  # (state, clock, steps) -> windows the last `steps` adds completed
    min_steps: int  # adds before a first sample
    capacity: int  # transitions held at most
    nbytes: Callable[[Transition], int]  # (step [N], an example or its shapes) -> bytes of the state
    counts: Callable[[PyTree], Metrics]  # (state) -> what was lost or refused so far, by name
    contents: Callable[[PyTree, Array], Transition]  # (state, concrete clock) -> the steps held, oldest first [n, N]
    ahead: bool = True  # whether a phase's batches may all be drawn before its first update
