"""BERT and RoBERTa, with every head of models/bert.py, as Hugging Face folders hold them.

A bare encoder is read without its pooler: only a classifier has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxmodels.convert.family import Family, Weight, architecture, dense, label_count, labels, norm, number
from jaxmodels.models.bert import Bert, MaskedLM, SpanModel, TextClassifier, TokenClassifier, gelu

SIZES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden_width": "intermediate_size",
    "types": "type_vocab_size",
}
FOLLOWED: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
ACTIVATIONS = {"gelu": gelu, "gelu_new": nn.gelu, "gelu_pytorch_tanh": nn.gelu, "relu": nn.relu}
HEADS: dict[str, type] = {
    "Model": Bert,
    "ForMaskedLM": MaskedLM,
    "ForPreTraining": MaskedLM,
    "ForSequenceClassification": TextClassifier,
    "ForTokenClassification": TokenClassifier,
    "ForQuestionAnswering": SpanModel,
}
MODULES = (Bert, MaskedLM, TextClassifier, TokenClassifier, SpanModel)
Module = Bert | MaskedLM | TextClassifier | TokenClassifier | SpanModel


def model(config: Mapping[str, Any]) -> Module:
    """The model of a config.json; its "architectures" names the head."""
    kind = config["model_type"]
    for name, value in FOLLOWED.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"{kind}: got {name} {config[name]!r}; expected {value!r}, the only value that is followed. "
                "Take another model."
            )
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(
            f"{kind}: got hidden_act {activation!r}; expected one of {', '.join(ACTIVATIONS)}. Take another "
            "model."
        )
    start = {"bert": "Bert", "roberta": "Roberta"}[kind]
    named = architecture(config, start + "Model")
    head = HEADS.get(named.removeprefix(start))
    if head is None:
        known = ", ".join(start + name for name in HEADS)
        raise ValueError(
            f"{kind}: got the architecture {named!r}; expected one of {known}. Take one of those."
        )
    sizes: dict[str, Any] = {
        ours: number(config, name, above=-1 if ours == "types" else 0) for ours, name in SIZES.items()
    }
    offset = 0 if kind == "bert" else number({"pad_token_id": 1, **config}, "pad_token_id", above=-1) + 1
    encoder = Bert(
        **sizes,
        length=number(config, "max_position_embeddings") - offset,
        offset=offset,
        activation=ACTIVATIONS[activation],
        epsilon=number({"layer_norm_eps": 1e-12, **config}, "layer_norm_eps", float),
    )
    if head is Bert:
        return encoder
    if head in (TextClassifier, TokenClassifier):
        return head(encoder, label_count(config))
    if head is SpanModel and label_count(config) != 2:
        raise ValueError(
            f"{kind}: got {label_count(config)} labels; expected 2, start and end. Correct config.json."
        )
    return head(encoder)


def _encoder(model: Module) -> Bert:
    return model if isinstance(model, Bert) else model.encoder


def config(model: Module) -> dict[str, Any]:
    """What config.json must say of a model."""
    encoder = _encoder(model)
    kind, start = ("roberta", "Roberta") if encoder.offset else ("bert", "Bert")
    head = next(name for name, module in HEADS.items() if type(model) is module)
    activation = next(
        (name for name, function in ACTIVATIONS.items() if function == encoder.activation), None
    )
    if activation is None:
        raise ValueError(
            f"{kind}: got the activation {encoder.activation}; expected one that config.json can name, "
            f"{', '.join(ACTIVATIONS)}. Keep it as a checkpoint."
        )
    settings = {
        "model_type": kind,
        "architectures": [start + head],
        **{name: getattr(encoder, ours) for ours, name in SIZES.items()},
        "max_position_embeddings": encoder.length + encoder.offset,
        "hidden_act": activation,
        "layer_norm_eps": encoder.epsilon,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
    }
    if encoder.offset:
        settings["pad_token_id"] = encoder.offset - 1
    if isinstance(model, TextClassifier | TokenClassifier):
        settings |= labels(model.classes)
    return settings


def weights(model: Module) -> list[Weight]:
    """Every parameter and its names there."""
    encoder = _encoder(model)
    ours, theirs = "encoder/", "roberta." if encoder.offset else "bert."
    if isinstance(model, Bert):
        ours, theirs = "", ""
    names = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    }
    norms = {"norm_attention": "attention.output.LayerNorm", "norm_mlp": "output.LayerNorm"}
    layer = f"{theirs}encoder.layer.{{}}."
    found = [
        Weight(f"{ours}embed/embedding", (f"{theirs}embeddings.word_embeddings.weight",)),
        Weight(f"{ours}position", (f"{theirs}embeddings.position_embeddings.weight",)),
        *norm(f"{ours}norm", f"{theirs}embeddings.LayerNorm"),
    ]
    if encoder.types:
        found.append(Weight(f"{ours}type", (f"{theirs}embeddings.token_type_embeddings.weight",)))
    for path, name in names.items():
        found += dense(f"{ours}blocks/{path}", layer + name)
    for path, name in norms.items():
        found += norm(f"{ours}blocks/{path}", layer + name)
    return found + _head(model, theirs)


def _head(model: Module, encoder: str) -> list[Weight]:
    roberta = encoder == "roberta."
    if isinstance(model, MaskedLM):
        start, last = ("lm_head.", "layer_norm") if roberta else ("cls.predictions.transform.", "LayerNorm")
        bias = "lm_head.bias" if roberta else "cls.predictions.bias"
        return [*dense("dense", f"{start}dense"), *norm("norm", start + last), Weight("bias", (bias,))]
    if isinstance(model, TextClassifier):
        pooler, head = (
            ("classifier.dense", "classifier.out_proj") if roberta else ("bert.pooler.dense", "classifier")
        )
        return [*dense("pooler", pooler), *dense("head", head)]
    if isinstance(model, TokenClassifier):
        return dense("head", "classifier")
    return dense("head", "qa_outputs") if isinstance(model, SpanModel) else []


# Buffers, the pooler of a model that has none here, and the head for next-sentence prediction.
IGNORED = r"embeddings\.position_ids$|(^|\.)pooler\.dense\.|^cls\.seq_relationship\."
COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
FAMILIES = (
    Family(
        ("bert", "roberta"), model, config, weights, IGNORED, ("bert.", "roberta."), MODULES, copies=COPIES
    ),
)
