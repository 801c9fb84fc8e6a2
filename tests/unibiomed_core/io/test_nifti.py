"""NIfTI: values, scale, units, and every bad file."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from unibiomed_core.errors import ReadError
from unibiomed_core.io import read, read_series

Writer = Callable[..., Path]
NOISE = np.random.default_rng(0).integers(-1000, 1500, (20, 18, 17)).astype(np.int16)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_round_trip_of_values(nifti: Writer, suffix: str, dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 100, (20, 18, 17)).astype(dtype)
    volume = read(nifti(values, name=f"a_mr.{suffix}"))
    assert np.array_equal(volume.stored.to_stored(volume.voxels), values)
    expected = np.uint8 if dtype == np.uint8 else np.float32 if np.dtype(dtype).kind == "f" else np.int16
    assert volume.voxels.dtype == expected
    assert volume.name == "a_mr"


def test_big_endian_and_nifti2(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    big = nibabel.Nifti1Image(NOISE, np.eye(4), header)
    nibabel.save(big, tmp_path / "big_ct.nii")
    nibabel.save(nibabel.Nifti2Image(NOISE, np.eye(4)), tmp_path / "two_ct.nii.gz")
    for name in ("big_ct.nii", "two_ct.nii.gz"):
        volume = read(tmp_path / name)
        assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)
        assert volume.voxels.dtype == np.dtype("=i2")


def test_whole_numbers_beyond_16_bits(nifti: Writer) -> None:
    values = NOISE.astype(np.int32) * 100
    volume = read(nifti(values, name="a_mr.nii"))
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.stored.to_stored(volume.voxels), values)
    wide = np.abs(NOISE).astype(np.uint16) * 40
    assert read(nifti(wide, name="b_mr.nii")).voxels.dtype == np.uint16


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"), [(0.002, 0, np.float32), (1, -1024, np.int16), (1, 0.5, np.float32)]
)
def test_header_scale_is_applied(nifti: Writer, slope: float, inter: float, dtype: type) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = slope, inter

    stored = np.abs(NOISE)
    volume = read(nifti(stored, edit=edit, name="a_mr.nii"))
    assert volume.voxels.dtype == dtype
    assert volume.stored.to_stored(volume.voxels) == pytest.approx(stored * slope + inter, rel=1e-6)


def test_voxels_are_a_view_of_the_stored_array(nifti: Writer) -> None:
    volume = read(nifti(NOISE))
    back = volume.stored.to_stored(volume.voxels)
    assert np.shares_memory(back, volume.voxels)
    assert back.flags.f_contiguous  # as nibabel lays a file out: nothing was copied on the way
    assert not volume.voxels.flags.owndata


def test_unset_orientation_is_unknown(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][1:4] = (1.5, 1.5, 3)

    volume = read(nifti(NOISE, edit=edit))
    assert not volume.orientation_known
    assert volume.spatial_unit == "mm"
    assert volume.spacing_mm == pytest.approx((3, 1.5, 1.5))
    assert any("no orientation" in n.text for n in volume.notes)


def test_no_orientation_unit_nor_size_is_in_pixels(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = header["xyzt_units"] = 0

    assert read(nifti(NOISE, edit=edit)).spatial_unit == "px"


@pytest.mark.parametrize(("code", "factor", "word"), [(1, 1000, "metres"), (3, 0.001, "micrometres")])
def test_other_units_become_mm(nifti: Writer, code: int, factor: float, word: str) -> None:
    def edit(header: Any) -> None:
        header["xyzt_units"] = code

    volume = read(nifti(NOISE, np.diag([2.0, 3.0, 4.0, 1.0]), edit=edit))
    assert volume.spacing_mm == pytest.approx((4 * factor, 3 * factor, 2 * factor))
    assert any(f"counts in {word}" in n.text for n in volume.notes)


def test_differing_forms_are_noted(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header.set_qform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
        header["sform_code"] = 1

    volume = read(nifti(NOISE, np.eye(4), edit=edit))
    assert any("differ; the sform is used" in n.text for n in volume.notes)
    assert np.array_equal(volume.stored.affine, np.eye(4))


@pytest.mark.parametrize("shape", [(20, 18), (20, 18, 1), (20, 18, 1, 1)])
def test_one_slice_is_a_volume(nifti: Writer, shape: tuple[int, ...]) -> None:
    volume = read(nifti(NOISE[:, :, 0].reshape(shape)))
    assert volume.shape == (1, 18, 20)
    assert not volume.is_2d
    assert volume.stored.shape == (20, 18, 1)
    assert any("one slice" in n.text for n in volume.notes)


def test_a_single_volume_stored_as_4d_is_read(nifti: Writer) -> None:
    volume = read(nifti(NOISE[..., np.newaxis]))
    assert volume.shape == (17, 18, 20)
    assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)


def refused(path: Path, title: str, words: str, modality: str = "") -> None:
    with pytest.raises(ReadError) as caught:
        read(path, modality)
    assert caught.value.title == title
    assert words in str(caught.value)
    assert caught.value.expected
    assert caught.value.action


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_an_offset_of_zero_reads_behind_the_header(nifti: Writer, suffix: str) -> None:
    """bugs 05: the header's own bytes became voxels, in silence."""
    path = nifti(NOISE, name=f"a_ct.{suffix}")
    raw = bytearray(gzip.decompress(path.read_bytes()) if suffix == "nii.gz" else path.read_bytes())
    raw[108:112] = bytes(4)
    path.write_bytes(gzip.compress(raw) if suffix == "nii.gz" else raw)
    volume = read(path)
    assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)
    assert any("read from byte 352" in note.text for note in volume.notes)
    raw[348] = 1
    path.write_bytes(gzip.compress(raw) if suffix == "nii.gz" else raw)
    refused(path, "Damaged file", "does not say where the voxels begin")
    raw[348] = 0
    cut = raw[:-8]
    path.write_bytes(gzip.compress(cut) if suffix == "nii.gz" else cut)
    with pytest.raises(ReadError, match="Damaged file"):
        read(path)


def _forms(sform: int, qform: int, quaternion: tuple[float, float, float]) -> Callable[[Any], None]:
    def edit(header: Any) -> None:
        header["sform_code"], header["qform_code"] = sform, qform
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = quaternion

    return edit


@pytest.mark.parametrize(
    ("sform", "qform", "quaternion", "note"),
    [
        (1, 1, (0.70711, 0.70711, 0.0), "by rounding"),
        (0, 1, (0.70711, 0.70711, 0.0), "by rounding"),
        (1, 1, (0.8, 0.8, 0.0), "the sform is used"),
        (1, 7, (0.0, 0.0, 0.0), "qform of the header has the unknown code 7"),
        (-3, 1, (0.0, 0.0, 0.0), "sform of the header has the unknown code -3"),
    ],
)
def test_one_sound_orientation_is_enough(
    nifti: Writer, sform: int, qform: int, quaternion: tuple[float, float, float], note: str
) -> None:
    """bugs 04: a sound sform beside a quaternion slightly off was "Damaged file"."""
    volume = read(nifti(NOISE, name="a_ct.nii", edit=_forms(sform, qform, quaternion)))
    assert volume.orientation_known
    assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)
    assert any(note in said.text for said in volume.notes)


def test_a_quaternion_that_is_no_rotation_and_stands_alone_is_refused(nifti: Writer) -> None:
    refused(nifti(NOISE, name="a_ct.nii", edit=_forms(0, 1, (0.8, 0.8, 0.0))), "Impossible geometry", "quaternion")


def test_series_of_volumes_is_refused(nifti: Writer) -> None:
    path = nifti(np.stack([NOISE] * 3, axis=-1))
    refused(path, "More than one volume", "4D (20 x 18 x 17 x 3) and holds 3 volumes")


def test_series_of_volumes_is_read_on_request(nifti: Writer) -> None:
    path = nifti(np.stack([NOISE, NOISE // 2, NOISE * 2], axis=-1), name="a_ct.nii.gz")
    volumes = read_series(path)
    assert len(volumes) == 3
    assert [v.modality for v in volumes] == ["ct"] * 3
    for volume, expected in zip(volumes, (NOISE, NOISE // 2, NOISE * 2), strict=True):
        assert np.array_equal(volume.stored.to_stored(volume.voxels), expected)
    one = nifti(NOISE, name="b_ct.nii.gz")
    assert np.array_equal(read_series(one)[0].voxels, read(one).voxels)
    assert read_series(one)[0].notes == read(one).notes


def test_series_of_series_are_refused(nifti: Writer) -> None:
    path = nifti(np.stack([np.stack([NOISE] * 2, axis=-1)] * 2, axis=-1), name="a_ct.nii")
    with pytest.raises(ReadError, match="More than one volume"):
        read_series(path)


def test_colour_volume_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((20, 18, 17), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "c.nii")
    refused(tmp_path / "c.nii", "Colour volume", "3 values in every voxel")


def test_complex_volume_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(NOISE.astype(np.complex64), np.eye(4)), tmp_path / "c.nii")
    refused(tmp_path / "c.nii", "Unsupported voxel type", "complex64")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_counted(nifti: Writer, bad: float) -> None:
    values = NOISE.astype(np.float32)
    values[3, 4, 5:9] = bad
    refused(nifti(values), "Values that are not numbers", "4 NaN or infinite values of 6120")


def test_values_beyond_float32_are_refused(nifti: Writer) -> None:
    values = NOISE.astype(np.float64)
    values[0, 0, 0] = 1e300
    refused(nifti(values), "Values that are not numbers", "1 NaN or infinite")


def test_constant_volume_is_refused(nifti: Writer) -> None:
    refused(nifti(np.full((20, 18, 17), 7, np.int16)), "Constant image", "Every value of 'scan_ct.nii.gz' is 7")


BAD_SIZES = pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (-2.0, "negative"), (np.nan, "undefined")])


@BAD_SIZES
@pytest.mark.parametrize("qform", [0, 1])
def test_bad_spacing_is_refused_without_a_sform(nifti: Writer, value: float, word: str, qform: int) -> None:
    def edit(header: Any) -> None:
        header["sform_code"], header["qform_code"] = 0, qform
        header["pixdim"][3] = value

    refused(nifti(NOISE, edit=edit), "Impossible geometry", word)


@BAD_SIZES
@pytest.mark.parametrize("qform", [0, 1])
def test_a_sound_sform_is_enough_beside_bad_spacing(nifti: Writer, value: float, word: str, qform: int) -> None:
    """The sform alone places and measures; what was left aside is told with both numbers."""
    affine = np.diag([-1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = (40, -60, 100)
    wanted = read(nifti(NOISE, affine, name="sound_ct.nii"))

    def edit(header: Any) -> None:
        header["qform_code"] = qform
        header["pixdim"][3] = value

    volume = read(nifti(NOISE, affine, name="bad_ct.nii", edit=edit))
    assert volume.orientation_known
    assert volume.spatial_unit == "mm"
    assert np.array_equal(volume.affine, wanted.affine)
    assert np.array_equal(volume.voxels, wanted.voxels)
    assert {n.text for n in volume.notes} - {n.text for n in wanted.notes} == {
        f"The header's voxel sizes (pixdim 1.5 x 1.5 x {value:g}) are impossible and are not used; sizes and positions "
        "are those of its sform (1.5 x 1.5 x 3 mm)."
    }


def test_bad_spacing_beside_a_bad_sform_is_refused(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header["srow_y"] = header["srow_x"]
        header["pixdim"][3] = 0

    refused(nifti(NOISE, edit=edit), "Impossible geometry", "has zero spacing")


def test_singular_and_undefined_affines_are_refused(nifti: Writer) -> None:
    def singular(header: Any) -> None:
        header["srow_y"] = header["srow_x"]

    def undefined(header: Any) -> None:
        header["srow_y"][0] = np.nan

    def zero(header: Any) -> None:
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row] = 0

    refused(nifti(NOISE, edit=singular), "Impossible geometry", "has zero spacing")
    refused(nifti(NOISE, edit=undefined), "Impossible geometry", "not numbers")
    refused(nifti(NOISE, edit=zero), "Impossible geometry", "zero spacing")


def test_thin_volume_is_refused(nifti: Writer) -> None:
    refused(nifti(NOISE[:15]), "Image too small", "axial slice of 'scan_ct.nii.gz' is 15 x 18 px")


def test_absurd_size_is_refused_with_numbers(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header["dim"][1:4] = 32000

    refused(nifti(NOISE, edit=edit), "Image too large", "32000 x 32000 x 32000 voxels and needs about 196608.0 GB")


def test_impossible_orientation_code_is_refused_in_silence(nifti: Writer, capfd: pytest.CaptureFixture[str]) -> None:
    def edit(header: Any) -> None:
        header["sform_code"], header["qform_code"] = 512, 512

    refused(nifti(NOISE, edit=edit), "Damaged file", "its orientation codes are 512 and 512")
    assert capfd.readouterr().err == ""


def test_odd_but_harmless_header_is_read_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a_ct.nii"
    nibabel.save(nibabel.Nifti2Image(NOISE, np.eye(4)), path)
    raw = bytearray(path.read_bytes())
    raw[8:12] = bytes(4)  # the end-of-line check, which nibabel logs
    path.write_bytes(bytes(raw))
    assert np.array_equal(read(path).stored.to_stored(read(path).voxels), NOISE)
    assert capfd.readouterr().err == ""


def test_negative_dimension_is_refused(nifti: Writer) -> None:
    def edit(header: Any) -> None:
        header["dim"][2] = -5

    refused(nifti(NOISE, edit=edit), "Damaged file", "20 x -5 x 17")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("name", ["scan_ct.nii", "scan_ct.nii.gz"])
def test_truncated_file_is_refused(nifti: Writer, name: str, keep: float) -> None:
    path = nifti(NOISE, name=name)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    refused(path, "Damaged file", "'" + name + "' cannot be read")


def test_truncated_header_is_refused(nifti: Writer) -> None:
    path = nifti(NOISE, name="scan_ct.nii.gz")
    block = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(block[:200]))
    refused(path, "Mislabelled file", "no NIfTI image")


def test_flipped_bytes_in_compressed_data_are_refused(nifti: Writer) -> None:
    path = nifti(NOISE)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(raw))
    refused(path, "Damaged file", "cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.nii.gz", b"\x89PNG\r\n\x1a\n" + bytes(600), "a PNG picture"),
        ("a.nii.gz", gzip.compress(b"just words " * 60, mtime=0), "no NIfTI image"),
        ("a.nii", gzip.compress(bytes(600), mtime=0), "gzip-compressed data"),
        ("a.nii", b"just words " * 60, "plain text"),
        ("a.nii", bytes(range(256)) * 3, "nothing that is recognised"),
    ],
)
def test_mislabelled_file_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "Mislabelled file", words)


def test_plain_nifti_under_a_compressed_name(nifti: Writer) -> None:
    path = nifti(NOISE, name="a.nii")
    renamed = path.rename(path.with_name("a.nii.gz"))
    refused(renamed, "Mislabelled file", "an uncompressed NIfTI file")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    refused(tmp_path / "a.nii.gz", "Empty file", "0 bytes")


def test_real_ct(shared: Path) -> None:
    path = shared / "data/soft-tissue-sarcoma-pet-ct-mr/images/STS_006_CT.nii.gz"
    volume = read(path)
    image = nibabel.load(path)
    assert (volume.modality, volume.intensity_unit, volume.spatial_unit) == ("ct", "HU", "mm")
    assert volume.orientation_known
    assert np.array_equal(volume.stored.to_stored(volume.voxels), np.asarray(image.dataobj))
    assert np.array_equal(volume.stored.affine, image.affine)
    assert nibabel.aff2axcodes(volume.affine) == ("I", "P", "L")
    # Air lies around the patient and the table behind: the darkest border row is in front.
    assert volume.voxels[:, 0].mean() < volume.voxels[:, volume.shape[1] // 2].mean()


def test_real_pet_is_suv(shared: Path) -> None:
    path = shared / "data/soft-tissue-sarcoma-pet-ct-mr/images/STS_006_PET.nii.gz"
    volume = read(path)
    assert (volume.modality, volume.intensity_unit) == ("pet", "SUV")
    assert any("taken as SUV because" in n.text for n in volume.notes)
    assert volume.stored.to_stored(volume.voxels) == pytest.approx(nibabel.load(path).get_fdata(), abs=1e-4)


def quaternion(b: float, c: float, d: float, sform: int, qform: int = 1) -> Callable[[Any], None]:
    def edit(header: Any) -> None:
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = b, c, d
        header["sform_code"], header["qform_code"] = sform, qform

    return edit


@pytest.mark.parametrize("vector", [(0.70711, 0.70711, 0.0), (0.8, 0.8, 0.0), (np.nan, 0.0, 0.0)])
def test_a_bad_quaternion_beside_a_sound_sform_is_a_note(nifti: Writer, vector: tuple[float, float, float]) -> None:
    """bugs 04: a check that nothing depends on refused whole files."""
    affine = np.diag([0.9, 1.1, 2.5, 1.0])
    volume = read(nifti(NOISE, affine, name="a_ct.nii", edit=quaternion(*vector, sform=1)))
    assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)
    assert volume.spacing_mm == pytest.approx((2.5, 1.1, 0.9))
    assert any("sform is used" in note.text for note in volume.notes)


def test_a_quaternion_alone_may_be_rounded_and_not_impossible(nifti: Writer) -> None:
    """bugs 04: half a turn about a diagonal, in five digits, is 4e-6 longer than 1."""
    exact, rounded = 1 / np.sqrt(2), 0.70711
    shift = np.diag([0.9, 1.1, 2.5, 1.0])
    right = read(nifti(NOISE, shift, name="a_ct.nii", edit=quaternion(exact, exact, 0, sform=0)))
    near = read(nifti(NOISE, shift, name="b_ct.nii", edit=quaternion(rounded, rounded, 0, sform=0)))
    # Five digits of a direction over 20 voxels of 2.5 mm.
    assert np.allclose(near.affine, right.affine, atol=1e-3)
    assert any("by rounding" in note.text for note in near.notes)
    with pytest.raises(ReadError, match="Impossible geometry"):
        read(nifti(NOISE, shift, name="c_ct.nii", edit=quaternion(0.8, 0.8, 0, sform=0)))


@pytest.mark.parametrize("name", ["a_ct.nii", "a_ct.nii.gz"])
@pytest.mark.parametrize("offset", [0, 100, 348, np.nan, -8])
def test_an_offset_inside_of_the_header_does_not_make_voxels_of_it(nifti: Writer, name: str, offset: float) -> None:
    """bugs 05: with ``vox_offset`` 0 the header's bytes became the first voxels, and nothing was said."""

    def edit(header: Any) -> None:
        header["vox_offset"] = offset

    volume = read(nifti(NOISE, name=name, edit=edit))
    assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE)
    assert any("read from byte 352" in note.text for note in volume.notes)


def test_voxels_right_behind_a_bare_header_and_behind_extensions(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(NOISE, np.eye(4))
    nibabel.save(image, tmp_path / "plain_ct.nii")
    block = (tmp_path / "plain_ct.nii").read_bytes()
    header = nibabel.Nifti1Header(block[:348], check=False)
    header["vox_offset"] = 348
    (tmp_path / "bare_ct.nii").write_bytes(header.binaryblock + block[352:])
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a comment of some length"))
    nibabel.save(image, tmp_path / "extended_ct.nii")
    block = (tmp_path / "extended_ct.nii").read_bytes()
    header = nibabel.Nifti1Header(block[:348], check=False)
    header["vox_offset"] = 0
    (tmp_path / "lost_ct.nii").write_bytes(header.binaryblock + block[348:])
    for name in ("bare_ct.nii", "extended_ct.nii", "lost_ct.nii"):
        volume = read(tmp_path / name)
        assert np.array_equal(volume.stored.to_stored(volume.voxels), NOISE), name


@pytest.mark.parametrize("name", ["a_ct.nii", "a_ct.nii.gz"])
def test_a_file_that_is_shorter_than_its_header_says(nifti: Writer, name: str) -> None:
    path = nifti(NOISE, name=name)
    block = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    path.write_bytes(gzip.compress(block[:-10]) if name.endswith("gz") else block[:-10])
    with pytest.raises(ReadError, match=r"Damaged file.*its header needs"):
        read(path)
