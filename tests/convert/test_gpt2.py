"""GPT-2 against transformers, and a trained model whose every activation is on file.

Dimensions: B batch, T tokens, H heads, D width of a head, M width, V vocabulary.
"""

from __future__ import annotations

import base64
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import write_file
from jaxmodels.decoding import generate
from jaxmodels.layers.attention import attention
from jaxmodels.models.gpt import Block
from jaxmodels.tasks.language import decoder

B, T, V = 2, 12, 37
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)


@pytest.fixture(params=[0, 1])
def theirs(request):
    """transformers' model with random parameters of which none is zero or one."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(request.param)
    model = transformers.GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model


def logits(theirs, tokens):
    torch = pytest.importorskip("torch")
    return theirs(torch.tensor(tokens)).logits.detach().numpy()


def test_logits_are_those_of_transformers(theirs, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")  # several shards
    model, params, _, _ = load_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    np.testing.assert_allclose(model.apply({"params": params}, TOKENS), logits(theirs, TOKENS), atol=1e-4)


def test_greedy_tokens_are_those_of_transformers(theirs, tmp_path):
    torch = pytest.importorskip("torch")
    theirs.save_pretrained(tmp_path)
    model, params, _, _ = load_pretrained(tmp_path)
    ids = torch.tensor(TOKENS)
    how = {"do_sample": False, "max_new_tokens": 15, "eos_token_id": None, "pad_token_id": 0}
    want = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)
    ours = decoder(model, encode=lambda text: [int(t) for t in text.split()], decode=str)
    got = generate(ours, params, {}, [" ".join(map(str, row)) for row in TOKENS], tokens=15, temperature=0)
    assert [one.tokens for one in got] == want[:, T:].tolist()


@pytest.mark.parametrize("limit", [10_000, 10**9])
def test_transformers_loads_what_is_written(theirs, tmp_path, limit):
    theirs.save_pretrained(tmp_path / "a")
    model, params, _, config = load_pretrained(tmp_path / "a")
    save_pretrained(tmp_path / "b", model, params, config=config, shard=limit)
    back = type(theirs).from_pretrained(tmp_path / "b").eval()
    np.testing.assert_array_equal(logits(back, TOKENS), logits(theirs, TOKENS))


def arrays(path):
    """Tensors of a JSON file, their values as base64."""
    found = json.loads(path.read_text())
    return {
        name: np.frombuffer(base64.b64decode(x["data"]), np.float32).reshape(x["shape"])
        for name, x in found.items()
        if name != "config"
    }, found["config"]


def test_every_stored_activation_of_a_trained_model_is_ours(real, tmp_path):
    folder = real("weights/nano_gpt_sort")
    tensors, sizes = arrays(folder / "gpt-nano-sort-model.json")
    want, _ = arrays(folder / "gpt-nano-sort-t0-partials.json")
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # it has linear layers where GPT-2 has Conv1D
    tensors = {name: x.T if name.endswith(turned) else x for name, x in tensors.items()}
    write_file(
        tmp_path / "model.safetensors",
        {name: (x.shape, x.dtype, lambda x=x: x) for name, x in tensors.items()},
    )
    names = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "vocab_size": "vocab_size"}
    config = {ours: sizes[name] for name, ours in names.items()} | {"n_positions": sizes["block_size"]}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "tie_word_embeddings": False, **config})
    )
    model, params, _, _ = load_pretrained(tmp_path)

    tokens = want["idx"].astype(np.int32)
    B, T = tokens.shape
    H = model.heads
    got = {"tok_emb": params["embed"]["embedding"][tokens], "pos_emb": params["position"][None, :T]}
    got["x"] = x = got["tok_emb"] + got["pos_emb"]
    for i in range(model.depth):
        block = jax.tree.map(lambda p: p[i], params["blocks"])  # noqa: B023
        (x, _), seen = Block(H, model.depth).apply(
            {"params": block}, x, None, None, None, None, capture_intermediates=True, mutable="intermediates"
        )
        got[f"block{i}"] = x
        if i == 0:
            inner = {
                name: value["__call__"][0]
                for name, value in seen["intermediates"].items()
                if name != "__call__"
            }
    q, k, v = jnp.moveaxis(inner["qkv"].reshape(B, T, H, 3, -1), 3, 0)
    keys = jnp.broadcast_to(
        jnp.eye(T)[None, :, None], (B, T, H, T)
    )  # values that name their keys: the weights come out
    weights = attention(q, k, keys, causal=True)
    scores = jnp.einsum("BTHD,BSHD->BHTS", q, k) / q.shape[-1] ** 0.5
    got |= {
        "ln1": inner["norm_attention"],
        "qkv": jnp.concatenate([y.reshape(B, T, -1) for y in (q, k, v)], -1),
        **{name: y.swapaxes(1, 2) for name, y in zip("qkv", (q, k, v), strict=True)},
        "att": jnp.where(jnp.tri(T, dtype=bool), scores, -jnp.inf),
        "attSm": weights.swapaxes(1, 2),
        "y": attention(q, k, v, causal=True).reshape(B, T, -1),
        "yProj": inner["out"],
        "attnResid": got["x"] + inner["out"],
        "ln2": inner["norm_mlp"],
        "fc": inner["up"],
        "gelu": jax.nn.gelu(inner["up"]),
        "mlp": inner["down"],
        "mlpResid": got["block0"],
    }
    bound = model.bind({"params": params})
    got["ln_f"] = bound.hidden(tokens)[0]
    got["lm_head"] = model.apply({"params": params}, tokens)
    got["probs"] = jax.nn.softmax(got["lm_head"])
    assert set(got) == set(want) - {"idx"}
    for name, value in got.items():
        np.testing.assert_allclose(value, want[name], atol=1e-4, rtol=1e-4, err_msg=name)
