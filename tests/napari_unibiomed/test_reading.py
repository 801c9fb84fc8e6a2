"""What the reader takes and leaves to others. Formats themselves are tested in tests/unibiomed_core/io."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from napari_unibiomed import reading
from napari_unibiomed.canvas.placement import AXIS_LABELS, KEY
from unibiomed_core.errors import ReadError
from unibiomed_core.samples import samples
from unibiomed_core.types import Note

VALUES = np.random.default_rng(0).integers(0, 900, (24, 20, 17), dtype=np.int16)


def nifti(path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([1.5, 2.0, 3.0, 1.0])), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
def test_a_volume_becomes_a_layer_with_its_geometry(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if "nii" in name:
        nifti(path)
    else:
        image = SimpleITK.GetImageFromArray(VALUES.transpose(2, 1, 0))
        image.SetSpacing((1.5, 2.0, 3.0))
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # the same axes as the NIfTI file, in LPS
        SimpleITK.WriteImage(image, str(path))
    reader = reading.get_reader(str(path))
    assert reader is not None
    ((data, about, kind),) = reader(str(path))
    assert kind == "image"
    assert about["scale"] == pytest.approx((3.0, 2.0, 1.5))
    assert about["units"] == "mm"
    assert about["axis_labels"] == AXIS_LABELS
    assert np.array_equal(data, VALUES.transpose(2, 1, 0)[::-1, ::-1, ::-1])
    volume = about["metadata"][KEY]["volume"]
    assert data is volume.voxels
    assert volume.modality == "mri"
    assert Note("modality_assumed", reading.ASSUMED) in volume.notes


def test_a_4d_file_becomes_one_layer_of_volumes(tmp_path: Path) -> None:
    series = np.stack([VALUES, VALUES + 1, VALUES + 2], axis=3)
    nibabel.save(nibabel.Nifti1Image(series, np.diag([1.5, 2.0, 3.0, 1.0])), tmp_path / "dwi.nii.gz")
    ((data, about, _),) = reading.read_layers(str(tmp_path / "dwi.nii.gz"))
    assert np.array_equal(data[2], VALUES.transpose(2, 1, 0)[::-1, ::-1, ::-1] + 2)
    assert about["scale"] == pytest.approx((1, 3, 2, 1.5))
    assert [np.shares_memory(v.voxels, data[i]) for i, v in enumerate(about["metadata"][KEY]["volumes"])] == [True] * 3


def test_a_name_that_tells_the_modality_is_believed(tmp_path: Path) -> None:
    ((_, about, _),) = reading.read_layers([str(nifti(tmp_path / "brain_t1.nii"))])
    assert "modality_assumed" not in [note.code for note in about["metadata"][KEY]["volume"].notes]


def test_other_folders_and_several_files_are_left_to_others(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii")
    Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / "b.tif")
    assert reading.get_reader(str(tmp_path)) is None
    assert reading.get_reader([str(tmp_path / "a.nii"), str(tmp_path / "b.tif")]) is None


def test_a_folder_with_dicom_is_ours(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES[:, :, 0]), str(tmp_path / "IM0001.dcm"))
    assert reading.get_reader(str(tmp_path)) is reading.read_layers


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(ReadError) as refused:
        reading.read_layers(str(tmp_path / "a.nii.gz"))
    assert refused.value.expected


@pytest.mark.parametrize("name", ["mri-cardiac", "fundus"])
def test_a_sample_opens_as_what_it_is(name: str) -> None:
    function = getattr(reading, f"sample_{name.replace('-', '_')}")
    ((_, about, _),) = function()
    assert about["metadata"][KEY]["volume"].modality == samples()[name].modality
