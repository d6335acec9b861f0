"""Archives are read in memory, and what they say of themselves is not believed."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from jaxmodels.data import archive
from jaxmodels.data.archive import members

pytestmark = pytest.mark.fast


def tar(path, entries, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def pack(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            if isinstance(content, str):
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16
                file.writestr(info, content)
            else:
                file.writestr(name, content)
    return path


FILES = {"a/1.txt": b"one", "a/2.txt": b"two", "b/3.png": b"three"}


@pytest.mark.parametrize(
    "make",
    [
        lambda p, e: tar(p / "x.tar.gz", e),
        lambda p, e: tar(p / "x.tar", e, "w"),
        lambda p, e: pack(p / "x.zip", e),
    ],
)
class TestAny:
    def test_the_chosen_members_are_found_by_name(self, make, tmp_path):
        assert members(make(tmp_path, FILES)) == FILES
        assert members(make(tmp_path, FILES), lambda name: name.endswith(".txt")) == {
            k: v for k, v in FILES.items() if "txt" in k
        }

    def test_links_are_skipped_and_names_that_lead_outside_write_nothing(self, make, tmp_path):
        inside = tmp_path / "inside"
        inside.mkdir()
        hostile = {"../evil.txt": b"x", "/tmp/evil-of-a-test.txt": b"y", "link.txt": "/etc/passwd"}
        got = members(make(inside, hostile))
        assert "link.txt" not in got and sorted(got.values()) == [b"x", b"y"]
        assert [p.name for p in tmp_path.iterdir()] == ["inside"]

    def test_what_unpacks_to_more_than_the_limit_is_refused(self, make, tmp_path):
        bomb = make(tmp_path, {"zeros": bytes(2_000_000)})
        with pytest.raises(
            ValueError, match=r"unpacks to more than 1,000,000 bytes; expected one that fits into memory"
        ):
            members(bomb, limit=1_000_000)

    def test_a_truncated_archive_is_named(self, make, tmp_path):
        path = make(tmp_path, {"big": bytes(range(256)) * 400})
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(
            ValueError, match=rf"{path.name} is damaged: .*; expected a whole archive. Get it again"
        ):
            members(path)


def test_a_size_that_an_archive_announces_is_not_believed(tmp_path):
    """A zip whose directory says one byte, and which unpacks to two million."""
    path = pack(tmp_path / "x.zip", {"zeros": bytes(2_000_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((2_000_000).to_bytes(4, "little"), (1).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"damaged|unpacks"):
        members(path, limit=1_000_000)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MEMBERS", 2)
    with pytest.raises(ValueError, match="with more than 2 members"):
        members(pack(tmp_path / "x.zip", FILES))


def test_what_is_no_archive_says_so(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x.rar is no archive by its name: got .rar; expected one of"):
        members(tmp_path / "x.rar")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        members(tmp_path / "y.zip")
