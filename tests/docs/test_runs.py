"""The page on a run's folder: its experiment trains with the module beside it, and keeps what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jaxmodels import cli

PAGE = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for title, text in re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        Path(title).write_text(text)
    rows = [f"{40 + i},{town},{i}" for i, town in enumerate(["Bonn", "Aachen", "Celle", "Bonn"] * 3)]
    Path("flats.csv").write_text("\n".join(["size,town,price", *rows]))
    assert (
        cli.main(
            ["train", "prices.py", "--hidden", "16,16", "--folder", "run", "--mesh", "data=1", "--quiet"]
        )
        == 0
    )
    assert json.loads(Path("run/learned.json").read_text())["values"]["towns"] == ["Aachen", "Bonn", "Celle"]
    found = {path.relative_to("run").parts[0] for path in Path("run").rglob("*") if path.is_file()} - {
        ".lock"
    }
    assert found == {
        x.strip("/").partition("/")[0]
        for x in re.findall(r"`([^`]+)`", PAGE.split("A run's folder is code")[0])
        if "." in x or x.endswith("/") or x == "checkpoints/N/"
    }
    Path("flats.csv").unlink()
    assert cli.main(["report", "run", "--quiet"]) == 0
