"""Images preprocessed as transformers does, and what `jaxmodels predict` prints for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from foreign import shaken

from jaxmodels import cli, predict
from jaxmodels.convert.image import Preparation, from_timm, from_transformers, preparation

Image = pytest.importorskip("PIL.Image", reason="needs pillow")


@pytest.fixture
def file(tmp_path):
    """A file with a smooth image of 70 x 50."""
    y, x = np.mgrid[:50, :70]
    pixels = np.stack([x * 3, y * 5, (x + y) * 2], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


CASES = {
    "DeiT, by its defaults": ("DeiTImageProcessorPil", {}),
    "ViT, of one number": ("ViTImageProcessorPil", {"size": 33}),
    "CLIP, of one number and odd": ("CLIPImageProcessorPil", {"size": 31, "crop_size": 24}),
    "CLIP, smaller than what is cut out": ("CLIPImageProcessorPil", {"size": 31, "crop_size": 40}),
    "BiT": (
        "BitImageProcessorPil",
        {"size": {"shortest_edge": 29}, "crop_size": {"height": 24, "width": 24}},
    ),
    "ConvNeXt, of one number": ("ConvNextImageProcessorPil", {"size": 29, "crop_pct": 0.875}),
    "ViT, of bytes": ("ViTImageProcessorPil", {"size": 20, "do_rescale": False}),
    "ViT": ("ViTImageProcessorPil", {"size": {"height": 24, "width": 32}}),
    "ViT, bicubic without normalising": (
        "ViTImageProcessorPil",
        {"size": {"height": 9, "width": 9}, "resample": 3, "do_normalize": False},
    ),
    "ConvNeXt, cut out": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 28}, "crop_pct": 0.8}),
    "ConvNeXt, large": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
    "CLIP, shorter side and cut": (
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 20}, "resample": 3},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_images_are_prepared_as_transformers_does(name, file):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    kind, options = CASES[name]
    if not hasattr(transformers, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    theirs = getattr(transformers, kind)(**options, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])
    want = theirs(Image.open(file), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    got = from_transformers(json.loads(theirs.to_json_string()))(file)["image"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_images_are_prepared_as_timm_does(file):
    """Scaled until the shorter side is the size over crop_pct, bicubic, and cut out of the middle."""
    said = {
        "input_size": [3, 24, 24],
        "crop_pct": 0.75,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bicubic",
    }
    whole = Image.open(file).resize((44, 32), Image.Resampling.BICUBIC).crop((10, 4, 34, 28))
    want = (np.asarray(whole, np.float32) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(from_timm(said)(file)["image"], want, atol=1e-5)


@pytest.mark.parametrize(
    ("of", "change", "text"),
    [
        (
            from_transformers,
            {"size": {"height": "x", "width": 9}},
            "got a size of 'x'; expected pixels, 1 to 4,096",
        ),
        (from_transformers, {"size": None}, "got a size of None; expected pixels"),
        (
            from_transformers,
            {"size": 9, "image_mean": [0.5, 0.5]},
            r"got image_mean \[0.5, 0.5\]; expected three numbers",
        ),
        (from_transformers, {"size": 9, "resample": 17}, "got resample 17; expected pillow's 0 to 5"),
        (
            from_timm,
            {"mean": [0] * 3, "std": [1] * 3, "input_size": [1, 9, 9]},
            r"got input_size \[1, 9, 9\]; expected 3, height",
        ),
        (
            from_timm,
            {"mean": [0] * 3, "std": [1] * 3, "crop_mode": "border"},
            "got crop_mode 'border'; expected center or squash",
        ),
        (
            from_timm,
            {"mean": [0] * 3, "std": [1] * 3, "interpolation": "random"},
            "got interpolation 'random'; expected one of",
        ),
        (from_timm, {"mean": [0] * 3, "std": [1] * 3, "crop_pct": -1}, "got -1; expected a positive number"),
        (
            from_timm,
            {"mean": [0] * 3, "std": [1] * 3, "crop_pct": 1e-6},
            "got a size of 224000000; expected pixels, 1 to 4,096",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(of, change, text):
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **change}
    with pytest.raises(ValueError, match=text):
        of(said)


def test_a_long_strip_is_not_scaled_without_bound(tmp_path):
    Image.new("RGB", (4, 4000)).save(tmp_path / "a.png")
    made = Preparation(64, (64, 64), 2, 1 / 255, (0.0,) * 3, (1.0,) * 3)(tmp_path / "a.png")
    assert made["image"].shape == (64, 64, 3)


def test_predict_reads_a_folder_of_transformers(file, tmp_path, capsys, monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    names = {0: "cat", 1: "dog", 2: "bird"}
    theirs = shaken(
        transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, id2label=names))
    )
    theirs.save_pretrained(tmp_path / "model")
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.9)
    with pytest.raises(
        FileNotFoundError, match=r"preprocessor_config.json: got no file; expected one that says how"
    ):
        preparation(Path(tmp_path / "model"), {"model_type": "resnet"})
    processor.save_pretrained(tmp_path / "model")
    if not (tmp_path / "model" / "preprocessor_config.json").is_file():
        (tmp_path / "model" / "preprocessor_config.json").write_text(processor.to_json_string())
    with torch.no_grad():
        pixels = torch.tensor(processor(Image.open(file), return_tensors="np")["pixel_values"])
        want = torch.softmax(theirs(pixels).logits[0], -1)
    [said] = predict(tmp_path / "model", [file], out=tmp_path / "out")
    assert said["class"] == names[int(want.argmax())]
    assert said["likeliest"] == pytest.approx({names[i]: float(want[i]) for i in range(3)}, abs=1e-3)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(tmp_path / "model"), str(file)]) == 0
    assert said["class"] in capsys.readouterr().out and (tmp_path / "predictions" / "a.png").is_file()


def test_a_model_that_generates_text_without_a_tokenizer_is_refused(tmp_path, file, capsys):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "n_positions": 6, "n_embd": 8, "n_layer": 1, "n_head": 2}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / "model")
    assert cli.main(["predict", str(tmp_path / "model"), str(file)]) == 2
    assert "there is no tokenizer in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"feature_extractor_type": "ConvNextFeatureExtractor"},
        {"image_processor_type": "ConvNextImageProcessorFast"},
    ],
)
def test_the_old_form_of_a_convnext_scales_the_short_side_to_256_and_cuts_224(kind, tmp_path):
    said = {
        "size": 224,
        "crop_pct": 0.875,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
        **kind,
    }
    pixels = np.random.default_rng(0).integers(0, 255, (300, 410, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # 410 x 300 becomes int(256 * 410 / 300) = 349 x 256, of which (349 - 224) // 2 = 62 and 16 pixels come
    # before the middle
    whole = Image.fromarray(pixels).resize((349, 256), Image.Resampling.BICUBIC).crop((62, 16, 286, 240))
    want = (np.asarray(whole, np.float32) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(from_transformers(said)(tmp_path / "a.png")["image"], want, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "left"), [(24, 0), (25, 0), (26, 1), (27, 2), (29, 2), (31, 4), (23, 0), (21, -1)]
)
def test_timms_cut_is_where_torchvision_makes_it(width, left, tmp_path):
    """Half a pixel is rounded to even, as F.center_crop does; beyond a narrow image is black."""
    row = np.arange(1, width + 1, dtype=np.uint8)
    Image.fromarray(np.tile(row[None, :, None], (24, 1, 3))).save(tmp_path / "a.png")
    made = Preparation(None, (24, 24), 2, 1.0, (0.0,) * 3, (1.0,) * 3, halves_to_even=True)(
        tmp_path / "a.png"
    )["image"]
    want = np.zeros(24)
    want[max(0, -left) : max(0, -left) + min(24, width)] = row[max(0, left) : max(0, left) + 24]
    np.testing.assert_array_equal(made[0, :, 0], want)


def test_timms_wide_images_keep_their_proportions(file):
    """70 x 50 to at least 26 x 40 (13 / 0.5, 20 / 0.5): in proportion 56 x 40, cropped to 13 x 20."""
    said = {
        "input_size": [3, 20, 13],
        "crop_pct": 0.5,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "interpolation": "bicubic",
    }
    whole = Image.open(file).resize((56, 40), Image.Resampling.BILINEAR).crop((22, 10, 35, 30))
    np.testing.assert_allclose(from_timm(said)(file)["image"], np.asarray(whole, np.float32) / 255, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"image_processor_type": "LevitImageProcessor"},
            "got the image_processor_type 'LevitImageProcessor'; expected one of",
        ),
        ({"image_std": [0.5, 0, 0.5]}, r"got image_std \[0.5, 0, 0.5\]; expected no zero, as it divides"),
        ({"do_pad": True}, "got do_pad True; expected False, the only value that is followed"),
        ({"do_flip_channel_order": True}, "got do_flip_channel_order True; expected False"),
        (
            {"size": {"shortest_edge": 9, "longest_edge": 20}},
            r"got size .*; expected a shortest_edge, or height and width",
        ),
        ({"do_resize": "no"}, "got do_resize 'no'; expected true or false"),
        ({"do_center_crop": True, "crop_size": "x"}, "got a size of 'x'; expected pixels"),
    ],
)
def test_what_would_change_an_image_and_is_not_followed_is_refused_by_name(change, text):
    with pytest.raises(ValueError, match=text):
        from_transformers({"size": 9, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **change})


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json", "config.json"])
def test_a_mistake_in_how_images_are_prepared_names_the_file_that_makes_it(tmp_path, name):
    said = {"image_mean": 3, "mean": 3, "input_size": [3, 9, 9]}
    (tmp_path / name).write_text(
        json.dumps({"image_processor": said} if name == "processor_config.json" else said)
    )
    config = {"architecture": "resnet18", **said} if name == "config.json" else {"model_type": "vit"}
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(tmp_path / name))}: got (image_)?mean 3; expected three numbers"
    ):
        preparation(tmp_path, config)
