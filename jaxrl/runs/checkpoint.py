"""An agent's state on disk: safetensors named by tree path, with a manifest that tells a damaged file.

Nothing here can run code from a file. Random keys are stored as their words and their implementation's name.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxrl import files, prng
from jaxrl.runs.directory import write_json
from jaxrl.runs.errors import CheckpointError
from jaxrl.types import PyTree

STATE, MANIFEST = "agent.safetensors", "manifest.json"
FORMAT = 1
_KEY = "key:"  # safetensors metadata: "key:<leaf>" -> the key implementation's name


def save(folder: Path, state: PyTree, also: Iterable[str] = ()) -> None:
    """Writes the state, then the manifest with its checksum and those of the files `also` named."""
    leaves, metadata = {}, {}
    for name, leaf in _named(state):
        if _is_key(leaf):
            leaf, metadata[_KEY + name] = prng.key_to_array(leaf)
        leaves[name] = np.asarray(leaf, order="C")
    files.write(folder / STATE, safetensors.numpy.save(leaves, metadata or None))
    held = {name: _fingerprint((folder / name).read_bytes()) for name in (STATE, *also)}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": held})


def load(folder: Path, like: PyTree) -> PyTree:
    """The saved state in the structure of `like`, a tree of arrays or of `jax.ShapeDtypeStruct`.

    Raises CheckpointError where a file is missing or damaged, or where names, shapes or dtypes differ.
    """
    verify(folder)
    path = folder / STATE
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            leaves = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; train again, or restore a copy") from error
    wanted = dict(_named(like))
    for name in sorted({*wanted} ^ {*leaves}):
        what = "is missing" if name in wanted else "is not part of this agent"
        raise CheckpointError(f"{path}: {name!r} {what}; it was written by another recipe or version")
    arrays = [_fit(path, name, leaves[name], metadata.get(_KEY + name), leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def verify(folder: Path) -> None:
    """Raises CheckpointError unless every file of the manifest is there and has its size and checksum."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        entries = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        version = manifest["format"]
    except OSError as error:
        raise CheckpointError(
            f"{folder} holds no parameters ({MANIFEST}: {error.strerror}): its run did not end"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: train again, or restore a copy") from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version!r}; this jaxrl reads {FORMAT}: use the jaxrl that wrote it")
    if STATE not in entries:
        raise CheckpointError(f"{path} is damaged: it does not name {STATE}; train again, or restore a copy")
    for name, wanted in entries.items():
        if Path(name).name != name:
            raise CheckpointError(f"{path} is damaged: it names {name!r}, outside its directory")
        try:
            found = _fingerprint((folder / name).read_bytes())
        except OSError as error:
            raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}; restore a copy") from error
        if found["bytes"] != wanted[0]:
            raise CheckpointError(
                f"{folder / name} has {found['bytes']} bytes, not {wanted[0]}: it is damaged or was edited"
            )
        if found["sha256"] != wanted[1]:
            raise CheckpointError(f"{folder / name} is not what was written (sha256): it is damaged or was edited")


def _fit(path: Path, name: str, array: np.ndarray, impl: str | None, like: Any) -> jax.Array:
    """The array, or the key of implementation `impl`, checked against the shape and dtype of `like`."""
    try:
        value = prng.key_from_array(array, impl) if impl else array
    except ValueError as error:
        raise CheckpointError(f"{path}: {name!r}: {error}") from error
    if value.shape != like.shape or value.dtype != like.dtype:
        raise CheckpointError(
            f"{path}: {name!r} is {value.dtype}{list(value.shape)}, this environment and recipe need "
            f"{like.dtype}{list(like.shape)}: the run was written by another environment or network"
        )
    return jnp.asarray(value)


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
