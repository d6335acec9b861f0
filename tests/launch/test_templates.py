"""Scripts for clusters: their syntax, and that they start what was asked for."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxmodels import cli, template
from jaxmodels.launch import cluster

pytestmark = pytest.mark.fast
DOCS = Path(__file__).parents[2] / "docs" / "cluster.md"


def lines(script: str) -> list[str]:
    """Commands of a shell script, each in one line."""
    return [line.strip() for line in script.replace("\\\n", " ").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("kind", ["slurm", "tpu"])
def test_shell_scripts_are_sound(kind):
    script = template(kind, "experiments/my file.py", ["--note", "it's $HOME; `x`"], nodes=4, gpus=8)
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=20)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_slurm_starts_a_process_for_each_gpu_with_the_words_as_they_were():
    script = template("slurm", "my file.py", ["--note", "it's"], nodes=4, gpus=8, folder="/shared/run")
    assert "#SBATCH --nodes=4\n" in script
    assert "#SBATCH --ntasks-per-node=8\n" in script
    [srun] = [line for line in lines(script) if line.startswith("srun ")]
    words = shlex.split(srun)
    assert words[words.index("jaxmodels") :] == [
        *("jaxmodels", "train", "my file.py", "--folder", "/shared/run", "--note", "it's")
    ]


def test_a_jobset_has_a_pod_for_each_process_and_all_know_where_process_0_is():
    made = yaml.safe_load(template("jobset", "experiments/gpt_python.py", nodes=3, gpus=2))
    [workers] = made["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (3, 3, "Indexed")
    [container] = job["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": 8, "memory": "32Gi", "nvidia.com/gpu": 2}
    words = shlex.split(container["command"][-1].replace('"$JOB_COMPLETION_INDEX"', "2"))
    found = cluster.find(words, {})
    # Pod i of job j of a JobSet is reachable as <jobset>-<replicated job>-<j>-<i>.<jobset>
    assert found == cluster.Cluster(
        "given", f"{made['metadata']['name']}-workers-0-0.{made['metadata']['name']}:8476", 2, 3
    )


def test_a_tpu_slice_is_removed_however_the_script_ends():
    script = template("tpu", "x.py", accelerator="v6e-16", zone="europe-west4-a")
    assert re.search(r"^trap 'gcloud compute tpus tpu-vm delete", script, re.MULTILINE)
    assert "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e" in script


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("pbs", {}, "got pbs; expected slurm, jobset or tpu"),
        ("slurm", {"nodes": 0}, "got nodes=0"),
    ],
)
def test_what_cannot_be_is_refused(kind, asked, said):
    with pytest.raises(ValueError, match=said):
        template(kind, "x.py", **asked)


@pytest.mark.parametrize("kind", ["slurm", "jobset", "tpu"])
def test_the_scripts_in_the_document_are_what_the_command_prints(kind, capsys):
    text = DOCS.read_text()
    command = re.search(rf"^    jaxmodels (template {kind} .*)$", text, re.MULTILINE)
    assert command
    assert cli.main(shlex.split(command[1])) == 0
    assert capsys.readouterr().out in text
