"""Random faults upon a small run: python tests/chaos.py --faults 200 --seed 0

Rounds of a run are trained to their end while seeded faults strike: SIGKILL and SIGTERM at any moment, a full
disk, and, between starts, changed bits, truncated, zeroed, lost and added files anywhere in the run's folder,
and checkpoints that are renamed, copied under another number or taken from another seed's run. After each
round the final parameters, the optimizer's state and the keys must be those of a run without faults, bit for
bit. A start may refuse in words; then it is started over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before JAX is there
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(Path(__file__).parents[1]))

from files import bare_jax
from listening import Listening
from states import leaves

from jaxmodels import Options
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.training import runner

STEPS, SAVE, KEEP = 24, 3, 3
SOURCE = Path(bare_jax.__file__).read_text()
LIVE = ("kill", "term", "full disk")
RESTING = ("flip", "truncate", "zero", "delete", "add", "rename", "copy", "foreign", "no environment")


def measured(self: Any, state: Any, events: Any) -> int:
    """Steps in a dispatch as a first start measures them; a later measurement would lead to other bits."""
    return 3 if int(state.step) == 0 else 2


def train(
    folder: Path | None, *, seed: int = 0, fresh: bool = False, on_step: Callable[[int], Any] | None = None
) -> Any:
    """One start of the run; gives its final state."""
    runner.WORTH, runner.measure_k = 1, measured  # type: ignore[misc]
    experiment = bare_jax.build(
        bare_jax.Config(seed=seed, steps=STEPS, save_every=SAVE, eval_every=8, log_every=4)
    )
    console, options = Listening(), Options(mesh="data=1")
    if folder is None:
        return runner.run(experiment, options, console=console).state
    opened = Folder(folder, keep=KEEP, warn=console.warn)
    try:
        opened.open(
            RunDefinition(SOURCE, {"seed": seed, "steps": STEPS}, {"precision": "float32"}), fresh=fresh
        )
        return runner.run(experiment, options, folder=opened, console=console, on_step=on_step).state
    finally:
        opened.close()


class Chaos:
    """Faults upon runs below a folder; report: kinds of faults, and what became of the starts after them."""

    def __init__(self, base: Path, seed: int, live: tuple[str, ...] = LIVE):
        self.base, self.draw, self.live = base, random.Random(seed), live
        self.report: Counter[str] = Counter()
        train(base / "other", seed=1)
        self.wanted = leaves(train(base / "whole"))

    def round(self, faults: int) -> None:
        """Trains to the end through n faults; raises AssertionError where the final state differs."""
        folder = self.base / "run"
        shutil.rmtree(folder, ignore_errors=True)
        history: list[str] = []
        self._start(folder, history, stop=self.draw.randint(2, STEPS - 2))
        for _ in range(faults):
            kind = self.draw.choice((*self.live, *RESTING))
            history.append(kind)
            self.report[kind] += 1
            if kind in LIVE:
                {"kill": self._kill, "term": self._term, "full disk": self._full}[kind](folder, history)
            else:
                history[-1] += f" {self._damage(kind, folder)}"
                if self.draw.random() < 0.5:  # else another fault meets the same files
                    self._start(folder, history, stop=self.draw.randint(2, STEPS))
        state = self._start(folder, history)
        for name, x in leaves(state).items():
            assert x.tobytes() == self.wanted[name].tobytes(), f"SILENT DIFFERENCE in {name} after {history}"
        self.report["rounds that ended bit for bit"] += 1

    def _start(
        self, folder: Path, history: list[str], stop: int = 0, on_step: Callable[[int], Any] | None = None
    ) -> Any:
        """Starts the run, to be stopped after a step; starts over if refused. The final state, or None."""

        def stopping(n: int) -> None:
            if on_step is not None:
                on_step(n)
            if 0 < stop <= n < STEPS:
                os.kill(os.getpid(), signal.SIGTERM)

        for fresh in (False, True):
            try:
                return train(folder, fresh=fresh, on_step=stopping)
            except runner.Interrupted:
                self.report["stopped in order"] += 1
                return None
            except (ValueError, OSError) as error:
                plain = type(error).__module__.startswith("jaxmodels") or type(error) in (ValueError, OSError)
                assert plain and len(str(error)) > 20, f"no words: {error!r} after {history}"
                assert not fresh, f"refused even with fresh: {error!r} after {history}"
                self.report["refused in words"] += 1
                history.append("fresh")
        raise AssertionError("not reached")

    def _term(self, folder: Path, history: list[str]) -> None:
        self._start(folder, history, stop=self.draw.randint(1, STEPS))

    def _full(self, folder: Path, history: list[str]) -> None:
        """The disk has no room for some of the checkpoints."""
        real, room = Checkpoints._check_room, self.draw.randint(1, 4)

        def check(checkpoints: Checkpoints, state: Any) -> None:
            nonlocal room
            room -= 1
            if room == 0:
                raise OSError(28, "No space left on device")
            real(checkpoints, state)

        Checkpoints._check_room = check  # type: ignore[method-assign]
        try:
            self._start(folder, history, stop=self.draw.randint(4, STEPS))
        finally:
            Checkpoints._check_room = real  # type: ignore[method-assign]

    def _kill(self, folder: Path, history: list[str]) -> None:
        """A process of its own is killed at any moment after it has begun to save."""

        def entries():
            return {p.name for p in (folder / "checkpoints").glob("*")}

        before = entries()
        words = [sys.executable, __file__, "--child", str(folder)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while process.poll() is None and entries() == before and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(self.draw.uniform(0, 0.2))
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (0, 2, -signal.SIGKILL), f"{said.decode()[-800:]} after {history}"

    def _damage(self, kind: str, folder: Path) -> str:
        """Changes the folder at rest, and gives what was changed."""
        checkpoints = folder / "checkpoints"
        steps = [p for p in checkpoints.glob("*") if p.name.isdigit()]
        if kind == "no environment":
            (folder / "environment.json").unlink(missing_ok=True)
            return ""
        if kind in ("rename", "copy", "foreign") and steps:
            number = self.draw.randint(1, 2 * STEPS)
            target, source = checkpoints / str(number), self.draw.choice(steps)
            if kind == "foreign":
                source = self.draw.choice(
                    [p for p in (self.base / "other" / "checkpoints").glob("*") if p.name.isdigit()]
                )
                target = checkpoints / source.name
            if target == source:
                return "nothing"
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target) if kind == "rename" else shutil.copytree(source, target)
            return f"{source.name} to {target.name}"
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        path = self.draw.choice(files)
        content = path.read_bytes()
        if kind == "delete":
            path.unlink()
        elif kind == "add":
            path.with_name(f"{path.name}.more").write_bytes(content)
        elif kind == "truncate":
            path.write_bytes(content[: self.draw.randrange(len(content))])
        elif kind == "zero":
            path.write_bytes(bytes(len(content)))
        else:
            bit = self.draw.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
        return str(path.relative_to(folder))


def main() -> int:
    """Gives the exit status: 0 where nothing was silently wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        try:
            train(given.child, on_step=lambda _: time.sleep(0.02))
        except (ValueError, OSError) as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
        return 0
    begun, left = time.monotonic(), given.faults
    with tempfile.TemporaryDirectory(prefix="jaxmodels-chaos-") as base:
        chaos = Chaos(Path(base), given.seed)
        while left:
            faults = min(left, chaos.draw.randint(1, 5))
            chaos.round(faults)
            left -= faults
            print(f"{given.faults - left} of {given.faults} faults: {dict(chaos.report)}", flush=True)
    said = {"faults": given.faults, "seed": given.seed, "silent differences": 0, **chaos.report}
    print(json.dumps({**said, "seconds": round(time.monotonic() - begun)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
