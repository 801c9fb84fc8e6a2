"""Actions on one row that reach outside of the table: jump, clipboard, layers, files, and a further run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_unibiomed.findings import painted_masks
from napari_unibiomed.findings.export import export_mask
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import FindingRow, measurements_text
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import Message
from napari_unibiomed.widgets.canvas_link import CanvasLink
from napari_unibiomed.widgets.section import to_clipboard
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import UniBiomedError

if TYPE_CHECKING:
    from napari_unibiomed.session.session import Session


NO_LAYER = Message("warning", "The image was closed", "Its layer is not in this viewer.", "Open the image again.")


class RowActions:
    """Does what a row's menu asks for.

    Args:
        parent: Of the file dialog.
        say: Shows a message, or none.
    """

    def __init__(
        self, session: Session, model: FindingsModel, link: CanvasLink, parent: QWidget, say: Callable[..., None]
    ) -> None:
        self.session, self.model, self.link, self._say = session, model, link, say
        self._parent = weakref.ref(parent)
        self.started: Run | None = None

    def jump(self, number: int) -> None:
        """Show the slice with the largest area of it."""
        row = self.model.row(number)
        if row is not None and row.slice_largest is not None:
            self._say(*(() if self.link.jump(number) else (NO_LAYER,)))

    def copy(self, number: int) -> None:
        """All measurements as text, to the clipboard."""
        if (row := self.model.row(number)) is not None:
            to_clipboard(measurements_text(row))

    def own_layer(self, number: int) -> None:
        """A labels layer with this finding alone."""
        if self.link.own_layer(number) is None:
            self._say(NO_LAYER)

    def save_mask(self, number: int) -> None:
        """Ask for a file and write the mask; the dialog asks before a file is replaced."""
        run, row = self.model.run, self.model.row(number)
        if run is None or row is None:
            return
        suffix = ".png" if run.volume.is_2d else ".nii.gz"
        offered = f"{run.volume.name}_{row.phrase.replace(' ', '_')}{suffix}"
        name, _ = QFileDialog.getSaveFileName(self._parent(), "Save mask", offered, f"Mask (*{suffix})")
        if name:
            self.write_mask(number, Path(name if name.endswith(suffix) else name + suffix))

    def write_mask(self, number: int, path: Path) -> None:
        """Write the mask of a row and say so."""
        run = self.model.run
        if run is None:
            return
        try:
            painted_masks.settle(self.link.gateway, self.model, run)
            if (row := self.model.row(number)) is None:
                return
            made = export_mask(run, row, path, overwrite=True)
        except UniBiomedError as error:
            self._say(from_error(error))
            return
        self._say(Message("info", "Written", f"{made.name} in {made.parent.name}."))

    def can_run_again(self, row: FindingRow) -> bool:
        return row.has_mask and not self.session.phase.busy

    def run_again(self, number: int) -> None:
        """Look for the same target on the slice that is shown, as a run of its own."""
        run, row = self.model.run, self.model.row(number)
        index = None if run is None or row is None else self.link.gateway.current_index(run.volume, row.plane)
        source = self.link.source()
        if run is None or row is None or row.finding is None or index is None or source is None:
            self._say(NO_LAYER)
            return
        request = RunRequest.segment(
            row.finding.target, plane=row.plane, indices=(index,), window=run.job.request.window, describe=False
        )
        job = Job("segment", run.volume, request)
        if self.session.start(job):
            self.started = self.session.runs[-1]
            self.link.gateway.add_labels(self.started, source)

    def finish(self, run: Run) -> None:
        """Paint the end of a run that was started here."""
        if run is self.started:
            self.started = None
            self.link.repaint()


Entry = tuple[str, Callable[[], object], bool]


def entries(row: FindingRow, model: FindingsModel, actions: RowActions, rename: Callable[[], object]) -> list[Entry]:
    """Words, what they do, and whether they can be chosen now."""
    number, finished = row.number, model.finished
    others_hidden = model.unseen >= {r.number for r in model.rows if r.number != number}
    alone: Entry = ("Show only this", lambda: model.show_only([number]), row.has_mask)
    everything: Entry = ("Show all", lambda: model.show_only(None), row.has_mask)
    keep: Entry = ("Restore", lambda: model.restore(number), True)
    drop: Entry = ("Reject\tDel", lambda: model.reject(number), finished)
    return [
        ("Jump to it\tEnter", lambda: actions.jump(number), row.slice_largest is not None),
        everything if others_hidden and len(model.rows) > 1 else alone,
        ("Copy measurements", lambda: actions.copy(number), True),
        ("Make own layer", lambda: actions.own_layer(number), row.has_mask),
        ("Save mask…", lambda: actions.save_mask(number), row.has_mask),
        ("Re-run on this slice", lambda: actions.run_again(number), actions.can_run_again(row)),
        ("Rename\tF2", rename, finished),
        keep if row.rejected else drop,
    ]


def menu_of(found: list[Entry], parent: QWidget) -> QMenu:
    """The entries as a menu."""
    menu = QMenu(parent)
    for words, call, enabled in found:
        action = menu.addAction(words)
        assert action is not None
        action.setEnabled(enabled)
        action.triggered.connect(lambda _=False, call=call: call())
    return menu
