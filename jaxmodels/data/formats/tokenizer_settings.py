"""The settings of a tokenizer in the files beside it.

They are tokenizer_config.json, special_tokens_map.json, added_tokens.json and, for the kind of the model,
config.json. A setting that changes the tokens of a text is applied or refused by name. The others change
none:

- truncation and padding, which nothing here does: model_max_length, max_length, stride, truncation_side,
  padding_side, pad_to_multiple_of;
- how dialogues become texts, which is up to the caller: chat_template, use_default_system_prompt;
- how a text is cleaned up after decoding: clean_up_tokenization_spaces, spaces_between_special_tokens,
  errors;
- what a model gets beside tokens: model_input_names, return_token_type_ids, trim_offsets;
- where the files are from: name_or_path, and auto_map, which names code that is never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.formats.json_file import read_object

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MORE = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
SWITCHES = (
    *("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "legacy"),
)
# Settings that change tokens and are not applied, with the values that change nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True,),
    "never_split": (None, []),
    "sp_model_kwargs": (None, {}),
    "fix_mistral_regex": (None, False),
    "do_split_on_punc": (None, True),
    "wordpieces_prefix": (None, "##"),
    "keep_accents": (None, True),
    "remove_space": (None, True),
    "dropout": (None, 0, 0.0),
}

# Classes of transformers by the rule that their files need where there is no tokenizer.json; their names are
# without Tokenizer and Fast.
GPT2_RULE = ("GPT2", "Roberta", "Bart", "CodeGen", "Longformer", "LED", "Whisper", "MVP")
QWEN_RULE = ("Qwen2",)
BERT_RULE = (
    *("Bert", "DistilBert", "Electra", "MobileBert", "LayoutLM", "ConvBert", "SqueezeBert", "Lxmert"),
    "Funnel",
)
SENTENCEPIECE_RULE = ("Llama", "CodeLlama", "T5", "MT5", "Gemma")
# The class where only config.json says which kind the model is.
OF_MODEL = {
    **{
        "gpt2": "GPT2",
        "roberta": "Roberta",
        "bert": "Bert",
        "t5": "T5",
        "llama": "Llama",
        "mistral": "Llama",
    },
    **{"mixtral": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen2", "qwen2_moe": "Qwen2", "qwen3_moe": "Qwen2"},
}
WRITE_TOKENIZER_JSON = (
    "Write a tokenizer.json with transformers (AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
)


class Added(NamedTuple):
    """A token that is found in a text before the rule splits it."""

    content: str
    number: int | None  # None: the number of the piece of this name, if there is one
    flags: Mapping[str, bool]


class Settings(NamedTuple):
    """The settings of a folder's tokenizer."""

    folder: Path
    config: Mapping[str, Any]  # tokenizer_config.json
    kind: str | None  # the class of transformers, without Tokenizer and Fast
    named: bool  # whether a file names the class; else it follows from the kind of the model
    added: tuple[Added, ...]

    def switch(self, name: str) -> bool | None:
        """A setting that is true or false; None where it is absent."""
        return self.config.get(name)

    def special(self, name: str) -> str | None:
        """A token by its role, such as bos_token."""
        return _content(self.config.get(name))

    def affix(
        self, role: str, template: tuple[int, ...] | None, token: Callable[[str], int | None]
    ) -> tuple[int, ...] | None:
        """The tokens before (role "bos") or after ("eos") a text: those of add_bos_token or add_eos_token,
        else those of the file's template. token: the number of a piece."""
        added = self.switch(f"add_{role}_token")
        if added is None:
            return template
        if not added:
            return ()
        piece = self.special(f"{role}_token")
        number = None if piece is None else token(piece)
        return template if number is None else (number,)  # the model's own number, where config.json has one

    def class_among(self, known: tuple[str, ...], files: str) -> str | None:
        """The class, if there is one; raises ValueError where its rule is not known for these files."""
        if self.kind is not None and self.kind not in known:
            raise ValueError(
                f"{self.folder}: got {files} of a {self.kind}Tokenizer, whose rule is not known here; "
                f"expected one of {', '.join(known)}. {WRITE_TOKENIZER_JSON}"
            )
        return self.kind


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; without such files all are absent."""
    path = folder / "tokenizer_config.json"
    config = read_object(path) if path.is_file() else {}
    if "added_tokens_decoder" not in config and (folder / "special_tokens_map.json").is_file():
        specials = read_object(folder / "special_tokens_map.json")
        config = {**config, **{name: value for name, value in specials.items() if name in (*NAMED, *MORE)}}
    for name in SWITCHES:
        if config.get(name) is not None and not isinstance(config[name], bool):
            raise _wrong(path, name, config[name], "true or false")
    for name, plain in REFUSED.items():
        if name in config and config[name] not in plain:
            raise ValueError(
                f"{path}: got {name} {config[name]!r}; expected {plain[-1]!r}, the only value that is "
                f"supported. {WRITE_TOKENIZER_JSON}"
            )
    for name in NAMED:
        if config.get(name) is not None and _content(config[name]) is None:
            raise _wrong(path, name, config[name], "a token's text")
    kind, named = _kind(folder, config)
    return Settings(folder, config, kind, named, tuple(_added(folder, config)))


def _kind(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The class of the tokenizer, and whether a file names it."""
    name = config.get("tokenizer_class")
    if name is None and (folder / "config.json").is_file():
        model_config = read_object(folder / "config.json")
        name = model_config.get("tokenizer_class")
        model = model_config.get("model_type")
        if name is None and isinstance(model, str):
            return OF_MODEL.get(model), False
    if name is None:
        return None, False
    if not isinstance(name, str):
        raise _wrong(folder / "tokenizer_config.json", "tokenizer_class", name, "the name of a class")
    kind = name.removesuffix("Fast").removesuffix("Tokenizer")
    return (None if kind in ("PreTrained", "Tokenizers", "TokenizersBackend") else kind), True


def _added(folder: Path, config: Mapping[str, Any]) -> Iterator[Added]:
    """Every token that has its own number, then those that have a role."""
    path = folder / "tokenizer_config.json"
    listed = config.get("added_tokens_decoder")
    specials = {_content(config.get(name)) for name in NAMED}
    added: dict[str, Added] = {}
    if listed is not None:
        if not isinstance(listed, Mapping):
            raise _wrong(path, "added_tokens_decoder", listed, "tokens by their numbers")
        for number, value in listed.items():
            is_number = number.isascii() and number.isdecimal() and len(number) <= 9
            if not isinstance(value, Mapping) or not is_number:
                raise _wrong(path, "added_tokens_decoder", {number: value}, "a token with its number")
            token = _token(path, value, int(number))
            added[token.content] = token
    elif (folder / "added_tokens.json").is_file():
        path = folder / "added_tokens.json"
        for content, number in read_object(path).items():
            if type(number) is not int or not 0 <= number < 10**9 or not content:
                raise _wrong(path, content, number, "the number of a token")
            special = content in specials
            added[content] = Added(content, number, {"special": special, "normalized": not special})
    numbers = [token.number for token in added.values()]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{path}: got two tokens of one number; expected one each. Get the file again")
    more = [value for name in MORE if isinstance(config.get(name), list) for value in config[name]]
    for value in [*(config.get(name) for name in NAMED), *more]:
        if value is not None:
            token = _token(path, value if isinstance(value, Mapping) else {"content": value}, None)
            added.setdefault(token.content, token._replace(flags={**token.flags, "special": True}))
    yield from added.values()


def _token(path: Path, value: Mapping[str, Any], number: int | None) -> Added:
    content = value.get("content")
    flags = {name: value[name] for name in FLAGS if name in value}
    valid = all(isinstance(flag, bool) for flag in flags.values())
    if not isinstance(content, str) or not content or not valid:
        raise _wrong(path, "a token", dict(value), "its content, a text, and flags, true or false")
    return Added(content, number, flags)


def _content(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _wrong(path: Path, name: str, value: Any, expected: str) -> ValueError:
    return ValueError(
        f"{path}: got {name} {str(value)[:80]!r}; expected {expected}. Correct the file, or get it again"
    )
