"""T5 in both versions against transformers, with random weights."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from jaxmodels.convert import families
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.t5 import FAMILY
from jaxmodels.paths import by_path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 37,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
VERSIONS = {"t5": {}, "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}}
B, S, T = 3, 18, 15
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(2, 37, (B, S)).astype(np.int32)
TARGET = RANDOM.integers(2, 37, (B, T)).astype(np.int32)
REAL = (np.arange(S) < np.array([[18], [5], [11]])).astype(np.int32)


def theirs(version, seed):
    """A model of transformers in which no weight is zero or one."""
    config = transformers.T5Config(**SIZES, **VERSIONS[version])
    model = transformers.T5ForConditionalGeneration(config).eval()
    if version == "v1.1":  # transformers 5 ties the head at first; weights from a file part them
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 else 0.0))
    return model


def ours(model):
    """(module, variables) from the family's list."""
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    module = FAMILY.model(model.config.to_dict())
    params: dict = {}
    used = set()
    for weight in FAMILY.weights(module):
        (name,) = weight.names
        layers = range(module.depth) if "{}" in name else [0]
        used |= {name.format(i) for i in layers}
        found = [weight.read(tensors[name.format(i)]) for i in layers]
        *parents, last = weight.path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = np.stack(found) if "{}" in name else found[0]
    rest = [name for name in tensors if name not in used and not re.search(FAMILY.ignored, name)]
    assert not rest, rest
    return module, {"params": params}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_equal_those_of_transformers(version, seed):
    model = theirs(version, seed)
    with torch.no_grad():
        inputs = {"input_ids": SOURCE, "attention_mask": REAL, "decoder_input_ids": TARGET}
        want = model(**{name: torch.tensor(x.astype(np.int64)) for name, x in inputs.items()}).logits.numpy()
    module, variables = ours(model)
    got = jax.jit(module.apply)(variables, SOURCE, TARGET, None, REAL)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_greedy_tokens_equal_those_of_transformers(version):
    from jaxmodels.decoding import beam
    from jaxmodels.tasks.translate import decoder

    model, N = theirs(version, 3), 8
    with torch.no_grad():
        tokens = torch.tensor(SOURCE.astype(np.int64))
        mask = torch.tensor(REAL.astype(np.int64))
        want = model.generate(
            tokens,
            attention_mask=mask,
            max_new_tokens=N,
            min_new_tokens=N,
            num_beams=1,
            do_sample=False,
            eos_token_id=None,
        )
    module, variables = ours(model)
    written = decoder(module, encode=str.split, decode=str, begin=0, end=-1)
    got = beam(written, variables["params"], {}, SOURCE, REAL.sum(1), width=1, tokens=N)
    np.testing.assert_array_equal(got.tokens_BKN[:, 0], want[:, 1:].numpy())


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_is_what_was_read(version):
    model = theirs(version, 0)
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    module, variables = ours(model)
    flat = by_path(variables["params"])
    shapes = jax.eval_shape(module.init, jax.random.key(0), *FAMILY.inputs(module))["params"]
    assert set(flat) == set(by_path(shapes))
    for weight in FAMILY.weights(module):
        (name,) = weight.names
        if "{}" not in name:
            np.testing.assert_array_equal(weight.write(flat[weight.path]), tensors[name])
        else:
            for i in range(module.depth):
                np.testing.assert_array_equal(weight.write(flat[weight.path][i]), tensors[name.format(i)])


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers_loads_what_is_written(version, monkeypatch, tmp_path):
    monkeypatch.setattr(families, "FAMILIES", (FAMILY,))
    model = theirs(version, 1)
    model.save_pretrained(tmp_path / "a")
    module, params, _, config = load_pretrained(tmp_path / "a")
    save_pretrained(tmp_path / "b", module, params, config=config)
    back = type(model).from_pretrained(tmp_path / "b").eval()
    with torch.no_grad():
        source, target = (torch.tensor(x.astype(np.int64)) for x in (SOURCE, TARGET))
        got, want = (one(source, decoder_input_ids=target).logits.numpy() for one in (back, model))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_config_of_a_model_gives_the_model(version):
    module = FAMILY.model({**SIZES, "model_type": "t5", **VERSIONS[version]})
    assert FAMILY.model(FAMILY.config(module)) == module
    assert (module.tied, module.gated) == ((True, False) if version == "t5" else (False, True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": None}, r"got d_model None; expected a positive number"),
        ({"num_decoder_layers": 3}, r"got num_decoder_layers 3; expected 2"),
        (
            {"feed_forward_proj": "gated-silu"},
            r"got feed_forward_proj 'gated-silu'; expected relu or gated-gelu",
        ),
        ({"layer_norm_epsilon": 1e-5}, r"got layer_norm_epsilon 1e-05; expected 1e-06"),
        ({"relative_attention_num_buckets": 0}, r"got relative_attention_num_buckets 0"),
    ],
)
def test_settings_that_are_not_followed_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        FAMILY.model({**SIZES, "model_type": "t5", **changes})
