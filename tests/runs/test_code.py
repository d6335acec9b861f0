"""Modules beside an experiment's file belong to its run, and never mix with another experiment's."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from jaxmodels import cli, evaluate, plan, predict, sweep, train
from jaxmodels.runs import experiment_file
from jaxmodels.runs.code import Code, read_beside
from jaxmodels.runs.files import BadFile
from jaxmodels.sweeps.extract import extract_member

EXPERIMENT = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.tasks.regress import regress
from mynet import WIDTH, net
import lib.data as data

@dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 0.1
    seed: int = 0

def build(config):
    from late import STEPS
    made = ArrayPipeline(data.arrays(), batch=8, seed=0)
    return Experiment(task=regress(net()), optimizer=optim.sgd(config.lr), train=made, evals={"test": made},
        steps=STEPS, seed=config.seed)
"""
FILES = {
    "exp.py": EXPERIMENT,
    "mynet.py": "from jaxmodels.models.mlp import MLP\nWIDTH = 12\ndef net():\n    return MLP((WIDTH,), 1)\n",
    "late.py": "STEPS = 4\n",
    "unused.py": "1 / 0\n",
    "lib/data.py": "from .more import ones\ndef arrays():\n"
    "    return {'features': ones(8, 3), 'target': ones(8)}\n",
    "lib/more.py": "import numpy as np\ndef ones(*shape):\n    return np.ones(shape, np.float32)\n",
}
IMPORTED = ["late.py", "lib/data.py", "lib/more.py", "mynet.py"]


def write(folder: Path, **changed: str) -> Path:
    for name, text in {**FILES, **changed}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "exp.py"


def width(run) -> int:
    return experiment_file.open_file(run)[0].module.WIDTH


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An experiment with four modules beside it; the working folder is another one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return write(tmp_path / "here")


def test_what_is_imported_is_copied_and_used_from_the_run_alone(file, tmp_path):
    before = (
        list(sys.path),
        {name for name in sys.modules if "mynet" in name and not name.startswith("jaxmodels_")},
    )
    first = train(file, folder="run", mesh="data=1")
    assert sorted(read_beside(Path("run"))) == IMPORTED
    assert (Path("run/code/mynet.py")).read_text() == FILES["mynet.py"]
    shutil.rmtree(file.parent)
    assert evaluate("run", mesh="data=1") == first.metrics
    assert (
        list(sys.path),
        {n for n in sys.modules if "mynet" in n and not n.startswith("jaxmodels_")},
    ) == before
    assert not list(Path("run").rglob("__pycache__"))


def test_an_edit_of_a_module_beside_it_is_another_experiment_and_shown(file):
    train(file, folder="run", mesh="data=1")
    write(file.parent, **{"mynet.py": FILES["mynet.py"].replace("12", "8"), "unused.py": "2 / 0"})
    with pytest.raises(ValueError, match="holds another experiment") as error:
        train(file, folder="run", mesh="data=1")
    assert "mynet.py, beside it:\n    -WIDTH = 12\n    +WIDTH = 8\n" in str(error.value)
    assert "the experiment's file" not in str(error.value) and "data.py" not in str(error.value)
    write(file.parent, **{"mynet.py": "# a remark\n" + FILES["mynet.py"]})
    assert train(file, folder="run", mesh="data=1").summary["exit"] == "complete"
    write(file.parent, **{"late.py": "STEPS = 6\n"})
    with pytest.raises(ValueError, match=r"late\.py, beside it:\n    -STEPS = 4\n    \+STEPS = 6"):
        train(file, folder="run", mesh="data=1")
    train(file, folder="run", mesh="data=1", force=True)
    assert read_beside(Path("run"))["late.py"] == "STEPS = 6\n"


@pytest.mark.fast
def test_modules_of_equal_names_never_mix(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", **{"mynet.py": "WIDTH = 99\nnet = None\n"})
    first, second, again = (experiment_file.load(path) for path in (one, two, one))
    assert [file.module.WIDTH for file in (first, second, again)] == [12, 99, 12]
    assert first.build(first.config()).steps == 4  # its import inside of build() is still its own
    assert first.module.net is not again.module.net


@pytest.mark.fast
def test_neither_the_working_folder_nor_a_module_beside_it_takes_the_place_of_what_is_installed(
    tmp_path, monkeypatch
):
    file = write(tmp_path / "here", **{"optax.py": "1 / 0", "json.py": "1 / 0", "jaxmodels.py": "1 / 0"})
    file.write_text("import json, optax, jaxmodels\n" + FILES["exp.py"])
    write(tmp_path / "there", **{"mynet.py": "1 / 0", "lib/data.py": "1 / 0"})
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.syspath_prepend(str(tmp_path / "there"))
    assert experiment_file.load(file).module.WIDTH == 12
    assert sorted(experiment_file.load(file).beside) == IMPORTED


@pytest.mark.fast
def test_a_script_in_the_same_folder_changes_nothing(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    import mynet

    monkeypatch.setitem(sys.modules, "mynet", mynet)
    made = experiment_file.load(file)
    assert sorted(made.beside) == IMPORTED and sys.modules["mynet"] is mynet
    del sys.modules["mynet"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import no_such_net",
            r"exp\.py: got an import of no_such_net; expected an installed package.* or put no_such_net\.py",
        ),
        (
            "import lib.absent",
            r"got an import of lib\.absent; expected a module of that name beside the file",
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_to_do(file, text, said):
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        experiment_file.load(file)


@pytest.mark.fast
def test_packages_and_relative_imports_and_stars(tmp_path):
    files = {
        "exp.py": "import pkg.deep.a, pkg\nfrom pkg.deep import b as c\n"
        "from . import side\nfrom both import *\n",
        "pkg/__init__.py": "from .deep import a\n",
        "pkg/deep/__init__.py": "",
        "pkg/deep/a.py": "from ..top import X\nimport side\n",
        "pkg/deep/b.py": "from pkg.top import X\n",
        "pkg/top.py": "X = object()\n",
        "side.py": "import pkg.deep.a\n",  # in a circle
        "both.py": "Y = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = Code(tmp_path / "exp.py")
    module = code.run()
    assert module.pkg.deep.a.X is module.c.X and module.Y == 3 and module.side.pkg is module.pkg
    assert sorted(code.beside()) == sorted(set(files) - {"exp.py"})


@pytest.mark.fast
@pytest.mark.parametrize("what", ["file", "folder", "code"])
def test_a_link_in_a_runs_code_is_refused(tmp_path, what):
    (tmp_path / "run" / "code" / "lib").mkdir(parents=True)
    (tmp_path / "run" / "knobs.json").write_text("{}")
    (tmp_path / "run" / "experiment.py").write_text("import mynet, lib.data")
    out = write(tmp_path / "out").parent
    for name in ("mynet.py", "lib/data.py", "lib/more.py"):
        shutil.copy(out / name, tmp_path / "run" / "code" / name)
    path = {"file": "code/mynet.py", "folder": "code/lib", "code": "code"}[what]
    shutil.rmtree(tmp_path / "run" / path, ignore_errors=True)
    (tmp_path / "run" / path).unlink(missing_ok=True)
    os.symlink(out / path.removeprefix("code").strip("/"), tmp_path / "run" / path)
    with pytest.raises(BadFile, match="got a link"):
        Code(tmp_path / "run" / "experiment.py").run()


def test_worker_processes_load_with_them(tmp_path):
    files = {
        "exp.py": "from dataclasses import dataclass\n"
        "from jaxmodels.data.grain_pipeline import GrainPipeline\n"
        "from mine import load\n@dataclass\nclass Config:\n    x: int = 1\ndef build(config): ...\n"
        "data = lambda: GrainPipeline([1, 2, 3, 4], batch=4, load=load, workers=1)\n",
        "mine.py": "import numpy as np\nfrom lib import twice\n"
        "def load(x):\n    return {'x': np.int32(twice(x))}\n",
        "lib.py": "def twice(x):\n    return 2 * x\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    data = experiment_file.load(tmp_path / "exp.py").module.data()
    try:
        assert data.rows(0, 0, 4)["x"].tolist() == [2, 4, 6, 8]
    finally:
        data.close()


def test_sweeps_their_members_and_plans_have_them_too(file):
    table = sweep(file, folder="swept", lr=[0.1, 0.2])
    assert [row["exit"] for row in table["members"]] == ["complete"] * 2
    assert sorted(read_beside(Path("swept"))) == IMPORTED
    shutil.rmtree(file.parent / "lib")
    made = extract_member("swept", "lr=0.1", "taken")
    assert sorted(read_beside(made)) == IMPORTED and evaluate(made, mesh="data=1")


def test_the_command_line_runs_them_where_it_is_started_from_elsewhere(file, capsys):
    assert cli.main(["train", str(file), "--folder", "run", "--mesh", "data=1", "--quiet"]) == 0
    assert cli.main(["train", "run/experiment.py", "--folder", "run", "--mesh", "data=1", "--quiet"]) == 0
    with pytest.raises(ValueError, match="gives no predictor"):
        predict("run", ["x"], mesh="data=1")
    assert width("run") == 12
    assert plan(file, on="cpu:1", compile="off")["forecast"]


@pytest.mark.fast
@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "in build"])
def test_a_module_beside_it_that_importlib_does_not_find_is_to_be_imported_by_a_statement(tmp_path, inside):
    line = "importlib.import_module('lonely')"
    text = "import importlib\n" + EXPERIMENT.replace(
        "import lib.data", f"{'' if inside else line}\nimport lib.data"
    )
    text = text.replace("    from late", f"    {line if inside else ''}\n    from late")
    with pytest.raises(
        ValueError, match=r"exp\.py: got an import of lonely by importlib; .* Write import lonely"
    ):
        file = experiment_file.load(write(tmp_path, **{"exp.py": text, "lonely.py": ""}))
        file.build(file.config())
