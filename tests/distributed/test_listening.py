"""What a command starts on this computer cannot be reached from another, by Linux's list of listeners."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed.listening import addresses, family
from files import slow_mlp

ROOT = Path(__file__).parents[2]
IN_RAY = """
import os, sys
from jaxmodels.sweeps import executors
with executors.open_executor("ray", None, "") as executor:
    folders = executor.ray.get(executor.ray.remote(lambda: (sys.path, os.getcwd())).remote())
    print("up", os.getcwd() in folders[0], flush=True)
    sys.stdin.read()
"""


def outside(found: set[str]) -> set[str]:
    """Of these addresses, those that are no loopback."""
    plain = {getattr(a, "ipv4_mapped", None) or a for a in map(ipaddress.ip_address, found)}
    return {str(a) for a in plain if not a.is_loopback}


def test_processes_of_launch_listen_at_this_computer_alone(tmp_path):
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    words = ["launch", slow_mlp.__file__, "--processes", "2", "--folder", str(tmp_path / "r"), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "jaxmodels", *words], env=env, stdin=subprocess.DEVNULL)
    found: set[str] = set()
    try:
        until = time.monotonic() + 120
        while (
            not (tmp_path / "r" / "metrics.jsonl").exists()
            and time.monotonic() < until
            and process.poll() is None
        ):
            found |= addresses(family(process.pid))
            time.sleep(0.1)
        found |= addresses(family(process.pid))
    finally:
        process.terminate()
        process.wait(120)
    assert found, "nothing listened: the processes did not meet"
    assert "::" not in found and "0.0.0.0" not in found
    own = {str(entry[4][0]) for entry in socket.getaddrinfo(os.uname().nodename, None)}
    assert outside(found) <= own  # Gloo's, which can be told nothing


@pytest.mark.thorough
def test_a_cluster_of_ray_that_a_sweep_begins_listens_at_this_computer_alone(tmp_path):
    pytest.importorskip("ray")
    if Path("/tmp/ray/ray_current_cluster").exists():
        pytest.skip("a cluster of Ray runs here")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    begun = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env, "cwd": tmp_path}
    with subprocess.Popen([sys.executable, "-P", "-c", IN_RAY], **begun) as process:
        assert process.stdout is not None and process.stdin is not None
        said = process.stdout.readline()
        found = addresses(family(process.pid))
        process.stdin.close()
        process.wait(120)
    assert said == "up False\n"
    assert found and not outside(found)
