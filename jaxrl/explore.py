"""Exploration: schedules over environment steps, and choices from action values that honour a mask.

Values are q [..., A]; every choice acts on the last axis. A mask [..., A] is true where an action is allowed and
must allow at least one.
"""

import functools
import itertools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.types import Masked, PyTree, Schedule

# Up to so many actions straight code over columns is used: XLA on CPU takes five times as long to reduce a short axis.
_UNROLL = 16


def constant(value: ArrayLike) -> Schedule:
    """The same value for ever."""
    return lambda steps: jnp.asarray(value, jnp.float32)


def linear(start: ArrayLike, end: ArrayLike, steps: ArrayLike) -> Schedule:
    """From `start` to `end` in a straight line over `steps` environment steps, then `end` (Mnih et al. 2015)."""
    checks.in_range("steps of a linear schedule", steps, 0, float("inf"), open_low=True)

    def value(now: ArrayLike) -> Array:
        first, last = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
        return first + jnp.clip(jnp.asarray(now, jnp.float32) / steps, 0.0, 1.0) * (last - first)

    return value


def exponential(start: ArrayLike, end: ArrayLike, half_life: ArrayLike) -> Schedule:
    """From `start` towards `end`, the distance halved every `half_life` environment steps."""
    checks.in_range("half_life", half_life, 0, float("inf"), open_low=True)

    def value(now: ArrayLike) -> Array:
        first, last = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
        return last + (first - last) * jnp.exp2(-jnp.asarray(now, jnp.float32) / half_life)

    return value


def glie(steps: ArrayLike, floor: ArrayLike = 0.0) -> Schedule:
    """1/k in the k-th span of `steps` environment steps: greedy in the limit with infinite exploration.

    Singh et al. (2000), section 2. With a floor above 0 it is no longer greedy in the limit.
    """
    checks.in_range("steps of a GLIE schedule", steps, 0, float("inf"), open_low=True)
    return lambda now: jnp.maximum(floor, 1.0 / (1.0 + jnp.floor(jnp.asarray(now, jnp.float32) / steps)))


def ladder(num_envs: int, base: float = 0.4, alpha: float = 7.0) -> Array:
    """One epsilon per actor, base^(1 + alpha i / (N - 1)), [N] (Horgan et al. 2018, section 4.1)."""
    checks.at_least("num_envs of an epsilon ladder", num_envs, 2)
    checks.in_range("base", base, 0, 1)
    return jnp.asarray(base, jnp.float32) ** (1.0 + alpha * jnp.arange(num_envs) / (num_envs - 1))


def epsilon_schedule(epsilon: ArrayLike | Schedule) -> Schedule:
    """A schedule itself, or a number in [0, 1] as a constant one."""
    if callable(epsilon):
        return epsilon
    checks.in_range("epsilon", epsilon, 0, 1)
    return constant(epsilon)


class Softmax(NamedTuple):
    """Boltzmann exploration as deep agents take it in place of an epsilon: see `softmax`."""

    temperature: Schedule


Rule = ArrayLike | Schedule | Softmax  # how a deep agent explores: epsilon, its schedule, or a softmax


def softmax(temperature: ArrayLike | Schedule) -> Softmax:
    """Chances proportional to exp(q / temperature), in place of an epsilon; a schedule of temperatures may end at 0."""
    if callable(temperature):
        return Softmax(temperature)
    checks.in_range("temperature of a softmax", temperature, 0, float("inf"), open_low=True, open_high=True)
    return Softmax(constant(temperature))


def split_mask(obs: PyTree) -> tuple[PyTree, Array | None]:
    """The observation without its action mask, and the mask [A], None where every action is always allowed."""
    return (obs.observation, obs.action_mask) if isinstance(obs, Masked) else (obs, None)


def masked(q: Array, mask: Array | None) -> Array:
    """Values with forbidden actions at minus infinity."""
    return q if mask is None else jnp.where(mask, q, -jnp.inf)


def greedy(q: Array, key: Array | None = None, mask: Array | None = None) -> Array:
    """The best allowed action of q [..., A]; ties go to the first index, or with a key to any at random."""
    q = masked(q, mask)
    if key is None:
        return jnp.argmax(q, axis=-1).astype(jnp.int32)
    return _any_of(_ties(q), jax.random.uniform(key, q.shape[:-1]))


def epsilon_greedy(q: Array, epsilon: ArrayLike, key: Array, mask: Array | None = None) -> Array:
    """With probability epsilon any allowed action, else the best of q [..., A], ties broken at random."""
    coin, place = jnp.moveaxis(jax.random.uniform(key, (*q.shape[:-1], 2)), -1, 0)
    allowed = jnp.ones(q.shape, bool) if mask is None else jnp.broadcast_to(mask, q.shape)
    return _any_of(jnp.where((coin < epsilon)[..., None], allowed, _ties(masked(q, mask))), place)


def epsilon_greedy_probabilities(q: Array, epsilon: ArrayLike, mask: Array | None = None) -> Array:
    """The probabilities [..., A] with which `epsilon_greedy` chooses from q [..., A]."""
    allowed = jnp.ones(q.shape, bool) if mask is None else jnp.broadcast_to(mask, q.shape)
    best = _ties(masked(q, mask))
    uniform = allowed / jnp.maximum(jnp.sum(allowed, axis=-1, keepdims=True), 1)
    epsilon = jnp.asarray(epsilon)
    return epsilon * uniform + (1.0 - epsilon) * best / jnp.sum(best, axis=-1, keepdims=True)


def draw(chances: Array, key: Array) -> Array:
    """An action by its chance, of chances [..., A] that sum to 1; one of chance 0 is never drawn."""
    total = jnp.cumsum(chances, axis=-1)
    place = jax.random.uniform(key, chances.shape[:-1], total.dtype) * total[..., -1]
    return jnp.argmax(total > place[..., None], axis=-1).astype(jnp.int32)


def tempered(q: Array, temperature: ArrayLike, mask: Array | None = None) -> Array:
    """(q - its best) / temperature [..., A], whose softmax is that of q / temperature; minus infinity where forbidden.

    However small the temperature, 0 included, nothing overflows: the softmax is then shared by the best actions.
    """
    q, most = masked(q, mask), best(q, mask)[..., None]
    most = jnp.where(jnp.isfinite(most), most, 0.0)  # where no action is allowed
    return (q - most) / jnp.maximum(temperature, jnp.finfo(q.dtype).tiny)


def boltzmann(q: Array, temperature: ArrayLike, key: Array, mask: Array | None = None) -> Array:
    """An action with probability proportional to exp(q / temperature) (Sutton & Barto, equation 2.11's softmax)."""
    checks.in_range("temperature", temperature, 0, float("inf"), open_low=True)
    return jax.random.categorical(key, tempered(q, temperature, mask), axis=-1).astype(jnp.int32)


def best(q: Array, mask: Array | None = None) -> Array:
    """The value of the best allowed action of q [..., A]; minus infinity where none is allowed."""
    chex.assert_rank(q, set(range(1, 8)))
    q = masked(q, mask)
    if q.shape[-1] > _UNROLL:
        return jnp.max(q, axis=-1)
    return functools.reduce(jnp.maximum, [q[..., action] for action in range(q.shape[-1])])


def _ties(q: Array) -> Array:
    """Which actions of q [..., A] are best."""
    return q >= best(q)[..., None]


def _any_of(candidates: Array, place: Array) -> Array:
    """One of the candidates [..., A], each as likely, by a draw [...] of [0, 1)."""
    if candidates.shape[-1] > _UNROLL:
        seen = list(jnp.moveaxis(jnp.cumsum(candidates, axis=-1, dtype=jnp.int32), -1, 0))
    else:
        columns = [candidates[..., action].astype(jnp.int32) for action in range(candidates.shape[-1])]
        seen = list(itertools.accumulate(columns))
    skip = jnp.minimum((place * seen[-1]).astype(jnp.int32), seen[-1] - 1)
    return sum(((count <= skip).astype(jnp.int32) for count in seen), jnp.zeros_like(skip))
