"""Values of knobs as a command line gives them: a list 1e-4,3e-4, whole numbers 0..7, a range to draw from 1e-4..1e-1."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jaxmodels.runs import names
from jaxmodels.runs.knob_types import elements

WIDE = 10.0  # times the lower end from which on a range of positive numbers is drawn from by its logarithm


class Range(NamedTuple):
    """Real numbers between two ends, to draw from."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether the logarithm is what is drawn evenly."""
        return self.low > 0 and self.high / self.low >= WIDE

    def at(self, u: float) -> float:
        """The number at the part u, 0 to 1, of the range, with six digits."""
        x = self.low * (self.high / self.low) ** u if self.log else self.low + u * (self.high - self.low)
        return float(f"{x:.6g}")


Values = list[Any] | Range


def read(name: str, text: str, hint: Any) -> Values:
    """The values of the knob of this type."""
    if (types := elements(hint)) and not {str, Path} & {*types}:
        return _once(name, text, [_tuple(name, part, types) for part in text.split(";")])
    found: list[Any] = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        if not dots:
            found.append(_value(name, part, hint))
        elif hint is int:
            first, last = _value(name, low, int), _value(name, high, int)
            if last < first:
                raise ValueError(f"--{name} {part}: the range ends before it begins; write {high}..{low}")
            found.extend(range(first, last + 1))
        elif hint is float and part == text:
            ends = Range(_value(name, low, float), _value(name, high, float))
            if not ends.low < ends.high:
                raise ValueError(
                    f"--{name} {part}: the range must end above its beginning; write {high}..{low}"
                )
            return ends
        else:
            raise ValueError(
                f"--{name} {text}: a range a..b stands alone, and is of int or float; give a list of values"
            )
    return _once(name, text, found)


def _once(name: str, text: str, found: list[Any]) -> list[Any]:
    if len(set(map(repr, found))) < len(found):
        raise ValueError(f"--{name} {text}: a value comes twice; each is one member of the sweep")
    return found


def _tuple(name: str, text: str, types: tuple[Any, ...]) -> tuple[Any, ...]:
    """One value of a knob that is a list: 16,16; several are parted by semicolons."""
    parts = text.split(",") if text.strip() else []
    return tuple(_value(name, part, types[min(i, len(types) - 1)]) for i, part in enumerate(parts))


def _value(name: str, text: str, hint: Any) -> Any:
    text, kinds = text.strip(), get_args(hint)
    if get_origin(hint) is Literal:
        known = {str(value): value for value in kinds}
        if text not in known:
            raise ValueError(f"--{name} {text}: wanted one of {', '.join(known)}")
        return known[text]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if text not in hint.__members__:
            raise ValueError(
                f"--{name} {text}: got no name of {hint.__name__}; expected one of {', '.join(hint.__members__)}"
            )
        return hint[text]
    if type(None) in kinds:
        return (
            None
            if text.lower() == "none"
            else _value(name, text, next(k for k in kinds if k is not type(None)))
        )
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--{name} {text}: wanted True or False")
        return text.lower() == "true"
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"--{name} {text}: wanted {hint.__name__}, values separated by commas") from None
    raise ValueError(
        f"--{name}: a knob of type {getattr(hint, '__name__', hint)} cannot be swept; give one value in the file"
    )


def grid(values: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Every combination, the last knob fastest."""
    for name, of in values.items():
        if isinstance(of, Range):
            raise ValueError(
                f"--{name} {of.low:g}..{of.high:g} is a range and a grid needs values: list them, or draw from it with "
                "--search random or halton, and --trials"
            )
    return [
        dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())
    ]


def draw(values: Mapping[str, Values], units: Sequence[float]) -> dict[str, Any]:
    """The combination at these parts, each 0 to 1, of the knobs' values."""
    return {
        name: of.at(u) if isinstance(of, Range) else of[min(int(u * len(of)), len(of) - 1)]
        for (name, of), u in zip(values.items(), units, strict=True)
    }


def name_of(knobs: Mapping[str, Any]) -> str:
    """A member's name, which is its folder's too."""
    return names.of_knobs(knobs) if knobs else "all"
