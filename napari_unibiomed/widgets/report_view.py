"""The text of a run with its findings as coloured, underlined links."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence

from qtpy.QtCore import QEvent, QUrl, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QTextBrowser

from napari_unibiomed.findings.linked_text import Line, Span
from napari_unibiomed.widgets.contrast import readable

SCHEME, FOLD = "finding", "fold"
OPEN, CLOSED = "\u25be", "\u25b8"
"""Before the title of a part that can be folded."""


class ReportView(QTextBrowser):
    """Emits the number of a finding when its words are clicked, or pointed at; None when the pointer leaves them."""

    finding_clicked = Signal(int)
    finding_hovered = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setOpenLinks(False)
        self.setAccessibleName("Report text")
        self.setPlaceholderText("The report appears here after a run.")
        self.anchorClicked.connect(self._on_clicked)
        self.highlighted.connect(self._on_hovered)
        self._pointed: int | None = None
        self._shown: tuple[Sequence[Line], Mapping[int, str]] = ((), {})
        self._unfolded: set[str] = set()

    def show_lines(self, lines: Sequence[Line], colours: Mapping[int, str]) -> None:
        """Show a text; where it is scrolled to stays, and so does what was unfolded.

        Args:
            colours: Number -> #RRGGBB of its label.
        """
        self._shown = lines, colours
        bar = self.verticalScrollBar()
        assert bar is not None  # every scroll area has one
        place = bar.value()
        background = self.palette().color(QPalette.ColorRole.Base).name()
        link = self.palette().color(QPalette.ColorRole.Text).name()
        shown = [line for line in lines if self._is_shown(line)]
        self.setHtml("".join(_paragraph(line, colours, background, link, self._unfolded) for line in shown))
        bar.setValue(place)

    def leaveEvent(self, event: QEvent | None) -> None:
        super().leaveEvent(event)
        self._point_at(None)

    def _is_shown(self, line: Line) -> bool:
        return all(not span.fold or span.kind == "title" or span.fold in self._unfolded for span in line)

    def _on_clicked(self, url: QUrl) -> None:
        if url.scheme() == FOLD:
            self._unfolded ^= {url.path()}
            self.show_lines(*self._shown)
        if (number := _number(url)) is not None:
            self.finding_clicked.emit(number)

    def _on_hovered(self, url: QUrl) -> None:
        self._point_at(_number(url))

    def _point_at(self, number: int | None) -> None:
        if number != self._pointed:
            self._pointed = number
            self.finding_hovered.emit(number)


def _number(url: QUrl) -> int | None:
    return int(url.path()) if url.scheme() == SCHEME else None


def _paragraph(line: Line, colours: Mapping[int, str], background: str, link: str, unfolded: Collection[str]) -> str:
    spans = (
        _fold(span, link, span.fold in unfolded)
        if span.fold and span.kind == "title"
        else _html(span, colours, background)
        for span in line
    )
    return f'<p style="margin:2px 0">{"".join(spans)}</p>'


def _fold(title: Span, colour: str, is_open: bool) -> str:
    """A title that shows what stands below it, or hides it."""
    mark, word = (OPEN, "hide") if is_open else (CLOSED, "show")
    text = f"<b>{mark} {html.escape(title.text)}</b> ({word})"
    return f'<a href="{FOLD}:{title.fold}" style="color:{colour};text-decoration:none">{text}</a>'


def _html(span: Span, colours: Mapping[int, str], background: str) -> str:
    text = html.escape(span.text)
    indent = len(text) - len(text.lstrip(" "))
    text = "&nbsp;" * indent + text[indent:]
    if span.number is not None:
        colour = readable(colours.get(span.number, "#808080"), background)
        return f'<a href="{SCHEME}:{span.number}" style="color:{colour};text-decoration:underline">{text}</a>'
    if span.kind == "title":
        return f"<b>{text}</b>"
    return f"<i>{text}</i>" if span.kind == "note" else text
