"""Numbers from mask files: per picture, per target, per volume, and over data sets."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.metrics.labels import auc
from unibiomed_core.metrics.overlap import dice, iou
from unibiomed_core.metrics.statistics import case_interval, mean, resampled_interval
from unibiomed_core.metrics.surface import hausdorff_95, surface_counts

from ..data.records import Record
from .baselines import Baselines, Key, baselines
from .prediction_files import MASK_FILE, MASK_VALUES, Row, decode, rows, write_rows
from .text_scores import score_words

TOLERANCE = 2.0
"""Of the surface Dice: millimetres where the spacing is known, else pixels."""

SCORE_FILE = "mask_scores.jsonl"

RULES = {
    "Dice, IoU": "mean over the pictures that show the target (as published: empty slices left out); an empty "
    "prediction there is 0",
    "Dice with empty": "mean over every picture, nothing dropped; where truth and prediction are both empty it is 1, "
    "where the target is absent and something is marked it is 0",
    "surface Dice": f"pictures that show the target, tolerance {TOLERANCE:g} mm, or pixels where no spacing is known",
    "HD95": "pictures where truth and prediction are both not empty; how many stands beside it",
    "volume Dice": "all slices of a volume that were made into records, together, nothing dropped; a volume without "
    "the target and without a mark is 1",
    "volume Dice, shown": "only the slices that show the target (as published: marks elsewhere are not counted)",
    "volume surface Dice": "contours within tolerance over all slices of a volume, in the plane: records hold every "
    "n-th slice",
    "macro": "mean over the targets of a data set, then over data sets",
    "AUC": "presence score against annotated presence; macro over the targets with both classes; pooled over all rows",
    "interval": "95 %, percentile bootstrap over cases (patients) within each data set, 1000 draws; none for one case",
    "grid": "masks are compared at the size of the records; the published limit to 300 annotations is not applied",
}


@dataclass(frozen=True)
class MaskScore:
    """One mask against its truth.

    Args:
        case: Data set and patient.
        marked: Whether the prediction has a mask at all.
        unit: Of the surfaces, "mm" or "px".
        hausdorff_95: NaN unless both masks are there.
        predicted: Pixels of the prediction; ``true`` of the truth, ``common`` of both.
        near: Contour pixels of both masks within tolerance, of ``contour`` in all.
        mean_shape: Dice of the mean-shape baseline; NaN where there is none.
    """

    id: str
    dataset: str
    modality: str
    target: str
    case: str
    volume: str
    present: bool
    marked: bool
    presence: float
    dice: float
    iou: float
    unit: str
    hausdorff_95: float
    predicted: int
    true: int
    common: int
    near: int
    contour: int
    mean_shape: float

    @property
    def key(self) -> Key:
        return self.dataset, self.modality, self.target

    @property
    def surface_dice(self) -> float:
        return self.near / self.contour if self.contour else 1.0


def score(out: Path, training: Sequence[Record]) -> dict[str, Any]:
    """The table of a folder of prediction files, also of one without ``answers.jsonl``.

    Writes the score of every picture beside them, for comparisons and box plots.

    Raises:
        DataError: The files are missing or not whole.
    """
    trivial = baselines(training)
    scores = [_scored(row, trivial) for row in rows(out / MASK_FILE, MASK_VALUES)]
    write_rows(out / SCORE_FILE, (dataclasses.asdict(s) for s in scores))
    groups: dict[Key, list[MaskScore]] = defaultdict(list)
    for found in scores:
        groups[found.key].append(found)
    masks = [_target_row(key, found, trivial) for key, found in sorted(groups.items())]
    return {"summary": summary(scores, masks), "masks": masks, **score_words(out, trivial), "rules": dict(RULES)}


def read_scores(out: Path) -> list[MaskScore]:
    """The scores that :func:`score` wrote.

    Raises:
        DataError: They are missing or not whole.
    """
    names = [f.name for f in dataclasses.fields(MaskScore)]
    return [MaskScore(**row) for row in rows(out / SCORE_FILE, names)]


def _scored(row: Row, trivial: Baselines) -> MaskScore:
    predicted, truth = decode(row["size"], row["mask"]), decode(row["size"], row["truth"])
    known = all(mm > 0 for mm in row["spacing_mm"])
    spacing = row["spacing_mm"] if known else (1.0, 1.0)
    both = bool(predicted.any() and truth.any())
    near, contour = surface_counts(predicted, truth, spacing, TOLERANCE)
    shape = trivial.shape((row["dataset"], row["modality"], row["target"]), truth.shape) if row["present"] else None
    return MaskScore(
        **{name: row[name] for name in ("id", "dataset", "modality", "target", "volume", "present", "presence")},
        case=f"{row['dataset']}/{row['group']}",
        marked=bool(predicted.any()),
        dice=dice(predicted, truth),
        iou=iou(predicted, truth),
        unit="mm" if known else "px",
        hausdorff_95=hausdorff_95(predicted, truth, spacing) if both else float("nan"),
        predicted=int(predicted.sum()),
        true=int(truth.sum()),
        common=int((predicted & truth).sum()),
        near=near,
        contour=contour,
        mean_shape=dice(shape, truth) if shape is not None else float("nan"),
    )


def _target_row(key: Key, scores: Sequence[MaskScore], trivial: Baselines) -> dict[str, Any]:
    shown = [s for s in scores if s.present]
    distances = [s.hausdorff_95 for s in shown if not np.isnan(s.hausdorff_95)]
    usual = trivial.usually_present(key)
    return {
        "dataset": key[0],
        "modality": key[1],
        "target": key[2],
        "present": len(shown),
        "absent": len(scores) - len(shown),
        "cases": len({s.case for s in scores}),
        "dice": mean(s.dice for s in shown),
        "dice_interval": case_interval([s.dice for s in shown], [s.case for s in shown]),
        "dice_with_empty": mean(s.dice for s in scores),
        "dice_with_empty_interval": case_interval([s.dice for s in scores], [s.case for s in scores]),
        "iou": mean(s.iou for s in shown),
        "surface_dice": mean(s.surface_dice for s in shown),
        "unit": "/".join(sorted({s.unit for s in scores})),
        "hausdorff_95": mean(distances),
        "hausdorff_95_count": len(distances),
        "dice_empty_mask": 0.0 if shown else float("nan"),
        "dice_with_empty_empty_mask": mean(float(not s.present) for s in scores),
        "dice_mean_shape": mean(s.mean_shape for s in shown),
        "presence_accuracy": mean(float(s.marked == s.present) for s in scores),
        "presence_majority": mean(float(usual == s.present) for s in scores),
        "presence_auc": auc([s.presence for s in scores], [s.present for s in scores]),
        **_volumes(scores),
    }


def _volumes(scores: Iterable[MaskScore]) -> dict[str, Any]:
    """Slices put together by volume; overlaps and contours are sums over them, so no stack is held."""
    groups: dict[str, list[MaskScore]] = defaultdict(list)
    for found in scores:
        if found.volume:
            groups[found.volume].append(found)
    whole = [_dice_of(slices) for slices in groups.values()]
    shown = [[s for s in slices if s.present] for slices in groups.values()]
    near = [(sum(s.near for s in slices), sum(s.contour for s in slices)) for slices in groups.values()]
    return {
        "volumes": len(groups),
        "volume_dice": mean(whole),
        "volume_dice_interval": case_interval(whole, [slices[0].case for slices in groups.values()]),
        "volume_dice_shown": mean(_dice_of(slices) for slices in shown if slices),
        "volume_surface_dice": mean(n / total if total else 1.0 for n, total in near),
    }


def _dice_of(slices: Sequence[MaskScore]) -> float:
    total = sum(s.predicted + s.true for s in slices)
    return 2 * sum(s.common for s in slices) / total if total else 1.0


def summary(scores: Sequence[MaskScore], masks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One number for each question, over all data sets, with intervals."""
    shown = [s for s in scores if s.present]
    macros = ("dice", "dice_with_empty", "iou", "surface_dice", "volume_dice", "dice_mean_shape", "presence_accuracy")
    found: dict[str, Any] = {f"macro_{name}": macro(masks, name) for name in macros}
    found["datasets"] = len({s.dataset for s in scores})
    found["pictures"] = len({s.id for s in scores})
    found["macro_dice_interval"] = _macro_interval(shown)
    found["macro_dice_with_empty_interval"] = _macro_interval(scores)
    aucs = [row["presence_auc"] for row in masks if not np.isnan(row["presence_auc"])]
    found["presence_auc_macro"], found["presence_auc_targets"] = mean(aucs), len(aucs)
    found["presence_auc_pooled"] = auc([s.presence for s in scores], [s.present for s in scores])
    found["presence_auc_macro_interval"], found["presence_auc_pooled_interval"] = _auc_intervals(scores)
    return found


def macro(masks: Iterable[Mapping[str, Any]], name: str) -> float:
    """Mean over the targets of each data set, then over data sets; NaN rows say nothing."""
    sets: dict[str, list[float]] = defaultdict(list)
    for row in masks:
        if not np.isnan(row[name]):
            sets[row["dataset"]].append(row[name])
    return mean(mean(values) for values in sets.values())


def _macro_interval(scores: Sequence[MaskScore]) -> tuple[float, float]:
    keys = sorted({s.key for s in scores})
    numbers = {key: n for n, key in enumerate(keys)}
    owner = np.array([numbers[s.key] for s in scores], np.int64)
    values = np.array([s.dice for s in scores])
    names = sorted({key[0] for key in keys})
    dataset = np.array([names.index(key[0]) for key in keys], np.int64)

    def statistic(drawn: NDArray[np.int64]) -> float:
        count = np.bincount(owner[drawn], minlength=len(keys))
        seen = count > 0
        means = np.bincount(owner[drawn], values[drawn], len(keys))[seen] / count[seen]
        targets = np.bincount(dataset[seen], minlength=len(names))
        return float(np.mean((np.bincount(dataset[seen], means, len(names)) / np.maximum(targets, 1))[targets > 0]))

    return resampled_interval([s.case for s in scores], [s.dataset for s in scores], statistic)


def _auc_intervals(scores: Sequence[MaskScore]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of the macro and of the pooled AUC."""
    numbers = {key: n for n, key in enumerate(sorted({s.key for s in scores}))}
    owner = np.array([numbers[s.key] for s in scores], np.int64)
    presence, present = np.array([s.presence for s in scores]), np.array([s.present for s in scores])

    def of_targets(drawn: NDArray[np.int64]) -> float:
        order = drawn[np.argsort(owner[drawn], kind="stable")]
        parts = np.split(order, np.flatnonzero(np.diff(owner[order])) + 1)
        return mean(a for part in parts if not np.isnan(a := auc(presence[part], present[part])))

    cases, sets = [s.case for s in scores], [s.dataset for s in scores]
    pooled = resampled_interval(cases, sets, lambda drawn: auc(presence[drawn], present[drawn]))
    return resampled_interval(cases, sets, of_targets), pooled


def by_dataset(scores: Iterable[MaskScore]) -> Iterator[tuple[str, list[MaskScore]]]:
    """Scores of the pictures that show their target, by data set, in order of names."""
    groups: dict[str, list[MaskScore]] = defaultdict(list)
    for found in scores:
        if found.present:
            groups[found.dataset].append(found)
    yield from sorted(groups.items())
