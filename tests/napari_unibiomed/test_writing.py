"""File, reader, layer, labels, writer, file: voxel for voxel in all 48 orders of axes and tilted, or refused in words.

That napari's own Save finds the writer is tested with the manifest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.hand_volumes import AXIS_CODES, cropped

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.orientation import OrientationLetters
from napari_unibiomed.canvas.volumes import volume_of
from napari_unibiomed.jobs import Job
from napari_unibiomed.reading import read_layers
from napari_unibiomed.writing import write_labels
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import WriteError

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes

TILTS = ((0, 0, 0), (12, 0, 5), (0, -9, 3))
SPACING_MM = (1.5, 2.0, 3.0)
MARK = 400
"""Value of the block at the patient's left, front and top."""


def phantom(codes: str, tilt: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(stored voxels, stored affine): noise with a block at Left, Anterior, Superior."""
    shape = (24, 20, 17)  # growing towards Right, Anterior, Superior
    values = np.random.default_rng(7).integers(-900, 300, shape, dtype=np.int16)
    values[2:6, 13:18, 11:15] = MARK
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = (-31.5, 12.25, 100.0)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(values, change), affine @ inv_ornt_aff(change, shape)


def shown(viewer: ViewerModel, path: Path) -> Any:
    """The image layer of a file, through our reader."""
    ((data, about, _),) = read_layers(str(path))
    return viewer.add_image(data, **about)


def found(
    gateway: LayerGateway,
    layer: Any,
    modality: str,
    mask: np.ndarray | None = None,
    choice: dict[int, int] | None = None,
) -> Any:
    """A labels layer of a run that found what is brighter than 300."""
    volume = volume_of(layer, modality, choice=choice)
    job = Job("report", volume, RunRequest(plane="axial"))
    labels = gateway.add_labels(SimpleNamespace(job=job, report=None, predictions={}, renamed=False), layer)  # type: ignore[arg-type]
    gateway.paint_masks(labels, {3: cropped(volume.voxels > 300 if mask is None else mask)})
    return labels


def save(layer: Any, path: Path) -> list[str]:
    data, about, _ = layer.as_layer_data_tuple()
    return write_labels(str(path), data, about)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("codes", "tilt"), [(c, TILTS[t]) for i, c in enumerate(AXIS_CODES) for t in (0, 1 + i % 2)])
def test_every_order_of_axes_comes_back_voxel_for_voxel(codes: str, tilt: tuple[int, int, int], tmp_path: Path) -> None:
    stored, affine = phantom(codes, tilt)
    file = tmp_path / "phantom_ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(stored, affine), file)
    before = digest(file)
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    layer = shown(viewer, file)
    shown_before = hashlib.sha256(np.ascontiguousarray(layer.data)).hexdigest()
    assert tuple(layer.scale) == pytest.approx(SPACING_MM[::-1])
    letters = OrientationLetters(gateway)
    assert letters.current() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    middle = np.argwhere(layer.data == MARK).mean(axis=0) / layer.data.shape
    assert middle[0] < 0.5  # towards Superior, where slices begin
    assert middle[1] < 0.5  # towards Anterior, the top of the screen
    assert middle[2] > 0.5  # the patient's left, at the right of the screen
    labels = found(gateway, layer, "ct")
    labels.data_setitem((np.array([0]), np.array([1]), np.array([2])), 5)  # the user's brush
    out = tmp_path / "labels.nii.gz"
    assert save(labels, out) == [str(out)]
    image = nibabel.Nifti1Image.from_filename(out)
    assert image.shape == stored.shape
    assert np.array_equal(image.affine, nibabel.Nifti1Image.from_filename(file).affine)
    written = np.asarray(image.dataobj)
    assert np.array_equal(written == 3, stored == MARK)
    assert (written == 5).sum() == 1
    again = shown(viewer, out)
    assert np.array_equal(again.data, labels.data)
    assert digest(file) == before
    assert hashlib.sha256(np.ascontiguousarray(layer.data)).hexdigest() == shown_before
    letters.close()


def test_labels_of_one_volume_of_a_series_are_saved_on_its_grid(tmp_path: Path) -> None:
    stored, affine = phantom("ASL", (12, 0, 5))
    nibabel.save(nibabel.Nifti1Image(np.stack([stored[::-1], stored], axis=3), affine), tmp_path / "ct.nii")
    viewer = ViewerModel()
    layer = shown(viewer, tmp_path / "ct.nii")
    assert OrientationLetters(LayerGateway(viewer)).current() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    labels = found(LayerGateway(viewer), layer, "ct", choice={0: 1})
    save(labels, tmp_path / "labels.nii")
    image = nibabel.Nifti1Image.from_filename(tmp_path / "labels.nii")
    assert np.array_equal(np.asarray(image.dataobj) == 3, stored == MARK)
    assert np.array_equal(image.affine, nibabel.Nifti1Image.from_filename(tmp_path / "ct.nii").affine)


@pytest.mark.parametrize("colour", [False, True])
def test_labels_of_a_picture_are_saved_as_png(colour: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (34, 40, 3) if colour else (34, 40), np.uint8)
    file = tmp_path / "endoscopy.png"
    Image.fromarray(pixels).save(file)
    before = digest(file)
    viewer = ViewerModel()
    layer = shown(viewer, file)
    assert layer.rgb == colour
    mask = np.zeros((1, 34, 40), bool)
    mask[0, 3:9, 4:20] = True
    labels = found(LayerGateway(viewer), layer, "endoscopy", mask)
    save(labels, tmp_path / "labels.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels.png")) == 3, mask[0])
    assert digest(file) == before
    with pytest.raises(WriteError, match=r"ends in \.png"):
        save(labels, tmp_path / "labels.nii.gz")


@pytest.fixture
def labels(tmp_path: Path) -> Any:
    """A labels layer on an image that is a file in the test's folder."""
    stored, affine = phantom("LPS", (0, 0, 0))
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "image_ct.nii")
    viewer = ViewerModel()
    return found(LayerGateway(viewer), shown(viewer, tmp_path / "image_ct.nii"), "ct")


def test_numbers_beyond_8_bits_are_saved(labels: Any, tmp_path: Path) -> None:
    labels.data[0, 0, 0] = 700
    save(labels, tmp_path / "labels.nii.gz")
    assert np.asarray(nibabel.Nifti1Image.from_filename(tmp_path / "labels.nii.gz").dataobj).max() == 700


def test_an_earlier_file_is_replaced_and_the_image_never(labels: Any, tmp_path: Path) -> None:
    out = tmp_path / "labels.nii"
    out.write_text("earlier")
    save(labels, out)  # napari's dialog has asked
    assert nibabel.Nifti1Image.from_filename(out).shape == (24, 20, 17)
    before = digest(tmp_path / "image_ct.nii")
    with pytest.raises(WriteError, match="Would replace the image"):
        save(labels, tmp_path / "image_ct.nii")
    assert digest(tmp_path / "image_ct.nii") == before


def test_what_has_no_geometry_is_refused(labels: Any, tmp_path: Path) -> None:
    viewer = ViewerModel()
    out = tmp_path / "labels.nii.gz"
    drawn = viewer.add_labels(np.zeros((5, 20, 20), np.uint8))
    with pytest.raises(WriteError, match="Cannot save with correct position"):
        save(drawn, out)
    foreign = viewer.add_image(np.random.default_rng(0).integers(0, 500, (17, 20, 24), np.int16), scale=(3, 2, 1))
    with pytest.raises(WriteError, match="another reader"):
        save(found(LayerGateway(viewer), foreign, "mri"), out)
    labels.data = labels.data[:5].copy()
    with pytest.raises(WriteError, match="its shape"):
        save(labels, out)
    assert not out.exists()
