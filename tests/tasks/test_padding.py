"""Padding of texts is no token: what follows a text in its row changes no logit, loss, metric or report."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.bucketing import TextPipeline, join
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.models.bert import Bert, Embedder, MaskedLM, SpanModel, TextClassifier, TokenClassifier
from jaxmodels.models.rnn import RNNClassifier
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.task import value
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.masked import masked
from jaxmodels.tasks.metric_learning import arcface, embeddings, triplet
from jaxmodels.tasks.regress import regress
from jaxmodels.tasks.token_classification import token_classification

pytestmark = pytest.mark.fast

V, K, KEY = 7, 3, jax.random.key(0)
TEXTS = [[3, 0, 5], [0], [6, 4, 0, 0, 2], [1, 2]]  # 0 is a token like the others
BERT = Bert(vocabulary=V, length=16, width=8, depth=1, heads=2, hidden_width=16)
MODELS = {
    "textcnn": TextCNN(V, K, width=4, windows=(2, 3), maps=5, dropout=0.0),
    "lstm": RNNClassifier(V, K, width=4, depth=2, bidirectional=True),
    "bert": TextClassifier(BERT, K),
    "mean of bert": Embedder(BERT),
}


def batch(length: int, filler: int = 0, **more) -> dict[str, np.ndarray]:
    """TextPipeline's batch of the texts, with `filler` for what follows them."""
    got = TextPipeline({**join(TEXTS), **more}, length=length, batch=4).rows(0, 0, 4)
    return {**got, "inputs": np.where(got["segments"] > 0, got["inputs"], filler)}


def paired(task, **more):
    """A task's metrics of the texts in short rows, and in long ones that other tokens fill."""
    short, long = batch(5, **more), batch(9, 6, **more)
    params, extra = task.init(KEY, short)
    one = jax.jit(task.evaluate)
    return {name: value(x) for name, x in one(params, extra, short).items()}, {
        name: value(x) for name, x in one(params, extra, long).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_padding_of_any_length_and_content_changes_no_logit(name):
    model = MODELS[name]
    short, long = batch(5), batch(9, 6)
    variables = jax.jit(model.init)(KEY, short["inputs"])
    apply = jax.jit(lambda x: model.apply(variables, x["inputs"], segments_BT=x["segments"]))
    got = np.asarray(apply(long))
    np.testing.assert_allclose(got, apply(short), rtol=1e-5, atol=1e-5)
    for row, text in zip(got, TEXTS, strict=True):  # as if each text were alone, without padding
        alone = model.apply(variables, jnp.asarray([text]))
        np.testing.assert_allclose(row, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [lambda m: classify(m, inputs="inputs"), lambda m: arcface(m, K, inputs="inputs")]
)
def test_a_label_does_not_depend_on_padding(make):
    short, long = paired(make(MODELS["textcnn"]), label=np.arange(4, dtype=np.int32) % K)
    assert long == pytest.approx(short, rel=1e-5)


@pytest.mark.slow
def test_regression_and_embeddings_do_not_see_it():
    model = MODELS["textcnn"]
    short, long = paired(regress(model, inputs="inputs"), target=np.ones((4, K), np.float32))
    assert long == pytest.approx(short, rel=1e-5)
    short, long = paired(triplet(model, inputs="inputs"), label=np.zeros(4, np.int32))
    assert long == pytest.approx(short, rel=1e-5)
    params = model.init(KEY, batch(5)["inputs"])["params"]
    got = [embeddings(model, inputs="inputs")(params, {}, x) for x in (batch(5), batch(9, 6))]
    np.testing.assert_allclose(*got, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_masked_tokens_are_chosen_among_the_texts_alone_and_at_the_same_positions():
    task = masked(MaskedLM(BERT), mask=1, vocabulary=V, rate=0.5)
    params, _ = task.init(KEY, batch(5))
    short, long = (jax.jit(task.evaluate)(params, {}, x)["loss"] for x in (batch(5), batch(9, 6)))
    assert float(short.weight) == float(long.weight) > 0
    assert value(long) == pytest.approx(value(short), rel=1e-5)
    everything = masked(MaskedLM(BERT), mask=1, vocabulary=V, rate=1.0)
    assert float(everything.evaluate(params, {}, batch(9, 6))["loss"].weight) == sum(map(len, TEXTS))


@pytest.mark.slow
def test_a_weight_for_each_text_counts_its_tokens_and_no_padding():
    task, x = token_classification(TokenClassifier(BERT, K)), batch(9, 6)
    x["label"] = np.ones_like(x["inputs"])
    params, _ = task.init(KEY, x)
    assert float(task.evaluate(params, {}, x)["accuracy"].weight) == sum(map(len, TEXTS))


@pytest.mark.slow
def test_answers_lie_in_texts():
    model, x = SpanModel(BERT), [batch(5), batch(9, 6)]
    variables = model.init(KEY, x[0]["inputs"])
    got = [model.apply(variables, b["inputs"], segments_BT=b["segments"])[:, :5] for b in x]
    real = x[0]["segments"] > 0
    np.testing.assert_allclose(got[0][real], got[1][real], rtol=1e-4, atol=1e-5)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, tokens_BT, keys_B=None):
        return nn.Dense(K)(nn.Embed(V, 4)(tokens_BT).mean(1))


@pytest.mark.slow
def test_a_model_that_would_read_padding_as_tokens_is_refused_in_words():
    task, x = classify(Plain(), inputs="inputs"), batch(5, label=np.zeros(4, np.int32))
    params, extra = task.init(KEY, x)
    with pytest.raises(
        ValueError, match=r'got a batch with "segments".* for Plain; expected .*segments_BT.* Do add'
    ):
        task.evaluate(params, extra, x)


@pytest.mark.slow
def test_files_of_text_say_where_they_end(tmp_path):
    for name, text in {"a/one.txt": b"\0\0b", "b/two.txt": b"longer than six"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(text)
    got = text_folder(tmp_path, length=6, batch=2).rows(0, 0, 2)
    assert got["segments"].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6] and got["segments"].dtype == np.int32
    whole = text_folder(tmp_path, length=6, batch=2, encode=lambda data: [5] * len(data)).rows(0, 0, 2)
    assert whole["segments"].tolist() == got["segments"].tolist()
