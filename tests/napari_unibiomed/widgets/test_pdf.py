"""The PDF: pages, text and notice, read back with Qt's own reader. Needs Qt but no viewer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
reader = pytest.importorskip("qtpy.QtPdf", exc_type=ImportError)
from napari_unibiomed.findings.export import export_report  # noqa: E402
from napari_unibiomed.findings.model import FindingsModel  # noqa: E402
from napari_unibiomed.findings.rows import Column  # noqa: E402
from napari_unibiomed.widgets import glyphs, pdf  # noqa: E402
from napari_unibiomed.widgets.contrast import READABLE, contrast, ink  # noqa: E402
from napari_unibiomed.widgets.pdf import write_pdf  # noqa: E402
from tests.napari_unibiomed.hand_runs import a_report, a_run, small_volume  # noqa: E402
from unibiomed_core.report import colour  # noqa: E402
from unibiomed_core.report.sections import TITLES  # noqa: E402
from unibiomed_core.types import NOTICE, Note  # noqa: E402

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]


def pages_of(path: Path) -> list[str]:
    document = reader.QPdfDocument(None)
    document.load(str(path))
    assert document.status() == reader.QPdfDocument.Status.Ready
    return [document.getAllText(page).text() for page in range(document.pageCount())]


def test_a_report_becomes_pages_with_its_findings_and_the_notice(qapp: Any, tmp_path: Path) -> None:
    run, model = a_run(), FindingsModel()
    model.set_run(run)
    model.rename(1, "hepar <b>")
    model.reject(2)
    (file,) = export_report(run, model, tmp_path, ["pdf"], write_pdf=write_pdf)
    assert file.read_bytes().startswith(b"%PDF")
    pages = pages_of(file)
    assert len(pages) in (1, 2)
    text = " ".join(" ".join(pages).split())
    for words in ("Report: phantom", "hepar <b>", "4.54 mL", "3–4, 6–7", "rejected and left out", "Page 1 of"):
        assert words in text, words
    assert "0.41" not in text
    for page in pages:
        assert NOTICE.split(". ")[0] in page


def test_long_reports_take_more_pages(qapp: Any, tmp_path: Path) -> None:
    volume = small_volume()
    many = a_report(volume, sentences=[(index % 10, "A long sentence. " * 12) for index in range(40)])
    write_pdf(many, volume, None, tmp_path / "long.pdf")
    pages = pages_of(tmp_path / "long.pdf")
    assert len(pages) > 2
    assert f"Page {len(pages)} of {len(pages)}" in pages[-1]


def test_nothing_found_is_said(qapp: Any, tmp_path: Path) -> None:
    volume = small_volume()
    write_pdf(a_report(volume, findings=()), volume, None, tmp_path / "none.pdf")
    told = " ".join(pages_of(tmp_path / "none.pdf")[0].split())
    assert "Abnormal None. It does not say that the image is normal." in told


@pytest.mark.parametrize("lines", range(18, 42, 3))
def test_no_heading_stands_alone_at_the_foot_of_a_page(qapp: Any, tmp_path: Path, lines: int) -> None:
    """ux 14: as many warnings as it takes to bring every heading to the foot of a page once."""
    volume = small_volume()
    write_pdf(a_report(volume, warnings=[Note("any", "A warning.")] * lines), volume, None, tmp_path / "a.pdf")
    pages = pages_of(tmp_path / "a.pdf")
    for page in pages:
        last = [line.strip() for line in page.split("Research use only. Not")[0].splitlines() if line.strip()][-1:]
        assert not {*last} & {*TITLES.values(), "Key slices", "1. liver", "2. lesion"}, page
    assert pages[0].count(NOTICE) == 2, "the head of the text and the foot of the page"
    assert all(page.count(NOTICE) == 1 for page in pages[1:])


def test_numbers_are_read_on_their_colours() -> None:
    """ux 14: Qt takes the colour of text from the text and not from its cell."""
    for row in FindingsModel().rows_of(a_run()):
        number = pdf._cell(row, Column.NUMBER)
        assert f"background-color:{row.colour}" in number
        assert f"<span style='color:{ink(row.colour)}" in number
        assert contrast(ink(row.colour), row.colour) >= READABLE


GREEK, CYRILLIC, CHINESE = (
    "\u03c3\u03ac\u03c1\u03ba\u03c9\u03bc\u03b1",
    "\u0418\u0432\u0430\u043d\u043e\u0432",
    "\u80bf\u7624",
)


@pytest.mark.parametrize("name", [GREEK, CYRILLIC, CHINESE])
@pytest.mark.parametrize("has_fonts", [True, False])
def test_no_character_is_dropped_without_a_trace(
    qapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_fonts: bool
) -> None:
    if not has_fonts:
        monkeypatch.setattr(glyphs, "_has_glyph", lambda character, key: False)
    run, model = a_run(), FindingsModel()
    model.set_run(run)
    model.rename(1, name)
    export_report(run, model, tmp_path, ["pdf"], write_pdf=write_pdf)
    pages = ["".join(page.split()) for page in pages_of(tmp_path / "report.pdf")]
    text = "".join(pages)
    codes = {character: f"[U+{ord(character):04X}]" for character in name}
    assert all(character in text or code in text for character, code in codes.items())
    if not has_fonts:
        assert "".join(codes[character] for character in name) in text
    replaced = set(re.findall(r"\[U\+[0-9A-F]{4,6}\]", text)) - {"[U+0041]"}
    said = "".join(glyphs.note(len(replaced)).split())
    assert bool(replaced) == (said in pages[0]), "the first page tells how many were replaced"
    assert text.count("nofontonthiscomputer") == bool(replaced)


def test_the_colour_of_a_finding_is_one_in_the_window_and_in_every_file(qapp: Any, tmp_path: Path) -> None:
    """ux 14."""
    run = a_run()
    rows = FindingsModel().rows_of(run)
    files = {file.name: file for file in export_report(run, FindingsModel(), tmp_path)}
    labels = json.loads(files["labels.json"].read_text("utf-8"))["labels"]
    html = files["report.html"].read_text("utf-8")
    document = pdf._document(run.report, run.volume, None).toHtml().lower()
    assert len({row.colour for row in rows}) == len(rows) == 2
    for row in rows:
        assert labels[str(row.number)]["colour"] == row.colour == colour(row.number)
        assert f"background:{row.colour}" in html
        assert row.colour.lower() in document
