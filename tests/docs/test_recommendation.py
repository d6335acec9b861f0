"""The page on recommendation: its file trains on a table, and recommends where the table is absent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.commands.recommend import recommend
from jaxmodels.inference.model import Model

PAGE = (Path(__file__).parents[2] / "docs" / "recommendation.md").read_text()
USERS, ITEMS = 30, 12


def rows() -> list[str]:
    """Half of the users like the first items, half the others; the last user came last."""
    random = np.random.default_rng(0)
    found = []
    for user in range(USERS):
        for item in random.permutation(ITEMS)[:8]:
            stars = 5 if (item < ITEMS // 2) == (user % 2 == 0) else 1
            time = 10**9 + int(random.integers(10**6)) + (10**7 if user == USERS - 1 else 0)
            found.append(f"u{user},i{item},{stars},{time}")
    random.shuffle(found)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page's file, a table, and a run that was trained with both."""
    folder = tmp_path_factory.mktemp("own")
    [(title, text)] = re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    (folder / title).write_text(text)
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating,time", *rows()]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = [
            "train",
            "own.py",
            "--table",
            "ratings.csv",
            "--folder",
            "run",
            "--mesh",
            "data=1",
            "--quiet",
        ]
        assert cli.main(command) == 0
    return folder


def test_newer_ratings_are_predicted_from_older_ones(folder):
    metrics = json.loads((folder / "run" / "result.json").read_text())["metrics"]
    assert metrics["validation/rmse"] < 1 < 1.9  # 2 is that of the mean


def test_the_command_shows_what_a_user_likes_and_has_not_had_though_the_table_is_gone(
    folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    Path("ratings.csv").rename("elsewhere.csv")
    try:
        assert cli.main(["recommend", "run", "--user", "u2", "--top", "2", "--json"]) == 0
    finally:
        Path("elsewhere.csv").rename("ratings.csv")
    said = json.loads(capsys.readouterr().out)
    assert (said["user"], said["cold"], len(said["items"])) == ("u2", False, 2)
    had = {line.split(",")[1] for line in rows() if line.startswith("u2,")}
    items = [row["item"] for row in said["items"]]
    assert not {*items} & had and int(items[0][1:]) < ITEMS // 2
    assert said["items"][0]["score"] >= said["items"][1]["score"]


def test_who_is_new_is_told_so_and_gets_the_most_frequent_items(folder, capsys):
    for user in ("nobody", f"u{USERS - 1}"):  # unknown, and known by later rows alone
        said = recommend(folder / "run", user=user, top=ITEMS, mesh="data=1")
        assert said["cold"] and said["items"][0]["score"] == max(row["score"] for row in said["items"])
    assert cli.main(["recommend", str(folder / "run"), "--user", "nobody", "--mesh", "data=1"]) == 0
    out = capsys.readouterr().out
    assert "most frequent items, as user nobody has no interactions" in out and "i" in out


def test_more_items_than_a_user_has_left_are_those_that_are_left(folder):
    had = sum(line.startswith("u3,") for line in rows())
    said = recommend(folder / "run", user="u3", top=ITEMS, mesh="data=1")
    assert ITEMS - had <= len(said["items"]) < ITEMS


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "got no user; expected a user's id"),
        (["--user", "u1", "--top", "0"], "top: got 0; expected a whole number from 1 to 12"),
        (["--user", "u1", "--top", "13"], "top: got 13; expected a whole number from 1 to 12"),
    ],
    ids=["nobody", "none", "too many"],
)
def test_what_cannot_be_asked_is_one_message(folder, capsys, words, text):
    assert cli.main(["recommend", str(folder / "run"), *words, "--mesh", "data=1"]) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_run_without_a_recommender_says_so(folder, monkeypatch):
    other = Model(folder / "run", {}, {})
    monkeypatch.setattr("jaxmodels.inference.load.load", lambda *args, **options: other)
    with pytest.raises(ValueError, match=r"gives no recommender; expected one"):
        recommend(folder / "run", user="u1")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (rows()[0], "in rows 1 and 241, and 0 more repetitions; expected each pair once"),
        ("u1,,3,5", "got no item in row 241"),
        ("u1,new,3,yesterday", "got a time of 'yesterday' in row 241; expected numbers"),
    ],
    ids=["twice", "no item", "a date"],
)
def test_a_fault_of_the_table_is_one_message(folder, capsys, monkeypatch, tmp_path, row, text):
    monkeypatch.chdir(folder)
    (tmp_path / "bad.csv").write_text("\n".join(["user,item,rating,time", *rows(), row]))
    words = ["--table", str(tmp_path / "bad.csv"), "--folder", str(tmp_path / "run"), "--mesh", "data=1"]
    assert cli.main(["train", "own.py", *words, "--quiet"]) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_run_does_not_go_on_with_users_that_it_did_not_begin_with(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    table = Path("ratings.csv").read_text()
    Path("ratings.csv").write_text(table + "\nnew,i1,3,1000000000")
    try:
        words = ["--table", "ratings.csv", "--folder", "run", "--mesh", "data=1", "--steps", "310", "--quiet"]
        assert cli.main(["train", "own.py", *words]) != 0
    finally:
        Path("ratings.csv").write_text(table)
    assert "got the user 'new'" in " ".join(capsys.readouterr().err.split())
