"""Answers that are one of a few: their accuracy, and how far stated probabilities can be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases whose stated probability lies in [low, high), the last one 1 included.

    Args:
        stated: Mean stated probability; NaN where there is no case.
        found: Share of the cases that are there; NaN where there is no case.
    """

    low: float
    high: float
    count: int
    stated: float
    found: float


def reliability(
    probabilities: Sequence[float] | NDArray[np.float64], present: Sequence[bool] | NDArray[np.bool_], bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Stated against found, in bins of equal width."""
    values, there = np.asarray(probabilities, float), np.asarray(present, bool)
    own = np.minimum((values * bins).astype(int), bins - 1)
    made = []
    for number in range(bins):
        inside = own == number
        count = int(inside.sum())
        stated, found = (float(v[inside].mean()) if count else float("nan") for v in (values, there))
        made.append(ReliabilityBin(number / bins, (number + 1) / bins, count, stated, found))
    return tuple(made)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean distance of stated from found over all cases (Naeini et al. 2015); NaN for none."""
    filled = [b for b in bins if b.count]
    total = sum(b.count for b in filled)
    return sum(b.count * abs(b.stated - b.found) for b in filled) / total if total else float("nan")


def log_loss(
    probabilities: Sequence[float] | NDArray[np.float64], present: Sequence[bool] | NDArray[np.bool_]
) -> float:
    """Mean negative log-likelihood, natural logarithm; probabilities nearer to 0 or 1 than 1e-6 count as that."""
    values, there = np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6), np.asarray(present, bool)
    return float(-np.log(np.where(there, values, 1 - values)).mean())
