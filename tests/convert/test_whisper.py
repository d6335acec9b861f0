"""Whisper against transformers, with random weights of small shapes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.whisper import FAMILY, POSITIONS
from jaxmodels.models.whisper import DecoderCache, sinusoids

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 37,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 5,
    "max_source_positions": 10,
    "max_target_positions": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 36,
    "decoder_start_token_id": 1,
    "begin_suppress_tokens": None,
}
B, S, T = 3, 20, 7
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.normal(size=(B, S, 5)).astype(np.float32)
TARGET = RANDOM.integers(2, 36, (B, T)).astype(np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that transformers wrote, in which no weight is zero or one."""
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "encoder.embed_positions" not in name:
                p.copy_(torch.randn_like(p) * 0.3 + (1.0 if p.ndim == 1 else 0.0))
    path = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def ours(folder):
    return load_pretrained(folder)


def said(model):
    """The logits of transformers' model."""
    with torch.no_grad():
        features = torch.tensor(SOURCE.swapaxes(1, 2))
        return model(features, decoder_input_ids=torch.tensor(TARGET.astype(np.int64))).logits.numpy()


def test_logits_equal_those_of_transformers(ours, theirs):
    got = jax.jit(ours.model.apply)({"params": ours.params}, SOURCE, TARGET)
    np.testing.assert_allclose(got, said(theirs), rtol=1e-4, atol=1e-4)


def test_a_cache_and_rows_that_hear_one_sound_change_no_hidden_state(ours):
    """Six texts of three sounds, read in two parts of which the second has padding in some rows."""
    apply = jax.jit(ours.model.apply, static_argnames="method")
    variables = {"params": ours.params}
    memory = apply(variables, SOURCE, method="encode")
    pairs = np.stack([TARGET, TARGET[:, ::-1]], 1).reshape(2 * B, T)
    want, _ = apply(variables, pairs, np.repeat(memory, 2, 0), None, method="hidden")
    _, heard = apply(variables, TARGET[:, :1], memory, None, None, ours.model.start(B, 1), method="hidden")
    cache = DecoderCache(ours.model.start(2 * B, T).target, *heard[1:])
    first, cache = apply(variables, pairs[:, :5], None, None, None, cache, method="hidden")
    count_B = np.array([2, 1, 2, 2, 1, 2], np.int32)
    second, cache = apply(variables, pairs[:, 5:], None, None, None, cache, count_B, method="hidden")
    np.testing.assert_allclose(np.concatenate([first, second], 1), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(cache.target.length_LB[0], 5 + count_B)


def test_padded_frames_change_nothing(ours):
    apply = jax.jit(ours.model.apply)
    variables, segments = {"params": ours.params}, (np.arange(S) < 12).astype(np.int32)[None].repeat(B, 0)
    alone = apply(variables, SOURCE[:, :12], TARGET)
    np.testing.assert_allclose(apply(variables, SOURCE, TARGET, None, segments), alone, rtol=1e-4, atol=1e-4)


def test_transformers_loads_what_is_written(ours, theirs, tmp_path):
    save_pretrained(tmp_path, ours.model, ours.params, config=ours.config)
    back, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_allclose(said(back.eval()), said(theirs), rtol=1e-5, atol=1e-5)  # positions are ours


@pytest.mark.fast
def test_the_config_of_a_model_gives_the_model():
    module = FAMILY.model({**SIZES, "model_type": "whisper"})
    assert FAMILY.model(FAMILY.config(module)) == module
    assert (module.depth, module.decoder_depth, module.frames) == (2, 1, 20)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": None}, "got d_model None; expected a positive number"),
        ({"decoder_attention_heads": 4}, "got decoder_attention_heads 4; expected 2"),
        ({"scale_embedding": True}, "got scale_embedding True; expected False"),
        ({"activation_function": "relu"}, "got activation_function 'relu'; expected 'gelu'"),
    ],
)
def test_settings_that_are_not_followed_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FAMILY.model({**SIZES, "model_type": "whisper", **changes})


def test_positions_that_were_changed_are_refused(ours, folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[POSITIONS] = tensors[POSITIONS] + 0.1
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=f"got {POSITIONS} with other values"):
        load_pretrained(tmp_path)


@pytest.mark.fast
def test_positions_are_the_papers():
    table = sinusoids(4, 6)
    rates = [1, 10_000**-0.5, 10_000**-1]
    want = [[np.sin(3 * r) for r in rates] + [np.cos(3 * r) for r in rates]]
    np.testing.assert_allclose(table[3:], want, rtol=1e-5)
