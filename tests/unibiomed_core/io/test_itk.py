"""NRRD and MetaImage: values, what the header tells, and every bad file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from unibiomed_core.errors import ReadError
from unibiomed_core.io import read

NOISE = np.random.default_rng(0).integers(-1000, 1500, (20, 18, 17)).astype(np.int16)  # k, j, i
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
SPACE = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\n"


def mha(path: Path, spacing: str = "1 1 2", extra: str = MATRIX, data: bytes = NOISE.tobytes(), dims: str = "") -> Path:
    dims = dims or "17 18 20"
    head = f"ObjectType = Image\nNDims = {len(dims.split())}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    head += extra + (f"ElementSpacing = {spacing}\n" if spacing else "")
    head += f"DimSize = {dims}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(head.encode() + data)
    return path


def nrrd(path: Path, extra: str = SPACE, data: bytes = NOISE.tobytes(), sizes: str = "17 18 20") -> Path:
    head = f"NRRD0004\n# made by a test\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\n"
    path.write_bytes((head + f"endian: little\nencoding: raw\n{extra}\n").encode() + data)
    return path


def refused(path: Path, title: str, words: str) -> None:
    with pytest.raises(ReadError) as caught:
        read(path)
    assert caught.value.title == title
    assert words in str(caught.value)
    assert str(path.parent) not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_round_trip_of_values(tmp_path: Path, suffix: str, compressed: bool, dtype: type) -> None:
    values = np.abs(NOISE % 200).astype(dtype)
    path = tmp_path / f"a_mr.{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path), compressed)
    volume = read(path)
    stored = volume.stored.to_stored(volume.voxels)
    assert np.array_equal(stored, values.T)
    assert stored.shape == volume.stored.shape == (17, 18, 20)
    assert np.shares_memory(stored, volume.voxels)


def test_lps_identity_is_already_near_canonical(tmp_path: Path) -> None:
    volume = read(mha(tmp_path / "a_ct.mha"))
    assert volume.stored.axes == (2, 1, 0)
    assert volume.stored.flips == (True, False, False)
    assert np.array_equal(volume.voxels, NOISE[::-1])
    assert volume.stored.affine == pytest.approx(np.diag([-1.0, -1.0, 2.0, 1.0]))


@pytest.mark.parametrize(
    ("extra", "known", "unit"),
    [
        (SPACE, True, "mm"),
        (SPACE.replace("left-posterior", "right-anterior"), True, "mm"),
        (SPACE.replace("left-posterior-superior", "scanner-xyz"), False, "mm"),
        ("spacings: 1 1 2\n", False, "mm"),
        ("", False, "px"),
    ],
)
def test_nrrd_tells_orientation_and_size(tmp_path: Path, extra: str, known: bool, unit: str) -> None:
    volume = read(nrrd(tmp_path / "a_ct.nrrd", extra))
    assert (volume.orientation_known, volume.spatial_unit) == (known, unit)
    assert any("no patient orientation" in n.text for n in volume.notes) is not known
    assert volume.spacing_mm == pytest.approx((2 if extra else 1, 1, 1))


def test_nrrd_space_is_turned(tmp_path: Path) -> None:
    ras = read(nrrd(tmp_path / "a_ct.nrrd", SPACE.replace("left-posterior", "right-anterior")))
    assert np.array_equal(ras.voxels, NOISE[::-1, ::-1, ::-1])


@pytest.mark.parametrize(
    ("spacing", "extra", "known", "unit"),
    [("1 1 2", MATRIX, True, "mm"), ("1 1 2", "", False, "mm"), ("", "", False, "px")],
)
def test_mha_tells_orientation_and_size(tmp_path: Path, spacing: str, extra: str, known: bool, unit: str) -> None:
    volume = read(mha(tmp_path / "a_ct.mha", spacing, extra))
    assert (volume.orientation_known, volume.spatial_unit) == (known, unit)


def test_two_dimensional_file_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    volume = read(mha(tmp_path / "a_ct.mha", "1 1", "", NOISE[0].tobytes(), "17 18"))
    assert volume.shape == (1, 18, 17)
    assert volume.stored.shape == (17, 18, 1)
    assert not volume.orientation_known
    assert np.array_equal(volume.stored.to_stored(volume.voxels)[..., 0], NOISE[0].T)


@pytest.mark.parametrize(("value", "word"), [("0", "zero"), ("-2", "negative"), ("nan", "zero")])
def test_bad_spacing_is_refused(tmp_path: Path, value: str, word: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused(mha(tmp_path / "a_ct.mha", f"1 1 {value}"), "Impossible geometry", word)
    refused(nrrd(tmp_path / "a_ct.nrrd", f"spacings: 1 1 {value}\n"), "Impossible geometry", "spacing (1 x 1 x")
    assert capfd.readouterr().err == ""


def test_degenerate_directions_are_refused(tmp_path: Path) -> None:
    refused(
        mha(tmp_path / "a_ct.mha", extra="TransformMatrix = 1 0 0 1 0 0 0 0 1\n"), "Impossible geometry", "singular"
    )
    zero = SPACE.replace("(0,0,2)", "(0,0,0)")
    refused(nrrd(tmp_path / "a_ct.nrrd", zero), "Impossible geometry", "spacing")


@pytest.mark.parametrize("keep", [5000, 10])
def test_truncated_data_are_refused_in_silence(tmp_path: Path, keep: int, capfd: pytest.CaptureFixture[str]) -> None:
    refused(mha(tmp_path / "a_ct.mha", data=NOISE.tobytes()[:keep]), "Damaged file", "'a_ct.mha' cannot be read")
    refused(nrrd(tmp_path / "a_ct.nrrd", data=NOISE.tobytes()[:keep]), "Damaged file", "'a_ct.nrrd' cannot be read")
    assert capfd.readouterr().err == ""


def test_missing_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_ct.mhd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path))
    (tmp_path / "a_ct.raw").unlink()
    refused(path, "Damaged file", "cannot be read")


def test_series_of_volumes_is_refused(tmp_path: Path) -> None:
    refused(mha(tmp_path / "a.mha", "1 1 2 1", "", dims="17 18 10 2"), "More than one volume", "holds 2 volumes")
    refused(nrrd(tmp_path / "a.nrrd", "", sizes="17 18 10 2"), "More than one volume", "4D (17 x 18 x 10 x 2)")


def test_colour_volume_is_refused(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((20, 18, 17, 3), np.uint8), isVector=True)
    for suffix in ("mha", "nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / f"a.{suffix}"))
        refused(tmp_path / f"a.{suffix}", "Colour volume", "3 values in every voxel")


def test_values_that_make_no_image_are_refused(tmp_path: Path) -> None:
    values = NOISE.astype(np.float32)
    values[0, 0, :2] = np.nan
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / "a.nrrd"))
    refused(tmp_path / "a.nrrd", "Values that are not numbers", "2 NaN or infinite values of 6120")
    refused(mha(tmp_path / "a.mha", data=bytes(NOISE.nbytes)), "Constant image", "is 0")


def test_absurd_size_is_refused(tmp_path: Path) -> None:
    refused(mha(tmp_path / "a.mha", dims="60000 60000 60000"), "Image too large", "GB")


def test_mislabelled_and_empty_files_are_refused(tmp_path: Path) -> None:
    for suffix in ("mha", "mhd", "nrrd"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"II*\x00" + bytes(600))
        refused(path, "Mislabelled file", "a TIFF picture")
        path.write_bytes(b"")
        refused(path, "Empty file", "0 bytes")


def compressed(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """A MetaImage file, and the file that has its values."""
    values = np.random.default_rng(0).integers(0, 500, (20, 24, 18)).astype(np.int16)
    path = tmp_path / name
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path), useCompression=True)
    assert np.array_equal(np.sort(read(path, "ct").voxels, axis=None), np.sort(values, axis=None))
    return path, path if name.endswith(".mha") else path.with_suffix(".zraw")


@pytest.mark.parametrize("name", ["scan.mha", "scan.mhd"])
def test_a_flipped_bit_in_compressed_values_is_damage(tmp_path: Path, name: str) -> None:
    """ITK does not look at the checksum, and leaves what it could not unpack as the memory was before."""
    path, data = compressed(tmp_path, name)
    raw = bytearray(data.read_bytes())
    raw[-3000] ^= 4
    data.write_bytes(raw)
    with pytest.raises(ReadError, match="Damaged file"):
        read(path, "ct")


@pytest.mark.parametrize("size", [b"", b"CompressedDataSize = 900\n"])
def test_a_wrong_size_of_compressed_values_is_damage(tmp_path: Path, size: bytes) -> None:
    path, _ = compressed(tmp_path, "scan.mha")
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", size, path.read_bytes()))
    with pytest.raises(ReadError, match=r"its values unpack to \d+ bytes and not to 17280"):
        read(path, "ct")


def test_compressed_values_in_a_file_beside_need_no_size(tmp_path: Path) -> None:
    path, _ = compressed(tmp_path, "scan.mhd")
    before = read(path, "ct").voxels
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", path.read_bytes()))
    assert np.array_equal(read(path, "ct").voxels, before)
