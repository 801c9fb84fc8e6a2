"""Metrics on cases whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unibiomed_core.metrics import published
from unibiomed_core.metrics.froc import sensitivities
from unibiomed_core.metrics.labels import accuracy, auc, balanced_threshold, majority
from unibiomed_core.metrics.overlap import dice, iou
from unibiomed_core.metrics.statistics import case_interval, paired_t, ratio_intervals, resampled_interval
from unibiomed_core.metrics.surface import hausdorff_95, surface_counts, surface_dice, surface_distances
from unibiomed_core.metrics.words import bleu, meteor, rouge_l, tokens


def square(top: int, left: int, side: int = 6, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_overlap_of_known_masks() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b) == iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)
    assert iou(a, b) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="shapes differ"):
        dice(a, b[:2])


def test_surfaces_of_shifted_squares_are_as_far_apart_as_the_shift() -> None:
    a, b = square(5, 5), square(5, 8)
    there, back = surface_distances(a, b, (1.0, 1.0))
    assert len(there) == len(back) == 20  # 6 x 6 without its inner 4 x 4
    assert there.max() == back.max() == 3.0
    assert hausdorff_95(a, b, (1.0, 1.0)) == 3.0
    assert hausdorff_95(a, b, (1.0, 0.5)) == 1.5
    assert surface_dice(a, b, (1.0, 1.0), 3.0) == 1.0
    near, total = surface_counts(a, b, (1.0, 1.0), 0.0)
    # Rows 5 and 10 share columns 8 to 10; of the sides only the crossings lie on the other contour.
    assert (near, total) == (12, 40)
    assert surface_dice(a, a, (1.0, 1.0), 0.0) == 1.0


def test_surfaces_in_volumes_use_the_distance_of_slices() -> None:
    a, b = np.zeros((9, 8, 8), bool), np.zeros((9, 8, 8), bool)
    a[2, 2:6, 2:6], b[4, 2:6, 2:6] = True, True
    assert hausdorff_95(a, b, (2.5, 1.0, 1.0)) == 5.0
    assert surface_dice(a, b, (2.5, 1.0, 1.0), 4.9) == 0.0


def test_surfaces_of_empty_masks() -> None:
    full, empty = square(2, 2), np.zeros((20, 20), bool)
    assert surface_dice(empty, empty, (1.0, 1.0), 2.0) == 1.0
    assert hausdorff_95(empty, empty, (1.0, 1.0)) == 0.0
    for a, b in ((full, empty), (empty, full)):
        assert surface_dice(a, b, (1.0, 1.0), 2.0) == 0.0
        assert hausdorff_95(a, b, (1.0, 1.0)) == math.inf
    with pytest.raises(ValueError, match="shapes differ"):
        surface_distances(full, empty, (1.0, 1.0, 1.0))


def test_a_mask_at_the_edge_has_a_contour_there() -> None:
    whole = np.ones((4, 4), bool)
    assert surface_counts(whole, whole, (1.0, 1.0), 0.0) == (24, 24)


def test_labels() -> None:
    assert accuracy(["Yes ", "no"], ["yes", "yes"]) == 0.5
    assert np.isnan(accuracy([], []))
    assert majority(["a", "b", "b"]) == "b"
    assert auc([0.1, 0.9], [False, True]) == 1.0
    assert auc([0.5, 0.5, 0.5], [False, True, True]) == 0.5
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert np.isnan(auc([0.1, 0.9], [True, True]))


def test_threshold_is_where_the_classes_part() -> None:
    threshold, rate = balanced_threshold([0.1, 0.2, 0.3, 0.8], [False, False, True, True])
    assert 0.2 < threshold < 0.3
    assert rate == 1.0
    assert balanced_threshold([0.4, 0.6], [True, True]) == (0.5, 0.5)


def test_words_count_without_case_and_punctuation() -> None:
    assert tokens("A small, T2-bright lesion: 3.5 cm.") == ["a", "small", "t2-bright", "lesion", "3.5", "cm"]


def test_bleu_is_that_of_its_formula() -> None:
    same = "a small polyp in the upper left"
    assert bleu([same.upper()], [same + "."]) == pytest.approx((1, 1, 1, 1))
    # 3 of 4 words, 1 of 3 pairs; as long as the reference, so no penalty.
    one, two, three, four = bleu(["the small red polyp"], ["the large red polyp"])
    assert one == pytest.approx(0.75)
    assert two == pytest.approx(math.sqrt(0.75 / 3))
    assert three == four == 0.0
    # An empty or short answer takes nothing but its length away: 2 of 2 words, 2 against 4.
    assert bleu(["the polyp", ""], ["the polyp", "it lies"])[0] == pytest.approx(math.exp(-1))
    assert bleu(["polyp", "the polyp"], ["polyp", "the polyp"])[1] == pytest.approx(1)
    # Half as long: every word right, exp(1 - 2) off.
    assert bleu(["the polyp"], ["the polyp lies left"])[0] == pytest.approx(math.exp(-1))
    assert bleu([""], ["a polyp"]) == (0, 0, 0, 0)
    assert all(math.isnan(b) for b in bleu([], []))


def test_rouge_is_the_longest_common_subsequence() -> None:
    # "the red polyp" of 4 and 4 words: precision and recall 3 / 4.
    assert rouge_l("the small red polyp", "the large red polyp") == pytest.approx(0.75)
    # "polyp" of 1 and 2 words: precision 1, recall 1 / 2, beta 1.2.
    assert rouge_l("polyp", "a polyp") == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))
    assert rouge_l("polyp", "liver") == rouge_l("", "liver") == rouge_l("polyp", "") == 0.0
    assert rouge_l("", "") == 1.0


def test_meteor_matches_stems_and_counts_fragments() -> None:
    # Two matches in one chunk: 1 - 0.5 * (1 / 2) ** 3.
    assert meteor("two polyps", "two polyp") == pytest.approx(1 - 0.5 / 8)
    assert meteor("polyps two", "two polyp") == pytest.approx(0.5)
    assert meteor("", "two polyps") == meteor("liver", "two polyps") == 0.0
    assert meteor("", "") == 1.0


def test_published_cleaning() -> None:
    assert published.clean("<p> polyp. one  polyp </p> [SEG]<|end|>") == "polyp. one polyp"


def test_published_disease_rule_is_a_substring_and_leaves_other_counts_out() -> None:
    raw = "It is [SEG]. Large breast lesion in breast ultrasound.<|end|>"
    assert published.disease_hits(raw, ["breast lesion in breast ultrasound"]) == [True]
    assert published.disease_hits(raw, ["polyp"]) == [False]
    assert published.disease_hits(raw, ["polyp", "lesion"]) is None
    assert published.disease_hits("no mark at all.", ["polyp"]) is None


def test_published_region_rule_ignores_the_side() -> None:
    assert published.roi_hit("left kidney in abdomen CT", "right kidney in abdomen ct")
    assert published.roi_hit("liver in the ct", "liver in abdomen ct")
    assert not published.roi_hit("liver in abdomen mri", "liver in abdomen ct")
    assert not published.roi_hit("spleen in abdomen ct", "liver in abdomen ct")
    assert not published.roi_hit("", "liver in abdomen ct")


def test_intervals_resample_cases_not_pictures() -> None:
    values = [0.0] * 10 + [1.0] * 10
    as_pictures = case_interval(values, [str(i) for i in range(20)])
    as_two_cases = case_interval(values, ["a"] * 10 + ["b"] * 10)
    assert as_two_cases == (0.0, 1.0)
    assert 0.2 < as_pictures[0] < 0.5 < as_pictures[1] < 0.8
    assert case_interval(values, [str(i) for i in range(20)]) == as_pictures
    assert all(math.isnan(bound) for bound in case_interval(values, ["a"] * 20))
    assert all(math.isnan(bound) for bound in case_interval([], []))


def test_any_statistic_can_be_resampled_within_data_sets() -> None:
    values = np.array([0.0, 1.0, 5.0, 5.0])
    low, high = resampled_interval(["a", "b", "c", "d"], ["x", "x", "y", "y"], lambda rows: float(values[rows].mean()))
    assert (low, high) == (2.5, 3.0)  # half of every draw is 5


def test_paired_t_test() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / sqrt 3), two degrees of freedom.
    assert paired_t([1, 2, 3], [2, 4, 6]) == pytest.approx(0.0742, abs=1e-4)
    assert paired_t([1, 2], [1, 2]) == 1.0
    assert paired_t([1, 2], [2, 3]) == 0.0
    assert math.isnan(paired_t([1], [2]))
    with pytest.raises(ValueError, match="not matched"):
        paired_t([1, 2], [1])


def test_froc_by_hand() -> None:
    scores, pictures = np.array([0.9, 0.8, 0.7, 0.7, 0.5]), np.array([0, 1, 0, 1, 2])
    hits, lesions = np.array([True, False, True, False, True]), np.array([2, 1, 1, 0])
    # 4 pictures, 4 lesions: 0.9 finds 1 at rate 0, 0.8 adds a false one, both at 0.7 count together, 0.5 finds a third.
    assert sensitivities(scores, hits, pictures, lesions, at=(0.0, 0.25, 0.49, 0.5, 8)) == [
        0.25,
        0.25,
        0.25,
        0.75,
        0.75,
    ]
    # The first picture drawn twice, the second never: 5 lesions, no false mark.
    times = np.array([2, 0, 1, 1])
    assert sensitivities(scores, hits, pictures, lesions, times, at=(0.0,)) == [1.0]
    assert math.isnan(sensitivities(scores, hits, pictures, np.zeros(4, np.int64), at=(1,))[0])
    none = np.zeros(0)
    assert sensitivities(none, none.astype(bool), none.astype(np.int64), lesions, at=(1,)) == [0.0]


def test_intervals_of_ratios_resample_cases() -> None:
    rng = np.random.default_rng(4)
    values = rng.random(20)
    names = [str(i) for i in range(20)]
    ((low, high),) = ratio_intervals(values[:, None], np.ones((20, 1)), names, ["a"] * 20)
    expected = case_interval(values.tolist(), names)
    # Two draws of 1000: the bounds of a mean of 20 are known to about a tenth of its standard error of 0.06.
    assert (low, high) == pytest.approx(expected, abs=0.02)

    # A set in which all patients are alike has no spread; within sets no draw mixes them.
    above, below = np.array([[1.0], [1.0], [0.0], [0.0]]), np.ones((4, 1))
    assert ratio_intervals(above, below, ["a", "b", "c", "d"], ["x", "x", "y", "y"]) == [(0.5, 0.5)]
    # Draws without anything to divide by are left out, and one patient tells no spread.
    assert ratio_intervals(above, above, ["a", "a", "c", "d"], ["x"] * 4) == [(1.0, 1.0)]
    assert all(math.isnan(bound) for bound in ratio_intervals(above, below, ["a"] * 4, ["x"] * 4)[0])


def test_one_case_a_data_set_tells_no_spread() -> None:
    names, sets = ["a", "b", "c", "d"], ["x", "y", "z", "w"]
    values = np.array([[1.0], [1.0], [0.0], [0.0]])
    assert all(math.isnan(bound) for bound in ratio_intervals(values, np.ones((4, 1)), names, sets)[0])
    assert all(math.isnan(b) for b in resampled_interval(names, sets, lambda drawn: float(values[drawn].mean())))
