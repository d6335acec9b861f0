"""metrics.jsonl: complete lines of JSON, whatever the disk does, and none after the restored step."""

from __future__ import annotations

import io
import json
import math
import os

import numpy as np
import pytest

from jaxmodels.runs import metrics_file
from jaxmodels.runs.metrics_file import json_lines, truncate

pytestmark = pytest.mark.fast


def test_every_line_is_a_json_object_even_where_a_value_is_not_finite(tmp_path):
    write = json_lines(tmp_path / "metrics.jsonl")
    write(1, {"loss": 0.5})
    write(2, {"loss": math.nan, "rate": math.inf})
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "rate": None}]


def test_numbers_come_back_bit_for_bit(tmp_path):
    values = {str(i): float(x) for i, x in enumerate(np.random.default_rng(0).normal(size=100))}
    json_lines(tmp_path / "metrics.jsonl")(1, values)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, **values}


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10, 10, 15):
        json_lines(path)(step, {"loss": 1.0})
    truncate(path, 10)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 10]


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_a_last_line_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10):
        json_lines(path)(step, {"loss": 1.0})
    path.write_text(path.read_text()[:-cut])
    truncate(path, 10)
    assert path.read_text() == '{"step": 5, "loss": 1.0}\n'


def test_lines_that_are_no_metrics_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n[]\n\x00\x00\x00\n{"loss": 2.0}\n{"step": 2}\n')
    truncate(path, 10)
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2}\n'


def test_bytes_that_are_no_text_do_not_stop_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1.0}\n\xff\xfe\n')
    truncate(path, 10)
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n'


@pytest.mark.parametrize("fails", ["open", "write"])
def test_lines_that_found_no_room_are_written_with_the_next(tmp_path, monkeypatch, fails):
    path, said = tmp_path / "metrics.jsonl", []
    write = json_lines(path, said.append)
    write(1, {"loss": 1.0})

    class Full(io.FileIO):
        """A disk with room for ten bytes more."""

        def write(self, text):
            return super().write(text[:10])

    def full(path, *_, **__):
        if fails == "open":
            raise OSError(28, "No space left on device")
        return opened(path)

    opened = metrics_file.open_appending
    monkeypatch.setattr(metrics_file, "open_appending", full)
    monkeypatch.setattr(os, "fdopen", lambda handle, *_, **__: Full(handle, "a"))
    write(2, {"loss": 0.5})
    write(3, {"loss": 0.25})
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n'
    write(4, {"loss": 0.125})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert len(said) == 1
    assert "metrics.jsonl cannot be written (No space left on device)" in said[0]
