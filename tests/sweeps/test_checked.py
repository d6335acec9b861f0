"""A sweep refuses what a run refuses, and its seeds are those of runs."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxmodels.commands.sweep import sweep
from jaxmodels.options import Options
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import experiment_file
from jaxmodels.state import initial
from jaxmodels.sweeps.grouping import Group
from jaxmodels.sweeps.programs import GroupPrograms

pytestmark = pytest.mark.fast

FILE = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks.classify import classify

@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    lr: float = 0.1
    kind: str = "good"
    where: str = "train"

def build(config):
    y = np.arange(16) % 3
    bad = {"good": y, "high": y + 1, "hot": np.eye(3)[y], "text": np.array(list("abc"))[y]}[config.kind]
    data = lambda label: ArrayPipeline({"features": np.ones((16, 2), np.float32), "label": label}, batch=8)
    train, test = (bad, y) if config.where == "train" else (y, bad)
    return Experiment(
        task=classify(MLP((), 3), inputs="features"), optimizer=optim.sgd(config.lr), train=data(train),
        evals={"test": data(test)}, steps=2, seed=config.seed,
    )
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.py").write_text(FILE)
    return tmp_path / "x.py"


@pytest.mark.parametrize("where", ["train", "test"])
@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (
            "high",
            "'label': got 3 in row 2 of the data; expected whole numbers from 0 to 2, the model's 3 classes",
        ),
        ("hot", "'label': got the shape (N, 3); expected (N,), the model's 3 classes"),
        ("text", "'label': got values of type <U1; expected numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(path, where, kind, got):
    with pytest.raises(ValueError, match=re.escape(got)):
        sweep(path, lr=[0.1, 0.2], kind=kind, where=where, folder=str(path.parent / "s"))


@pytest.mark.slow
def test_members_of_large_seeds_start_as_their_runs_alone(path):
    file, seeds = experiment_file.load(path), [0, 2**32 - 1, 2**32, 2**63 - 1]
    configs = [file.config(seed=seed) for seed in seeds]
    mesh = make_mesh("data=1", jax.devices()[:1])
    together = GroupPrograms(file, configs, Group((0, 1, 2, 3), ("lr",)), Options(), mesh).start(
        configs, seeds
    )
    kernels = together.params["head"]["kernel"]
    for i, seed in enumerate(seeds):
        alone = initial(dataclasses.replace(file.build(configs[0]), seed=seed))
        np.testing.assert_allclose(kernels[i], alone.params["head"]["kernel"], rtol=1e-6)
        assert np.array_equal(jax.random.key_data(together.key[i]), jax.random.key_data(alone.key))
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 4
