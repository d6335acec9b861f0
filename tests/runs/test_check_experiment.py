"""A wrongly composed experiment is answered in one message: what was got, what was expected, what to do."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import flax.linen as nn
import numpy as np
import pytest
from files import tiny_mlp

import jaxmodels
from jaxmodels import Evaluation, Experiment, cli, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.options import Options
from jaxmodels.pipeline import Pipeline
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.regress import regress
from jaxmodels.training import runner

pytestmark = pytest.mark.fast

PARTS = re.compile(r"(?s)\bgot\b.+;.*\bexpected\b.+\. \S")
X, Y = np.ones((8, 4), np.float32), np.arange(8, dtype=np.int32) % 2
MODEL = MLP(hidden=(4,), outputs=2)
TRAIN = ArrayPipeline({"x": X, "label": Y}, batch=8)


def run(**changes):
    parts = {"task": classify(MODEL, inputs="x"), "optimizer": optim.sgd(0.1), "train": TRAIN, "steps": 2}
    return runner.run(Experiment(**{**parts, **changes}), Options(mesh="data=1"))


def data(batch=8, **arrays):
    return ArrayPipeline(arrays, batch=batch)


class Positions(nn.Module):
    """Three outputs for each position."""

    @nn.compact
    def __call__(self, x, keys=None):
        return nn.Dense(3)(x[..., None])


class Single(nn.Module):
    """One number."""

    @nn.compact
    def __call__(self, x, keys=None):
        return nn.Dense(1)(x)[:, 0]


class Endless(Pipeline):
    """Data without an end, which does not say what a pass is."""

    batch, spec = 8, {}

    def rows(self, step, start, stop):
        return {}


WRONG = {  # what is wrong, and words of the message
    "a model for a task": ({"task": MODEL}, "task: got a MLP; expected a jaxmodels.Task. Wrap the model"),
    "a task's function": ({"task": classify}, "task: got the function classify itself"),
    "no task": ({"task": None}, "task: got None"),
    "a class of an optimizer": (
        {"optimizer": optim.Averaging},
        "optimizer: got the class Averaging itself; expected one of optax",
    ),
    "a function of optim": ({"optimizer": optim.adam}, "optimizer: got the function adam itself"),
    "a rate": ({"optimizer": 1e-3}, "optimizer: got a float"),
    "arrays": ({"train": {"x": X}}, "train: got a dict; expected a pipeline. Put arrays into"),
    "a class of data": ({"train": ArrayPipeline}, "train: got the class ArrayPipeline itself"),
    "one array": ({"train": X}, "train: got a ndarray of numpy"),
    "an object like a pipeline": (
        {"train": SimpleNamespace(batch=8, steps=1, spec={}, rows=print)},
        r"train: got a SimpleNamespace.*subclass jaxmodels\.pipeline\.Pipeline\.",
    ),
    "a pipeline without steps": (
        {"train": Endless()},
        "train: got a Endless.* without steps; expected batch, steps and spec. Set steps",
    ),
    "a list of batches": ({"train": [{"x": X}]}, "train: got a list"),
    "a float of steps": ({"steps": 100.0}, r"steps: got 100.0 \(float\); expected a whole number"),
    "text of steps": ({"steps": "2"}, r"steps: got '2' \(str\)"),
    "a bool of steps": ({"steps": True}, "steps: got True"),
    "half an interval": ({"eval_every": 0.5}, "eval_every: got 0.5"),
    "a float batch": ({"train": data(8.0, x=X, label=Y)}, r"train: got a batch of 8.0 \(float\)"),
    "evals a pipeline": (
        {"evals": TRAIN},
        "evals: got a ArrayPipeline; expected a dict of names. Write evals=",
    ),
    "evals a list": ({"evals": [TRAIN]}, "evals: got a list"),
    "evals of arrays": ({"evals": {"test": X}}, r"evals\['test'\]: got a ndarray"),
    "an evaluation of arrays": ({"evals": {"test": Evaluation({"x": X})}}, r"evals\['test'\]: got a dict"),
    "evals without names": ({"evals": {0: TRAIN}}, "evals: got the name 0; expected text"),
    "best a name": ({"best": "test/accuracy"}, "best: got 'test/accuracy'; expected a metric and max or min"),
    "inputs= forgotten": (
        {"task": classify(MODEL)},
        r"batch\['image'\]: got batches with 'label', 'weight', 'x'; .*inputs='x'",
    ),
    "inputs= of regress": (
        {"task": regress(MODEL), "train": data(data=X, target=X[:, :2])},
        r"batch\['features'\]: got .*inputs='data'",
    ),
    "labels": (
        {"train": data(x=X, labels=Y)},
        r"batch\['label'\]: got .*'labels'.*Rename 'labels' to 'label' in the data",
    ),
    "no label": (
        {"train": data(x=X)},
        r"batch\['label'\]: got .* 'weight', 'x'; expected 'label' .*\. Give",
    ),
    "labels in evaluation": (
        {"evals": {"test": data(x=X, labels=Y)}},
        r"batch\['label'\]: got .*Rename 'labels'",
    ),
    "no rows": ({"train": data(x=X[:0], label=Y[:0])}, "got 0 examples; expected one or more"),
    "no rows in evaluation": (
        {"evals": {"test": data(x=X[:0], label=Y[:0])}},
        "got 0 examples; expected one or more",
    ),
    "too few rows": (
        {"train": ArrayPipeline({"x": X, "label": Y}, batch=16, remainder="drop")},
        "got 8 examples",
    ),
    "a batch of none": ({"train": data(0, x=X, label=Y)}, "batch"),
    "outputs by position": (
        {"task": classify(Positions(), inputs="x")},
        r"got outputs of the shape \(N, 4, 3\); expected \(N, classes\)",
    ),
    "one output": (
        {"task": classify(Single(), inputs="x")},
        r"got outputs of the shape \(N,\); expected \(N, classes\)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_field_or_batch_is_said_in_one_message(what):
    changes, message = WRONG[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(**changes)
    assert PARTS.search(str(caught.value)) or what == "a batch of none", caught.value


def test_a_class_in_place_of_a_model_is_named_where_the_task_is_made():
    with pytest.raises(
        ValueError, match=r"got the class MLP itself; expected a model\. Make one: MLP\(\.\.\.\)"
    ):
        classify(MLP, inputs="x")


@pytest.mark.slow
def test_a_key_that_something_else_lacks_keeps_its_error():
    task = classify(MODEL, inputs="x")
    with pytest.raises(KeyError, match="mine"):
        run(task=task._replace(loss=lambda params, extra, batch, keys: {}["mine"]))


FILE = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify

@dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 0.1

def build(config):
    train = ArrayPipeline({"x": np.ones((8, 4), np.float32), "label": np.zeros(8, np.int32)}, batch=8)
    CHANGE
    task = classify(MLP(hidden=(4,), outputs=2), inputs=inputs)
    return Experiment(task=task, optimizer=optim.sgd(config.lr), train=train, steps=2)
"""


MISTAKES = {
    "inputs = 'image'": "batch['image']: got batches with",
    "return": "got NoneType from build(config)",
    "train = inputs = 'x'": "got a str",
}
TAKING = [
    (command, change)
    for command in ("train", "find-rate", "find-batch", "plan", "sweep", "verify-resume")
    for change in MISTAKES
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "change"), TAKING[:-8] + TAKING[-6:])  # plan builds as the others do
def test_every_command_that_takes_a_file_says_so(tmp_path, monkeypatch, capsys, command, change):
    said = MISTAKES[change]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text(FILE.replace("CHANGE", change))
    words = {
        "sweep": ["--lr", "0.1,0.2"],
        "plan": ["--on", "cpu:1", "--compile", "off"],
        "find-batch": ["--knob", "lr"],
    }
    words["verify-resume"] = ["--every", "1"]
    status = cli.main(
        [command, "x.py", *words.get(command, ["--mesh", "data=1"] if command == "train" else [])]
    )
    error = capsys.readouterr().err
    assert status == 2 and (said in error or command == "find-batch"), error
    assert "Traceback" not in error


def test_a_knob_that_is_no_number_is_refused(capsys, tmp_path):
    with pytest.raises(ValueError, match=r"knob lr of .*: got nan; expected a number"):
        jaxmodels.train(tiny_mlp.__file__, lr=math.nan, folder=str(tmp_path / "r"))
    assert cli.main(["train", tiny_mlp.__file__, "--lr", "nan", "--folder", str(tmp_path / "r")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("predict", "RUN", "absent.png"),
        ("convert", "absent", "out"),
        ("convert", "absent.bin", "out"),
        ("generate", "absent", "--prompt", "x"),
        ("generate", "absent.bin", "--prompt", "x"),
        ("evaluate", "absent"),
        ("report", "absent"),
        ("watch", "absent"),
        ("tokenize", "absent", "out"),
    ],
    ids=" ".join,
)
def test_a_missing_file_is_bad_input(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "absent" in error or words[0] == "predict"
