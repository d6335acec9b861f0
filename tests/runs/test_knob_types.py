"""Knobs of every type come through every command as they were given, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

from jaxmodels import cli, open_run, sweep, train
from jaxmodels.commands import verify_resume
from jaxmodels.runs import experiment_file
from jaxmodels.runs.knob_types import apart
from jaxmodels.sweeps import space

EXPERIMENT = """
from __future__ import annotations
import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.regress import regress

class Size(enum.Enum):
    SMALL = 8
    LARGE = 512

@dataclass(frozen=True)
class Model:
    depth: int = 1
    size: Size = Size.SMALL

@dataclass(frozen=True, kw_only=True)
class Config:
    size: Size = Size.SMALL
    model: Model = Model()
    data: Path = Path("a b/c.csv")
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    maybe: Optional[Size] = None
    either: int | float = 1
    table: dict[str, Size] = field(default_factory=dict)
    several: list[Path] = field(default_factory=list)
    anything: Any = None
    flag: bool = True

def build(config):
    assert isinstance(config.data, Path) and isinstance(config.model, Model)
    assert isinstance(config.pair[1], float)
    widths = (512 if config.size == Size.LARGE else 8,) * config.model.depth + config.sizes
    arrays = {"features": np.ones((8, 3), np.float32), "target": np.ones(8, np.float32)}
    made = ArrayPipeline(arrays, batch=8, seed=0)
    task = regress(MLP(widths, 1))
    return Experiment(task=task, optimizer=optim.sgd(0.01), train=made, evals={"test": made}, steps=2)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("knobs.py").write_text(EXPERIMENT)
    return "knobs.py"


def widths(run) -> list[int]:
    """Of the hidden layers that the run has trained."""
    kernels = [x for x in jax.tree.leaves(open_run(run, mesh="data=1")[1].params) if x.ndim == 2]
    return sorted({size for x in kernels for size in x.shape} - {1, 3})


def test_an_enum_on_the_command_line_is_what_is_trained_and_what_a_reader_builds(file, capsys):
    words = ["--folder", "run", "--mesh", "data=1", "--quiet"]
    given = [
        "--size",
        "LARGE",
        "--model.depth",
        "2",
        "--model.size",
        "LARGE",
        "--sizes",
        "16,16",
        "--data",
        "x/y",
        "--maybe",
    ]
    assert cli.main(["train", file, *given, "SMALL", *words]) == 0
    assert widths("run") == [16, 512]
    assert cli.main(["evaluate", "run", "--mesh", "data=1"]) == 0
    assert cli.main(["train", file, *given, "SMALL", *words]) == 0  # it is the same experiment
    assert cli.main(["train", file, *given, "LARGE", *words]) == 2
    assert "maybe: SMALL there, LARGE here" in capsys.readouterr().err
    kept = json.loads(Path("run/knobs.json").read_text())["knobs"]
    assert (
        kept["size"] == "LARGE" and kept["model"] == {"depth": 2, "size": "LARGE"} and kept["data"] == "x/y"
    )
    made, config = experiment_file.open_file("run")
    Size, Model = made.module.Size, made.module.Model
    assert config == made.config(
        size=Size.LARGE, model=Model(2, Size.LARGE), sizes=(16, 16), data=Path("x/y"), maybe=Size.SMALL
    )


def test_in_python_a_member_of_another_loading_of_the_file_is_the_same(file):
    other = experiment_file.load(file).module
    for size in (other.Size.LARGE, "LARGE"):
        train(file, folder=f"run-{type(size).__name__}", size=size, model=other.Model(depth=1), mesh="data=1")
        assert widths(f"run-{type(size).__name__}") == [512]


@pytest.mark.fast
@pytest.mark.parametrize(
    "knobs",
    [
        {"table": {"x": "LARGE"}, "several": ["a", "b/c"], "maybe": "LARGE"},
        {"pair": (3, 4), "either": 2, "kinds": ["b", "a"], "model": {"depth": 3}},
        {"either": 2.0, "anything": {"a": [1, None]}, "flag": False, "data": "x=1 y"},
    ],
    ids=repr,
)
def test_what_json_gives_back_is_what_was_given(file, knobs):
    made = experiment_file.load(file)
    config = experiment_file.make_config(made, knobs)
    again = experiment_file.make_config(made, json.loads(json.dumps(experiment_file.knobs_of(config))))
    assert again == config and repr(again) == repr(config)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("knob", "value", "wanted"),
    [
        ("size", "HUGE", "one of 'SMALL', 'LARGE'"),
        ("model", {"width": 3}, "Model"),
        ("model", {"depth": "3"}, "Model"),
        ("sizes", (1, "2"), "tuple"),
        ("pair", (1, 2, 3), "tuple"),
        ("kinds", ("c",), "tuple"),
        ("maybe", "HUGE", "Size"),
        ("data", 3, "Path"),
        ("table", {"x": "HUGE"}, "dict"),
        ("flag", 1, "bool"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(file, knob, value, wanted):
    with pytest.raises(ValueError, match=rf"knob {knob} of knobs\.py: got .*; expected .*{wanted}"):
        experiment_file.make_config(experiment_file.load(file), {knob: value})


@pytest.mark.fast
@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("x: Callable = print", "got the knob x of type Callable; expected int, .* Use a name or a number"),
        ("x: set[int] = field(default_factory=set)", r"got the knob x of type set\[int\]; expected"),
        ("x: tuple[object, ...] = ()", "got the knob x of type object; expected"),
        (
            "x: dict[int, int] = field(default_factory=dict)",
            r"got the knob x of type dict\[int, int\]; expected",
        ),
        ("x: int = 'a'", "got 'a' as the default of the knob x; expected a value of its type, int"),
        ("x: Any = print", "as the default of the knob x; expected a value of its type"),
        ("x: float = float('nan')", ""),
        ("x: float = 1", ""),
    ],
)
def test_a_type_that_a_run_could_not_give_back_is_refused_when_the_file_is_loaded(tmp_path, knob, said):
    path = tmp_path / "x.py"
    path.write_text(
        "from dataclasses import dataclass, field\nfrom typing import Any, Callable\n"
        f"@dataclass\nclass Config:\n    {knob}\ndef build(config): ...\n"
    )
    if not said:
        assert experiment_file.load(path)
        return
    with pytest.raises(ValueError, match=rf"x\.py: .*{said}"):
        experiment_file.load(path)


@pytest.mark.fast
def test_commas_part_lists_of_numbers_alone(file):
    config = experiment_file.load(file).config
    given = [
        "--sizes",
        "16,16",
        "--several",
        "a,b",
        "--sizes=1,2",
        "--kinds",
        "a,b",
        "--sizes",
        "1",
        "2",
        "--data",
        "a,b",
    ]
    wanted = [
        "--sizes",
        "16",
        "16",
        "--several",
        "a,b",
        "--sizes",
        "1",
        "2",
        "--kinds",
        "a",
        "b",
        "--sizes",
        "1",
        "2",
        "--data",
        "a,b",
    ]
    assert apart(given, config) == wanted


@pytest.mark.fast
def test_verify_resume_hands_every_knob_on(file):
    made = experiment_file.load(file)
    given = {
        "size": "LARGE",
        "model": {"depth": 2, "size": "LARGE"},
        "sizes": (1, 2),
        "flag": False,
        "table": {"x": "SMALL"},
    }
    flags = verify_resume.knob_flags(experiment_file.make_config(made, given), made)
    said = "--size LARGE --model.depth 2 --model.size LARGE --sizes 1 2 --table x SMALL --no-flag"
    assert flags == said.split()


def test_a_sweep_takes_names_and_lists_and_refuses_parts_of_a_knob(file, capsys):
    table = sweep(file, folder="swept", size="SMALL,LARGE", sizes="16,16", data="a,b")
    assert [row["name"] for row in table["members"]] == ["size=SMALL", "size=LARGE"]
    assert [row["exit"] for row in table["members"]] == ["complete"] * 2
    kept = json.loads(Path("swept/knobs.json").read_text())["knobs"]
    assert kept["sizes"] == [16, 16] and kept["data"] == "a,b"
    assert cli.main(["sweep", "swept", "--take", "size=LARGE", "--folder", "taken"]) == 0
    assert widths("taken") == [16, 512]
    assert cli.main(["sweep", file, "--size", "SMALL,HUGE"]) == 2
    assert "--size: got HUGE; expected a name of Size. Give one of SMALL, LARGE" in capsys.readouterr().err
    assert cli.main(["sweep", file, "--model.depth", "1,2"]) == 2
    assert (
        "--model.depth: got a field of the knob model, a dataclass; expected a plain knob"
        in capsys.readouterr().err
    )


@pytest.mark.fast
def test_several_lists_are_parted_by_semicolons():
    assert space.read("sizes", "16,16;32", tuple[int, ...]) == [(16, 16), (32,)]
