"""What defines a run, its code, knobs, options that change the result, and data; and how two runs differ."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmodels.runs import code, files, fingerprints, step_digest

LENGTHS = ("steps", "epochs")  # knobs that say how long a run is: a complete run may be made longer
LINES_SHOWN = 8  # of each file that differs


class RunDefinition(NamedTuple):
    """Two runs with the same definition are the same.

    beside: texts of the modules beside the experiment's file, see jaxmodels.runs.code. data: see
    jaxmodels.runs.fingerprints; data whose fingerprint is unknown differs from none. traced: of an
    Experiment without a file, see jaxmodels.runs.step_digest.
    """

    source: str
    knobs: Mapping[str, Any]
    options: Mapping[str, Any]
    beside: Mapping[str, str] = MappingProxyType({})
    data: Mapping[str, Any] = MappingProxyType({})
    traced: Mapping[str, str] = MappingProxyType({})

    @property
    def code(self) -> dict[str, str]:
        """The texts of all files that are code, by path in a run's folder."""
        beside = {f"{code.FOLDER}/{name}": text for name, text in self.beside.items()}
        return {"experiment.py": self.source, **beside}

    def files(self, longer: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
        """The contents of the files that hold it, by path in a run's folder; longer: see Folder."""
        knobs = _values(self)
        knobs |= {"longer": list(longer)} if longer else {}
        knobs |= {"data": dict(self.data)} if self.data else {}
        knobs |= {"traced": dict(self.traced)} if self.traced else {}
        texts = {**self.code, "knobs.json": json.dumps(knobs, indent=1)}
        return {name: text.encode() for name, text in texts.items()}


def read(folder: Path) -> RunDefinition:
    """That of the run in a folder."""
    knobs = files.read_json(folder / "knobs.json")
    return RunDefinition(
        source=files.read_text(folder / "experiment.py"),
        knobs=knobs["knobs"],
        options=knobs["options"],
        beside=code.read_beside(folder),
        data=fingerprints.stored(knobs.get("data")),
        traced=step_digest.stored(knobs.get("traced")),
    )


def lengthened_knob(saved: RunDefinition, wanted: RunDefinition) -> str | None:
    """The knob by which `wanted` is the saved run with more steps and no other change.

    None where it is not.
    """
    before, after = _values(saved), _values(wanted)
    names = {*before["knobs"], *after["knobs"]}
    changed = [name for name in names if before["knobs"].get(name) != after["knobs"].get(name)]
    if len(changed) != 1 or changed[0] not in LENGTHS or before["options"] != after["options"]:
        return None
    old, new = before["knobs"].get(changed[0]), after["knobs"].get(changed[0])
    same = (
        _statements(saved.code) == _statements(wanted.code)
        and not fingerprints.changed(saved.data, wanted.data)
        and step_digest.is_longer(saved.traced, wanted.traced)
    )
    more = type(old) is type(new) is int and new > old
    return changed[0] if same and more else None


def differences(saved: RunDefinition, wanted: RunDefinition) -> list[str]:
    """What differs, in lines for people."""
    before, after = _values(saved), _values(wanted)
    changes = []
    for part in ("knobs", "options"):
        old, new = before[part], after[part]
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                changes.append(f"{name}: {old.get(name, '(absent)')} there, {new.get(name, '(absent)')} here")
    changes += fingerprints.differences(saved.data, wanted.data)
    changes += step_digest.differences(saved.traced, wanted.traced)
    there, here = saved.code, wanted.code
    for name in dict.fromkeys([*there, *here]):
        if name in there and name in here and _statement(there[name]) == _statement(here[name]):
            continue
        lines = _changed_lines(there.get(name, ""), here.get(name, ""))
        beside = f"{Path(name).relative_to(code.FOLDER)}, beside it:" if name != "experiment.py" else ""
        changes.append(beside or "the experiment's file:")
        changes += [f"  {line}" for line in lines[:LINES_SHOWN]]
        changes += ["  …"] if len(lines) > LINES_SHOWN else []
    return changes


def _changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [x for x in lines if x[:1] in "+-" and x[:3] not in ("+++", "---") and x[1:].strip()]


def _values(definition: RunDefinition) -> dict[str, Any]:
    """Knobs and options as JSON has them."""
    values = {"knobs": definition.knobs, "options": definition.options}
    return json.loads(json.dumps(values, default=str))


def _statements(sources: Mapping[str, str]) -> dict[str, str]:
    return {name: _statement(source) for name, source in sources.items()}


def _statement(source: str) -> str:
    """A file's code without comments, layout and docstrings, whose changes change nothing."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
