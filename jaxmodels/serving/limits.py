"""What one request may ask for, at most."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """See jaxmodels.commands.serve.LimitOptions."""

    body: int = 16 << 20  # bytes
    tokens: int = 1024  # new ones of a text
    prompt: int = 0  # tokens; 0 leaves it to the model's context
    queue: int = 64  # requests that wait for a slot
    seconds: float = 120.0  # of a request
    inputs: int = 256  # of one call of /predict or /v1/embeddings
    choices: int = 64  # texts of one request
