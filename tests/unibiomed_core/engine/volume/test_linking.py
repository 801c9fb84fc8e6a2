"""Masks of slices become things: joined across gaps, kept apart where they are apart, filled only where stated."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.hand_volumes import canonical_affine, cropped, picture_of, tilted, volume_of
from unibiomed_core.engine.volume.linking import SliceMask, findings, link, presence
from unibiomed_core.types import Plane, Volume

SHAPE = (30, 64, 64)


@pytest.fixture
def volume() -> Volume:
    return volume_of(np.zeros(SHAPE, np.int16), canonical_affine((2.0, 1.0, 1.0)))


def square(index: int, y: int, x: int, size: int = 8, target: str = "lesion", score: float = 0.9) -> SliceMask:
    mask = np.zeros(SHAPE[1:], bool)
    mask[y : y + size, x : x + size] = True
    return SliceMask(index, target, f"{target} words", score, cropped(mask))


def test_neighbours_that_overlap_are_one_thing(volume: Volume) -> None:
    things, specks = link([square(z, 10 + z, 10) for z in (7, 5, 6)], volume)
    assert specks == 0
    assert len(things) == 1
    full = things[0].mask.full()
    expected = np.zeros(SHAPE, bool)
    for z in (5, 6, 7):
        expected[z, 10 + z : 18 + z, 10:18] = True
    assert np.array_equal(full, expected)
    assert things[0].slices == (5, 6, 7)
    assert things[0].flags == ()


def test_a_gap_within_the_limit_is_bridged_and_stays_empty(volume: Volume) -> None:
    things, _ = link([square(5, 10, 10), square(8, 10, 10)], volume, visited=range(30))
    assert len(things) == 1  # 6 mm apart
    assert things[0].slices == (5, 8)
    assert things[0].mask.count == 128
    apart, _ = link([square(5, 10, 10), square(10, 10, 10)], volume, visited=range(30))
    assert [thing.slices for thing in apart] == [(5,), (10,)]
    assert all(thing.flags == ("one_slice",) for thing in apart)


def test_two_steps_are_bridged_on_thick_slices() -> None:
    thick = volume_of(np.zeros(SHAPE, np.int16), canonical_affine((8.0, 1.0, 1.0)))
    assert len(link([square(5, 10, 10), square(7, 10, 10)], thick)[0]) == 1
    assert len(link([square(5, 10, 10), square(8, 10, 10)], thick)[0]) == 2


def test_nearness_in_the_plane_counts_in_millimetres(volume: Volume) -> None:
    assert len(link([square(5, 10, 10), square(6, 10, 22)], volume)[0]) == 1  # centres of the edges 5 mm apart
    assert len(link([square(5, 10, 10), square(6, 10, 23)], volume)[0]) == 2
    coarse = volume_of(np.zeros(SHAPE, np.int16), canonical_affine((2.0, 1.0, 3.0)))
    assert len(link([square(5, 10, 10), square(6, 10, 19)], coarse)[0]) == 2  # two pixels, 6 mm
    assert len(link([square(5, 10, 10), square(6, 19, 10)], coarse)[0]) == 1  # two pixels, 2 mm


def test_two_pieces_on_one_slice_are_two_things_unless_another_slice_joins_them(volume: Volume) -> None:
    pieces = [square(5, 10, 10), square(5, 10, 20)]
    assert len(link(pieces, volume)[0]) == 2
    bridge = np.zeros(SHAPE[1:], bool)
    bridge[12:14, 8:30] = True
    joined, _ = link([*pieces, SliceMask(6, "lesion", "lesion", 0.4, cropped(bridge))], volume)
    assert len(joined) == 1
    assert joined[0].mask.count == 64 + 64 + 44


def test_targets_stay_apart_and_synonyms_meet(volume: Volume) -> None:
    masks = [square(5, 10, 10, target="liver"), square(6, 10, 10, target="spleen", size=9)]
    assert [thing.target for thing in link(masks, volume)[0]] == ["spleen", "liver"]
    same = [square(5, 10, 10, target="brain tumour"), square(6, 10, 10, target="Brain tumor.")]
    assert [thing.target for thing in link(same, volume)[0]] == ["brain tumour"]


def test_specks_are_counted_not_kept(volume: Volume) -> None:
    mask = np.zeros(SHAPE[1:], bool)
    mask[10:20, 10:20] = True
    mask[40, 40] = mask[50, 50] = True
    things, specks = link([SliceMask(5, "lesion", "lesion", 0.9, cropped(mask))], volume)
    assert specks == 2
    assert things[0].mask.count == 100
    picture = picture_of(np.zeros((64, 64), np.uint8))
    small, specks = link([square(0, 3, 3, size=2), square(0, 30, 30, size=3)], picture)
    assert [thing.mask.count for thing in small] == [9]
    assert specks == 1
    assert small[0].flags == ()  # a picture has one slice only, which says nothing


def test_every_third_slice_is_filled_by_interpolation(volume: Volume) -> None:
    centre = np.indices(SHAPE[1:]) - 32

    def disc(z: int) -> NDArray[np.bool_]:
        return np.hypot(*centre) <= 12 - abs(z - 12) / 2

    masks = [SliceMask(z, "lesion", "lesion", 0.9, cropped(disc(z))) for z in (6, 9, 12, 15, 18)]
    things, _ = link(masks, volume, visited=range(0, 30, 3), every=3)
    assert len(things) == 1
    assert things[0].flags == ("interpolated",)
    assert things[0].slices == tuple(range(6, 19))
    assert [z for z, _ in things[0].scores] == [6, 9, 12, 15, 18]
    full = things[0].mask.full()
    for z in range(6, 19):
        difference = full[z] ^ disc(z)
        assert difference.sum() <= np.pi * (12 - abs(z - 12) / 2)  # half a pixel all around


def test_visited_slices_without_a_mask_are_never_filled(volume: Volume) -> None:
    masks = [square(z, 10, 10) for z in (6, 12)]
    things, _ = link(masks, volume, visited=range(0, 30, 3), every=3)
    assert [thing.slices for thing in things] == [(6, 12)]
    assert things[0].flags == ()
    assert len(link([square(6, 10, 10), square(15, 10, 10)], volume, visited=range(0, 30, 3), every=3)[0]) == 2


def test_masks_that_do_not_overlap_are_filled_by_the_nearer(volume: Volume) -> None:
    things, _ = link([square(6, 10, 10), square(9, 10, 20)], volume, visited=[6, 9], every=3)
    full = things[0].mask.full()
    assert np.array_equal(full[7], full[6])
    assert np.array_equal(full[8], full[9])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_plane_gives_canonical_masks(plane: Plane) -> None:
    volume = volume_of(np.zeros((20, 26, 32), np.int16), tilted(canonical_affine((2, 1.5, 1)), (5, 6, 7)))
    body = np.zeros(volume.shape, bool)
    body[5:15, 8:20, 10:25] = True
    body[9, 12, 15] = False
    axis = volume.plane_axis(plane)
    masks = [
        SliceMask(i, "lesion", "lesion", 0.9, cropped(np.take(body, i, axis=axis)))
        for i in range(volume.shape[axis])
        if np.take(body, i, axis=axis).any()
    ]
    things, _ = link(masks, volume, plane)
    assert len(things) == 1
    assert np.array_equal(things[0].mask.full(), body)
    assert things[0].slices == tuple(int(i) for i in np.unique(np.nonzero(body)[axis]))


def test_order_is_by_size_and_does_not_depend_on_the_order_given(volume: Volume) -> None:
    masks = [square(3, 5, 5), square(20, 40, 40, size=12), square(21, 40, 40, size=12), square(10, 20, 50, size=5)]
    forward, backward = link(masks, volume)[0], link(masks[::-1], volume)[0]
    assert [t.mask.count for t in forward] == [288, 64, 25]
    assert [t.mask.offset for t in forward] == [t.mask.offset for t in backward]


def test_presence_is_the_mean_of_the_three_best_slices() -> None:
    assert presence([0.7]) == pytest.approx(0.7)
    assert presence([0.1, 0.9, 0.2, 0.8, 0.7]) == pytest.approx(0.8)


def test_findings_are_measured_numbered_and_flagged(volume: Volume) -> None:
    masks = [square(z, 20, 40, target="left kidney") for z in (5, 6)]
    masks += [square(20, 0, 0, score=0.2)]
    found = findings(link(masks, volume)[0], volume)
    assert [f.number for f in found] == [1, 2]
    assert found[0].measurements.volume_ml == pytest.approx(0.256)
    assert found[0].measurements.side == "left"
    assert found[0].phrase == "left kidney words"
    assert found[1].flags == ("one_slice", "touches_edge", "low_score")


def test_crops_only_are_kept(volume: Volume) -> None:
    things, _ = link([square(z, 10, 10) for z in range(5, 9)], volume)
    assert things[0].mask.crop.shape == (4, 8, 8)
    assert things[0].mask.crop.dtype == bool
    assert things[0].mask.crop.base is None or things[0].mask.crop.base.size == 4 * 8 * 8
