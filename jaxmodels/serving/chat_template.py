"""A chat as one text, by the template that a model's folder brings, in Jinja's sandbox.

The template is a program from elsewhere. It sees the messages and the names of the special tokens, and can
reach neither files nor Python's objects. What it writes is what `transformers` writes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.formats.json_file import read_object
from jaxmodels.runs.files import read_text

TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class ChatTemplate:
    """A template with the special tokens that it may write."""

    def __init__(self, source: str, tokens: Mapping[str, Any], path: Path):
        self.source, self.tokens, self.path = source, dict(tokens), path

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text after which the model's answer comes; a ValueError where the template refuses the chat."""
        import jinja2

        given = [{name: x for name, x in message.items() if x is not None} for message in messages]
        variables = {"messages": given, "tools": None, "documents": None, "add_generation_prompt": True}
        try:
            return self._compiled.render(**{**self.tokens, **variables})
        except jinja2.exceptions.TemplateError as error:
            said = str(error)[:200]
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            said = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(
            f"messages: got a chat that the model's template refuses ({said}); expected one that it writes. "
            "Change the messages"
        )

    @cached_property
    def _compiled(self) -> Any:
        return _compiled(self.source, self.path)

    def check(self) -> None:
        """Raises ValueError for a template that is none."""
        _ = self._compiled


class _Found(NamedTuple):
    source: str
    path: Path


def find(folder: Path, *, given: str = "") -> ChatTemplate | None:
    """The template of a model's folder, or in the file that is given; None where there is none."""
    found = _Found(read_text(given), Path(given)) if given else _in(folder)
    if found is None:
        return None
    template = ChatTemplate(found.source, _tokens(folder), found.path)
    template.check()
    return template


def _in(folder: Path) -> _Found | None:
    if not folder.is_dir():
        return None
    path = folder / "chat_template.jinja"
    if path.is_file():
        with path.open("rb") as file:  # also a link, as caches of downloads are made of them
            return _Found(file.read(1 << 20).decode(), path)
    path = folder / "tokenizer_config.json"
    source = read_object(path).get("chat_template") if path.is_file() else None
    if isinstance(source, list):  # of several by name
        named = {x.get("name"): x.get("template") for x in source if isinstance(x, dict)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise ValueError(
            f"{path}: got a chat_template of type {type(source).__name__}; expected a text. Correct it"
        )
    return _Found(source, path)


def _tokens(folder: Path) -> dict[str, Any]:
    """The special tokens by name, such as bos_token."""
    tokens: dict[str, Any] = {}
    names = [f"{name}_token" for name in TOKENS]
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        settings = read_object(path) if folder.is_dir() and path.is_file() else {}
        for name in names:
            value = settings.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                tokens[name] = value
    return tokens


def _compiled(source: str, path: Path) -> Any:
    try:
        import jinja2
        import jinja2.ext
        import jinja2.nodes
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ImportError("chat templates need jinja2; pip install 'jaxmodels[serve]'") from error

    class Generation(jinja2.ext.Extension):
        """The block that marks what the model writes, for training; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def refuse(message: Any) -> Any:
        raise jinja2.exceptions.TemplateError(str(message))

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.exceptions.TemplateError as error:
        raise ValueError(
            f"{path}: got a chat template that Jinja refuses ({error}); expected a sound one. Correct it"
        ) from error
