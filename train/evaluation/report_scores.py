"""One report against what is known of its picture or volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core import vocabulary
from unibiomed_core.metrics.overlap import dice
from unibiomed_core.report import is_abnormal
from unibiomed_core.types import Finding, Report

from ..datasets.volumes import MINIMUM_PIXELS
from .report_cases import Case, Truth, wholes
from .report_checks import contradictions

LEAST_OVERLAP = 0.1
"""IoU from which a row lies on a lesion, as in nnDetection (Baumgartner et al. 2021)."""


@dataclass(frozen=True)
class TargetScore:
    """An annotated target in a report.

    Args:
        found: Whether a row has it, or a part or kind of it.
        presence: As the report states it, of the row or of the absence; NaN where it states none.
        dice: Of all its rows together; NaN where it is absent or has no outline.
    """

    target: str
    present: bool
    found: bool
    presence: float
    dice: float


@dataclass(frozen=True)
class Lesions:
    """Rows on annotated lesions.

    Args:
        count: Annotated lesions: connected pieces of at least ``MINIMUM_PIXELS``.
        rows: (presence, whether it is the surest row on a lesion) of each row.
    """

    count: int
    rows: tuple[tuple[float, bool], ...]


@dataclass(frozen=True)
class CountScore:
    """A population: how many there are and how many the report counts.

    Args:
        origin: Of ``true``; see ``report_cases.Count``.
    """

    target: str
    true: int
    found: int
    origin: str

    @property
    def error(self) -> float:
        """|found - true| / true."""
        return abs(self.found - self.true) / self.true


@dataclass(frozen=True)
class ReportScore:
    """One report.

    Args:
        case: Data set and patient.
        volume: Whether it is about a volume.
        rows: How many the report has.
        targets: What is annotated.
        foreign: Presence that the report states of each target that cannot be there, in its row or as not found.
        lesions: None where the set does not show every lesion.
        normal: As ``Truth.normal``.
        false_rows: Abnormal rows where the picture is normal; those flagged "unsure" among them in ``unsure_rows``.
        foreign_rows: Rows of targets that cannot be there: of another part of the body, or of the modality that was
            taken for the item's own.
        single_rows: Rows of targets that a person counts as one, or as one a side.
        single_structures: How many structures these rows are about.
        counts: Populations.
        contradictions: Code -> how often.
        modality_right: None where nothing was recognised, or the set does not tell.
        part_right: Share of the slices whose likeliest part of the body is right; NaN as above.
        seconds: Wall time of the run.
    """

    id: str
    dataset: str
    modality: str
    case: str
    volume: bool
    rows: int
    targets: tuple[TargetScore, ...]
    foreign: tuple[float, ...]
    lesions: Lesions | None
    normal: str
    false_rows: int
    unsure_rows: int
    foreign_rows: int
    single_rows: int
    single_structures: int
    counts: tuple[CountScore, ...]
    contradictions: Mapping[str, int]
    modality_right: bool | None
    part_right: float
    seconds: float


def score(report: Report, truth: Truth, case: Case) -> ReportScore:
    """A report against its truth; masks of both lie on the grid of the image."""
    modality = str(report.image["modality"])
    rows = [(canonical(f, modality), f) for f in report.findings]
    abnormal = [(name, f) for name, f in rows if is_abnormal(name, modality)]
    false = [f for name, f in abnormal if truth.normal == "class" or _is_false(name, truth)] if truth.normal else []
    recognised, part = _recognised(report, case)
    singles, structures = _single(rows, modality)
    return ReportScore(
        id=case.id,
        dataset=case.dataset,
        modality=case.modality,
        case=f"{case.dataset}/{case.group}",
        volume=not report.image["is_2d"],
        rows=len(rows),
        targets=tuple(_target(t, present, rows, report, truth) for t, present in sorted(truth.present.items())),
        foreign=tuple(p for t in sorted(truth.foreign) if not np.isnan(p := _stated(t, rows, report))),
        lesions=_lesions(rows, truth) if truth.lesions else None,
        normal=truth.normal,
        false_rows=len(false),
        unsure_rows=sum("unsure" in f.flags for f in false),
        foreign_rows=sum(name in truth.foreign or _is_other(name, modality, case.modality) for name, _ in rows),
        single_rows=singles,
        single_structures=structures,
        counts=tuple(
            CountScore(target, known.number, _counted(target, rows), known.origin)
            for target, known in sorted(truth.counts.items())
        ),
        contradictions={code: len(about) for code, about in contradictions(report).items()},
        modality_right=recognised,
        part_right=part,
        seconds=report.seconds,
    )


def canonical(finding: Finding, modality: str) -> str:
    """The vocabulary's name of a row's target; its own where the vocabulary has none."""
    name = finding.target or finding.phrase
    entry = vocabulary.find(name, modality)
    return entry.name if entry else name


Rows = Sequence[tuple[str, Finding]]
"""(canonical target, finding) of a report's rows."""


def _of(target: str, rows: Rows) -> list[tuple[str, Finding]]:
    """The rows of a target, of its parts and of its kinds."""
    return [(name, f) for name, f in rows if name == target or target in wholes(name)]


def _target(target: str, present: bool, rows: Rows, report: Report, truth: Truth) -> TargetScore:
    own = _of(target, rows)
    overlap = float("nan")
    if present and target in truth.masks:
        marked = np.zeros(truth.masks[target].shape, bool)
        for _, finding in own:
            marked[finding.mask.box] |= finding.mask.crop
        overlap = dice(marked, truth.masks[target])
    return TargetScore(target, present, bool(own), _stated(target, rows, report), overlap)


def _stated(target: str, rows: Rows, report: Report) -> float:
    """Presence of a target's surest row, else of its absence; NaN where a report says nothing of it."""
    found = [f.presence for name, f in rows if name == target]
    return max(found or [a.presence for a in report.absences if a.target == target], default=float("nan"))


def _is_other(name: str, taken: str, modality: str) -> bool:
    """Whether a target is none of a picture's modality, which was taken for another one."""
    entry = vocabulary.find(name, taken)
    return bool(modality) and taken != modality and (entry is None or modality not in entry.contexts)


def _is_false(name: str, truth: Truth) -> bool:
    """Whether an abnormal row is wrong where none of the annotated abnormal targets is there."""
    about = {name} | wholes(name)
    return name in truth.foreign or any(not there and target in about for target, there in truth.present.items())


def _lesions(rows: Rows, truth: Truth) -> Lesions:
    """Rows matched to the lesions of their target by overlap, surest rows first."""
    count, found = 0, []
    for target in truth.lesions:
        pieces, number = ndimage.label(truth.masks[target], np.ones((3,) * truth.masks[target].ndim))
        sizes = np.bincount(pieces.ravel(), minlength=number + 1)
        wanted = [n for n in range(1, number + 1) if sizes[n] >= MINIMUM_PIXELS]
        count += len(wanted)
        taken: set[int] = set()
        for finding in sorted(_outermost(_of(target, rows)), key=lambda f: -f.presence):
            hit = _best(finding, pieces, sizes, [n for n in wanted if n not in taken])
            taken |= {hit} - {0}
            found.append((finding.presence, hit > 0))
    return Lesions(count, tuple(found))


def _outermost(rows: Rows) -> list[Finding]:
    """Rows that are no part or kind of another row's target."""
    names = {name for name, _ in rows}
    return [f for name, f in rows if not wholes(name) & names]


def _best(finding: Finding, pieces: NDArray[np.int32], sizes: NDArray[np.int64], wanted: Sequence[int]) -> int:
    """Number of the piece that a finding overlaps most, of those from ``LEAST_OVERLAP`` on; 0 for none."""
    common = np.bincount(pieces[finding.mask.box][finding.mask.crop], minlength=len(sizes))
    overlaps = {n: common[n] / (finding.mask.count + sizes[n] - common[n]) for n in wanted}
    best = max(overlaps, key=lambda n: overlaps[n], default=0)
    return best if best and overlaps[best] >= LEAST_OVERLAP else 0


def _single(rows: Rows, modality: str) -> tuple[int, int]:
    """Rows of what a person counts as one or as one a side, and how many structures they are about."""
    sides: dict[str, list[str]] = {}
    for name, finding in rows:
        entry = vocabulary.find(name, modality)
        if entry is not None and entry.counted in ("one", "pair"):
            sides.setdefault(name, []).append(finding.measurements.side if entry.counted == "pair" else "")
    structures = 0
    for own in sides.values():
        # Two rows of a pair whose sides cannot be told are taken for its two sides.
        structures += min(len(own) if "unknown" in own else len(set(own)), 2)
    return sum(map(len, sides.values())), structures


def _counted(target: str, rows: Rows) -> int:
    """How many single things the rows of a population say that there are."""
    own = [f.tally.instances if f.tally and f.tally.instances is not None else 1 for n, f in rows if n == target]
    return sum(own)


def _recognised(report: Report, case: Case) -> tuple[bool | None, float]:
    """Whether the modality was recognised rightly, and the share of slices whose part of the body is right."""
    shown = report.shown
    if shown is None:
        return None, float("nan")
    judged = case.modality and shown.modality_by != "user"
    right = shown.modality == case.modality if judged else None
    if not case.parts or not shown.bands:
        return right, float("nan")
    slices = [band.slice_last - band.slice_first + 1 for band in shown.bands]
    hits = [bool(band.parts) and band.parts[0][0] in case.parts for band in shown.bands]
    return right, sum(n for n, hit in zip(slices, hits, strict=True) if hit) / sum(slices)


def failed(truth: Truth, case: Case, volume: bool, modality_right: bool | None = None) -> ReportScore:
    """The score of an item on which no report came about: all that is there was missed.

    Args:
        modality_right: As of a report; False where the engine could not tell it.
    """
    targets = tuple(
        TargetScore(t, there, False, float("nan"), 0.0 if there and t in truth.masks else float("nan"))
        for t, there in sorted(truth.present.items())
    )
    lesions = _lesions((), truth) if truth.lesions else None
    counts = tuple(CountScore(t, known.number, 0, known.origin) for t, known in sorted(truth.counts.items()))
    return ReportScore(
        case.id, case.dataset, case.modality, f"{case.dataset}/{case.group}", volume, 0, targets, (), lesions,
        truth.normal, 0, 0, 0, 0, 0, counts, {}, modality_right, float("nan"), float("nan"),
    )  # fmt: skip


def contradiction_counts(scores: Iterable[ReportScore]) -> Counter[str]:
    """Code -> how many there are in all reports."""
    found: Counter[str] = Counter()
    for one in scores:
        found.update(one.contradictions)
    return found
