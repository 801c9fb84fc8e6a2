"""What a conversion says of files that it read other than they stand: a code each, and the words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from .request import Summary

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "name_backslash": "file names with backslashes, read as folders",
        "name_letter_case": "file names in other letter case or with outer spaces",
        "name_unicode": "file names with accents stored in another Unicode form",
        "name_percent": "file names with percent signs, read as a browser writes them",
        "name_absolute": "paths of another machine, found by their ends",
        "mask_name": "masks paired with their pictures under another spelling",
        "polygon_dropped": "pieces of fewer than three corners or without area, left out of polygons",
        "polygon_cut": "polygons that leave their picture, cut at its border",
        "annotation_dropped": "annotations without outline or box; their targets count as neither there nor absent",
        "labels_rounded": "label maps whose values were not quite whole, rounded",
        "jpeg_mask": "masks kept as JPEG, which changes values; each pixel took the nearest label",
        "table_encoding": "tables that are not UTF-8, read as",
        "split_by_count": "few patients or pictures and no division; a fifth of them by count is the test split",
        "reader": "",
    }
)  # fmt: skip
"""Code -> what happened. What a case has besides follows the words; "reader" has the reader's own sentence."""


def noted(summary: Summary) -> list[dict[str, Any]]:
    """The notes for the machine: ``code``, ``detail``, ``count`` and the first ``example`` of each, most first."""
    rows = sorted(summary.notes.items(), key=lambda row: (-row[1], row[0]))
    return [
        {"code": code, "detail": detail, "count": count, "example": summary.examples[code, detail]}
        for (code, detail), count in rows
    ]


def note_lines(notes: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a note, for people."""
    return [
        f"note {row['count']} x: {' '.join(filter(None, (WORDS[row['code']], row['detail'])))}; e.g. {row['example']}"
        for row in notes
    ]
