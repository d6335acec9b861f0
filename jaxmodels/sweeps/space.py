"""Values of knobs on a command line: a list 1e-4,3e-4, whole numbers 0..7, a range 1e-4..0.1."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jaxmodels.runs import names
from jaxmodels.runs.knob_types import elements

WIDE = 10.0  # ratio of a range's ends from which on its values are drawn by their logarithm


class Range(NamedTuple):
    """Real numbers between two ends, to draw from."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether values are drawn evenly by their logarithm."""
        return self.low > 0 and self.high / self.low >= WIDE

    def value(self, u: float) -> float:
        """The number at the fraction u, 0 to 1, of the range, with six digits."""
        x = self.low * (self.high / self.low) ** u if self.log else self.low + u * (self.high - self.low)
        return float(f"{x:.6g}")


Values = list[Any] | Range


def read(name: str, text: str, hint: Any) -> Values:
    """The values of a knob. hint: its type."""
    if (types := elements(hint)) and not {str, Path} & {*types}:
        return _distinct(name, text, [_tuple(name, part, types) for part in text.split(";")])
    values: list[Any] = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        if not dots:
            values.append(_value(name, part, hint))
        elif hint is int:
            first, last = _value(name, low, int), _value(name, high, int)
            if last < first:
                raise ValueError(
                    f"--{name} {part}: got an end below the beginning; expected it above. Write {high}..{low}"
                )
            values.extend(range(first, last + 1))
        elif hint is float and part == text:
            ends = Range(_value(name, low, float), _value(name, high, float))
            if not ends.low < ends.high:
                raise ValueError(
                    f"--{name} {part}: got no end above the beginning; expected one. Write {high}..{low}"
                )
            return ends
        else:
            raise ValueError(
                f"--{name} {text}: got a range among other values, or of another type; expected a range a..b "
                "that stands alone, of int or float. Give a list of values"
            )
    return _distinct(name, text, values)


def _distinct(name: str, text: str, values: list[Any]) -> list[Any]:
    if len(set(map(repr, values))) < len(values):
        raise ValueError(
            f"--{name} {text}: got a value twice; expected each once, as each is one member. Leave one out"
        )
    return values


def _tuple(name: str, text: str, types: tuple[Any, ...]) -> tuple[Any, ...]:
    """One value of a knob that is a list: 16,16. Semicolons separate several values."""
    parts = text.split(",") if text.strip() else []
    return tuple(_value(name, part, types[min(i, len(types) - 1)]) for i, part in enumerate(parts))


def _value(name: str, text: str, hint: Any) -> Any:
    text, kinds = text.strip(), get_args(hint)
    if get_origin(hint) is Literal:
        known = {str(value): value for value in kinds}
        if text not in known:
            raise ValueError(f"--{name}: got {text}; expected one of {', '.join(known)}. Give one of these")
        return known[text]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if text not in hint.__members__:
            raise ValueError(
                f"--{name}: got {text}; expected a name of {hint.__name__}. "
                f"Give one of {', '.join(hint.__members__)}"
            )
        return hint[text]
    if type(None) in kinds:
        if text.lower() == "none":
            return None
        return _value(name, text, next(kind for kind in kinds if kind is not type(None)))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--{name}: got {text}; expected True or False. Give one of these")
        return text.lower() == "true"
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(
                f"--{name}: got {text}; expected {hint.__name__}. Separate values by commas"
            ) from None
    kind = getattr(hint, "__name__", hint)
    raise ValueError(
        f"--{name}: got values for a knob of type {kind}; expected a type that can be swept. "
        "Give one value in the file"
    )


def grid(values: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Every combination, the last knob fastest."""
    for name, choices in values.items():
        if isinstance(choices, Range):
            raise ValueError(
                f"--{name}: got the range {choices.low:g}..{choices.high:g}; expected values for a grid. "
                "List them, or draw from the range with --search random or halton, and --trials"
            )
    return [
        dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())
    ]


def draw(values: Mapping[str, Values], units: Sequence[float]) -> dict[str, Any]:
    """The combination at these fractions, each 0 to 1, of the knobs' values."""
    drawn = {}
    for (name, choices), u in zip(values.items(), units, strict=True):
        if isinstance(choices, Range):
            drawn[name] = choices.value(u)
        else:
            drawn[name] = choices[min(int(u * len(choices)), len(choices) - 1)]
    return drawn


def name_of(knobs: Mapping[str, Any]) -> str:
    """The name of a member and of its folder."""
    return names.of_knobs(knobs) if knobs else "all"
