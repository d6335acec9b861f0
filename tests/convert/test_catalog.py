"""The table of models is whole, and counts what is published."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels import models as package
from jaxmodels.convert import catalog

pytestmark = pytest.mark.fast
FOLDER = Path(package.__file__).parent
# Parameters that the papers, torchvision, timm or transformers state.
COUNTS = {
    "lenet": 61_706,
    "alexnet": 61_100_840,
    "resnet50": 25_557_032,
    "cifar_resnet20": 269_722,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "vit_b16": 86_567_656,
    "gpt2_small": 124_439_808,
    "llama2_7b": 6_738_415_616,
    "t5_small": 60_506_624,
    "whisper_tiny": 37_184_640,  # and 576,000 of sines and cosines
    "hifi_gan_v1": 13_926_017,
    "hifi_gan_v2": 925_985,
    "hifi_gan_v3": 1_462_273,
    "mixtral_8x7b": 46_702_792_704,
}


def test_every_family_of_the_directory_and_every_size_of_it_is_in_the_table():
    named = {row.module.__name__.rpartition(".")[2]: catalog.sizes_of(row) for row in catalog.ROWS}
    assert named.keys() == {file.stem for file in FOLDER.glob("[a-z]*.py")}
    assert all(named.values())
    written = {
        name
        for file in FOLDER.glob("[a-z]*.py")
        for name in re.findall(r"^([a-z]\w*(?:, [a-z]\w*)*) = \(?partial\(", file.read_text(), re.MULTILINE)
        for name in name.split(", ")
    }
    common = {
        "gpt2",
        "gpt3",
        "bert",
        "roberta",
        "llama2",
        "llama3",
        "qwen2",
        "qwen3",
        "qwen_moe",
        "t5",
        "t5_v1_1",
        "whisper",
    }
    common |= {
        "third",
        "transformer",
        "vit_ti",
        "vit_s",
        "vit_b",
        "vit_l",
        "vit_h",
    }  # parts of sizes, which lack something
    assert written - common <= {name for sizes in named.values() for name in sizes}


@pytest.mark.slow
def test_parameters_are_those_that_are_published():
    families = {"cnn", "alexnet", "resnet", "mobilenet", "vit", "gpt", "llama", "t5", "moe"}
    rows = [row for row in catalog.ROWS if row.module.__name__.rpartition(".")[2] in families]
    for row in rows:
        sizes = {name: make for name, make in catalog.sizes_of(row).items() if name in COUNTS}
        [*lines] = catalog.counted(row, sizes)
        assert {line.name: line.parameters for line in lines} == {name: COUNTS[name] for name in sizes}


@pytest.mark.slow
def test_the_command_prints_a_table_and_json(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["list", "vae", "gan", "--models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "parameters", "input", "weights", "of"]
    assert [line.split()[0] for line in lines] == ["vae", "generator", "discriminator"]
    assert all(len(line) <= 80 for line in lines)
    assert cli.main(["list", "cnn", "--models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "family": "cnn",
        "name": "lenet",
        "parameters": 61_706,
        "input": "image 32 x 32 x 1",
        "source": "",
    }
    assert cli.main(["list", "dog", "--models"]) == 2
    assert "got 'dog'; expected families among mlp, cnn" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_source_is_a_layout_that_the_loader_knows():
    lines = {line.name: line.source for line in catalog.models(["mixer", "mtcnn", "vae"])}
    known = {family.layout for family in importlib.import_module("jaxmodels.convert.families").FAMILIES} | {
        catalog.LLAMA2C
    }
    assert lines["mixer_b16"] == "timm" and lines["vae"] == ""
    assert {source for text in lines.values() for source in text.split(", ") if source} <= known
