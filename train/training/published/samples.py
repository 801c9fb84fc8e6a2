"""The list that the published training goes through: one question a sample, small sets repeated, shuffled each pass.

Which role a data set has follows from what its records know. The list and its order are functions of (seed, pass).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core import vocabulary
from unibiomed_core.errors import DataError
from unibiomed_core.tasks import END, NO_FINDINGS
from unibiomed_core.types import Region

from ...data import wordings
from ...data.records import Record, RecordSet
from ...data.targets import NOTHING
from .wordings import ANSWERS, QUESTIONS

if TYPE_CHECKING:
    import pyarrow

FRAMES = 10
"""Slices of a volume that one sample shows."""

WITHOUT_REPLACEMENT_FROM = 12
"""Slices that a volume must have for ten different ones to be drawn."""

SMALLEST_BOX_PX = 400
"""A piece whose box has a larger area than this is drawn in before any other."""

VOLUME_SETS = ("msd06-lung", "msd09-spleen", "msd10-colon", "covid-ct")
"""Registry names of the sets that are also shown as volumes."""


@dataclass(frozen=True)
class Role:
    """How often the samples of one kind stand in the list.

    Args:
        fill: A set with fewer samples is repeated, whole, as often as fits into this number.
        repeat: Any set is repeated so often.
        masks: Whether the answer has a ``[SEG]``.
        tiled: Whether the language side sees tiles; else it sees one small picture, or one a slice.
    """

    fill: int = 0
    repeat: int = 1
    masks: bool = True
    tiled: bool = True


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "segment": Role(fill=5000),
        "disease": Role(fill=5000),
        "grounded_vqa": Role(repeat=2),
        "report": Role(repeat=2),
        "roi_class": Role(fill=3000, masks=False, tiled=False),
        "region_report": Role(fill=5000, masks=False, tiled=False),
        "volume": Role(repeat=10, tiled=False),
    }
)


Part = tuple[str, NDArray[np.int32], NDArray[np.int64] | None]
"""Role, records, and in each the number of its region; None where a sample is about the whole picture."""

_NAMES = tuple(ROLES)
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class PublishedSample:
    """One question.

    Args:
        records: One, or the slices of a volume in order.
        question: With ``<image>``.
        answer: With its end mark.
        targets: What the masks show, one a record; empty for a text-only sample.
        region: A box to draw into the picture.
    """

    role: str
    records: tuple[Record, ...]
    question: str
    answer: str
    targets: tuple[str, ...]
    region: Region | None
    rng: np.random.Generator


class PublishedSamples:
    """The list over all records that are trained on.

    Args:
        usable: (N,) bool.

    Raises:
        DataError: No record has a question of the published kinds.
    """

    def __init__(self, records: RecordSet, seed: int, usable: NDArray[np.bool_]) -> None:
        self.records, self.seed = records, seed
        found = _Regions(records)
        self._volumes = _volumes(records, found, usable)
        parts: list[Part] = [
            *_pictures(records, found, usable),
            ("volume", np.arange(len(self._volumes), dtype=np.int32), None),
        ]
        self._role = np.concatenate([np.full(len(own), _NUMBERS[role], np.int8) for role, own, _ in parts])
        self._record = np.concatenate([own for _, own, _ in parts]).astype(np.int32)
        self._region = np.concatenate(
            [np.full(len(own), -1) if regions is None else regions for _, own, regions in parts]
        ).astype(np.int32)
        if not len(self._role):
            raise DataError("No record to train on", f"none of {len(records)} has a mask or a report", "one or more")
        self._list = _repeated(self._role, np.where(self._role == _NUMBERS["volume"], 0, records.groups[self._record]))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self._list)

    def sample(self, position: int) -> PublishedSample:
        """The sample at a position of the whole run: every pass shows the list once, in an order of its own."""
        number, place = divmod(position, len(self))
        if self._order[0] != number:
            self._order = (number, np.random.default_rng([self.seed, number]).permutation(len(self)))
        entry = int(self._list[self._order[1][place]])
        return self.entry(entry, np.random.default_rng([self.seed, position, 1]))

    def entry(self, number: int, rng: np.random.Generator) -> PublishedSample:
        """One entry of the list before repetition."""
        role, record, region = _NAMES[self._role[number]], int(self._record[number]), int(self._region[number])
        if role == "volume":
            return self._volume_sample(record, rng)
        return made_sample(role, self.records[record], region, rng)

    def _volume_sample(self, number: int, rng: np.random.Generator) -> PublishedSample:
        target, slices = self._volumes[number]
        chosen = np.sort(rng.choice(len(slices), FRAMES, replace=len(slices) < WITHOUT_REPLACEMENT_FROM))
        records = tuple(self.records[int(slices[n])] for n in chosen)
        phrase = wordings.phrase(target, records[0].modality)
        question, answer = _texts("volume", rng, target=phrase)
        return PublishedSample("volume", records, question, answer, (target,) * FRAMES, None, rng)


def made_sample(role: str, record: Record, region: int, rng: np.random.Generator) -> PublishedSample:
    """A sample about one region of a picture; ``region`` is -1 where there is none."""
    own = record.regions[region] if region >= 0 else None
    target = own.target if own else NOTHING
    phrase = wordings.phrase(target, record.modality) if own else NO_FINDINGS
    report = (own.caption if own else record.caption).lower() if role == "report" else record.caption
    box = box_of(record.masks()[target], rng) if role == "roi_class" else None
    name = target if role in {"grounded_vqa", "report"} else phrase
    question, answer = _texts(role, rng, target=phrase, phrase=name, anatomy=own.anatomy if own else "", report=report)
    targets = (target,) if ROLES[role].masks else ()
    return PublishedSample(role, (record,), question, answer, targets, box, rng)


def box_of(mask: NDArray[np.bool_], rng: np.random.Generator) -> Region:
    """The box of one piece of a mask, drawn at random among those of some size, else among all.

    Its right and lower edges lie one pixel beyond the piece, as published.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    pieces = [ndimage.find_objects(labels)[n] for n in rng.permutation(count)]
    large = [p for p in pieces if (p[0].stop - p[0].start) * (p[1].stop - p[1].start) > SMALLEST_BOX_PX]
    rows, columns = (large or pieces)[0]
    return Region(columns.start, rows.start, columns.stop, rows.stop)


def _texts(role: str, rng: np.random.Generator, **words: str) -> tuple[str, str]:
    """A question and an answer of a role, filled in."""
    question, answer = (options[int(rng.integers(len(options)))] for options in (QUESTIONS[role], ANSWERS[role]))
    for name, value in words.items():
        question, answer = question.replace(f"{{{name}}}", value), answer.replace(f"{{{name}}}", value)
    return question, answer + END


def _repeated(roles: NDArray[np.int8], groups: NDArray[np.int32]) -> NDArray[np.int32]:
    """Entry numbers, those of one role and data set together and as often as the role says."""
    keys = roles.astype(np.int64) * (int(groups.max()) + 1) + groups
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = np.nonzero(np.diff(keys[order], prepend=-1))[0]
    parts = []
    for own in np.split(order, starts[1:]):
        rule = ROLES[_NAMES[roles[own[0]]]]
        parts.append(np.tile(own, rule.repeat * max(1, rule.fill // len(own))))
    return np.concatenate(parts)


class _Regions:
    """All regions of all records, as columns.

    Attributes:
        record: (R,) the record of each.
        number: (R,) its number in that record.
        drawn: (R,) bool, it has a mask.
        told: (R,) bool, it has an anatomy and a report.
        finding: (R,) bool, its target is a finding.
        names, name: Target names, and (R,) which one.
    """

    def __init__(self, records: RecordSet) -> None:
        import pyarrow.compute as compute

        lengths = records.lengths("regions")
        self.record = np.repeat(np.arange(len(records), dtype=np.int32), lengths)
        self.number = np.arange(len(self.record)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._records = len(records)
        drawn, told, numbers = [np.zeros(0, bool)], [np.zeros(0, bool)], [np.zeros(0, np.int32)]
        known: dict[str, int] = {}
        for (chunk,) in records.chunks("regions"):
            inner = compute.list_flatten(chunk)
            filled = {n: _filled(compute.struct_field(inner, n)) for n in ("counts", "anatomy", "caption")}
            drawn.append(filled["counts"])
            told.append(filled["anatomy"] & filled["caption"])
            coded = compute.struct_field(inner, "target").dictionary_encode()
            place = [known.setdefault(name, len(known)) for name in coded.dictionary.to_pylist()]
            numbers.append(np.array(place, np.int32)[np.asarray(coded.indices, np.int32)])
        self.drawn, self.told, self.name = map(np.concatenate, (drawn, told, numbers))
        self.names = list(known)
        targets = vocabulary.targets()
        finding = np.array([n not in targets or targets[n].kind == "finding" for n in self.names], bool)
        self.finding = finding[self.name]

    def anywhere(self, of: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(R,) of regions -> (N,) bool, records that have such a region."""
        return np.bincount(self.record[of], minlength=self._records) > 0


def _pictures(records: RecordSet, found: _Regions, usable: NDArray[np.bool_]) -> Iterator[Part]:
    """The samples about one picture."""
    complete, captioned = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for known, caption in records.chunks("findings_known", "caption"):
        complete.append(known.to_numpy(zero_copy_only=False))
        captioned.append(_filled(caption))
    whole = {"complete": np.concatenate(complete), "captioned": np.concatenate(captioned)}
    kept = usable[found.record] & found.drawn
    for role, fits in (
        ("segment", kept), ("disease", kept & found.finding & whole["complete"][found.record]),
        ("grounded_vqa", kept & found.told), ("report", kept & found.told), ("roi_class", kept),
    ):  # fmt: skip
        yield role, found.record[fits], found.number[fits]
    normal = whole["complete"] & ~found.anywhere(found.finding)
    told = whole["captioned"] & ~whole["complete"] & ~found.anywhere(found.drawn)
    for role, those in (("disease", normal), ("report", normal & whole["captioned"]), ("region_report", told)):
        yield role, np.nonzero(those & usable)[0].astype(np.int32), None


def _filled(texts: pyarrow.Array) -> NDArray[np.bool_]:
    """Which texts or byte strings are not empty."""
    import pyarrow.compute as compute

    return np.asarray(compute.binary_length(texts)) > 0


def _volumes(records: RecordSet, found: _Regions, usable: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.int32]]]:
    """(target, its slices in order) of every volume of :data:`VOLUME_SETS`; slices without the target are left out."""
    sets = [n for n, (dataset, _) in enumerate(records.group_names) if dataset in VOLUME_SETS]
    rows = np.nonzero(np.isin(records.groups[found.record], sets) & found.drawn & usable[found.record])[0]
    if not len(rows):
        return []
    slices: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in rows:
        record = int(found.record[row])
        where = records[record]
        if where.volume:
            slices.setdefault((where.volume, found.names[found.name[row]]), []).append((where.slice, record))
    return [(target, np.array([r for _, r in sorted(own)], np.int32)) for (_, target), own in slices.items()]
