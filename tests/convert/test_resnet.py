"""ResNets against PyTorch's, written here, transformers', and four trained models.

Dimensions: B batch, H W C image, K classes.
"""

from __future__ import annotations

import json
from functools import partial

import jax
import numpy as np
import pytest
from foreign import count, logits, ours, random_images, shaken, weights_in

from jaxmodels.convert import families
from jaxmodels.convert import resnet as convert_resnet
from jaxmodels.convert.family import timm
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.save import convert, save_pretrained
from jaxmodels.convert.tensors import open_file, write_file
from jaxmodels.models import resnet
from jaxmodels.models.resnet import Basic, Bottleneck, CifarResNet, ResNet, SqueezeExcite
from jaxmodels.paths import by_path
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.pretrained import start_from

torch = pytest.importorskip("torch")
nn = torch.nn

B, H, K = 2, 32, 5
IMAGES = random_images(B, H, H, 3)
TINY = {"depths": (1, 2), "stem_width": 4}
MODELS = {
    "basic": ResNet(K, block=Basic, widths=(4, 6), **TINY),
    "bottleneck": ResNet(K, block=Bottleneck, widths=(2, 3), base_width=64, **TINY),
    "groups": ResNet(K, block=Bottleneck, widths=(4, 8), groups=2, base_width=32, **TINY),
    "squeeze-excite": ResNet(K, block=SqueezeExcite, widths=(4, 8), **TINY),
}


class Layer(nn.Module):
    """A residual block of PyTorch, by torchvision's names; excite by timm's."""

    def __init__(self, C, width, stride, bottleneck, groups, base_width, excite):
        super().__init__()
        F = width * (4 if bottleneck else 1)
        inner = int(width * base_width / 64) * groups if bottleneck else width
        kernels = [(C, inner, 1, 1), (inner, inner, 3, stride), (inner, F, 1, 1)]
        for i, (a, b, k, s) in enumerate(kernels if bottleneck else [(C, F, 3, stride), (F, F, 3, 1)], 1):
            g = groups if bottleneck and k == 3 else 1
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, groups=g, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.last = 3 if bottleneck else 2
        if excite:
            self.se = nn.Module()
            self.se.fc1, self.se.fc2 = nn.Conv2d(F, F // 16, 1), nn.Conv2d(F // 16, F, 1)
        if stride != 1 or C != F:
            self.downsample = nn.Sequential(nn.Conv2d(C, F, 1, stride, bias=False), nn.BatchNorm2d(F))

    def forward(self, x):
        y = x
        for i in range(1, self.last + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.last else y
        if hasattr(self, "se"):
            y = y * torch.sigmoid(self.se.fc2(torch.relu(self.se.fc1(y.mean((2, 3), keepdim=True)))))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Theirs(nn.Module):
    """A ResNet of PyTorch with the sizes of ours."""

    def __init__(self, model):
        super().__init__()
        bottleneck, C = issubclass(model.block, Bottleneck), model.stem_width
        self.conv1, self.bn1 = nn.Conv2d(3, C, 7, 2, 3, bias=False), nn.BatchNorm2d(C)
        for i, (depth, width) in enumerate(zip(model.depths, model.widths, strict=True), 1):
            layers = []
            for j in range(depth):
                stride = 2 if i > 1 and j == 0 else 1
                excite = model.block is SqueezeExcite
                layers.append(Layer(C, width, stride, bottleneck, model.groups, model.base_width, excite))
                C = width * (4 if bottleneck else 1)
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        self.stages = len(model.depths)
        self.fc = nn.Linear(C, model.classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_gives_the_logits_of_pytorch(name, tmp_path):
    theirs = shaken(Theirs(MODELS[name]))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    found = load_weights(MODELS[name], tmp_path / "a.pth")
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    assert set(found.extra) == {"batch_stats"} and found.config == {}
    assert count(found.params) == sum(x.numel() for x in theirs.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "seresnet50"])
def test_the_names_and_shapes_of_a_published_size_are_those_of_pytorch(name):
    model = getattr(resnet, name)(classes=1000)
    with torch.device("meta"):
        want = {
            key: tuple(x.shape) for key, x in Theirs(model).state_dict().items() if "num_batches" not in key
        }
    family = next(family for family in convert_resnet.FAMILIES if family.layout == "timm")
    variables = by_path(jax.eval_shape(model.init, jax.random.key(0), *family.inputs(model)))
    weights, got = family.weights(model), {}
    for weight in weights:
        x = variables.get(weight.path) or variables["params/" + weight.path]
        got[weight.names[0]] = jax.eval_shape(weight.write, x).shape
    assert got == want and len(weights) == len(variables) == len(want)
    assert family.model(family.config(model)) == model


FEW = {"resnet_tiny": partial(ResNet, block=Bottleneck, widths=(2, 3), **TINY)}


@pytest.fixture
def timm_folder(tmp_path, monkeypatch):
    """(folder as timm writes it, the model in PyTorch)."""
    family = timm(FEW, weights_in(convert_resnet, "timm"), (ResNet,))
    monkeypatch.setattr(families, "FAMILIES", (family, *families.FAMILIES))
    theirs = shaken(Theirs(FEW["resnet_tiny"](classes=K)))
    arrays = {name: x.numpy() for name, x in theirs.state_dict().items()}
    folder = tmp_path / "timm"
    folder.mkdir()
    write_file(
        folder / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()}
    )
    config = {
        "architecture": "resnet_tiny",
        "num_classes": K,
        "pretrained_cfg": {"mean": [0.5], "num_classes": 9},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, theirs


def test_a_folder_of_timm_gives_the_logits_of_pytorch_and_is_written_again(timm_folder, tmp_path):
    folder, theirs = timm_folder
    found = load_pretrained(folder)
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    convert(folder, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (again["architecture"], again["num_classes"], again["pretrained_cfg"]["mean"]) == (
        "resnet_tiny",
        K,
        [0.5],
    )
    tensors = open_file(tmp_path / "again" / "model.safetensors")
    for name, x in theirs.state_dict().items():
        if "num_batches" not in name:
            np.testing.assert_array_equal(tensors[name].read(), x.numpy())
    loaded = theirs.load_state_dict({name: torch.tensor(np.array(x.read())) for name, x in tensors.items()})
    assert not loaded.missing_keys


def test_a_new_head_begins_random_and_the_rest_as_it_was(timm_folder):
    folder, theirs = timm_folder
    model, params, extra, _ = load_pretrained(folder, classes=7)
    assert model == FEW["resnet_tiny"](classes=7) and "head" not in params
    batch = {"image": IMAGES, "label": np.zeros(B, np.int32), "weight": np.ones(B, np.float32)}
    started, stats = jax.jit(start_from(classify(model), params, extra).init)(jax.random.key(0), batch)
    assert started["head"]["kernel"].shape == (12, 7)
    kernel = theirs.layer2[1].conv2.weight.detach().numpy()
    np.testing.assert_array_equal(
        started["stage_2_block_1"]["conv_2"]["conv"]["kernel"], kernel.transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(stats["batch_stats"]["stem"]["norm"]["var"], theirs.bn1.running_var.numpy())


def test_without_a_head_come_the_pooled_features(timm_folder):
    folder, theirs = timm_folder
    theirs.fc = nn.Identity()
    np.testing.assert_allclose(
        ours(load_pretrained(folder, classes=0), IMAGES), logits(theirs, IMAGES), atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"architecture": "resnet_giant"},
            r"got the architecture 'resnet_giant'; expected one of resnet_tiny, .*resnet18",
        ),
        ({"num_classes": "5"}, "got num_classes '5'; expected a positive number"),
        (
            {"num_classes": 6},
            r"fc.weight of the shape \[5, 12\], which gives \(12, 5\) for head/kernel; expected \(12, 6\)",
        ),
        ({"model_args": {"output_stride": 8}}, "got model_args .'output_stride': 8.; expected none"),
    ],
)
def test_a_config_of_timm_that_is_not_followed_is_refused(timm_folder, change, text):
    path = timm_folder[0] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=text):
        load_pretrained(timm_folder[0])


# transformers


def transformers_resnet(kind, head="ResNetForImageClassification", **options):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "embedding_size": 4,
        "hidden_sizes": [8, 12],
        "depths": [1, 2],
        "layer_type": kind,
        "num_labels": K,
    }
    return shaken(getattr(transformers, head)(transformers.ResNetConfig(**{**sizes, **options})))


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_logits_are_those_of_transformers_and_it_loads_what_is_written(kind, tmp_path):
    theirs = transformers_resnet(kind)
    theirs.save_pretrained(tmp_path / "a")
    found = load_pretrained(tmp_path / "a")
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    save_pretrained(tmp_path / "b", *found[:3])
    back, said = type(theirs).from_pretrained(tmp_path / "b", output_loading_info=True)
    np.testing.assert_array_equal(logits(back.eval(), IMAGES), logits(theirs, IMAGES))
    assert not said["unexpected_keys"]
    assert not [name for name in said["missing_keys"] if "num_batches_tracked" not in name]


def test_transformers_without_a_head_gives_the_pooled_features_both_ways(tmp_path):
    theirs = transformers_resnet("basic", "ResNetModel")
    theirs.save_pretrained(tmp_path / "a")
    found = load_pretrained(tmp_path / "a")
    assert found.model.classes == 0

    def pooled(module):
        with torch.no_grad():
            return module(torch.tensor(IMAGES.transpose(0, 3, 1, 2))).pooler_output.numpy()[..., 0, 0]

    np.testing.assert_allclose(ours(found, IMAGES), pooled(theirs), atol=1e-4)
    save_pretrained(tmp_path / "b", *found[:3])
    np.testing.assert_array_equal(pooled(type(theirs).from_pretrained(tmp_path / "b").eval()), pooled(theirs))


def test_grey_images_are_read_and_written_with_inputs_of_their_shape(tmp_path):
    theirs = transformers_resnet("basic", num_channels=1)
    theirs.save_pretrained(tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"convolution.weight of the shape \[4, 1, 7, 7\].*expected \(7, 7, 3, 4\)"
    ):
        load_pretrained(tmp_path / "a")
    grey = IMAGES[..., :1]
    found = load_pretrained(tmp_path / "a", inputs=(grey,))
    np.testing.assert_allclose(ours(found, grey), logits(theirs, grey), atol=1e-4)
    save_pretrained(tmp_path / "b", *found[:3], config={"num_channels": 1}, inputs=(grey,))
    np.testing.assert_array_equal(
        logits(type(theirs).from_pretrained(tmp_path / "b").eval(), grey), logits(theirs, grey)
    )


CONFIG = {
    "model_type": "resnet",
    "architectures": ["ResNetForImageClassification"],
    "embedding_size": 4,
    "hidden_sizes": [8, 12],
    "depths": [1, 2],
    "layer_type": "bottleneck",
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_act": "gelu"}, "got hidden_act 'gelu'; expected 'relu', the only value that is followed"),
        ({"downsample_in_first_stage": True}, "got downsample_in_first_stage True; expected False"),
        ({"downsample_in_bottleneck": True}, "got downsample_in_bottleneck True; expected False"),
        ({"layer_type": "wide"}, "got layer_type 'wide'; expected basic or bottleneck"),
        (
            {"architectures": ["ResNetForDreams"]},
            "got the architecture 'ResNetForDreams'; expected one of ResNetFor",
        ),
        (
            {"hidden_sizes": [8, 10]},
            r"got hidden_sizes \(8, 10\) and depths \(1, 2\); expected both for each stage",
        ),
        ({"depths": [1]}, r"and depths \(1,\); expected both for each stage"),
        ({"depths": [1, 10**9]}, "got depths .*; expected positive numbers below 10,000"),
        ({"depths": 3}, "got depths 3; expected a number for each stage"),
        ({"hidden_sizes": [8, True]}, "got hidden_sizes .*; expected positive numbers"),
        ({"embedding_size": -1}, "got embedding_size -1; expected a positive number"),
    ],
)
def test_a_config_of_transformers_that_is_not_followed_is_refused(change, text):
    family = convert_resnet.FAMILIES[0]
    assert family.model(CONFIG) == ResNet(2, (1, 2), Bottleneck, (2, 3), stem_width=4)
    with pytest.raises(ValueError, match=text):
        family.model(CONFIG | change)


@pytest.mark.parametrize("name", ["groups", "squeeze-excite"])
def test_what_transformers_cannot_say_is_not_written_for_it(name, tmp_path):
    model = MODELS[name]
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(
        ValueError, match="expected what transformers can say, plain ones and the stem that pools"
    ):
        save_pretrained(tmp_path / "a", model, zeros["params"], {"batch_stats": zeros["batch_stats"]})
    with pytest.raises(ValueError, match="got a ResNet of other settings; expected one of resnet18"):
        save_pretrained(
            tmp_path / "a", model, zeros["params"], {"batch_stats": zeros["batch_stats"]}, layout="timm"
        )
    assert not (tmp_path / "a").exists()
    save_pretrained(
        tmp_path / "a", model, zeros["params"], {"batch_stats": zeros["batch_stats"]}, layout="torchvision"
    )
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.safetensors"]
    again = load_weights(model, tmp_path / "a" / "model.safetensors")
    assert jax.tree.map(np.shape, (again.params, again.extra["batch_stats"])) == jax.tree.map(
        np.shape, (zeros["params"], zeros["batch_stats"])
    )


# CIFAR


def option_a(weights, x, depth):
    """The logits of a CIFAR ResNet with shortcuts of option A, written out; x BCHW."""
    from torch.nn.functional import batch_norm, conv2d, linear, pad

    def layer(x, conv, norm, stride=1):
        w = [weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(conv2d(x, weights[conv + ".weight"], stride=stride, padding=1), *w)

    x = torch.relu(layer(x, "conv1", "bn1"))
    for stage in (1, 2, 3):
        for i in range((depth - 2) // 6):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = torch.relu(layer(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = layer(y, f"{name}.conv2", f"{name}.bn2")
            new = y.shape[1] - x.shape[1]
            x = torch.relu(y + pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new // 2)))
    return linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize(
    ("file", "depth", "parameters"),
    [
        ("resnet20-12fca82f.th", 20, 269_722),
        ("resnet32-d509ac18.th", 32, 464_154),
        ("resnet44-014dd654.th", 44, 658_586),
        ("resnet56-4bfd9763.th", 56, 853_018),
    ],
)
def test_trained_resnets_of_cifar_give_their_logits(file, depth, parameters, real):
    path = real("weights/resnet_cifar10") / file
    found = load_weights(CifarResNet(10, depth), path, layout="akamaster")
    assert count(found.params) == parameters
    raw = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    weights = {name.removeprefix("module."): x for name, x in raw.items()}
    want = option_a(weights, torch.tensor(IMAGES.transpose(0, 3, 1, 2)), depth).numpy()
    got = found.model.apply(
        {"params": found.params, **found.extra}, IMAGES
    )  # uncompiled: its layers are few and repeat
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.abs(want).max() > 1


def test_cifars_shortcuts_of_option_b_have_their_names(tmp_path):
    model = CifarResNet(10, 8, "B", widths=(2, 3, 4))
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    random = np.random.default_rng(0)
    made = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    save_pretrained(tmp_path, model, made["params"], {"batch_stats": made["batch_stats"]})
    names = open_file(tmp_path / "model.safetensors")
    assert {"layer2.0.shortcut.0.weight", "layer3.0.shortcut.1.running_var", "linear.bias"} <= set(names)
    again = load_weights(model, tmp_path / "model.safetensors", layout="akamaster")
    jax.tree.map(np.testing.assert_array_equal, {"params": again.params, **again.extra}, made)
