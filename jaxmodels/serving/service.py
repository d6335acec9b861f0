"""What all requests share: models by name, limits, counters, and whether the server still takes requests."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jaxmodels.serving.counters import Counters
from jaxmodels.serving.fields import shown
from jaxmodels.serving.limits import Limits
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.served import Served

READERS = 4  # threads that check requests and render templates


class Service:
    """The models and what is shared; made once for a server."""

    def __init__(self, models: Sequence[Served], limits: Limits, slots: int):
        self.models = {served.name: served for served in models}
        self.limits = limits
        engines = [(x.name, x.engine) for x in models if x.engine is not None and x.adapter is None]
        self.counters = Counters(engines)
        self.draining = False
        self.active = 0  # requests that are being answered
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="request")
        texts = max(1, len(engines)) * (slots + limits.queue)
        self.waiters = ThreadPoolExecutor(texts, thread_name_prefix="text")  # each waits for one text

    def model(self, name: str | None, ability: str) -> Served:
        """The model that a request names, which must be able to do this; without a name the only one."""
        if name is None and len(self.models) == 1:
            name = next(iter(self.models))
        served = self.models.get(name or "")
        known = ", ".join(self.models)
        if served is None:
            got = "no name" if name is None else shown(name)
            raise Refused(
                f"model: got {got}; expected one of {known}. Name one of them",
                status=400 if name is None else 404,
                field="model",
                code="model_not_found",
            )
        if ability not in served.abilities and ability != "chat":  # whose reason is said elsewhere
            able = [one.name for one in self.models.values() if ability in one.abilities]
            does = ", ".join(served.abilities) or "nothing"
            raise Refused(
                f"model: got {served.name}, which does {does}; expected a model that does {ability}. "
                + (f"Name {' or '.join(able)}" if able else "None is served here"),
                field="model",
                code="model_not_able",
            )
        return served

    async def read(self, function: Any, *arguments: Any) -> Any:
        """What a function gives, run in a thread of those that check requests."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, function, *arguments)

    def close(self) -> None:
        """Ends the threads, once nothing runs in them."""
        for pool in (self.readers, self.waiters):
            pool.shutdown(wait=False, cancel_futures=True)
        for served in self.models.values():
            served.close()


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    return request.app.state.service


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON in ASCII; numbers that are not finite become null."""
    return Response(written(value), status, headers, "application/json")


def written(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(_finite(value), separators=(",", ":"), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refusal(refused: Refused) -> Response:
    """An error as a response."""
    return answer(refused.body, status=refused.status, headers=refused.headers)
