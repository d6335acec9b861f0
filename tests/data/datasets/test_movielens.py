"""MovieLens and the reviews of video games: what their files hold, counted by themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jaxmodels.data.datasets import movielens as ml
from jaxmodels.data.datasets import sasrec_video as video
from jaxmodels.data.interactions import history

FOLDER = Path(os.environ.get("JAXMODELS_DATA", "nowhere"))


def test_genres_and_the_decade_are_numbered_from_one():
    genres = [ml.GENRES.index(name) + 1 for name in ("Comedy", "Sci-Fi")]
    decade = len(ml.GENRES) + 1 + 9
    assert ml.attributes_of("A film (1995)", "Comedy|Sci-Fi") == [*genres, decade]
    assert ml.attributes_of("A series (1995– ) ", "(no genres listed)") == [decade]
    assert ml.attributes_of("1984", "Comedy") == genres[:1]
    assert decade <= ml.ATTRIBUTES


def test_without_the_files_the_error_says_which_and_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no ratings.csv, movies.csv; .*grouplens"):
        ml.movielens(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got no Video.txt.gz; .*SASRec"):
        video.sasrec_video(tmp_path)


@pytest.mark.skipif(not (FOLDER / "ml_latest_small").is_dir(), reason="needs ml_latest_small")
def test_the_ratings_are_those_of_its_readme():
    data = ml.movielens()
    assert (len(data.users), len(data.items), len(data.user_N)) == (ml.USERS, ml.ITEMS, ml.RATINGS)
    assert {*np.unique(data.rating_N)} == {n / 2 for n in range(1, 11)}
    assert (np.diff(data.time_N) >= 0).all() and history(data).of(0).size == 20
    movies = ml.movies(data.items)
    toy_story = movies.attributes_VA[data.items.index("1")]
    assert movies.titles[data.items.index("1")] == "Toy Story (1995)"
    assert [ml.GENRES[n - 1] for n in toy_story[:5]] == [
        "Adventure",
        "Animation",
        "Children",
        "Comedy",
        "Fantasy",
    ]
    assert 0 < movies.attributes_VA.max() <= ml.ATTRIBUTES and movies.attributes_VA[:, 0].min() >= 0


@pytest.mark.skipif(not (FOLDER / "sasrec_video").is_dir(), reason="needs sasrec_video")
def test_the_reviews_are_those_that_the_paper_counts():
    data = video.sasrec_video()
    assert (len(data.users), len(data.items), len(data.user_N)) == (31_013, 23_715, 287_107)
    assert history(data).of(0)[:3].tolist() == [6392, 13503, 14086]
