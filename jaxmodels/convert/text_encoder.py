"""A folder with a BERT or RoBERTa that reads texts, for `jaxmodels predict`: embeddings, classes or tags.

How the vectors of tokens become one of the text is said by modules.json and the folders it names, as
sentence-transformers writes them (arXiv:1908.10084); without it they are averaged, as that library does.
Dimensions: B texts, T tokens, M width, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.formats.json_file import LIMIT, parse_object, read_object
from jaxmodels.data.formats.text_input import text_example
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.interfaces import Predictor
from jaxmodels.models.bert import Bert, TextClassifier, TokenClassifier
from jaxmodels.tasks import classify, regress
from jaxmodels.tasks.apply import apply

MODES = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max", "mean_sqrt_len_tokens": "sqrt"}
SHORTEST = 16  # tokens that a text is padded to at least


class TextEncoder(NamedTuple):
    """A model's parameters, and its predictor."""

    params: Any
    predictor: Predictor


class Pooling(NamedTuple):
    """How the vectors of a text's tokens become one."""

    mode: str = "mean"
    unit: bool = False  # whether it is divided by its length
    longest: int | None = None  # tokens of a text


def reads_texts(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of a model of texts that this module opens."""
    return config.get("model_type") in ("bert", "roberta")


def open_text_encoder(
    folder: str | os.PathLike[str], *, adapter: str | os.PathLike[str] | None = None
) -> TextEncoder:
    """The encoder, text classifier or tagger of a folder with its tokenizer. adapter: as in load_pretrained.

    A text that is longer than the model reads is truncated, its last token kept, as in transformers.
    """
    folder = Path(folder)
    model, params, _, config = load_pretrained(folder, adapter=adapter)
    if not isinstance(model, Bert | TextClassifier | TokenClassifier):
        raise ValueError(
            f"{folder}: got a {type(model).__name__}; expected an encoder, or one that classifies texts or "
            "tokens. Use its Python functions"
        )
    encoder = model if isinstance(model, Bert) else model.encoder
    pooling = read_pooling(folder) if isinstance(model, Bert) else Pooling()
    tokenizer = Tokenizer.load(folder)
    before, after = tokenizer.before or (), tokenizer.after or ()
    most = min(encoder.length, pooling.longest or encoder.length)
    lengths = [*(SHORTEST << i for i in range(20) if SHORTEST << i < most), most]

    def read(text: str) -> dict[str, np.ndarray]:
        tokens = tokenizer.encode(text)
        if tokens and max(tokens) >= encoder.vocabulary:
            raise ValueError(
                f"got the token {max(tokens)} for a model of {encoder.vocabulary:,}; expected tokens below "
                "that. Take this model's tokenizer"
            )
        tokens = tokens[: most - len(before) - len(after)]
        return text_example([*before, *tokens, *after], lengths)

    described = {"before": list(before), "after": list(after), "most_tokens": most}
    if isinstance(model, Bert):
        return TextEncoder(params, _embeds(model, pooling, read, described))
    names = _names(config, model.classes)
    if isinstance(model, TokenClassifier):
        return TextEncoder(params, _tags(model, names, read, tokenizer.decode, {*before, *after}))
    if config.get("problem_type") == "multi_label_classification":
        raise ValueError(
            f"{folder / 'config.json'}: got problem_type multi_label_classification; expected one class a "
            "text. Take another model"
        )
    if model.classes == 1 or config.get("problem_type") == "regression":
        return TextEncoder(params, regress.predictor(model, names, read=read, inputs="inputs", input="text"))
    options: Any = {"inputs": "inputs", "input": "text", "settings": lambda: described}
    return TextEncoder(params, classify.predictor(model, names, read=read, **options))


def read_pooling(folder: Path) -> Pooling:
    """What modules.json says."""
    path = folder / "modules.json"
    if not path.is_file():
        return Pooling()
    kinds, mode = [], "mean"
    with path.open("rb") as file:
        content = file.read(LIMIT)
    modules = parse_object(b'{"modules":' + content + b"}", path)["modules"]
    for module in modules if isinstance(modules, list) else [modules]:
        kind = str(module.get("type") if isinstance(module, dict) else module).rpartition(".")[2]
        kinds.append(kind)
        if kind == "Pooling":
            mode = _mode(folder, str(module.get("path", "")))
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{path}: got the modules {', '.join(kinds)[:200]}; expected Transformer, Pooling and perhaps "
            "Normalize, the only ones that are followed. Take another model"
        )
    settings = folder / "sentence_bert_config.json"
    longest = read_object(settings).get("max_seq_length") if settings.is_file() else None
    if longest is not None and (type(longest) is not int or not 3 <= longest < 2**20):
        raise ValueError(
            f"{settings}: got max_seq_length {longest!r}; expected a number of tokens. Correct it"
        )
    return Pooling(mode, kinds[-1] == "Normalize", longest)


def _mode(folder: Path, name: str) -> str:
    """The one mode of a folder of Pooling."""
    parts = Path(name).parts
    if len(parts) != 1 or parts[0] in ("..", "/"):
        raise ValueError(
            f"{folder / 'modules.json'}: got the path {name[:80]!r}; expected a folder beside it. Correct it"
        )
    path = folder / name / "config.json"
    settings = read_object(path)
    on = [mode for name, mode in MODES.items() if settings.get(f"pooling_mode_{name}") is True]
    known = {f"pooling_mode_{name}" for name in MODES}
    others = [
        x for x, value in settings.items() if x.startswith("pooling_mode_") and value and x not in known
    ]
    if len(on) != 1 or others:
        raise ValueError(
            f"{path}: got the modes {', '.join([*on, *others]) or 'none'}; expected one of "
            f"{', '.join(MODES)}. Take another model"
        )
    return on[0]


def _embeds(
    model: Bert,
    pooling: Pooling,
    read: Callable[[str], dict[str, np.ndarray]],
    described: Mapping[str, Any],
) -> Predictor:
    def predict(params, extra, batch):
        real_BT1 = (batch["segments"] > 0)[..., None]
        options = {"segments_BT": batch["segments"]}
        x_BTM = apply(model, params, extra, batch["inputs"], None, **options)[0].astype(jnp.float32)
        if pooling.mode == "cls":
            x_BM = x_BTM[:, 0]
        elif pooling.mode == "max":
            x_BM = jnp.where(real_BT1, x_BTM, -1e9).max(1)
        else:
            count_B1 = real_BT1.sum(1).astype(jnp.float32)
            x_BM = jnp.where(real_BT1, x_BTM, 0).sum(1)
            x_BM /= jnp.sqrt(count_B1) if pooling.mode == "sqrt" else count_B1
        if pooling.unit:
            x_BM /= jnp.maximum(jnp.linalg.norm(x_BM, axis=-1, keepdims=True), 1e-12)
        return {"embedding": x_BM}

    def report(found):
        return {"embedding": found["embedding"].tolist()}

    def settings():
        return {**described, "pooling": pooling.mode, "normalized": pooling.unit}

    return Predictor(read, predict, report, input="text", settings=settings)


def _tags(
    model: TokenClassifier,
    names: list[str],
    read: Callable[[str], dict[str, np.ndarray]],
    decode: Callable[[Any], str],
    around: set[int],
) -> Predictor:
    def predict(params, extra, batch):
        options = {"segments_BT": batch["segments"]}
        logits_BTK = apply(model, params, extra, batch["inputs"], None, **options)[0].astype(jnp.float32)
        share_BTK = jax.nn.softmax(logits_BTK)
        return {
            "tag": share_BTK.argmax(-1),
            "probability": share_BTK.max(-1),
            "token": jnp.where(batch["segments"] > 0, batch["inputs"], -1),
        }

    def report(found):
        tags = []
        for token, tag, share in zip(*(found[name] for name in ("token", "tag", "probability")), strict=True):
            if token >= 0 and int(token) not in around:
                tags.append(
                    {"token": decode([int(token)]), "tag": names[tag], "probability": round(float(share), 4)}
                )
        return {"tags": tags}

    return Predictor(read, predict, report, input="text", settings=lambda: {"classes": names})


def _names(config: Mapping[str, Any], classes: int) -> list[str]:
    """The classes' names by id2label, or as transformers calls them."""
    names = config.get("id2label")
    names = names if isinstance(names, Mapping) else {}
    return [str(names.get(str(i), f"LABEL_{i}")) for i in range(classes)]
