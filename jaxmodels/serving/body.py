"""The body of a request, of bounded size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from jaxmodels.serving.fields import Fields, parse
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.service import service_of

LARGE = 1 << 16  # bytes that are parsed in a thread, so that other requests go on
SECONDS = 30.0  # in which a body must arrive


async def read_body(request: Request) -> bytes:
    """The bytes of the body; a Refused where there are more than the limit, or they do not come."""
    limit = service_of(request).limits.body
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > limit:
        raise _large(f"{int(announced):,} bytes", limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _large("more", limit)
    except TimeoutError:
        raise Refused(
            f"got no whole body within {SECONDS:g} seconds; expected all of it. Send it at once", status=408
        ) from None
    except ClientDisconnect:
        raise Refused("the client hung up", status=499) from None  # which nobody reads
    return b"".join(parts)


async def read_fields(request: Request) -> Fields:
    """The fields of a body of JSON."""
    kind = media_type(request)
    body = await read_body(request)
    if kind not in ("", "application/json"):
        raise Refused(
            f"content-type: got {kind[:60]!r}; expected application/json. Send JSON, and say so",
            status=415,
        )
    if len(body) < LARGE:
        return parse(body)
    return await service_of(request).read(parse, body)


def media_type(request: Request) -> str:
    """The media type of a body, without its parameters; "" where the request says none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _large(got: str, limit: int) -> Refused:
    return Refused(
        f"got a body of {got}; expected at most {limit:,} bytes. Send less", status=413, code="body_too_large"
    )
