"""A buffer on disk: one npz of plain arrays named by tree path, with the checksums of zip; no pickle."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _refuse(path)
    try:
        with temporary.open("wb") as file:
            np.savez(file, dtypes=dtypes, **arrays)
            file.flush()
            os.fsync(file.fileno())
        _refuse(path)  # it may have come meanwhile
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name
    finally:
        os.close(folder)


def load(path: str | Path, like: PyTree) -> tuple[PyTree, Array]:
    """The saved (state, clock), in the structure of `like`: a state, or jax.eval_shape(buffer.init, step).

    Raises ValueError where the file is damaged or its names, shapes or dtypes are not those of `like`, OSError
    where it cannot be read.
    """
    with Path(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if name := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {name} is wrong")
            file.seek(0)
            arrays = dict(np.load(file, allow_pickle=False))
            kinds = zip(arrays, arrays.pop("dtypes").tolist(), strict=True)
            found = {name: f"{dtype}{list(arrays[name].shape)}" for name, dtype in kinds}
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged or holds no buffer: {error}; restore a copy") from error
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


def _refuse(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} exists and is not written over; choose another name or move it aside")


def _plain(array: np.ndarray) -> np.ndarray:
    """The bits of a dtype that npz does not know, such as bfloat16, as unsigned integers."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")
