"""The fields of a multipart form and its one file, as OpenAI's clients send recordings."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator
from typing import Any

import python_multipart  # noqa: F401  (Starlette's parser needs it)
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from jaxmodels.serving.body import media_type, read_body
from jaxmodels.serving.fields import Fields
from jaxmodels.serving.refused import Refused

FIELDS = 30  # of a form
LETTERS = 1 << 16  # bytes of a field
PIECE = 1 << 20  # bytes that are parsed before other requests go on


class Sent(io.BytesIO):
    """The bytes of a request as a file, which messages do not call by its address in memory."""

    def __repr__(self) -> str:
        return "what was sent"


async def read_form(request: Request) -> tuple[Fields, Sent]:
    """(the fields, of which true, false and numbers are values of their own type, the file)."""
    kind = media_type(request)
    body = await read_body(request)
    if kind != "multipart/form-data":
        raise Refused(
            f"content-type: got {kind[:60]!r}; expected multipart/form-data with a file. Send a form",
            status=415,
        )
    parser = MultiPartParser(
        request.headers, _pieces(body), max_files=1, max_fields=FIELDS, max_part_size=LETTERS
    )
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        text = str(getattr(error, "message", error)).rstrip(".")
        raise Refused(
            f"got a form that cannot be read ({text}); expected a sound one. Send it again"
        ) from None
    try:
        return await _read(form)
    finally:
        await form.close()


async def _read(form: FormData) -> tuple[Fields, Sent]:
    values: dict[str, Any] = {}
    file: Sent | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise Refused(f"got a file called {name[:60]!r}; expected file. Call it file", field="file")
            file = Sent(await value.read())
        elif name.endswith("[]"):
            values.setdefault(name[:-2], []).append(value)
        elif name in values:
            raise Refused(f"{name[:60]}: got it twice; expected it once. Leave one out", field=name[:60])
        else:
            values[name] = _value(value)
    if file is None:
        raise Refused("file: got none; expected a recording. Add a file to the form", field="file")
    return Fields(values), file


def _value(text: str) -> Any:
    """A field of a form as JSON would say it: numbers, true and false; else text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        number = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return number if isinstance(number, int | float) else text


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
