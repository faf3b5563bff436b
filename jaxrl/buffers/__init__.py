"""Memories of transitions, and with them the only difference between on-policy and off-policy learning."""

from jaxrl.buffers.convert import episodes, fill, from_arrays, from_dataset, to_arrays, to_dataset, transitions
from jaxrl.buffers.files import load, save
from jaxrl.buffers.latest import latest
from jaxrl.buffers.prioritized import prioritized
from jaxrl.buffers.recent import recent
from jaxrl.buffers.uniform import uniform

__all__ = [
    "episodes",
    "fill",
    "from_arrays",
    "from_dataset",
    "latest",
    "load",
    "prioritized",
    "recent",
    "save",
    "to_arrays",
    "to_dataset",
    "transitions",
    "uniform",
]
