"""The application: which path is answered by what."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jaxmodels.serving.completions import chat_completions, completions
from jaxmodels.serving.counters import CONTENT_TYPE
from jaxmodels.serving.guard import Guard
from jaxmodels.serving.predictions import embeddings, predict
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import Service, answer, refusal, service_of
from jaxmodels.serving.transcriptions import transcriptions

PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def make_app(service: Service, *, key: str = "", loopback: bool = True) -> Any:
    """The ASGI application of a service, behind its guard."""
    routes = [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/predict", predict, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
        *(Route(path, _page(name)) for path, name in PAGE.items()),
    ]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    app.state.service = service
    paths = frozenset(route.path for route in routes)
    return Guard(app, service, paths=paths, key=key, loopback=loopback)


async def models(request: Request) -> Response:
    """GET /v1/models."""
    return answer({"object": "list", "data": [described(x) for x in service_of(request).models.values()]})


async def model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    served = service_of(request).models.get(request.path_params["name"])
    if served is None:
        raise Refused(
            f"model: got a name that is not served; expected one of {', '.join(service_of(request).models)}. "
            "Name one of them",
            status=404,
            field="model",
            code="model_not_found",
        )
    return answer(described(served))


def described(served: Served) -> dict[str, Any]:
    """A model as OpenAI lists it, with what it does and reads."""
    facts: dict[str, Any] = {"does": served.abilities}
    if served.kind:
        predictor = served.model.require_predictor()
        facts.update(input=served.kind, fields=list(predictor.fields), draws=predictor.draw is not None)
    if served.engine is not None:
        facts["context"] = served.context
        facts["prompt"] = served.decoder.prompt
    if served.base:
        facts["parent"] = served.base
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "jaxmodels",
        **facts,
    }


async def health(request: Request) -> Response:
    """GET /health: 200 while requests are taken, 503 while the server ends."""
    ending = service_of(request).draining
    return answer({"status": "ending" if ending else "ok"}, status=503 if ending else 200)


async def metrics(request: Request) -> Response:
    """GET /metrics: Prometheus' text."""
    service = service_of(request)
    return Response(await service.read(service.counters.text), headers={"content-type": CONTENT_TYPE})


def _page(name: str) -> Any:
    content = files("jaxmodels.serving").joinpath("page", name).read_bytes()
    kind = f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8"

    async def page(request: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return page


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(Refused("the server failed; its log says why. Ask again", status=500))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: a path that there is not, or a method that it has not."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refused = Refused(
            f"got {request.method[:20]}; expected {allowed or 'another method'}. Change the method",
            status=405,
        )
        response = refusal(refused)
        response.headers["allow"] = allowed
        return response
    known = (
        "/v1/completions, /v1/chat/completions, /v1/embeddings, /v1/audio/transcriptions, "
        "/v1/models, /predict, /health, /metrics, /"
    )
    message = f"got a path that there is not; expected one of {known}. Change the address"
    return refusal(Refused(message, status=error.status_code, code="not_found"))


HANDLERS: Any = {HTTPException: _http_error, Refused: _refused, Exception: _failed}
