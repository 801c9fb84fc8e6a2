"""What a conversion made, counted as in the paper's tables A4 to A6, as JSON and as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unibiomed_core import vocabulary
from unibiomed_core.tasks import NO_FINDINGS

from .negatives import negatives, part_of
from .records import Record

SAVED_REFUSALS = 1000
"""Refused items that are listed one by one; the rest is counted by reason."""

_ABNORMAL = re.compile(
    r"tumou?r|cancer|carcinoma|sarcoma|lesion|nodule|polyp|infection|infiltrat|o?edema|disease|cyst|h(a)?emorrhage"
    r"|metastas|neoplas|malignan|pneumothorax|pneumonia|effusion|opacity|consolidation|fluid|fracture"
)
"""Words that make a target an abnormality where the vocabulary does not know its name."""


def is_abnormality(target: str, modality: str) -> bool:
    """Whether a target is a finding: the vocabulary decides, and a word in the name where it is silent."""
    known = vocabulary.find(target, modality)
    return known.kind == "finding" if known else bool(_ABNORMAL.search(target.lower()))


@dataclass
class RecordCounts:
    """Counters that see each record once; none of them grows with the number of records.

    Attributes:
        images: Modality -> pictures (table A5).
        triplets: Modality -> image-target-text triplets: regions that are there, with a mask or a box (table A5).
        tasks: Task -> questions that the records can answer: regions with a mask (segment), pictures whose findings
            are known (disease), regions (ROI), captions and region captions (report), questions (VQA), pictures of a
            known modality and of a known part of the body.
        targets: (data set, modality, target) -> triplets (table A4).
        abnormalities: Name -> pictures, among those whose findings are known or that show one (table A6).
        sure: (data set, modality, kind) -> targets that its pictures surely do not show, near, far and other ones as in
            :class:`.negatives.Negatives`; pictures of a known part of the body under "part", all under "pictures".
        splits: (data set, split) -> records.
    """

    images: Counter[str] = field(default_factory=Counter)
    triplets: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    targets: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    abnormalities: Counter[str] = field(default_factory=Counter)
    sure: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    splits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        modality = record.modality or "not stated"
        self.images[modality] += 1
        self.triplets[modality] += len(record.regions)
        self.splits[record.dataset, record.split] += 1
        for region in record.regions:
            self.targets[record.dataset, modality, region.target] += 1
        self.tasks["segmentation"] += sum(bool(r.counts) for r in record.regions)
        self.tasks["disease"] += record.findings_known
        self.tasks["roi"] += len(record.regions)
        self.tasks["report"] += bool(record.caption) + sum(bool(r.caption) for r in record.regions)
        self.tasks["vqa"] += len(record.questions)
        self.tasks["modality"] += bool(record.modality)
        self.tasks["part"] += bool(part_of(record))
        self._add_sure(record, modality)
        found = {r.target for r in record.regions if is_abnormality(r.target, record.modality)}
        if record.findings_known and not found:
            found = {NO_FINDINGS}
        self.abnormalities.update(found)

    def _add_sure(self, record: Record, modality: str) -> None:
        sure = negatives(record)
        counted = {"pictures": 1, "near": len(sure.near), "far": len(sure.far), "other": len(sure.other)}
        for kind, number in {**counted, "part": int(bool(part_of(record)))}.items():
            self.sure[record.dataset, modality, kind] += number

    def total(self) -> int:
        return sum(self.images.values())

    def in_split(self, split: str) -> int:
        return sum(n for (_, name), n in self.splits.items() if name == split)


def summary_of(
    counts: RecordCounts, refused: Iterable[tuple[str, str]], notes: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The machine-readable summary; tables are sorted by name, reasons by count: the same data give the same bytes.

    Keys: ``splits``, ``records``, ``by_modality``, ``by_task``, ``by_target``, ``by_abnormality``, ``surely_absent``,
    ``refused`` (the first :data:`SAVED_REFUSALS`), ``refused_count``, ``refused_by_reason`` and ``notes``.

    Args:
        notes: What files were read other than they stand, as :func:`train.datasets.notes.noted` gives it.
    """
    refused = list(refused)
    by_target: dict[str, dict[str, dict[str, int]]] = {}
    for (dataset, modality, target), number in sorted(counts.targets.items()):
        by_target.setdefault(dataset, {}).setdefault(modality, {})[target] = number
    sure: dict[str, dict[str, dict[str, int]]] = {}
    for (dataset, modality, kind), number in sorted(counts.sure.items()):
        sure.setdefault(dataset, {}).setdefault(modality, {})[kind] = number
    return {
        "splits": {split: counts.in_split(split) for split in ("train", "test")},
        "records": {f"{dataset}/{split}": n for (dataset, split), n in sorted(counts.splits.items())},
        "by_modality": {m: {"images": n, "triplets": counts.triplets[m]} for m, n in sorted(counts.images.items())},
        "by_task": dict(sorted(counts.tasks.items())),
        "by_target": by_target,
        "by_abnormality": dict(sorted(counts.abnormalities.items())),
        "surely_absent": sure,
        "refused": [list(item) for item in refused[:SAVED_REFUSALS]],
        "refused_count": len(refused),
        "refused_by_reason": dict(Counter(reason for _, reason in refused).most_common(SAVED_REFUSALS)),
        "notes": [dict(row) for row in notes],
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary as tables for people, from the machine-readable one alone."""
    modalities, splits = summary["by_modality"], summary["splits"]
    sums = (sum(row[k] for row in modalities.values()) for k in ("images", "triplets"))
    parts = [
        _table(
            ("modality", "images", "triplets"),
            [*((m, row["images"], row["triplets"]) for m, row in modalities.items()), ("total", *sums)],
        ),
        _table(("task", "questions"), list(summary["by_task"].items())),
        _table(
            ("data set", "modality", "target", "triplets"),
            [
                (dataset, modality, target, number)
                for dataset, rows in summary["by_target"].items()
                for modality, names in rows.items()
                for target, number in names.items()
            ],
        ),
        _table(("abnormality", "images"), list(summary["by_abnormality"].items())),
        _table(
            ("data set", "modality", "surely absent: near", "far", "other modality", "part known"),
            [
                (
                    dataset,
                    modality,
                    *(f"{row[kind] / row['pictures']:.1f}" for kind in ("near", "far", "other")),
                    f"{row['part'] / row['pictures']:.0%}",
                )
                for dataset, rows in summary["surely_absent"].items()
                for modality, row in rows.items()
            ],
        ),
        f"{splits['train']} training and {splits['test']} test records, {summary['refused_count']} refused",
    ]
    parts += [f"refused {number} x: {reason}" for reason, number in list(summary["refused_by_reason"].items())[:10]]
    return "\n\n".join(part for part in parts if part)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Fixed-width columns, numbers to the right; empty where there is no row."""
    if not rows:
        return ""
    cells = [head, *(tuple(f"{c:,}" if isinstance(c, int) else str(c) for c in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [isinstance(c, int) for c in rows[0]]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
