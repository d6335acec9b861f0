"""Folders of images, of recordings and of texts."""

import struct
import tarfile
import wave
import zipfile
import zlib
from functools import partial

import numpy as np
import pytest

from jaxmodels.data import archive as archive_of_data
from jaxmodels.data.augment import flip
from jaxmodels.data.formats.audio import audio_folder
from jaxmodels.data.formats.images import each, image_folder
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.data.split import split
from jaxmodels.data.unpack import Allowance

pytestmark = pytest.mark.fast


def save_image(path, color, size=(20, 10)):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", size, color).save(path)


def image_tree(folder):
    save_image(folder / "red" / "a.png", (255, 0, 0))
    save_image(folder / "red" / "deeper" / "b.bmp", (255, 0, 0), (7, 30))
    save_image(folder / "blue" / "c.PNG", (0, 0, 255))
    save_image(folder / "blue" / ".hidden.png", (0, 0, 0))
    save_image(folder / ".cache" / "d.png", (0, 0, 0))
    (folder / "blue" / "notes.txt").write_text("not an image")
    return folder


def test_classes_are_the_folders_in_order_and_hidden_files_are_skipped(tmp_path):
    data = image_folder(image_tree(tmp_path), size=(4, 6), batch=3)
    batch = data.rows(0, 0, 3)
    assert data.classes == ("blue", "red") and batch["label"].tolist() == [0, 1, 1]
    assert batch["image"].shape == (3, 4, 6, 3) and batch["image"].dtype == np.float32
    assert np.array_equal(batch["image"][:, 2, 3], [[0, 0, 1], [1, 0, 0], [1, 0, 0]])
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


def test_grey_images_have_one_channel(tmp_path):
    batch = image_folder(image_tree(tmp_path), size=4, batch=3, channels=1).rows(0, 0, 3)
    assert batch["image"].shape == (3, 4, 4, 1) and np.allclose(
        batch["image"][:, 0, 0, 0], [29 / 255, 76 / 255, 76 / 255]
    )


def test_an_image_is_cropped_in_the_middle(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "x").mkdir()
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 255
    image.fromarray(stripes).save(tmp_path / "x" / "a.png")
    assert (image_folder(tmp_path, size=4, batch=1).rows(0, 0, 1)["image"] == 1).all()


def test_rows_of_a_folder_are_a_slice_of_its_batch(tmp_path):
    data = image_folder(
        image_tree(tmp_path),
        size=4,
        batch=3,
        seed=1,
        augment=lambda x, rng: {**x, "image": rng.random((4, 4, 3), "f")},
    )
    whole, part = data.rows(2, 0, 3), data.rows(2, 1, 3)
    assert all(np.array_equal(part[name], whole[name][1:]) for name in whole)


def bomb():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8_000, 8_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no image", "UnidentifiedImageError"),
        (bomb(), "8000 x 8000 pixels, more than"),
        (b"%!PS-Adobe-3.0 EPSF", "Unidentified"),
    ],
)
def test_a_bad_image_is_named(tmp_path, content, message):
    pytest.importorskip("PIL.Image")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"example 0 \(.*bad\.png.*{message}"):
        image_folder(tmp_path, size=4, batch=1).rows(0, 0, 1)


def test_a_truncated_image_is_named(tmp_path):
    save_image(tmp_path / "x" / "cut.png", (1, 2, 3), (300, 300))
    path = tmp_path / "x" / "cut.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"cut\.png"):
        image_folder(tmp_path, size=4, batch=1).rows(0, 0, 1)


@pytest.mark.parametrize("make, ending", [(image_folder, ".jpg"), (audio_folder, ".wav")])
def test_a_folder_without_classes_or_with_an_empty_one_is_refused(tmp_path, make, ending):
    options = {"size": 4} if make is image_folder else {"rate": 8000, "samples": 4}
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone"):
        make(tmp_path / "gone", batch=1, **options).rows(0, 0, 1)
    with pytest.raises(ValueError, match="got a folder without folders in it; expected one for each class"):
        make(tmp_path, batch=1, **options).rows(0, 0, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"the class .*empty: got no file that ends in .*\{ending}"):
        make(tmp_path, batch=1, **options).rows(0, 0, 1)


def recording(path, samples, rate=8_000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


@pytest.fixture
def recordings(tmp_path):
    pytest.importorskip("soundfile")
    recording(tmp_path / "hum" / "long.wav", np.arange(100) * 256)
    recording(tmp_path / "buzz" / "short.wav", [[16384, 0], [0, 16384]], channels=2)
    return tmp_path


def test_recordings_are_truncated_or_padded_with_zeros_and_channels_averaged(recordings):
    data = audio_folder(recordings, rate=8_000, samples=5, batch=2)
    batch = data.rows(0, 0, 2)
    assert data.classes == ("buzz", "hum") and batch["label"].tolist() == [0, 1]
    assert batch["audio"].tolist() == [[0.25, 0.25, 0, 0, 0], [i / 128 for i in range(5)]]
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


def test_a_random_crop_depends_on_seed_and_position_alone(recordings):
    data = audio_folder(recordings, rate=8_000, samples=5, batch=8, seed=1, crop="random")
    batch = data.rows(0, 0, 8)
    starts = batch["audio"][batch["label"] == 1][:, 0]
    assert len(set(starts.tolist())) > 1
    assert all(np.array_equal(data.rows(0, 2, 6)[name], batch[name][2:6]) for name in batch)


def test_a_label_may_come_from_the_path(recordings):
    data = audio_folder(recordings, rate=8_000, samples=5, batch=2, label=lambda path: len(path.stem))
    assert data.rows(0, 0, 2)["label"].tolist() == [5, 4]


@pytest.mark.slow
def test_spoken_digits_can_be_read(real, tmp_path):
    pytest.importorskip("soundfile")
    import tarfile

    with tarfile.open(real("fsdd") / "fsdd.tar.gz") as archive:
        members = [member for member in archive if member.name.endswith("_0.wav")]
        archive.extractall(tmp_path, members, filter="data")
    data = audio_folder(tmp_path, rate=8_000, samples=4_000, batch=60, label=lambda path: int(path.name[0]))
    batch = data.rows(0, 0, 60)
    assert (
        np.array_equal(np.bincount(batch["label"]), np.full(10, 6)) and 0.1 < abs(batch["audio"]).max() <= 1
    )


def texts(folder):
    for name, text in {
        "ham/a.txt": "good day",
        "ham/more/b.txt": "",
        "spam/c.TXT": "buy",
        "spam/d.md": "no text",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_texts_are_truncated_and_padded_to_one_length(tmp_path):
    data = text_folder(texts(tmp_path), length=5, batch=3)
    batch = data.rows(0, 0, 3)
    assert data.classes == ("ham", "spam") and batch["label"].tolist() == [0, 0, 1]
    assert [bytes(row.astype(np.uint8)) for row in batch["tokens"]] == [b"good ", b"\0" * 5, b"buy\0\0"]
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


def words(text):
    return [len(word) for word in text.split()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_texts_are_read_by_ones_own_tokenizer(tmp_path, workers):
    data = text_folder(texts(tmp_path), length=1, batch=2, encode=words, workers=workers)
    assert data.rows(0, 0, 2)["tokens"].tolist() == [[4], [0]]
    data.close()


def zipped(path, folder, *, under=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{under}{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("under", ["", "set/", "a/set/"])
def test_an_archive_gives_what_its_folder_gives(tmp_path, under):
    folder = image_tree(tmp_path / "f")
    data, packed = (
        image_folder(x, size=4, batch=3) for x in (folder, zipped(tmp_path / "a.zip", folder, under=under))
    )
    assert packed.classes == data.classes
    for name, x in data.rows(0, 0, 3).items():
        assert np.array_equal(packed.rows(0, 0, 3)[name], x)


def tarred(path, folder):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "set")
    return path


@pytest.fixture
def sounds(tmp_path):
    pytest.importorskip("soundfile")
    for i, name in enumerate(["hum/b-c.wav", "hum/b/c.WAV", "hum/d.wav", "buzz/1.wav", "buzz/2.wav"]):
        recording(tmp_path / "sounds" / name, np.arange(4 + i) * 256 * (i + 1))
    return tmp_path / "sounds"


def sounds_of(x, **options):
    return audio_folder(x, rate=8_000, samples=6, batch=5, **options)


def texts_of(x, **options):
    return text_folder(x, length=5, batch=3, **options)


def same(data, other, count):
    assert data.fingerprint() and len(data.source) == len(other.source)
    for name, x in data.rows(0, 0, count).items():
        assert np.array_equal(other.rows(0, 0, count)[name], x)


@pytest.mark.slow
@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("workers", [0, 1])
def test_texts_and_sounds_of_an_archive_are_those_of_its_folder(tmp_path, sounds, pack, workers):
    written = texts(tmp_path / "texts")
    ending = ".zip" if pack is zipped else ".tar.gz"
    for make, folder, count in ((texts_of, written, 3), (sounds_of, sounds, 5)):
        archive = pack(folder.with_name(folder.name + ending), folder)
        packed = make(archive, workers=workers)
        assert packed.classes == make(folder).classes and str(packed.source[0][0]).endswith(
            ("ham/a.txt", "buzz/1.wav")
        )
        same(make(folder), packed, count)
        packed.close()
        for part, other in zip(split(folder, 1, by="label"), split(archive, 1, by="label"), strict=True):
            same(make(part), make(other), 1)


def test_sounds_of_an_archive_are_labelled_by_their_names(tmp_path, sounds):
    archive = zipped(tmp_path / "s.zip", sounds)
    for x, y in ((sounds, archive), (split(sounds, 2)[1], split(archive, 2)[1])):
        same(
            sounds_of(x, label=lambda path: len(path.stem)),
            sounds_of(y, label=lambda path: len(path.stem)),
            2,
        )
    before = sounds_of(archive, label=lambda path: 0).fingerprint()
    recording(sounds / "buzz" / "2.wav", [1, 2, 3])
    assert sounds_of(zipped(archive, sounds), label=lambda path: 0).fingerprint() != before
    with pytest.raises(ValueError, match=r"none.zip: got no file that ends in .wav .flac; expected"):
        sounds_of(zipped(tmp_path / "none.zip", texts(tmp_path / "f")), label=lambda path: 0).rows(0, 0, 1)


def test_what_an_archive_of_texts_unpacks_to_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_of_data, "Allowance", partial(Allowance, limit=1 << 16))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/1.txt", "b/1.txt"):
            archive.writestr(name, bytes(1 << 20))
    with pytest.raises(ValueError, match=r"x\.zip: got a file of .* bytes that unpacks to more than"):
        texts_of(tmp_path / "x.zip").rows(0, 0, 1)


def test_a_truncated_recording_of_an_archive_is_named(tmp_path, sounds):
    (sounds / "buzz" / "1.wav").write_bytes((sounds / "hum" / "d.wav").read_bytes()[:-2])
    with pytest.raises(
        ValueError, match=r"example 0 .*buzz/1\.wav.*got a header that announces 6 frames, and an end after 5"
    ):
        sounds_of(zipped(tmp_path / "s.zip", sounds)).rows(0, 0, 5)


def test_an_archive_whose_files_are_not_in_classes_is_refused(tmp_path):
    save_image(tmp_path / "f" / "one" / "a.png", (0, 0, 0))
    with pytest.raises(
        ValueError, match=r"a.zip: got 1 files that end in .jpg.*expected two or more such folders"
    ):
        image_folder(zipped(tmp_path / "a.zip", tmp_path / "f"), size=4, batch=1).rows(0, 0, 1)


def test_a_damaged_file_of_an_archive_is_named(tmp_path):
    folder = image_tree(tmp_path / "f")
    (folder / "blue" / "c.PNG").write_bytes(b"no image")
    data = image_folder(zipped(tmp_path / "a.zip", folder), size=4, batch=3)
    with pytest.raises(ValueError, match=r"example 0 .*blue/c.PNG.* could not be loaded"):
        data.rows(0, 0, 3)


def gradient(path):
    """An image of 40 x 60 whose red grows to the right and whose green grows downwards."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(60) * 4, np.arange(40)[:, None] * 6
    path.parent.mkdir(parents=True)
    image.fromarray(pixels).save(path)


def test_random_parts_have_the_area_and_the_sides_that_are_asked_for(tmp_path):
    gradient(tmp_path / "x" / "a.png")
    data = image_folder(tmp_path, size=16, batch=64, seed=3, area=(0.2, 0.5))
    image = data.rows(0, 0, 64)["image"] * 255
    width = (image[:, 8, -1, 0] - image[:, 8, 0, 0]) / 4 * 16 / 15
    height = (image[:, -1, 8, 1] - image[:, 0, 8, 1]) / 6 * 16 / 15
    share = width * height / 2_400
    assert 0.17 < share.min() < 0.25 and 0.45 < share.max() < 0.53
    assert (width / height).min() > 0.7 and (width / height).max() < 1.45
    assert image[:, 8, 0, 0].std() > 20
    np.testing.assert_array_equal(data.rows(0, 5, 9)["image"] * 255, image[5:9])


def test_a_crop_of_the_whole_area_is_the_image(tmp_path):
    gradient(tmp_path / "x" / "a.png")
    whole = image_folder(tmp_path, size=(40, 60), batch=4, seed=3, area=(1.0, 1.0)).rows(0, 0, 4)["image"]
    assert whole.shape == (4, 40, 60, 3) and abs(whole.mean((0, 1, 2)) * 255 - [118, 117, 0]).max() < 12
    with pytest.raises(ValueError, match=r"image_folder: got area=\(0.5, 0.2\); expected two shares"):
        image_folder(tmp_path, size=4, batch=1, area=(0.5, 0.2))


def test_changes_of_batches_work_on_examples_one_by_one(tmp_path):
    gradient(tmp_path / "x" / "a.png")
    plain = image_folder(tmp_path, size=8, batch=32, seed=3).rows(0, 0, 32)["image"]
    flipped = image_folder(tmp_path, size=8, batch=32, seed=3, augment=each([flip])).rows(0, 0, 32)["image"]
    turned = (flipped == plain[:, :, ::-1]).all((1, 2, 3))
    assert 8 < turned.sum() < 24 and (flipped[~turned] == plain[~turned]).all()
