"""Leakage between splits: no id, patient or picture stands in both, and no id twice in one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from unibiomed_core.errors import DataError

from .records import Record

DIGEST_BYTES = 16
"""Length of what is kept of a name or picture; two different ones share it with odds below 1 in 10^24 for 10^7."""


class LeakageCheck:
    """Sees records one at a time, in any order of splits, and keeps digests instead of records."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, set[bytes]]] = {}
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, record: Record, split: str) -> None:
        """Take a record of a split ("train" or "test") into account."""
        fresh = self._note("ids", record.id.encode(), record.id, split)
        if not fresh:
            self._report("ids repeated in one split", record.id)
        group = f"{record.dataset}/{record.group}"
        self._note("patients or groups", f"{record.dataset}\0{record.group}".encode(), group, split)
        self._note("pictures", record.image, f"the picture of {record.id}", split)

    def _note(self, kind: str, content: bytes, name: str, split: str) -> bool:
        """Whether the content is new to its own split."""
        digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
        splits = self._seen.setdefault(kind, {})
        own = splits.setdefault(split, set())
        if digest in own:
            return False
        own.add(digest)
        if any(digest in others for name_of_other, others in splits.items() if name_of_other != split):
            self._report(f"{kind} in both splits", name)
        return True

    def _report(self, what: str, example: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        self._examples.setdefault(what, example)

    def finish(self) -> None:
        """Raise where anything leaked.

        Raises:
            DataError: How many ids, patients and pictures, with one example of each kind.
        """
        if self._counts:
            found = "; ".join(f"{n} {what}, e.g. {self._examples[what]}" for what, n in self._counts.items())
            raise DataError("Leakage between splits", found, "splits that share nothing", "Split by patient.")


def check_leakage(train: Iterable[Record], test: Iterable[Record]) -> None:
    """Check two splits, each read once.

    Raises:
        DataError: An id, a (data set, group) or a picture stands in both, or an id twice in one.
    """
    check = LeakageCheck()
    for split, records in (("train", train), ("test", test)):
        for record in records:
            check.add(record, split)
    check.finish()
