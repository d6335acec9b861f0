"""What every request passes first: whom the server answers, and what comes out where something fails.

A page of another origin in somebody's browser can reach a server on that computer, and by a name that it lets
point to 127.0.0.1 ("DNS rebinding") even as its own origin. So the header Host must name this computer where
the server listens only to it, and a request that a page sends must come from the server's own page.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers

from jaxmodels.console import shown as printable
from jaxmodels.serving.fields import shown
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.service import Service, refusal

OPEN = ("/", "/page.js", "/page.css", "/health")  # paths that need no key
ALWAYS = ("/health", "/metrics")  # that are answered while the server ends
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: "
    "blob:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """The application behind checks of Host, Origin and key; errors become JSON, requests are counted."""

    def __init__(
        self,
        app: Any,
        service: Service,
        *,
        paths: frozenset[str],
        key: str = "",
        loopback: bool = True,
        say: Callable[[str], None] = lambda text: print(printable(text), file=sys.stderr, flush=True),
    ):
        self._app, self._service, self._paths, self._say = app, service, paths, say
        self._key = _digest(key.encode()) if key else b""
        self._loopback = loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, as ASGI calls it."""
        if scope["type"] != "http":  # of a lifespan or a websocket, which there are none of
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        began, status = time.monotonic(), 0
        service, path = self._service, scope["path"]

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in HEADERS if pair[0] not in given),
                ]
            await send(message)

        service.active += 1
        try:
            try:
                self._check(scope)
                await self._app(scope, receive, sending)
            except Refused as refused:
                if not status:
                    await refusal(refused)(scope, receive, sending)
            except OSError:
                if not status:  # else the client hung up
                    raise
        except Exception:
            self._say(f"jaxmodels serve: {scope['method']} {shown(path)} failed\n{traceback.format_exc()}")
            if not status:
                failed = Refused("the server failed; its log says why. Ask again", status=500)
                await refusal(failed)(scope, receive, sending)
        finally:
            service.active -= 1
            label = path if path in self._paths else "other"
            service.counters.requests.labels(label, str(status or 499)).inc()
            service.counters.seconds.labels(label).observe(time.monotonic() - began)

    def _check(self, scope: Any) -> None:
        """Raises Refused for a request that is not answered."""
        headers, path = Headers(scope=scope), scope["path"]
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if self._loopback and not is_loopback(name_in(host)):
            raise Refused(
                f"host: got {shown(host)}; expected a name of this computer, such as localhost, as the "
                "server listens only to it. Use one of them",
                status=403,
                code="host_refused",
            )
        origin = headers.get("origin")
        crossing = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        foreign = origin is not None and (not host or origin.partition("://")[2] != host)
        if foreign or (crossing and path != "/"):
            raise Refused(
                f"origin: got a request from a page of {shown(origin or 'another site')}; expected none, or "
                "one of the server's own page. Ask from a program",
                status=403,
                code="origin_refused",
            )
        if self._service.draining and path not in ALWAYS:
            raise Refused(
                "the server is ending; expected one that stays. Ask another",
                status=503,
                code="ending",
                retry_after=10,
            )
        if self._key and path not in OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(_digest(given.strip().encode("utf-8", "replace")), self._key)
            if scheme.lower() != "bearer" or not same:
                raise Refused(
                    "authorization: got no key, or another; expected `Bearer KEY`. Give the server's key",
                    status=401,
                    code="invalid_api_key",
                )


def _digest(key: bytes) -> bytes:
    """Of one length, so that a comparison says nothing of the key's."""
    return hashlib.sha256(key).digest()


def name_in(host: str) -> str:
    """The name in a header Host, without the port and without the brackets of an address."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name if not rest or (rest[0] == ":" and rest[1:].isdecimal()) else ""
    name, colon, port = host.partition(":")
    return name if not colon or port.isdecimal() else ""


def is_loopback(name: str) -> bool:
    """Whether only this computer is reached by this name or address."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
