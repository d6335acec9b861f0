"""jaxmodels convert: folders of weights checked and written again; adapters merged, or written by a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodels.options import CheckpointOptions


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What else goes into the new folder, or comes from a run."""

    adapter: str = ""
    """A folder of PEFT, whose LoRA adapter is merged into the weights."""
    base: str = ""
    """The weights that a run's adapters were trained on.
    Then FOLDER is the run, and OUT becomes a folder for PEFT."""
    step: int = CheckpointOptions.step
    """The run's checkpoint; -1 takes the best where the experiment names one, else the newest."""


def convert(
    folder: str | Path,
    out: str | Path,
    *,
    adapter: str | Path = ConvertOptions.adapter,
    base: str | Path = ConvertOptions.base,
    step: int = ConvertOptions.step,
    warn: Any = print,
) -> int:
    """Writes weights again (see convert.save.convert), or a run's adapters; gives the number of parameters.

    base: a folder of weights, or a file of llama2.c. With it `folder` is a run whose task is tasks.lora's
    on these weights, and `out` becomes a folder that PEFT loads onto them.
    """
    from jaxmodels.convert import save

    if not base:
        return save.convert(folder, out, adapter=adapter or None)
    if adapter:
        raise ValueError(
            "convert: got --adapter and --base; expected one of them: an adapter to merge into weights, or "
            "the base of a run's adapters. Leave one out."
        )
    from jaxmodels.convert.peft_run import save_trained
    from jaxmodels.runs.open_run import open_run
    from jaxmodels.step import eval_variables

    experiment, state, _ = open_run(folder, step=step, parts="model", warn=warn)
    adapters, extra = eval_variables(experiment.optimizer, state)
    return save_trained(out, base, experiment.task, adapters, extra)
