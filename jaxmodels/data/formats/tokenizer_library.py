"""The libraries that read and make tokenizers: imported on first use, and their errors as ValueErrors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def library(name: str = "tokenizers") -> Any:
    """The module, `tokenizers` or `sentencepiece`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is not installed, which reads and makes tokenizers; pip install 'jaxmodels[text]'"
        ) from error


def guarded(run: Callable[[], T]) -> T:
    """run(), with the library's bare Exceptions and panics of Rust as ValueErrors."""
    try:
        return run()
    except BaseException as error:
        if isinstance(
            error, ValueError | TypeError | MemoryError | KeyboardInterrupt | SystemExit | GeneratorExit
        ):
            raise
        raise ValueError(
            f"the tokenizer failed: got {error}; expected a sound one. Get its file again, or try a shorter "
            "text"
        ) from error


def known_tokens(tokens: Iterable[int], vocabulary: int) -> list[int]:
    """The tokens below `vocabulary`; a model may have more than its tokenizer, for even matrix sizes."""
    numbers = [int(token) for token in tokens]
    if numbers and min(numbers) < 0:
        raise ValueError(
            f"got the token {min(numbers)}; expected 0 to {vocabulary - 1:,}. Leave out numbers that are no "
            "token"
        )
    return [number for number in numbers if number < vocabulary]
