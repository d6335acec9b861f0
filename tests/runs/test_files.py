"""Files of a run's folder: nothing outside it is read, nothing half written is seen."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from jaxmodels.runs import files
from jaxmodels.runs.files import BadFile

pytestmark = pytest.mark.fast


def test_what_was_written_is_read(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": [1, 2.5, "ü"]}, durable=True)
    assert files.read_json(tmp_path / "x.json") == {"a": [1, 2.5, "ü"]}
    files.write_text(tmp_path / "x.txt", "one\r\ntwo")
    assert files.read_text(tmp_path / "x.txt") == "one\r\ntwo"
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.txt"]


def test_a_written_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    files.write_text(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_text(tmp_path / "x", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_planted_link_is_neither_read_nor_written_through(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").symlink_to(tmp_path / "secret")
    with pytest.raises(BadFile, match="got a link; expected a regular file"):
        files.read_text(tmp_path / "x")
    files.write_text(tmp_path / "x", "mine")
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_a_special_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    if kind == "pipe":
        os.mkfifo("x")
    elif kind == "folder":
        os.mkdir("x")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x")
    path = "/dev/zero" if kind == "device" else "x"
    with pytest.raises((BadFile, OSError)):
        files.read_bytes(path)


def test_a_file_over_its_limit_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadFile, match="expected at most 16,777,216"):
        files.read_bytes(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "y", limit=5) == b"12345"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "got a JSON list; expected a dict"),
        ("null", "got a JSON NoneType"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("{", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_json_that_is_not_an_object_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadFile, match=message):
        files.read_json(tmp_path / "x.json")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(BadFile, match="no UTF-8"):
        files.read_text(tmp_path / "x")
