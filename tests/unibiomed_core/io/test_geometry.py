"""Canonical axes: every stored orientation lands on the same patient millimetres, and the way back is exact."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import aff2axcodes, axcodes2ornt, ornt_transform

from tests.unibiomed_core.io.conftest import Phantom, check_same_place, make_phantom
from unibiomed_core.errors import ReadError
from unibiomed_core.io import geometry, read

CODES = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]
TILTS = {"straight": (0, 0, 0), "tilted": (12, 0, 0), "oblique": (-15, 10, 20)}


def reoriented(phantom: Phantom, code: str) -> nibabel.Nifti1Image:
    return phantom.image().as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code)))


def test_there_are_48_codes() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("code", CODES)
def test_nifti_in_every_orientation(tmp_path: Path, code: str, tilt: str) -> None:
    phantom = make_phantom(TILTS[tilt])
    image = reoriented(phantom, code)
    assert "".join(aff2axcodes(image.affine)) == code
    path = tmp_path / "scan_ct.nii"
    nibabel.save(image, path)
    volume = read(path)
    assert volume.shape == (17, 18, 20)
    check_same_place(volume, phantom)
    assert np.array_equal(volume.stored.to_stored(volume.voxels), np.asarray(image.dataobj))
    assert np.allclose(volume.stored.affine, nibabel.load(path).affine, atol=0)
    assert volume.spacing_mm == pytest.approx((2.5, 1.1, 0.9), rel=1e-5)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
@pytest.mark.parametrize("code", ["RAS", "LPS", "IPL", "ASR", "LAS", "SLP", "PIR", "AIL"])
def test_itk_formats_in_several_orientations(tmp_path: Path, code: str, suffix: str) -> None:
    phantom = make_phantom(TILTS["oblique"])
    nifti = reoriented(phantom, code)
    image = SimpleITK.GetImageFromArray(np.asarray(nifti.dataobj).T)
    lps = geometry.LPS_TO_RAS @ nifti.affine
    spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((lps[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path = tmp_path / f"scan_ct.{suffix}"
    SimpleITK.WriteImage(image, str(path))
    volume = read(path)
    check_same_place(volume, phantom)
    assert volume.orientation_known
    assert volume.spatial_unit == "mm"
    assert np.array_equal(volume.stored.to_stored(volume.voxels), np.asarray(nifti.dataobj))
    assert np.allclose(volume.stored.affine, nifti.affine, atol=1e-4)


@pytest.mark.parametrize(("tilt", "angle"), [((12, 0, 0), 12), ((0, 0, 7), 7), ((0, 0, 0), 0), ((0, -20, 0), 20)])
def test_tilt_is_measured_and_noted(tmp_path: Path, tilt: tuple[float, float, float], angle: float) -> None:
    path = tmp_path / "scan_ct.nii"
    nibabel.save(reoriented(make_phantom(tilt), "LPI"), path)
    volume = read(path)
    assert geometry.tilt_deg(volume.affine) == pytest.approx(angle, abs=0.01)
    told = [n.text for n in volume.notes if "Tilted acquisition" in n.text]
    assert len(told) == (1 if angle else 0)
    assert not angle or f"({angle}°)" in told[0]


def test_gantry_tilt_is_a_shear_and_is_kept() -> None:
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(15))
    _, canonical = geometry.canonical_order(affine, (20, 18, 17))
    assert geometry.tilt_deg(canonical) == pytest.approx(15)
    assert canonical[:3, 0] == pytest.approx(-affine[:3, 2])


def test_closest_axes_are_taken_for_a_steep_tilt() -> None:
    steep = make_phantom((40, 0, 0))
    order, canonical = geometry.canonical_order(steep.affine, (20, 18, 17))
    assert order.axes == (2, 1, 0)
    assert order.flips == (True, True, True)
    assert aff2axcodes(canonical) == ("I", "P", "L")


def test_picture_order_is_consistent() -> None:
    order, affine = geometry.picture_order((30, 40), (0.5, 0.25))
    canonical_index, stored_index = np.array([0, 7, 9, 1]), np.array([7, 9, 0, 1])
    assert affine @ canonical_index == pytest.approx(order.affine @ stored_index)
    assert aff2axcodes(affine) == ("I", "P", "L")
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx((1, 0.5, 0.25))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ((0, 0, 0), "zero spacing"),
        ((np.nan, 0, 1), "not numbers"),
        ((1, 0, 0), "singular"),
        ((np.inf, 0, 1), "not num"),
        ((0, 0, 1e300), "holds lengths of 1e\\+300"),
    ],
)
def test_impossible_affines_are_refused(column: tuple[float, ...], words: str) -> None:
    affine = np.eye(4)
    affine[:3, 2] = column
    with pytest.raises(ReadError, match=words) as caught:
        geometry.check_affine(affine, "scan.nii")
    assert caught.value.title == "Impossible geometry"


@pytest.mark.parametrize(
    ("spacing", "word"), [((1, 0, 1), "zero"), ((1, -1, 1), "negative"), ((1, np.nan, 1), "undefined")]
)
def test_impossible_spacings_are_refused(spacing: tuple[float, ...], word: str) -> None:
    with pytest.raises(ReadError, match=word):
        geometry.check_spacing(spacing, "scan.nii")
