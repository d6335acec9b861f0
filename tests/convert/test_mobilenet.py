"""MobileNets against PyTorch's, written here in torchvision's and in timm's names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign import count, logits, ours, random_images, shaken, weights_in

from jaxmodels.convert import families
from jaxmodels.convert import mobilenet as convert_mobilenet
from jaxmodels.convert.family import timm
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.tensors import write_file
from jaxmodels.models.mobilenet import Inverted, MobileNet, rounded

torch = pytest.importorskip("torch")
nn = torch.nn

K = 5
IMAGES = random_images(2, 32, 32, 3)
SECOND = MobileNet(K, (Inverted(3, 4, 3), Inverted(3, 6, 5, 2), Inverted(3, 10, 5)), stem=4, last=7)
ROWS = (Inverted(3, 4, 4, 2, True), Inverted(5, 9, 5, hard=True), Inverted(3, 11, 5, 1, True, True))
THIRD = MobileNet(K, ROWS, stem=4, last=6, dense=8, hard=True, epsilon=1e-3)
MODELS = {"second": SECOND, "third": THIRD}


class Squeeze(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(C, rounded(C / 4), 1), nn.Conv2d(rounded(C / 4), C, 1)

    def forward(self, x):
        return x * nn.functional.hardsigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


def layer(C, F, kernel, stride, groups, act, epsilon):
    conv = nn.Conv2d(C, F, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(F, eps=epsilon), *([act()] if act else []))


class Block(nn.Module):
    def __init__(self, C, row, third, epsilon):
        super().__init__()
        act = nn.Hardswish if row.hard else nn.ReLU if third else nn.ReLU6
        parts = [layer(C, row.inner, 1, 1, 1, act, epsilon)] if row.inner != C else []
        parts.append(layer(row.inner, row.inner, row.kernel, row.stride, row.inner, act, epsilon))
        parts += [Squeeze(row.inner)] if row.excite else []
        last = layer(row.inner, row.out, 1, 1, 1, None, epsilon)
        self.whole = nn.Sequential(*parts, *([last] if third else last))
        setattr(self, "block" if third else "conv", self.whole)
        self.added = row.stride == 1 and row.out == C

    def forward(self, x):
        return x + self.whole(x) if self.added else self.whole(x)


class Theirs(nn.Module):
    def __init__(self, model):
        super().__init__()
        act = nn.Hardswish if model.hard else nn.ReLU6
        parts, C = [layer(3, model.stem, 3, 2, 1, act, model.epsilon)], model.stem
        for row in model.rows:
            parts.append(Block(C, row, model.hard, model.epsilon))
            C = row.out
        self.features = nn.Sequential(*parts, layer(C, model.last, 1, 1, 1, act, model.epsilon))
        if model.dense:
            head = [
                nn.Linear(model.last, model.dense),
                nn.Hardswish(),
                nn.Dropout(),
                nn.Linear(model.dense, model.classes),
            ]
        else:
            head = [nn.Dropout(), nn.Linear(model.last, model.classes)]
        self.classifier = nn.Sequential(*head)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def state(module):
    return {name: x for name, x in module.state_dict().items() if "whole" not in name}


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_of_torchvision_gives_the_logits_of_pytorch(name, tmp_path):
    theirs = shaken(Theirs(MODELS[name]))
    torch.save(state(theirs), tmp_path / "a.pth")
    found = load_weights(MODELS[name], tmp_path / "a.pth")
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), rtol=1e-4, atol=1e-4)
    assert count(found.params) == sum(x.numel() for x in theirs.parameters())


TO_TIMM = {  # where the layers of each block are, by their index there
    "second": [
        ("features.0.0", "conv_stem", "features.0.1", "bn1"),
        ("features.1.conv.0.0", "blocks.0.0.conv_dw", "features.1.conv.0.1", "blocks.0.0.bn1"),
        ("features.1.conv.1", "blocks.0.0.conv_pw", "features.1.conv.2", "blocks.0.0.bn2"),
        ("features.2.conv.0.0", "blocks.1.0.conv_pw", "features.2.conv.0.1", "blocks.1.0.bn1"),
        ("features.2.conv.1.0", "blocks.1.0.conv_dw", "features.2.conv.1.1", "blocks.1.0.bn2"),
        ("features.2.conv.2", "blocks.1.0.conv_pwl", "features.2.conv.3", "blocks.1.0.bn3"),
        ("features.3.conv.0.0", "blocks.1.1.conv_pw", "features.3.conv.0.1", "blocks.1.1.bn1"),
        ("features.3.conv.1.0", "blocks.1.1.conv_dw", "features.3.conv.1.1", "blocks.1.1.bn2"),
        ("features.3.conv.2", "blocks.1.1.conv_pwl", "features.3.conv.3", "blocks.1.1.bn3"),
        ("features.4.0", "conv_head", "features.4.1", "bn2"),
        ("classifier.1", "classifier"),
    ],
    "third": [
        ("features.0.0", "conv_stem", "features.0.1", "bn1"),
        ("features.1.block.0.0", "blocks.0.0.conv_dw", "features.1.block.0.1", "blocks.0.0.bn1"),
        (
            "features.1.block.1.fc1",
            "blocks.0.0.se.conv_reduce",
            "features.1.block.1.fc2",
            "blocks.0.0.se.conv_expand",
        ),
        ("features.1.block.2.0", "blocks.0.0.conv_pw", "features.1.block.2.1", "blocks.0.0.bn2"),
        ("features.2.block.0.0", "blocks.1.0.conv_pw", "features.2.block.0.1", "blocks.1.0.bn1"),
        ("features.2.block.1.0", "blocks.1.0.conv_dw", "features.2.block.1.1", "blocks.1.0.bn2"),
        ("features.2.block.2.0", "blocks.1.0.conv_pwl", "features.2.block.2.1", "blocks.1.0.bn3"),
        ("features.3.block.0.0", "blocks.1.1.conv_pw", "features.3.block.0.1", "blocks.1.1.bn1"),
        ("features.3.block.1.0", "blocks.1.1.conv_dw", "features.3.block.1.1", "blocks.1.1.bn2"),
        (
            "features.3.block.2.fc1",
            "blocks.1.1.se.conv_reduce",
            "features.3.block.2.fc2",
            "blocks.1.1.se.conv_expand",
        ),
        ("features.3.block.3.0", "blocks.1.1.conv_pwl", "features.3.block.3.1", "blocks.1.1.bn3"),
        ("features.4.0", "blocks.2.0.conv", "features.4.1", "blocks.2.0.bn1"),
        ("classifier.0", "conv_head", "classifier.3", "classifier"),
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_timm_gives_the_logits_of_pytorch(name, tmp_path, monkeypatch):
    """The layer before the head is a 1 x 1 convolution there."""

    def make(classes, **fields):
        return MODELS[name].clone(classes=classes, **fields)

    family = timm({"tiny": make}, weights_in(convert_mobilenet, "timm"), (MobileNet,))
    monkeypatch.setattr(families, "FAMILIES", (family,))
    theirs, arrays = shaken(Theirs(MODELS[name])), {}
    moved = {parts[i]: parts[i + 1] for parts in TO_TIMM[name] for i in range(0, len(parts), 2)}
    for key, x in state(theirs).items():
        module, leaf = key.rsplit(".", 1)
        x = x.numpy()
        arrays[f"{moved[module]}.{leaf}"] = (
            x[..., None, None] if (moved[module], leaf) == ("conv_head", "weight") and x.ndim == 2 else x
        )
    write_file(
        tmp_path / "model.safetensors", {key: (x.shape, x.dtype, lambda x=x: x) for key, x in arrays.items()}
    )
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "tiny", "num_classes": K}))
    np.testing.assert_allclose(
        ours(load_pretrained(tmp_path), IMAGES), logits(theirs, IMAGES), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", convert_mobilenet.TIMM)
def test_every_name_of_timm_is_written_as_it_was_read(name):
    family = convert_mobilenet.FAMILIES[0]
    model = convert_mobilenet.TIMM[name](classes=K)
    assert family.model(family.config(model)) == model
