"""A buffer on disk: one npz of plain arrays named by tree path, with the checksums of zip; no pickle."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl import files
from jaxrl.types import PyTree


def save(path: str | Path, state: PyTree, clock: Array) -> None:
    """Writes a buffer's state and clock, whole or not at all.

    Raises ValueError where `path` exists or a leaf is no array of numbers, OSError where it cannot be written.
    """
    path = Path(path)
    leaves = _named(state, jnp.asarray(clock, jnp.int32))
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or not (leaf.dtype == bool or jnp.issubdtype(leaf.dtype, np.number)):
            raise ValueError(f"{name} is {getattr(leaf, 'dtype', type(leaf))}; only arrays of numbers can be saved")
    dtypes = np.array([str(leaf.dtype) for leaf in leaves.values()])
    arrays: dict[str, Any] = {name: _plain(np.asarray(leaf)) for name, leaf in leaves.items()}
    files.write_arrays(path, {"dtypes": dtypes, **arrays})


def load(path: str | Path, like: PyTree) -> tuple[PyTree, Array]:
    """The saved (state, clock), in the structure of `like`: a state, or jax.eval_shape(buffer.init, step).

    Raises ValueError where the file is damaged or its names, shapes or dtypes are not those of `like`, OSError
    where it cannot be read.
    """
    arrays = files.read_arrays(Path(path), "buffer")
    try:
        kinds = zip(arrays, arrays.pop("dtypes").tolist(), strict=True)
        found = {name: f"{dtype}{list(arrays[name].shape)}" for name, dtype in kinds}
    except (KeyError, ValueError) as error:
        raise files.damaged(Path(path), "buffer", error) from error
    like_leaves = _named(like, jax.ShapeDtypeStruct((), jnp.int32))
    wanted = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in like_leaves.items()}
    for name in sorted({*wanted, *found}):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path}: {name} is {found.get(name, 'missing')}, in `like` {wanted.get(name, 'missing')}; build the "
                "buffer and its example as when it was saved"
            )
    leaves = {name: jnp.asarray(arrays[name].view(leaf.dtype)) for name, leaf in like_leaves.items()}
    clock = leaves.pop("clock")
    return jax.tree.unflatten(jax.tree.structure(like), list(leaves.values())), clock


def _named(state: PyTree, clock: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path({"state": state, "clock": clock})
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _plain(array: np.ndarray) -> np.ndarray:
    """The bits of a dtype that npz does not know, such as bfloat16, as unsigned integers."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")
