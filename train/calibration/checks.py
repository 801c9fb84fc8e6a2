"""What the checks say of abnormal findings whose truth is known: the cases that a model's fusion is fitted on.

Whole pictures of patients that were held out are reported on with a rule that dismisses nothing; each abnormal row of
a report is a case where the picture's annotation says whether it is right. Test records have no part in it.

Legend: N cases, C checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.checks import enough_agree, family, logits
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.io.geometry import picture_order
from unibiomed_core.modalities import AS_IS
from unibiomed_core.model.config import Fusion
from unibiomed_core.types import CheckCode, Volume
from unibiomed_core.updates import Done

from ..data.negatives import findings_told, negatives, nothing_found
from ..data.records import Record

CODES: tuple[str, ...] = get_args(CheckCode)

LEAST_OVERLAP = 0.1
"""A row is right where at least this share of its pixels lies in the annotation of its target or of its family."""

KEEPS_ALL = Fusion({}, {}, 0.0, threshold=0.0)
"""A rule that dismisses nothing and leaves each finding the presence of its mask."""

REQUEST = RunRequest(window=AS_IS, describe=False)
"""Descriptions check nothing and take most of the time."""


@dataclass(frozen=True)
class Rows:
    """Abnormal rows of reports, and whether they are right.

    Args:
        logits: (N, C) float64, what each of ``CODES`` says; NaN where it was not made.
        presence: (N,) float64, 0..1, by the mask alone.
        counted: (N,) bool, it stands where checks are counted, as for a model without a rule.
        right: (N,) bool.
        patients: (N,) names.
        normal: (N,) bool, the row stands in the report of a picture without any finding.
        pictures: Pictures that were reported on.
        normal_pictures: Those of them without any finding.
        unknown: Rows of which the annotation tells nothing; they are no cases.
    """

    logits: NDArray[np.float64]
    presence: NDArray[np.float64]
    counted: NDArray[np.bool_]
    right: NDArray[np.bool_]
    patients: NDArray[np.str_]
    normal: NDArray[np.bool_]
    pictures: int
    normal_pictures: int
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.right)

    def take(self, where: NDArray[np.bool_]) -> Rows:
        """The cases marked in (N,) bool, of the same pictures."""
        names = ("logits", "presence", "counted", "right", "patients", "normal")
        return replace(self, **{name: getattr(self, name)[where] for name in names})


def collect(engine: Engine, records: Iterable[Record]) -> Rows:
    """Report on pictures and compare the abnormal rows with what is annotated.

    Args:
        engine: Of a model whose presence has ``KEEPS_ALL`` for its fusion.
        records: Those of unknown modality are left out.
    """
    told: list[list[float]] = []
    presence: list[float] = []
    counted: list[bool] = []
    right: list[bool] = []
    patients: list[str] = []
    normal: list[bool] = []
    pictures = normal_pictures = unknown = 0
    for record in records:
        if not record.modality:
            continue
        pictures += 1
        normal_pictures += nothing_found(record)
        done = next(update for update in engine.run(_volume(record), REQUEST) if isinstance(update, Done))
        engine.free()  # no picture comes twice
        masks = record.masks()
        for finding in done.report.findings:
            if finding.evidence is None:  # anatomy and devices are not checked
                continue
            verdict = is_right(finding.mask.full()[0], finding.target, record, masks)
            if verdict is None:
                unknown += 1
                continue
            said = logits(finding.evidence.checks)
            told.append([said.get(code, np.nan) for code in CODES])
            presence.append(finding.presence)
            counted.append(enough_agree(finding.evidence.checks))
            right.append(verdict)
            patients.append(f"{record.dataset}/{record.group}")
            normal.append(nothing_found(record))
    return Rows(
        np.array(told, np.float64).reshape(-1, len(CODES)),
        np.array(presence, np.float64),
        np.array(counted, bool),
        np.array(right, bool),
        np.array(patients, str),
        np.array(normal, bool),
        pictures,
        normal_pictures,
        unknown,
    )


def is_right(row: NDArray[np.bool_], target: str, record: Record, masks: dict[str, NDArray[np.bool_]]) -> bool | None:
    """Whether a row is what the picture's annotation says; None where nobody knows.

    Args:
        row: (H, W) bool.
        masks: Of the record, target -> (H, W) bool.
    """
    same = family(target)
    annotated = {region.target for region in record.regions} & same
    if not annotated <= masks.keys():  # known by its box alone
        return None
    if annotated:
        marked = np.any([masks[name] for name in annotated], axis=0)
        if (row & marked).sum() >= LEAST_OVERLAP * row.sum():
            return True
        # Elsewhere it is wrong only where the source marks all there is.
        return False if findings_told(record) else None
    wholes = vocabulary.wholes(target) if target in vocabulary.targets() else frozenset()
    return False if {target, *wholes} & negatives(record).all() else None


def _volume(record: Record) -> Volume:
    """A record's picture as an image that is reported on."""
    pixels = record.pixels()
    order, affine = picture_order(pixels.shape[:2])
    return Volume(pixels[np.newaxis], affine, record.modality, "intensity", "px", False, order, record.id)
