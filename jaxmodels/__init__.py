"""jaxmodels: every model of deep learning as a pure function, and one runner that trains any of them.

from jaxmodels import train
result = train("experiments/digits_mlp.py", lr=3e-4, folder="runs/mine")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "Console": "console",
    "Decoder": "interfaces",
    "Display": "interfaces",
    "Evaluation": "experiment",
    "Experiment": "experiment",
    "Mean": "task",
    "Model": "inference.model",
    "Options": "options",
    "Pipeline": "pipeline",
    "Predictor": "interfaces",
    "Target": "interfaces",
    "Task": "task",
    "bench": "commands.bench",
    "evaluate": "commands.evaluate",
    "export": "commands.export",
    "generate": "commands.generate",
    "launch": "commands.launch",
    "load": "inference.load",
    "open_run": "runs.open_run",
    "patience": "training.stopping",
    "plan": "commands.plan",
    "predict": "commands.predict",
    "serve": "commands.serve",
    "sweep": "commands.sweep",
    "template": "commands.template",
    "train": "commands.train",
    "transcribe": "commands.transcribe",
    "verify_resume": "commands.verify_resume",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Public names, imported when first used, so that `import jaxmodels` costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'jaxmodels' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"jaxmodels.{_WHERE[name]}"), name)


class _Package(ModuleType):
    """The package. No folder hides a public name: jaxmodels.launch is the function, not the folder."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Ignores what Python does after it has imported a folder of a public name."""
        if name not in _WHERE or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__} - {"annotations", "importlib", "sys", "Any", "ModuleType"})
