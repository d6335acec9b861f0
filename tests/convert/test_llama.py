"""Dimensions: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import re
import struct
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.convert.llama import FAMILIES
from jaxmodels.convert.llama2c import load_llama2c, load_vocabulary, save_llama2c
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import convert, save_pretrained
from jaxmodels.models.llama import Llama
from jaxmodels.paths import by_path

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

B, T, V = 2, 12, 37
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
SIZES = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}
CASES = {
    "llama": ("llama", {}),
    "llama with a head for each head": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "rms_norm_eps": 1e-3}),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama 3.1": (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, **LLAMA3}},
    ),
    "llama yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 0.5,
            }
        },
    ),
    "mistral": ("mistral", {"sliding_window": 4}),
    "mistral without a window, with wider heads": ("mistral", {"sliding_window": None, "head_dim": 6}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 with a window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    ),
    "qwen3": ("qwen3", {"head_dim": 6, "tie_word_embeddings": True}),
    "qwen3 yarn": (
        "qwen3",
        {
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 5, "sliding_window": 4}),
    "qwen2_moe": ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 20}),
    "qwen2_moe renormalised": (
        "qwen2_moe",
        {**MOE, "shared_expert_intermediate_size": 20, "norm_topk_prob": True},
    ),
    "qwen3_moe": ("qwen3_moe", {**MOE, "head_dim": 6, "norm_topk_prob": True}),
    "qwen3_moe with parts of all": (
        "qwen3_moe",
        {**MOE, "head_dim": 6, "sliding_window": 4, "use_sliding_window": True},
    ),
}


def family_of(kind):
    return next(family for family in FAMILIES if kind in family.kinds)


def theirs(case, seed, **more):
    """A model of transformers in which no weight is zero or one."""
    kind, options = CASES[case]
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **options, **more})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 else 0.0))
    return model


def answers(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS.astype(np.int64))).logits.numpy()


@pytest.mark.parametrize("seed", first(1, [0, 1]))
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(tmp_path, case, seed):
    reference = theirs(case, seed)
    reference.save_pretrained(tmp_path)
    model, params, _, _ = load_pretrained(tmp_path)
    want = answers(reference)
    assert np.abs(want).max() > 1
    got = jax.jit(model.apply)({"params": params}, TOKENS)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", first(6, CASES))
def test_transformers_reads_what_is_written(tmp_path, case):
    reference = theirs(case, 0)
    reference.save_pretrained(tmp_path / "theirs")
    model, params, _, _ = load_pretrained(tmp_path / "theirs")
    save_pretrained(tmp_path / "ours", model, params)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    ).eval()
    np.testing.assert_allclose(answers(again), answers(reference), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_config_written_and_read_again_gives_the_same_model(case):
    kind, options = CASES[case]
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **options}).to_dict()
    family = family_of(kind)
    model = family.model(config)
    written = family.config(model)
    again = family.model(written)
    assert written["model_type"] == config["model_type"] or options.get("sliding_window", 1) is None
    assert again.clone(head_width=None) == model.clone(head_width=None)
    assert (again.head_width or again.width // again.heads) == (
        model.head_width or model.width // model.heads
    )


def test_an_old_folder_with_buffers_and_a_tied_head_is_read(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy")
    reference = theirs("qwen2", 0)
    reference.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = numpy_files.load_file(path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    numpy_files.save_file(tensors, path)
    model, params, _, _ = load_pretrained(tmp_path)
    np.testing.assert_allclose(
        model.apply({"params": params}, TOKENS), answers(reference), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("case", ["llama", "qwen3_moe"])
def test_the_weights_name_every_parameter_once(case):
    kind, options = CASES[case]
    family = family_of(kind)
    model = family.model({"model_type": kind, **SIZES, **options})
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]
    assert sorted(weight.path for weight in family.weights(model)) == sorted(by_path(shapes))


def test_older_configs_say_the_same_with_theta_and_rope_scaling():
    scaling = {"type": "linear", "factor": 2.0}
    older = {"model_type": "llama", **SIZES, "rope_theta": 5e5, "rope_scaling": scaling}
    newer = {
        "model_type": "llama",
        **SIZES,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0},
    }
    assert FAMILIES[0].model(older) == FAMILIES[0].model(newer)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (
            "llama",
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "got rope_type 'dynamic'; expected 'default'",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor 0.5",
        ),
        ("llama", {"hidden_act": "gelu"}, "got hidden_act 'gelu'; expected 'silu'"),
        ("llama", {"rope_scaling": "linear"}, "got rotary settings 'linear'; expected an object"),
        (
            "llama",
            {"rope_scaling": {"type": "yarn", "factor": -1.0}},
            "got factor -1.0; expected a positive number",
        ),
        ("llama", {"rms_norm_eps": "1e-5"}, "got rms_norm_eps '1e-5'; expected a positive number"),
        ("llama", {"mlp_bias": True}, "got mlp_bias True; expected False"),
        ("llama", {"hidden_size": "16"}, "got hidden_size '16'; expected a positive number"),
        ("llama", {"num_hidden_layers": 2**40}, r"got num_hidden_layers \d+; expected a positive number"),
        ("llama", {"vocab_size": None}, "got vocab_size None; expected a positive number"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            "a window in some of 2 layers",
        ),
        ("qwen2_moe", {**MOE, "decoder_sparse_step": 2}, "got decoder_sparse_step 2; expected 1"),
        ("qwen3_moe", {**MOE, "mlp_only_layers": [0]}, r"got mlp_only_layers \[0\]"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_followed_is_refused(kind, options, text):
    with pytest.raises(ValueError, match=text):
        family_of(kind).model({"model_type": kind, **SIZES, **options})


def test_a_model_that_no_kind_describes_is_not_written():
    model = Llama(V, T, 16, 2, 4, 2, 24, biases=("value",))
    with pytest.raises(
        ValueError, match=r"got biases \('value',\).*expected what llama, mistral.*can say. Keep it"
    ):
        FAMILIES[0].config(model)


@pytest.fixture
def stories(real):
    return real("weights/stories260K")


def test_the_greedy_text_of_stories260k_is_the_published_one_token_for_token(stories):
    model, params = load_llama2c(stories / "stories260K.bin")
    vocabulary = load_vocabulary(stories / "tok512.bin", model.vocabulary)
    text = (
        (stories / "expected_greedy.txt").read_text().removesuffix("\n")
    )  # the program ends its output with a line break
    want = vocabulary.encode(text)
    assert len(want) == 256
    write = jax.jit(lambda token, cache: model.apply({"params": params}, token, None, cache))
    token, cache, written = jnp.array([[vocabulary.begin]]), model.start(1, len(want)), []
    for _ in want:
        logits, cache = write(token, cache)
        token = logits.argmax(-1)
        written.append(int(token[0, 0]))
    assert written == want and vocabulary.decode(written) == text


@pytest.mark.parametrize("text", ["", "Once upon a time", "  two  spaces ", "snow ☃ and é\n\ttabs", "Ünï"])
def test_decoding_gives_the_text_that_was_encoded(stories, text):
    vocabulary = load_vocabulary(stories / "tok512.bin", 512)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_pieces_are_merged_as_by_looking_at_all_of_them_each_time(stories):
    vocabulary = load_vocabulary(stories / "tok512.bin", 512)

    def merged(text):
        ids, letters = vocabulary.ids, [letter.encode() for letter in text]
        tokens = [token for x in letters for token in ([ids[x]] if x in ids else [3 + byte for byte in x])]
        while True:
            pairs = [vocabulary.pieces[a] + vocabulary.pieces[b] for a, b in pairwise(tokens)]
            found = [(-vocabulary.scores[ids[x]], i) for i, x in enumerate(pairs) if x in ids]
            if not found:
                return tokens
            i = min(found)[1]
            tokens[i : i + 2] = [ids[pairs[i]]]

    random = np.random.default_rng(0)
    for alphabet in ("ab", "the ndaol", "aaaa é", "Once upon a time, Lily"):
        text = "".join(random.choice([*alphabet], 60))
        assert vocabulary.encode(text) == merged(" " + text)


def test_what_is_not_a_piece_becomes_its_bytes(stories):
    vocabulary = load_vocabulary(stories / "tok512.bin", 512)
    assert vocabulary.encode("☃")[1:] == [3 + byte for byte in "☃".encode()]


def llama2c_file(path, reference, *, shared):
    """A model of transformers in the other program's format, pairs that turn next to each other."""
    c, w = reference.config, {name: x.numpy() for name, x in reference.state_dict().items()}
    D, L = c.hidden_size // c.num_attention_heads, range(c.num_hidden_layers)

    def pairs(x, heads):
        return x.reshape(heads, 2, D // 2, -1).swapaxes(1, 2).reshape(x.shape)

    def layers(name, change=lambda x: x):
        return np.stack([change(w[f"model.layers.{i}.{name}.weight"]) for i in L])

    parts = [
        w["model.embed_tokens.weight"],
        layers("input_layernorm"),
        layers("self_attn.q_proj", lambda x: pairs(x, c.num_attention_heads)),
        layers("self_attn.k_proj", lambda x: pairs(x, c.num_key_value_heads)),
        *(layers(f"self_attn.{name}_proj") for name in "vo"),
        layers("post_attention_layernorm"),
        *(layers(f"mlp.{name}_proj") for name in ("gate", "down", "up")),
        w["model.norm.weight"],
        np.zeros(c.max_position_embeddings * D),
        *([] if shared else [w["lm_head.weight"]]),
    ]
    sizes = (
        c.hidden_size,
        c.intermediate_size,
        c.num_hidden_layers,
        c.num_attention_heads,
        c.num_key_value_heads,
    )
    header = struct.pack("<7i", *sizes, c.vocab_size if shared else -c.vocab_size, c.max_position_embeddings)
    path.write_bytes(header + b"".join(np.asarray(x, "<f4").tobytes() for x in parts))
    return path


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_of_llama2c_gives_the_logits_of_the_model_it_was_written_from(tmp_path, shared):
    reference = theirs("llama", 0, rms_norm_eps=1e-5, tie_word_embeddings=shared)
    model, params = load_llama2c(llama2c_file(tmp_path / "model.bin", reference, shared=shared))
    got = jax.jit(model.apply)({"params": params}, TOKENS)
    np.testing.assert_allclose(got, answers(reference), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_of_llama2c_becomes_a_folder_and_the_same_file_again(tmp_path, shared):
    reference = theirs("llama", 0, rms_norm_eps=1e-5, tie_word_embeddings=shared)
    file = llama2c_file(tmp_path / "model.bin", reference, shared=shared)
    assert convert(file, tmp_path / "folder") == convert(tmp_path / "folder", tmp_path / "again.bin")
    model, params, _, config = load_pretrained(tmp_path / "folder")
    again = load_pretrained(tmp_path / "again.bin").params
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert isinstance(model, Llama) and config["eos_token_id"] == 2
    theirs_again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    np.testing.assert_allclose(answers(theirs_again), answers(reference), rtol=1e-5, atol=1e-5)


def test_the_tables_of_angles_in_a_file_of_llama2c_are_those_of_the_published_one(stories, tmp_path):
    assert convert(stories / "stories260K.bin", tmp_path / "again.bin") > 260_000
    want, got = (
        np.fromfile(path, "<f4", offset=28) for path in (stories / "stories260K.bin", tmp_path / "again.bin")
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_model_that_a_file_of_llama2c_cannot_hold_is_refused(tmp_path):
    model = Llama(37, 16, 8, 1, 2, 1, 12, window=4)
    params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
    with pytest.raises(ValueError, match="got a model with window 4; expected what the format can say"):
        save_llama2c(tmp_path / "a.bin", model, params)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ((), r"got the header \(\); expected width"),
        ((0, 0, 0, 0, 0, 0, 0), r"got the header \(0, .*no llama2.c file"),
        ((64, 172, 5, 8, 3, 512, 512), r"got the header \(64, 172, 5, 8, 3.*that fit each other"),
        ((64, 172, 5, 64, 4, 512, 512), r"got the header .*that fit each other"),
        ((-64, 172, 5, 8, 4, 512, 512), r"got the header \(-64.*that fit each other"),
        (
            (2**30, 2**30, 2**30, 2, 1, -(2**31), 2**30),
            r"got 32 bytes; expected \d[\d,]{30,}, by its header.*Get the file again",
        ),
        ((64, 172, 5, 8, 4, 512, 512), r"got 32 bytes; expected 1,056,540, by its header.*cut short"),
    ],
    ids=str,
)
def test_a_hostile_or_broken_file_of_llama2c_is_refused(tmp_path, header, text):
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack(f"<{len(header)}i", *header) + b"1234")
    with pytest.raises(ValueError, match=re.compile(text)):
        load_llama2c(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234",
        struct.pack("<ifi", 7, 0.0, -1),
        struct.pack("<ifi", 7, 0.0, 2**31 - 1),
        struct.pack("<i", 7) + struct.pack("<fi", 0.0, 0) * 99,
    ],
    ids=["empty", "no tokens", "negative", "huge", "too few"],
)
def test_a_hostile_or_broken_vocabulary_is_refused(tmp_path, data):
    path = tmp_path / "tok.bin"
    path.write_bytes(data)
    with pytest.raises(
        ValueError,
        match=r"whole tokens in [\d,]+ bytes, read to byte [\d,]+; expected 512, .*Take the tokenizer",
    ):
        load_vocabulary(path, 512)
