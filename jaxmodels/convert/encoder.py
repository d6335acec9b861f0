"""A folder with a BERT or a RoBERTa as a predictor of texts: a vector for each, or its class.

Dimensions: B batch, T tokens, M width, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert.bert import FAMILIES
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.interfaces import Predictor
from jaxmodels.models.bert import Bert, TextClassifier
from jaxmodels.runs.files import read_json

SHORTEST = 8  # texts are padded to a power of two of tokens, at least this many
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


class EncoderModel(NamedTuple):
    """A model's parameters, and its predictor."""

    params: Any
    predictor: Predictor


def encodes(source: str | os.PathLike[str]) -> bool:
    """Whether this is a folder with an encoder of texts."""
    path = Path(source) / "config.json"
    return path.is_file() and read_object(path).get("model_type") in FAMILIES[0].kinds


def open_encoder(
    folder: str | os.PathLike[str], *, adapter: str | os.PathLike[str] | None = None
) -> EncoderModel:
    """The encoder of a folder with config.json, weights and a tokenizer.

    A text's vector is the mean over its tokens, of length 1, unless files of sentence-transformers say
    otherwise. A longer text than the model takes is cut at its end. adapter: as in load_pretrained.
    """
    folder = Path(folder)
    model, params, _, config = load_pretrained(folder, adapter=adapter)
    if not isinstance(model, Bert | TextClassifier):
        raise ValueError(
            f"{folder}: got a {type(model).__name__}; expected an encoder, or a classifier of texts. Take "
            "one, or load it with jaxmodels.convert.load.load_pretrained"
        )
    encoder = model if isinstance(model, Bert) else model.encoder
    tokenizer = Tokenizer.load(folder)
    before, after = tokenizer.before or (), tokenizer.after or ()
    length = min(encoder.length, _most_tokens(folder))

    def read(text: Any) -> dict[str, np.ndarray]:
        if not isinstance(text, str):
            raise ValueError(f"got {type(text).__name__}; expected a text. Give a string")
        found = tokenizer.encode(text)
        if not found:
            raise ValueError("got a text without tokens; expected at least one. Write something")
        tokens = [*before, *found[: length - len(before) - len(after)], *after]
        size = min(length, max(SHORTEST, 1 << (len(tokens) - 1).bit_length()))
        padding = np.zeros(size - len(tokens), np.int32)
        return {
            "tokens": np.concatenate([np.asarray(tokens, np.int32), padding]),
            "segments": (np.arange(size) < len(tokens)).astype(np.int32),
        }

    settings: dict[str, Any] = {"before": list(before), "after": list(after), "most_tokens": length}
    if isinstance(model, TextClassifier):
        return EncoderModel(params, _classifier(model, read, settings, config))
    return EncoderModel(params, _embedder(model, read, settings, *_pooling(folder)))


def _embedder(
    model: Bert, read: Any, settings: Mapping[str, Any], pooling: str, normalized: bool
) -> Predictor:
    def predict(params, extra, batch):
        segments_BT = batch["segments"]
        x_BTM = model.apply({"params": params}, batch["tokens"], None, segments_BT).astype(jnp.float32)
        if pooling == "cls":
            x_BM = x_BTM[:, 0]
        else:
            real_BT1 = (segments_BT > 0)[..., None]
            x_BM = jnp.where(real_BT1, x_BTM, 0).sum(1) / jnp.maximum(real_BT1.sum(1), 1)
        if normalized:
            x_BM /= jnp.maximum(jnp.sqrt((x_BM**2).sum(-1, keepdims=True)), 1e-12)
        return {"embedding": x_BM}

    def report(prediction: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"embedding": [float(x) for x in prediction["embedding"]]}

    described = {**settings, "pooling": pooling, "normalized": normalized}
    return Predictor(read, predict, report, input="text", settings=lambda: described)


def _classifier(
    model: TextClassifier, read: Any, settings: Mapping[str, Any], config: Mapping[str, Any]
) -> Predictor:
    named = config.get("id2label")
    names = named if isinstance(named, Mapping) else {}
    classes = [str(names.get(str(i), f"class {i}")) for i in range(model.classes)]

    def predict(params, extra, batch):
        logits_BK = model.apply({"params": params}, batch["tokens"], None, batch["segments"])
        return {"probability": jax.nn.softmax(logits_BK.astype(jnp.float32))}

    def report(prediction: Mapping[str, np.ndarray]) -> dict[str, Any]:
        probability_K = prediction["probability"]
        order = probability_K.argsort(kind="stable")[::-1][:5]
        likeliest = {classes[i]: round(float(probability_K[i]), 4) for i in order}
        best = classes[order[0]]
        return {"class": best, "probability": likeliest[best], "likeliest": likeliest}

    described = {**settings, "classes": classes}
    return Predictor(read, predict, report, input="text", settings=lambda: described)


def _most_tokens(folder: Path) -> int:
    """The limit that sentence-transformers sets, where there is one."""
    path = folder / "sentence_bert_config.json"
    most = read_object(path).get("max_seq_length") if path.is_file() else None
    if most is None:
        return 2**31
    if type(most) is not int or most < SHORTEST:
        raise ValueError(
            f"{path}: got max_seq_length {most!r}; expected a number of tokens, {SHORTEST} or more. Correct "
            "the file"
        )
    return most


def _pooling(folder: Path) -> tuple[str, bool]:
    """("mean" or "cls", whether vectors have length 1)."""
    path, pooling = folder / "modules.json", "mean"
    if not path.is_file():
        return pooling, True
    kinds = [str(module.get("type")) for module in read_json(path, kind=list) if isinstance(module, Mapping)]
    names = [kind.rpartition(".")[2] for kind in kinds]
    if unknown := [name for name in names if name not in ("Transformer", "Pooling", "Normalize")]:
        raise ValueError(
            f"{path}: got a {unknown[0][:80]}; expected Transformer, Pooling and Normalize, which are "
            "followed. Take another model"
        )
    settings = folder / "1_Pooling" / "config.json"
    if settings.is_file():
        found = read_object(settings)
        on = [name for name, value in found.items() if name.startswith("pooling_mode_") and value is True]
        known = [name for name, setting in POOLINGS.items() if on == [setting]]
        if not known:
            raise ValueError(
                f"{settings}: got {', '.join(on) or 'no pooling'}; expected one of "
                f"{', '.join(POOLINGS.values())}. Take another model"
            )
        pooling = known[0]
    return pooling, "Normalize" in names
