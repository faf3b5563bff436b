"""Whether arrays fit in memory, known from their shapes before anything is allocated or compiled."""

import os
from pathlib import Path
from typing import Any

import jax

from jaxrl.types import PyTree


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree of arrays or `jax.ShapeDtypeStruct`."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def size(count: int) -> str:
    """Bytes as a person reads them."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def check(needed: int, replay: int, free: int | None) -> None:
    """Raises ValueError where the `needed` bytes of a run, its `replay` included, exceed the `free` ones."""
    if free is not None and needed > free:
        share = max(free - (needed - replay), 0) / max(replay, 1)
        raise ValueError(
            f"this run needs {needed} bytes ({size(needed)}; the replay memory is {size(replay)} of it), but "
            f"{free} ({size(free)}) are available; a replay.capacity of {share:.0%} of this one would fit"
        )


def require(what: str, needed: int, remedy: str = "") -> None:
    """Raises ValueError where `needed` bytes for `what` exceed the free ones."""
    free = available()
    if free is not None and needed > free:
        raise ValueError(
            f"{what} needs {needed} bytes ({size(needed)}), but {free} ({size(free)}) are available{remedy}"
        )


def check_many(name: str, count: int, each: int, held: int = 0) -> None:
    """Raises ValueError, with what would fit, where `count` times `each` bytes exceed the free ones beside `held`."""
    free = available()
    needed, left = count * each, max((free or 0) - held, 0)
    if free is not None and needed > left:
        raise ValueError(
            f"{name} is {count}, which needs {needed} bytes ({size(needed)}) at once, but {left} ({size(left)}) are "
            f"available; up to {left // each} would fit"
        )


def available(device: Any = None) -> int | None:
    """Free bytes where a device keeps its arrays; None where nobody says."""
    found = jax.devices()[0] if device is None else device
    stats = found.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if found.platform != "cpu":
        return None
    known = [free for free in (_machine(), _container()) if free is not None]
    return min(known, default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _container() -> int | None:
    """What a control group of Linux leaves, page cache counted as free."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        cache = next(int(row.split()[1]) for row in (root / "memory.stat").open() if row.startswith("file "))
        return None if limit == "max" else int(limit) - used + cache
    except (OSError, ValueError, StopIteration):
        return None
