"""How sure a number is: intervals that resample cases, and the paired test between two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 95.0


def mean(values: Iterable[float]) -> float:
    """Mean; NaN for none, and NaN values count as NaN."""
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def case_interval(values: Sequence[float], cases: Sequence[str]) -> tuple[float, float]:
    """95 % percentile interval of the mean when whole cases are drawn with replacement (cluster bootstrap).

    Args:
        values: One number a picture.
        cases: The case (patient) of each; the pictures of one case are drawn together.

    Returns:
        Lower and upper bound from 1000 draws of a fixed seed; NaN for fewer than two cases, which tell no spread.
    """
    if len(set(cases)) < 2:
        return float("nan"), float("nan")
    _, place = np.unique(np.asarray(cases), return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    return _bounds(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))


def ratio_intervals(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], cases: Sequence[str], strata: Sequence[str]
) -> list[tuple[float, float]]:
    """As :func:`resampled_interval`, for ratios of sums: precision, means of some rows, F1 and the like.

    Args:
        numerators: (rows, ratios).
        denominators: (rows, ratios); a draw in which they sum to 0 is left out.
        cases: The case of each row.
        strata: The data set of each row; each draw has as many cases of a data set as there are.

    Returns:
        Lower and upper bound of each ratio; NaN where no data set has two cases.
    """
    ratios = numerators.shape[1]
    if not _spread(cases, strata):
        return [(float("nan"), float("nan"))] * ratios
    both = np.hstack([numerators, denominators])
    names, own = np.asarray(cases), np.asarray(strata)
    rng = np.random.default_rng(0)
    sums = np.zeros((DRAWS, 2 * ratios))
    for stratum in np.unique(own):
        _, place = np.unique(names[own == stratum], return_inverse=True)
        of_cases = np.zeros((place.max() + 1, 2 * ratios))
        np.add.at(of_cases, place, both[own == stratum])
        times = rng.multinomial(len(of_cases), np.full(len(of_cases), 1 / len(of_cases)), size=DRAWS)
        sums += times @ of_cases
    with np.errstate(invalid="ignore", divide="ignore"):
        found = sums[:, :ratios] / np.where(sums[:, ratios:] == 0, np.nan, sums[:, ratios:])
    return [_bounds(column) for column in found.T]


def resampled_interval(
    cases: Sequence[str], strata: Sequence[str], statistic: Callable[[NDArray[np.int64]], float]
) -> tuple[float, float]:
    """As :func:`case_interval`, for any statistic of the rows that a draw of cases gives.

    Args:
        cases: The case of each row.
        strata: The data set of each row; each draw has as many cases of a data set as there are.
        statistic: Row numbers, repeated where their case was drawn twice -> a number; NaN leaves the draw out.

    Returns:
        Lower and upper bound; NaN where no data set has two cases, as one is always drawn as it is.
    """
    if not _spread(cases, strata):
        return float("nan"), float("nan")
    names = list(zip(strata, cases, strict=True))
    rows: dict[tuple[str, str], list[int]] = {}
    for number, name in enumerate(names):
        rows.setdefault(name, []).append(number)
    pools: dict[str, list[NDArray[np.int64]]] = {}
    for (stratum, _), numbers in rows.items():
        pools.setdefault(stratum, []).append(np.asarray(numbers))
    rng = np.random.default_rng(0)
    found = [
        statistic(np.concatenate([pool[i] for pool in pools.values() for i in rng.integers(len(pool), size=len(pool))]))
        for _ in range(DRAWS)
    ]
    return _bounds(np.asarray(found, float))


def _spread(cases: Sequence[str], strata: Sequence[str]) -> bool:
    """Whether draws within data sets can differ at all."""
    pairs = set(zip(strata, cases, strict=True))
    return len(pairs) > len(set(strata))


def _bounds(found: NDArray[np.float64]) -> tuple[float, float]:
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def paired_t(first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]) -> float:
    """P value of the two-sided paired t-test on matched cases; NaN for fewer than two, 1.0 where all are equal."""
    from scipy.stats import ttest_rel

    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} cases are not matched")
    if len(a) < 2:
        return float("nan")
    differences = a - b
    if np.ptp(differences) == 0:  # the statistic divides by their deviation
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_rel(a, b).pvalue)
