"""Two targets on one pixel, and smoothing in 3D."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.hand_volumes import canonical_affine, cropped, volume_of
from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.aggregation import Aggregation, may_share, settle
from unibiomed_core.engine.volume.linking import LinkedMask, SliceMask
from unibiomed_core.engine.volume.postprocessing import smooth
from unibiomed_core.types import Phrase, Prediction, Prompt


def square(target: str, x: int, score: float, size: int = 10) -> SliceMask:
    mask = np.zeros((40, 40), bool)
    mask[5 : 5 + size, x : x + size] = True
    return SliceMask(3, target, target, score, cropped(mask))


@pytest.mark.parametrize(
    ("first", "second", "modality", "shared"),
    [
        ("liver", "spleen", "ct", False),
        ("right kidney", "liver", "mri", False),
        ("lung tumour", "lung", "ct", True),  # a finding in an organ
        ("lung tumour", "lesion", "ct", True),  # one kind of the other
        ("enhancing tumour", "brain tumour", "mri", True),  # a part of a part
        ("enhancing tumour", "peritumoural oedema", "mri", False),
        ("left upper lobe", "lung", "mri", True),
        ("left upper lobe", "left lower lobe", "mri", False),
        ("liver", "my own words", "ct", True),
        ("left lung", "cardiomediastinum", "xray", True),  # depth in one plane
        ("liver", "liver", "ct", True),
    ],
)
def test_who_may_be_in_one_place(first: str, second: str, modality: str, shared: bool) -> None:
    assert may_share(first, second, modality) is shared
    assert may_share(second, first, modality) is shared


def test_wholes_are_targets_and_lead_nowhere_back() -> None:
    known = vocabulary.targets()
    for name, target in known.items():
        assert set(target.within) <= known.keys()
        assert name not in vocabulary.wholes(name)
    assert vocabulary.wholes("enhancing tumour") == {"tumour core", "brain tumour"}


def test_the_higher_score_gets_what_both_claim() -> None:
    masks = [square("liver", 0, 0.6), square("spleen", 6, 0.9)]
    (liver, spleen), contested = settle(masks, "ct")
    assert np.array_equal(spleen.mask.full(), masks[1].mask.full())
    assert np.array_equal(liver.mask.full(), masks[0].mask.full() & ~masks[1].mask.full())
    assert contested == {("spleen", "liver"): 40}
    assert masks[0].mask.count == 100, "what came in is left alone"


def test_at_equal_scores_the_smaller_one_wins() -> None:
    large, small = square("liver", 0, 0.8, 12), square("spleen", 4, 0.8, 6)
    settled, _ = settle([large, small], "ct")
    assert [m.mask.count for m in settled] == [144 - 36, 36]


def test_a_mask_without_a_pixel_left_is_gone() -> None:
    settled, contested = settle([square("liver", 0, 0.9, 12), square("spleen", 4, 0.2, 6)], "ct")
    assert [m.target for m in settled] == ["liver"]
    assert contested == {("liver", "spleen"): 36}


def test_only_what_another_kept_is_taken_away() -> None:
    """The stomach loses a place to the liver, so the spleen need not give it to the stomach as well."""
    masks = [square("liver", 0, 0.9), square("stomach", 6, 0.8), square("spleen", 14, 0.7), square("lesion", 2, 0.95)]
    settled, contested = settle(masks, "ct")
    assert {m.target: m.mask.count for m in settled} == {"liver": 100, "stomach": 60, "spleen": 80, "lesion": 100}
    assert contested == {("liver", "stomach"): 40, ("stomach", "spleen"): 20}


def test_contested_voxels_are_told_in_millilitres() -> None:
    volume = volume_of(np.zeros((8, 40, 40), np.int16), canonical_affine((5.0, 2.0, 2.0)))
    aggregation = Aggregation()
    masks = [square("liver", 0, 0.6), square("spleen", 6, 0.9)]
    answers = [
        Prediction(
            Prompt("segment", m.target), "axial", 3, m.target, "", (Phrase(m.target, 0, 5, m.score, m.mask, m.target),)
        )
        for m in masks
    ]
    aggregation.take(3, answers, "ct")
    assert [note.text for note in aggregation.contest_notes(volume)] == [
        "0.800 mL claimed by both 'spleen' and 'liver' went to 'spleen', which had the higher score there."
    ]
    assert aggregation.positive([answers[0].prompt]) == {3}
    assert aggregation.searched == {"liver": {3}, "spleen": {3}}


def ball(spacing_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    shape = tuple(int(60 / s) for s in spacing_mm)
    index = np.moveaxis(np.indices(shape), 0, -1) * spacing_mm
    return np.linalg.norm(index - np.array(shape) * spacing_mm / 2, axis=-1) < radius_mm


def test_smoothing_takes_slice_steps_away_and_keeps_the_size() -> None:
    spacing = (4.0, 1.0, 1.0)
    truth = ball(spacing, 18.0)
    volume = volume_of(np.zeros(truth.shape, np.int16), canonical_affine(spacing))
    rough = truth.copy()
    for z in range(len(rough)):
        rough[z] = np.roll(truth[z], 2 if z % 2 else -2, axis=1)  # each slice off by 2 mm, to and fro
    thing = LinkedMask("liver", "liver", 0.9, cropped(rough), "axial", (4, 5), ((4, 0.9),))
    smoothed = smooth(thing, volume, 3.0)
    off = (rough ^ truth).sum(), (smoothed.mask.full() ^ truth).sum()
    assert off[1] < 0.8 * off[0]
    assert smoothed.mask.count == pytest.approx(truth.sum(), rel=0.01)
    assert smoothed.flags == ("smoothed",)
    assert smoothed.slices == tuple(np.flatnonzero(smoothed.mask.full().any(axis=(1, 2))))
    assert smoothed.mask.shape == volume.shape


def test_smoothing_stays_inside_the_image_and_erases_nothing() -> None:
    volume = volume_of(np.zeros((10, 20, 20), np.int16), canonical_affine((2.0, 1.0, 1.0)))
    half = np.zeros(volume.shape, bool)
    half[:, :, :10] = True
    thing = LinkedMask("liver", "liver", 0.9, cropped(half), "axial", tuple(range(10)), ((4, 0.9),))
    assert np.array_equal(smooth(thing, volume, 3.0).mask.full(), half), "a flat outline stays where it is"
    thin = np.zeros(volume.shape, bool)
    thin[5, 8:12, 10] = True
    small = replace(thing, mask=cropped(thin))
    assert smooth(small, volume, 3.0).mask.count >= 4
