"""A mesh for the devices that are there, and a run that goes on with fewer and more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from files import tiny_mlp
from instances import first

import jaxmodels
from jaxmodels import cli
from jaxmodels.parallel.mesh import fit_devices

fast = pytest.mark.fast
TESTS = Path(__file__).parents[1]


@fast
@pytest.mark.parametrize(
    ("mesh", "devices", "fitted"),
    [
        ("", 8, "data=8"),
        ("data=8", 4, "data=4"),
        ("data=4,fsdp=2", 4, "data=2,fsdp=2"),
        ("fsdp=2", 8, "data=4,fsdp=2"),
        ("data=8", 6, "data=4"),  # 8 rows do not divide by 5 or 6
        ("tensor=3,data=2", 8, "tensor=3,data=2"),
        ("data=1,tensor=16", 8, "data=1,tensor=16"),  # too few devices: said where the mesh is made
        ("data", 8, "data"),
    ],
)
def test_the_data_axis_takes_what_the_others_leave(mesh, devices, fitted):
    assert fit_devices(mesh, devices, [8, 16], use_all=False) == fitted


@fast
def test_many_processes_use_all_their_devices_or_are_refused():
    assert fit_devices("data=8", 6, [8], use_all=True) == "data=6"


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("train/loss", "test/loss") if name in line]


@pytest.mark.parametrize("fewer", first(1, [((4,),), ((4, 2),)]), ids=str)
def test_the_losses_of_a_run_on_8_then_fewer_then_8_devices_are_those_of_one_on_8(tmp_path, capsys, fewer):
    words = [
        tiny_mlp.__file__,
        "--folder",
        str(tmp_path / "run"),
        "--dropout",
        "0.1",
        "--elastic",
        "--mesh",
        "data=8",
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    assert cli.main(["train", *words, "--stop-at", "6"]) == 0  # on the eight devices of this process
    for devices, stop in zip(fewer, (12, 18), strict=False):
        command = [sys.executable, "-m", "jaxmodels", "train", *words, "--stop-at", str(stop)]
        env["JAX_NUM_CPU_DEVICES"] = str(devices)
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert f"on {devices} x cpu (data={devices}, jit)" in ended.stdout
    assert cli.main(["train", *words]) == 0
    assert capsys.readouterr().out.count("on 8 x cpu (data=8, jit)") == 2
    jaxmodels.train(tiny_mlp.__file__, folder=str(tmp_path / "whole"), dropout=0.1, mesh="data=8")
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "whole"), rtol=2e-5)
