"""Vision transformers against transformers', and a PyTorch encoder in the names of timm and torchvision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign import logits, ours, random_images, shaken, weights_in

from jaxmodels.convert import families
from jaxmodels.convert import vit as convert_vit
from jaxmodels.convert.family import image_of_size, timm
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import write_file
from jaxmodels.models.vit import ViT

torch = pytest.importorskip("torch")
nn = torch.nn

K = 5
IMAGES = random_images(2, 8, 8, 3)
MODEL = ViT(K, 8, 2, 2, 4, size=8, hidden_width=12)
SCALED = MODEL.clone(layer_scale=0.5)


class Theirs(nn.Module):
    """A pre-norm transformer on patches with a class token, PyTorch's own encoder layers."""

    def __init__(self, model):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, model.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + model.grid[0] * model.grid[1], model.width))
        self.patches = nn.Conv2d(3, model.width, model.patch, model.patch)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}

        def layer():
            return nn.TransformerEncoderLayer(
                model.width, model.heads, model.hidden_width, layer_norm_eps=model.epsilon, **options
            )

        self.blocks = nn.ModuleList([layer() for _ in range(model.depth)])
        self.norm = nn.LayerNorm(model.width, eps=model.epsilon)
        self.head = nn.Linear(model.width, model.classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


OF_TIMM = {
    "token": "cls_token",
    "position": "pos_embed",
    "patches.": "patch_embed.proj.",
    "self_attn.in_proj_": "attn.qkv.",
    "self_attn.out_proj": "attn.proj",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
}
OF_TORCHVISION = {
    "token": "class_token",
    "position": "encoder.pos_embedding",
    "patches.": "conv_proj.",
    "blocks.": "encoder.layers.encoder_layer_",
    "self_attn.": "self_attention.",
    "linear1": "mlp.0",
    "linear2": "mlp.3",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
}


def renamed(module, names):
    found = {}
    for name, x in module.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = x.clone()
    return found


def folder_of_timm(path, tensors, **config):
    path.mkdir()
    arrays = {name: x.numpy() for name, x in tensors.items()}
    write_file(
        path / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()}
    )
    (path / "config.json").write_text(json.dumps({"num_classes": K, **config}))
    return path


def test_a_state_dict_of_torchvision_gives_the_logits_of_pytorch(tmp_path):
    theirs = shaken(Theirs(MODEL))
    torch.save(renamed(theirs, OF_TORCHVISION), tmp_path / "a.pth")
    np.testing.assert_allclose(
        ours(load_weights(MODEL, tmp_path / "a.pth"), IMAGES), logits(theirs, IMAGES), atol=1e-4
    )


@pytest.mark.parametrize("model", [MODEL, SCALED], ids=["plain", "scaled"])
def test_a_folder_of_timm_gives_the_logits_of_pytorch(model, tmp_path, monkeypatch):
    """Layer scale is folded into the two output projections of PyTorch's, which have none."""

    def make(classes, **fields):
        return model.clone(classes=classes, **fields)

    family = timm({"vit_tiny": make}, weights_in(convert_vit, "timm"), (ViT,), inputs=image_of_size)
    monkeypatch.setattr(families, "FAMILIES", (family,))
    theirs = shaken(Theirs(model))
    tensors = renamed(theirs, OF_TIMM)
    if model.layer_scale:
        for i in range(model.depth):
            for part, (ours_, layer) in enumerate(
                (("attn.proj", "self_attn.out_proj"), ("mlp.fc2", "linear2")), 1
            ):
                scale = torch.linspace(0.5, 2.0, model.width)
                tensors[f"blocks.{i}.ls{part}.gamma"] = scale
                folded = theirs.blocks[i].get_submodule(layer)
                for name in ("weight", "bias"):
                    x = tensors[f"blocks.{i}.{ours_}.{name}"]
                    getattr(folded, name).data = x * scale.reshape(-1, *(1,) * (x.ndim - 1))
    found = load_pretrained(folder_of_timm(tmp_path / "a", tensors, architecture="vit_tiny"))
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)


def transformers_vit(head="ViTForImageClassification", **options):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "image_size": 8,
    }
    config = transformers.ViTConfig(**{**sizes, "patch_size": 4, "num_labels": K, **options})
    return shaken(getattr(transformers, head)(config))


def test_logits_are_those_of_transformers_and_it_loads_what_is_written(tmp_path):
    theirs = transformers_vit()
    theirs.save_pretrained(tmp_path / "a")
    found = load_pretrained(tmp_path / "a")
    assert found.model == MODEL.clone(epsilon=1e-12) and found.extra == {}
    np.testing.assert_allclose(ours(found, IMAGES), logits(theirs, IMAGES), atol=1e-4)
    save_pretrained(tmp_path / "b", *found[:3])
    back, said = type(theirs).from_pretrained(tmp_path / "b", output_loading_info=True)
    np.testing.assert_array_equal(logits(back.eval(), IMAGES), logits(theirs, IMAGES))
    assert not said["unexpected_keys"] and not said["missing_keys"]


def test_without_a_head_comes_the_class_token_and_their_pooler_is_left_out(tmp_path):
    theirs = transformers_vit("ViTModel")
    theirs.save_pretrained(tmp_path / "a")
    found = load_pretrained(tmp_path / "a")
    with torch.no_grad():
        want = theirs(torch.tensor(IMAGES.transpose(0, 3, 1, 2))).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(ours(found, IMAGES), want, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"qkv_bias": False}, "vit: got qkv_bias False; expected True, the only value that is followed"),
        ({"hidden_act": "relu"}, "got hidden_act 'relu'; expected 'gelu'"),
        (
            {"architectures": ["ViTForDreams"]},
            "got the architecture 'ViTForDreams'; expected one of ViTForImage",
        ),
        ({"patch_size": 0}, "got patch_size 0; expected a positive number"),
        ({"layer_norm_eps": "small"}, "got layer_norm_eps 'small'; expected a positive number"),
    ],
)
def test_a_config_that_is_not_followed_is_refused(change, text):
    family = convert_vit.FAMILIES[0]
    config = family.config(MODEL)
    assert family.model(config) == MODEL
    with pytest.raises(ValueError, match=text):
        family.model(config | change)


@pytest.mark.parametrize("name", convert_vit.TIMM)
def test_every_name_of_timm_is_written_as_it_was_read(name):
    family = convert_vit.FAMILIES[1]
    model = convert_vit.TIMM[name](classes=K)
    said = family.config(model)
    assert family.model(said) == model and len(family.weights(model)) == len(
        {w.path for w in family.weights(model)}
    )


def test_what_no_file_can_say_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="vit: got pool 'mean' and 0 registers; expected a class token and none"
    ):
        convert_vit.FAMILIES[2].weights(MODEL.clone(pool="mean"))
    with pytest.raises(ValueError, match=r"vit: got .*'layer_scale': 0.5.* for images of 8x8; expected what"):
        convert_vit.FAMILIES[0].config(SCALED)
