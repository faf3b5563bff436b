"""Blackjack-v1: beat the dealer without passing 21, as gymnasium's `toy_text/blackjack.py`.

Sutton and Barto (2018), example 5.1. The deck is infinite and the dealer plays last, so that the whole play is one
draw from the exact distribution of the dealer's final hand given the card that shows.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl import spaces
from jaxrl.envs.api import NO_LIMIT, PureEnvironment, TabularMDP
from jaxrl.envs.layout import Layout

_CARDS = range(1, 11)  # an ace is 1
_CHANCE = np.array([1.0] * 9 + [4.0]) / 13
_FINAL = np.array([0, 17, 18, 19, 20, 21, 21])  # the dealer's scores: bust, 17..21, and last 21 of two cards
_NATURALS, _END = 704, 714  # the states of `tabular` after the observations


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """`sab` and `natural` are static."""

    # Sutton and Barto: an ace and a ten beat all but the dealer's ace and ten; then `natural` does not count
    sab: bool = dataclasses.field(default=True, metadata={"static": True})
    natural: bool = dataclasses.field(default=False, metadata={"static": True})  # winning with ace and ten pays 1.5
    max_steps_in_episode: int = NO_LIMIT

    replace = dataclasses.replace


class State(NamedTuple):
    """What the player knows."""

    player: Array  # int32 [], the sum of the hand, a usable ace as 11
    dealer: Array  # int32 [], 1..10, the card that shows
    ace: Array  # int32 [], 1 with a usable ace
    natural: Array  # bool []: an ace and a ten and nothing else
    time: Array  # int32 []


def reset(key: Array, params: Params) -> State:
    """Three cards of one word: 13 ranks each, off by less than 13^3 / 2^32."""
    del params
    word = jax.random.bits(key, (), jnp.uint32)
    dealer, first, second = (_card(word // 13**i) for i in range(3))
    zero = jnp.zeros((), jnp.int32)
    player, ace = _add(*_add(zero, zero, first), second)
    return State(player, dealer, ace, player == 21, time=zero)


def step(key: Array, state: State, action: ArrayLike, params: Params) -> tuple[State, Array, Array]:
    """A hit draws a card, and loses above 21; a stick lets the dealer play, and ends the hand."""
    word = jax.random.bits(key, (), jnp.uint32)  # for the player's card or the dealer's play, never both
    hits = jnp.asarray(action) == 1
    player, ace = _add(state.player, state.ace, _card(word))
    limits = jnp.asarray(_limits())[state.dealer - 1]
    drawn = jnp.sum(word >> 1 >= limits, dtype=jnp.int32)
    final = jnp.where(drawn == 0, 0, jnp.minimum(drawn + 16, 21))
    payoff = _payoff(state.player, state.natural, final, drawn == 6, params)
    bust = player > 21
    reward = jnp.where(hits, jnp.where(bust, -1.0, 0.0), payoff).astype(jnp.float32)
    after = State(
        jnp.where(hits, player, state.player),
        state.dealer,
        jnp.where(hits, ace, state.ace),
        state.natural & ~hits,
        state.time,
    )
    return after, reward, ~hits | bust


def _card(word: Array) -> Array:
    """int32 1..10 of a random word: a thirteenth each, four for the ten."""
    return jnp.minimum(word % 13 + 1, 10).astype(jnp.int32)


def _add(total: Any, ace: Any, card: Any) -> tuple[Any, Any]:
    """(sum, usable ace) of a hand and one more card; integers or arrays."""
    hard = total - 10 * ace + card
    ace = (ace | (card == 1)) & (hard <= 11)
    return hard + 10 * ace, ace


def _payoff(player: Array, natural: Array, final: Array, dealer_natural: Array, params: Params) -> Array:
    """The reward of sticking against the dealer's final score; arrays of one shape."""
    payoff = jnp.sign(jnp.where(player > 21, 0, player) - final).astype(jnp.float32)
    if params.sab:
        return jnp.where(natural & ~dealer_natural, 1.0, payoff)
    return jnp.where(natural & (payoff == 1.0), 1.5, payoff) if params.natural else payoff


@functools.cache
def dealer_chances() -> np.ndarray:
    """float64 [10, 7]: the chance of each of the dealer's final hands, for each card that shows."""

    @functools.cache
    def play(total: int, ace: int) -> np.ndarray:
        if total >= 17:
            return np.eye(7)[total - 16 if total <= 21 else 0]
        return sum((_CHANCE[card - 1] * play(*_add(total, ace, card)) for card in _CARDS), np.zeros(7))

    chances = np.zeros((10, 7))
    for shown in _CARDS:
        for hidden in _CARDS:
            total, ace = _add(*_add(0, 0, shown), hidden)
            chances[shown - 1] += _CHANCE[hidden - 1] * (np.eye(7)[6] if total == 21 else play(total, ace))
    return chances


@functools.cache
def _limits() -> np.ndarray:
    """uint32 [10, 6]: 31 random bits count the final hand by the limits that they reach."""
    return np.rint(dealer_chances().cumsum(1)[:, :-1] * 2.0**31).astype(np.uint32)


def tabular(params: Params) -> TabularMDP:
    """The exact process over the observation's index, (player * 11 + dealer) * 2 + ace.

    A hand of ace and ten is state 704 + dealer - 1 instead, and a stick leads to the end, 714. What no hand in play
    observes is terminal: the sums above 21, to which a losing hit leads, and indices that never occur.
    """
    P, R = np.zeros((_END + 1, 2, _END + 1)), np.zeros((_END + 1, 2))
    start, terminal = np.zeros(_END + 1), np.ones(_END + 1, bool)

    def index(player: int, ace: int, dealer: int) -> int:
        return (player * 11 + dealer) * 2 + ace

    hands = [(player, ace) for player in range(4, 22) for ace in (0, 1) if player >= 12 or not ace]
    for dealer in _CARDS:
        natural = _NATURALS + dealer - 1
        for player, ace, state in [*((*hand, index(*hand, dealer)) for hand in hands), (21, 1, natural)]:
            terminal[state] = False
            for card in _CARDS:
                after = _add(player, ace, card)
                P[state, 1, index(*after, dealer)] += _CHANCE[card - 1]
                R[state, 1] -= _CHANCE[card - 1] * (after[0] > 21)
            final = jnp.asarray(_FINAL)
            payoff = _payoff(jnp.full(7, player), jnp.full(7, state == natural), final, jnp.arange(7) == 6, params)
            P[state, 0, _END] = 1
            R[state, 0] = dealer_chances()[dealer - 1] @ np.asarray(payoff, float)
        for first in _CARDS:
            for second in _CARDS:
                hand = _add(*_add(0, 0, first), second)
                chance = _CHANCE[[dealer - 1, first - 1, second - 1]].prod()
                start[natural if hand[0] == 21 else index(*hand, dealer)] += chance
    P[terminal] = np.eye(_END + 1)[terminal, None]
    return TabularMDP(P, R, terminal, start)


def observe(state: State, params: Params) -> tuple[Array, Array, Array]:
    """int32 [] each: the player's sum, the dealer's card that shows, 1 with a usable ace."""
    del params
    return state.player, state.dealer, state.ace


def observation_space(params: Params) -> spaces.Tuple:
    """gymnasium's: some of its elements never occur."""
    del params
    return spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])


def action_space(params: Params) -> spaces.Discrete:
    """0 sticks, 1 hits."""
    del params
    return spaces.Discrete(2)


def render(state: State, params: Params) -> str:
    """Two lines, one a hand."""
    del params
    hand = "natural" if state.natural else "bust" if state.player > 21 else "usable ace" if state.ace else "hard"
    shown = "ace" if state.dealer == 1 else int(state.dealer)
    return f"player {int(state.player)} ({hand})\ndealer shows {shown}"


def layout(params: Params) -> Layout:
    """As in Sutton and Barto's figure 5.2; the states are those of `index_observation`."""
    del params
    player, dealer = np.arange(21, 10, -1), np.arange(1, 11)
    states = np.stack([(player[:, None] * 11 + dealer) * 2 + ace for ace in (1, 0)])
    states[0, -1] = -1  # a usable ace makes 12 or more
    cards = ("A", *map(str, dealer[1:]))
    titles, axes = ("usable ace", "no usable ace"), ("player sum", "dealer showing")
    marks = np.full(states.shape[1:], "")
    return Layout(states, marks, ("stick", "hit"), titles, axes, (tuple(player.tolist()), cards))


def blackjack() -> PureEnvironment:
    """The environment; every setting is a field of `Params`. Without a step limit: every hand ends."""
    return PureEnvironment(
        "Blackjack-v1",
        Params(),
        reset_fn=reset,
        step_fn=step,
        observe_fn=observe,
        observation_space_fn=observation_space,
        action_space_fn=action_space,
        render_fn=render,
        tabular_fn=tabular,
        layout_fn=layout,
    )
