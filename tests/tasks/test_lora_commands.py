"""Commands on a model whose task trains adapters: all but the task get the merged parameters."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from files import tiny_lora

import jaxmodels
from jaxmodels import cli, train
from jaxmodels.decoding import generate
from jaxmodels.step import eval_variables
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.lora import merge


def merged(run):
    """(experiment, parameters W + alpha / rank x a @ b by NumPy, from the checkpoint's averaged adapters)."""
    experiment, state, _ = jaxmodels.open_run(run, mesh="data=1")
    adapters, extra = eval_variables(experiment.optimizer, state)
    params = merge(extra["base"], adapters, tiny_lora.ALPHA / tiny_lora.RANK)
    (name, adapter), *_ = adapters.items()
    got, base = params, extra["base"]
    for part in name.split("/"):
        got, base = got[part], base[part]
    want = base + 3.0 * np.asarray(adapter["a"]) @ np.asarray(adapter["b"])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.abs(want - base).max() > 1e-3
    return experiment, params


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    train(tiny_lora.__file__, folder=str(folder), mesh="data=1")
    return folder


def test_predictions_scores_and_examples_are_the_merged_models(image_run, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    experiment, params = merged(image_run)
    inner = classify(tiny_lora.MLP_)
    data = {**tiny_lora.images(8), "weight": np.ones(8, np.float32)}
    assert inner.examine is not None
    probability_NK = np.asarray(inner.examine(params, {}, data)["probability"])
    accuracy = (probability_NK.argmax(1) == data["label"]).mean()
    said = jaxmodels.evaluate(image_run, mesh="data=1")
    assert accuracy > 0.8
    assert said["test/of_predictions"] == said["test/accuracy"] == pytest.approx(accuracy)
    image.fromarray(np.full((8, 8), 230, np.uint8)).save(tmp_path / "light.png")
    [one] = jaxmodels.predict(image_run, [tmp_path / "light.png"], mesh="data=1")
    assert experiment.predictor is not None
    grey = experiment.predictor.read(tmp_path / "light.png")["image"][None]
    logits = tiny_lora.MLP_.apply({"params": params}, grey)[0]
    want = np.exp(logits) / np.exp(logits).sum()
    assert one["class"] == tiny_lora.GREYS[want.argmax()]
    assert one["probability"] == pytest.approx(want.max(), abs=2e-4)


def test_a_report_of_its_examples_can_be_made(image_run, capsys):
    pytest.importorskip("plotly", reason="needs jaxmodels[report]")
    assert cli.main(["report", str(image_run), "--evaluate"]) == 0
    assert "onfusion" in (image_run / "report.html").read_text() and "examples" not in capsys.readouterr().err


def test_it_writes_what_the_merged_model_writes(tmp_path):
    train(tiny_lora.__file__, folder=str(tmp_path / "run"), mesh="data=1", kind="text")
    experiment, params = merged(tmp_path / "run")
    how = {"tokens": 4, "temperature": 0.0}
    [said] = jaxmodels.generate(tmp_path / "run", prompt="123", mesh="data=1", **how)
    [want] = generate(experiment.decoder, params, {}, ["123"], **how)
    assert said.text == want.text
    first = tiny_lora.GPT_.apply({"params": params}, jnp.asarray([[1, 2, 3]]))[0, -1].argmax()
    assert said.text[-4:][0] == f"{int(first):x}"
