"""Every reader with hundreds of damaged files: one clear error or an answer, in bounded time."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from fuzz import attempt, mutations, survey

from jaxmodels.data.archive import Member, members
from jaxmodels.data.datasets import sentences as nltk
from jaxmodels.data.datasets.bccd import NAMES, read_voc
from jaxmodels.data.formats.array_files import read_npy
from jaxmodels.data.formats.audio import audio_folder
from jaxmodels.data.formats.images import open_image, read_image
from jaxmodels.data.formats.tables import read_parquet, read_table
from jaxmodels.data.formats.token_files import open_tokens, write_tokens

pytestmark = pytest.mark.fast


def saved(path, read):
    """A reader of bytes from a reader of files."""

    def of_bytes(data):
        path.write_bytes(data)
        return read(path)

    return of_bytes


def npy(x):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def npz(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


X = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
IDX = bytes([0, 0, 8, 2]) + struct.pack(">2I", 6, 10) + bytes(range(60))
ROWS = [{"a": i, "text": f'w{i} "x", y', "v": [i, 0.5]} for i in range(20)]
CSV = "\n".join(["a,b,text"] + [f'{i},{i / 7},"w, {i}"' for i in range(30)]).encode()
TABLES = {
    "x.npy": npy(X),
    "s.npy": npy(np.array(["abc", "é"])),
    "x.npz": npz(np.savez, a=X, b=X[0] > 3),
    "c.npz": npz(np.savez_compressed, a=X, b=np.asfortranarray(X[0])),
    "x-ubyte": IDX,
    "x-ubyte.gz": gzip.compress(IDX),
    "x.csv": CSV,
    "x.csv.gz": gzip.compress(CSV),
    "x.tsv": CSV.replace(b",", b"\t"),
    "x.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "x.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_tables_and_arrays(tmp_path, name):
    survey(saved(tmp_path / name, read_table), TABLES[name], 300, others=list(TABLES.values()))


@pytest.mark.slow
def test_what_an_array_file_gives_is_what_numpy_reads(tmp_path):
    """A damaged .npy that is read after all has numpy's own answer."""
    for case, data in enumerate(mutations(TABLES["x.npy"], 300, seed=1)):
        (tmp_path / "x.npy").write_bytes(data)
        got = attempt(lambda: read_npy(tmp_path / "x.npy"))
        if got is not None:
            assert np.array_equal(got, np.load(tmp_path / "x.npy"), equal_nan=got.dtype.kind in "fc"), case


@pytest.mark.slow
def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for compression in ("NONE", "SNAPPY"):
        file = io.BytesIO()
        parquet.write_table(
            pyarrow.table({name: [row[name] for row in ROWS] for name in ROWS[0]}),
            file,
            compression=compression,
        )
        survey(saved(tmp_path / "x.parquet", read_parquet), file.getvalue(), 250)


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in (
            ("a/1.txt", tarfile.REGTYPE),
            ("b" * 150, tarfile.REGTYPE),
            ("link", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 700 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(bytes(range(250)) * 3))
    return file.getvalue()


def packed(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/1.txt", b"one" * 300)
        archive.writestr("b/2.txt", b"zwei" * 9)
    return file.getvalue()


ARCHIVES = {
    "x.tar": tar(),
    "x.tar.gz": gzip.compress(tar()),
    "x.tar.bz2": bz2.compress(tar()),
    "x.tar.xz": lzma.compress(tar()),
    "stored.zip": packed(zipfile.ZIP_STORED),
    "x.zip": packed(zipfile.ZIP_DEFLATED),
    "lzma.zip": packed(zipfile.ZIP_LZMA),
    "bz2.zip": packed(zipfile.ZIP_BZIP2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path, name):
    survey(saved(tmp_path / name, members), ARCHIVES[name], 300, others=list(ARCHIVES.values()))


VOC = b"""<annotation><size><width>640</width></size>
<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>WBC</name><bndbox><xmin>7</xmin><ymin>8</ymin><xmax>9</xmax><ymax>10</ymax></bndbox></object></annotation>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_annotations(encoding):
    def read(text):
        boxes, classes = read_voc(text, NAMES)
        assert np.isfinite(boxes).all() and len(boxes) == len(classes) and (abs(boxes) < 1 << 24).all()
        return boxes, classes

    survey(read, VOC.decode().encode(encoding), 600)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", "", "0x10", "one"])
def test_a_side_of_a_box_outside_every_image_is_refused(value):
    with pytest.raises(
        ValueError, match=r"the annotation: got .*; expected an XML document as of Pascal VOC\. Correct"
    ):
        read_voc(VOC.replace(b"2.5", value.encode()), NAMES)
    with pytest.raises(ValueError, match="the annotation: got"):
        read_voc(VOC.replace(b"<ymin>2.5</ymin>", b""), NAMES)


def test_a_document_type_is_refused_in_every_encoding():
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    text = f'<!DOCTYPE a [<!ENTITY e0 "xxxxxxxxxx">{entities}]>' + VOC.decode().replace("RBC", "&e9;")
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
        with pytest.raises(ValueError, match=r"declares a document type: got a DOCTYPE; expected plain XML"):
            read_voc((mark + text).encode(encoding), NAMES)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_images(tmp_path, kind):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image.fromarray(pixels).save(file, format=kind)
    survey(saved(tmp_path / "x.png", lambda path: read_image(path, 8)), file.getvalue(), 200)
    survey(lambda data: open_image(io.BytesIO(data)), file.getvalue(), 50, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG"])
def test_recordings(tmp_path, kind):
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(2_000) / 9), 8_000, format=kind)
    (tmp_path / "c").mkdir()

    def read(path):
        data = audio_folder(tmp_path, rate=8_000, samples=2_000, batch=1, threads=0)
        try:
            audio = data.rows(0, 0, 1)["audio"]
        except ValueError as error:
            assert "x.wav" in str(error) and "could not be loaded: " in str(error)
            return None
        assert np.isfinite(audio).all()
        return audio

    whole = saved(tmp_path / "c" / "x.wav", read)
    assert whole(file.getvalue()) is not None
    for data in mutations(file.getvalue(), 150):
        whole(data)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_recordings_of_an_archive_are_read_as_those_of_a_folder(kind, tmp_path, capfd):
    """The library reads what lies in memory by functions of Python's, whose errors it would print."""
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(2_000) / 9), 8_000, format=kind)
    decode = audio_folder(tmp_path, rate=8_000, samples=2_000, batch=1)._load

    def read(item):
        try:
            return decode((item, 0))["audio"]
        except Exception as error:
            return type(error)

    for data in [file.getvalue(), *mutations(file.getvalue(), 60)]:
        (tmp_path / "x.wav").write_bytes(data)
        on_disk, inside = read(str(tmp_path / "x.wav")), read(Member("x.wav", data))
        assert np.array_equal(on_disk, inside) if isinstance(on_disk, np.ndarray) else on_disk == inside
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_token_files(tmp_path):
    write_tokens(tmp_path / "x.npy", [[1, 2, 3], [], [4, 5]] * 20)
    for name in ("x.npy", "x.documents.npy"):
        content = (tmp_path / name).read_bytes()

        def read(path):
            tokens = open_tokens(tmp_path / "x.npy")
            return int(tokens.sum(dtype=np.int64))

        survey(saved(tmp_path / name, read), content, 250)
        (tmp_path / name).write_bytes(content)


@pytest.mark.slow
def test_records(tmp_path):
    array_record = pytest.importorskip("array_record.python.array_record_module")
    from jaxmodels.data.formats.array_records import record_pipeline

    path = tmp_path / "x.arrayrecord"
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1")
    for i in range(5):
        writer.write(bytes([i]) * 40)
    writer.close()

    def decode(record):
        return {"x": np.frombuffer(record, np.uint8)}

    def read(path):
        data = record_pipeline(path, decode, batch=5, threads=0)
        try:
            return data.rows(0, 0, 5)
        except ValueError as error:
            if (
                "could not be loaded: " in str(error)
                or "the empty source" in str(error)
                or "as in the spec" in str(error)
            ):
                return None
            raise

    content = path.read_bytes()
    whole = saved(path, read)
    assert (whole(content)["x"][:, 0] == np.arange(5)).all()
    for data in mutations(content, 60):
        attempt(lambda data=data: whole(data), seconds=20)


@pytest.mark.slow
def test_sets_of_sentences_and_questions(tmp_path, monkeypatch):
    monkeypatch.setitem(nltk.SETS, "polarity", nltk.SETS["polarity"]._replace(each=2))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in nltk.SETS["polarity"].members:
            archive.writestr(f"sentence_polarity/{member}", b"a good film .\nnot so good .\n")
    read = nltk._read.__wrapped__
    survey(
        saved(tmp_path / "sentence_polarity.zip", lambda path: read(tmp_path, "polarity")),
        file.getvalue(),
        200,
    )
    from jaxmodels.data.datasets import squad

    monkeypatch.setattr(squad.locate, "check", lambda *args, **options: None)
    articles = [{"paragraphs": [{"context": "a b", "qas": [ASKED] * 2}]}] * 48
    text = json.dumps({"data": articles})

    def read_packed(data):
        with zipfile.ZipFile(tmp_path / "dev-v1.1.json.zip", "w") as archive:
            archive.writestr("dev-v1.1.json", data)
        return squad._read.__wrapped__(tmp_path, "test")

    survey(read_packed, text.encode(), 150)


ASKED = {"id": "1", "question": "a?", "answers": [{"text": "a", "answer_start": 0}]}


def test_drawings_of_omniglot_and_images_of_bccd_that_are_damaged_are_refused_by_their_checksums(
    tmp_path, real
):
    from jaxmodels.data.datasets.bccd import bccd
    from jaxmodels.data.datasets.omniglot import one_shot_runs

    for name, file, read in (
        ("omniglot", "all_runs.zip", lambda folder: one_shot_runs(folder=folder)),
        ("bccd", "bccd.tar.gz", lambda folder: bccd("test", 8, folder=folder).arrays),
    ):
        content = bytearray((real(name) / file).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / file).write_bytes(content)
        assert attempt(lambda read=read: read(tmp_path)) is None
