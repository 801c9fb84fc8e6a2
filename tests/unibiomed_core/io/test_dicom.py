"""DICOM: a folder of one series in any acquisition plane, single files, and every bad folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from tests.unibiomed_core.io.conftest import SeriesWriter, check_same_place, make_phantom
from unibiomed_core.errors import ReadError
from unibiomed_core.io import geometry, read

ES, MR, PT = "1.2.840.10008.5.1.4.1.1.77.1.1", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"


def refused(path: Path, title: str, words: str, modality: str = "") -> None:
    with pytest.raises(ReadError) as caught:
        read(path, modality)
    assert caught.value.title == title
    assert words in str(caught.value)
    assert "Secret" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("tilt", [(0, 0, 0), (12, 0, 0), (-15, 10, 20)])
@pytest.mark.parametrize("code", ["LPS", "PSL", "LSA", "LPI", "AIR"])
def test_series_in_every_plane(series: SeriesWriter, code: str, tilt: tuple[float, float, float]) -> None:
    phantom = make_phantom(tilt)
    stored = phantom.image().as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code)))
    lps = geometry.LPS_TO_RAS @ stored.affine
    spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
    series.orientation = (*(lps[:3, 0] / spacing_mm[0]), *(lps[:3, 1] / spacing_mm[1]))
    series.spacing_mm = (round(float(spacing_mm[1]), 6), round(float(spacing_mm[0]), 6))
    values = np.asarray(stored.dataobj)
    for k in range(values.shape[2]):
        place = tuple((lps @ (0, 0, k, 1))[:3])
        series.slice(f"{values.shape[2] - k:03d}.dcm", (values[:, :, k].T + 1024).astype(np.uint16), place)
    volume = read(series.folder)
    assert volume.modality == "ct"
    check_same_place(volume, phantom, atol_mm=0.01)
    assert any("Tilted acquisition" in n.text for n in volume.notes) is (tilt != (0, 0, 0))


def test_values_are_hounsfield_units(series: SeriesWriter) -> None:
    pixels = series.axial()
    volume = read(series.folder)
    assert (volume.modality, volume.intensity_unit, volume.spatial_unit) == ("ct", "HU", "mm")
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, pixels[::-1].astype(int) - 1024)
    assert volume.stored.shape == (20, 18, 6)
    assert volume.spacing_mm == pytest.approx((2.5, 1.1, 0.9))
    assert volume.name == "series"
    assert volume.notes == ()


def test_gantry_tilt_is_kept(series: SeriesWriter) -> None:
    shift = 2.5 * np.tan(np.radians(10))
    pixels = np.random.default_rng(0).integers(0, 2000, (6, 18, 20)).astype(np.uint16)
    for k in range(6):
        series.slice(f"{k}.dcm", pixels[k], (0.0, shift * k, 2.5 * k))
    volume = read(series.folder)
    assert geometry.tilt_deg(volume.affine) == pytest.approx(10, abs=0.01)
    assert volume.stored.affine[:3, 2] == pytest.approx((0, -shift, 2.5), abs=1e-4)


def test_fractional_scale_differs_between_slices(series: SeriesWriter) -> None:
    series.sop_class, series.modality, series.intercept = PT, "PT", 0.0
    pixels = np.random.default_rng(0).integers(0, 2000, (4, 18, 20)).astype(np.uint16)
    for k in range(4):
        series.slice(f"{k}.dcm", pixels[k], (0, 0, 2.0 * k), slope=1 + 0.25 * k, Units="BQML")
    volume = read(series.folder)
    expected = pixels * (1 + 0.25 * np.arange(4))[:, np.newaxis, np.newaxis]
    assert volume.voxels == pytest.approx(expected[::-1])
    assert volume.intensity_unit == "intensity"
    assert any("Bq/mL and not in SUV" in n.text for n in volume.notes)


def test_pet_in_suv_is_told_by_the_file(series: SeriesWriter) -> None:
    series.sop_class, series.modality, series.slope, series.intercept = PT, "PT", 0.002, 0.0
    series.axial(Units="GML")
    assert read(series.folder).intensity_unit == "SUV"


def test_narrow_ct_is_hu_by_its_header(series: SeriesWriter) -> None:
    pixels = np.random.default_rng(0).integers(1000, 1100, (18, 20)).astype(np.uint16)
    volume = read(series.slice("a.dcm", pixels, (0, 0, 0)))
    assert volume.voxels.min() < 0
    assert volume.intensity_unit == "HU"


def test_other_files_in_the_folder_lie_beside(series: SeriesWriter) -> None:
    pixels = series.axial()
    (series.folder / "readme.txt").write_text("notes")
    (series.folder / ".DS_Store").write_bytes(b"x")
    (series.folder / "im99.dcm").rename(series.folder / "IM0")  # DICOM without a suffix
    assert read(series.folder).shape == (len(pixels), 18, 20)


SEG, SR, RTSTRUCT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("66.4", "88.22", "481.3"))


def test_other_dicom_objects_are_left_out_with_a_note(series: SeriesWriter) -> None:
    """A segmentation has rows and columns as an image has: the folder was refused as one of several series."""
    pixels = series.axial()
    alone = read(series.folder)
    for number, (sop_class, code) in enumerate(((SEG, "SEG"), (SEG, "SEG"), (SR, "SR"), (RTSTRUCT, "RTSTRUCT"))):
        series.sop_class, series.modality, series.series = sop_class, code, f"1.2.9.{number}"
        image = {} if code == "SEG" else {"Rows": None, "Columns": None, "PixelData": None}
        series.slice(f"object{number}.dcm", pixels[0], None, **image)
    volume = read(series.folder)
    assert volume.modality == "ct"
    assert np.array_equal(volume.voxels, alone.voxels)
    assert np.array_equal(volume.affine, alone.affine)
    assert alone.notes == ()
    assert tuple(note.text for note in volume.notes) == (
        "Other DICOM objects in the folder were left out: 1 RTSTRUCT (radiotherapy structure set), "
        "2 SEG (segmentation), 1 SR (structured report).",
    )


def test_a_directory_file_is_no_object(series: SeriesWriter) -> None:
    pixels = series.axial()
    series.sop_class, series.series = "1.2.840.10008.1.3.10", "1.2.9"
    series.slice("DICOMDIR", pixels[0], None, Modality=None, Rows=None, Columns=None, PixelData=None)
    assert read(series.folder).notes == ()


def test_a_second_series_of_images_is_still_refused_beside_objects(series: SeriesWriter) -> None:
    pixels = series.axial()
    series.series, series.number = "1.2.8", 3
    series.slice("scout.dcm", pixels[0], (0, 0, 0))
    series.sop_class, series.modality, series.series = SEG, "SEG", "1.2.9"
    series.slice("seg.dcm", pixels[0], None)
    refused(series.folder, "More than one series", "holds 2 series")


def test_compressed_slices_are_read(series: SeriesWriter) -> None:
    import pydicom

    pixels = series.axial()
    for path in series.folder.iterdir():
        data = pydicom.dcmread(path)
        data.compress(pydicom.uid.RLELossless)
        data.save_as(path)
    assert np.array_equal(read(series.folder).voxels, pixels[::-1].astype(int) - 1024)


def test_rounded_directions_and_empty_tags_are_accepted(series: SeriesWriter) -> None:
    pixels = series.axial(SliceThickness="")
    series.orientation = (0.99999, 0.004, 0, -0.004, 0.99999, 0)
    series.slice("x.dcm", pixels[0], (-10, -20, 20), RescaleType="")
    assert read(series.folder).shape == (7, 18, 20)


def test_single_file_is_a_volume_of_one_slice(series: SeriesWriter) -> None:
    series.axial()
    volume = read(series.folder / "im97.dcm")
    assert volume.shape == (1, 18, 20)
    assert not volume.is_2d
    assert volume.spacing_mm == pytest.approx((2.5, 1.1, 0.9))
    assert any("one slice" in n.text for n in volume.notes)
    assert volume.affine[2, 3] == pytest.approx(5 + 2 * 2.5)


def test_file_without_suffix_and_thickness(series: SeriesWriter) -> None:
    pixels = np.random.default_rng(0).integers(0, 2000, (18, 20)).astype(np.uint16)
    volume = read(series.slice("IM0001", pixels, (0, 0, 0), SliceThickness=None))
    assert volume.spacing_mm[0] == 1
    assert any("1 mm is assumed" in n.text for n in volume.notes)


def test_colour_photograph_is_a_picture(series: SeriesWriter) -> None:
    series.sop_class, series.modality = ES, "ES"
    pixels = np.random.default_rng(0).integers(0, 255, (18, 20, 3)).astype(np.uint8)
    volume = read(series.slice("a.dcm", pixels, None, slope=1, intercept=0))
    assert volume.is_2d
    assert volume.is_rgb
    assert volume.modality == "endoscopy"
    assert np.array_equal(volume.stored.to_stored(volume.voxels), pixels)
    assert (volume.spatial_unit, volume.orientation_known) == ("px", False)


def test_radiograph_with_white_as_low(series: SeriesWriter) -> None:
    series.sop_class, series.modality, series.intercept = "1.2.840.10008.5.1.4.1.1.1", "CR", 0.0
    pixels = np.random.default_rng(0).integers(0, 4000, (18, 20)).astype(np.uint16)
    path = series.slice("a.dcm", pixels, None, PhotometricInterpretation="MONOCHROME1", PixelSpacing=[0.2, 0.1])
    volume = read(path)
    assert volume.modality == "xray"
    assert volume.is_2d
    assert np.array_equal(volume.voxels[0], 65535 - pixels)
    assert any("MONOCHROME1" in n.text for n in volume.notes)
    assert volume.spatial_unit == "mm"
    assert volume.spacing_mm[1:] == pytest.approx((0.2, 0.1))


def test_uneven_spacing_and_missing_slices_are_named(series: SeriesWriter) -> None:
    """By the numbers of napari's slider, 0 at the head (ux 5); the file's positions grow towards it."""
    series.axial(6, [0, 2, 4, 6, 10, 12])
    notes = read(series.folder).notes
    assert any(
        "Uneven slice spacing. Gap of 4.00 mm between slices 1 and 2 where 2.00 mm is usual" in n.text for n in notes
    )
    assert any("Missing slices. The gaps fit 1 between slices 1 and 2" in n.text for n in notes)
    assert {n.code: n.values for n in notes}["uneven_spacing"] == {"gap_mm": 4.0, "first": 1, "second": 2}


def test_uneven_spacing_without_missing_slices(series: SeriesWriter) -> None:
    series.axial(6, [0, 2, 4, 7, 9, 11])
    notes = read(series.folder).notes
    assert any("Gap of 3.00 mm" in n.text for n in notes)
    assert not any("Missing slices" in n.text for n in notes)


def test_modality_of_the_file_wins_or_is_contradicted(series: SeriesWriter) -> None:
    series.axial()
    assert read(series.folder, "CT").modality == "ct"
    refused(series.folder, "Modality contradicts the file", "says that it is CT, but MRI was given", "mri")


def test_unknown_modality_code_is_asked_for(series: SeriesWriter) -> None:
    series.modality, series.intercept = "OT", 0.0
    series.axial()
    refused(series.folder, "Modality not told", "--modality")
    volume = read(series.folder, "mr")
    assert volume.modality == "mri"
    assert any("'OT'" in n.text for n in volume.notes)


def test_two_series_are_listed_without_patient_data(series: SeriesWriter) -> None:
    series.axial(4)
    series.series, series.number, series.description = series.series + ".2", 3, "Abdomen"
    for k in range(3):
        series.slice(f"b{k}.dcm", np.full((18, 20), k, np.uint16), (0, 0, float(k)))
    refused(
        series.folder, "More than one series", "2 series: number 2 (CT, 'Thorax', 4 images); number 3 (CT, 'Abdomen'"
    )


def test_repeated_positions_are_several_volumes(series: SeriesWriter) -> None:
    series.axial(6, [0, 2, 4, 0, 2, 4])
    refused(series.folder, "More than one volume", "6 images at 3 positions")


@pytest.mark.parametrize(
    ("tags", "words"),
    [({"PixelSpacing": [2, 2]}, "pixel spacing"), ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "direction")],
)
def test_slices_of_different_geometry_are_refused(
    series: SeriesWriter, tags: dict[str, list[float]], words: str
) -> None:
    series.axial()
    series.slice("x.dcm", np.ones((18, 20), np.uint16), (0, 0, 50), **tags)
    refused(series.folder, "Slices form no volume", f"1 of the 7 images of 'series' differ from the first in {words}")


def test_slices_of_different_size_are_refused(series: SeriesWriter) -> None:
    series.axial()
    series.slice("x.dcm", np.ones((20, 20), np.uint16), (0, 0, 50))
    refused(series.folder, "Slices form no volume", "differ from the first in size")


def test_slices_without_position_are_refused(series: SeriesWriter) -> None:
    for k in range(3):
        series.slice(f"{k}.dcm", np.full((18, 20), k, np.uint16), None)
    refused(series.folder, "Slices form no volume", "lack position")


def test_several_frames_are_refused(series: SeriesWriter) -> None:
    path = series.slice("a.dcm", np.ones((18, 20), np.uint16), (0, 0, 0), NumberOfFrames=5)
    refused(path, "Multi-frame DICOM", "5 frames")


@pytest.mark.parametrize("spacing", [[0, 1], [1, -1]])
def test_bad_spacing_is_refused(series: SeriesWriter, spacing: list[float]) -> None:
    series.axial(PixelSpacing=spacing)
    refused(series.folder, "Impossible geometry", "spacing")


def test_colour_volume_is_refused(series: SeriesWriter) -> None:
    for k in range(3):
        series.slice(f"{k}.dcm", np.full((18, 20, 3), k, np.uint8), (0, 0, float(k)), slope=1, intercept=0)
    refused(series.folder, "Colour volume", "3 values")


@pytest.mark.parametrize("cut", [50, 400, 900])
def test_truncated_slice_is_refused_in_silence(
    series: SeriesWriter, cut: int, capfd: pytest.CaptureFixture[str]
) -> None:
    series.axial()
    path = series.folder / "im97.dcm"
    path.write_bytes(path.read_bytes()[:-cut])
    refused(series.folder, "Damaged file", "cannot be read")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("syntax", ["plain", "deflated", "rle"])
def test_a_header_of_more_pixels_than_the_file_can_hold_is_refused(series: SeriesWriter, syntax: str) -> None:
    import pydicom

    path = series.slice("a.dcm", np.arange(18 * 20, dtype=np.uint16).reshape(18, 20), (0, 0, 0))
    data = pydicom.dcmread(path)
    if syntax == "rle":
        data.compress(pydicom.uid.RLELossless)
    elif syntax == "deflated":
        data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert read(path).shape == (1, 18, 20)
    data.Rows = data.Columns = 20_000
    data.save_as(path)
    with pytest.raises(ReadError, match=r"its header tells of 800000000 bytes of pixels, and it has \d+ in all"):
        read(path)


@pytest.mark.parametrize("deflated", [False, True])
def test_pixels_that_are_two_bytes_short_are_damage(series: SeriesWriter, deflated: bool) -> None:
    """GDCM gives what the memory held before for those that lack."""
    import pydicom

    path = series.slice("a.dcm", np.arange(18 * 20, dtype=np.uint16).reshape(18, 20), (0, 0, 0))
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[:-2]
    data.add_new(0xFFFCFFFC, "OB", bytes(64))  # the file is long enough
    if deflated:
        data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(path)
    with pytest.raises(ReadError, match="it has 718 bytes of pixels and not 720"):
        read(path)


def test_dicom_that_begins_as_a_tiff_is_read_alone_and_in_a_folder(series: SeriesWriter) -> None:
    """The preamble is free, and a file that is both has the head of the other there."""
    series.axial()
    for path in series.folder.iterdir():
        path.write_bytes(b"II*\x00\xe8\x05\x08\x00" + path.read_bytes()[8:])
    assert read(series.folder).shape == (6, 18, 20)
    assert read(series.folder / "im99.dcm").shape == (1, 18, 20)
    (series.folder / "im99.dcm").rename(series.folder / "IM0")
    assert read(series.folder / "IM0").shape == (1, 18, 20)


def test_text_named_as_dicom_is_refused(series: SeriesWriter) -> None:
    series.axial()
    (series.folder / "im50.dcm").write_text("words " * 200)
    refused(series.folder, "Mislabelled file", "'im50.dcm' is named as a DICOM file but its content is plain text")
    refused(series.folder / "im50.dcm", "Mislabelled file", "plain text")
    (series.folder / "im50.dcm").write_bytes(b"")
    refused(series.folder, "Empty file", "im50.dcm")


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "deeper").mkdir()
    refused(tmp_path, "No images in the folder", "1 files and 1 folders, none of them a DICOM image")
    refused(tmp_path / "deeper", "No images in the folder", "0 files and 0 folders")


def test_constant_series_is_refused(series: SeriesWriter) -> None:
    for k in range(3):
        series.slice(f"{k}.dcm", np.full((18, 20), 24, np.uint16), (0, 0, float(k)))
    refused(series.folder, "Constant image", "is -1000")


def test_small_series_is_refused(series: SeriesWriter) -> None:
    for k in range(3):
        series.slice(f"{k}.dcm", np.full((12, 20), k, np.uint16), (0, 0, float(k)))
    refused(series.folder, "Image too small", "20 x 12 px")


def test_missing_package_is_named(series: SeriesWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    series.axial()
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    refused(series.folder, "DICOM support missing", "pip install")


def test_padding_of_the_header_is_outside_of_the_image(series: SeriesWriter) -> None:
    """bugs 06: of an MR, too, whose window and statistics are made from the values."""
    series.modality, series.intercept = "MR", 0.0
    pixels = np.random.default_rng(3).integers(10, 2000, (4, 18, 20)).astype(np.int16)
    pixels[:, :, :3] = -2000
    for k in range(4):
        series.slice(f"{k}.dcm", pixels[k], (0, 0, 2.5 * k), PixelPaddingValue=-2000)
    volume = read(series.folder)
    expected = np.where(pixels == -2000, pixels[pixels > 0].min(), pixels)
    assert np.array_equal(volume.stored.to_stored(volume.voxels), expected.transpose(2, 1, 0))
    assert any(note.text.startswith("Padding. 15.00%") for note in volume.notes)


def test_padding_of_a_ct_is_air(series: SeriesWriter) -> None:
    series.intercept = 0.0
    pixels = np.random.default_rng(3).integers(-1000, 2000, (4, 18, 20)).astype(np.int16)
    pixels[:, 0] = -3024
    for k in range(4):
        series.slice(f"{k}.dcm", pixels[k], (0, 0, 2.5 * k), PixelPaddingValue=-3024)
    volume = read(series.folder)
    assert volume.voxels.min() == -1024
    assert volume.intensity_unit == "HU"
