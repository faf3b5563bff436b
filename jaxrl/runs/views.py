"""A table as it is looked at: which state stands where, what it is worth there and what is best to do."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl import spaces
from jaxrl.envs.layout import Layout
from jaxrl.envs.wrappers import Wrapped, index_observation
from jaxrl.qtable import QTable

ROUNDING = 1e-6  # of the largest |q|: below it values are tied
FINE = 60  # cells each way, of a plane that is cut through continuous observations
# what a plane's axes and actions are called, where observations are a Box: [dimensions], [A]
_CALLED = {
    "MountainCar-v0": (("position", "velocity"), ("push left", "coast", "push right")),
    "CartPole-v1": (("cart position", "cart velocity", "pole angle", "pole velocity"), ("push left", "push right")),
}
_CALLED["CartPole-v0"] = _CALLED["CartPole-v1"]
# viridis in nine steps: even in brightness, and for every kind of colour vision
_SCALE = np.array(
    [(68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140), (40, 174, 128), (94, 201, 98)]
    + [(173, 220, 48), (253, 231, 37)]
)


class View(NamedTuple):
    """A table on its environment's map, or on a plane through its observations."""

    layout: Layout
    q: np.ndarray  # [panels, rows, columns, A], NaN for what was never learned
    values: np.ndarray  # [panels, rows, columns], NaN where no state stands, or one that was never visited
    best: np.ndarray  # bool [panels, rows, columns, A]: the best action, and what is tied with it within rounding
    span: tuple[float, float, float, float] | None = None  # of a plane: left, right, bottom, top

    @property
    def moves(self) -> bool:
        """Whether an action leads somewhere on the map."""
        return any(not isinstance(action, str) for action in self.layout.actions)

    @property
    def scale(self) -> tuple[float, float]:
        """The values that the colours go from and to; where q is drawn too, its lowest may lie below."""
        return limits(self.values, self.q if self.moves and len(self.values) == 1 else self.values)

    @property
    def digits(self) -> int:
        """How many decimals tell its values apart."""
        return digits(self.values)

    def open(self, panel: int) -> np.ndarray:
        """bool [rows, columns]: where a state stands that has values."""
        return stands(self.layout)[panel]


def view(table: QTable, env: Any, params: Any = None) -> View | None:
    """The table as its environment lays it out, None where it does not.

    A table of bins or tiles is shown on the plane of two observed numbers, of the last two where there are more, the
    others in the middle of their range. Visits tell what was learned: a table without any is taken as known everywhere.
    """
    params = env.default_params if params is None else params
    while isinstance(env, Wrapped):
        keeps = env.observe_fn is None or env.wrapper is index_observation
        if not keeps:
            return _plane(table, env, params)
        env = env.env
    layout_fn = getattr(env, "layout_fn", None)
    layout = None if layout_fn is None else layout_fn(params)
    if layout is not None and table.q.shape[1] == 1:  # V alone, of a policy that was followed
        layout = layout._replace(actions=("follow",), allowed=None)
    if layout is None or len(layout.actions) != table.q.shape[1] or layout.states.max() >= len(table.q):
        return None
    allowed = np.ones(table.q.shape, bool) if layout.allowed is None else layout.allowed
    known = _known(table)
    here = stands(layout)
    places = np.where(here, layout.states, 0)
    return _view(layout, table.q[places], known[places] & here[..., None], allowed[places])


def limits(values: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """(low, high) of the finite values, and of q as much again below them; low is below high."""
    values, q = values[np.isfinite(values)], q[np.isfinite(q)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    slack = ROUNDING * max(abs(low), abs(high))
    least = min(low, float(q.min())) if q.size else low
    low = max(least, low - (high - low)) if high - low > slack else least
    return (low, high) if high - low > slack else (low - 0.5, high + 0.5)


def digits(values: np.ndarray) -> int:
    """How many decimals to write of numbers of this size: none where all are whole."""
    values = values[np.isfinite(values)]
    largest = np.abs(values).max(initial=0.0)
    whole = np.allclose(values, np.rint(values), rtol=0, atol=ROUNDING * largest)
    return 0 if whole or largest >= 100 else 1 if largest >= 10 else 2


def number(value: float, digits: int) -> str:
    """A number as it is written, without a minus at zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def stands(layout: Layout) -> np.ndarray:
    """bool [panels, rows, columns]: where a state is that an agent can be in and act."""
    return (layout.states >= 0) & ~np.isin(layout.marks, ["goal", "hole", "end", "wall"])


def colors(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """uint8 [..., 3]: from dark to light; NaN is as `scale`'s low end."""
    share = np.clip(np.nan_to_num((values - scale[0]) / (scale[1] - scale[0])), 0, 1)
    steps = np.linspace(0, 1, len(_SCALE))
    return np.stack([np.interp(share, steps, channel) for channel in _SCALE.T], -1).round().astype(np.uint8)


def dark(color: np.ndarray) -> np.ndarray:
    """bool [...]: whether a colour, uint8 [..., 3], wants white letters."""
    return color @ np.array([0.299, 0.587, 0.114]) < 140


def best(q: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """bool [..., A]: the allowed actions whose value is the highest, up to rounding; none where one is NaN."""
    finite = np.abs(q[np.isfinite(q)])
    slack = ROUNDING * (finite.max() if finite.size else 0.0)
    masked = np.where(allowed, q, -np.inf)
    return masked >= masked.max(axis=-1, keepdims=True) - slack


def _view(layout: Layout, q: np.ndarray, known: np.ndarray, allowed: np.ndarray, span: Any = None) -> View:
    seen = known.any(axis=-1)
    values = np.where(seen, np.where(allowed, q, -np.inf).max(axis=-1), np.nan)
    shown = best(q, allowed) & (seen & np.isfinite(values))[..., None]
    return View(layout, np.where(known & allowed, q, np.nan), values, shown, span)


def _known(table: QTable) -> np.ndarray:
    """bool [S, A]: what was learned from at least once."""
    return table.visits > 0 if table.visits.any() else np.ones(table.q.shape, bool)


def _plane(table: QTable, env: Any, params: Any) -> View | None:
    """The table of a wrapper that makes a Box into bins or tiles, on two of the Box's dimensions."""
    space = env.env.observation_space(params)
    if env.rows != len(table.q) or not isinstance(space, spaces.Box) or len(space.low.ravel()) < 2:
        return None
    bounds = env.settings[-1] or space
    low, high = bounds.low.ravel(), bounds.high.ravel()
    across, up = (np.linspace(low[i], high[i], FINE + 1) for i in (-2, -1))
    points = np.broadcast_to((low + high) / 2, (FINE, FINE, len(low))).copy()
    points[..., -2], points[..., -1] = (across[1:] + across[:-1]) / 2, (up[1:] + up[:-1])[::-1, None] / 2
    observations = points.reshape(-1, *space.low.shape).astype(np.float32)
    rows = np.asarray(jax.vmap(lambda obs: env.observe_fn(obs, (), params))(observations)).reshape(FINE, FINE, -1)
    names, actions = _CALLED.get(env.name, ([f"observation {i}" for i in range(len(low))], None))
    actions = actions if actions and len(actions) == table.q.shape[1] else list(map(str, range(table.q.shape[1])))
    others = f"{', '.join(names[:-2])} in the middle" if len(names) > 2 else ""
    layout = Layout(rows[None, ..., 0], np.full((FINE, FINE), ""), tuple(actions), (others,), (names[-1], names[-2]))
    q, known = table.q[rows].sum(axis=2), np.all(_known(table)[rows], axis=2)  # known where all of its tiles are
    span = (float(low[-2]), float(high[-2]), float(low[-1]), float(high[-1]))
    return _view(layout, q[None], known[None], np.ones(q[None].shape, bool), span)
