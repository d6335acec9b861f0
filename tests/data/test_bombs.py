"""Small files that stand for gigabytes or hours: refused within seconds, in little memory, with a message."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fuzz import PARTS

from jaxmodels.data import archive as archive_of_data
from jaxmodels.data.archive import members
from jaxmodels.data.formats.array_files import read_idx, read_npy, read_npz
from jaxmodels.data.formats.tables import read_parquet, read_table
from jaxmodels.data.unpack import FREE, Allowance, Unreadable

pytestmark = pytest.mark.fast

MIB = 1 << 20


def refused(read, *, seconds=10.0):
    """The message of the refusal; the time that it took is bounded."""
    begun = time.process_time()
    with pytest.raises(Unreadable) as error:
        read()
    assert time.process_time() - begun < seconds
    assert PARTS.search(str(error.value)), str(error.value)
    return str(error.value)


def repeated(pack, piece, size, head=b""):
    """Bytes that unpack to the head and pieces up to this size; a packed piece may follow another."""
    return (pack(head) if head else b"") + pack(piece) * (size // len(piece))


def npy_head(shape, descr="|u1"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


TEXTS = {"csv": (b"a,b\n", b"1,2\n"), "tsv": (b"a\tb\n", b"1\t2\n"), "jsonl": (b'{"a": "', b"xxxx")}


@pytest.mark.slow
@pytest.mark.parametrize("ending", TEXTS)
def test_gzipped_text(tmp_path, ending):
    head, piece = TEXTS[ending]
    path = tmp_path / f"x.{ending}.gz"
    path.write_bytes(repeated(gzip.compress, piece * (8 * MIB // 4), 4 << 30, head))  # 4 GiB in 4 MB
    assert "unpacks to more than" in refused(lambda: read_table(path), seconds=20)


def test_a_gzipped_idx(tmp_path):
    path = tmp_path / "x.gz"
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", 1 << 30)
    path.write_bytes(repeated(gzip.compress, bytes(8 * MIB), 1 << 30, head))
    assert f"unpacks to more than {FREE:,}" in refused(lambda: read_idx(path))


@pytest.mark.slow
def test_a_compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(FREE + 1, np.uint8))
    assert "unpacks to more than" in refused(lambda: read_npz(tmp_path / "x.npz"))
    assert read_npz(tmp_path / "x.npz", limit=FREE + 1)["a"].size == FREE + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending, pack", [("tar.gz", gzip.compress), ("tar.bz2", bz2.compress), ("tar.xz", lzma.compress)]
)
def test_a_compressed_tar_of_one_large_file_even_where_it_is_not_chosen(tmp_path, ending, pack):
    info = tarfile.TarInfo("a.txt")
    info.size = 1 << 30
    path = tmp_path / f"x.{ending}"
    path.write_bytes(repeated(pack, bytes(8 * MIB), 1 << 30, info.tobuf()))
    assert "unpacks to more than" in refused(
        lambda: members(path, lambda name: ending == "tar.xz"), seconds=20
    )


@pytest.mark.slow
def test_a_tar_of_millions_of_empty_members(tmp_path):
    path = tmp_path / "x.tar.bz2"
    path.write_bytes(repeated(bz2.compress, tarfile.TarInfo("a").tobuf() * 10_000, 1 << 30))
    assert "with more than 20,000 members" in refused(lambda: members(path), seconds=30)


def test_a_sparse_tar(tmp_path):
    info = tarfile.TarInfo("a.bin")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"00000000000\0" + b"00000001000\0"  # one piece of data at 0, of 512 bytes
    head[483:495] = b"60000000000\0"  # the whole: 6 GiB
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head[:512]):06o}\0 ".encode()
    (tmp_path / "x.tar").write_bytes(bytes(head[:512]) + bytes(512) + bytes(1024))
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert archive.getmembers()[0].issparse() and archive.getmembers()[0].size == 6 << 30
    assert "unpacks to more than" in refused(lambda: members(tmp_path / "x.tar"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip(tmp_path, method, monkeypatch):
    monkeypatch.setattr(archive_of_data, "Allowance", partial(Allowance, limit=4 * MIB))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        for i in range(5):
            archive.writestr(f"{i}.txt", bytes(MIB + MIB // 4))
    assert "unpacks to more than" in refused(lambda: members(tmp_path / "x.zip"))
    assert len(members(tmp_path / "x.zip", lambda name: name in ("1.txt", "4.txt"))) == 2


@pytest.mark.slow
def test_a_parquet_file_of_one_value_or_one_long_text(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zeros = pyarrow.array(np.zeros(40_000_000, np.int64))
    parquet.write_table(pyarrow.table({"a": zeros}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < MIB
    assert "unpacks to more than" in refused(lambda: read_parquet(tmp_path / "x.parquet"))
    indices, long = pyarrow.array(np.zeros(200_000, np.int32)), pyarrow.array(["x" * 10_000])
    parquet.write_table(
        pyarrow.table({"a": pyarrow.DictionaryArray.from_arrays(indices, long)}), tmp_path / "y.parquet"
    )
    assert "unpacks to more than" in refused(lambda: read_parquet(tmp_path / "y.parquet"))


@pytest.mark.parametrize(
    "descr, shape",
    [
        ("|V0", "(-1,)"),
        ("|V0", "(3,)"),
        ("<U0", "(3,)"),
        ("|u1", "(-1,)"),
        ("<f8", f"({1 << 62},)"),
        ("<f8", f"({1 << 40}, {1 << 40}, 0)"),
        ("|O", "(1,)"),
        ("<f8", "(" + "1, " * 40 + ")"),
        ("<f999999999", "(1,)"),
    ],
)
def test_a_header_of_npy_that_no_array_has_is_refused_by_arithmetic_of_our_own(tmp_path, descr, shape):
    (tmp_path / "x.npy").write_bytes(npy_head(shape, descr) + bytes(8))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", npy_head(shape, descr) + bytes(8))
    refused(lambda: read_npy(tmp_path / "x.npy"))
    refused(lambda: read_npz(tmp_path / "x.npz"))


def test_a_header_of_npy_made_of_blanks_takes_no_time(tmp_path):
    text = b"{" + b" ," * 30_000 + b"}"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text)
    refused(lambda: read_npy(tmp_path / "x.npy"), seconds=1)


def test_names_that_are_given_twice_are_refused(tmp_path):
    for name, names in (("x.npz", ("a.npy", "a")), ("x.zip", ("a.txt", "a.txt"))):
        with (
            pytest.warns() if name == "x.zip" else open("/dev/null"),
            zipfile.ZipFile(tmp_path / name, "w") as archive,
        ):
            for each in names:
                archive.writestr(each, npy_head((1,)) + b"1")
    assert "got the name 'a' twice" in refused(lambda: read_npz(tmp_path / "x.npz"))
    assert "got the name 'a.txt' twice" in refused(lambda: members(tmp_path / "x.zip"))


def test_a_damaged_header_in_the_middle_of_a_tar_does_not_end_it_silently(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("a.txt", "b.txt", "c.txt"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[1024 + 3] ^= 1
    (tmp_path / "x.tar").write_bytes(content)
    assert "a damaged header at byte 1,024" in refused(lambda: members(tmp_path / "x.tar"))


PEAK = """
import sys
from jaxmodels.data.archive import members
from jaxmodels.data.formats.tables import read_table
for read, path in ((read_table, sys.argv[1]), (members, sys.argv[2])):
    try:
        read(path)
    except ValueError as error:
        print("refused", len(str(error)) > 20)
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_the_memory_of_a_bomb_is_bounded(tmp_path):
    """The peak of a process that reads some."""
    (tmp_path / "x.jsonl.gz").write_bytes(repeated(gzip.compress, b"x" * (8 * MIB), 4 << 30, b'{"a": "'))
    (tmp_path / "x.tar.bz2").write_bytes(
        repeated(bz2.compress, tarfile.TarInfo("a").tobuf() * 10_000, 1 << 30)
    )
    words = [sys.executable, "-c", PEAK, str(tmp_path / "x.jsonl.gz"), str(tmp_path / "x.tar.bz2")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines()[:2] == ["refused True"] * 2, done.stderr
    assert int(done.stdout.splitlines()[2]) < 600  # MiB


@pytest.mark.slow
def test_the_real_sets_are_read(real):
    folder = real("fashion_mnist").parent
    for path in sorted(folder.rglob("*")):
        if path.name.endswith((".zip", ".tar.gz", ".tgz")):
            assert members(path)
        elif path.name.endswith("-ubyte.gz"):
            assert len(read_idx(path))
        elif path.suffix == ".npz":
            assert read_npz(path)
