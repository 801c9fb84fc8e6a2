"""Accuracy of answers that are one of a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: Sequence[str], truth: Sequence[str]) -> float:
    """Share of equal answers, letter case and outer spaces ignored; NaN for none."""
    pairs = list(zip(predicted, truth, strict=True))
    if not pairs:
        return float("nan")
    return sum(p.strip().lower() == t.strip().lower() for p, t in pairs) / len(pairs)


def majority(answers: Sequence[str]) -> str:
    """The commonest answer; the first seen of several equally common ones."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def balanced_threshold(scores: Sequence[float], present: Sequence[bool]) -> tuple[float, float]:
    """The threshold of highest balanced accuracy ((sensitivity + specificity) / 2), midway between two scores.

    Returns:
        The threshold and its balanced accuracy; 0.5 and 0.5 where one of the classes is missing.
    """
    values, there = np.asarray(scores, float), np.asarray(present, bool)
    if not there.any() or there.all():
        return 0.5, 0.5
    edges = np.unique(values)
    candidates = np.concatenate([[edges[0] / 2], (edges[1:] + edges[:-1]) / 2])
    rates = [((values >= c)[there].mean() + (values < c)[~there].mean()) / 2 for c in candidates]
    return float(candidates[int(np.argmax(rates))]), float(max(rates))


def auc(scores: Sequence[float] | NDArray[np.float64], present: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Area under the ROC curve; NaN where one of the classes is missing.

    From the rank sum, ties counted half (Hanley and McNeil 1982): fast enough for a thousand resamplings.
    """
    from scipy.stats import rankdata

    there = np.asarray(present, bool)
    positive, negative = int(there.sum()), int((~there).sum())
    if not positive or not negative:
        return float("nan")
    ranks = float(rankdata(np.asarray(scores, float))[there].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)
