"""Where and how a run happens: the options of training, and those that several commands share.

Imports nothing heavy, as help pages need these classes. A command's own options stand beside its function,
in jaxmodels.commands. Each class is a group of a help page; each line of a field's docstring is a line of
its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """The devices, and the precision on them."""

    mesh: str = ""
    """Devices by axis, as in data=8 or fsdp=2,tensor=4; by default all of them on data.
    The axes data, fsdp and expert split the examples, fsdp also the state.
    The axes tensor and pipeline split the model, context the sequence."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of parameters and activations inside the model; master parameters and updates keep their type."""


@dataclass(frozen=True, kw_only=True)
class SavingOptions:
    """When checkpoints are saved, and which are kept."""

    checkpoint_every: int = 0
    """Steps between checkpoints; 0 leaves it to the experiment."""
    keep: int = 0
    """How many of the newest checkpoints are kept; 0 leaves it to the experiment."""
    stop_at: int = 0
    """Save and stop at this step, as SIGTERM would, with the schedule unchanged; 0 trains to the end."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What takes memory, and how it is saved."""

    remat: Literal["model", "none", "dots", "offload", "full"] = "model"
    """What the backward pass of a stack of blocks rematerializes; model leaves it to the model.
    The policies are none (nothing), dots (all but products with parameters), full (everything), and
    offload (as dots, but the products are kept in the host's memory instead of the device's)."""
    offload: Literal["nothing", "optimizer"] = "nothing"
    """What is kept in the host's memory between updates."""
    accumulate: int = 1
    """Micro-batches that a batch is split into, computed one after another."""
    resident: Literal["auto", "on", "off"] = "auto"
    """Whether the whole data set is kept on the device."""


@dataclass(frozen=True, kw_only=True)
class CompilationOptions:
    """How the step is compiled."""

    compile: Literal["jit", "pmap"] = "jit"
    """By jit, or by pmap with the batch split over all devices."""
    steps_per_dispatch: int = 0
    """Steps in one compiled program; 0 measures what is fastest."""


@dataclass(frozen=True, kw_only=True)
class FailureOptions:
    """What happens when something fails."""

    on_nan: Literal["stop", "skip"] = "stop"
    """When a loss or gradient is not finite: stop and explain, or skip the batch and count it."""
    stall_after: float = 0.0
    """Seconds without a step after which all stacks are printed and the run ends with status 75; 0 never."""
    elastic: bool = False
    """Fit the mesh's data axis to the devices that exist: a run goes on with fewer or more of them."""


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """Where metrics go, and where time goes."""

    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that metrics are sent to, beside metrics.jsonl."""
    profile: str = ""
    """Trace these steps, as in 10:15, into the run's folder, and list the operations that take the time."""


@dataclass(frozen=True, kw_only=True)
class Options(
    TrackingOptions, FailureOptions, CompilationOptions, MemoryOptions, SavingOptions, DeviceOptions
):
    """Where and how a run happens; only precision changes its result beyond rounding."""


@dataclass(frozen=True, kw_only=True)
class DistributedOptions:
    """How this process finds others to train with; Slurm, Open MPI, Kubernetes and Cloud TPU are detected."""

    coordinator: str = ""
    """The address of process 0, HOST:PORT."""
    process: int = -1
    """This process's index, from 0."""
    processes: int = 0
    """How many processes there are."""
    lost_after: float = 20.0
    """Seconds without a sign of life after which a process is lost, and the others stop with status 76."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """The run's folder."""

    folder: str = ""
    """The run's folder; by default runs/NAME, named after the file and the knobs given."""
    fresh: bool = False
    """Start over; the folder's old run is kept under another name."""
    force: bool = False
    """Go on in a folder that holds another experiment."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed."""

    json: bool = False
    """Print one JSON object on stdout; everything else goes to stderr."""
    quiet: bool = False
    """Print only warnings and errors."""


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

    mesh: str = Options.mesh
    """Devices by axis, as in data=8; by default all of them on data."""
    precision: Literal["float32", "bfloat16"] = Options.precision
    """Of parameters and activations inside the model."""
    remat: Literal["model", "none", "dots", "offload", "full"] = Options.remat
    """What the backward pass of a stack of blocks rematerializes."""
    accumulate: int = Options.accumulate
    """Micro-batches that a batch is split into, computed one after another."""


# Groups that help pages show last.
RARE = (
    SavingOptions,
    MemoryOptions,
    CompilationOptions,
    FailureOptions,
    TrackingOptions,
    DistributedOptions,
)
