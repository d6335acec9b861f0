"""BANKING77 and SQuAD, read with a tokenizer of words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxmodels.data.datasets.banking77 import CLASSES, banking77, examples
from jaxmodels.data.datasets.squad import Question, Squad, answer_span, best_sentences, questions
from jaxmodels.tasks.question_answering import score


def words(text):
    """(tokens, letters): one token for each word and each mark; its number is its length."""
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    return [4 + end - begin for begin, end in spans], spans


def test_banking77_has_the_papers_counts(real):
    folder = real("banking77")
    for split, rows in (("train", 10_003), ("test", 3_080)):
        texts, label = examples(split, folder)
        assert len(texts) == len(label) == rows and set(label.tolist()) == set(range(CLASSES))
    assert (np.bincount(label) == 40).all()


def test_banking77_rows_are_the_tokens_and_padding(real):
    folder = real("banking77")
    data = banking77("test", 4, encode=lambda text: [1, *words(text)[0], 2], length=12, folder=folder)
    texts, label = examples("test", folder)
    batch = data.rows(0, 0, 4)
    for row, text, k, want in zip(batch["inputs"], texts, batch["label"], label, strict=False):
        tokens = [1, *words(text)[0], 2]
        assert row[row > 0].tolist() == (tokens if len(tokens) <= 12 else [*tokens[:11], 2])
        assert k == want
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


def test_squads_articles_are_divided_and_no_question_is_in_both(real):
    folder = real("squad11_dev")
    train, test = (questions(split, folder) for split in ("train", "test"))
    assert len(train) + len(test) == 10_570
    assert not {q.context for q in train} & {q.context for q in test}
    for question in test:
        for text, start in zip(question.answers, question.starts, strict=True):
            assert question.context[start : start + len(text)] == text


@pytest.fixture(scope="module")
def squad():
    return lambda folder, **options: Squad("test", encode=words, first=1, between=2, folder=folder, **options)


def test_the_answers_tokens_give_the_answers_text(real, squad):
    data = squad(real("squad11_dev"), length=128, stride=32)
    (arrays, letters), asked = data.windows(), data.questions()
    right, answered = 0, set()
    for i in np.flatnonzero(arrays["weight"]):
        question = asked[arrays["question"][i]]
        got = question.context[letters[i, arrays["start"][i], 0] : letters[i, arrays["end"][i], 1]]
        assert question.answers[0] in got
        right += got == question.answers[0]
        answered.add(question.id)
    assert right > 0.97 * arrays["weight"].sum()
    assert len(answered) > 0.99 * len(asked)


def test_windows_cover_every_token_of_the_context(real, squad):
    data = squad(real("squad11_dev"), length=128, stride=32)
    (arrays, letters), asked = data.windows(), data.questions()
    for number in range(0, len(asked), 97):
        rows = np.flatnonzero(arrays["question"] == number)
        seen = {tuple(span) for row in rows for span in letters[row][arrays["context"][row] > 0]}
        assert seen == set(words(asked[number].context)[1])


def test_right_predictions_score_100_and_the_surest_window_counts(real, squad):
    data = squad(real("squad11_dev"), length=384)
    arrays = data.windows().arrays
    sure = {"start": arrays["start"], "end": arrays["end"], "score": arrays["weight"]}
    assert score(data.texts([sure], [arrays]), data.answers())["exact_match"] > 97
    short = data.texts([{**sure, "end": sure["start"]}], [arrays])
    assert score(short, data.answers())["exact_match"] < 60


def test_a_squad_batch_is_described_by_its_spec(real, squad):
    data = squad(real("squad11_dev")).pipeline(4)
    batch = data.rows(0, 0, 4)
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


def test_an_answer_outside_its_window_has_no_span():
    question = Question("", "", "one two three", ("two three",), (4,))
    letters = np.array([[0, 3], [4, 7], [8, 13]])
    assert answer_span(letters, question) == (1, 2)
    assert answer_span(letters[:2], question) == answer_span(letters[2:], question) == (-1, -1)


def test_whole_sentences_are_a_weak_baseline(real, squad):
    folder = real("squad11_dev")
    got = score(best_sentences("test", folder), squad(folder).answers())
    assert got["exact_match"] < 5 and 10 < got["f1"] < 40


def test_unknown_splits_and_windows_without_room_are_refused():
    with pytest.raises(ValueError, match="got split='dev'; expected one of 'train', 'test'"):
        questions("dev")
    with pytest.raises(ValueError, match="windows of 64 tokens with stride=32"):
        Squad("test", encode=words, first=1, between=2, length=64, stride=32)
