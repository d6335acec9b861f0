"""/v1/audio/transcriptions: what is said in a recording that is sent."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from jaxmodels.serving.fields import Fields, wrong
from jaxmodels.serving.form import Sent, read_form
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import Service, answer, service_of
from jaxmodels.speech.subtitles import srt
from jaxmodels.speech.transcriber import FALLBACK, Transcript

FORMATS = ("json", "text", "verbose_json", "srt")


async def transcriptions(request: Request) -> Response:
    """POST /v1/audio/transcriptions."""
    service = service_of(request)
    fields, file = await read_form(request)
    served = service.model(fields.text("model", "") or None, "transcriptions")
    form, options = fields.choice("response_format", FORMATS), _options(fields, served)
    fields.done()
    audio_S = await service.read(_samples, file)
    transcript = await _answer(service, served, audio_S, options)
    if form == "json":
        return answer({"text": transcript.text})
    if form == "verbose_json":
        return answer(_verbose(transcript))
    return PlainTextResponse(transcript.text + "\n" if form == "text" else srt(transcript.segments))


def _options(fields: Fields, served: Served) -> dict[str, Any]:
    """The options of a Transcriber that a form asks for."""
    language, temperature = fields.text("language", ""), fields.number("temperature", 0, 1, 0)
    try:
        served.transcriber.symbols.check(language, "transcribe")
    except ValueError as error:
        raise Refused(f"language: {error}", field="language") from None
    fields.only("prompt", ("",), "texts are written without one")
    fields.only("stream", (False,), "a text is sent when it is whole")
    granularities = fields.take("timestamp_granularities") or []
    if not isinstance(granularities, list) or [x for x in granularities if x != "segment"]:
        raise wrong("timestamp_granularities", granularities, '["segment"], as words have no times')
    fallback = FALLBACK._replace(temperatures=(temperature,)) if temperature else FALLBACK
    return {"language": language, "fallback": fallback}


def _samples(file: Sent) -> Any:
    from jaxmodels.data.formats.audio_file import read_audio
    from jaxmodels.speech.transcriber import RATE

    try:
        return read_audio(file, rate=RATE)
    except ValueError as error:
        raise Refused(f"file: {error}", field="file") from None


async def _answer(service: Service, served: Served, audio_S: Any, options: dict[str, Any]) -> Transcript:
    """What is said; a Refused where too many wait, or it takes too long."""
    if served.waiting > service.limits.queue:
        raise Refused(
            f"got a request while {service.limits.queue} wait; expected fewer at a time. Ask again",
            status=429,
            code="queue_full",
            retry_after=1,
        )
    service.counters.inputs.labels(served.name).inc()
    future = asyncio.wrap_future(served.run(partial(served.transcriber, audio_S, **options)))
    try:
        return await asyncio.wait_for(future, service.limits.seconds)
    except TimeoutError:
        raise Refused(
            f"got no answer within {service.limits.seconds:g} seconds; expected a shorter recording, or a "
            "server with less to do. Send less, or ask again later",
            status=503,
            code="timeout",
            retry_after=10,
        ) from None


def _verbose(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's object of a transcription with segments."""
    segments = [
        {
            "id": n,
            "seek": 0,
            "start": one.start,
            "end": one.end,
            "text": one.text,
            "tokens": one.tokens,
            "temperature": one.temperature,
            "avg_logprob": one.logprob,
            "compression_ratio": one.compression,
            "no_speech_prob": one.no_speech,
        }
        for n, one in enumerate(transcript.segments)
    ]
    return {
        "task": "transcribe",
        "language": transcript.language,
        "duration": transcript.seconds,
        "text": transcript.text,
        "segments": segments,
    }
