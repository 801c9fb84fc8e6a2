"""PNG, JPEG and TIFF: every mode that has one meaning, stored pixel order, and every bad picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage.io import imread

from unibiomed_core.errors import ReadError
from unibiomed_core.io import decoding, read
from unibiomed_core.io.picture import load_mask

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 255, (18, 24)).astype(np.uint8)
RGB = RANDOM.integers(0, 255, (18, 24, 3)).astype(np.uint8)
DEEP = RANDOM.integers(0, 65535, (18, 24)).astype(np.uint16)


def save(path: Path, values: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def refused(path: Path, title: str, words: str, modality: str = "xray") -> None:
    with pytest.raises(ReadError) as caught:
        read(path, modality)
    assert caught.value.title == title
    assert words in str(caught.value)


@pytest.mark.parametrize("values", [GREY, DEEP, RGB], ids=["8 bit", "16 bit", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "PNG"])
def test_lossless_round_trip(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    volume = read(save(tmp_path / f"a.{suffix}", values), "endoscopy")
    assert np.array_equal(volume.stored.to_stored(volume.voxels), values)
    assert volume.voxels.dtype == values.dtype
    assert volume.shape == (1, 18, 24)
    assert volume.stored.shape == (18, 24)
    assert volume.is_2d
    assert volume.is_rgb is (values.ndim == 3)
    assert (volume.spatial_unit, volume.orientation_known) == ("px", False)
    assert volume.spacing_mm == (1, 1, 1)
    assert np.array_equal(volume.affine[:3, :3], [[0, 0, -1], [0, -1, 0], [-1, 0, 0]])
    assert np.shares_memory(volume.voxels, volume.stored.to_stored(volume.voxels))
    assert volume.notes == ()


def test_other_depths(tmp_path: Path) -> None:
    big_endian = save(tmp_path / "a.tif", DEEP.astype(">u2"))
    assert np.array_equal(read(big_endian, "xray").voxels[0], DEEP)
    real = save(tmp_path / "b.tif", GREY.astype(np.float32) / 7)
    volume = read(real, "mri")
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels[0], GREY.astype(np.float32) / 7)
    bilevel = read(save(tmp_path / "c.png", GREY > 100), "xray")
    assert np.array_equal(np.unique(bilevel.voxels), [0, 255])


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg_is_read_as_decoded(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", RGB)
    assert np.array_equal(read(path, "fundus").voxels[0], imread(path))
    grey = save(tmp_path / f"b.{suffix}", GREY)
    assert not read(grey, "xray").is_rgb


def test_deep_colour_is_reduced_with_a_note(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65535, (18, 24, 3)).astype(np.uint16)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 18, 16, 2, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    volume = read(path, "pathology")
    assert np.array_equal(volume.voxels[0], (deep >> 8).astype(np.uint8))
    assert any("16 bits for each colour" in n.text for n in volume.notes)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_opaque_alpha_is_left_out(tmp_path: Path, suffix: str) -> None:
    opaque = np.dstack([RGB, np.full((18, 24), 255, np.uint8)])
    volume = read(save(tmp_path / f"a.{suffix}", opaque), "pathology")
    assert np.array_equal(volume.voxels[0], RGB)
    assert any("alpha channel is opaque" in n.text for n in volume.notes)
    grey = save(tmp_path / f"b.{suffix}", opaque[..., [0, 3]])
    assert np.array_equal(read(grey, "xray").voxels[0], RGB[..., 0])


def test_transparent_picture_is_refused(tmp_path: Path) -> None:
    clear = np.dstack([RGB, np.full((18, 24), 255, np.uint8)])
    clear[:2, :5, 3] = 128
    refused(save(tmp_path / "a.png", clear), "Transparent picture", "10 pixels of 'a.png'")


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB, "P")
    volume = read(path, "pathology")
    assert np.array_equal(volume.voxels[0], np.asarray(Image.open(path).convert("RGB")))
    assert any("palette" in n.text for n in volume.notes)


def test_equal_channels_are_grey_where_colour_means_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.dstack([GREY] * 3))
    grey = read(path, "ultrasound")
    assert not grey.is_rgb
    assert np.array_equal(grey.voxels[0], GREY)
    assert any("read as one grey channel" in n.text for n in grey.notes)
    assert read(path, "pathology").is_rgb


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
@pytest.mark.parametrize("values", [RGB, GREY], ids=["RGB", "grey"])
def test_display_orientation_is_applied_to_image_and_mask_alike(
    tmp_path: Path, suffix: str, orientation: int, values: np.ndarray
) -> None:
    """bugs 10: a photograph lay as stored under a mask that was drawn on it as shown."""
    exif = Image.Exif()
    exif[274] = orientation
    plain, turned = tmp_path / f"plain.{suffix}", tmp_path / f"turned.{suffix}"
    save(plain, values)
    save(turned, values, exif=exif)
    with Image.open(plain) as image:
        image.load()
        image.getexif()[274] = orientation
        shown = np.asarray(ImageOps.exif_transpose(image))
    volume = read(turned, "endoscopy")
    assert np.array_equal(volume.voxels[0], shown)
    mask, notes = load_mask(turned)
    assert np.array_equal(mask, shown)
    for said in (volume.notes, notes):
        assert any("turn or mirror" in n.text for n in said) is (orientation != 1)


def test_stack_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY)] * 3
    for suffix in ("tif", "png"):
        pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=[Image.fromarray(255 - GREY), pages[0]])
        refused(tmp_path / f"a.{suffix}", "Picture stack", "3 pages")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    options = {"compression": "tiff_deflate"} if suffix == "tif" else {}
    path = save(tmp_path / f"a.{suffix}", np.zeros((2000, 2000), np.uint8), **options)
    for limit in (3_000_000, 1_000_000):  # above the limit Pillow warns, above twice the limit it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(path, "Image too large", f"more than {limit} pixels")


@pytest.mark.parametrize("shape", [(15, 40), (40, 15), (1, 1)])
def test_small_picture_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = RANDOM.integers(0, 255, shape).astype(np.uint8)
    refused(save(tmp_path / "a.png", values), "Image too small", f"'a.png' is {shape[1]} x {shape[0]} px")
    assert read(save(tmp_path / "b.png", GREY[:16, :16]), "xray").shape == (1, 16, 16)


@pytest.mark.parametrize("values", [np.full((18, 24), 9, np.uint8), np.full((18, 24, 3), 9, np.uint8)])
def test_constant_picture_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    refused(save(tmp_path / "a.png", values), "Constant image", "is 9")


def test_undefined_values_are_refused(tmp_path: Path) -> None:
    values = GREY.astype(np.float32)
    values[0, :3] = np.nan
    refused(save(tmp_path / "a.tif", values), "Values that are not numbers", "3 NaN or infinite values of 432")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9])
def test_truncated_picture_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"a.{suffix}", RANDOM.integers(0, 255, (90, 90, 3)).astype(np.uint8))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    refused(path, "Damaged file", f"'a.{suffix}' cannot be read")


def test_damaged_compressed_tiff_is_refused_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = RANDOM.integers(0, 255, (90, 90, 3)).astype(np.uint8)
    path = save(tmp_path / "a.tif", noise, compression="tiff_lzw")
    raw = bytearray(path.read_bytes())
    raw[1000:1200] = b"\xff" * 200
    path.write_bytes(bytes(raw))
    refused(path, "Damaged file", "'a.tif' cannot be read")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_few_bytes_that_tell_of_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"scan.{suffix}"
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(path)
    data = bytearray(path.read_bytes())
    if suffix == "png":
        data[16:24] = (9000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = (9000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    monkeypatch.setattr(decoding, "ask", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ReadError, match="too few bytes for 9000 x 9000 pixels"):
        read(path, "endoscopy")


def test_flipped_bytes_in_png_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RANDOM.integers(0, 255, (90, 90, 3)).astype(np.uint8))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 64] = bytes(64)
    path.write_bytes(bytes(raw))
    refused(path, "Damaged file", "cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG picture"),
        ("a.jpg", b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        ("a.tif", b"words and words", "plain text"),
        ("a.png", b"\x1f\x8b" + bytes(99), "gzip"),
        ("a.jpeg", bytes(128) + b"DICM" + bytes(99), "a DICOM file"),
    ],
)
def test_mislabelled_picture_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "Mislabelled file", words)


def test_print_colours_are_converted_with_a_note(tmp_path: Path) -> None:
    volume = read(save(tmp_path / "a.jpg", RGB, "CMYK"), "pathology")
    assert volume.is_rgb
    assert any("CMYK" in n.text for n in volume.notes)


def test_unsupported_mode_is_refused(tmp_path: Path) -> None:
    Image.merge("LAB", [Image.fromarray(GREY)] * 3).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "Unsupported colour mode", "mode LAB")


def test_real_endoscopy(shared: Path) -> None:
    path = sorted((shared / "data/kvasir-seg/images").iterdir())[0]
    volume = read(path, "endoscopy")
    assert volume.is_rgb
    assert np.array_equal(volume.stored.to_stored(volume.voxels), imread(path))
    refused(path, "Modality not told", "endoscopy, oct, pet. Give it with --modality", modality="")
