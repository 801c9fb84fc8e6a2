"""What every converter is asked for, and the summary it adds to."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unibiomed_core.types import Note

from ..data.records import Record

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

TEST_SHARE = 0.2
"""Share of the patients that the paper holds out."""


@dataclass
class Summary:
    """What a conversion refused, with the reason, and what it had to assume or mend.

    Attributes:
        notes: (code of ``notes.WORDS``, what the code alone does not tell) -> how often.
        examples: The same key -> the first case.
    """

    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def refuse(self, item: str, reason: object) -> None:
        """Leave an item out; the reason is told to people."""
        self.refused.append((item, str(reason)))

    def note(self, code: str, example: str, detail: str = "", count: int = 1) -> None:
        """Count something that was read other than it stands.

        Args:
            code: A row of ``notes.WORDS``.
            example: The item, file or name; the first is shown.
            detail: What tells cases of one code apart, such as an encoding; each is counted by itself.
        """
        self.notes[code, detail] += count
        self.examples.setdefault((code, detail), example)

    def note_reader(self, notes: Iterable[Note], item: str) -> None:
        """Count what the reader of a picture or volume had to assume."""
        for note in notes:
            # Values differ from file to file; what was assumed is the same.
            self.note("reader", f"{item}: {note.text}", _NUMBER.sub("N", note.text))


@dataclass(frozen=True)
class ConversionRequest:
    """One data set to convert.

    Args:
        source: Its folder.
        dataset: Name of the data set; first part of every record's id.
        side: Side of the pictures in pixels; 0 keeps the source's own size.
        modality: Where the layout does not tell.
        licence: Terms of the data, written into every record.
        labels: Target name -> label values it is made of, where the source does not name them or names them otherwise.
        body: Parts of the body that are shown, of ``vocabulary.PARTS``; decide which targets cannot be in the picture.
        findings_known: A picture without a finding label shows none of the source's findings.
        step: Every n-th slice of a volume.
        held_out: Groups of the test split, where the source has no division and is too small to be divided by names.
        undivided: Gets every group that the source does not put into a split; see :meth:`split`.
    """

    source: Path
    dataset: str
    side: int = 256
    modality: str = ""
    licence: str = "not stated"
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    body: tuple[str, ...] = ()
    findings_known: bool = False
    step: int = 1
    held_out: frozenset[str] = frozenset()
    undivided: set[str] = field(default_factory=set, compare=False, repr=False)

    def split(self, own: str, group: str) -> str:
        """ "train" or "test": the source's ``own`` word, or the group's where that is empty."""
        if own:
            return own
        self.undivided.add(group)
        if self.held_out:
            return "test" if group in self.held_out else "train"
        return split_of(self.dataset, group)


Converter = Callable[[ConversionRequest, Summary], Iterator[Record]]
"""Yields records in a fixed order; an item that cannot be read is refused in the summary and left out.

Raises ``DataError`` where the folder is not in its layout at all.
"""


def split_of(dataset: str, group: str) -> str:
    """ "train" or "test" by patient, 80 / 20, from the SHA-1 of the names alone: the same on every machine."""
    return "test" if _place(dataset, group) < TEST_SHARE * 2**64 else "train"


def held_out_by_count(dataset: str, groups: Iterable[str]) -> frozenset[str]:
    """The groups of the test split of a small set: a fifth of them by count, at least one and never all of two or more.

    The same names give the same groups on every machine, whatever their order.
    """
    ordered = sorted(groups, key=lambda group: (_place(dataset, group), group))
    return frozenset(ordered[: min(max(1, round(TEST_SHARE * len(ordered))), len(ordered) - 1)])


def _place(dataset: str, group: str) -> int:
    """Where a group stands among all that could be, 0 to 2^64."""
    return int.from_bytes(hashlib.sha1(f"{dataset}/{group}".encode()).digest()[:8], "big")
