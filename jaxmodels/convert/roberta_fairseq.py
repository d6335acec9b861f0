"""RoBERTa as fairseq names it, in the names of Hugging Face folders, which convert/bert.py reads.

fairseq's model has no types of tokens; its positions begin at padding + 1, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = (
    (r"^(en|de)coder\.(sentence_encoder|lm_head)", r"\2"),
    (r"^sentence_encoder\.embed_tokens\.", "roberta.embeddings.word_embeddings."),
    (r"^sentence_encoder\.embed_positions\.", "roberta.embeddings.position_embeddings."),
    (r"^sentence_encoder\.(emb_layer_norm|layernorm_embedding)\.", "roberta.embeddings.LayerNorm."),
    (r"^sentence_encoder\.layers\.", "roberta.encoder.layer."),
    (r"\.self_attn\.q_proj\.", ".attention.self.query."),
    (r"\.self_attn\.k_proj\.", ".attention.self.key."),
    (r"\.self_attn\.v_proj\.", ".attention.self.value."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    (r"\.self_attn_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.fc1\.", ".intermediate.dense."),
    (r"\.fc2\.", ".output.dense."),
    (r"\.final_layer_norm\.", ".output.LayerNorm."),
    (r"^lm_head\.weight$", "lm_head.decoder.weight"),
)


def fairseq_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by the names of a Hugging Face folder; tensors of other parts keep their names."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def fairseq_config(
    tensors: Mapping[str, Any], *, heads: int, activation: str = "gelu", padding: int = 1
) -> dict[str, Any]:
    """The config.json of fairseq's masked language model: sizes from its tensors, the rest as given."""
    named = fairseq_names(tensors)
    vocabulary, width = named["roberta.embeddings.word_embeddings.weight"].shape
    layers = [name for name in named if re.search(r"layer\.\d+\.intermediate\.dense\.weight$", name)]
    return {
        "model_type": "roberta",
        "architectures": ["RobertaForMaskedLM"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": named[layers[0]].shape[0],
        "max_position_embeddings": named["roberta.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": 0,
        "pad_token_id": padding,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
    }
