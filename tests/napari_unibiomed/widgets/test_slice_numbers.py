"""A slice number that is read anywhere, typed into the viewer's slider, shows the slice it is about (ux 5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.volumes import volume_of
from napari_unibiomed.reading import read_layers
from tests.hand_volumes import AXIS_CODES, cropped
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.types import PLANES, Plane, Report, Volume

SIZES = {"R": 20, "L": 20, "A": 18, "P": 18, "S": 16, "I": 16}
BRIGHT = 900


def stored_with_a_spot(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with one bright voxel off the middle of every axis, and their matrix: 1 x 2 x 3 mm, any axis order."""
    steps = {"R": 1.0, "L": 1.0, "A": 2.0, "P": 2.0, "S": 3.0, "I": 3.0}
    sizes = tuple(SIZES[c] for c in codes)
    turn = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(tuple(codes)), sizes)
    affine = np.eye(4)
    affine[:3, :3] = turn[:3, :3] @ np.diag([steps[c] for c in codes])
    stored = np.full(sizes, -100, np.int16)
    stored[3, 4, 5] = BRIGHT
    return stored, affine


def report_of(volume: Volume, plane: Plane) -> Report:
    """A report whose one finding is the bright voxel."""
    mask = cropped(volume.voxels == BRIGHT)
    index = mask.offset[volume.plane_axis(plane)]
    thing = LinkedMask("spot", "spot", 0.9, mask, plane, (index,), (), ())
    return reports.build(
        volume=volume, window=None, plane=plane, findings=findings([thing], volume), absences=(), model={}, settings={},
        slices_done=range(volume.slice_count(plane)), slices_skipped=(), seconds=1.0,
    )  # fmt: skip


def number_in(text: str, plane: Plane) -> int:
    found = re.search(rf"Spot: .*?{plane} slice (\d+)", text)
    assert found, text
    return int(found[1])


def shown_values(viewer: Any, layer: Any, plane: Plane) -> np.ndarray:
    """The values of the slice that the sliders stand on, across a plane of a layer in canonical order."""
    at = np.rint(layer.world_to_data(viewer.dims.point)).astype(int)
    axis = PLANES.index(plane)
    return np.take(np.asarray(layer.data), at[axis], axis=axis)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("codes", AXIS_CODES[::5])
def test_the_number_of_the_text_typed_into_the_slider_shows_the_finding(
    codes: str, plane: Plane, tmp_path: Path
) -> None:
    stored, affine = stored_with_a_spot(codes)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "a.nii.gz")
    ((data, about, _),) = read_layers(str(tmp_path / "a.nii.gz"))
    viewer = ViewerModel()
    layer = viewer.add_image(data, **about)
    number = number_in(report_of(volume_of(layer, "ct"), plane).narrative, plane)
    viewer.dims.set_current_step(PLANES.index(plane), number)
    assert (shown_values(viewer, layer, plane) == BRIGHT).sum() == 1


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_readers_number_alike(suffix: str, tmp_path: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(stored_with_a_spot("LPS")[0])
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    ((data, about, _),) = read_layers(str(tmp_path / f"a{suffix}"))
    viewer = ViewerModel()
    layer = viewer.add_image(data, **about)
    number = number_in(report_of(volume_of(layer, "ct"), "axial").narrative, "axial")
    viewer.dims.set_current_step(0, number)
    assert (shown_values(viewer, layer, "axial") == BRIGHT).sum() == 1


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (-3.0, 1.0, 1.0)])
def test_a_layer_of_another_reader_is_numbered_as_its_slider_is(scale: tuple[float, ...]) -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(stored_with_a_spot("LPS")[0], scale=scale)
    number = number_in(report_of(volume_of(layer, "ct"), "axial").narrative, "axial")
    viewer.dims.set_current_step(0, number)
    assert (shown_values(viewer, layer, "axial") == BRIGHT).sum() == 1


def test_where_another_layer_changes_the_steps_the_slider_has_a_number_of_its_own() -> None:
    stored, _ = stored_with_a_spot("LPS")
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    layer = viewer.add_image(stored, scale=(3.0, 1.0, 1.0))
    volume = volume_of(layer, "ct")
    assert gateway.slider_number(volume, "axial", 3) == 3
    viewer.add_image(np.zeros((90, 20, 20)), translate=(-6, 0, 0))
    slider = gateway.slider_number(volume, "axial", 3)
    assert slider not in (None, 3)
    viewer.dims.set_current_step(0, slider)
    assert gateway.current_index(volume, "axial") == 3
    assert (shown_values(viewer, layer, "axial") == BRIGHT).sum() == 1


@pytest.mark.window
@pytest.mark.filterwarnings("ignore")
def test_the_number_is_typed_into_the_very_slider(make_napari_viewer: Callable[..., Any]) -> None:
    viewer = make_napari_viewer()
    volume = volume_of(viewer.add_image(stored_with_a_spot("LPS")[0], scale=(3.0, 1.0, 1.0)), "ct")
    number = number_in(report_of(volume, "axial").narrative, "axial")
    slider = viewer.window._qt_viewer.dims.slider_widgets[0]
    slider.curslice_label.setText(str(number))
    slider.curslice_label.editingFinished.emit()
    assert (shown_values(viewer, viewer.layers[0], "axial") == BRIGHT).sum() == 1
    assert slider.totslice_label.text() == str(volume.shape[0] - 1), "the last number of the slider is that of ours"
