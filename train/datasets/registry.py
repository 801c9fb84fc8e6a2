"""The 84 data sets of the paper: what they show, their terms, where they are, and which converter reads them.

How the paper's 61 + 23 come about, and with them the rows of ``registry.json``:

- Table A2 prints 46 rows and says 61 data sets, 47 internal and 14 external (starred). Table A4 resolves it: MSD stands
  for its ten tasks, Radiography for three classes (lung opacity, normal, viral pneumonia), US for four sets (BreastUS,
  LiverUS, CAMUS, FH-PS-AOP), AMOS for its CT and its MRI part. 46 + 9 + 2 + 3 + 1 = 61, and 61 - 14 = 47. Table A4 has
  counts for 59 of them; BraTS21 and AutoPET have none there.
- Table A3 prints 23 rows, each one data set. RadGenome stands in both tables, once for its masks and once for its
  reports, and is counted in both, as the paper does.

Links are the paper's. Licences are those that were publicly known when the table was written; the page behind the link
decides. A row whose files no converter reads as they come says why and what to do first.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from unibiomed_core.errors import ConfigError

from ..data.body_parts import body_of

UNKNOWN_LICENCE = "see the link"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One data set of tables A2 or A3.

    Args:
        name: Short id for commands, unique.
        title: As in the paper.
        table: "A2" or "A3".
        external: Starred in table A2: kept for validation only.
        modalities: Names of ``unibiomed_core.modalities``.
        targets: Regions of interest; vocabulary names where it knows them.
        licence: Terms as publicly known, or "see the link".
        download: What to fetch, and how to lay it out where that matters.
        converter: A layout of ``train.datasets.layouts``, or None.
        reason: Why there is no converter, and the step that makes one fit; empty where there is one.
        after: The layout that reads the data set after that step; empty where there is a converter.
        labels: Target -> label values, where neither the source nor the converter names them; none is all above 0.
        findings_known: A picture without a finding label shows none of the source's findings.
        step: Every n-th slice of a volume.
    """

    name: str
    title: str
    table: str
    modalities: tuple[str, ...]
    targets: tuple[str, ...]
    link: str
    download: str
    converter: str | None
    labels: Mapping[str, tuple[int, ...]]
    external: bool = False
    licence: str = UNKNOWN_LICENCE
    reason: str = ""
    after: str = ""
    findings_known: bool = False
    step: int = 1

    @property
    def body(self) -> tuple[str, ...]:
        """Parts of the body that are shown, as :class:`train.datasets.request.ConversionRequest` has it."""
        return body_of(self.name)

    @property
    def modality(self) -> str:
        """The modality where there is only one, else ""; a converter then takes it from the source."""
        return self.modalities[0] if len(self.modalities) == 1 else ""


@cache
def registry() -> Mapping[str, DatasetEntry]:
    """All rows by name, table A2 first, in the paper's order."""
    rows = json.loads(files(__package__).joinpath("registry.json").read_text("utf-8"))
    return MappingProxyType({row["name"]: _entry(row) for row in rows})


def _entry(row: Mapping[str, Any]) -> DatasetEntry:
    labels = MappingProxyType({target: tuple(values) for target, values in row.get("labels", {}).items()})
    lists = {name: tuple(row[name]) for name in ("modalities", "targets")}
    return DatasetEntry(**{**row, **lists, "labels": labels})


def entry(name: str) -> DatasetEntry:
    """The row of a name.

    Raises:
        ConfigError: The name is unknown; the nearest are offered.
    """
    if name not in registry():
        raise ConfigError("Unknown data set", f"'{name}'", f"nearest: {', '.join(nearest(name, registry()))}")
    return registry()[name]


def nearest(name: str, names: Mapping[str, Any]) -> list[str]:
    """Up to three of the names that look most like ``name``, in any letter case; all where none does."""
    return difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.3) or list(names)


def table_text() -> str:
    """The registry for people: two tables, one block a data set."""
    parts = []
    for table, about in (
        ("A2", "segmentation, ROI classification, grounded disease recognition (* external validation)"),
        ("A3", "report generation"),
    ):
        rows = [e for e in registry().values() if e.table == table]
        parts.append(f"Table {table}: {len(rows)} data sets for {about}")
        parts += [_block(e) for e in rows]
    return "\n\n".join(parts)


def _block(row: DatasetEntry) -> str:
    head = f"{row.name:<27} {row.title + ('*' if row.external else ''):<28} {', '.join(row.modalities)}"
    lines = [
        ("shows", ", ".join(row.targets)),
        ("link", row.link),
        ("licence", row.licence),
        ("converter", row.converter or f"none: {row.reason}"),
        ("download", row.download),
    ]
    return "\n".join([head, *(f"  {name:<11}{text}" for name, text in lines)])
