"""Weights in torch's own files, layouts recognised by names, ignored tensors, and incomplete folders."""

from __future__ import annotations

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.save import convert, save_pretrained
from jaxmodels.convert.tensors import open_file, write_file
from jaxmodels.models.gpt import GPT
from jaxmodels.models.resnet import CifarResNet
from jaxmodels.models.vit import ViT

MODEL = GPT(11, 16, 8, 2, 2)
pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    save_pretrained(
        folder, MODEL, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    )
    return folder


def arrays(folder):
    return {name: np.array(tensor.read()) for name, tensor in open_file(folder / "model.safetensors").items()}


def as_torch(release, folder, shards=1):
    """The folder with torch's files in place of safetensors."""
    torch = pytest.importorskip("torch")
    (folder / "config.json").write_bytes((release / "config.json").read_bytes())
    tensors = {name: torch.tensor(x) for name, x in arrays(release).items()}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    file_of = {name: f"pytorch_model-{i % shards}.bin" for i, name in enumerate(tensors)}
    for file in set(file_of.values()):
        torch.save({name: x for name, x in tensors.items() if file_of[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": file_of}))
    return folder


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_torchs_own_files_are_read_where_a_folder_has_no_safetensors(release, tmp_path, shards):
    folder = as_torch(release, tmp_path, shards)
    same(load_pretrained(folder).params, load_pretrained(release).params)
    convert(folder, tmp_path / "out")
    same(load_pretrained(tmp_path / "out").params, load_pretrained(release).params)


@pytest.mark.slow
def test_transformers_own_pytorch_model_bin_is_read(tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config = transformers.GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    found = load_pretrained(tmp_path)
    with torch.no_grad():
        want = theirs(torch.tensor([[1, 2, 3]])).logits.numpy()
    np.testing.assert_allclose(
        found.model.apply({"params": found.params}, np.array([[1, 2, 3]])), want, atol=1e-4
    )


@pytest.mark.slow
def test_a_pickle_that_would_run_code_is_not_run(release, tmp_path):
    torch = pytest.importorskip("torch")
    folder = as_torch(release, tmp_path)

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: got no weights that can be read safely"):
        load_pretrained(folder)
    with pytest.raises(ValueError, match="got no weights that can be read safely"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "files", [("experiment.py",), ("modeling.py", "tokenization.py", "setup.py", "__init__.py")]
)
def test_loading_and_converting_run_no_code_of_the_folder(release, tmp_path, files):
    folder = as_torch(release, tmp_path)
    for name in files:
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    said = json.loads((folder / "config.json").read_text())
    said["auto_map"] = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps(said))
    load_pretrained(folder)
    convert(folder, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_zip_bomb_and_a_tensor_without_its_numbers_are_refused(release, tmp_path):
    torch = pytest.importorskip("torch")
    folder = as_torch(release, tmp_path)
    torch.save({"a": torch.zeros(1).expand(10**12)}, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"got tensors of 4,000,000,000,000 bytes in a file of .*; expected the values"
    ):
        load_pretrained(folder)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 10**7)
    with pytest.raises(
        ValueError, match=r"got parts that are compressed, named twice or larger than the file; expected what"
    ):
        load_pretrained(folder)


# Whose names


VIT = ViT(3, 8, 1, 2, 8, size=16)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "torchvision"])
def test_the_layout_is_seen_by_the_names(tmp_path, layout):
    shapes = jax.eval_shape(VIT.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes)
    save_pretrained(tmp_path, VIT, params, layout=layout)
    same(load_weights(VIT, tmp_path / "model.safetensors").params, params)


def test_a_layout_that_cannot_be_seen_is_asked_for_with_the_known_ones(tmp_path):
    write_file(
        tmp_path / "a.safetensors", {"mine.weight": ((2,), np.float32, lambda: np.zeros(2, np.float32))}
    )
    with pytest.raises(
        ValueError,
        match=r"got tensors such as mine.weight for a ViT; expected the names of .*such as vit.*timm",
    ):
        load_weights(VIT, tmp_path / "a.safetensors")


@pytest.mark.slow
def test_the_files_of_akamaster_need_no_layout(real):
    pytest.importorskip("torch")
    path = real("weights/resnet_cifar10") / "resnet20-12fca82f.th"
    same(
        load_weights(CifarResNet(10, 20), path).params,
        load_weights(CifarResNet(10, 20), path, layout="akamaster").params,
    )


# Tensors that nothing asks for


@pytest.mark.slow
def test_tensors_are_left_out_by_a_pattern_and_listed(release, tmp_path):
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    found = {
        **arrays(release),
        "probe.weight": np.zeros(3, np.float32),
        "probe.bias": np.zeros(1, np.float32),
    }
    write_file(
        tmp_path / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in found.items()}
    )
    with pytest.raises(
        ValueError,
        match=r"got 2 tensors that nothing in a gpt2 uses, such as probe.weight, probe.bias; .*or give ign",
    ):
        load_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"ignore= leaves out 2 tensors: probe.weight, probe.bias"):
        made = load_pretrained(tmp_path, ignore=r"^probe\.")
    same(made.params, load_pretrained(release).params)
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"got 1 tensors that nothing in a GPT uses, such as probe.bias"),
    ):
        load_weights(MODEL, tmp_path / "model.safetensors", ignore=["weight$"])


# Folders that lack something


def test_a_folder_with_a_file_of_llama2c_says_what_to_give(tmp_path, capsys):
    (tmp_path / "stories.bin").write_bytes(b"x")
    assert cli.main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "got stories.bin and no config.json; expected the folder of a whole release" in said
    assert f"If the file is of llama2.c, give its path, {tmp_path / 'stories.bin'}" in said


def test_a_file_of_torch_in_place_of_one_of_llama2c_says_what_to_give(release, tmp_path):
    folder = as_torch(release, tmp_path)
    with pytest.raises(
        ValueError, match=r"pytorch_model.bin: got a file of torch; expected one of llama2.c. Give its folder"
    ):
        load_pretrained(folder / "pytorch_model.bin")


# More asked for than there is


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_layer", 9_999, r"got n_layer 9999 and \d+ tensors; expected at least one tensor for each"),
        ("n_embd", 2**30, r"of the shape"),
        ("vocab_size", 2**30, r"of the shape"),
    ],
)
def test_a_config_that_asks_for_more_than_its_tensors_is_refused_before_anything_is_made(
    release, tmp_path, name, value, message
):
    said = json.loads((release / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, name: value}))
    (tmp_path / "model.safetensors").write_bytes((release / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)
