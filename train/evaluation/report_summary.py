"""Numbers over many reports: ratios with intervals, lesions found at a rate of false rows, calibration of presence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.metrics.froc import FALSE_A_PICTURE, sensitivities
from unibiomed_core.metrics.labels import expected_calibration_error, reliability
from unibiomed_core.metrics.statistics import mean, ratio_intervals, resampled_interval

from ..datasets.volumes import MINIMUM_PIXELS
from .report_checks import CHECKS
from .report_scores import LEAST_OVERLAP, CountScore, ReportScore, TargetScore, contradiction_counts

Ratio = Callable[[ReportScore], tuple[float, float]]

RULES: Mapping[str, str] = MappingProxyType(
    {
        "precision, recall, F1": "annotated targets of all items: told as there against there. A row of a part or kind "
        "(left lung, meningioma) tells its whole (lung fields, brain tumour). What a set does not annotate is neither "
        f"right nor wrong, nor is what has fewer than {MINIMUM_PIXELS} pixels",
        "macro F1": "mean over data sets",
        "Dice": "of all rows of a target together, where it is there; 0 where no row has it",
        "false abnormal rows": "a normal picture: rows of what is no anatomy, where its set calls it normal; "
        "where a set annotates findings and the picture shows none, rows of those findings and foreign ones",
        "foreign rows": "rows of targets of another part of the body, or of the modality that an item is taken for "
        "wrongly; part of none of the ratios above",
        "rows a structure": "rows of targets that a person counts as one, or one a side, over the structures they "
        "are about; two rows of a pair without sides are its two sides",
        "count error": "|counted - true| / true of populations in pictures, 1 where it has no row; true as the set "
        "tells it, or counted on the set's outlines as the engine counts on its own",
        "lesions": f"connected pieces of at least {MINIMUM_PIXELS} pixels, of sets that show every one; a row is on a "
        f"lesion from IoU {LEAST_OVERLAP:g} on, a second row on the same lesion is false; rows by falling presence. "
        "Sensitivity stays at what it had reached where a curve ends",
        "calibration": "presence that a report states of an annotated target, in its row or as not found; ten bins. "
        "Targets that a report does not mention are left out. Sets annotate what is there, so that hardly any of these "
        "is absent; with foreign targets, which surely are, the numbers are of both",
        "looked for": "a report has a row of it or lists it as not found; a model is not asked for all that it is "
        "measured by",
        "part of the body": "share of the slices whose likeliest part is right",
        "failed": "an item on which no report came about counts as one in which nothing was found",
        "interval": "95 %, percentile bootstrap over cases (patients) within each data set, 1000 draws; a set of one "
        "patient adds no spread",
    }
)


def _targets(count: Callable[[TargetScore], float], of: Callable[[TargetScore], float]) -> Ratio:
    return lambda s: (sum(map(count, s.targets)), sum(map(of, s.targets)))


def _hit(t: TargetScore) -> bool:
    return t.present and t.found


def _outlined(t: TargetScore) -> bool:
    return not np.isnan(t.dice)


def _stated(t: TargetScore) -> bool:
    return not np.isnan(t.presence)


def _counts(origin: str) -> Ratio:
    def ratio(s: ReportScore) -> tuple[float, float]:
        own: list[CountScore] = [c for c in s.counts if c.origin == origin]
        return sum(c.error for c in own), len(own)

    return ratio


MEASURES: Mapping[str, tuple[str, Ratio]] = MappingProxyType(
    {
        "precision": ("precision of targets", _targets(_hit, lambda t: t.found)),
        "recall": ("recall of targets", _targets(_hit, lambda t: t.present)),
        "recall_asked": (
            "recall of targets that were looked for",
            _targets(_hit, lambda t: t.present and (t.found or _stated(t))),
        ),
        "f1": ("F1 of targets", _targets(lambda t: 2 * _hit(t), lambda t: t.found + t.present)),
        "dice": ("Dice of rows", _targets(lambda t: t.dice if _outlined(t) else 0.0, _outlined)),
        "rows": ("rows a report", lambda s: (s.rows, 1)),
        "false_rows": ("false abnormal rows a normal picture", lambda s: (s.false_rows, bool(s.normal))),
        "false_sure_rows": (
            "the same without those called unsure", lambda s: (s.false_rows - s.unsure_rows, bool(s.normal))
        ),
        "foreign_rows": ("foreign rows a report", lambda s: (s.foreign_rows, 1)),
        "single_rows": ("rows a single structure", lambda s: (s.single_rows, s.single_structures)),
        "count_error": ("count error, number from the set", _counts("source")),
        "count_error_outlines": ("count error, number from outlines", _counts("outlines")),
        "contradictory": ("share of reports with a contradiction", lambda s: (bool(s.contradictions), 1)),
        "modality_right": (
            "share of modalities right", lambda s: (bool(s.modality_right), s.modality_right is not None)
        ),
        "part_right": (
            "share of parts of the body right",
            lambda s: (0, 0) if np.isnan(s.part_right) else (s.part_right, 1),
        ),
        "brier": (
            "Brier score of presence",
            _targets(lambda t: (t.presence - t.present) ** 2 if _stated(t) else 0.0, _stated),
        ),
        "seconds": ("seconds a report", lambda s: (0, 0) if np.isnan(s.seconds) else (s.seconds, 1)),
    }
)  # fmt: skip
"""Key -> words, and what is summed over what."""


def summary(scores: Sequence[ReportScore]) -> dict[str, Any]:
    """The table of scored reports: every measure over all of them, pictures, volumes, modalities and data sets."""
    groups = {name: measures(own) for name, own in _groups(scores)}
    return {
        "groups": groups,
        "macro_f1": _macro_f1(scores),
        "lesions": {name: _froc(own, name == "all") for name, own in _groups(scores) if any(s.lesions for s in own)},
        "calibration": _calibration(scores),
        "contradictions": [
            {"code": code, "count": count, "reports": [s.id for s in scores if code in s.contradictions]}
            for code, count in contradiction_counts(scores).most_common()
        ],
        "targets": _by_target(scores),
        "rules": {**RULES, "contradictions": "; ".join(words for words, _ in CHECKS.values())},
    }


def _groups(scores: Sequence[ReportScore]) -> Iterator[tuple[str, list[ReportScore]]]:
    """("all", ...), ("pictures", ...), ("modality ct", ...), ("set kvasir-seg", ...); empty ones left out."""
    named: dict[str, list[ReportScore]] = {"all": list(scores), "pictures": [], "volumes": []}
    for s in scores:
        named["volumes" if s.volume else "pictures"].append(s)
    for kind, key in (("modality", lambda s: s.modality or "not told"), ("set", lambda s: s.dataset)):
        for value in sorted({key(s) for s in scores}):
            named[f"{kind} {value}"] = [s for s in scores if key(s) == value]
    yield from ((name, own) for name, own in named.items() if own)


def measures(scores: Sequence[ReportScore]) -> dict[str, Any]:
    """Key of ``MEASURES`` -> value, interval, and what it is over (``of``)."""
    pairs = np.array([[ratio(s) for _, ratio in MEASURES.values()] for s in scores], float)  # (reports, measures, 2)
    above, below = pairs[..., 0], pairs[..., 1]
    bounds = ratio_intervals(above, below, [s.case for s in scores], [s.dataset for s in scores])
    found: dict[str, Any] = {"reports": len(scores), "cases": len({s.case for s in scores})}
    for key, up, down, interval in zip(MEASURES, above.sum(axis=0), below.sum(axis=0), bounds, strict=True):
        value = float(up / down) if down else float("nan")
        found[key] = {"value": value, "interval": interval, "of": float(down)}
    return found


def _macro_f1(scores: Sequence[ReportScore]) -> dict[str, Any]:
    ratio = MEASURES["f1"][1]
    names = sorted({s.dataset for s in scores})
    owner = np.array([names.index(s.dataset) for s in scores])
    above, below = np.array([ratio(s) for s in scores], float).T

    def value(drawn: NDArray[np.int64]) -> float:
        up, down = (np.bincount(owner[drawn], v[drawn], len(names)) for v in (above, below))
        return mean((up[down > 0] / down[down > 0]).tolist())

    cases, sets = [s.case for s in scores], [s.dataset for s in scores]
    return {"value": value(np.arange(len(scores))), "interval": resampled_interval(cases, sets, value)}


def _froc(scores: Sequence[ReportScore], with_interval: bool) -> dict[str, Any]:
    """Sensitivity at the rates of ``FALSE_A_PICTURE``, their mean, and of all rows."""
    own = [(s, s.lesions) for s in scores if s.lesions is not None]
    lesions = np.array([found.count for _, found in own])
    rows = [(place, presence, hit) for place, (_, found) in enumerate(own) for presence, hit in found.rows]
    pictures = np.array([row[0] for row in rows], np.int64)
    presence = np.array([row[1] for row in rows], float)
    hits = np.array([row[2] for row in rows], bool)

    def average(drawn: NDArray[np.int64]) -> float:
        times = np.bincount(drawn, minlength=len(own))
        return float(np.mean(sensitivities(presence, hits, pictures, lesions, times)))

    found: dict[str, Any] = {
        "reports": len(own),
        "lesions": int(lesions.sum()),
        "sensitivity": dict(
            zip(map(str, FALSE_A_PICTURE), sensitivities(presence, hits, pictures, lesions), strict=True)
        ),
        "mean": average(np.arange(len(own))),
        "all_rows": float(hits.sum() / lesions.sum()) if lesions.sum() else float("nan"),
        "false_rows": float((~hits).sum() / len(own)),
    }
    if with_interval:
        found["mean_interval"] = resampled_interval([s.case for s, _ in own], [s.dataset for s, _ in own], average)
    return found


def _calibration(scores: Sequence[ReportScore]) -> dict[str, Any]:
    """Of annotated targets alone ("annotated"), and with those that cannot be there ("with_foreign")."""
    annotated = [(place, t.presence, t.present) for place, s in enumerate(scores) for t in s.targets if _stated(t)]
    foreign = [(place, presence, False) for place, s in enumerate(scores) for presence in s.foreign]
    return {
        "not_mentioned": sum(not _stated(t) for s in scores for t in s.targets),
        "annotated": _stated_against_found(scores, annotated),
        "with_foreign": _stated_against_found(scores, annotated + foreign),
    }


def _stated_against_found(scores: Sequence[ReportScore], stated: Sequence[tuple[int, float, bool]]) -> dict[str, Any]:
    """Numbers of (place of the report, presence, whether it is there)."""
    owner = np.array([row[0] for row in stated], np.int64)
    presence, present = np.array([row[1] for row in stated], float), np.array([row[2] for row in stated], bool)

    def error(drawn: NDArray[np.int64]) -> float:
        times = np.bincount(drawn, minlength=len(scores))[owner]
        return expected_calibration_error(reliability(np.repeat(presence, times), np.repeat(present, times)))

    return {
        "cases": len(stated),
        "present": int(present.sum()),
        "error": error(np.arange(len(scores))),
        "error_interval": resampled_interval([s.case for s in scores], [s.dataset for s in scores], error),
        "brier": mean((presence - present) ** 2),
        "bins": [asdict(b) for b in reliability(presence, present)],
    }


def _by_target(scores: Iterable[ReportScore]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[TargetScore]] = defaultdict(list)
    for s in scores:
        for t in s.targets:
            groups[s.dataset, s.modality, t.target].append(t)
    return [
        {
            "dataset": dataset,
            "modality": modality,
            "target": target,
            "present": sum(t.present for t in own),
            "found": sum(_hit(t) for t in own),
            "absent": sum(not t.present for t in own),
            "false": sum(t.found and not t.present for t in own),
            "dice": mean(t.dice for t in own if _outlined(t)),
        }
        for (dataset, modality, target), own in sorted(groups.items())
    ]
