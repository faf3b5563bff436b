"""Memories of transitions, and with them the only difference between on-policy and off-policy learning."""

from jaxrl.buffers.latest import latest
from jaxrl.buffers.prioritized import prioritized
from jaxrl.buffers.recent import recent
from jaxrl.buffers.uniform import uniform

__all__ = ["latest", "prioritized", "recent", "uniform"]
