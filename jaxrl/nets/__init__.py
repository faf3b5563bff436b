"""Networks (flax linen) for ONE observation; the agent vmaps them over a batch.

Any object with flax's `init(key, obs) -> params` and `apply(params, obs) -> q [A]` serves in their place.
"""

from jaxrl.nets.heads import ImplicitQuantiles, QNetwork
from jaxrl.nets.layers import Conv3x3, NoisyDense, as_floats
from jaxrl.nets.recurrent import GRU, LSTM, RecurrentQNetwork
from jaxrl.nets.torsos import MLP, Fourier, ImpalaConv, MinAtarConv, NatureConv

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "Conv3x3",
    "Fourier",
    "ImpalaConv",
    "ImplicitQuantiles",
    "MinAtarConv",
    "NatureConv",
    "NoisyDense",
    "QNetwork",
    "RecurrentQNetwork",
    "as_floats",
]
