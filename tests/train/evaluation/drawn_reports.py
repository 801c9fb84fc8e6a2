"""Reports and truths of drawn pictures, whose numbers are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.hand_volumes import cropped, picture_of
from train.datasets.shared_layout import Source
from train.evaluation.report_cases import Case, Count, Truth
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.counting import with_tallies
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.types import Absence, Report, Volume

SIDE = 60


def square(row: int, column: int, side: int = 10) -> NDArray[np.bool_]:
    """(1, SIDE, SIDE) bool."""
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, row : row + side, column : column + side] = True
    return mask


NOTHING = np.zeros((1, SIDE, SIDE), bool)


def drawn(modality: str) -> Volume:
    return picture_of(np.zeros((SIDE, SIDE), np.uint8), modality)


def told(
    modality: str,
    *things: tuple[str, float, NDArray[np.bool_]],
    absent: dict[str, float] | None = None,
    volume: Volume | None = None,
    **more: Any,
) -> Report:
    """A report with a row for each (target, presence, mask) and its absences, as the engine builds one."""
    volume = volume or drawn(modality)
    linked = [LinkedMask(t, t, p, cropped(m), "axial", (0,), ((0, p),)) for t, p, m in things]
    given: dict[str, Any] = {
        "volume": volume,
        "window": None,
        "plane": "axial",
        "findings": with_tallies(findings(linked, volume), volume),
        "absences": [Absence(target, presence, 1) for target, presence in (absent or {}).items()],
        "model": {"name": "drawn", "presence_threshold": 0.5},
        "settings": {"plan": "all", "every": 1},
        "slices_done": [0],
        "slices_skipped": [],
        "seconds": 2.0,
    }
    return reports.build(**(given | more))


def case_of(modality: str, name: str = "set/item", group: str = "p", body: tuple[str, ...] = (), **item: Any) -> Case:
    dataset = name.split("/")[0]
    return Case(name, dataset, group, modality, Path(dataset), {}, item, Source({}), body)


def truth(
    masks: dict[str, NDArray[np.bool_]],
    *,
    lesions: tuple[str, ...] = (),
    normal: str = "",
    foreign: tuple[str, ...] = (),
    counts: dict[str, Count] | None = None,
) -> Truth:
    """A truth in which every target with an empty mask is absent."""
    present = {target: bool(mask.any()) for target, mask in masks.items()}
    return Truth(present, masks, lesions, normal, frozenset(foreign), counts or {})
