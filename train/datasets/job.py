"""What every converter is asked for, and the summary it adds to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from train.data.records import Record

TEST_SHARE = 0.2
"""Share of the patients that the paper holds out."""


@dataclass
class Summary:
    """What a conversion made and what it refused, with the reason."""

    records: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, item: str, reason: object) -> None:
        """Leave an item out; the reason is told to people."""
        self.refused.append((item, str(reason)))


@dataclass(frozen=True)
class Job:
    """One data set to convert.

    Args:
        source: Its folder.
        dataset: Name of the data set; first part of every record's id.
        side: Side of the pictures in pixels; 0 keeps the source's own size.
        modality: Where the layout does not tell.
        licence: Terms of the data, written into every record.
        labels: Target name -> label values it is made of, where the source does not name them or names them otherwise.
        body: Body part, e.g. "chest"; decides which targets of other data sets cannot be in the picture.
        findings_known: A picture without a finding label shows none of the source's findings.
        step: Every n-th slice of a volume.
    """

    source: Path
    dataset: str
    side: int = 256
    modality: str = ""
    licence: str = "not stated"
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    body: str = "any"
    findings_known: bool = False
    step: int = 1


Converter = Callable[[Job, Summary], Iterator[Record]]
"""Yields records in a fixed order; an item that cannot be read is refused in the summary and left out.

Raises ``DataError`` where the folder is not in its layout at all.
"""


def split_of(dataset: str, group: str) -> str:
    """ "train" or "test" by patient, 80 / 20, from the SHA-1 of the names alone: the same on every machine."""
    digest = hashlib.sha1(f"{dataset}/{group}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64 else "train"
