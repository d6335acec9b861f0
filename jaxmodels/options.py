"""Where and how a run happens: the options of the commands. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where and how a run happens; none but precision changes its result beyond rounding."""

    mesh: str = ""
    """Devices by axis, as in data=8 or fsdp=2,tensor=4; by default all of them on data. data, fsdp and expert split the
    examples, fsdp also the state; tensor and pipeline split the model, context the sequence."""
    compile: Literal["jit", "pmap"] = "jit"
    """How the step is compiled: jit, or pmap with the batch split over all devices."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of parameters and activations inside the model; master parameters and updates keep their type."""
    remat: Literal["model", "none", "dots", "offload", "full"] = "model"
    """What the backward pass of a stack of blocks computes again: nothing, all but products with parameters (kept on the
    device, or offloaded to the host), or all; model leaves it to the model."""
    offload: Literal["nothing", "optimizer"] = "nothing"
    """What lies in the host's memory between updates."""
    accumulate: int = 1
    """Micro-batches that a batch is computed in, one after another."""
    steps_per_dispatch: int = 0
    """Steps in one compiled program; 0 measures what is worth it."""
    resident: Literal["auto", "on", "off"] = "auto"
    """Whether the whole data set lies on the device."""
    on_nan: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: stop and explain, or skip the batch and count."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 leaves it to the experiment."""
    keep: int = 0
    """Newest checkpoints that stay; 0 leaves it to the experiment."""
    stop_at: int = 0
    """Save and stop at this step, as SIGTERM would, with the schedule unchanged; 0 goes to the end."""
    stall_after: float = 0.0
    """Seconds without a step after which all stacks are printed and the run ends with status 75; 0 waits for ever."""
    elastic: bool = False
    """Let the mesh's data axis take the devices that are there: a run goes on with fewer or more of them."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where metrics go beside metrics.jsonl."""
    profile: str = ""
    """A trace of these steps, as 10:15, into the run's folder, and which operations of which modules take the time."""


@dataclass(frozen=True, kw_only=True)
class DistributedOptions:
    """How this process finds others to train with; Slurm, Open MPI, Kubernetes and Cloud TPU are detected."""

    coordinator: str = ""
    """The address of process 0, HOST:PORT."""
    process: int = -1
    """This process's number, from 0 on."""
    processes: int = 0
    """How many there are."""
    lost_after: float = 20.0
    """Seconds without a sign of life after which a process counts as lost, and the others stop with status 76."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """The run's folder."""

    folder: str = ""
    """The run's folder; by default runs/NAME, named after the file and the knobs given."""
    fresh: bool = False
    """Start over: the folder's old run is kept under another name."""
    force: bool = False
    """Go on in a folder that holds another experiment."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed."""

    json: bool = False
    """One JSON object on stdout; all else goes to stderr."""
    quiet: bool = False
    """Warnings and errors alone."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Which checkpoint of a run is used, and where."""

    step: int = -1
    """The checkpoint's step; -1 takes the best where the experiment names one, else the newest."""
    mesh: str = ""
    """Devices by axis, as in data=8; by default all of them on data."""
    precision: Literal["run", "float32", "bfloat16"] = "run"
    """Of parameters and activations inside the model; run takes that of the run."""


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """Where and how steps are tried, as for train."""

    mesh: str = ""
    """As for train."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """As for train."""
    remat: Literal["model", "none", "dots", "offload", "full"] = "model"
    """As for train."""
    accumulate: int = 1
    """As for train."""


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """How texts become tokens."""

    tokenizer: str | None = None
    """A tokenizer's file or folder; by default one is trained on the texts."""
    vocabulary: int = 8192
    """Tokens that the trained one knows."""
    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    """bpe works on bytes, so that no text is lost."""
    special: tuple[str, ...] = ()
    """Tokens such as "<|end|>" that the trained one knows first and never cuts."""
    pattern: str = "**/*.txt"
    """Which files of a folder are texts."""
    fraction: float = 0.1
    """Of the files, for validation."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which members there are, and what they are compared by."""

    search: Literal["grid", "random", "halton", "tpe", "halving", "hyperband", "pbt"] = "grid"
    """All combinations of the values, or --trials of them: drawn at random or evenly (Halton's sequence), or chosen by what
    those before came to (tpe); halving and hyperband stop the worse ones early, pbt lets the worst take over the best's
    states and changes their knobs."""
    trials: int = 0
    """How many settings are drawn; each is trained with every seed. Of tpe all that its study is to have."""
    draws: int = 0
    """The seed of what is drawn."""
    study: str = ""
    """The journal of tpe's study, a file that several computers may share; by default in the sweep's folder."""
    every: int = 0
    """Steps between generations of pbt; 0 is a tenth of all."""
    metric: str = ""
    """What members are compared by, as test/accuracy; by default the experiment's best, else the first accuracy."""
    goal: Literal["", "max", "min"] = ""
    """Whether much or little of it is wanted; by default its name says so."""
    on: Literal["", "local", "slurm", "ray"] = ""
    """Train in jobs: processes on this computer, Slurm's (submitit), or a Ray cluster's tasks; they share the folder."""
    workers: int = 2
    """Jobs that the members are split into."""
    resources: str = ""
    """What each job asks for: of Slurm what submitit knows, as in partition=gpu,time=60,gpus_per_node=1; of Ray num_cpus,
    num_gpus, memory; of local gpus_per_node."""
    folder: str = ""
    """The sweep's folder; by default runs/sweep-NAME."""
    take: str = ""
    """Makes a run's folder of this member, FILE being the sweep's folder, at --folder; runs the experiment.py in it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """As for train."""
    accumulate: int = 1
    """As for train."""
