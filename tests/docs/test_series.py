"""The page on time series: its experiment trains on a made table, and beats what it compares with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from jaxmodels import cli

PAGE = (Path(__file__).parents[2] / "docs" / "series.md").read_text()


def test_a_table_of_ones_own_is_forecast_better_than_by_its_last_season(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for title, text in re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        Path(title).write_text(text)
    random, day = np.random.default_rng(0), np.arange(300)
    sales = np.sin(2 * np.pi * day / 7)[:, None] * [10, 4] + [100, 50] + random.normal(size=(300, 2))
    dates = (np.datetime64("2024-01-01") + day).astype(str)
    rows = [f"{date},{shop:.3f},{online:.3f}" for date, (shop, online) in zip(dates, sales, strict=True)]
    rows[40] = f"{dates[40]},,51"
    Path("sales.csv").write_text("\n".join(["date,shop,online", *rows]))
    words = ["train", "own_series.py", "--steps", "100", "--folder", "run", "--quiet", "--mesh", "data=1"]
    assert cli.main(words) == 0
    metrics = json.loads(Path("run/result.json").read_text())["metrics"]
    assert metrics["test/mase"] < 0.9 * metrics["test/seasonal_naive_mase"]
    kept = json.loads(Path("run/learned.json").read_text())
    assert abs(np.array(re.findall(r"[\d.]+", str(kept)), float) - 100).min() < 1  # the mean of the shop
    Path("sales.csv").rename("new.csv")  # what the run needs of its training data is in its folder
    words = ["predict", "run", "--table", "new.csv", "-o", "forecast.csv", "--mesh", "data=1"]
    assert cli.main([*words, "--horizon", "5", "--quiet"]) == 0
    lines = Path("forecast.csv").read_text().splitlines()
    assert lines[0] == "date,shop,online" and [line[:10] for line in lines[1:]] == [
        str(np.datetime64("2024-10-27") + n) for n in range(5)
    ]
    told = np.array([[float(x) for x in line.split(",")[1:]] for line in lines[1:]])
    season = np.sin(2 * np.pi * np.arange(300, 305) / 7)[:, None] * [10, 4] + [100, 50]
    assert abs(told - season).mean() < 1.5
    assert Path("forecast.png").read_bytes()[:4] == b"\x89PNG"
    capsys.readouterr()
    assert cli.main([*words, "--horizon", "8"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "got a horizon of 8 steps; expected 1 to 7, those that the model was trained" in said
