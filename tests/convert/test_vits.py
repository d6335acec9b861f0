"""VITS against transformers' VitsModel, with random weights and no noise."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.vits import config
from jaxmodels.models.hifi_gan import hifi_gan_v3
from jaxmodels.models.vits import VITS
from jaxmodels.paths import by_path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "window_size": 3,
    "ffn_dim": 14,
    "flow_size": 8,
    "prior_encoder_num_flows": 2,
    "prior_encoder_num_wavenet_layers": 2,
    "posterior_encoder_num_wavenet_layers": 1,
    "wavenet_dilation_rate": 2,
    "duration_predictor_filter_channels": 10,
    "duration_predictor_flow_bins": 6,
    "duration_predictor_num_flows": 2,
    "depth_separable_num_layers": 2,
    "spectrogram_bins": 9,
    "upsample_initial_channel": 8,
    "upsample_rates": [3, 2],
    "upsample_kernel_sizes": [7, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "noise_scale": 0.0,
    "noise_scale_duration": 0.0,
}
VARIANTS = {
    "plain": {"use_stochastic_duration_prediction": False},
    "speakers": {"num_speakers": 3, "speaker_embedding_size": 5},  # with the stochastic predictor
}
TOKENS = np.array([[3, 7, 0, 12, 5, 19, 4], [8, 8, 1, 0, 0, 0, 0]], np.int32)
REAL = np.array([[1] * 7, [1] * 3 + [0] * 4], np.int32)
FRAMES = 400
TOLERANCE = 1e-3


def theirs(variant, folder):
    """A model of transformers in which no weight is zero, and its folder."""
    torch.manual_seed(0)
    model = transformers.VitsModel(transformers.VitsConfig(**{**SIZES, **VARIANTS[variant]})).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.2 if p.ndim < 2 or "duration" in name else 1.5 / np.sqrt(np.prod(p.shape[1:]))
            p.copy_(torch.randn_like(p) * scale + (1.0 if "norm" in name and "weight" in name else 0.0))
            if "original0" in name:
                p.copy_(torch.rand_like(p) + 0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_sound_equals_that_of_transformers_for_each_text_of_a_padded_batch(variant, tmp_path):
    model = theirs(variant, tmp_path)
    speakers = np.array([2, 1], np.int32) if variant == "speakers" else None
    found = load_pretrained(tmp_path)
    speak = jax.jit(lambda params, *inputs: found.model.apply({"params": params}, *inputs, **options))
    options = {"frames": FRAMES, "speaker_B": speakers}
    got = speak(found.params, TOKENS, None, REAL)
    for i, count in enumerate(REAL.sum(1)):
        speaker = None if speakers is None else int(speakers[i])
        with torch.no_grad():
            want = model(torch.tensor(TOKENS[i : i + 1, :count].astype(np.int64)), speaker_id=speaker)
        want = want.waveform[0].numpy()
        assert 6 * got.segments_BT[i].sum() == len(want) < FRAMES * 6
        assert want.std() > 0.05 and not np.abs(got.audio_BN[i, len(want) :]).any()
        np.testing.assert_allclose(got.audio_BN[i, : len(want)], want, atol=TOLERANCE)


def test_a_folder_written_here_is_read_by_transformers_and_by_us_with_the_same_weights(tmp_path):
    first = theirs("speakers", tmp_path / "first")
    found = load_pretrained(tmp_path / "first")
    save_pretrained(tmp_path / "second", found.model, found.params, config=found.config)
    again = load_pretrained(tmp_path / "second")
    assert again.model == found.model
    for name, x in by_path(again.params).items():
        np.testing.assert_allclose(x, by_path(found.params)[name], atol=1e-6, err_msg=name)
    second, report = transformers.VitsModel.from_pretrained(tmp_path / "second", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert all(name.startswith(("posterior", "duration_predictor.")) for name in report["missing_keys"])
    tokens = torch.tensor(TOKENS[:1].astype(np.int64))
    with torch.no_grad():
        want, got = (model(tokens, speaker_id=1).waveform for model in (first, second))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_older_names_of_weight_normalisation_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    theirs("speakers", tmp_path)
    new = load_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    renamed = {
        name.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): x
        for name, x in load_file(file).items()
    }
    save_file(renamed, file)
    old = load_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, new.params, old.params)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"upsample_kernel_sizes": [7]}, "a kernel for each"),
        ({"resblock_dilation_sizes": 3}, "resblock_dilation_sizes"),
        ({"num_attention_heads": 5}, "heads"),
        ({"flow_size": 7}, "latent"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_named(change, text, tmp_path):
    theirs("plain", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=text):
        load_pretrained(tmp_path)


def test_a_decoder_that_transformers_lacks_is_refused():
    with pytest.raises(ValueError, match="pairs"):
        config(VITS(9, hifi_gan_v3()))
