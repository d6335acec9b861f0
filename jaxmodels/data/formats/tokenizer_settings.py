"""What the files beside a tokenizer say of it.

They are tokenizer_config.json, special_tokens_map.json, added_tokens.json and, for the kind of the model,
config.json. A setting that changes which numbers a text has is followed or refused by name. The others change
none: - cutting and filling up to one length, which nobody does here: model_max_length, max_length, stride,
truncation_side,
  padding_side, pad_to_multiple_of;
- how dialogues are written as texts, which is the caller's: chat_template, use_default_system_prompt;
- how a text is tidied after decoding: clean_up_tokenization_spaces, spaces_between_special_tokens, errors;
- what a model is given beside numbers: model_input_names, return_token_type_ids, trim_offsets;
- where the files came from: name_or_path, auto_map, which names code, that is never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
REFUSED: dict[
    str, tuple[Any, ...]
] = {  # what changes numbers and is not followed: the values that change nothing
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

# Classes of transformers by the rule that their files without a tokenizer.json need, named without Tokenizer
# and Fast.
GPT2_RULE = ("GPT2", "Roberta", "Bart", "CodeGen", "Longformer", "LED", "Whisper", "MVP")
QWEN_RULE = ("Qwen2",)
BERT_RULE = (
    "Bert",
    "DistilBert",
    "Electra",
    "MobileBert",
    "LayoutLM",
    "ConvBert",
    "SqueezeBert",
    "Lxmert",
    "Funnel",
)
SENTENCEPIECE_RULE = ("Llama", "CodeLlama", "T5", "MT5", "Gemma")
OF_MODEL = {  # the class where only config.json says of which kind the model is
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
TAKE = (
    "Write a tokenizer.json with transformers (AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
)


class Added(NamedTuple):
    """A token that is found in a text before anything else."""

    content: str
    number: int | None  # None: that of the piece of this name, if there is one
    flags: Mapping[str, bool]


class Settings(NamedTuple):
    """What the files of a folder say of its tokenizer."""

    folder: Path
    said: Mapping[str, Any]  # tokenizer_config.json
    kind: str | None  # the class of transformers, without Tokenizer and Fast
    named: bool  # whether a file names a class; else the kind is that of the model
    added: tuple[Added, ...]

    def switch(self, name: str) -> bool | None:
        """A setting that is true or false; None where it is not said."""
        return self.said.get(name)

    def special(self, name: str) -> str | None:
        """A token by its role, such as bos_token."""
        return _content(self.said.get(name))

    def class_among(self, known: tuple[str, ...], files: str) -> str | None:
        """The class, if there is one; a ValueError where it is not among those whose rule is known for these files."""
        if self.kind is not None and self.kind not in known:
            raise ValueError(
                f"{self.folder}: got {files} of a {self.kind}Tokenizer, whose rule is not known here; expected that of "
                f"{', '.join(known)}. {TAKE}"
            )
        return self.kind


def read_settings(folder: Path) -> Settings:
    """The settings of a folder; where it has no such files, nothing is said."""
    path = folder / "tokenizer_config.json"
    said = read_object(path) if path.is_file() else {}
    specials = {}
    if "added_tokens_decoder" not in said and (folder / "special_tokens_map.json").is_file():
        specials = read_object(folder / "special_tokens_map.json")
        said = {**said, **{name: value for name, value in specials.items() if name in (*NAMED, *MORE)}}
    for name in SWITCHES:
        if said.get(name) is not None and not isinstance(said[name], bool):
            raise _wrong(path, name, said[name], "true or false")
    for name, plain in REFUSED.items():
        if name in said and said[name] not in plain:
            raise ValueError(
                f"{path}: got {name} {said[name]!r}; expected {plain[-1]!r}, which is all that is followed. {TAKE}"
            )
    for name in NAMED:
        if said.get(name) is not None and _content(said[name]) is None:
            raise _wrong(path, name, said[name], "a token's text")
    kind, named = _kind(folder, said)
    return Settings(folder, said, kind, named, tuple(_added(folder, said)))


def _kind(folder: Path, said: Mapping[str, Any]) -> tuple[str | None, bool]:
    found = said.get("tokenizer_class")
    if found is None and (folder / "config.json").is_file():
        config = read_object(folder / "config.json")
        found = config.get("tokenizer_class")
        model = config.get("model_type")
        if found is None and isinstance(model, str):
            return OF_MODEL.get(model), False
    if found is None:
        return None, False
    if not isinstance(found, str):
        raise _wrong(folder / "tokenizer_config.json", "tokenizer_class", found, "the name of a class")
    kind = found.removesuffix("Fast").removesuffix("Tokenizer")
    return (None if kind in ("PreTrained", "Tokenizers", "TokenizersBackend") else kind), True


def _added(folder: Path, said: Mapping[str, Any]) -> Iterator[Added]:
    """Every token with a number of its own, then those that are known by their role."""
    path = folder / "tokenizer_config.json"
    listed = said.get("added_tokens_decoder")
    specials = {_content(said.get(name)) for name in NAMED}
    found: dict[str, Added] = {}
    if listed is not None:
        if not isinstance(listed, Mapping):
            raise _wrong(path, "added_tokens_decoder", listed, "tokens by their numbers")
        for number, value in listed.items():
            if (
                not isinstance(value, Mapping)
                or not number.isascii()
                or not number.isdecimal()
                or len(number) > 9
            ):
                raise _wrong(path, "added_tokens_decoder", {number: value}, "a token with its number")
            found_one = _one(path, value, int(number))
            found[found_one.content] = found_one
    elif (folder / "added_tokens.json").is_file():
        path = folder / "added_tokens.json"
        for content, number in read_object(path).items():
            if type(number) is not int or not 0 <= number < 10**9 or not content:
                raise _wrong(path, content, number, "the number of a token")
            special = content in specials
            found[content] = Added(content, number, {"special": special, "normalized": not special})
    numbers = [one.number for one in found.values()]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{path}: got two tokens of one number; expected one each. Get the file again")
    more = [value for name in MORE if isinstance(said.get(name), list) for value in said[name]]
    for value in [*(said.get(name) for name in NAMED), *more]:
        if value is not None:
            one = _one(path, value if isinstance(value, Mapping) else {"content": value}, None)
            found.setdefault(one.content, one._replace(flags={**one.flags, "special": True}))
    yield from found.values()


def _one(path: Path, value: Mapping[str, Any], number: int | None) -> Added:
    content = value.get("content")
    flags = {name: value[name] for name in FLAGS if name in value}
    if (
        not isinstance(content, str)
        or not content
        or not all(isinstance(flag, bool) for flag in flags.values())
    ):
        raise _wrong(path, "a token", dict(value), "its content, a text, and flags, true or false")
    return Added(content, number, flags)


def _content(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _wrong(path: Path, name: str, value: Any, wanted: str) -> ValueError:
    return ValueError(
        f"{path}: got {name} {str(value)[:80]!r}; expected {wanted}. Correct the file, or get it again"
    )
