"""What 64 settings cost, 8 rates x 8 seeds: as one sweep, as single runs, and in a loop of PyTorch or Keras.

Everything is a process of its own, timed from its start to its end. Of the runs, and of the loops, some are
made and the rest extrapolated: a process with 9 members and one with 1 differ by what eight members cost.
`bare` is what the steps of one member take when nothing else is done, by the fastest program for it. Sweep,
runs and loops follow each other in rounds, and the figures are medians, since a machine's speed changes from
minute to minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np

RATES = ("1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "3e-3", "5e-3", "1e-2")
LOOPED = 8  # members of a loop beside its first; two drown in what a start differs by
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
# experiment, steps of a member, batch
KINDS = {"mlp": ("digits_mlp.py", 1500), "cnn": ("digits_cnn.py", 100), "gpt": ("gpt_python.py", 20)}
ROUNDS = {"mlp": 3, "cnn": 3, "gpt": 1}  # gpt's take a quarter of an hour
BATCH = {"mlp": 128, "cnn": 128, "gpt": 16}
LENGTH, WIDTH, DEPTH, HEADS = 128, 128, 4, 4  # of gpt_python.py


def wall(command: list[str], **environment: str) -> float:
    """Seconds of a process."""
    begun = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=3600
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - begun


def swept(kind: str, rates: tuple[str, ...], seeds: int, folder: Path) -> dict[str, Any]:
    """The sweep's own table, and the seconds of the whole process."""
    name, steps = KINDS[kind]
    command = [sys.executable, "-m", "jaxmodels", "sweep", str(EXPERIMENTS / name), "--lr", ",".join(rates)]
    command += ["--seed", f"0..{seeds - 1}", "--steps", str(steps), "--folder", str(folder), "--quiet"]
    seconds = wall(command)
    return {"seconds": seconds, **json.loads((folder / "result.json").read_text())}


def alone(kind: str, count: int) -> float:
    """Seconds of so many runs, each a process."""
    name, steps = KINDS[kind]
    total = 0.0
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "jaxmodels",
                "train",
                str(EXPERIMENTS / name),
                "--lr",
                RATES[3],
                "--seed",
                str(seed),
            ]
            total += wall([*command, "--steps", str(steps), "--folder", folder, "--quiet"])
    return total


def loop(peer: str, kind: str, members: int) -> float:
    """Seconds of a process that trains so many members one after the other."""
    return wall([sys.executable, __file__, "--loop", peer, kind, str(members)], KERAS_BACKEND="jax")


def bare(kind: str) -> float:
    """Seconds of a member's steps alone, one dispatch after the other, by the fastest of its programs."""
    done = subprocess.run(
        [sys.executable, __file__, "--bare", kind], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _bare(kind: str) -> None:
    import jax

    from jaxmodels.options import Options
    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.runs import experiment_file
    from jaxmodels.sweeps.grouping import Group
    from jaxmodels.sweeps.orders import TrialBatches
    from jaxmodels.sweeps.programs import GroupPrograms

    name, steps = KINDS[kind]
    file = experiment_file.load(EXPERIMENTS / name)
    config = file.config(steps=steps)
    programs = GroupPrograms(file, [config], Group((0,), ("lr",)), Options(), make_mesh(""))
    batches = TrialBatches([file.build(config)])
    _, k = programs.choose([config], batches, (steps,))
    (moving, which), values = batches(1, k), programs.values([config])
    times = []
    for _ in range(5):
        state = programs.start([config], [0])
        jax.block_until_ready(state)
        begun = time.perf_counter()
        for _ in range(steps // k):
            state, packed = programs.steps(values, state, moving, which, k)
            np.asarray(packed)  # a run fetches its metrics too
        times.append((time.perf_counter() - begun) * steps / (steps // k * k))
    print(sorted(times)[len(times) // 2])


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, labels) of the training split."""
    if kind == "gpt":
        from jaxmodels.data.datasets.python_source import python_source

        text = python_source("train")[: 1 << 20]
        windows = np.lib.stride_tricks.sliding_window_view(text, LENGTH + 1)[::LENGTH]
        return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)
    from jaxmodels.data.datasets.digits import digits

    arrays = digits("train", batch=1, seed=0).arrays
    return arrays["image"], arrays["label"].astype(np.int64)


def torch_loop(kind: str, members: int) -> None:
    """As a user writes it: eager, fused Adam, flushed denormals, all cores."""
    import torch
    from torch import nn

    torch.set_flush_denormal(True)
    x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in data(kind))
    steps, batch = KINDS[kind][1], BATCH[kind]
    for member in range(members):
        torch.manual_seed(member)
        if kind == "mlp":

            def hidden(a, b):
                return [nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.2)]

            model = nn.Sequential(nn.Flatten(), *hidden(64, 128), *hidden(128, 128), nn.Linear(128, 10))
        elif kind == "cnn":

            def block(a, b):
                return [
                    nn.Conv2d(a, b, 3, padding=1),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                ]

            head = [nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)]
            model = nn.Sequential(*block(1, 32), *block(32, 64), *head)
        else:
            layer = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
            )
            model = nn.Sequential(
                nn.Embedding(256, WIDTH), nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
            )
            model.append(nn.Linear(WIDTH, 256))
            mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        loss_of = nn.CrossEntropyLoss()
        order = torch.cat([torch.randperm(len(x)) for _ in range(steps * batch // len(x) + 1)])
        for n in range(steps):
            at = order[n * batch : (n + 1) * batch]
            inputs = x[at].permute(0, 3, 1, 2) if kind != "gpt" else x[at]
            if kind == "gpt":
                logits = model[2](model[1](model[0](inputs), mask=mask, is_causal=True)).flatten(0, 1)
            else:
                logits = model(inputs)
            loss = loss_of(logits, y[at].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def keras_loop(kind: str, members: int) -> None:
    """As a user writes it: a new model, compile and fit, for each member."""
    import keras
    from keras import layers

    x, y = data(kind)
    steps, batch = KINDS[kind][1], BATCH[kind]
    for member in range(members):
        keras.utils.set_random_seed(member)
        inputs = keras.Input(x.shape[1:])
        h: Any
        if kind == "mlp":
            h = layers.Flatten()(inputs)
            for _ in range(2):
                h = layers.Dropout(0.2)(layers.Dense(128, "relu")(h))
        elif kind == "cnn":
            h = inputs
            for features in (32, 64):
                h = layers.MaxPooling2D()(
                    layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(features, 3, padding="same")(h)))
                )
            h = layers.Dropout(0.3)(layers.Dense(128, "relu")(layers.Flatten()(h)))
        else:
            h = layers.Embedding(256, WIDTH)(inputs)
            for _ in range(DEPTH):
                z = layers.LayerNormalization()(h)
                h = h + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(z, z, use_causal_mask=True)
                z = layers.LayerNormalization()(h)
                h = h + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(z))
        model = keras.Model(inputs, layers.Dense(256 if kind == "gpt" else 10)(h))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)
        passes, left = divmod(steps, len(x) // batch)
        if passes:
            model.fit(x[: len(x) // batch * batch], y[: len(x) // batch * batch], batch, passes, verbose=0)
        if left:
            model.fit(x[: left * batch], y[: left * batch], batch, 1, verbose=0)


def extrapolated(seconds: Callable[[int], float], members: int, sample: int) -> float:
    """Seconds of so many members in one process, from one with a single member and one with `sample` more."""
    one, more = seconds(1), seconds(1 + sample)
    return one + (members - 1) * max(0.0, more - one) / sample


def compared(
    kind: str, rates: tuple[str, ...], seeds: int, peers: tuple[str, ...], sample: int
) -> dict[str, Any]:
    """One round: seconds of all members by each way, and of a member's steps."""
    members = len(rates) * seeds
    with tempfile.TemporaryDirectory() as folder:
        ours = swept(kind, rates, seeds, Path(folder) / "sweep")
    found = {
        "sweep": ours["seconds"],
        "compile": ours["compile_s"],
        "member": sum(m["train_s"] for m in ours["members"]) / members,
        "bare": bare(kind),
        "runs": alone(kind, sample) / sample * members,
    }
    for peer in peers:
        try:
            found[peer] = extrapolated(lambda n, peer=peer: loop(peer, kind, n), members, LOOPED)
        except RuntimeError as error:
            measure.note(f"  {peer}: {str(error).splitlines()[-1]}")
    measure.note("  " + "  ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test: the perceptron, four members")
    parser.add_argument("--kinds", default="mlp,cnn,gpt", help="which of mlp, cnn and gpt")
    parser.add_argument("--loop", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        peer, kind, members = args.loop
        return {"torch": torch_loop, "keras": keras_loop}[peer](kind, int(members))
    if args.bare:
        return _bare(args.bare)
    cases: dict[str, Any] = {}
    checks = []
    rates, seeds, sample = (RATES[:2], 2, 1) if args.quick else (RATES, 8, 2)
    members = len(rates) * seeds
    for kind in ("mlp",) if args.quick else args.kinds.split(","):
        measure.note(f"{kind}: {members} members, of which {sample} are run alone")
        peers = () if args.quick else ("torch", "keras")
        with measure.Watch() as watch:
            rounds = [
                compared(kind, rates, seeds, peers, sample) for _ in range(1 if args.quick else ROUNDS[kind])
            ]

        def of(a, b, rounds=rounds):
            return measure.spread([r[a] / r[b] for r in rounds if a in r])

        case = {
            "members": members,
            "steps": KINDS[kind][1],
            "seconds": {name: measure.spread([r[name] for r in rounds if name in r]) for name in rounds[0]},
            "member_over_bare": of("member", "bare"),
            "times_faster": {name: of(name, "sweep") for name in ("runs", *peers) if name in rounds[0]},
            "foreign": None if watch.foreign is None else measure.spread([watch.foreign]),
        }
        cases[kind] = case
        middle = {} if args.quick else {name: value["median"] for name, value in case["times_faster"].items()}
        value = None if args.quick else case["member_over_bare"]["median"]
        checks.append(measure.check(f"{kind}: a member of the sweep / its bare steps", value, most=1.05))
        if kind == "mlp":
            checks.append(measure.check("mlp: separate runs / the sweep", middle.get("runs"), least=20.0))
            checks.append(measure.check("mlp: a loop of PyTorch / the sweep", middle.get("torch"), least=5.0))
    measure.report("sweep", args.quick, cases, checks)


if __name__ == "__main__":
    main()
