"""From checks to one probability of an abnormal finding, judged on patients that a fit did not see.

Logistic regression on the logits of the checks, whose weights are never negative (a check never counts against what it
agrees with) and are shrunk towards none. How strongly is chosen by the log loss on patients that a fit did not see; so
is the threshold below which a finding falls.

Legend: N cases, C checks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from unibiomed_core.metrics.labels import balanced_threshold, log_loss
from unibiomed_core.model.config import Fusion

from .checks import CODES, KEEPS_ALL, Rows
from .presence import folds_of
from .reliability import CHECKS, Stated, stated

STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
"""Inverse variances of the weights that are tried, the simplest rule (small weights) first."""

MOST_FALSE = 0.3
"""False rows a normal picture that a threshold should leave at most."""

LEAST_KEPT = 0.5
"""A threshold that costs more than the other half of the right rows is out of reach."""

MINIMUM_EACH = 20
"""Right rows, and wrong ones, that a fit needs."""

MINIMUM_PATIENTS = 10


@dataclass(frozen=True)
class Told:
    """What a threshold leaves of the rows of reports.

    Args:
        kept: Share of the right rows, 0..1.
        precision: Share of right ones among the rows of known truth that are left; NaN where none is.
        false_per_normal: Wrong rows a picture without any finding; NaN where there is no such picture.
    """

    kept: float
    precision: float
    false_per_normal: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values; None for what is not known."""
        return {name: None if math.isnan(value) else round(value, 4) for name, value in vars(self).items()}


@dataclass(frozen=True)
class FittedFusion:
    """A model's rule with how far it can be believed: findings by their masks alone and by all checks, on the same
    cases; after, each is stated by a rule that was fitted without its patient.

    Args:
        cases: Abnormal rows of known truth.
        started: Whether the run went on from trained weights, which may have seen any patient.
        strength: Inverse variance of the weights.
        all_told: Of the rows where nothing is dismissed.
        counted: Of those that stand where checks are counted.
        told: Of those that the threshold leaves.
    """

    rule: Fusion
    cases: int
    right: int
    patients: int
    pictures: int
    normal_pictures: int
    unknown: int
    started: bool
    strength: float
    before: Stated
    after: Stated
    all_told: Told
    counted: Told
    told: Told

    about = CHECKS
    titles = ("mask alone", "all checks")

    @property
    def origin(self) -> str:
        """One sentence on where the probabilities come from."""
        seen = ", though the weights it started from may have been" if self.started else ""
        return (
            f"checks fused on {self.cases} abnormal rows ({self.right} right) of {self.patients} patients, in reports "
            f"of {self.pictures} pictures that this run was not trained on{seen}"
        )

    @property
    def sentence(self) -> str:
        """The same with what it gives, for a model's facts."""
        return (
            f"{self.origin}; cross-validated log loss {self.before.log_loss:.2f} by the mask alone and "
            f"{self.after.log_loss:.2f} by all checks, AUC {self.before.auc:.2f} and {self.after.auc:.2f}; the "
            f"threshold keeps {self.told.kept:.2f} of the right rows and leaves {self.told.false_per_normal:.2f} false "
            f"rows a normal picture, of {self.all_told.false_per_normal:.2f} (counting which checks agree: "
            f"{self.counted.kept:.2f} and {self.counted.false_per_normal:.2f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the JSON file."""
        rule = {"weights": dict(self.rule.weights), "means": dict(self.rule.means)}
        names = ("cases", "right", "patients", "pictures", "normal_pictures", "unknown", "strength")
        return {
            "origin": self.origin,
            "started_from_trained_weights": self.started,
            **{name: getattr(self, name) for name in names},
            **rule,
            "offset": self.rule.offset,
            "threshold": self.rule.threshold,
            "before": {**self.before.to_dict(), **self.all_told.to_dict()},
            "counted": self.counted.to_dict(),
            "after": {**self.after.to_dict(), **self.told.to_dict()},
        }


def fitted(rows: Rows, started: bool) -> FittedFusion | None:
    """The rule of the best strength with its threshold; None where there are too few cases."""
    right, patients = int(rows.right.sum()), len(set(rows.patients.tolist()))
    if min(right, len(rows) - right) < MINIMUM_EACH or patients < MINIMUM_PATIENTS:
        return None
    strength = best_strength(rows)
    judged = cross_fitted(rows, strength)
    rule = fit(rows, strength)
    limit = threshold(judged, rows)
    return FittedFusion(
        Fusion(rule.weights, rule.means, rule.offset, limit),
        len(rows), right, patients, rows.pictures, rows.normal_pictures, rows.unknown, started, strength,
        stated(rows.presence, rows.right),
        stated(judged, rows.right),
        left(np.ones(len(rows), bool), rows),
        left(rows.counted, rows),
        left(judged >= limit, rows),
    )  # fmt: skip


def fit(rows: Rows, strength: float) -> Fusion:
    """The likeliest rule, without a threshold; one that leaves presence alone where all rows are right or all wrong.

    A check that was not made counts as its mean. Checks that never differ, and those that would count against what they
    agree with, have no weight.

    Args:
        strength: Inverse variance of the weights around 0, of logits in standard deviations.
    """
    if rows.right.all() or not rows.right.any():
        return KEEPS_ALL
    made = ~np.isnan(rows.logits)
    count = made.sum(axis=0)
    known = np.where(made, rows.logits, 0.0)
    means = known.sum(axis=0) / np.maximum(count, 1)
    centred = np.where(made, rows.logits - means, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / np.maximum(count, 1))
    used = np.flatnonzero(spread > 0)
    values = centred[:, used] / spread[used]

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = values @ x[1:] + x[0]
        loss = np.logaddexp(0, np.where(rows.right, -scores, scores)).sum()
        wrong = expit(scores) - rows.right
        slopes = wrong @ values + strength * x[1:]
        return float(loss + strength * (x[1:] ** 2).sum() / 2), np.concatenate([[wrong.sum()], slopes])

    bounds = [(None, None), *[(0.0, None)] * len(used)]
    found = minimize(objective, np.zeros(1 + len(used)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = {CODES[c]: round(float(w / spread[c]), 4) for c, w in zip(used, found[1:], strict=True)}
    counting = {code: weight for code, weight in weights.items() if weight > 0}
    return Fusion(
        counting,
        {code: round(float(means[CODES.index(code)]), 4) for code in counting},
        round(float(found[0]), 4),
    )


def probabilities(rule: Fusion, rows: Rows) -> NDArray[np.float64]:
    """(N,) what the rule states, as the engine does."""
    stated_by = []
    for presence, values in zip(rows.presence, rows.logits, strict=True):
        said = {code: float(value) for code, value in zip(CODES, values, strict=True) if not np.isnan(value)}
        stated_by.append(rule.probability(float(presence), said))
    return np.array(stated_by, np.float64)


def cross_fitted(rows: Rows, strength: float) -> NDArray[np.float64]:
    """(N,) what a rule fitted on other patients states of each."""
    folds = folds_of(rows.patients)
    judged = np.zeros(len(rows))
    for fold in np.unique(folds):
        mine = folds == fold
        judged[mine] = probabilities(fit(rows.take(~mine), strength), rows.take(mine))
    return judged


def best_strength(rows: Rows) -> float:
    """The one of ``STRENGTHS`` with the lowest log loss on patients not fitted; of equal ones the simpler."""
    losses = [log_loss(cross_fitted(rows, strength), rows.right) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def threshold(judged: NDArray[np.float64], rows: Rows) -> float:
    """The probability below which a finding falls.

    The lowest that leaves at most ``MOST_FALSE`` wrong rows a normal picture. Where this one would cost too many right
    rows (``LEAST_KEPT``), or none has to fall for it, that of the highest balanced accuracy.

    Args:
        judged: (N,) what rules fitted on other patients state.
    """
    wrong = np.sort(judged[~rows.right & rows.normal])[::-1]
    allowed = math.floor(MOST_FALSE * rows.normal_pictures)
    if len(wrong) > allowed:
        lowest = _above(float(wrong[allowed]))
        if left(judged >= lowest, rows).kept >= LEAST_KEPT:
            return lowest
    return _above(balanced_threshold(judged.tolist(), rows.right.tolist())[0])


def _above(value: float) -> float:
    """The next number of four digits above a probability, so that rounding lets nothing pass."""
    return (math.floor(value * 1e4) + 1) / 1e4


def left(kept: NDArray[np.bool_], rows: Rows) -> Told:
    """What stays of the rows of (N,) bool."""
    return Told(
        float(kept[rows.right].mean()) if rows.right.any() else float("nan"),
        float(rows.right[kept].mean()) if kept.any() else float("nan"),
        int((kept & ~rows.right & rows.normal).sum()) / rows.normal_pictures if rows.normal_pictures else float("nan"),
    )
