"""A checkpoint's arrays as Orbax reads and writes them: names and types, random keys, paths, and its
long messages.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.paths import by_path

# Orbax takes a path with these for a pattern: it then finds no part of what it wrote, or parts of others, and
# says nothing.
WRITES_WITHOUT = re.compile(r"[\[\]*?\\\ud800-\udfff]")
READS_WITHOUT = re.compile(r"\*\*|[\\\ud800-\udfff]")


def check_path(folder: Path, *, writing: bool = True) -> None:
    """Raises ValueError where Orbax could not read back what it writes below this folder, or what is
    there.
    """
    path = str(folder.absolute())
    bad = (WRITES_WITHOUT if writing else READS_WITHOUT).findall(path)
    if bad:
        shown = [
            text.encode("utf-8", "backslashreplace").decode() for text in (path, " ".join(sorted(set(bad))))
        ]
        raise ValueError(
            f"{shown[0]}: got a path with {shown[1]}; expected one without [ ] * ? \\ and without bytes "
            "that are no UTF-8, with which checkpoints could not be read again. Choose another --folder, "
            "or rename the folder"
        )


def writer() -> Any:
    """Writes trees of arrays in the background: save(path, tree), wait_until_finished(), close()."""
    import orbax.checkpoint as ocp

    for name in (
        "absl",
        "asyncio",
    ):  # errors come up and are said in one line; Orbax's log repeats each a dozen times
        logging.getLogger(name).addFilter(_not_of_orbax)  # the same filter again is no second one
    return ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())


def begin(writer: Any, path: Path, tree: Any) -> None:
    """Copies the arrays off the device, and writes them behind."""
    import orbax.checkpoint as ocp

    writer.save(path.absolute(), args=ocp.args.StandardSave(without_keys(tree)))


def can_be_opened(path: Path, tree: Mapping[str, str]) -> bool:
    """Whether a reader finds every array of the tree (see types_of); only their description is read."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        found = jax.tree.leaves(reader.metadata(path.absolute()).item_metadata.tree)
    return (path / "manifest.ocdbt").is_file() and len(found) == len(tree)


def read(path: Path, like: Any) -> Any:
    """The arrays of a tree of jax.ShapeDtypeStruct with shardings; all that were written."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        got = reader.restore(path.absolute(), args=ocp.args.StandardRestore(without_keys(like)))
    return _with_keys(got, like)


def read_parts(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The same for some of the parts that were written, by name."""
    import orbax.checkpoint as ocp

    plain = without_keys(dict(like))
    how = ocp.args.PyTreeRestore(
        item=plain, restore_args=ocp.checkpoint_utils.construct_restore_args(plain), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        got = reader.restore(path.absolute(), args=how)
    return _with_keys(got, dict(like))


def types_of(tree: Any) -> dict[str, str]:
    """Type and shape of every array, by its path; Orbax would cast to another type without a word."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in by_path(tree).items()}


def without_keys(tree: Any) -> Any:
    """Typed keys as their words; of an array or of its shape."""

    def plain(x):
        if not _is_key(x):
            return x
        if isinstance(x, jax.Array):
            return jax.random.key_data(x)
        words = jax.eval_shape(jax.random.key_data, x)
        return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=x.sharding)

    return jax.tree.map(plain, tree)


def _with_keys(got: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, l: jax.random.wrap_key_data(x) if _is_key(l) else x, got, like)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    files, trace = [record.pathname], record.exc_info[2] if record.exc_info else None
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any("orbax" in file for file in files)


def reason(error: BaseException) -> str:
    """The cause in a few words; a storage library's account of it runs over pages."""
    text = str(error)
    if re.search(r"No space left|RESOURCE_EXHAUSTED|ENOSPC|Disk quota|File too large", text):
        return "no space left on the device"
    return text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
