"""Every way of counting, on shapes whose truth is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from tests.hand_volumes import canonical_affine, cropped, picture_of, volume_of
from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.counting import counted, singles, skeleton_length, tally, way_of, with_tallies
from unibiomed_core.engine.volume.linking import LinkedMask, SliceMask, findings, link
from unibiomed_core.types import Volume

SIDE = 256


def picture(modality: str = "xray") -> Volume:
    return picture_of(np.zeros((SIDE, SIDE), np.uint8), modality)


def disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found: NDArray[np.bool_] = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return found


def things(target: str, volume: Volume, *shapes: NDArray[np.bool_]) -> tuple[LinkedMask, ...]:
    mask = np.any(shapes, axis=0)
    return link([SliceMask(0, target, target, 0.9, cropped(mask))], volume)[0]


def test_an_organ_is_one_row_with_its_pieces_and_without_scraps() -> None:
    volume = picture()
    pieces = things("cardiomediastinum", volume, disc(100, 100, 30), disc(180, 100, 15), disc(20, 20, 3))
    assert len(pieces) == 3
    (one,), scraps = counted(pieces, volume)
    assert one.mask.count == (disc(100, 100, 30) | disc(180, 100, 15)).sum()
    assert scraps == Counter({"cardiomediastinum": 1})


def test_lungs_are_two_rows_each_with_the_pieces_beside_it() -> None:
    volume = picture()
    left, right, crumb, scrap = disc(120, 60, 40), disc(120, 190, 38), disc(200, 190, 12), disc(10, 128, 3)
    two, scraps = counted(things("lung fields", volume, left, right, crumb, scrap), volume)
    assert sorted(thing.mask.count for thing in two) == sorted((left.sum(), right.sum() + crumb.sum()))
    assert scraps.total() == 1


def test_a_scrap_is_no_second_lung() -> None:
    volume = picture()
    whole, _ = counted(things("lung fields", volume, disc(120, 120, 60), disc(20, 20, 14)), volume)
    assert len(whole) == 1


def test_lesions_are_rows_of_their_own_and_crumbs_belong_to_the_one_beside_them() -> None:
    volume = picture("ct")
    near, far, crumb, speck = disc(60, 60, 20), disc(190, 190, 6), disc(84, 60, 2), disc(20, 200, 2)
    rows, scraps = counted(things("lesion", volume, near, far, crumb, speck), volume)
    assert [row.mask.count for row in rows] == [near.sum() + crumb.sum(), far.sum()]
    assert scraps == Counter({"lesion": 1})


def test_small_lesions_of_a_volume_never_fall_away() -> None:
    volume = volume_of(np.zeros((12, 64, 64), np.int16), canonical_affine((3.0, 1.0, 1.0)))
    large, small = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    large[5:45, 5:45], small[56:60, 56:60] = True, True
    linked, _ = link([SliceMask(4, "lesion", "lesion", 0.9, cropped(large | small))], volume)
    rows, scraps = counted(linked, volume)
    assert [row.mask.count for row in rows] == [1600, 16]
    assert not scraps


@pytest.mark.parametrize("apart", [30, 17, 15])
def test_nuclei_are_one_row_that_counts_them_also_where_they_touch(apart: int) -> None:
    volume = picture("pathology")
    centres = [(y, x) for y in (40, 100, 160) for x in (40, 40 + apart, 150, 150 + apart)]
    nuclei = [disc(y, x, 9) for y, x in centres]
    (row,), scraps = counted(things("cell nucleus", volume, *nuclei), volume)
    assert not scraps
    told = tally(row.mask, "population", volume)
    assert told is not None
    assert told.instances == 12
    assert told.mean_area == pytest.approx(np.any(nuclei, axis=0).sum() / 12)
    assert told.density == pytest.approx(12 / SIDE**2 * 100**2)
    assert told.fraction == pytest.approx(np.any(nuclei, axis=0).mean())
    assert (told.unit, told.length) == ("px", None)


def test_vessels_are_one_row_with_share_and_length() -> None:
    volume = picture("fundus")
    lines = np.zeros((SIDE, SIDE), bool)
    lines[50:53, 20:220], lines[150:153, 20:120] = True, True
    (row,), _ = counted(things("retinal blood vessel", volume, lines), volume)
    told = tally(row.mask, "network", volume)
    assert told is not None
    assert told.length == pytest.approx(300, rel=0.02)
    assert told.fraction == pytest.approx(900 / SIDE**2)
    assert told.instances is None


def test_a_slanting_line_is_as_long_as_it_is() -> None:
    assert skeleton_length(np.eye(101, dtype=bool)) == pytest.approx(100 * np.sqrt(2))
    assert skeleton_length(np.zeros((5, 5), bool)) == 0


def test_sizes_are_in_millimetres_where_the_picture_has_them() -> None:
    volume = replace(picture("pathology"), affine=np.diag([1.0, 0.5, 0.5, 1.0]), spatial_unit="mm")
    told = tally(cropped((disc(60, 60, 10) | disc(60, 120, 10))[None]), "population", volume)
    assert told is not None
    assert (told.unit, told.density_side, told.instances) == ("mm", 1, 2)
    assert told.mean_area == pytest.approx(disc(60, 60, 10).sum() * 0.25)


def test_what_is_one_thing_has_no_tally() -> None:
    volume = picture()
    assert tally(cropped(disc(60, 60, 10)[None]), "several", volume) is None


def test_every_target_says_how_it_is_counted() -> None:
    assert {target.counted for target in vocabulary.targets().values()} == {
        "one", "pair", "several", "population", "network",
    }  # fmt: skip
    assert way_of("cell nuclei", "pathology") == "population"
    assert way_of("something of the user's own", "ct") == "several"


@given(st.lists(st.tuples(st.integers(5, 250), st.integers(5, 250), st.integers(1, 30)), min_size=1, max_size=8))
def test_rows_never_overlap_nor_gain_a_voxel(shapes: list[tuple[int, int, int]]) -> None:
    volume = picture()
    for target in ("cardiomediastinum", "lung fields", "consolidation", "cell nucleus"):
        pieces = things(target, volume, *(disc(*shape) for shape in shapes))
        rows, scraps = counted(pieces, volume)
        total = sum(row.mask.full().astype(int) for row in rows) if rows else np.zeros(1)
        assert np.max(total) <= 1
        union = np.any([piece.mask.full() for piece in pieces], axis=0) if pieces else np.zeros(1, bool)
        assert not (np.asarray(total, bool) & ~union).any()
        assert bool(rows) or scraps.total() == len(pieces)
        assert len(rows) <= {"cardiomediastinum": 1, "cell nucleus": 1, "lung fields": 2}.get(target, len(pieces))
        assert [f.number for f in findings(rows, volume)] == list(range(1, len(rows) + 1))


def test_scraps_of_a_structure_are_no_further_structures() -> None:
    """A nerve of 3353 pixels had a second row of 219; a lesion may be of any size."""
    volume = picture("ultrasound")
    pieces = (disc(60, 60, 30), disc(200, 200, 8))
    (nerve,), scraps = counted(things("nerve", volume, *pieces), volume)
    assert nerve.mask.count == pieces[0].sum()
    assert scraps == Counter({"nerve": 1})
    assert len(counted(things("breast lesion", volume, *pieces), volume)[0]) == 2


def test_single_cells_are_had_on_demand() -> None:
    volume = picture("pathology")
    touching = disc(60, 60, 14) | disc(60, 84, 14)
    population, _ = counted(things("cell nucleus", volume, touching, disc(180, 180, 14)), volume)
    (row,) = with_tallies(findings(population, volume), volume)
    assert row.tally is not None
    ones = singles(row, volume)
    assert [one.number for one in ones] == [1, 2, 3] == list(range(1, row.tally.instances + 1))
    together = np.zeros((1, SIDE, SIDE), int)
    for one in ones:
        together[one.mask.box] += one.mask.crop
    assert together.max() == 1, "no pixel belongs to two"
    assert np.array_equal(together > 0, row.mask.full())
    organ, _ = counted(things("cardiomediastinum", picture(), disc(100, 100, 30)), picture())
    assert singles(with_tallies(findings(organ, picture()), picture())[0], picture()) == ()


def test_a_thousand_lesions_are_one_row_that_counts_them() -> None:
    volume = picture()
    many = np.zeros((SIDE, SIDE), bool)
    many[4::12, 4::12] = True
    many = binary_dilation(many, iterations=4)
    (row,), _ = counted(things("consolidation", volume, many), volume)
    assert "told_together" in row.flags
    (told,) = with_tallies(findings([row], volume), volume)
    assert told.tally is not None
    assert told.tally.instances == 21 * 21
    few, _ = counted(things("consolidation", volume, disc(60, 60, 10), disc(200, 200, 10)), volume)
    assert len(few) == 2
