"""Overlap of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |P and G| / (|P| + |G|) for boolean arrays of one shape; 1.0 where both are empty (Dice 1945).

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((predicted & truth).sum()) / total


def iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """|P and G| / |P or G| for boolean arrays of one shape; 1.0 where both are empty (Jaccard 1912).

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    union = int((predicted | truth).sum())
    return 1.0 if union == 0 else int((predicted & truth).sum()) / union
