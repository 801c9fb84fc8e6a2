"""The PDF: pages, text and notice, read back with Qt's own reader. Needs Qt but no viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
reader = pytest.importorskip("qtpy.QtPdf", exc_type=ImportError)
from hand_runs import a_report, a_run, small_volume  # noqa: E402

from napari_unibiomed.exporting import export_report  # noqa: E402
from napari_unibiomed.findings import FindingsModel  # noqa: E402
from napari_unibiomed.widgets.pdf import write_pdf  # noqa: E402
from unibiomed_core.types import NOTICE  # noqa: E402

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
    for words in ("Report: phantom", "hepar <b>", "4.54 mL", "3–4, 6–7", "rejected by the user", "Page 1 of"):
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
    assert "No finding was produced on the 10 slices examined" in " ".join(pages_of(tmp_path / "none.pdf")[0].split())
