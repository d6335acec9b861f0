"""The published split of ETTh1; needs the real file."""

from __future__ import annotations

import numpy as np

from jaxmodels.data.datasets.ett import SERIES, etth1, standardised
from jaxmodels.data.formats.tables import read_csv


def test_the_parts_are_the_published_months_and_every_window_of_them(real):
    folder = real("ett")
    counts = {split: etth1(split, 100, folder=folder).order.n for split in ("train", "validation", "test")}
    assert counts == {"train": 8_209, "validation": 2_785, "test": 2_785}
    table = read_csv(folder / "ETTh1.csv")
    value = np.stack([table[name] for name in SERIES], 1).astype(np.float64)
    scaled = (value - value[:8_640].mean(0)) / value[:8_640].std(0)
    data = etth1("test", 100, folder=folder)
    last = data.rows(data.steps - 1, 0, 100)
    assert last["weight"][:, 0, 0].sum() == 2_785 % 100
    np.testing.assert_allclose(last["target"][84, -1], scaled[14_399], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        data.rows(0, 0, 1)["history"][0, 0], scaled[11_520 - 336], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(standardised("train", folder=folder).std(0), 1, rtol=1e-4)
