"""How scores of several seeds are summed up."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def iqm(scores: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """The interquartile mean of [..., seeds]: without the lowest and highest quarter, in whole seeds."""
    ordered = np.sort(np.asarray(scores, np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def interval(scores: Sequence[float], draws: int = 20_000) -> tuple[float, float]:
    """The 95% bootstrap interval of the interquartile mean over seeds (Agarwal et al. 2021).

    Scores are of one environment, so one stratum.
    """
    values = np.asarray(scores, np.float64)
    drawn = values[np.random.default_rng(0).integers(len(values), size=(draws, len(values)))]
    low, high = np.quantile(iqm(drawn), [0.025, 0.975])
    return float(low), float(high)
