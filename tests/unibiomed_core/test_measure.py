"""Measurements against analytic bodies, on straight, anisotropic and oblique grids."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.hand_volumes import AXIS_CODES, canonical_affine, cropped, picture_of, tilted, volume_of, world
from unibiomed_core.measure import body_is_cut, body_midline, diameters, measure
from unibiomed_core.types import Volume

GRIDS = {
    "isotropic": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    "anisotropic": ((2.5, 0.8, 0.7), (0.0, 0.0, 0.0)),
    "oblique": ((1.5, 0.9, 0.8), (12.0, -9.0, 17.0)),
}


def on_grid(grid: str, reach_mm: float) -> Volume:
    """An empty CT volume in canonical order that reaches ``reach_mm`` around world zero."""
    spacing, angles = GRIDS[grid]
    affine = tilted(canonical_affine(spacing), angles)
    shape = tuple(int(2 * reach_mm / s) + 1 for s in spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2)
    return volume_of(np.full(shape, 40, np.int16), affine)


@pytest.mark.parametrize("grid", GRIDS)
def test_ball(grid: str) -> None:
    volume = on_grid(grid, 36)
    found = measure(cropped(np.linalg.norm(world(volume) - [1.3, -0.4, 0.2], axis=-1) <= 30), volume)
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 30**3 / 1000, rel=0.02)
    assert found.longest_axial_diameter_mm == pytest.approx(60, rel=0.02)
    assert found.perpendicular_diameter_mm == pytest.approx(60, rel=0.02)
    assert found.area_mm2 == pytest.approx(np.pi * 30**2, rel=0.02)


@pytest.mark.parametrize("grid", GRIDS)
def test_box_has_its_exact_size(grid: str) -> None:
    volume = on_grid(grid, 30)
    mask = np.zeros(volume.shape, bool)
    mask[4:12, 5:25, 10:50] = True
    sizes = np.array(volume.spacing_mm) * [8, 20, 40]
    found = measure(cropped(mask), volume)
    diagonal = np.hypot(sizes[1], sizes[2])
    assert found.volume_ml == pytest.approx(np.prod(sizes) / 1000)
    assert found.longest_axial_diameter_mm == pytest.approx(diagonal)
    assert found.perpendicular_diameter_mm == pytest.approx(2 * sizes[1] * sizes[2] / diagonal)
    assert (found.slice_first, found.slice_last) == (4, 11)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("angle", [0.0, 20.0, 55.0])
def test_tilted_ellipsoid(grid: str, angle: float) -> None:
    """Sections of an ellipsoid are alike; the one through the centre is the largest."""
    volume = on_grid(grid, 46)
    axes = np.array([40.0, 22.0, 28.0])
    turn = Rotation.from_euler("zy", [angle, angle / 2], degrees=True).as_matrix()
    quadric = turn @ np.diag(1 / axes**2) @ turn.T
    offset = world(volume) - [0.3, 0.7, -0.2]
    mask = np.einsum("...i,ij,...j->...", offset, quadric, offset) <= 1
    row, column = (volume.affine[:3, i] / np.linalg.norm(volume.affine[:3, i]) for i in (1, 2))
    plane = np.stack([row, column], axis=1)
    # Half axes of the central section: those of the quadric restricted to the plane.
    half = 1 / np.sqrt(np.linalg.eigvalsh(plane.T @ quadric @ plane))
    found = measure(cropped(mask), volume)
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(axes) / 1000, rel=0.02)
    assert found.longest_axial_diameter_mm == pytest.approx(2 * half.max(), rel=0.02)
    assert found.perpendicular_diameter_mm == pytest.approx(2 * half.min(), rel=0.02)


def test_small_pieces_have_the_size_of_their_pixels() -> None:
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 4, 4] = True
    affine = canonical_affine((1.0, 2.0, 3.0))
    assert diameters(cropped(mask), affine)[0] == pytest.approx(np.hypot(2, 3))
    mask[0, 4, 2:7] = True
    assert diameters(cropped(mask), affine)[0] == pytest.approx(np.hypot(2, 15))


def test_the_longest_section_counts_not_the_largest() -> None:
    mask = np.zeros((2, 40, 40), bool)
    mask[0, 10:30, 10:30] = True
    mask[1, 20, 0:40] = True
    assert diameters(cropped(mask), canonical_affine((1.0, 1.0, 1.0)))[0] == pytest.approx(np.hypot(40, 1))


def test_intensity_is_of_the_mask_only() -> None:
    voxels = np.zeros((3, 20, 20), np.int16)
    voxels[1, 5:10, 5:10] = np.arange(25).reshape(5, 5)
    found = measure(cropped(voxels > 0), volume_of(voxels, canonical_affine((1, 1, 1))))
    assert found.intensity_mean == pytest.approx(12.5)
    assert found.intensity_sd == pytest.approx(np.arange(1, 25).std())
    assert found.intensity_unit == "HU"


def test_colour_picture_has_luminance_and_no_millimetres() -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5:15, 5:15] = (100, 200, 50)
    found = measure(cropped((pixels[..., 0] > 0)[np.newaxis]), picture_of(pixels))
    assert found.intensity_mean == pytest.approx(0.299 * 100 + 0.587 * 200 + 0.114 * 50)
    assert found.intensity_unit == "intensity"
    assert (found.volume_ml, found.area_mm2, found.longest_axial_diameter_mm, found.perpendicular_diameter_mm) == (
        None,
        None,
        None,
        None,
    )
    assert found.voxel_count == 100
    assert found.side == "unknown"
    assert not found.touches_edge


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (10.0, -14.0, 20.0)], ids=["straight", "tilted"])
@pytest.mark.parametrize("codes", AXIS_CODES)
def test_side_in_every_axis_order(codes: str, angles: tuple[float, float, float]) -> None:
    import nibabel

    letters = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    size = {0: (60, 2.0), 1: (50, 2.2), 2: (24, 5.0)}
    affine, shape = np.eye(4), []
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        count, step = size[letters[code]]
        affine[letters[code], column] = step if code in "RAS" else -step
        shape.append(count)
    affine = tilted(affine, angles)
    affine[:3, 3] = [30, -40, 100] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    volume = volume_of(np.full(shape, -1000, np.int16), affine)
    assert nibabel.aff2axcodes(volume.affine) == ("I", "P", "L")
    place = world(volume) - [30, -40, 100]
    body = (np.linalg.norm(place / [50, 40, 200], axis=-1) <= 1) & (np.abs(place[..., 2]) < 45)
    volume.voxels[body] = 20

    def side_of(*centres: tuple[float, float, float]) -> str:
        mask = np.zeros(volume.shape, bool)
        for centre in centres:
            mask |= np.linalg.norm(place - centre, axis=-1) <= 9
        return measure(cropped(mask), volume).side

    assert body_midline(volume) == pytest.approx(30, abs=1.5)
    assert side_of((-25, 5, 10)) == "left"
    assert side_of((25, 5, 10)) == "right"
    assert side_of((0.5, 5, 10)) == "midline"
    assert side_of((-35, 0, 0), (35, 0, 0)) == "both"


def test_side_follows_the_name_and_admits_ignorance() -> None:
    voxels = np.full((4, 40, 40), 30, np.int16)
    mask = np.zeros(voxels.shape, bool)
    mask[1:3, 10:20, 2:10] = True  # canonical x grows towards Left, so this is the patient's right
    affine = canonical_affine((2, 2, 2))
    assert measure(cropped(mask), volume_of(voxels, affine)).side == "right"
    assert measure(cropped(mask), volume_of(voxels, affine), target_side="left").side == "left"
    assert measure(cropped(mask), volume_of(voxels, affine, known=False)).side == "unknown"


def test_edges_and_slices_in_every_plane() -> None:
    volume = volume_of(np.zeros((10, 20, 30), np.int16), canonical_affine((3, 1, 1)))
    mask = np.zeros(volume.shape, bool)
    mask[2:9, 5:9, 8:20] = True
    mask[4, 5:9, 8:22] = True
    inside = measure(cropped(mask), volume)
    assert not inside.touches_edge
    assert (inside.slice_first, inside.slice_last, inside.slice_largest) == (2, 8, 4)
    sagittal = measure(cropped(mask), volume, "sagittal")
    assert (sagittal.slice_first, sagittal.slice_last) == (8, 21)
    assert sagittal.area_mm2 == pytest.approx(7 * 4 * 3)
    mask[9, 6, 9] = True
    assert measure(cropped(mask), volume).touches_edge


def test_a_body_cut_at_the_side_is_noticed() -> None:
    voxels = np.full((6, 30, 30), -1000, np.int16)
    voxels[:, 5:25, 5:25] = 40
    assert not body_is_cut(volume_of(voxels, canonical_affine((2, 2, 2))))
    voxels[:, 5:25, 20:] = 40
    assert body_is_cut(volume_of(voxels, canonical_affine((2, 2, 2))))


def test_wrong_masks_are_refused() -> None:
    volume = volume_of(np.zeros((4, 5, 6), np.int16), canonical_affine((1, 1, 1)))
    with pytest.raises(ValueError, match="empty"):
        measure(cropped(np.zeros((4, 5, 6), bool)), volume)
    with pytest.raises(ValueError, match="shape"):
        measure(cropped(np.ones((4, 5, 7), bool)), volume)
