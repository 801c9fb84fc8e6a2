"""The registry: all 84 data sets of the paper, each with a converter that exists or a reason in words."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from urllib.parse import urlparse

import pytest

from train.datasets.case_patterns import PATTERNS
from train.datasets.layouts import LAYOUTS
from train.datasets.registry import DatasetEntry, entry, registry, table_text
from unibiomed_core.errors import ConfigError
from unibiomed_core.modalities import MODALITIES

ROWS = list(registry().values())


def test_every_data_set_of_the_paper_stands_there_once() -> None:
    assert len(registry()) == 84
    assert [r.table for r in ROWS] == ["A2"] * 61 + ["A3"] * 23
    starred = {r.title for r in ROWS if r.external}
    assert len(starred) == 14
    assert {"CRAG", "BraTS21", "AbdomenAtlas"} <= starred
    assert all(r.table == "A2" for r in ROWS if r.external)
    assert len([r for r in ROWS if r.title.startswith("MSD")]) == 10
    assert len({(r.table, r.title) for r in ROWS}) == 84


def test_titles_and_links_are_the_papers(shared: Path) -> None:
    text = (shared / "paper" / "unibiomed.txt").read_text("utf-8")
    tables = text.split("Table A2:", 1)[1].split("Table A5:", 1)[0]
    for row in ROWS:
        assert row.link in tables, row.name
        assert re.search(rf"(?m)^{re.escape(row.title)}( \[|\*|\t|$)", tables), row.title
    printed = {word for word in tables.split() if word.startswith("http")}
    assert printed <= {r.link for r in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_a_row_is_complete(row: DatasetEntry) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", row.name)
    assert row.name not in LAYOUTS
    assert row.name != "auto"
    assert urlparse(row.link).scheme in {"http", "https"}
    assert urlparse(row.link).netloc
    assert row.modalities
    assert set(row.modalities) <= set(MODALITIES)
    assert row.targets
    assert all(t == t.lower() for t in row.targets if "MedTrinity" not in t)
    assert row.licence
    assert len(row.download.split()) >= 4
    assert row.step >= 1
    assert set(row.labels) <= {*row.targets, "background"}
    assert all(values or len(row.labels) == 1 for values in row.labels.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_a_converter_exists_or_the_reason_is_in_words(row: DatasetEntry) -> None:
    if row.converter is None:
        assert len(row.reason.split()) >= 8
        assert row.after in LAYOUTS
        assert row.reason.endswith(row.after)
    else:
        assert row.converter in LAYOUTS
        assert row.reason == row.after == ""


def test_few_fit_no_converter() -> None:
    assert sum(r.converter is None for r in ROWS) <= 17


@pytest.mark.parametrize("row", [r for r in ROWS if r.converter == "case-folders"], ids=lambda r: r.name)
def test_volumes_have_their_names_from_the_converter(row: DatasetEntry) -> None:
    named = [set(p.labels) for patterns in PATTERNS.values() for p in patterns if p.modality == row.modality]
    assert set(row.targets) in named or row.name == "abdomen-atlas"  # one file a target there


@pytest.mark.parametrize("row", [r for r in ROWS if "nnunet" in (r.converter, r.after)], ids=lambda r: r.name)
def test_volumes_of_the_common_layout_have_their_names_here(row: DatasetEntry) -> None:
    assert row.labels.keys() == set(row.targets)


def test_modality_is_told_where_there_is_one() -> None:
    assert entry("kits23").modality == "ct"
    assert entry("slake").modality == ""


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ROWS[0].name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        registry()["x"] = ROWS[0]  # type: ignore[index]


@pytest.mark.parametrize(("wrong", "offered"), [("msd03-livr", "msd03-liver"), ("KiTS", "kits23")])
def test_an_unknown_name_offers_the_nearest(wrong: str, offered: str) -> None:
    with pytest.raises(ConfigError, match=offered):
        entry(wrong)


def test_the_table_shows_licence_and_converter_of_each() -> None:
    text = table_text()
    assert "Table A2: 61 data sets" in text
    assert "Table A3: 23 data sets" in text
    assert text.count("\n  licence ") == text.count("\n  converter ") == 84
    for row in ROWS:
        assert re.search(rf"(?m)^{re.escape(row.name)} +{re.escape(row.title)}", text), row.name
