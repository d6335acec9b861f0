"""Omniglot's drawings; every test needs the real files."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.datasets.omniglot import ALPHABETS, SMALL1, characters, one_shot_runs

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def files(real, monkeypatch):
    pytest.importorskip("PIL", reason="needs pillow")
    monkeypatch.setenv("JAXMODELS_DATA", str(real("omniglot").parent))


@pytest.mark.slow
def test_each_character_is_drawn_once_by_each_of_twenty_people():
    got = characters(SMALL1)
    assert got["image"].shape == (136 * 20, 35, 35, 1) and got["image"].dtype == np.uint8
    pairs = set(zip(got["label"].tolist(), got["drawer"].tolist(), strict=True))
    assert pairs == {(label, drawer) for label in range(136) for drawer in range(20)}
    assert len(characters()["image"]) == 242 * 20
    of_label = {(a, k) for a, k in zip(got["alphabet"].tolist(), got["label"].tolist(), strict=True)}
    assert np.bincount([a for a, _ in sorted(of_label)]).tolist() == [24, 22, 24, 40, 26]


@pytest.mark.slow
def test_strokes_are_thin_and_bright():
    image = characters(SMALL1)["image"]
    assert 0.02 < image.mean() / 255 < 0.2 and image.max() == 255
    whole = characters(("Latin",), size=105)["image"]
    small = characters(("Latin",), size=35)["image"]
    np.testing.assert_allclose(whole.mean((1, 2)), small.mean((1, 2)), atol=0.5)


@pytest.mark.slow
def test_a_run_has_one_right_answer_for_each_drawing():
    runs = one_shot_runs()
    assert len(runs) == 20
    for run in runs:
        assert run.train.shape == run.test.shape == (20, 35, 35, 1)
        assert sorted(run.answer) == list(range(20))


@pytest.mark.slow
def test_no_drawing_of_the_runs_is_among_those_to_train_on():
    known = {image.tobytes() for image in characters(size=105)["image"]}
    for run in one_shot_runs(size=105):
        assert not known & {image.tobytes() for image in (*run.train, *run.test)}


def test_an_alphabet_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match=f"omniglot: got the alphabet 'Runes'; expected some of {ALPHABETS[0]}"
    ):
        characters(("Runes",))
