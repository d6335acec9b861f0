"""/predict and /v1/embeddings: answers of models that read images, sounds, texts or rows.

An image or a sound comes as its bytes, in base64 or as the whole body: no request names a file.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jaxmodels.inference.model import Answer
from jaxmodels.serving.body import media_type, read_body, read_fields
from jaxmodels.serving.fields import Fields, text, wrong
from jaxmodels.serving.form import Sent
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import Service, answer, service_of

FILES = ("image", "sound")  # inputs that are files elsewhere
LETTERS = 200_000  # of a text
FLOAT32 = float(np.finfo(np.float32).max)
BYTES = ("image/", "audio/", "application/octet-stream")  # media types of a body that is one input
EMBEDDING_IGNORED = ("user",)


async def predict(request: Request) -> Response:
    """POST /predict: {"inputs": [...]}, or the bytes of one image or sound."""
    service = service_of(request)
    if media_type(request).startswith(BYTES):
        served = service.model(request.query_params.get("model"), "predict")
        _check_query(request)
        if served.kind not in FILES:
            raise Refused(
                f"content-type: got {media_type(request)[:60]!r} for {served.name}, which reads "
                f'a {served.kind}; expected application/json. Send {{"inputs": [...]}}',
                status=415,
            )
        inputs: list[Any] = [await read_body(request)]
        draw = "draw" in request.query_params
    else:
        fields = await read_fields(request)
        served = service.model(fields.text("model", "") or None, "predict")
        draw = fields.flag("draw")
        inputs = await service.read(_inputs, fields, served, service)
        fields.done()
    answers = await _answers(service, served, inputs)
    if all(one.error for one in answers):
        raise Refused(f"inputs[0]: {answers[0].error}", field="inputs[0]")
    predictions = await service.read(_predictions, served, inputs, answers, draw)
    return answer({"model": served.name, "predictions": predictions})


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    service = service_of(request)
    fields = await read_fields(request)
    served = service.model(fields.text("model", "") or None, "embeddings")
    given = fields.take("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 1 <= len(texts) <= service.limits.inputs:
        raise wrong("input", given, f"a string or a list of 1 to {service.limits.inputs} strings")
    inputs = [_text(x, "input" if given is x else f"input[{n}]") for n, x in enumerate(texts)]
    form = fields.choice("encoding_format", ("float", "base64"))
    dimensions = fields.integer("dimensions", 1, 2**20)
    fields.done(EMBEDDING_IGNORED)
    answers = await _answers(service, served, inputs)
    for n, one in enumerate(answers):
        if one.error:
            raise Refused(f"input[{n}]: {one.error}", field=f"input[{n}]")
    vectors = [np.asarray(one.values["embedding"], "<f4") for one in answers]
    if dimensions is not None and dimensions != vectors[0].size:
        raise wrong("dimensions", dimensions, f"{vectors[0].size}, the model's, as vectors are not cut")
    data = [
        {
            "object": "embedding",
            "index": n,
            "embedding": vector.tolist() if form == "float" else base64.b64encode(vector.tobytes()).decode(),
        }
        for n, vector in enumerate(vectors)
    ]
    tokens = await service.read(_tokens, served, inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer({"object": "list", "model": served.name, "data": data, "usage": usage})


def _check_query(request: Request) -> None:
    """Refuses what stands behind the ? and is not read."""
    unknown = sorted({*request.query_params} - {"model", "draw"})
    if unknown:
        raise wrong(unknown[0][:60], request.query_params[unknown[0]], "only model and draw in the address")


def _inputs(fields: Fields, served: Served, service: Service) -> list[Any]:
    """The inputs as the model's predictor reads them."""
    given, most = fields.take("inputs"), service.limits.inputs
    if not isinstance(given, list) or not 1 <= len(given) <= most:
        raise wrong("inputs", given, f"a list of 1 to {most} inputs, each a {served.kind}")
    return [_input(x, f"inputs[{n}]", served.kind) for n, x in enumerate(given)]


def _input(value: Any, path: str, kind: str) -> Any:
    if kind in FILES:
        return _bytes(value, path, kind)
    if kind == "text":
        return _text(value, path)
    if not isinstance(value, dict):
        raise wrong(path, value, "an object with the values of a row by column")
    for name, x in value.items():
        where = f"{path}.{text(name, path)[:60]}"
        if isinstance(x, list | dict):
            raise wrong(where, x, "a number, a text, true, false or null")
        if isinstance(x, str):
            _text(x, where)
        elif isinstance(x, int | float) and abs(x) > FLOAT32:
            raise wrong(where, x, f"a number of at most {FLOAT32:.1e}, as models compute in float32")
    return value


def _text(value: Any, path: str) -> str:
    if len(text(value, path)) > LETTERS:
        raise Refused(
            f"{path}: got {len(value):,} characters; expected at most {LETTERS:,}. Shorten it", field=path
        )
    return value


def _bytes(value: Any, path: str, kind: str) -> bytes:
    """The bytes of a file in base64, also in a data: URL."""
    written = text(value, path)
    if written.startswith("data:"):
        head, _, written = written.partition(",")
        if not head.endswith(";base64"):
            raise wrong(path, head, "a data: URL in base64")
    try:
        return base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(path, value, f"the bytes of one {kind} in base64, not its name") from None


async def _answers(service: Service, served: Served, inputs: Sequence[Any]) -> list[Answer]:
    """The model's answers; a Refused where too many wait, or it takes too long."""
    if served.waiting > service.limits.queue:
        raise Refused(
            f"got a request while {service.limits.queue} wait; expected fewer at a time. Ask again",
            status=429,
            code="queue_full",
            retry_after=1,
        )
    service.counters.inputs.labels(served.name).inc(len(inputs))
    files = served.kind in FILES
    future = asyncio.wrap_future(served.submit([Sent(x) if files else x for x in inputs]))
    try:
        return await asyncio.wait_for(future, service.limits.seconds)
    except TimeoutError:
        raise Refused(
            f"got no answer within {service.limits.seconds:g} seconds; expected a server with less to do. "
            "Ask again later",
            status=503,
            code="timeout",
            retry_after=10,
        ) from None


def _predictions(
    served: Served, inputs: Sequence[Any], answers: Sequence[Answer], draw: bool
) -> list[dict[str, Any]]:
    """The values of each answer, or why there is none; draw: with a picture of it as a data: URL."""
    predictor, found = served.model.require_predictor(), []
    for given, one in zip(inputs, answers, strict=True):
        values = {"error": one.error} if one.error else dict(one.values)
        if draw and not one.error and predictor.draw is not None:
            from jaxmodels.runs.png import encode_png

            file = Sent(given) if served.kind in FILES else given
            picture = encode_png(predictor.draw(file, one.arrays))
            values["picture"] = "data:image/png;base64," + base64.b64encode(picture).decode()
        found.append(values)
    return found


def _tokens(served: Served, inputs: Sequence[str]) -> int:
    """How many tokens the model reads in the texts: the numbers of a mask, where its examples have one."""
    read = served.model.require_predictor().read
    count = 0
    for one in inputs:
        example = read(one)
        mask = next((example[name] for name in ("mask", "segments", "weight") if name in example), None)
        count += int(np.sum(np.asarray(mask) > 0)) if mask is not None else 0
    return count
