"""Folders of PEFT: logits equal those of the library, both ways; what is not followed is refused by name.

Dimensions: L layers, I inputs, O outputs, H heads.
"""

from __future__ import annotations

import json
import warnings

import jax
import numpy as np
import pytest

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.peft import load_adapter, save_adapter
from jaxmodels.convert.peft_config import Settings, read_settings
from jaxmodels.convert.tensors import write_file
from jaxmodels.models.gpt import GPT
from jaxmodels.models.moe import MoE
from jaxmodels.models.vit import ViT
from jaxmodels.tasks.lora import merge

# What PEFT asks transformers for.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = np.random.default_rng(0).integers(0, 30, (2, 7)).astype(np.int32)
IMAGES = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
LLAMA = {
    **{"vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16},
}
BERT = {name: x for name, x in LLAMA.items() if name != "num_key_value_heads"}
CASES = {  # class of transformers, its settings, settings of LoRA
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 30, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 4},
        {"target_modules": ["c_attn", "mlp.c_proj"], "r": 3, "lora_alpha": 5, "fan_in_fan_out": True},
    ),
    "llama": (
        "LlamaForCausalLM",
        LLAMA,
        {
            **{"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "use_rslora": True},
            **{"rank_pattern": {"layers.1.self_attn.q_proj": 6}, "alpha_pattern": {"v_proj": 32}},
        },
    ),
    "mixtral": (
        "MixtralForCausalLM",
        {**LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2},
        {"target_modules": ["k_proj", "o_proj"], "r": 2, "layers_to_transform": [1]},
    ),
    "bert": (
        "BertForSequenceClassification",
        BERT,
        {"target_modules": ["key", "intermediate.dense", "classifier"], "r": 2},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 30, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4},
        {"target_modules": r".*SelfAttention\.(q|v)$|.*\.wo", "r": 2, "lora_alpha": 1},
    ),
    "vit": (
        "ViTForImageClassification",
        {
            **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"image_size": 8, "patch_size": 4, "num_labels": 5},
        },
        {"target_modules": ["q_proj", "v_proj", "fc2"], "r": 2, "rank_pattern": {"v_proj": 3}},
    ),
}


def inputs(case):
    return (IMAGES,) if case == "vit" else (TOKENS, TOKENS[:, :3]) if case == "t5" else (TOKENS,)


def logits(case, model):
    torch = pytest.importorskip("torch")
    x = [torch.tensor(x.transpose(0, 3, 1, 2) if case == "vit" else x.astype(np.int64)) for x in inputs(case)]
    with torch.no_grad():
        return (model(x[0], decoder_input_ids=x[1]) if case == "t5" else model(*x)).logits.numpy()


@pytest.fixture(params=CASES)
def adapted(request, tmp_path):
    """(case, PEFT's model with random factors, folders of its base and of the adapter)."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    name, settings, of_lora = CASES[request.param]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    base = kind(kind.config_class(**settings, **({} if request.param == "vit" else special))).eval()
    with torch.no_grad():
        for x in base.parameters():
            x.copy_(torch.randn_like(x) * 0.3 + (1.0 if x.ndim == 1 else 0.0))
    base.save_pretrained(tmp_path / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(**of_lora)).eval()
    with torch.no_grad():
        for parameter, x in model.named_parameters():
            if "lora_" in parameter:
                x.copy_(torch.randn_like(x) * 0.3)
    model.save_pretrained(tmp_path / "adapter")
    return request.param, model, tmp_path


def test_a_folder_of_peft_gives_the_logits_of_peft(adapted):
    case, theirs, path = adapted
    model, params, _, _ = load_pretrained(path / "base")
    adapters = load_adapter(path / "adapter", model)
    want, plain = logits(case, theirs), jax.jit(model.apply)({"params": params}, *inputs(case))
    got = jax.jit(model.apply)({"params": merge(params, adapters, 1.0)}, *inputs(case))
    size = np.abs(want).max()
    assert np.abs(plain - want).max() > 0.05 * size
    np.testing.assert_allclose(got / size, want / size, atol=1e-5)


def test_peft_loads_what_is_written(adapted):
    case, theirs, path = adapted
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model, _, _, _ = load_pretrained(path / "base")
    adapters = load_adapter(path / "adapter", model)
    half = {name: {"a": pair["a"], "b": pair["b"] / 0.5} for name, pair in adapters.items()}
    save_adapter(path / "ours", model, half, 0.5)
    base = getattr(transformers, CASES[case][0]).from_pretrained(path / "base")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = peft.PeftModel.from_pretrained(base, path / "ours").eval()
    assert not [one for one in said if "adapter keys" in str(one.message)]
    want = logits(case, theirs)
    size = np.abs(want).max()
    np.testing.assert_allclose(logits(case, again) / size, want / size, atol=1e-5)
    for name, pair in load_adapter(path / "ours", model).items():
        want_product = np.asarray(adapters[name]["a"] @ adapters[name]["b"])
        np.testing.assert_allclose(pair["a"] @ pair["b"], want_product, rtol=1e-5, atol=1e-5)


# Without PEFT: folders by hand.

VIT = ViT(5, 8, 2, 2, 4, size=8, hidden_width=12)
GPT2 = GPT(vocabulary=11, length=8, width=8, depth=2, heads=2)
QUERY, VALUE = (f"vit.encoder.layer.1.attention.attention.{name}" for name in ("query", "value"))
C_ATTN = "transformer.h.0.attn.c_attn"


def factors(module, inputs, outputs, rank=2, seed=0):
    """A and B of a module by the names that PEFT gives them."""
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(rank, inputs)), rng.normal(size=(outputs, rank))
    return {
        f"base_model.model.{module}.lora_A.weight": A.astype(np.float32),
        f"base_model.model.{module}.lora_B.weight": B.astype(np.float32),
    }


def folder_of(path, tensors, **settings):
    path.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **settings}
    (path / "adapter_config.json").write_text(json.dumps(config))
    write_file(
        path / "adapter_model.safetensors",
        {name: (x.shape, x.dtype, lambda x=x: x) for name, x in tensors.items()},
    )
    return path


@pytest.mark.parametrize(
    "ours", [QUERY, QUERY.replace("encoder.layer", "layers").replace("attention.query", "q_proj")]
)
def test_an_adapter_of_queries_alone_changes_the_columns_of_queries_alone(tmp_path, ours):
    """Columns of a ViT's fused kernel are by head, then query, key and value; both names of the module."""
    tensors = factors(ours, 8, 8)
    adapters = load_adapter(folder_of(tmp_path / "a", tensors, lora_alpha=6), VIT)
    A, B = tensors.values()
    change_LIHTD = np.asarray(adapters["blocks/qkv/kernel"]["a"] @ adapters["blocks/qkv/kernel"]["b"])
    change_LIHTD = change_LIHTD.reshape(2, 8, 2, 3, 4)
    np.testing.assert_allclose(change_LIHTD[1, :, :, 0].reshape(8, 8), 3 * (B @ A).T, rtol=1e-4, atol=1e-5)
    assert not change_LIHTD[0].any() and not change_LIHTD[1, :, :, 1:].any()


def test_parts_with_one_first_factor_share_it_so_that_reading_what_was_written_adds_no_ranks(tmp_path):
    tensors = factors(QUERY, 8, 8) | factors(VALUE, 8, 8, seed=1)
    twice = load_adapter(folder_of(tmp_path / "a", tensors), VIT)
    assert twice["blocks/qkv/kernel"]["a"].shape == (2, 8, 4)
    save_adapter(tmp_path / "b", VIT, twice)
    again = load_adapter(tmp_path / "b", VIT)
    assert again["blocks/qkv/kernel"]["a"].shape == (2, 8, 4)
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["target_modules"] == [
        "q_proj",
        "v_proj",
    ]


def test_an_experts_factors_go_to_the_expert(tmp_path):
    model = MoE(
        **{"vocabulary": 11, "length": 8, "width": 8, "depth": 2, "heads": 2, "key_heads": 1},
        **{"experts": 3, "chosen": 2, "expert_width": 6},
    )
    tensors = factors("model.layers.1.block_sparse_moe.experts.2.w3", 8, 6)
    up = load_adapter(folder_of(tmp_path / "a", tensors), model)["blocks/experts/up"]
    A, B = tensors.values()
    change = np.array(up["a"] @ up["b"])
    np.testing.assert_allclose(change[1, 2], (B @ A).T, rtol=1e-4, atol=1e-5)
    change[1, 2] = 0
    assert not change.any()


SOUND = factors(C_ATTN, 8, 24)
A_NAME, B_NAME = SOUND
BROKEN = {
    "half": ({A_NAME: SOUND[A_NAME]}, {}, "one factor"),
    "none": ({}, {}, "no tensors"),
    "unknown module": (factors("transformer.h.7.attn.c_attn", 8, 24), {}, "got factors of transformer.h.7"),
    "embedding": (factors("transformer.wte", 11, 8), {}, "got factors of transformer.wte"),
    "magnitude": ({**SOUND, f"base_model.model.{C_ATTN}.lora_magnitude_vector": np.ones(8)}, {}, "magnitude"),
    "saved module": ({**SOUND, "base_model.model.lm_head.weight": np.ones((11, 8))}, {}, "lm_head.weight"),
    "shape": ({**SOUND, B_NAME: np.ones((8, 2), np.float32)}, {}, r"lora_B .* \[8, 2\]; expected \[24, 2\]"),
    "rank": (SOUND, {"r": 3}, r"lora_A .* \[2, 8\]; expected \[3, 8\]"),
    "huge rank": (SOUND, {"rank_pattern": {"c_attn": 10**12}}, "got the rank 1,000,000,000,000"),
    "not finite": ({**SOUND, A_NAME: np.full((2, 8), np.nan, np.float32)}, {}, "16 NaN"),
    "targets": (SOUND, {"target_modules": ["c_proj"]}, "target_modules c_proj"),
    "layers": (SOUND, {"layers_to_transform": [1]}, r"layers_to_transform \[1\]"),
    "searches for ever": (SOUND, {"rank_pattern": {"(a*)*b": 2}}, r"got the pattern '\(a\*\)\*b'"),
    "no pattern": (SOUND, {"alpha_pattern": {"(": 2}}, "got the pattern"),
    "alpha": (SOUND, {"lora_alpha": "2"}, "got lora_alpha '2'"),
    "infinite": (SOUND, {"lora_alpha": float("inf")}, "got lora_alpha 'inf'"),
    "rank 0": (SOUND, {"r": 0}, "got r '0'"),
    "kind": (SOUND, {"peft_type": "IA3"}, "got peft_type 'IA3'"),
    "bias": (SOUND, {"bias": "all"}, "got bias 'all'"),
    "start": (SOUND, {"init_lora_weights": "pissa"}, "got init_lora_weights 'pissa'"),
    "head": (SOUND, {"modules_to_save": ["lm_head"]}, "got modules_to_save"),
    "dora": (SOUND, {"use_dora": True}, "got use_dora 'True'"),
    "future": (SOUND, {"use_something_new": {"a": 1}}, "got use_something_new"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_hostile_or_broken_folder_and_what_is_not_followed_are_refused_by_name(tmp_path, case):
    tensors, settings, text = BROKEN[case]
    with pytest.raises(ValueError, match=text):
        load_adapter(folder_of(tmp_path / "a", tensors, **settings), GPT2)


def test_a_folder_with_pickles_alone_is_refused(tmp_path):
    folder_of(tmp_path / "a", {}).joinpath("adapter_model.safetensors").rename(
        tmp_path / "a/adapter_model.bin"
    )
    with pytest.raises(FileNotFoundError, match=r"pickles of torch are not read"):
        load_adapter(tmp_path / "a", GPT2)


def test_scales_are_alpha_over_the_rank_or_its_root_by_the_first_pattern_that_fits(tmp_path):
    patterns = {"rank_pattern": {"h.1.attn.c_attn": 8, "c_attn": 4}, "alpha_pattern": {"mlp.*": 3}}
    plain = read_settings(folder_of(tmp_path / "a", {}, **patterns))
    root: Settings = plain._replace(root=True)
    names = ["h.1.attn.c_attn", "h.0.attn.c_attn", "transformer.h.0.mlp.c_fc", "h.0.attn.c_proj"]
    assert [plain.scale_of(name) for name in names] == [2 / 8, 2 / 4, 3 / 2, 2 / 2]
    assert [root.scale_of(name) for name in names] == [2 / 8**0.5, 2 / 4**0.5, 3 / 2**0.5, 2 / 2**0.5]


def test_an_adapter_of_what_is_no_linear_layer_is_not_written(tmp_path):
    pair = {"a": np.zeros((11, 2)), "b": np.zeros((2, 8))}
    with pytest.raises(ValueError, match=r"embed/embedding.* blocks/down/kernel"):
        save_adapter(tmp_path, GPT2, {"embed/embedding": pair})
