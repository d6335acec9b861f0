"""The site of the documentation is built without a warning, of every public module, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="mkdocs is absent; pip install 'jaxmodels[docs]'")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is absent; pip install 'jaxmodels[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_commands_contracts_models_and_their_docstrings_are_there(site):
    pages = {path.relative_to(site).parent.as_posix(): path.read_text() for path in site.rglob("index.html")}
    for page, names in {
        "api": (
            "jaxmodels.commands.train",
            "jaxmodels.task.Task",
            "jaxmodels.experiment.Experiment",
            "jaxmodels.options.Options",
        ),
        "api/optim": ("jaxmodels.optim.adamw", "jaxmodels.optim.muon"),
        "api/models": ("jaxmodels.models.resnet.ResNet", "jaxmodels.models.gpt.GPT"),
        "api/layers": ("jaxmodels.layers.dropout.dropout",),
        "api/sweep": ("jaxmodels.sweeps.command.sweep",),
    }.items():
        for name in names:
            assert f'id="{name}"' in pages[page], name
    assert "Srivastava et al., 2014" in pages["api/layers"]


def test_no_page_asks_the_network_for_anything(site):
    for path in site.rglob("*.html"):
        asked = re.findall(r'<(?:script|img|link)[^>]*?(?:src|href)="([^"]+)"', path.read_text())
        assert not [url for url in asked if url.startswith(("http:", "https:", "//"))], path
