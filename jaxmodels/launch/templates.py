"""Scripts that train an experiment's file on a cluster: Slurm, Kubernetes (JobSet) and Cloud TPU."""

from __future__ import annotations

import shlex

SAVE_S = 120  # seconds before its end in which a job is told to save


def slurm(name: str, train: str, nodes: int, gpus: int, cores: int, memory: str, hours: int) -> str:
    """A batch script for Slurm."""
    gpu = f"#SBATCH --gpus-per-node={gpus}\n" if gpus else ""
    return f"""\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus or 1}
#SBATCH --cpus-per-task={cores}
{gpu}#SBATCH --mem={memory}
#SBATCH --time={hours}:00:00
#SBATCH --signal=TERM@{SAVE_S}
#SBATCH --requeue
#SBATCH --open-mode=append

# One process for each GPU, as JAX expects it under Slurm; they find each other through srun's environment.
# SIGTERM saves, {SAVE_S} s before the time is up or at a preemption. Then, and where a process was lost
# (76, 134, 137) or stalled (75), the job goes back into the queue, to go on.
srun --kill-on-bad-exit=0 --cpus-per-task={cores} \\
    {train}
status=$?
case $status in
    75 | 76 | 134 | 137 | 143) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $status
"""


def jobset(
    name: str, train: str, nodes: int, gpus: int, cores: int, memory: str, hours: int, image: str, claim: str
) -> str:
    """A JobSet for Kubernetes."""
    amounts = [f"cpu: {cores}", f"memory: {memory}i" if memory[-1:] in "KMGT" else f"memory: {memory}"]
    amounts += [f"nvidia.com/gpu: {gpus}"] if gpus else []
    limits = "\n".join(" " * 22 + amount for amount in amounts)
    joining = (
        f'--coordinator {name}-workers-0-0.{name}:8476 --process "$JOB_COMPLETION_INDEX" --processes {nodes}'
    )
    alone = "" if nodes == 1 else f" {joining}"
    return f"""\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  failurePolicy:
    maxRestarts: 100  # all pods start again from the newest checkpoint, whichever was lost or stalled
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          parallelism: {nodes}
          completions: {nodes}
          completionMode: Indexed
          backoffLimit: 0
          activeDeadlineSeconds: {hours * 3600}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: {SAVE_S}  # SIGTERM to one pod saves in all
              containers:
                - name: train
                  image: {image}
                  workingDir: /work
                  command:
                    - sh
                    - -c
                    - |
                      exec {train}{alone}
                  resources:
                    limits:
{limits}
                  volumeMounts:
                    - name: work
                      mountPath: /work
              volumes:
                - name: work
                  persistentVolumeClaim:
                    claimName: {claim}  # ReadWriteMany: all pods write their part of a checkpoint
"""


def tpu(name: str, train: str, hours: int, accelerator: str, zone: str) -> str:
    """A script that creates a Cloud TPU slice, trains on it and deletes it."""
    create = f"--accelerator-type={shlex.quote(accelerator)} --runtime-version={_runtime(accelerator)}"
    return f"""\
#!/bin/bash
# A Cloud TPU slice of type {accelerator}: made, trained on by all its hosts at once, and removed.
# Its hosts find each other.
# The working folder has to be one that all of them share, such as a Filestore share or a bucket by gcsfuse.
set -u
name={name} zone={shlex.quote(zone)}

gcloud compute tpus tpu-vm create "$name" --zone="$zone" {create} || exit
trap 'gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet' EXIT
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \\
    --command="pip install 'jaxmodels[tpu]'" || exit

# SIGTERM before the time is up saves; a process lost (76, 134, 137) or a stall (75) is started again.
while true; do
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \\
        --command={shlex.quote(f"cd /work && timeout --signal=TERM {hours * 3600 - SAVE_S} {train}")}
    status=$?
    case $status in
        75 | 76 | 134 | 137) continue ;;
        *) exit $status ;;
    esac
done
"""


def _runtime(accelerator: str) -> str:
    known = {"v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5", "v6e": "v2-alpha-tpuv6e"}
    return known.get(accelerator.partition("-")[0], "tpu-ubuntu2204-base")
