"""Overlap and label metrics on cases whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed_core.metrics.labels import accuracy, auc, balanced_threshold, majority
from unibiomed_core.metrics.overlap import dice, iou


def test_overlap_of_known_masks() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b) == iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)
    assert iou(a, b) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="shapes differ"):
        dice(a, b[:2])


def test_labels() -> None:
    assert accuracy(["Yes ", "no"], ["yes", "yes"]) == 0.5
    assert np.isnan(accuracy([], []))
    assert majority(["a", "b", "b"]) == "b"
    assert auc([0.1, 0.9], [False, True]) == 1.0
    assert np.isnan(auc([0.1, 0.9], [True, True]))


def test_threshold_is_where_the_classes_part() -> None:
    threshold, rate = balanced_threshold([0.1, 0.2, 0.3, 0.8], [False, False, True, True])
    assert 0.2 < threshold < 0.3
    assert rate == 1.0
    assert balanced_threshold([0.4, 0.6], [True, True]) == (0.5, 0.5)
