"""TIFF: what a stored value means survives every depth, sign, byte order, layout and compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unibiomed_core.errors import ReadError
from unibiomed_core.io import read

RAMP = np.linspace(0.0, 1.0, 48 * 32).reshape(48, 32)
DEPTHS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float16, np.float32, np.float64]


def ramp(dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return (RAMP * 2 - 1).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.rint(low + RAMP * (float(high) - low)).clip(low, high).astype(dtype)


def read_back(path: Path) -> np.ndarray:
    volume = read(path, "xray")
    return volume.stored.to_stored(volume.voxels)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "BigTIFF"])
def test_every_depth_and_byte_order(tmp_path: Path, dtype: Any, order: str, big: bool) -> None:
    """bugs 03: unsigned 32 bits turned negative, signed 8 bits were taken as unsigned, float64 was "Damaged"."""
    values = ramp(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, bigtiff=big, photometric="minisblack")
    # Beyond 16 bits volumes are kept in float32, of 24 bits.
    assert read_back(tmp_path / "a.tif") == pytest.approx(values.astype(np.float64), rel=2**-23)


@pytest.mark.parametrize("dtype", [d for d in DEPTHS if np.dtype(d).kind != "f"])
def test_white_is_zero_is_inverted_at_every_depth(tmp_path: Path, dtype: Any) -> None:
    """bugs 03: 8 bits were inverted and 16 were not."""
    values = ramp(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert read_back(tmp_path / "a.tif") == pytest.approx(values[::-1, ::-1].astype(np.float64), rel=2**-23, abs=1)
    tifffile.imwrite(tmp_path / "real.tif", ramp(np.float32), photometric="miniswhite")
    with pytest.raises(ReadError, match="no highest value"):
        read(tmp_path / "real.tif", "xray")


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
def test_lossless_compressions(tmp_path: Path, compression: str, dtype: Any, tile: Any) -> None:
    values = ramp(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, tile=tile, photometric="minisblack")
    assert read_back(tmp_path / "a.tif") == pytest.approx(values.astype(np.float64), rel=2**-23)


def test_jpeg_inside(tmp_path: Path) -> None:
    values = ramp(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="jpeg", photometric="minisblack")
    assert np.abs(read_back(tmp_path / "a.tif").astype(int) - values).max() <= 12  # lossy
    colours = np.stack([values, values[::-1], values], axis=2)
    tifffile.imwrite(tmp_path / "b.tif", colours, compression="jpeg", photometric="rgb")
    assert np.abs(read_back(tmp_path / "b.tif").astype(int) - colours).mean() < 12


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_one_bit(tmp_path: Path, white_is_zero: bool) -> None:
    on = RAMP > 0.5
    photometric = "miniswhite" if white_is_zero else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", on, photometric=photometric)
    assert np.array_equal(read_back(tmp_path / "a.tif"), np.where(on ^ white_is_zero, 255, 0))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_layouts(tmp_path: Path, planar: str) -> None:
    colours = np.stack([ramp(np.uint8), ramp(np.uint8)[::-1], ramp(np.uint8).T.reshape(48, 32)], axis=2)
    stored = colours if planar == "contig" else colours.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert np.array_equal(read_back(tmp_path / "a.tif"), colours)


def test_palette_and_a_reduced_copy_beside(tmp_path: Path) -> None:
    Image.fromarray(ramp(np.uint8)).convert("P").save(tmp_path / "p.tif")
    assert any("palette" in note.text for note in read(tmp_path / "p.tif", "xray").notes)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(ramp(np.uint16), photometric="minisblack", tile=(16, 16))
        file.write(ramp(np.uint16)[::2, ::2], photometric="minisblack", tile=(16, 16), subfiletype=1)
    assert np.array_equal(read_back(tmp_path / "pyramid.tif"), ramp(np.uint16))


def test_what_is_unsupported_is_not_called_damaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((5, 32, 32), np.uint8), photometric="minisblack", planarconfig=2)
    tifffile.imwrite(tmp_path / "real.tif", np.zeros((32, 32, 3), np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "code.tif", ramp(np.uint8), photometric="minisblack")
    raw = (tmp_path / "code.tif").read_bytes()
    entry = raw.index(b"\x03\x01\x03\x00\x01\x00\x00\x00") + 8
    (tmp_path / "code.tif").write_bytes(raw[:entry] + (40000).to_bytes(2, "little") + raw[entry + 2 :])
    for name, title in (
        ("many.tif", "Several channels"),
        ("real.tif", "Unsupported colour depth"),
        ("code.tif", "Unsupported compression"),
    ):
        with pytest.raises(ReadError) as caught:
            read(tmp_path / name, "xray")
        assert caught.value.title == title
