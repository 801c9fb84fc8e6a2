"""From a file in any axis order to masks on its own grid: a phantom with a marked left side, without a model."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from unibiomed_core import report
from unibiomed_core.engine.volume.linking import SliceMask, findings, link
from unibiomed_core.io import read
from unibiomed_core.io.export import write_report
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import CroppedMask

CODES = [
    "".join(axes[i] for i in order)
    for axes in (("RL"[r], "AP"[a], "SI"[s]) for r in (0, 1) for a in (0, 1) for s in (0, 1))
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
]
TILTS = ((0, 0, 0), (12, 0, 5), (0, -9, 3))
SPACING_MM = (1.5, 2.0, 3.0)
MARK_MM = np.array([-24.0, 8.0, 9.0])
"""Centre of the mark in RAS+ mm before tilting: negative x is the patient's left."""


def phantom(
    codes: str, tilt: tuple[int, int, int]
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.float64]]:
    """(stored voxels, stored affine, centre of the mark in mm)."""
    shape = np.array((54, 40, 24))
    turn = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(SPACING_MM)
    affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2
    upright = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * SPACING_MM
    upright -= (shape - 1) / 2 * SPACING_MM  # mm before tilting
    voxels = np.full(shape, -1000, np.int16)
    voxels[(upright**2 / np.array([36, 34, 40]) ** 2).sum(-1) < 1] = 40
    mark = np.linalg.norm(upright - MARK_MM, axis=-1) < 9
    voxels[mark] = 400
    centre = turn @ upright[mark].mean(0)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(voxels, change)
    return stored, affine @ inv_ornt_aff(change, shape), centre


@pytest.mark.parametrize("tilt", TILTS, ids=str)
@pytest.mark.parametrize("codes", CODES)
def test_masks_lie_on_the_same_patient_millimetres(codes: str, tilt: tuple[int, int, int], tmp_path: Path) -> None:
    stored, affine, centre = phantom(codes, tilt)
    file = tmp_path / "phantom_ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(stored, affine), file)
    volume = read(file, "ct")
    seen = []
    for index in range(volume.slice_count()):
        mask = CroppedMask.from_full(volume.slice(index).pixels > 300)
        if mask.count:
            seen.append(SliceMask(index, "lesion", "lesion", 0.9, mask))
    linked, _ = link(seen, volume)
    found = findings(linked, volume)
    assert [f.measurements.side for f in found] == ["left"]
    written = report.build(
        volume=volume, window=choose_window(volume), plane="axial", findings=found, absences=(),
        model={"name": "threshold", "licence": "none"}, settings={},
        slices_done=list(range(volume.slice_count())), slices_skipped=[], seconds=0.0,
    )  # fmt: skip
    write_report(written, volume, choose_window(volume), tmp_path / "out")
    image = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "findings.nii.gz")
    assert image.shape == stored.shape
    assert np.array_equal(image.affine, nibabel.Nifti1Image.from_filename(file).affine)
    labelled = np.asarray(image.dataobj)
    assert np.array_equal(labelled > 0, stored == 400)
    place = nibabel.affines.apply_affine(image.affine, np.argwhere(labelled > 0)).mean(0)
    assert np.allclose(place, centre, atol=0.01)
