"""The notebooks run from top to bottom, and find what their text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="no nbclient and ipykernel: pip install 'jaxmodels[test]'")
nbclient = pytest.importorskip("nbclient", reason="no nbclient and ipykernel: pip install 'jaxmodels[test]'")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"


def run(name: str, monkeypatch) -> str:
    """What a notebook prints; any error in a cell fails."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("XLA_FLAGS")  # its programs are not tiny: they are worth compiling well
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def number(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    assert found, said
    return float(found[1])


def test_a_first_model(monkeypatch):
    said = run("first_model.ipynb", monkeypatch)
    assert number(r"(\d+) of 360 are wrong", said) < 15
    assert number(r"moved by 0\.20: ([\d.]+)% right", said) < 20


def test_inside_a_gpt(monkeypatch):
    said = run("inside_gpt.ipynb", monkeypatch)
    assert number(r"([\d.]+) bits per byte; 8 before", said) < 4.5
    bits = [float(x) for x in re.findall(r"after \d blocks: +([\d.]+) bits", said)]
    assert bits == sorted(bits, reverse=True)
    first, second = (
        re.findall(r"[+-]\d\.\d+", line) for line in re.findall(r"^block \d  head.*", said, re.MULTILINE)
    )
    assert max(map(float, first)) > max(map(float, second))


@pytest.mark.fast
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.name)
def test_a_notebook_is_kept_small_and_without_errors(file):
    assert file.stat().st_size < 100_000
    assert '"output_type": "error"' not in file.read_text()
