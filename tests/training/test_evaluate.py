"""jaxmodels evaluate on what is not the run's own: other data, and weights from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from files import tiny_mlp
from safetensors.numpy import save_file

from jaxmodels import cli, evaluate, train
from jaxmodels.commands.evaluate import state_of_weights
from jaxmodels.runs import experiment_file
from jaxmodels.state import initial

IMAGES = """
from dataclasses import dataclass
from pathlib import Path
from jaxmodels import Experiment, optim
from jaxmodels.data.formats.images import image_folder
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify

@dataclass(frozen=True, kw_only=True)
class Config:
    where: str = ""

def build(config):
    train = image_folder(Path(config.where) / "train", size=4, batch=4, seed=0)
    def other(path):
        return image_folder(path, size=4, batch=4, classes=train.classes)
    return Experiment(task=classify(MLP((), 2)), optimizer=optim.adam(0.05), train=train, steps=30,
                      evals={"val": other(Path(config.where) / "val")}, other_data=other)
"""
TABLE = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.learned import learned
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.regress import regress

@dataclass(frozen=True, kw_only=True)
class Config:
    file: str = ""

def build(config):
    mean = learned("mean of x", lambda: float(read_csv(config.file)["x"].mean()))
    def table(path):
        def read():
            columns = read_csv(path)
            features = (columns["x"][:, None] - mean).astype("float32")
            return {"features": features, "target": columns["y"].astype("float32")}
        return ArrayPipeline(read, batch=4)
    return Experiment(task=regress(MLP((), 1)), optimizer=optim.sgd(0.1), train=table(config.file), steps=5,
                      other_data=table)
"""
TEXTS = """
from dataclasses import dataclass
from jaxmodels import Experiment, optim
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.tasks.classify import classify

@dataclass(frozen=True, kw_only=True)
class Config:
    where: str = ""

def build(config):
    train = text_folder(config.where, length=8, batch=4, seed=0)
    model = TextCNN(256, 2, width=4, windows=(2,), maps=3)
    return Experiment(task=classify(model, inputs="tokens"), train=train, steps=40,
                      optimizer=optim.adam(0.05),
                      other_data=lambda path: text_folder(path, length=8, batch=4, classes=train.classes))
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_images(folder: Path, **levels: list[int]) -> Path:
    image = pytest.importorskip("PIL.Image", reason="no pillow: pip install 'jaxmodels[data]'")
    for name, values in levels.items():
        (folder / name).mkdir(parents=True)
        for i, level in enumerate(values):
            image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_other_images_are_evaluated_with_the_runs_classes(tmp_path, capsys):
    for part in ("train", "val"):
        write_images(tmp_path / "data" / part, bright=[200, 220, 240], dark=[10, 30, 50])
    run = str(tmp_path / "run")
    train(write(tmp_path / "images.py", IMAGES), where=str(tmp_path / "data"), folder=run, mesh="data=1")
    other = write_images(
        tmp_path / "other", dark=[20, 25, 215]
    )  # one in three is labelled wrong, and there is no bright/
    shutil.rmtree(tmp_path / "data")  # what it was trained on is not needed
    assert cli.main(["evaluate", run, "--data", str(other), "--mesh", "data=1", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["other/accuracy"] == pytest.approx(2 / 3) and "val/accuracy" not in metrics


def test_another_table_is_prepared_as_the_runs(tmp_path):
    file = write(tmp_path / "train.csv", "x,y\n" + "".join(f"{x},{2 * x}\n" for x in range(10, 18)))
    run = str(tmp_path / "run")
    state = train(write(tmp_path / "table.py", TABLE), file=str(file), folder=run, mesh="data=1").state
    other = write(tmp_path / "other.csv", "x,y\n1,2\n3,5\n")
    file.unlink()
    [(kernel, bias)] = [(np.asarray(x["kernel"]), np.asarray(x["bias"])) for x in state.params.values()]
    error = (np.array([1, 3]) - 13.5) * kernel[0, 0] + bias[0] - np.array([2, 5])
    got = evaluate(run, data=other, mesh="data=1")
    assert got["other.csv/rmse"] == pytest.approx(float(np.sqrt((error**2).mean())), rel=1e-4)


def test_other_texts_are_evaluated_with_the_runs_classes(tmp_path):
    for i in range(4):
        write(tmp_path / "data" / "as" / f"{i}.txt", "aaaa")
        write(tmp_path / "data" / "bs" / f"{i}.txt", "bbbb")
    run = str(tmp_path / "run")
    train(write(tmp_path / "texts.py", TEXTS), where=str(tmp_path / "data"), folder=run, mesh="data=1")
    write(tmp_path / "other" / "bs" / "1.txt", "bbbb")
    shutil.rmtree(tmp_path / "data")
    assert evaluate(run, data=tmp_path / "other", mesh="data=1")["other/accuracy"] == 1.0


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of tiny_mlp, which reads neither other data nor weights."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    train(Path(tiny_mlp.__file__), folder=str(folder), mesh="data=1", steps=4)
    return folder


def test_an_experiment_that_reads_nothing_else_says_what_to_add(plain):
    with pytest.raises(
        ValueError, match=r"got --data x.csv, and its build\(\) gives no other_data; expected .*Add it"
    ):
        evaluate(plain, data="x.csv")
    with pytest.raises(
        ValueError, match=r"got --weights x.th, and build\(\) gives no `weights`; expected .*Add it"
    ):
        evaluate(plain, weights="x.th")
    with pytest.raises(
        ValueError, match=r"got an experiment's file without weights; expected a run's folder, or a file with"
    ):
        evaluate(tiny_mlp.__file__)


WEIGHTS = """
from types import SimpleNamespace
from safetensors.numpy import load_file
def read(path):
    x = load_file(path)
    names = sorted({name.split(".")[0] for name in x})
    params = {n: {k: x[f"{n}.{k}"] for k in ("kernel", "bias")} for n in names}
    return SimpleNamespace(params=params, extra={})
"""


def with_weights(folder: Path) -> Path:
    source = Path(tiny_mlp.__file__).read_text()
    source = source.replace("\n\n@dataclass", WEIGHTS + "\n\n@dataclass", 1).replace(
        "    return Experiment(", "    return Experiment(\n        weights=read,"
    )
    return write(folder / "weighed.py", source)


def test_weights_are_evaluated_on_an_experiments_data_as_the_run_that_they_come_from(tmp_path, capsys):
    file = with_weights(tmp_path)
    trained = train(file, folder=str(tmp_path / "run"), mesh="data=1", hidden=6)
    arrays = {f"{n}.{k}": np.asarray(x) for n, of in trained.state.params.items() for k, x in of.items()}
    save_file(arrays, tmp_path / "x.safetensors")
    words = ["--weights", str(tmp_path / "x.safetensors"), "--mesh", "data=1", "--json"]
    assert cli.main(["evaluate", str(file), *words, "--hidden", "6"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == trained.metrics
    assert cli.main(["evaluate", str(tmp_path / "run"), *words]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == trained.metrics
    assert cli.main(["evaluate", str(file), *words]) == 2  # the knob is not that of the weights
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "got the parameters head/kernel (6, 1); expected (10, 1), as the experiment's model has (3 differ)"
        in said
    )


def test_knobs_belong_to_a_file(plain):
    with pytest.raises(ValueError, match="got knobs lr for a run; expected none"):
        evaluate(plain, knobs={"lr": 1.0})


def test_imported_weights_of_an_averaging_optimizer_are_evaluated_as_they_are(tmp_path):
    file = with_weights(tmp_path)
    file.write_text(
        file.read_text().replace(
            "optimizer=optim.sgd(rate, momentum=0.9)", "optimizer=optim.with_ema(optim.sgd(rate), 0.9)"
        )
    )
    module = experiment_file.load(file)
    experiment = module.build(module.config())
    params = initial(experiment).params
    save_file(
        {f"{n}.{k}": np.asarray(x) + 1 for n, of in params.items() for k, x in of.items()},
        tmp_path / "x.safetensors",
    )
    state = state_of_weights(experiment, tmp_path / "x.safetensors", "data=1")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b) + 1), state.params, params)
    assert state.opt_state == ()


def test_real_weights_fit_the_experiment_that_names_them(real):
    file = experiment_file.load(Path(__file__).parents[2] / "experiments" / "cifar_resnet20.py")
    path = real("weights") / "resnet_cifar10"
    state = state_of_weights(file.build(file.config()), path / "resnet20-12fca82f.th", "data=1")
    assert sum(x.size for x in jax.tree.leaves(state.params)) == 269_722  # as the repository states: 0.27 M
    with pytest.raises(ValueError, match="nothing in a CifarResNet uses"):
        state_of_weights(file.build(file.config()), path / "resnet32-d509ac18.th", "data=1")
