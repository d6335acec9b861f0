"""The adapters that tasks/lora.py trained, as a folder of PEFT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.model_config import layout_of
from jaxmodels.convert.peft import save_adapter
from jaxmodels.paths import by_path
from jaxmodels.task import Task
from jaxmodels.tasks.lora import Unwrapped


def save_trained(
    out: str | os.PathLike[str], base: str | os.PathLike[str], task: Task, adapters: Any, extra: Any
) -> int:
    """Writes adapters with their scale; gives the number of their parameters.

    base: the folder, or file of llama2.c, whose weights were adapted; others are a ValueError. adapters,
    extra: what the `lora` task trained.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out}: got a folder that is not empty, or a file; expected a new folder, so that nothing is "
            "overwritten. Choose another."
        )
    if not isinstance(task.unwrap, Unwrapped):
        raise ValueError(
            "convert: got --base and a run without adapters; expected one whose task is lora(…). Leave out "
            "--base, or see jaxmodels.tasks.lora."
        )
    found = load_pretrained(base)
    theirs, ours = by_path(found.params), by_path(extra["base"])
    different = [
        path for path, x in ours.items() if path not in theirs or not np.array_equal(x, theirs[path])
    ]
    if different or len(theirs) != len(ours):
        raise ValueError(
            f"{base}: got other weights than those that the run adapted"
            f"{f' (see {different[0]})' if different else ''}; expected the same. Give the run's base."
        )
    written = layout_of(found.config)
    layout = written[0] if written else None
    save_adapter(out, found.model, adapters, float(task.unwrap.scale), layout=layout, base=Path(base).name)
    return sum(x.size for x in jax.tree.leaves(adapters))
