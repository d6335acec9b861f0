"""MovieLens: 100,004 ratings of 9,066 movies by 671 users (ml-latest-small of October 2016; GroupLens).

Ratings are from 0.5 to 5 stars. Licence: for research that is not commercial.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data import locate
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.interactions import Interactions, read_interactions

USERS, ITEMS, RATINGS = 671, 9_066, 100_004
LOWEST, HIGHEST = 0.5, 5.0
GENRES = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
DECADES = range(1900, 2020, 10)
ATTRIBUTES = len(GENRES) + len(DECADES)
MOST = 11  # attributes of a movie
WHERE = "https://grouplens.org/datasets/movielens (ml-latest-small of 10/2016)"
FILES: locate.Files = {
    "ratings.csv": (2338261, "b4239649fbf90ebf405c56c3ae1d929d9e7c86fc1a3a80cbef1c884df593ef73"),
    "movies.csv": (449264, "43d1736d3c688eb5b7856473c36d86a1c345676cab256c91720c1f6984d263b5"),
}


class Movies(NamedTuple):
    """What is known of each rated movie, in the order of Interactions.items."""

    titles: list[str]
    attributes_VA: np.ndarray
    """int32, V x MOST: genres and the decade, each as its index + 1 below ATTRIBUTES + 1; 0 is none."""


def movielens(folder: locate.PathLike | None = None) -> Interactions:
    """The ratings, with times in seconds since 1970.

    folder: the folder with ratings.csv and movies.csv; else $JAXMODELS_DATA/ml_latest_small, else
        ~/.cache/jaxmodels/data/ml_latest_small.
    """
    path = _checked(folder)
    return read_interactions(
        path / "ratings.csv", user="userId", item="movieId", rating="rating", time="timestamp"
    )


def movies(items: Sequence[str], folder: locate.PathLike | None = None) -> Movies:
    """Titles, and genres with the decade, of movies by id."""
    table = read_csv(_checked(folder) / "movies.csv")
    rows = {str(id_): n for n, id_ in enumerate(table["movieId"].tolist())}
    titles = [str(table["title"][rows[item]]) for item in items]
    attributes = np.zeros((len(items), MOST), np.int32)
    for n, (item, title) in enumerate(zip(items, titles, strict=True)):
        own = attributes_of(title, str(table["genres"][rows[item]]))
        attributes[n, : len(own)] = own
    return Movies(titles, attributes)


def attributes_of(title: str, genres: str) -> list[int]:
    """Indices + 1 of a movie's genres, and of the decade of the year in its title."""
    own = [GENRES.index(name) + 1 for name in genres.split("|") if name in GENRES]
    year = re.search(r"\((\d{4})\D*\)\s*$", title)
    if year and int(year[1]) // 10 * 10 in DECADES:
        own.append(len(GENRES) + 1 + DECADES.index(int(year[1]) // 10 * 10))
    return own


@cache
def _verified(path: Path) -> Path:
    locate.check(path, FILES, where=WHERE)
    return path


def _checked(folder: locate.PathLike | None) -> Path:
    return _verified(locate.folder("ml_latest_small", folder))
