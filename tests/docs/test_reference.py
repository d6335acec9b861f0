"""The documentation's site builds without a warning, has every module, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    absent = [
        name
        for name in ("mkdocs", "material", "mkdocstrings_handlers")
        if importlib.util.find_spec(name) is None
    ]
    if absent:
        pytest.skip(f"{', '.join(absent)}: not installed; pip install 'jaxmodels[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # of the theme, which advertises its successor
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_public_module_is_in_the_reference(site):
    text = "".join(page.read_text() for page in (site / "api").rglob("*.html"))
    package = ROOT / "jaxmodels"
    files = [
        file.relative_to(package) for file in package.rglob("[a-z]*.py") if file.parent != package / "cli"
    ]
    names = [".".join(file.with_suffix("").parts) for file in files]
    absent = [name for name in names if f'id="jaxmodels.{name}"' not in text]
    assert names and not absent


@pytest.mark.parametrize(
    "name",
    ["task.Task", "optim.optimizers.adamw", "tasks.classify.classify", "data.pipeline.ArrayPipeline.rows"],
)
def test_a_name_is_explained_by_its_docstring(site, name):
    pages = [
        text
        for page in (site / "api").rglob("*.html")
        if f'id="jaxmodels.{name}"' in (text := page.read_text())
    ]
    assert len(pages) == 1


def test_a_model_shows_its_fields_and_its_sizes(site):
    text = re.sub(r"<[^>]+>", "", (site / "api" / "models" / "index.html").read_text())
    assert re.search(r"GPT\(\s*vocabulary: int,\s*length: int,", text)
    assert re.search(r"gpt2_small\s*=\s*partial\(\s*gpt2,\s*width=768", text)


def test_notebooks_have_pages(site):
    assert "Where it fails" in (site / "notebooks" / "first_model" / "index.html").read_text()


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    loads = re.compile(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(https?:[^" >]+)')
    assert len(pages) > 15
    assert not {url for page in pages for url in loads.findall(page.read_text())}
