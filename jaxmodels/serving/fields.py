"""The fields of a request: each is read once, with its type and its range; what nobody reads is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxmodels.serving.refused import Refused

SHOWN = 60  # characters of a wrong value that an error repeats


def parse(body: bytes) -> Fields:
    """The fields of a body, which must be one JSON object with each key once."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise Refused("got JSON that is nested too deeply; expected a plain object. Send one") from None
    except ValueError as error:
        raise Refused(f"got a body that is no JSON ({error}); expected an object. Correct it") from None
    return Fields(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice in an object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


class Fields:
    """An object of a request; null is the same as an absent field, as in OpenAI's API."""

    def __init__(self, value: Any, path: str = ""):
        if not isinstance(value, dict):
            raise wrong(path or "the body", value, "a JSON object", field=path or None)
        self._values = {name: x for name, x in value.items() if x is not None}
        self._path = path
        self._read: set[str] = set()

    def path(self, name: str) -> str:
        """The field's name in messages."""
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str) -> Any:
        """The value as it came; None where the field is absent."""
        self._read.add(name)
        return self._values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """A string of Unicode; needed where there is no default."""
        value = self.take(name)
        if value is None and default is not None:
            return default
        return text(value, self.path(name))

    def flag(self, name: str) -> bool:
        """true or false, which is the default."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.path(name), value, "true or false")
        return bool(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number from low to high; None where the field is absent."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(self.path(name), value, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, name: str, low: float, high: float, default: float, *, above: bool = False) -> float:
        """A number from low to high. above: low itself is refused."""
        value = self.take(name)
        if value is None:
            return default
        sound = isinstance(value, int | float) and not isinstance(value, bool)
        if not sound or not math.isfinite(value) or not low <= value <= high or (above and value == low):
            between = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise wrong(self.path(name), value, f"a number {between}")
        return float(value)

    def choice(self, name: str, words: Sequence[str]) -> str:
        """One of the words; the first is the default."""
        value = self.take(name)
        if value is not None and value not in words:
            raise wrong(self.path(name), value, " or ".join(map(json.dumps, words)))
        return words[0] if value is None else str(value)

    def inner(self, name: str) -> Fields | None:
        """The fields of an object in a field."""
        value = self.take(name)
        return None if value is None else Fields(value, self.path(name))

    def only(self, name: str, neutral: Sequence[Any], why: str) -> None:
        """Refuses any value of a field but those that change nothing."""
        value = self.take(name)
        same = [x for x in neutral if value == x and isinstance(value, bool) == isinstance(x, bool)]
        if value is not None and not same:
            raise Refused(
                f"{self.path(name)}: got {shown(value)}; expected none, as {why}. Leave it out",
                field=self.path(name),
                code="unsupported_parameter",
            )

    def done(self, ignored: Iterable[str] = ()) -> None:
        """Refuses the fields that were not read and are not among those that are ignored."""
        unknown = sorted(self._values.keys() - self._read - {*ignored})
        if unknown:
            known = ", ".join(sorted(self._read)) or "none"
            raise Refused(
                f"{shown(self.path(unknown[0]))}: got a field that is not supported here; expected only "
                f"{known}. Leave it out",
                field=self.path(unknown[0])[:SHOWN],
                code="unsupported_parameter",
            )


def text(value: Any, path: str) -> str:
    """The value, if it is a string that UTF-8 can write."""
    if not isinstance(value, str):
        raise wrong(path, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(
            f"{path}: got half a surrogate pair; expected text of Unicode. Correct it", field=path
        ) from None
    return value


def wrong(path: str, value: Any, expected: str, *, field: str | None = "") -> Refused:
    """The error for a value of another type or range. field: by default the path."""
    got = "no value" if value is None else shown(value)
    return Refused(
        f"{path}: got {got}; expected {expected}. Change {path}", field=path if field == "" else field
    )


def shown(value: Any) -> str:
    """The beginning of a value, as JSON in ASCII."""
    if isinstance(value, str):
        value = value[: SHOWN + 1]
    elif isinstance(value, list | dict) and len(value) > 20:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    elif isinstance(value, int) and abs(value) > 10**SHOWN:
        return "a very large number"
    try:
        words = json.dumps(value)
    except (RecursionError, ValueError):
        return "a value"
    return words if len(words) <= SHOWN else words[:SHOWN] + "…"
