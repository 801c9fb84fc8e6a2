"""The report as a PDF on A4, drawn by Qt; the notice and the page number stand on every page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from qtpy.QtCore import QMarginsF, QRectF, QSizeF, Qt, QUrl
from qtpy.QtGui import (
    QFont,
    QPageLayout,
    QPageSize,
    QPainter,
    QPdfWriter,
    QTextBlock,
    QTextBlockFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
)

from napari_unibiomed.findings.details import caption_of, key_slices, thumbnail
from napari_unibiomed.findings.rows import DASH, Column, FindingRow, cell_text, row_of
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.widgets import glyphs
from napari_unibiomed.widgets.contrast import ink
from napari_unibiomed.widgets.section import pixmap_of
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import WriteError
from unibiomed_core.modalities import Window
from unibiomed_core.report import ENDING_WORDS, ReportSection, evidence_text, line_text, number_text, sections
from unibiomed_core.report.sections import outside
from unibiomed_core.types import Report, Volume

RESOLUTION_DPI = 150
MARGIN_MM = 15.0
FOOTER_POINTS = 24.0
FONT_POINTS = 9
MOST_PICTURED = 12
"""Key slices are drawn for this many findings, largest first; the table has all."""

PICTURE_PX = (160, 320)
PICTURE_WIDTH_POINTS = 150

TABLE = (Column.NUMBER, Column.FINDING, Column.SLICES, Column.SIDE, Column.SIZE, Column.DIAMETERS, Column.INTENSITY,
         Column.SCORE, Column.FLAGS)  # fmt: skip


def write_pdf(report: Report, volume: Volume, window: Window | None, path: Path) -> None:
    """Write a report as PDF; written directly, so stand inside a ``staged`` block.

    Args:
        report: With the user's edits.
        window: The intensity window the model was given.

    Raises:
        WriteError: The file cannot be written.
    """
    writer = QPdfWriter(str(path))
    writer.setTitle(f"Report: {report.image['name']}")
    writer.setCreator("UniBiomed")
    writer.setResolution(RESOLUTION_DPI)
    margins = QMarginsF(MARGIN_MM, MARGIN_MM, MARGIN_MM, MARGIN_MM)
    size = QPageSize(QPageSize.PageSizeId.A4)
    writer.setPageLayout(QPageLayout(size, QPageLayout.Orientation.Portrait, margins, QPageLayout.Unit.Millimeter))
    page = writer.pageLayout().paintRect(QPageLayout.Unit.Point)
    document = _document(report, volume, window)
    document.setPageSize(QSizeF(page.width(), page.height() - FOOTER_POINTS))
    _keep_headings_with_what_follows(document)
    painter = QPainter()
    if not painter.begin(writer):
        raise WriteError("Result cannot be written", f"{path.name} cannot be opened", "a folder that can be written")
    painter.scale(RESOLUTION_DPI / 72, RESOLUTION_DPI / 72)
    pages = document.pageCount()
    for number in range(pages):
        if number:
            writer.newPage()
        _draw_page(painter, document, number, pages, report.notice)
    painter.end()


def _draw_page(painter: QPainter, document: QTextDocument, number: int, pages: int, notice: str) -> None:
    size = document.pageSize()
    painter.save()
    painter.translate(0, -number * size.height())
    document.drawContents(painter, QRectF(0, number * size.height(), size.width(), size.height()))
    painter.restore()
    painter.setFont(_font(7))
    footer = QRectF(0, size.height(), size.width(), FOOTER_POINTS)
    wrap = Qt.TextFlag.TextWordWrap
    painter.drawText(footer.adjusted(0, 4, -60, 0), int(Qt.AlignmentFlag.AlignLeft | wrap), notice)
    painter.drawText(footer.adjusted(0, 4, 0, 0), int(Qt.AlignmentFlag.AlignRight), f"Page {number + 1} of {pages}")


def _font(points: float) -> QFont:
    """A font whose size is in the document's points, whatever the screen's resolution."""
    font = QFont("sans-serif")
    font.setPixelSize(round(points))
    return font


def _document(report: Report, volume: Volume, window: Window | None) -> QTextDocument:
    """The report laid out; one unit is one point."""
    document = QTextDocument()
    document.setDocumentMargin(0)
    document.setDefaultFont(_font(FONT_POINTS))
    document.setDefaultStyleSheet(
        "h1 {font-size:16px} h2 {font-size:12px} h3 {font-size:9px} td, th {padding:2px} .dim {color:#555}"
    )
    rows = [row_of(finding, volume) for finding in report.findings]
    run = Run(Job("report", volume, RunRequest(plane=report.image["plane"], window=window)), 0, report=report)
    told = [(section.code, _section(section, rows, report)) for section in sections(report)]
    first = ("impression", "abnormal", "structures")
    head = _head(report)
    rest = "".join(
        [
            *(text for code, text in told if code in first),
            *_pictures(document, run, rows),
            *(text for code, text in told if code not in first),
        ]
    )
    missing = [c for c in sorted({*head, *rest}) if not glyphs.is_drawn(c, document.defaultFont())]
    said = f"<p><b>{glyphs.note(len(missing))}</b></p>" if missing else ""
    document.setHtml(glyphs.with_codes(head + said + rest, missing))
    return document


def _keep_headings_with_what_follows(document: QTextDocument) -> None:
    """Move headings that would stand alone at the foot of a page to the next one."""
    layout, height = document.documentLayout(), document.pageSize().height()
    assert layout is not None

    def page_of(block: QTextBlock) -> int:
        lines, top = block.layout(), layout.blockBoundingRect(block).y()
        if lines is None or not lines.lineCount():
            return int(top // height)
        # A line that does not fit is moved, in its block or when it is drawn: the page of its foot is its page.
        first = lines.lineAt(0)
        return int((top + first.y() + first.height() - 1) // height)

    block = document.begin()
    while block.isValid():
        follower = block.next()
        while follower.isValid() and follower.blockFormat().headingLevel() and not follower.text().strip():
            follower = follower.next()
        if block.blockFormat().headingLevel() and follower.isValid() and page_of(follower) > page_of(block):
            apart = QTextBlockFormat(block.blockFormat())
            apart.setPageBreakPolicy(QTextFormat.PageBreakFlag.PageBreak_AlwaysBefore)
            QTextCursor(block).setBlockFormat(apart)
            # Qt lays out from the changed block on, and draws by where the others were before.
            document.markContentsDirty(0, document.characterCount())
        block = block.next()


def _head(report: Report) -> str:
    image, model = report.image, report.model
    name, model_name = html.escape(str(image["name"])), html.escape(str(model.get("name", "–")))
    facts = [f"model {model_name}", f"run time {number_text(report.seconds)} s"]
    if not image["is_2d"]:
        facts.insert(0, f"{len(report.slices_done)} of {report.slices_total} {image['plane']} slices examined")
    if not report.complete:
        facts.append(ENDING_WORDS[report.ended].lower())
    notice = f"<p><b>{html.escape(report.notice)}</b></p>"
    return f'<h1>Report: {name}</h1>{notice}<p class="dim">{" · ".join(facts)}</p>'


def _section(section: ReportSection, rows: Sequence[FindingRow], report: Report) -> str:
    """A part of the report: its rows as a table, everything else as paragraphs."""
    title = f"<h2>{html.escape(section.title)}</h2>"
    numbers = {f.number for f in section.findings}
    if numbers:
        return title + _table([row for row in rows if row.number in numbers]) + _more(section, report)
    if section.code == "abnormal":
        return f"{title}<p>None. It does not say that the image is normal.</p>"
    if not section.lines:
        return ""
    return title + "".join(f"<p>{html.escape(line_text(line))}</p>" for line in section.lines)


def _table(rows: Sequence[FindingRow]) -> str:
    told = [column for column in TABLE if any(cell_text(row, column) not in ("", DASH) for row in rows)]
    head = "".join(f"<th align='left'>{html.escape(column.value)}</th>" for column in told)
    body = "".join(f"<tr>{''.join(_cell(row, column) for column in told)}</tr>" for row in rows)
    return f"<table cellspacing='0' cellpadding='2' width='100%'><tr>{head}</tr>{body}</table>"


def _more(section: ReportSection, report: Report) -> str:
    """What the table of a section does not say: why each row is believed, and the model's words on it."""
    told = []
    for f in section.findings:
        if f.evidence is not None:
            told.append(f"{f.number}. {evidence_text(f.evidence)}.")
        if f.description:
            strange = ", ".join(outside(f.description, report))
            marked = f" (outside of what is shown: {strange})" if strange else ""
            told.append(f"{f.number}. The model on this region: \u201c{f.description}\u201d{marked}")
    return "".join(f"<p class='dim'>{html.escape(text)}</p>" for text in told)


def _cell(row: FindingRow, column: Column) -> str:
    text = html.escape(cell_text(row, column))
    if column is Column.NUMBER:
        # Qt takes the colour of text from the text itself and not from its cell.
        number = f"<span style='color:{ink(row.colour)};font-weight:bold'>{text}</span>"
        return f"<td style='background-color:{row.colour}' align='center'>{number}</td>"
    return f"<td>{text}</td>"


def _pictures(document: QTextDocument, run: Run, rows: list[FindingRow]) -> Iterator[str]:
    """Key slices of the largest findings; the pictures go into the document's own resources."""
    flat = run.volume.is_2d
    # One picture has the outlines of all.
    largest = sorted(rows, key=lambda row: -(row.voxel_count or 0))[: 1 if flat else MOST_PICTURED]
    if not largest:
        return
    yield f"<h2>{'Picture' if flat else 'Key slices'}</h2>"
    for row in sorted(largest, key=lambda row: row.number):
        cells = []
        for index, words in key_slices(run, row):
            name = f"slice:{row.number}-{index}"
            picture = pixmap_of(thumbnail(run, row, index, rows, PICTURE_PX))
            document.addResource(int(QTextDocument.ResourceType.ImageResource.value), QUrl(name), picture)
            caption = html.escape(caption_of(run, index, words))
            cells.append(f"<td><img src='{name}' width='{PICTURE_WIDTH_POINTS}'><br>{caption}</td>")
        title = "" if flat else f"<h3>{row.number}. {html.escape(row.phrase)}</h3>"
        yield f"{title}<table><tr>{''.join(cells)}</tr></table>"
    left_out = len(rows) - len(largest)
    if left_out and not flat:
        drawn = f"Key slices are drawn for the {len(largest)} largest findings"
        yield f"<p class='dim'>{drawn}; {left_out} more stand in the table.</p>"
