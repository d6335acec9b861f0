"""Requests of /v1/completions and /v1/chat/completions, checked, as requests of the engine.

What is not in OpenAI's reference, or is and is not done here, is refused by its name.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxmodels.decoding.sample import SamplingOptions
from jaxmodels.serving.fields import Fields, text, wrong
from jaxmodels.serving.limits import Limits
from jaxmodels.serving.refused import Refused
from jaxmodels.serving.request import Request
from jaxmodels.serving.served import LETTERS, Served

# They change nothing of an answer here, and clients send them unasked.
IGNORED = (
    *("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
)
ROLES = ("system", "developer", "user", "assistant")
STOPS, STOP_LETTERS, MESSAGES = 16, 200, 1_000
SEEDS = 2**31


class Asked(NamedTuple):
    """What a request asks for: the choices of its first prompt, then those of the next."""

    requests: list[Request]
    prompt_tokens: int  # of all prompts, each counted once
    stream: bool
    usage: bool  # whether a stream ends with the numbers of tokens
    logprobs: bool
    chat: bool


def read_completion(fields: Fields, served: Served, limits: Limits) -> Asked:
    """The request of /v1/completions."""
    prompts = _prompts(fields.take("prompt"), served, limits)
    fields.only("echo", [False], "the prompt is not repeated")
    fields.only("suffix", [""], "texts are only continued")
    fields.only("logprobs", [0], "only the tokens that were chosen have log-probabilities; 0 asks for them")
    logprobs = fields.take("logprobs") is not None
    choices = fields.integer("n", 1, limits.choices) or 1
    fields.only("best_of", [choices], "every text is given back")
    tokens = fields.integer("max_tokens", 1, limits.tokens) or min(16, limits.tokens)
    return _asked(fields, served, limits, prompts, choices, tokens, logprobs=logprobs, chat=False)


def read_chat(fields: Fields, served: Served, limits: Limits) -> Asked:
    """The request of /v1/chat/completions."""
    if served.template is None:
        raise Refused(
            f"model: got {served.name}, which has no chat template; expected a model whose folder has one, "
            "in chat_template.jinja or tokenizer_config.json. Use /v1/completions, or start the server with "
            "--chat-template",
            field="model",
            code="no_chat_template",
        )
    try:
        written = served.template(_messages(fields.take("messages")))
    except Refused:
        raise
    except ValueError as error:
        raise Refused(str(error), field="messages") from None
    prompt = _encoded(written, "messages", served, limits)  # the template writes the begin token, if any
    logprobs = fields.flag("logprobs")
    fields.only("top_logprobs", [0], "only the tokens that were chosen have log-probabilities")
    choices = fields.integer("n", 1, limits.choices) or 1
    most, old = (fields.integer(name, 1, limits.tokens) for name in ("max_completion_tokens", "max_tokens"))
    if most is not None and old is not None and most != old:
        raise Refused(
            f"max_tokens: got {old} beside max_completion_tokens {most}; expected one of them. Leave one out",
            field="max_tokens",
        )
    return _asked(
        fields, served, limits, [prompt], choices, most or old or limits.tokens, logprobs=logprobs, chat=True
    )


def _asked(
    fields: Fields,
    served: Served,
    limits: Limits,
    prompts: Sequence[list[int]],
    choices: int,
    tokens: int,
    *,
    logprobs: bool,
    chat: bool,
) -> Asked:
    """The request with the fields that both have; refuses all others."""
    if len(prompts) * choices > limits.choices:
        raise Refused(
            f"n: got {choices} texts for each of {len(prompts)} prompts; expected at most {limits.choices} "
            "texts of a request. Send several requests",
            field="n",
        )
    for name in ("presence_penalty", "frequency_penalty"):
        fields.only(name, [0], "it is not followed here; repetition_penalty is")
    fields.only("logit_bias", [{}], "it is not followed here")
    options = SamplingOptions(
        tokens=tokens,
        temperature=fields.number("temperature", 0, 2, 1.0),
        top_k=fields.integer("top_k", 0, 2**31 - 1) or 0,
        top_p=fields.number("top_p", 0, 1, 1.0, above=True),
        min_p=fields.number("min_p", 0, 1, 0.0),
        repetition_penalty=fields.number("repetition_penalty", 0, 10, 1.0, above=True),
    )
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    first = secrets.randbelow(SEEDS) if seed is None else seed
    stop, schema = _stop(fields.take("stop")), _schema(fields.inner("response_format"))
    stream, after = fields.flag("stream"), fields.inner("stream_options")
    usage = after is not None and after.flag("include_usage")
    if after is not None:
        if not stream:
            raise wrong("stream_options", {}, "it only beside stream true")
        after.only("include_obfuscation", [False], "nothing is added to a stream here")
        after.done()
    fields.done(IGNORED)
    requests = [
        Request(tuple(prompt), options._replace(seed=(first + n) % SEEDS), stop, served.adapter, schema)
        for prompt in prompts
        for n in range(choices)
    ]
    return Asked(requests, sum(map(len, prompts)), stream, usage, logprobs, chat)


def _prompts(value: Any, served: Served, limits: Limits) -> list[list[int]]:
    """The prompts, each a text or a list of tokens; one alone need not stand in a list."""
    if isinstance(value, str) or (isinstance(value, list) and value and not isinstance(value[0], str | list)):
        return [_prompt(value, "prompt", served, limits)]
    if not isinstance(value, list) or not 1 <= len(value) <= limits.choices:
        raise wrong("prompt", value, f"a string, a list of tokens, or at most {limits.choices} of them")
    return [_prompt(x, f"prompt[{n}]", served, limits) for n, x in enumerate(value)]


def _prompt(value: Any, path: str, served: Served, limits: Limits) -> list[int]:
    """The tokens of a text, with the begin token as `generate` puts it, or the tokens that are given."""
    if not isinstance(value, list):
        begin = served.decoder.begin if not served.decoder.source else None
        return _encoded(text(value, path), path, served, limits, [] if begin is None else [begin])
    for n, token in enumerate(value[: served.context]):
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < served.vocabulary:
            raise wrong(f"{path}[{n}]", token, f"a token from 0 to {served.vocabulary - 1:,}")
    return _sized(value, path, served, limits)


def _encoded(
    written: str, path: str, served: Served, limits: Limits, before: Sequence[int] = ()
) -> list[int]:
    """The tokens of a text, which may not be longer than the model reads."""
    letters = LETTERS * served.context
    if len(written) > letters:
        raise Refused(
            f"{path}: got {len(written):,} characters; expected at most {letters:,}, for a context of "
            f"{served.context:,} tokens. Shorten it",
            field=path,
            code="context_length_exceeded",
        )
    try:
        tokens = [*before, *served.decoder.encode(written)]
    except ValueError as error:
        raise Refused(f"{path}: {error}", field=path) from None
    return _sized(tokens, path, served, limits)


def _sized(tokens: list[int], path: str, served: Served, limits: Limits) -> list[int]:
    """The tokens, if they are at least one and leave room in the context."""
    most = served.context if served.decoder.source else served.context - 1
    most = min(most, limits.prompt or most)
    if not 1 <= len(tokens) <= most:
        raise Refused(
            f"{path}: got {len(tokens):,} tokens; expected 1 to {most:,}. "
            + ("Shorten it" if tokens else "Write some text"),
            field=path,
            code="context_length_exceeded" if tokens else None,
        )
    return tokens


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages of a chat, with texts in parts put together."""
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES:
        raise wrong("messages", value, f"a list of 1 to {MESSAGES:,} messages")
    messages = []
    for n, one in enumerate(value):
        message = Fields(one, f"messages[{n}]")
        role = message.take("role")
        if role not in ROLES:
            raise wrong(message.path("role"), role, " or ".join(ROLES))
        content = message.take("content")
        if isinstance(content, list):
            content = "".join(
                _part(part, f"{message.path('content')}[{i}]") for i, part in enumerate(content)
            )
        found = {"role": role, "content": text(content, message.path("content"))}
        if (name := message.text("name", "")) != "":
            found["name"] = name
        message.done()
        messages.append(found)
    return messages


def _part(value: Any, path: str) -> str:
    part = Fields(value, path)
    if part.take("type") != "text":
        raise wrong(part.path("type"), part.take("type"), '"text", the only kind of part that is read here')
    found = part.text("text")
    part.done()
    return found


def _stop(value: Any) -> tuple[str, ...]:
    """The texts that end a text."""
    given = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(given, list) or len(given) > STOPS:
        raise wrong("stop", value, f"a string or at most {STOPS} of them")
    for n, one in enumerate(given):
        if not 1 <= len(text(one, f"stop[{n}]")) <= STOP_LETTERS:
            raise wrong(f"stop[{n}]", one, f"1 to {STOP_LETTERS} characters")
    return tuple(given)


def _schema(form: Fields | None) -> str | None:
    """The JSON schema that the text must meet; None for any text."""
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    schema = {"text": None, "json_object": '{"type": "object"}'}.get(kind)
    if kind == "json_schema":
        inner = form.inner("json_schema")
        if inner is None:
            raise wrong(form.path("json_schema"), None, "an object with a schema")
        value = inner.take("schema")
        if not isinstance(value, dict):
            raise wrong(inner.path("schema"), value, "a JSON schema, which is an object")
        inner.text("name", "")
        inner.text("description", "")
        inner.flag("strict")
        inner.done()
        schema = json.dumps(value)
    form.done()
    return schema
