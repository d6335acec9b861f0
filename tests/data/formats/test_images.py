"""Images of every kind, against pillow's own conversions or a count by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from jaxmodels.data.formats.images import image_folder, open_image, read_image

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")
pytestmark = pytest.mark.fast


def photo(width, height):
    """Slow waves in three colours, which JPEG keeps."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 37 + c) + np.cos(y / 23 - c) for c in range(3)]
    return Image.fromarray(((np.stack(waves, -1) + 2) * 63).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(40, 60), (60, 40), (16, 90)])
def test_a_turned_jpeg_that_is_read_at_reduced_size_is_the_whole_one_scaled(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(720, 480).save(tmp_path / "x.jpg", quality=95, exif=exif)
    whole = ImageOps.exif_transpose(Image.open(tmp_path / "x.jpg")).convert("RGB")
    box = ImageOps.fit(whole, size[::-1], Image.Resampling.BOX)
    got = read_image(tmp_path / "x.jpg", size) * 255
    assert got.shape == (*size, 3) and abs(got - np.asarray(box, np.float32)).max() < 9


def test_a_turned_jpeg_is_not_decoded_smaller_than_needed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stripes = np.zeros((800, 1600, 3), np.uint8)
    stripes[::2] = 255  # an image decoded at half its size is grey alone
    Image.fromarray(stripes).save(tmp_path / "x.jpg", quality=100, subsampling=0, exif=exif)
    assert read_image(tmp_path / "x.jpg", (200, 800)).std() > 0.45


@pytest.mark.parametrize("ending, kind", [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("pgm", "<u2")])
def test_grey_of_16_bits_keeps_them(tmp_path, ending, kind):
    values = np.array([[0, 1, 257, 4095], [32767, 32768, 65534, 65535]], kind)
    if ending == "pgm":
        (tmp_path / "x.pgm").write_bytes(b"P5 4 2 65535\n" + values.astype(">u2").tobytes())
    else:
        mode = "I;16B" if kind == ">u2" else "I;16"
        Image.frombytes(mode, (4, 2), values.tobytes()).save(tmp_path / f"x.{ending}")
    path = tmp_path / f"x.{ending}"
    want = values.astype(np.float64) / 65535
    for channels in (1, 3):
        got = read_image(path, (2, 4), channels=channels)
        np.testing.assert_allclose(got, np.repeat(want[..., None], channels, 2), atol=1e-6)
    eight = np.asarray(open_image(path))
    assert eight.shape == (2, 4, 3) and np.array_equal(eight[..., 0], np.floor(want * 255 + 0.5))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_what_pillow_makes_of_it(tmp_path, mode, channels):
    source = photo(12, 8).convert("L" if mode == "I;16" else mode)
    if mode == "P":
        source.info["transparency"] = bytes(range(256))
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I;16") else "x.png")
    source.save(path)
    want = source.convert("RGBA").convert("RGB") if mode == "P" else source
    want = (
        np.asarray(want.convert("RGB" if channels == 3 else "L"), np.float32).reshape(8, 12, channels) / 255
    )
    np.testing.assert_array_equal(read_image(path, (8, 12), channels=channels), want)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(tmp_path / "x.gif", 4)[0, 0], [1, 0, 0])


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(
        ValueError, match=rf"x\.tif cannot be read as an image: got pixels of mode {mode}.*; expected one"
    ):
        read_image(tmp_path / "x.tif", 4)


def test_an_image_of_many_pixels_is_refused_unless_allowed(tmp_path):
    Image.new("1", (1, 1)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    head = b"IHDR" + struct.pack(">II", 30_000, 30_000) + content[24:29]
    (tmp_path / "x.png").write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])
    for read in (open_image, lambda path: read_image(path, 4)):
        with pytest.raises(
            ValueError, match=r"(?s)x\.png cannot be read as an image: got .*pixels.*; expected one of"
        ):
            read(tmp_path / "x.png")
    Image.new("L", (300, 200)).save(tmp_path / "y.png")
    with pytest.raises(ValueError, match="300 x 200 pixels, more than pixels=59,999"):
        read_image(tmp_path / "y.png", 4, pixels=59_999)
    assert read_image(tmp_path / "y.png", 4, pixels=60_000).shape == (4, 4, 3)
    (tmp_path / "f" / "c").mkdir(parents=True)
    (tmp_path / "y.png").rename(tmp_path / "f" / "c" / "y.png")
    with pytest.raises(ValueError, match=r"y\.png.*300 x 200 pixels, more than pixels=100"):
        image_folder(tmp_path / "f", size=4, batch=1, pixels=100).rows(0, 0, 1)
