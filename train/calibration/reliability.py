"""How far a model's stated presence can be believed: numbers and a picture beside its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import WriteError
from unibiomed_core.metrics.labels import ReliabilityBin, auc, expected_calibration_error, log_loss, reliability

from ..plots import write_figure
from .presence import Cases, cross_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRESENCE, CHECKS = "reliability", "checks"
"""What the files beside a weights folder are about, at the end of their names."""


@dataclass(frozen=True)
class Stated:
    """Stated probabilities against what is annotated.

    Args:
        log_loss: Mean negative log-likelihood, natural logarithm.
        auc: Area under the ROC curve over all cases.
    """

    bins: tuple[ReliabilityBin, ...]
    log_loss: float
    auc: float

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1."""
        return expected_calibration_error(self.bins)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what an empty bin lacks."""
        rows = [
            {
                "from": b.low, "to": b.high, "cases": b.count,
                "mean_stated": None if math.isnan(b.stated) else round(b.stated, 4),
                "share_present": None if math.isnan(b.found) else round(b.found, 4),
            }
            for b in self.bins
        ]  # fmt: skip
        numbers = {"expected_calibration_error": self.error, "log_loss": self.log_loss, "auc": self.auc}
        return {**{name: round(value, 4) for name, value in numbers.items()}, "bins": rows}


@dataclass(frozen=True)
class Reliability:
    """A model's presence before and after calibration, on the same cases; after, each is stated by a rule that was
    fitted without its patient.

    Args:
        held_out: Whether the patients were held out from the run's training.
        started: Whether the run went on from trained weights, which may have seen any patient.
        shrinkage: Inverse variance of the offsets of single targets; infinite for no offsets.
    """

    cases: int
    present: int
    patients: int
    pictures: int
    held_out: bool
    started: bool
    shrinkage: float
    before: Stated
    after: Stated

    about = PRESENCE
    titles = ("plain score", "calibrated")

    @property
    def origin(self) -> str:
        """One sentence on where the probabilities come from."""
        of = f"{self.pictures} pictures of {self.patients} patients"
        if self.held_out:
            seen = ", which the weights it started from may have seen" if self.started else ""
            return f"presence calibrated on {of} held out from this run{seen}"
        return f"presence calibrated by cross-fitting on {of} that were trained on, so too sure elsewhere"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the JSON file."""
        return {
            "origin": self.origin,
            "held_out_from_this_run": self.held_out,
            "started_from_trained_weights": self.started,
            "cases": self.cases,
            "cases_present": self.present,
            "patients": self.patients,
            "pictures": self.pictures,
            "offset_shrinkage": None if math.isinf(self.shrinkage) else self.shrinkage,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }


def stated(probabilities: NDArray[np.float64], present: NDArray[np.bool_]) -> Stated:
    """What can be said of (N,) probabilities against (N,) truth."""
    return Stated(reliability(probabilities, present), log_loss(probabilities, present), auc(probabilities, present))


def measured(cases: Cases, shrinkage: float, pictures: int, held_out: bool, started: bool) -> Reliability:
    """Reliability of the plain scores and of the rule, whose probabilities are cross-fitted over patients."""
    before, after = (stated(p, cases.present) for p in (cases.scores, cross_fitted(cases, shrinkage)))
    patients = len(set(cases.patients.tolist()))
    there = int(cases.present.sum())
    return Reliability(len(cases), there, patients, pictures, held_out, started, shrinkage, before, after)


class Judged(Protocol):
    """Stated probabilities before and after a fit, on the same cases."""

    @property
    def about(self) -> str:
        """One word for file names."""

    @property
    def titles(self) -> tuple[str, str]:
        """What is stated before and after."""

    @property
    def cases(self) -> int: ...

    @property
    def before(self) -> Stated: ...

    @property
    def after(self) -> Stated: ...

    @property
    def origin(self) -> str:
        """One sentence on where the probabilities come from."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the JSON file."""


def write_reliability(found: Judged, folder: Path) -> tuple[Path, Path]:
    """Write the numbers and the picture beside a weights folder, which itself holds nothing but a model.

    Returns:
        ``FOLDER-reliability.json`` and ``FOLDER-reliability.png`` of presence, ``FOLDER-checks.*`` of fused checks.

    Raises:
        WriteError: The disk is full or the place cannot be written.
    """
    numbers, picture = _beside(folder, found.about)
    try:
        numbers.write_text(json.dumps(found.to_dict(), indent=1) + "\n", "utf-8")
    except OSError as cause:
        raise WriteError("Reliability not written", f"{numbers}: {cause}", "a folder with space") from cause
    return numbers, draw_reliability(found, picture)


def forget_reliability(folder: Path, about: str) -> None:
    """Remove what another export left beside a weights folder of which nothing is known."""
    for file in _beside(folder, about):
        file.unlink(missing_ok=True)


def _beside(folder: Path, about: str) -> tuple[Path, Path]:
    return folder.with_name(f"{folder.name}-{about}.json"), folder.with_name(f"{folder.name}-{about}.png")


def draw_reliability(found: Judged, path: Path) -> Path:
    """One panel before, one after: the share that is there over the stated probability, and how many cases there are.

    Raises:
        WriteError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    for column, (title, given) in enumerate(zip(found.titles, (found.before, found.after), strict=True)):
        _diagram(panels[0, column], f"{title}: error {given.error:.3f}", given.bins)
        panels[1, column].bar(
            [b.low for b in given.bins], [b.count for b in given.bins], width=0.1, align="edge", color="0.6"
        )
        panels[1, column].set(xlabel="stated presence", ylabel="cases")
    figure.suptitle(fill(f"{found.origin}; {found.cases} cases", 90), fontsize="medium")
    return write_figure(figure, path)


def _diagram(panel: Axes, title: str, bins: Sequence[ReliabilityBin]) -> None:
    filled = [b for b in bins if b.count]
    panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    panel.plot([b.stated for b in filled], [b.found for b in filled], "o-", color="C0")
    panel.set(title=title, ylabel="share present", xlim=(0, 1), ylim=(0, 1))
