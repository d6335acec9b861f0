"""/v1/completions and /v1/chat/completions: whole, or as a stream of events while the text is written."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jaxmodels.serving.body import read_fields
from jaxmodels.serving.fields import Fields
from jaxmodels.serving.generation_request import Asked, read_chat, read_completion
from jaxmodels.serving.limits import Limits
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.request import Piece
from jaxmodels.serving.served import Served
from jaxmodels.serving.service import answer, service_of, written
from jaxmodels.serving.texts import Texts


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    return await _respond(request, "completions", read_completion)


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions."""
    return await _respond(request, "chat", read_chat)


async def _respond(
    request: Request, ability: str, read: Callable[[Fields, Served, Limits], Asked]
) -> Response:
    service = service_of(request)
    fields = await read_fields(request)
    served = service.model(fields.text("model", "") or None, ability)
    if served.engine is None:
        raise Refused(
            f"model: got {served.name}, which does {', '.join(served.abilities)}; expected a model that "
            "generates text. Name another",
            field="model",
            code="model_not_able",
        )
    asked = await service.read(read, fields, served, service.limits)
    texts = Texts(service, served, asked)
    form = _Form(served.name, asked, served.decoder.decode)
    await texts.submit()
    if asked.stream:
        return EventStream(texts, form)
    return answer(await _unless_gone(request, _whole(texts, form), texts))


async def _whole(texts: Texts, form: _Form) -> dict[str, Any]:
    parts: list[list[Piece]] = [[] for _ in range(texts.count)]
    async with contextlib.aclosing(texts.pieces()) as pieces:
        async for index, piece in pieces:
            parts[index].append(piece)
    return form.whole(parts)


async def _unless_gone(request: Request, work: Any, texts: Texts) -> Any:
    """What the work gives; cancelled, with its texts, where the client hangs up before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(hung_up(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused("the client hung up", status=499)  # which nobody reads
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        texts.cancel()


async def hung_up(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client has closed its connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response as server-sent events; where the client hangs up, the texts are cancelled."""

    media_type = "text/event-stream"

    def __init__(self, texts: Texts, form: _Form):
        self.status_code, self.background = 200, None
        self._texts, self._form = texts, form
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends the events; as ASGI calls it."""
        writer = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            await asyncio.wait({writer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                with contextlib.suppress(OSError):  # the client hung up while something was sent
                    writer.result()
        finally:
            self._texts.cancel()
            for one in (writer, gone):
                one.cancel()
            await asyncio.gather(writer, gone, return_exceptions=True)

    async def _write(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with contextlib.aclosing(self._events()) as events:
            async for event in events:
                body = f"data: {event}\n\n".encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[str, None]:
        form = self._form
        try:
            for event in form.opening(self._texts.count):
                yield written(event)
            async with contextlib.aclosing(self._texts.pieces()) as pieces:
                async for index, piece in pieces:
                    if piece.text or piece.tokens or piece.finish:
                        yield written(form.chunk(index, piece))
            if form.asked.usage:
                yield written(form.usage(self._texts.tokens))
        except Refused as refused:
            yield written(refused.body)
            return
        yield "[DONE]"


class _Form:
    """Pieces of texts as the objects of OpenAI's API."""

    def __init__(self, model: str, asked: Asked, decode: Callable[[list[int]], str]):
        self.asked, self._decode = asked, decode
        kind, chat = ("chat.completion", "chatcmpl") if asked.chat else ("text_completion", "cmpl")
        self._object = kind
        self._common = {"id": f"{chat}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._offsets = [0] * len(asked.requests)

    def whole(self, parts: list[list[Piece]]) -> dict[str, Any]:
        """The object with all texts."""
        choices, tokens = [], 0
        for index, pieces in enumerate(parts):
            text = "".join(piece.text for piece in pieces)
            all_tokens = [token for piece in pieces for token in piece.tokens]
            all_logprobs = [x for piece in pieces for x in piece.logprobs]
            tokens += len(all_tokens)
            message = {"role": "assistant", "content": text, "refusal": None}
            choices.append(
                {
                    "index": index,
                    **({"message": message} if self.asked.chat else {"text": text}),
                    "logprobs": self._logprobs(index, all_tokens, all_logprobs),
                    "finish_reason": pieces[-1].finish,
                }
            )
        return {**self._common, "object": self._object, "choices": choices, "usage": self._usage(tokens)}

    def opening(self, count: int) -> list[dict[str, Any]]:
        """What comes before the first piece of each text: who speaks in a chat."""
        delta = {"role": "assistant", "content": ""}
        return [self._event(index, {"delta": delta}) for index in range(count)] if self.asked.chat else []

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """The object with the next piece of a text."""
        content = {"content": piece.text} if piece.text else {}
        return self._event(
            index,
            {"delta": content} if self.asked.chat else {"text": piece.text},
            self._logprobs(index, piece.tokens, piece.logprobs),
            piece.finish,
        )

    def usage(self, tokens: int) -> dict[str, Any]:
        """The object with the numbers of tokens, which ends a stream."""
        return {**self._common, "object": self._streamed, "choices": [], "usage": self._usage(tokens)}

    def _event(
        self, index: int, content: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        usage = {"usage": None} if self.asked.usage else {}
        return {**self._common, "object": self._streamed, "choices": [choice], **usage}

    @property
    def _streamed(self) -> str:
        return "chat.completion.chunk" if self.asked.chat else self._object

    def _usage(self, tokens: int) -> dict[str, int]:
        prompt = self.asked.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}

    def _logprobs(self, index: int, tokens: list[int], logprobs: list[float]) -> dict[str, Any] | None:
        if not self.asked.logprobs:
            return None
        texts = [self._decode([token]) for token in tokens]
        if self.asked.chat:
            entries = [
                {"token": text, "logprob": x, "bytes": [*text.encode()], "top_logprobs": []}
                for text, x in zip(texts, logprobs, strict=True)
            ]
            return {"content": entries, "refusal": None}
        offsets = []
        for text in texts:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(text)
        return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": offsets}
