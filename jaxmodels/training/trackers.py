"""Where metrics go beside metrics.jsonl: TensorBoard's files, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import math
import secrets
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxmodels.console import Console
from jaxmodels.options import Options
from jaxmodels.parallel import processes
from jaxmodels.runs.files import read_text, write_text
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.metrics_file import Tracker, json_lines


def open_writers(
    options: Options, folder: Folder | None, console: Console, name: str, knobs: Mapping[str, Any]
) -> list[Tracker]:
    """Those that the options ask for, behind the folder's own, which checkpoints wait for."""
    if folder is None:
        if options.track:
            tracks = ", ".join(options.track)
            raise ValueError(f"track: got {tracks} without a folder; expected one. Give folder='runs/mine'")
        return []
    if not processes.first():
        return []
    trackers = [tracker(kind, folder.path, name, knobs) for kind in options.track]
    return [json_lines(folder.path / "metrics.jsonl", console.warn), *trackers]


def tracker(kind: str, folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """The tracker that an option names, for the run in this folder.

    One that is resumed goes on in the same record.
    """
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: tensorboard(folder / "tensorboard"),
        "wandb": lambda: wandb(folder / "wandb.id", name, config),
        "mlflow": lambda: mlflow(folder / "mlflow.id", name, config),
    }
    if kind not in makers:
        raise ValueError(f"--track {kind}: there is no such tracker; choose from {', '.join(makers)}")
    try:
        return makers[kind]()
    except ImportError as error:
        raise ValueError(
            f"--track {kind}: {kind} is not installed; pip install 'jaxmodels[{kind}]'"
        ) from error
    except Exception as error:
        raise ValueError(
            f"--track {kind} could not begin: {error}\nmend its settings, or leave it out"
        ) from error


def tensorboard(folder: Path) -> Tracker:
    """Scalars as TensorBoard event files, a new file for each start; what is written is on the disk.

    tensorboardX's own SummaryWriter hands events to a thread that a process's end cuts off, so its parts are
    used.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar

    folder.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
    begun = False

    def write(step: int, values: Mapping[str, float]) -> None:
        nonlocal begun
        if not begun:  # tells TensorBoard to forget what an earlier start wrote of steps from here on
            writer.write_event(
                Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
            )
            begun = True
        for name, value in values.items():
            writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        writer.flush()

    write.__qualname__ = "tensorboard"
    weakref.finalize(write, writer.close)
    return write


def wandb(record: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """Weights & Biases, by its own client and the settings in its own environment variables.

    record: the file that keeps the id under which the service knows the run.
    """
    client = importlib.import_module("wandb")
    if not record.exists():
        write_text(record, secrets.token_hex(8))
    id = read_text(record)
    run = client.init(
        project="jaxmodels", name=name, id=id, resume="allow", config=dict(config), dir=str(record.parent)
    )

    def write(step: int, values: Mapping[str, float]) -> None:
        run.log(dict(values), step=step)

    write.__qualname__ = "wandb"
    return write


def mlflow(record: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """MLflow, by its own client and the settings in its own environment variables; record as for wandb.

    The client is used without MLflow's active run, which belongs to one thread.
    """
    entities = importlib.import_module("mlflow.entities")
    client = importlib.import_module("mlflow").MlflowClient()
    if record.exists():
        id = read_text(record)
        client.update_run(id, status="RUNNING")
    else:
        found = client.get_experiment_by_name("jaxmodels")
        experiment = found.experiment_id if found else client.create_experiment("jaxmodels")
        id = client.create_run(experiment, run_name=name).info.run_id
        for knob, value in config.items():
            client.log_param(id, knob, value)
        write_text(record, id)

    def write(step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        finite = {metric: value for metric, value in values.items() if math.isfinite(value)}
        client.log_batch(id, [entities.Metric(metric, value, now, step) for metric, value in finite.items()])

    write.__qualname__ = "mlflow"
    weakref.finalize(write, client.set_terminated, id)
    return write
