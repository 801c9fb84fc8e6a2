"""Views, masks and orders: nothing is copied unless asked, and ways there and back are exact."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from unibiomed_core.io.geometry import canonical_order, picture_order
from unibiomed_core.types import CroppedMask, Prompt, Region, StoredOrder, Volume


def volume(shape: tuple[int, ...] = (5, 6, 7)) -> Volume:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    order, affine = canonical_order(np.diag([1.0, 2.0, 3.0, 1.0]), shape[:3])
    return Volume(order.to_canonical(values), affine, "mri", "intensity", "mm", True, order)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_stored_order_is_exact_both_ways(channels: tuple[int, ...]) -> None:
    stored = np.arange(4 * 5 * 6 * int(np.prod(channels))).reshape(4, 5, 6, *channels)
    for axes in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            order = StoredOrder(axes, flips, (4, 5, 6), np.eye(4))
            canonical = order.to_canonical(stored)
            assert canonical.shape == tuple(stored.shape[a] for a in axes) + channels
            assert np.array_equal(order.to_stored(canonical), stored)
            assert np.shares_memory(canonical, stored)
            corner = [stored.shape[a] - 1 if flip else 0 for a, flip in zip(axes, flips, strict=True)]
            index = [0, 0, 0]
            for a, c in zip(axes, corner, strict=True):
                index[a] = c
            assert np.array_equal(canonical[0, 0, 0], stored[tuple(index)])


def test_stored_order_of_a_picture() -> None:
    order, _ = picture_order((4, 5))
    for stored in (np.arange(20).reshape(4, 5), np.arange(60).reshape(4, 5, 3)):
        canonical = order.to_canonical(stored)
        assert canonical.shape == (1, *stored.shape)
        assert np.array_equal(order.to_stored(canonical), stored)
        assert np.shares_memory(order.to_stored(canonical), stored)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_views(plane: str) -> None:
    image = volume()
    axis = image.plane_axis(plane)
    assert image.slice_count(plane) == image.shape[axis]
    for index in range(image.slice_count(plane)):
        one = image.slice(index, plane)
        assert np.shares_memory(one.pixels, image.voxels)
        assert np.array_equal(one.pixels, np.take(image.voxels, index, axis))
        assert one.shape == one.pixels.shape
        assert one.spacing_mm == tuple(s for i, s in enumerate(image.spacing_mm) if i != axis)
        assert (one.plane, one.index, one.modality) == (plane, index, "mri")


@pytest.mark.parametrize("index", [-1, 7])
def test_slices_outside_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match="of 7"):
        volume().slice(index)


def test_volume_properties() -> None:
    image = volume()
    assert image.shape == (7, 6, 5)
    assert image.spacing_mm == (3, 2, 1)
    assert not image.is_rgb
    assert not image.is_2d
    colour = volume((1, 6, 7, 3))
    assert colour.is_rgb
    assert colour.slice(0).pixels.shape[-1] == 3


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        volume().name = "other"  # type: ignore[misc]
    prompt = Prompt("segment", "liver", region=Region(1, 2, 30, 40))
    assert len({prompt, Prompt("segment", "liver", region=Region(1, 2, 30, 40))}) == 1
    assert prompt.region is not None
    assert prompt.region.box == (1, 2, 30, 40)


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 11)])
def test_cropped_mask_round_trip(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, bool)
    mask[..., 2:5, 3:9] = True
    mask[..., 3, 4] = False
    cropped = CroppedMask.from_full(mask)
    assert cropped.crop.shape[-2:] == (3, 6)
    assert cropped.offset[-2:] == (2, 3)
    assert cropped.count == mask.sum()
    assert np.array_equal(cropped.full(), mask)
    assert np.array_equal(mask[cropped.box], cropped.crop)
    assert not np.shares_memory(cropped.crop, mask)


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 11)])
def test_empty_mask(shape: tuple[int, ...]) -> None:
    cropped = CroppedMask.from_full(np.zeros(shape, bool))
    assert cropped.crop.size == 0
    assert cropped.count == 0
    assert np.array_equal(cropped.full(), np.zeros(shape, bool))


def test_single_voxel_and_full_masks() -> None:
    one = np.zeros((4, 5, 6), bool)
    one[3, 4, 5] = True
    assert CroppedMask.from_full(one).offset == (3, 4, 5)
    assert CroppedMask.from_full(one).crop.shape == (1, 1, 1)
    whole = CroppedMask.from_full(np.ones((4, 5), bool))
    assert whole.offset == (0, 0)
    assert whole.crop.shape == (4, 5)
