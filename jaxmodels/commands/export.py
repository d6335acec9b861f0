"""jaxmodels export: a trained model as a file that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxmodels.options import CheckpointOptions

if TYPE_CHECKING:
    from jaxmodels.export.save import Exported
    from jaxmodels.inference.model import Model


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is written, and where."""

    out: str = ""
    """The new folder; -o for short. By default exports/NAME-FORMAT."""
    format: Literal["stablehlo", "onnx", "safetensors"] = "stablehlo"
    """stablehlo is a program with its parameters that jax alone loads, onnx one for ONNX Runtime.
    safetensors are the parameters alone, of a folder of weights by the names of its library."""
    platforms: str = "cpu,cuda,tpu"
    """What a StableHLO program runs on, of cpu, cuda, rocm and tpu."""
    like: tuple[str, ...] = ()
    """Inputs such as the model gets: a file, a text, or a row as a JSON object. By default they are made up.
    Where several differ in length, the program takes any length between theirs."""


def export(
    run: str | Path | Model,
    out: str | Path = ExportOptions.out,
    *,
    format: Literal["stablehlo", "onnx", "safetensors"] = ExportOptions.format,
    platforms: str | Sequence[str] = ExportOptions.platforms,
    like: Sequence[Any] = ExportOptions.like,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    warn: Any = print,
) -> Exported:
    """Writes a run's model, or that of a folder of weights, to the new folder `out`, and checks it.

    run: also what jaxmodels.load gave. like: see ExportOptions; from Python a row is a dict. The file is read
    again and compared with the model on random inputs; where they differ, or the model cannot be written, a
    ValueError says why, and nothing is left at `out`.
    """
    from jaxmodels import __version__
    from jaxmodels.export.of_model import program_of
    from jaxmodels.export.save import save
    from jaxmodels.inference.load import load
    from jaxmodels.inference.model import Model

    model = run if isinstance(run, Model) else load(run, step=step, mesh=mesh, precision=precision, warn=warn)
    if format == "safetensors":
        from jaxmodels.export.tensors import save_tensors

        return save_tensors(model, out or Path("exports") / f"{model.name}-{format}", __version__)
    names = [name.strip() for name in platforms.split(",")] if isinstance(platforms, str) else platforms
    out = out or Path("exports") / f"{model.name}-{format}"
    return save(program_of(model, like), out, format, names, __version__, model.source)
