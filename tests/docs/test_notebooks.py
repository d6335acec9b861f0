"""The notebooks run from the first cell to the last, and print what their text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is absent; pip install nbclient ipykernel")
NotebookClient = pytest.importorskip("nbclient", reason="nbclient is absent; pip install nbclient ipykernel").NotebookClient
pytest.importorskip("ipykernel", reason="ipykernel is absent; pip install nbclient ipykernel")

ROOT = Path(__file__).parents[2]


def printed(name: str, monkeypatch, tmp_path, old: str = "", new: str = "") -> str:
    """All that the cells of the notebook print, with this text in place of that one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    assert old in notebook.cells[2].source
    notebook.cells[2].source = notebook.cells[2].source.replace(old, new)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_first_model_is_right_mostly_and_is_deceived(monkeypatch, tmp_path):
    said = printed("first_model.ipynb", monkeypatch, tmp_path)
    wrong, whole = map(int, re.search(r"(\d+) of (\d+) are wrong", said).groups())
    assert 0 < wrong < 0.06 * whole
    right = [float(x) for x in re.findall(r"pixels moved by [\d.]+: ([\d.]+)% right", said)]
    assert right == sorted(right, reverse=True) and right[-1] < 0.6 * right[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_inside_a_gpt_predictions_come_into_being_block_by_block(monkeypatch, tmp_path):
    steps = ("STEPS, LENGTH, DEPTH, HEADS = 300", "STEPS, LENGTH, DEPTH, HEADS = 100")  # a third, to be quicker
    said = printed("inside_gpt.ipynb", monkeypatch, tmp_path, *steps)
    assert float(re.search(r"([\d.]+) bits per byte; 8 before training", said)[1]) < 5
    lens = [float(x) for x in re.findall(r"after \d blocks: +([\d.]+) bits per byte", said)]
    assert len(lens) == 4 and lens[-1] == min(lens)
    assert len(re.findall(r"head \d [+-]0\.\d+", said)) == 12
