"""Pictures of more pixels than are decoded at once: whole at low power, tile by tile, and never a bomb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin

from tests.patience import GUARD_S
from unibiomed_core.errors import ReadError
from unibiomed_core.io import large_picture, read, read_region

SMOOTH = np.add.outer(np.arange(203), np.arange(300))
GREY = (SMOOTH % 251).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


@pytest.fixture(autouse=True)
def low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a few thousand pixels are large ones here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(large_picture, "MOST_PIXELS", 5_000)


def means(values: np.ndarray, factor: int) -> np.ndarray:
    """Of squares, one by one; those at the border may be smaller."""
    rows, columns = (range(0, n, factor) for n in values.shape[:2])
    found = [[values[y : y + factor, x : x + factor].mean(axis=(0, 1)) for x in columns] for y in rows]
    return np.rint(np.array(found))


@pytest.mark.parametrize("values", [GREY, RGB, GREY.astype(np.uint16) * 200], ids=["grey", "RGB", "16 bit"])
@pytest.mark.parametrize(
    "layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {"tile": (64, 64), "compression": "zlib"}], ids=str
)
def test_tiff_is_averaged_part_by_part(
    tmp_path: Path, values: np.ndarray, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack", **layout)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)  # nothing is decoded whole
    volume = read(path, "pathology")
    assert volume.voxels[0].shape[:2] == (51, 75)
    # Sums of whole numbers in float32 are exact here; only the rounding of halves may differ.
    assert np.abs(volume.voxels[0].astype(float) - means(values, 4)).max() <= 1
    assert volume.spacing_mm[1:] == pytest.approx((203 / 51, 4.0))
    assert volume.spatial_unit == "px"
    assert any("300 x 203 pixels and is read whole at low power (75 x 51)" in note.text for note in volume.notes)


def test_of_a_pyramid_the_level_that_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb", tile=(64, 64), subifds=2)
        for step in (2, 4):
            file.write(RGB[::step, ::step], photometric="rgb", tile=(64, 64), subfiletype=1)
    volume = read(path, "pathology")
    assert np.array_equal(volume.voxels[0], RGB[::4, ::4])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_and_png_are_reduced_and_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    volume = read(path, "pathology")
    expected = means(RGB, 4)
    if orientation == 6:
        expected = np.rot90(expected, -1)
    rows, columns = volume.voxels.shape[1:3]
    assert rows * columns <= 5200
    assert np.abs(volume.voxels[0].astype(float) - expected[:rows, :columns]).mean() < 6  # JPEG changes values
    assert any("low power" in note.text for note in volume.notes)


def test_what_cannot_be_reduced_is_refused_in_words(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", RGB.astype(np.uint16), photometric="rgb")
    Image.fromarray(GREY).convert("P").save(tmp_path / "palette.png")
    for name in ("deep.tif", "palette.png"):
        with pytest.raises(ReadError, match="Image too large"):
            read(tmp_path / name, "pathology")


@pytest.mark.parametrize("values", [GREY, RGB, GREY.astype(np.uint16) * 200], ids=["grey", "RGB", "16 bit"])
@pytest.mark.parametrize(
    "layout",
    [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"tile": (64, 64), "compression": "zlib"}, {"compression": "lzw"}],
    ids=str,
)
@pytest.mark.parametrize(("rows", "columns"), [((0, 203), (0, 300)), ((31, 97), (47, 145)), ((187, 203), (284, 300))])
def test_a_region_of_tiff_is_read_at_full_resolution(
    tmp_path: Path,
    values: np.ndarray,
    layout: dict[str, Any],
    rows: tuple[int, int],
    columns: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack", **layout)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)  # nothing is decoded whole, nor here
    monkeypatch.setattr(tifffile.TiffPage, "decode", None)
    volume = read_region(path, rows, columns, "pathology")
    assert np.array_equal(volume.voxels[0], values[slice(*rows), slice(*columns)])
    assert volume.spacing_mm == (1, 1, 1)


@pytest.mark.parametrize(("suffix", "orientation"), [("jpg", 1), ("jpg", 6), ("png", 1), ("png", 8)])
@pytest.mark.parametrize("values", [GREY, RGB], ids=["grey", "RGB"])
def test_a_region_of_jpeg_and_png_lies_in_the_picture_as_it_is_shown(
    tmp_path: Path, suffix: str, orientation: int, values: np.ndarray
) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(path, exif=exif)
    opened = JpegImagePlugin.JpegImageFile if suffix == "jpg" else PngImagePlugin.PngImageFile
    with opened(path) as image:  # without Pillow's bound, which is low here
        shown = np.asarray(ImageOps.exif_transpose(image))
    volume = read_region(path, (10, 170), (20, 90), "pathology")
    assert np.array_equal(volume.voxels[0], shown[10:170, 20:90])


@pytest.mark.parametrize(("rows", "columns"), [((0, 204), (0, 50)), ((-1, 50), (0, 50)), ((50, 50), (0, 50))])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_region_outside_of_the_picture_is_refused(
    tmp_path: Path, suffix: str, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path)
    with pytest.raises(ReadError, match="Region outside of the picture"):
        read_region(path, rows, columns, "pathology")


def test_a_region_of_what_is_read_whole_only_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", RGB.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "turned.tif", GREY, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    Image.fromarray(GREY).convert("P").save(tmp_path / "palette.png")
    for path in tmp_path.iterdir():
        with pytest.raises(ReadError, match="cannot be read by parts"):
            read_region(path, (0, 50), (0, 50), "pathology")
    (tmp_path / "a.nii").write_bytes(b"words")
    with pytest.raises(ReadError, match="No picture"):
        read_region(tmp_path / "a.nii", (0, 50), (0, 50), "pathology")


_READ = """
import resource, sys
from unibiomed_core.io import decoding, read, tiff, large_picture, stored
import tifffile, imagecodecs, nibabel, PIL.Image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
volume = read(sys.argv[1], "pathology")
decoding._DECODER.close()  # its memory is told when it has ended
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(volume.shape, max(grown, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_a_whole_slide_takes_less_memory_than_its_pixels(tmp_path: Path) -> None:
    side, tile = 20_000, np.kron(np.random.default_rng(0).integers(0, 255, (64, 64)), np.ones((8, 8))).astype(np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        count = (-(-side // 512)) ** 2
        file.write(
            (tile for _ in range(count)), shape=(side, side), dtype=np.uint8, tile=(512, 512), compression="zlib",
            photometric="minisblack",
        )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, timeout=2 * GUARD_S, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )  # fmt: skip
    assert done.stdout.startswith("(1, 4000, 4000)")
    grown = int(done.stdout.rsplit(maxsplit=1)[1]) * 1024
    assert grown < side * side  # bytes of its pixels; float32 sums of the reduced picture take 64 MB
