"""Llama, Mistral, Mixtral, Qwen 2 and 3 with and without experts, as Hugging Face folders hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxmodels.convert.family import Family, Weight, number, switch, transposed
from jaxmodels.layers.rope import Scaling
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE

QKV = ("query", "key", "value")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


def _refuse(config: Mapping[str, Any], name: str, default: Any, *followed: Any) -> None:
    value = config.get(name, default)
    if value not in followed:
        raise ValueError(
            f"{config['model_type']}: got {name} {value!r}; expected {' or '.join(map(repr, followed))}, the "
            "only values that are followed. Take another model."
        )


def _rope(config: Mapping[str, Any], default: float) -> tuple[float, Scaling | None]:
    """theta and scaling, from "rope_parameters" or, in older files, from "rope_theta" and "rope_scaling"."""
    rope = {"rope_theta": config.get("rope_theta", default), "model_type": "rope"}
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"{config['model_type']}: got rotary settings {settings!r}; expected an object. Correct "
            "config.json."
        )
    rope |= {name: value for name, value in settings.items() if value is not None}
    rope.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    rope["rope_type"] = kind = rope.get("rope_type", rope.get("type", "default"))
    real = (int, float)
    theta = float(number(rope, "rope_theta", real))
    # "dynamic" frequencies change with the length of the text, which a cache of rotated keys cannot
    # follow.
    _refuse(rope, "rope_type", "default", "default", "linear", "llama3", "yarn")
    _refuse(rope, "partial_rotary_factor", 1.0, 1.0)
    if kind == "default":
        return theta, None
    factor = float(number(rope, "factor", real))
    if kind == "linear":
        return theta, Scaling("linear", factor)
    length = number(rope, "original_max_position_embeddings")
    if kind == "llama3":
        slow, fast = (float(number(rope, name, real)) for name in ("low_freq_factor", "high_freq_factor"))
        return theta, Scaling("llama3", factor, length, slow, fast)
    _refuse(rope, "truncate", True, True)
    slow, fast = (
        float(number({name: n, **rope}, name, real)) for name, n in (("beta_slow", 1), ("beta_fast", 32))
    )
    attention = float(number(rope, "attention_factor", real)) if "attention_factor" in rope else None
    if attention is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        mscales = [number(rope, name, real) for name in ("mscale", "mscale_all_dim")]
        over, under = (0.1 * mscale * math.log(max(factor, 1.0)) + 1 for mscale in mscales)
        attention = over / under
    return theta, Scaling("yarn", factor, length, slow, fast, attention)


def _window(config: Mapping[str, Any]) -> int | None:
    """The window of attention, or None; Qwen 2 and 3 may have it in some layers only."""
    kind, depth = config["model_type"], config["num_hidden_layers"]
    if kind == "llama":
        return None
    if kind.startswith("qwen") and not switch(config, "use_sliding_window", False):
        return None
    if kind == "qwen2_moe":
        _refuse(config, "use_sliding_window", False, False)
    window = config.get("sliding_window", None if kind == "mixtral" else 4096)
    if window is None:
        return None
    if kind in ("qwen2", "qwen3"):
        first = config.get("max_window_layers", 28)
        by_depth = ["sliding_attention"] * (first < depth) + ["full_attention"] * (first > 0)
        types = config.get("layer_types") or by_depth
        if all(kind == "full_attention" for kind in types):
            return None
        if not all(kind == "sliding_attention" for kind in types):
            raise ValueError(
                f"{kind}: got a window in some of {depth} layers; expected it in all or none. Take another "
                "model."
            )
    return number(config, "sliding_window") if "sliding_window" in config else window


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """What Llama and MoE have in common."""
    kind = config["model_type"]
    _refuse(config, "hidden_act", "silu", "silu")
    heads = key_heads = number(config, "num_attention_heads")
    if config.get("num_key_value_heads") is not None:
        key_heads = number(config, "num_key_value_heads")
    sizes = {
        "vocabulary": number(config, "vocab_size"),
        "length": number(config, "max_position_embeddings"),
        "width": number(config, "hidden_size"),
        "depth": number(config, "num_hidden_layers"),
        "heads": heads,
        "key_heads": key_heads,
    }
    theta, scaling = _rope(config, 1e6 if kind == "mixtral" else 1e4)
    head_width = config.get("head_dim", 128 if kind == "qwen3" else None)
    if head_width is not None:
        head_width = number({**config, "head_dim": head_width}, "head_dim")
    biases: tuple[str, ...] = ()
    if kind == "qwen2" or (kind == "qwen2_moe" and switch(config, "qkv_bias", True)):
        biases = QKV
    elif switch(config, "attention_bias", False) and kind in ("llama", "qwen3", "qwen3_moe"):
        biases = (*QKV, "out")
    epsilon = {"rms_norm_eps": 1e-5 if kind == "mixtral" else 1e-6, **config}
    return {
        **sizes,
        "head_width": head_width,
        "theta": theta,
        "scaling": scaling,
        "epsilon": number(epsilon, "rms_norm_eps", float),
        "biases": biases,
        "head_norm": kind.startswith("qwen3"),
        "window": _window(config),
        "tied": switch(config, "tie_word_embeddings", False),
    }


def _llama(config: Mapping[str, Any]) -> Llama:
    _refuse(config, "mlp_bias", False, False)
    return Llama(**_fields(config), hidden_width=number(config, "intermediate_size"))


def _moe(config: Mapping[str, Any]) -> MoE:
    kind, mixtral = config["model_type"], config["model_type"] == "mixtral"
    if not mixtral:
        _refuse(config, "decoder_sparse_step", 1, 1)
        _refuse(config, "mlp_only_layers", None, None, [])
    experts = "num_local_experts" if mixtral or config.get("num_experts") is None else "num_experts"
    return MoE(
        **_fields(config),
        experts=number(config, experts),
        chosen=number(config, "num_experts_per_tok"),
        expert_width=number(config, "intermediate_size" if mixtral else "moe_intermediate_size"),
        shared_width=number(config, "shared_expert_intermediate_size") if kind == "qwen2_moe" else 0,
        renormalise=mixtral or switch(config, "norm_topk_prob", False),
    )


def _kind(model: Llama | MoE) -> str:
    """The kind whose files can describe the model."""
    every = (*QKV, "out")
    if isinstance(model, MoE):
        kind = "qwen3_moe" if model.head_norm else "qwen2_moe" if model.shared_width else "mixtral"
        biases = {"qwen3_moe": ((), every), "qwen2_moe": ((), QKV), "mixtral": ((),)}[kind]
        wrong = bool(model.shared_width) != (kind == "qwen2_moe")
        wrong |= kind == "mixtral" and not model.renormalise
        other_width = model.head_width not in (None, _width(model))
        wrong |= kind == "qwen2_moe" and (model.window is not None or other_width)
    else:
        kind = "mistral" if model.window else "llama"
        kind = "qwen3" if model.head_norm else "qwen2" if model.biases == QKV else kind
        biases = {"qwen3": ((), every), "qwen2": (QKV,), "mistral": ((),), "llama": ((), every)}[kind]
        wrong = kind == "qwen2" and model.head_width not in (None, _width(model))
    if wrong or model.biases not in biases:
        raise ValueError(
            f"{type(model).__name__}: got biases {model.biases}, head_norm {model.head_norm}, window "
            f"{model.window} and head_width {model.head_width}; expected what {', '.join(ARCHITECTURES)} can "
            "say. Keep it as a checkpoint."
        )
    return kind


def _width(model: Llama | MoE) -> int:
    return model.width // model.heads


def _config(model: Llama | MoE) -> dict[str, Any]:
    kind = _kind(model)
    config: dict[str, Any] = {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        "hidden_act": "silu",
        "vocab_size": model.vocabulary,
        "max_position_embeddings": model.length,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_heads,
        "rope_theta": model.theta,
        "rope_scaling": _scaling(model.scaling),
        "rms_norm_eps": model.epsilon,
        "tie_word_embeddings": model.tied,
        "attention_bias": "out" in model.biases,
        "sliding_window": model.window,
    }
    if kind not in ("qwen2", "qwen2_moe"):
        config["head_dim"] = model.head_width or _width(model)
    if kind.startswith("qwen"):
        config |= {"use_sliding_window": model.window is not None, "max_window_layers": 0}
    if isinstance(model, Llama):
        return {**config, "intermediate_size": model.hidden_width}
    if kind == "mixtral":
        config |= {"intermediate_size": model.expert_width, "num_local_experts": model.experts}
    else:
        config |= {"moe_intermediate_size": model.expert_width, "num_experts": model.experts}
        config |= {"norm_topk_prob": model.renormalise, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if kind == "qwen2_moe":
        config |= {"shared_expert_intermediate_size": model.shared_width, "qkv_bias": bool(model.biases)}
    return {**config, "num_experts_per_tok": model.chosen}


def _scaling(scaling: Scaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    settings: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        yarn = scaling.kind == "yarn"
        slow, fast = ("beta_slow", "beta_fast") if yarn else ("low_freq_factor", "high_freq_factor")
        settings |= {"original_max_position_embeddings": scaling.length}
        settings |= {slow: scaling.slow, fast: scaling.fast}
    return settings if scaling.attention is None else {**settings, "attention_factor": scaling.attention}


def _shared(model: Llama | MoE) -> list[Weight]:
    """All weights except those of the MLPs."""
    layer, attention = "model.layers.{}.", "model.layers.{}.self_attn."
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    weights = [
        Weight("embed/embedding", ("model.embed_tokens.weight",)),
        Weight("norm/scale", ("model.norm.weight",)),
        Weight("blocks/norm_attention/scale", (layer + "input_layernorm.weight",)),
        Weight("blocks/norm_mlp/scale", (layer + "post_attention_layernorm.weight",)),
    ]
    for ours, theirs in names.items():
        weights.append(
            Weight(
                f"blocks/attention/{ours}/kernel", (f"{attention}{theirs}.weight",), transposed, transposed
            )
        )
    weights += [
        Weight(f"blocks/attention/{ours}/bias", (f"{attention}{names[ours]}.bias",)) for ours in model.biases
    ]
    if model.head_norm:
        weights.append(Weight("blocks/attention/norm_query/scale", (attention + "q_norm.weight",)))
        weights.append(Weight("blocks/attention/norm_key/scale", (attention + "k_norm.weight",)))
    if not model.tied:
        weights.append(Weight("head", ("lm_head.weight",)))
    return weights


def _llama_weights(model: Llama) -> list[Weight]:
    return _shared(model) + [
        Weight(
            f"blocks/{name}/kernel", ("model.layers.{}.mlp." + name + "_proj.weight",), transposed, transposed
        )
        for name in ("gate", "up", "down")
    ]


def _moe_weights(model: MoE) -> list[Weight]:
    mixtral = _kind(model) == "mixtral"
    mlp = "model.layers.{}.block_sparse_moe." if mixtral else "model.layers.{}.mlp."
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    if mixtral:
        names = {"gate": "w1", "up": "w3", "down": "w2"}
    pairs = {"experts/router/kernel": "gate"} | {f"experts/{x}": "experts.{}." + y for x, y in names.items()}
    if model.shared_width:
        pairs |= {f"shared_{x}/kernel": f"shared_expert.{x}_proj" for x in ("gate", "up", "down")}
        pairs |= {"shared_open/kernel": "shared_expert_gate"}
    return _shared(model) + [
        Weight(f"blocks/{x}", (f"{mlp}{y}.weight",), transposed, transposed) for x, y in pairs.items()
    ]


_SHARED: dict[str, Any] = {
    "ignored": r"rotary_emb\.inv_freq$",  # in older files; the config determines it
    "prefixes": ("model.",),
    "copies": {"lm_head.weight": "model.embed_tokens.weight"},
}
FAMILIES = (
    Family(
        ("llama", "mistral", "qwen2", "qwen3"), _llama, _config, _llama_weights, modules=(Llama,), **_SHARED
    ),
    Family(("mixtral", "qwen2_moe", "qwen3_moe"), _moe, _config, _moe_weights, modules=(MoE,), **_SHARED),
)
