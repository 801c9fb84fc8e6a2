"""Free-response ROC: how many lesions are found at so many false marks a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FALSE_A_PICTURE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Operating points of the LUNA16 challenge (Setio et al. 2017), the mean over which is one number for a curve."""


def sensitivities(
    scores: NDArray[np.float64],
    hits: NDArray[np.bool_],
    pictures: NDArray[np.int64],
    lesions: NDArray[np.int64],
    times: NDArray[np.int64] | None = None,
    at: Sequence[float] = FALSE_A_PICTURE,
) -> list[float]:
    """Share of the lesions that are found where marks are kept from the highest score on, down to each false rate.

    Marks of one score are kept or left together. A curve that ends before a rate stays at what it had reached.

    Args:
        scores: (marks,) how sure each is.
        hits: (marks,) whether it is on a lesion that no surer mark is on.
        pictures: (marks,) number of its picture.
        lesions: (pictures,) how many each has; a picture without any counts for the rate of false marks.
        times: (pictures,) how often each picture counts, for bootstrap draws; None for once.
        at: False marks a picture.

    Returns:
        One sensitivity, 0..1, for each of ``at``; NaN where there is no lesion.
    """
    weights = np.ones(len(lesions), np.int64) if times is None else times
    total = int((lesions * weights).sum())
    if not total:
        return [float("nan")] * len(at)
    order = np.argsort(-scores, kind="stable")
    own = weights[pictures[order]]
    found, false = np.cumsum(own * hits[order]), np.cumsum(own * ~hits[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(order) else order
    rates = false[ends] / weights.sum()
    return [float(found[ends][rates <= most].max(initial=0) / total) for most in at]
