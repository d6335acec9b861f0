"""Whether a process is one of several, from options and environment; and how a guard judges the others."""

from __future__ import annotations

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.cli.parsing import without
from jaxmodels.commands.launch import launch
from jaxmodels.launch import cluster, exit_statuses, supervisor
from jaxmodels.launch.cluster import Cluster
from jaxmodels.launch.supervisor import Guard, Peer

pytestmark = pytest.mark.fast

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "a[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, None),
        (STEP, "slurm"),
        ({**STEP, "SLURM_NTASKS": "1"}, None),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            {name: value for name, value in STEP.items() if name != "SLURM_STEP_NODELIST"},
            None,
        ),  # a batch script
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "tpu"),
    ],
)
def test_only_an_environment_of_several_processes_is_a_cluster(environ, kind):
    found = cluster.detect(environ)
    assert (found and found.kind) == kind


def test_kubernetes_is_asked_only_in_an_indexed_job_and_with_its_client(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name == "kubernetes")
    assert cluster.detect(POD) == Cluster("k8s")
    assert cluster.detect({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    assert cluster.detect(POD) is None


@pytest.mark.parametrize(("hosts", "kind"), [("a:1:10.0.0.1,b:2:10.0.0.2", "tpu"), ("a:1:10.0.0.1", None)])
def test_a_cloud_tpu_host_asks_its_metadata_server_how_many_there_are(monkeypatch, hosts, kind):
    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            right = (
                self.path.endswith("attributes/worker-network-endpoints")
                and self.headers["Metadata-Flavor"] == "Google"
            )
            self.send_response(200 if right else 404)
            self.end_headers()
            self.wfile.write(hosts.encode())

        def log_message(self, *words):
            pass

    monkeypatch.setattr(cluster, "_has_tpu", lambda: True)
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        found = cluster.detect({"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"})
    assert (found and found.kind) == kind
    assert cluster.detect({"GCE_METADATA_IP": "127.0.0.1:1"}) is None  # nobody answers


def test_options_go_before_the_environment():
    words = ["x.py", "--coordinator", "host:1234", "--process=1", "--processes", "2"]
    assert cluster.find(words, STEP) == Cluster("given", "host:1234", 1, 2)
    assert cluster.find(["x.py", "--lr", "0.1"], STEP) == Cluster("slurm")


def test_one_process_is_none():
    assert cluster.given("host:1234", 0, 1) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--coordinator", "host:1234"],
        ["--processes", "2"],
        ["--coordinator", "host", "--process", "0", "--processes", "2"],
        ["--coordinator", "host:1234", "--process", "2", "--processes", "2"],
        ["--coordinator", "host:1234", "--process", "-1", "--processes", "2"],
    ],
)
def test_options_that_do_not_make_a_cluster_are_refused_with_what_is_wanted(words):
    with pytest.raises(ValueError, match="expected all three: the address of process 0 as HOST:PORT"):
        cluster.find(words, {})


def test_a_process_of_its_own_has_no_guard():
    assert not supervisor.stand(["train", "x.py"])
    assert not supervisor.stand(["report", "x.py", "--processes", "2"])


def say(path: Path, **said) -> None:
    path.write_text(
        json.dumps({"process": 1, "host": "h", "pid": 5, "ended": None, **said}).ljust(supervisor.SIZE)
    )


def test_a_peer_is_silent_only_while_its_file_could_be_read_and_did_not_change(tmp_path):
    peer, path = Peer(1), tmp_path / "1"
    peer.look(path, 9.0)  # cannot be read
    assert peer.silent == 0.0
    say(path, beat=1)
    peer.look(path, 9.0)
    assert peer.silent == 0.0
    peer.look(path, 2.0)
    peer.look(path, 2.0)
    assert peer.silent == 4.0
    say(path, beat=2)
    peer.look(path, 2.0)
    assert peer.silent == 0.0
    assert peer.name == "process 1 (h, pid 5)"


def watching(tmp_path: Path, *ended: int | None) -> Guard:
    own = Guard(child=1, pipe=-1, lost_after=4.0)
    own.folder, own.peers = tmp_path, [Peer(i + 1) for i in range(len(ended))]
    (tmp_path / "0").touch()
    for i, status in enumerate(ended):
        say(tmp_path / str(i + 1), beat=1, ended=status)
    own._look()
    return own


@pytest.mark.parametrize("status", [*exit_statuses.ORDERLY, exit_statuses.PEER_LOST, None])
def test_a_peer_that_ended_in_order_or_for_want_of_another_is_not_to_blame(tmp_path, status):
    assert watching(tmp_path, status)._gone() is None


def test_the_process_that_failed_is_blamed_and_not_those_that_ended_for_want_of_it(tmp_path):
    own = watching(tmp_path, exit_statuses.PEER_LOST, 128 + signal.SIGKILL)
    assert own._gone().number == 2


def test_time_in_which_the_guard_itself_was_stopped_is_no_silence_of_others(tmp_path):
    own = watching(tmp_path, None)
    own.looked -= 1000.0
    own._look()
    assert own.peers[0].silent <= 2 * own.interval
    assert own._gone() is None
    for _ in range(5):
        own.looked -= 1000.0
        own._look()
    assert own._gone().number == 1


def test_launch_takes_its_own_options_out_of_the_command_line():
    words = ["--lr", "1", "--processes", "2", "--restarts=3", "--mesh", "data=2"]
    assert without(words, ["--processes", "--restarts"]) == ["--lr", "1", "--mesh", "data=2"]


def test_launch_refuses_what_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"got processes=0, .* expected at least one process"):
        launch(["x.py"], tmp_path, processes=0)


def test_a_process_that_fails_alone_says_so_in_the_option_that_is_wrong(capsys):
    assert cli.main(["train", "x.py", "--processes", "2"]) == exit_statuses.BAD_INPUT
    assert "expected all three" in capsys.readouterr().err
