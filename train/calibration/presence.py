"""From object scores to presence probabilities and thresholds, judged on patients that a fit did not see.

The score of a model is brought to a probability by Platt scaling (one scale and offset for all targets) with an offset
a target, shrunk towards none. How strongly is chosen by the log loss on patients that a fit did not see, and
a target with few cases has no offset at all.

Legend: N cases, P offsets.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from unibiomed_core.metrics.labels import balanced_threshold, log_loss
from unibiomed_core.model.config import SURE, Presence

FOLDS = 5

MINIMUM_CASES = 8
"""A target gets an offset and a threshold of its own where at least so many cases have it and so many lack it."""

SHRINKAGES = (np.inf, 30.0, 10.0, 3.0)
"""Inverse variances of the offsets that are tried, the simplest rule (no offsets) first."""

THRESHOLD_CASES = 30
"""A target's own threshold and the one of all targets weigh alike at so many cases of its rarer answer."""

_SCALE_PRIOR = 1.0
"""Inverse variance of the scale around 1, which keeps it finite where a score tells everything."""

_SMALLEST_SCALE = 0.05
"""A score never counts against presence."""


@dataclass(frozen=True)
class Cases:
    """Presence questions and their answers.

    Args:
        scores: (N,) float64, 0..1, as the model gives them.
        present: (N,) bool, what is annotated.
        targets: (N,) names.
        patients: (N,) names.
    """

    scores: NDArray[np.float64]
    present: NDArray[np.bool_]
    targets: NDArray[np.str_]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, where: NDArray[np.bool_]) -> Cases:
        """The cases marked in (N,) bool."""
        return Cases(self.scores[where], self.present[where], self.targets[where], self.patients[where])

    @property
    def both(self) -> bool:
        """Whether something is there and something is not."""
        return bool(self.present.any() and not self.present.all())

    @property
    def rarer(self) -> dict[str, int]:
        """Target -> how many cases its rarer answer has."""
        found = {}
        for name in np.unique(self.targets):
            there = self.present[self.targets == name]
            found[str(name)] = int(min(there.sum(), (~there).sum()))
        return found


def fit(cases: Cases, shrinkage: float) -> Presence:
    """The likeliest rule, without thresholds; the plain scores where the cases are all there or all absent.

    Args:
        shrinkage: Inverse variance of the offsets around 0; infinite for none.
    """
    if not cases.both:
        return Presence("object")
    enough = [n for n, count in cases.rarer.items() if count >= MINIMUM_CASES] if np.isfinite(shrinkage) else []
    numbers = {name: number for number, name in enumerate(enough)}
    own = np.array([numbers.get(str(name), len(enough)) for name in cases.targets])  # the last one is nobody's
    values = logit(np.clip(cases.scores, SURE, 1 - SURE))

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, offset, offsets = x[0], x[1], np.append(x[2:], 0.0)
        logits = scale * values + offset + offsets[own]
        loss = np.logaddexp(0, np.where(cases.present, -logits, logits)).sum()
        prior = _SCALE_PRIOR * (scale - 1) ** 2 + (shrinkage * (x[2:] ** 2).sum() if enough else 0.0)
        wrong = expit(logits) - cases.present
        shares = np.bincount(own, wrong, len(enough) + 1)[:-1] + (shrinkage * x[2:] if enough else 0.0)
        slope = wrong @ values + _SCALE_PRIOR * (scale - 1)
        return float(loss + prior / 2), np.concatenate([[slope, wrong.sum()], shares])

    bounds = [(_SMALLEST_SCALE, None), *[(None, None)] * (1 + len(enough))]
    start = np.concatenate([[1.0], np.zeros(1 + len(enough))])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    offsets = {name: round(float(value), 4) for name, value in zip(enough, found[2:], strict=True)}
    return Presence("object", scale=round(float(found[0]), 4), offset=round(float(found[1]), 4), offsets=offsets)


def probabilities(rule: Presence, cases: Cases) -> NDArray[np.float64]:
    """(N,) what the rule states, as the engine does."""
    pairs = zip(cases.scores, cases.targets, strict=True)
    return np.array([rule.probability(float(score), str(name)) for score, name in pairs], np.float64)


def folds_of(patients: NDArray[np.str_]) -> NDArray[np.int64]:
    """(N,) number of the fold of each case, by the CRC-32 of its patient's name: one fold a patient."""
    return np.array([zlib.crc32(str(name).encode()) % FOLDS for name in patients], np.int64)


def cross_fitted(cases: Cases, shrinkage: float) -> NDArray[np.float64]:
    """(N,) what a rule fitted on other patients states of each."""
    folds = folds_of(cases.patients)
    stated = np.zeros(len(cases))
    for fold in np.unique(folds):
        mine = folds == fold
        stated[mine] = probabilities(fit(cases.take(~mine), shrinkage), cases.take(mine))
    return stated


def best_shrinkage(cases: Cases) -> float:
    """The one of ``SHRINKAGES`` with the lowest log loss on patients not fitted; of equal ones the simpler."""
    losses = [log_loss(cross_fitted(cases, s), cases.present) for s in SHRINKAGES]
    return SHRINKAGES[int(np.argmin(losses))]


def thresholds(rule: Presence, cases: Cases) -> tuple[float, dict[str, float]]:
    """The threshold of all targets, and those of targets with cases enough.

    Of a calibrated probability balanced accuracy is highest at the share of cases that are there, which depends
    on chance less than a search does; a target's own best one is drawn towards it by ``THRESHOLD_CASES``.
    """
    stated = probabilities(rule, cases)
    pooled = round(float(cases.present.mean()), 3)
    made = {}
    for name, count in cases.rarer.items():
        if count < MINIMUM_CASES:
            continue
        mine = cases.targets == name
        best, _ = balanced_threshold(stated[mine].tolist(), cases.present[mine].tolist())
        share = count / (count + THRESHOLD_CASES)
        drawn = expit(share * logit(np.clip(best, SURE, 1 - SURE)) + (1 - share) * logit(pooled))
        made[name] = round(float(drawn), 3)
    return pooled, made
