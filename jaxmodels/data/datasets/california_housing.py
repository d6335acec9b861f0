"""California housing: the median house value of 20,640 districts in 1990 (Pace and Barry, 1997; Géron's
housing.csv).

Thirteen features: eight numbers, standardized, with missing total_bedrooms at their median, and
ocean_proximity one-hot. All statistics are those of the training rows. The target is the value in units of
SCALE dollars, so regress(model, scale=SCALE) reports the error in dollars. Values above 500,000 were
recorded as 500,001.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.order import permute
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.runs.learned import learned

SCALE = 100_000.0  # dollars
ROWS, TEST_ROWS, VALIDATION_ROWS = 20_640, 4_128, 3_303
KEY = 20250101  # of the split; not a knob, so that results can be compared
NUMBERS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
)
PUBLISHED = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
OCEAN = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")
SPEC = {
    "features": ((len(NUMBERS) + len(OCEAN),), np.dtype(np.float32)),
    "target": ((), np.dtype(np.float32)),
}
FILES: locate.Files = {
    "housing.csv": (1423529, "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e")
}
WHERE = "https://github.com/ageron/handson-ml2 (datasets/housing)"


def california_housing(
    split: Literal["train", "test"],
    batch: int,
    seed: int | None = None,
    *,
    folder: locate.PathLike | None = None,
) -> ArrayPipeline:
    """Batches of "features" (float32, 13) and "target" (float32, in units of SCALE dollars).

    split: four fifths of the rows to train, one fifth to test, always the same ones.
    folder: the folder with housing.csv; else $JAXMODELS_DATA/california_housing, else
        ~/.cache/jaxmodels/data/california_housing.
    """
    choices.check("california_housing", "split", split, ("train", "test"))
    return ArrayPipeline(
        lambda: _splits(locate.folder("california_housing", folder))[split], batch=batch, seed=seed, spec=SPEC
    )


def published_columns(
    folder: locate.PathLike | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(numbers N x 8, proximity N, target N in units of SCALE dollars) of "train", "validation" and "test".

    The numbers are PUBLISHED, those of scikit-learn's table, which divides rooms, bedrooms and population by
    the households; nan is missing. proximity: an index of OCEAN. 64, 16 and 20 percent of the rows; the last
    are those of california_housing.
    """
    parts = _read(locate.folder("california_housing", folder))
    order = permute(np.arange(ROWS - TEST_ROWS), ROWS - TEST_ROWS, KEY)
    held_out = np.sort(order[:VALIDATION_ROWS])
    fits = np.sort(order[VALIDATION_ROWS:])
    rows = {"train": ("train", fits), "validation": ("train", held_out), "test": ("test", slice(None))}

    def columns(part: dict[str, np.ndarray], i: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        longitude, latitude, age, rooms, bedrooms, population, households, income = part["numbers"][i].T
        averages = (rooms / households, bedrooms / households, population, population / households)
        numbers = np.stack([income, age, *averages, latitude, longitude], 1)
        return numbers, part["ocean"][i].argmax(1), part["target"][i]

    return {split: columns(parts[part], i) for split, (part, i) in rows.items()}


def linear_regression_rmse(folder: locate.PathLike | None = None) -> float:
    """The test error of linear least squares on the training rows: root mean squared, in dollars."""
    splits = _splits(locate.folder("california_housing", folder))
    design = {
        name: np.c_[x["features"], np.ones(len(x["target"]))].astype(np.float64) for name, x in splits.items()
    }
    weights = np.linalg.lstsq(design["train"], splits["train"]["target"].astype(np.float64))[0]
    error = design["test"] @ weights - splits["test"]["target"]
    return float(np.sqrt(np.mean(error**2))) * SCALE


def _splits(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of both splits, standardized."""
    parts = _read(folder)
    scales = learned("california_housing: scales", lambda: _scales(parts["train"]["numbers"]))
    median, mean, deviation = (np.array(scales[name]) for name in ("median", "mean", "deviation"))

    def arrays(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        numbers = np.where(np.isnan(part["numbers"]), median, part["numbers"])
        features = np.concatenate([(numbers - mean) / deviation, part["ocean"]], 1).astype(np.float32)
        return {"features": features, "target": part["target"]}

    return {split: arrays(part) for split, part in parts.items()}


@cache
def _read(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The numbers, nan where missing; ocean_proximity, one-hot; and the targets."""
    locate.check(folder, FILES, where=WHERE)
    table = read_csv(folder / "housing.csv")
    order = permute(np.arange(ROWS), ROWS, KEY)
    rows = {"test": np.sort(order[:TEST_ROWS]), "train": np.sort(order[TEST_ROWS:])}
    numbers = np.stack([table[name] for name in NUMBERS], 1).astype(np.float64)
    ocean = np.stack([table["ocean_proximity"] == name for name in OCEAN], 1)
    target = (table["median_house_value"] / SCALE).astype(np.float32)
    return {
        split: {"numbers": numbers[i], "ocean": ocean[i], "target": target[i]} for split, i in rows.items()
    }


def _scales(train: np.ndarray) -> dict[str, list[float]]:
    """Of the training rows: medians, and means and deviations with missing numbers at the medians."""
    median = np.nanmedian(train, 0)
    train = np.where(np.isnan(train), median, train)
    return {"median": median.tolist(), "mean": train.mean(0).tolist(), "deviation": train.std(0).tolist()}
