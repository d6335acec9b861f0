"""ConvNeXts against transformers', and a PyTorch network in the names of timm and torchvision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign import count, logits, ours, random_images, shaken, weights_in

from jaxmodels.convert import convnext as convert_convnext
from jaxmodels.convert import families
from jaxmodels.convert.family import timm
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import write_file
from jaxmodels.models.convnext import ConvNeXt

torch = pytest.importorskip("torch")
nn = torch.nn

K = 5
IMAGES = random_images(2, 32, 32, 3)
MODEL = ConvNeXt(K, (1, 2), (4, 6), layer_scale=0.1)


class Normal(nn.LayerNorm):
    """Over the channels of BCHW."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Turn(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(self.axes)


class Block(nn.Module):
    """In torchvision's names."""

    def __init__(self, C):
        super().__init__()
        up, down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        turns = Turn(0, 2, 3, 1), Turn(0, 3, 1, 2)
        filter_, norm = nn.Conv2d(C, C, 7, padding=3, groups=C), nn.LayerNorm(C, eps=1e-6)
        self.block = nn.Sequential(filter_, turns[0], norm, up, nn.GELU(), down, turns[1])
        self.layer_scale = nn.Parameter(torch.ones(C, 1, 1))

    def forward(self, x):
        return x + self.layer_scale * self.block(x)


class Theirs(nn.Module):
    """In torchvision's names."""

    def __init__(self, model):
        super().__init__()
        layers, C = [], 3
        for stage, (depth, width) in enumerate(zip(model.depths, model.widths, strict=True)):
            if stage:
                layers.append(nn.Sequential(Normal(C, eps=1e-6), nn.Conv2d(C, width, 2, 2)))
            else:
                layers.append(nn.Sequential(nn.Conv2d(C, width, 4, 4), Normal(width, eps=1e-6)))
            layers.append(nn.Sequential(*[Block(width) for _ in range(depth)]))
            C = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            Normal(C, eps=model.epsilon), nn.Flatten(1), nn.Linear(C, model.classes)
        )

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3), keepdim=True))


OF_TIMM = [
    ("features.0", "stem"),
    ("features.1.", "stages.0.blocks."),
    ("features.2", "stages.1.downsample"),
    ("features.3.", "stages.1.blocks."),
    ("block.0", "conv_dw"),
    ("block.2", "norm"),
    ("block.3", "mlp.fc1"),
    ("block.5", "mlp.fc2"),
    ("layer_scale", "gamma"),
    ("classifier.0", "head.norm"),
    ("classifier.2", "head.fc"),
]


def test_a_state_dict_of_torchvision_gives_the_logits_of_pytorch(tmp_path):
    theirs = shaken(Theirs(MODEL))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    found = load_weights(MODEL, tmp_path / "a.pth")
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    assert count(found.params) == sum(x.numel() for x in theirs.parameters())


def test_a_folder_of_timm_gives_the_logits_of_pytorch(tmp_path, monkeypatch):
    def make(classes, **fields):
        return MODEL.clone(classes=classes, **fields)

    weights = weights_in(convert_convnext, "timm")
    monkeypatch.setattr(families, "FAMILIES", (timm({"tiny": make}, weights, (ConvNeXt,)),))
    theirs, arrays = shaken(Theirs(MODEL)), {}
    for name, x in theirs.state_dict().items():
        for old, new in OF_TIMM:
            name = name.replace(old, new)
        arrays[name] = x.numpy().reshape(-1) if "gamma" in name else x.numpy()
    write_file(
        tmp_path / "model.safetensors",
        {name: (x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()},
    )
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "tiny", "num_classes": K}))
    np.testing.assert_allclose(ours(load_pretrained(tmp_path), IMAGES), logits(theirs, IMAGES), atol=1e-4)


def transformers_convnext(head="ConvNextForImageClassification", **options):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [4, 6], "depths": [1, 2], "num_stages": 2, "num_labels": K}
    return shaken(getattr(transformers, head)(transformers.ConvNextConfig(**{**sizes, **options})))


def test_logits_are_those_of_transformers_and_it_loads_what_is_written(tmp_path):
    theirs = transformers_convnext()
    theirs.save_pretrained(tmp_path / "a")
    found = load_pretrained(tmp_path / "a")
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    save_pretrained(tmp_path / "b", *found[:3])
    back, said = type(theirs).from_pretrained(tmp_path / "b", output_loading_info=True)
    np.testing.assert_array_equal(logits(back.eval(), IMAGES), logits(theirs, IMAGES))
    assert not said["unexpected_keys"] and not said["missing_keys"]


def test_without_a_head_come_the_pooled_features(tmp_path):
    theirs = transformers_convnext("ConvNextModel")
    theirs.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        want = theirs(torch.tensor(IMAGES.transpose(0, 3, 1, 2))).pooler_output.numpy()
    np.testing.assert_allclose(ours(load_pretrained(tmp_path / "a"), IMAGES), want, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_act": "relu"}, "convnext: got hidden_act 'relu'; expected 'gelu'"),
        ({"depths": [1]}, r"got hidden_sizes \(4, 6\) and depths \(1,\); expected both for each stage"),
        ({"layer_scale_init_value": 0}, "got layer_scale_init_value 0; expected a positive number"),
        ({"architectures": ["ConvNextForDreams"]}, "got the architecture 'ConvNextForDreams'"),
    ],
)
def test_a_config_that_is_not_followed_is_refused(change, text):
    family = convert_convnext.FAMILIES[0]
    config = family.config(MODEL)
    assert family.model(config) == MODEL
    with pytest.raises(ValueError, match=text):
        family.model(config | change)
