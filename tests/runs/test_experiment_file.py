"""An experiment's file, and what is said of one that does not do."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from files import tiny_mlp

from jaxmodels import Experiment, train
from jaxmodels.runs import experiment_file

pytestmark = pytest.mark.fast

MLP = Path(tiny_mlp.__file__)
KNOBS = """
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 10
    lr: float = 0.1
    name: str = "x"
    flip: bool = False
    widths: tuple[int, ...] = (8, 8)
    clip: float | None = None
    extra: dict = field(default_factory=dict)

def build(config):
    return config
"""


@pytest.fixture
def write(tmp_path):
    def writing(text: str, name: str = "experiment.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return writing


def test_a_file_gives_its_knobs_and_its_experiment():
    file = experiment_file.load(MLP)
    config = experiment_file.make_config(file, {"steps": 5})
    assert experiment_file.knobs_of(config) == {**dataclasses.asdict(tiny_mlp.Config()), "steps": 5}
    experiment = file.build(config)
    assert isinstance(experiment, Experiment)
    assert experiment.steps == 5


def test_building_reads_no_data(write):
    path = write(MLP.read_text().replace('ArrayPipeline(arrays("train")', "ArrayPipeline(lambda: 1 / 0"))
    file = experiment_file.load(path)
    assert file.build(file.config()).train.batch == 8


# Files


def test_of_a_missing_file_the_nearest_is_named():
    with pytest.raises(
        ValueError,
        match=r"tiny_mpl\.py: got no such file; expected an experiment's file, nearest: .*tiny_mlp\.py",
    ):
        experiment_file.load(MLP.with_name("tiny_mpl.py"))


def test_in_a_missing_folder_the_experiments_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(MLP.parents[2])
    with pytest.raises(
        ValueError, match=r"got no such file; expected an experiment's file, nearest: .*experiments/"
    ):
        experiment_file.load(tmp_path / "absent" / "digits_mlp.py")


def test_where_there_is_no_python_file_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"x\.py: got no such file; .* holds no Python file"):
        experiment_file.load(tmp_path / "x.py")


def test_a_folder_is_no_experiment():
    with pytest.raises(
        ValueError, match=r"files: got a folder; expected an experiment's file, nearest: .*\.py"
    ):
        experiment_file.load(MLP.parent)


@pytest.mark.parametrize("content", [b"a: 1\n", b"\xff\xfe\x00"], ids=["text", "no text"])
def test_another_kind_of_file_is_no_experiment(tmp_path, content):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"x\.yaml: got no Python file; expected one with a dataclass Config"
    ):
        experiment_file.load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"got no function build; expected build\(config\)"),
        ("build = 3", "got no function build"),
        ("def build(config): ...", "got no dataclass Config; expected one with the experiment's knobs"),
        ("class Config: ...\ndef build(config): ...", "got no dataclass Config"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Config:\n    lr: float\n    steps: int\n   "
            " n: int = 1\n"
            "def build(config): ...",
            "got knobs without a default: lr, steps; expected a default for each",
        ),
    ],
    ids=["empty", "build is no function", "no Config", "Config is no dataclass", "no defaults"],
)
def test_what_a_file_lacks_is_said(write, text, said):
    path = write(text)
    with pytest.raises(ValueError, match=rf"{path.name}.*{said}"):
        experiment_file.load(path)


def test_what_build_gives_must_be_an_experiment(write):
    file = experiment_file.load(write(KNOBS))
    with pytest.raises(ValueError, match=r"got Config from build\(config\); expected a jaxmodels.Experiment"):
        file.build(file.config())


def test_an_error_in_the_file_itself_comes_up_as_it_is(write):
    with pytest.raises(ZeroDivisionError):
        experiment_file.load(write("1 / 0"))


# Knobs


def test_of_an_unknown_knob_the_nearest_is_named():
    with pytest.raises(
        ValueError,
        match=r"got no knob 'stesp'; expected one of seed, steps, batch, lr.* Did you mean 'steps'\?",
    ):
        train(MLP, stesp=3)


def test_a_knob_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(ValueError, match=r"got no knob 'zzz'; expected one of seed, steps"):
        train(MLP, zzz=3)


@pytest.mark.parametrize(
    ("knob", "value", "wanted"),
    [
        ("steps", "10", "int"),
        ("steps", 1.5, "int"),
        ("steps", True, "int"),
        ("lr", "fast", "float"),
        ("name", 3, "str"),
        ("flip", 1, "bool"),
        ("widths", 8, "tuple"),
        ("clip", "x", "float"),
    ],
)
def test_a_value_of_another_type_is_refused(write, knob, value, wanted):
    file = experiment_file.load(write(KNOBS))
    with pytest.raises(
        ValueError, match=rf"knob {knob} of .*: got {value!r} \({type(value).__name__}\); expected .*{wanted}"
    ):
        experiment_file.make_config(file, {knob: value})


def test_knobs_come_back_from_json_as_they_were(write):
    file = experiment_file.load(write(KNOBS))
    config = file.config(lr=2.0, widths=(4,), clip=None, flip=True)
    again = experiment_file.make_config(file, json.loads(json.dumps(experiment_file.knobs_of(config))))
    assert again == config


def test_a_whole_number_does_for_a_float(write):
    config = experiment_file.make_config(experiment_file.load(write(KNOBS)), {"lr": 1})
    assert isinstance(config.lr, float)


def test_a_run_is_named_after_its_file_and_what_was_changed(write):
    file = experiment_file.load(write(KNOBS))
    assert experiment_file.run_name(file, file.config()) == "experiment"
    name = experiment_file.run_name(file, file.config(lr=0.5, name="a/b c", widths=(1, 2)))
    assert re.fullmatch(r"experiment-lr=0\.5-name=a_b_c-widths=1,2-[0-9a-f]{6}", name)
    assert experiment_file.run_name(file, file.config(widths=(1, 2))) == "experiment-widths=1,2"


def test_an_experiment_has_no_knobs():
    with pytest.raises(ValueError, match="got lr for an Experiment; expected options alone"):
        train(tiny_mlp.build(tiny_mlp.Config()), lr=0.1)


@pytest.mark.parametrize("line", ["import jaxmodels.tuning", "from jaxmodels.optim import of_before"])
@pytest.mark.parametrize(
    ("wrote", "expected"),
    [("0.0.9", ValueError), ("0.0.9; rm -r x", ImportError), (["0.0.9"], ImportError), (None, ImportError)],
)
def test_a_run_of_a_version_with_other_modules_names_the_version(tmp_path, line, wrote, expected):
    (tmp_path / "experiment.py").write_text(line)
    if wrote:
        (tmp_path / "environment.json").write_text(json.dumps({"versions": {"jaxmodels": wrote}}))
    with pytest.raises(expected) as error:
        experiment_file.load(tmp_path / "experiment.py")
    assert ("pip install jaxmodels==0.0.9" in str(error.value)) == (expected is ValueError)
