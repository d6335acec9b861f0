"""The page on use does what its part on export says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import jaxmodels
from jaxmodels import cli

ROOT = Path(__file__).parents[2]
PART = (ROOT / "docs" / "use.md").read_text().partition("## Export")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PART, re.MULTILINE | re.DOTALL)


def test_an_exported_run_is_loaded_as_the_page_says(tmp_path, monkeypatch, capsys):
    pictures = str(ROOT / "tests" / "files" / "tiny_pictures.py")
    monkeypatch.chdir(tmp_path)
    jaxmodels.train(pictures, folder="runs/pictures", console=jaxmodels.Console(quiet=True))
    stablehlo, onnx, safetensors = map(shlex.split, blocks("sh")[0].splitlines())
    assert cli.main([*stablehlo[1:], "--platforms", "cpu"]) == cli.main(safetensors[1:]) == 0
    capsys.readouterr()
    exec(blocks("python")[0], {})
    assert capsys.readouterr().out == "(3, 2)\n"
    pytest.importorskip("onnxruntime")
    if cli.main(onnx[1:]):
        assert "jax2onnx" in capsys.readouterr().err
        pytest.skip("no jax2onnx: pip install --no-deps jax2onnx==0.17.1")
    capsys.readouterr()
    exec(blocks("python")[1], {})
    assert capsys.readouterr().out == "(5, 2)\n"
