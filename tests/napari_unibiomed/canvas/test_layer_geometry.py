"""Layers of other readers become volumes or are refused in words; how a volume lies in a layer's data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.hand_volumes import canonical_affine, picture_of, tilted, volume_of

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas import volumes as layer_volumes
from napari_unibiomed.canvas.placement import Placement, image_layer, series_layer
from napari_unibiomed.canvas.volumes import placement_of, warnings_of
from unibiomed_core.errors import ReadError
from unibiomed_core.types import Note, StoredOrder, Volume

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 200, shape, dtype=np.uint8)


def layer_of(data: np.ndarray, **about: Any) -> Any:
    return ViewerModel().add_image(data, **about)


def opened(volume: Volume) -> Any:
    data, about, _ = image_layer(volume)
    return layer_of(data, **about)


def ct(seed: int = 0) -> Volume:
    values = np.random.default_rng(seed).integers(-1000, 1000, (32, 36, 5), dtype=np.int16)
    return volume_of(values, np.diag([1.0, 1.5, 4.0, 1.0]))


def test_a_layer_of_ours_gives_back_what_was_read() -> None:
    volume = ct()
    layer = opened(volume)
    assert layer_volumes.volume_of(layer, "ct") is volume
    assert placement_of(layer, volume).from_file


def test_a_duplicate_keeps_the_geometry_and_a_flipped_array_does_not() -> None:
    volume = ct()
    layer = opened(volume)
    twin = layer_of(volume.voxels.copy(), metadata=layer.metadata)
    assert layer_volumes.volume_of(twin, "ct").stored is volume.stored
    layer.data = layer.data[::-1]
    foreign = layer_volumes.volume_of(layer, "ct")
    assert not foreign.orientation_known
    assert not placement_of(layer, foreign).from_file
    assert np.array_equal(foreign.voxels, volume.voxels[::-1])


def test_another_modality_gets_its_own_unit() -> None:
    unsure = replace(ct(), modality="mri", intensity_unit="intensity")
    assert layer_volumes.volume_of(opened(unsure), "ct").intensity_unit == "HU"
    assert layer_volumes.volume_of(opened(ct()), "mri").intensity_unit == "intensity"


@pytest.mark.parametrize(
    ("scale", "flips"),
    [
        ((3, 1, 2), (False, False, False)),
        ((3, 1, -2), (False, False, True)),
        ((-3, -1, 2), (True, True, False)),
    ],
)
def test_a_negative_scale_is_taken_as_it_is_shown(scale: tuple[float, ...], flips: tuple[bool, ...]) -> None:
    data = noise(5, 34, 40)
    before = hashlib.sha256(data.tobytes()).hexdigest()
    layer = layer_of(data, scale=scale)
    volume = layer_volumes.volume_of(layer, "mri")
    shown = data[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    assert np.array_equal(volume.voxels, shown)
    assert volume.spacing_mm == pytest.approx((3, 1, 2))
    assert volume.stored.flips == flips
    assert not volume.orientation_known
    assert "sides are unknown" in volume.notes[0].text
    assert "taken as millimetres" in " ".join(note.text for note in volume.notes)
    assert hashlib.sha256(layer.data.tobytes()).hexdigest() == before


def test_axes_shown_in_another_order_are_turned_back() -> None:
    data = noise(36, 5, 34)
    swap = np.zeros((4, 4))
    swap[0, 1], swap[1, 2], swap[2, 0], swap[3, 3] = 3, -1, 2, 1
    volume = layer_volumes.volume_of(layer_of(data, affine=swap), "mri")
    assert np.array_equal(volume.voxels, data.transpose(1, 2, 0)[:, ::-1])
    assert volume.spacing_mm == pytest.approx((3, 1, 2))


def turn(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


@pytest.mark.parametrize(
    ("data", "about", "title"),
    [
        (noise(5, 34, 40), {"rotate": turn(10)}, "Rotated layer"),
        (noise(5, 34, 40), {"shear": [0, 0, 0.2]}, "Rotated layer"),
        (noise(34, 40), {"rotate": 30.0}, "Rotated layer"),
        (noise(2, 5, 34, 40), {}, "Choose one volume"),
        (noise(5, 34, 40, 3), {"rgb": True}, "Colour volume"),
        (noise(5, 34, 40), {"units": ("s", "mm", "mm")}, "Mixed units"),
        (noise(5, 34, 40), {"units": ("um", "mm", "mm")}, "Mixed units"),
        (noise(5, 8, 8), {}, "Image too small"),
        (np.zeros((5, 34, 40)), {}, "Constant image"),
        (np.full((5, 34, 40), np.nan), {"contrast_limits": (0, 1)}, "Values that are not numbers"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(data: np.ndarray, about: dict[str, Any], title: str) -> None:
    with pytest.raises(ReadError) as refused:
        layer_volumes.volume_of(layer_of(data, **about), "mri")
    assert refused.value.title == title


def test_of_a_pyramid_of_resolutions_the_finest_is_taken() -> None:
    fine = noise(64, 64)
    layer = layer_of([fine, fine[::2, ::2]], multiscale=True)
    volume = layer_volumes.volume_of(layer, "xray")
    assert np.array_equal(volume.voxels[0], fine)
    assert placement_of(layer, volume).to_layer(volume.voxels).shape == (64, 64)


@pytest.mark.parametrize("choice", [{0: 1}, {3: 2}])
def test_one_volume_of_several_is_taken_by_choice(choice: dict[int, int]) -> None:
    data = noise(4, 5, 34, 40) if 0 in choice else noise(5, 34, 40, 4)
    layer = layer_of(data, scale=(1, 3, 1, 1) if 0 in choice else (3, 1, 1, 1), rgb=False)
    volume = layer_volumes.volume_of(layer, "mri", choice=choice)
    assert np.array_equal(volume.voxels, data[1] if 0 in choice else data[..., 2])
    assert volume.spacing_mm == pytest.approx((3, 1, 1))
    placement = placement_of(layer, volume)
    assert placement.choice == choice
    assert placement.to_layer(volume.voxels).shape == ((1, 5, 34, 40) if 0 in choice else (5, 34, 40, 1))
    assert list(placement.to_position((2, 3, 7))) == ([1, 2, 3, 7] if 0 in choice else [2, 3, 7, 2])


@pytest.mark.parametrize("choice", [{0: 9}, {7: 0}])
def test_a_choice_outside_the_layer_is_refused(choice: dict[int, int]) -> None:
    with pytest.raises(ReadError, match="Choose one volume"):
        layer_volumes.volume_of(layer_of(noise(4, 5, 34, 40)), "mri", choice=choice)


def test_pictures_of_other_readers() -> None:
    grey = layer_volumes.volume_of(layer_of(noise(34, 40), scale=(-1, 1)), "xray")
    assert grey.is_2d
    assert grey.spatial_unit == "px"
    colour = noise(34, 40, 3)
    assert np.array_equal(layer_volumes.volume_of(layer_of(colour, rgb=True), "endoscopy").voxels[0], colour)
    with_alpha = np.concatenate([colour / 255, np.ones((34, 40, 1))], axis=-1)
    assert np.array_equal(layer_volumes.volume_of(layer_of(with_alpha, rgb=True), "endoscopy").voxels[0], colour)
    sized = layer_volumes.volume_of(layer_of(noise(34, 40), scale=(500, 250), units="um"), "pathology")
    assert sized.spacing_mm[1:] == pytest.approx((0.5, 0.25))
    assert sized.spatial_unit == "mm"


@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_positions_go_there_and_back(axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    data = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    placement = Placement(StoredOrder(axes, flips, data.shape, np.eye(4)))
    canonical = placement.to_canonical(data)
    for voxel in np.ndindex(canonical.shape):
        position = placement.to_position(voxel)
        assert data[tuple(position.astype(int))] == canonical[voxel]
        assert np.array_equal(placement.to_voxel(position), voxel)
    assert np.array_equal(placement.to_layer(canonical), data)


def test_positions_in_a_picture() -> None:
    picture = picture_of(noise(34, 40))
    placement = placement_of(opened(picture), picture)
    assert list(placement.to_position((0, 3, 4))) == [3, 4]
    assert list(placement.to_voxel((3, 4))) == [0, 3, 4]


def test_a_series_of_ours_keeps_the_geometry_of_each_volume() -> None:
    volumes = (ct(0), ct(1), ct(2))
    data, about, _ = series_layer(volumes)
    layer = layer_of(data, **about)
    assert layer.ndim == 4
    assert tuple(layer.scale) == pytest.approx((1, *volumes[0].spacing_mm))
    taken = layer_volumes.volume_of(layer, "ct", choice={0: 2})
    assert np.array_equal(taken.voxels, volumes[2].voxels)
    assert taken.stored is volumes[2].stored
    assert placement_of(layer, taken) == Placement(placement_of(layer, taken).order, {0: 2}, from_file=True)
    assert list(placement_of(layer, taken).to_position((1, 2, 3))) == [2, 1, 2, 3]
    with pytest.raises(ReadError, match="Choose one volume"):
        layer_volumes.volume_of(layer, "ct")
    with pytest.raises(ReadError, match="Choose one volume"):
        layer_volumes.volume_of(layer, "ct", choice={0: 3})


def titles(volume: Volume) -> list[str]:
    return [message.title for message in warnings_of(volume)]


def test_what_has_to_be_said_about_an_image() -> None:
    assert titles(ct()) == []
    assert titles(replace(ct(), orientation_known=False)) == ["Orientation unknown"]
    assert titles(replace(ct(), intensity_unit="intensity")) == ["Values do not look like Hounsfield units"]
    note = Note("uneven_spacing", "Anything.", {"gap_mm": 7.5, "first": 34, "second": 35})
    (uneven,) = warnings_of(replace(ct(), notes=(Note("padding", "Gap of 9 mm between slices 1 and 2"), note)))
    assert "7.5 mm between slices 34 and 35" in uneven.text
    turned = volume_of(ct().voxels, tilted(canonical_affine((4, 1, 1)), (12, 0, 0)))
    assert titles(turned) == ["Tilted acquisition (12°)"]
    assert titles(picture_of(noise(34, 40))) == []
