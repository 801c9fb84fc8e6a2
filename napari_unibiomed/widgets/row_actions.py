"""Actions on one row that reach outside of the table: jump, clipboard, layers, files, and a further run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_unibiomed import canvas_masks, messages
from napari_unibiomed.exporting import export_mask
from napari_unibiomed.findings import FindingsModel
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.message import Message
from napari_unibiomed.rows import FindingRow, measurements_text
from napari_unibiomed.widgets.canvas_link import CanvasLink
from unibiomed_core.errors import UniBiomedError

if TYPE_CHECKING:
    from napari_unibiomed.session import Session

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
        row, clipboard = self.model.row(number), QApplication.clipboard()
        if row is not None and clipboard is not None:
            clipboard.setText(measurements_text(row))

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
            canvas_masks.settle(self.link.gateway, self.model, run)
            if (row := self.model.row(number)) is None:
                return
            made = export_mask(run, row, path, overwrite=True)
        except UniBiomedError as error:
            self._say(messages.from_error(error))
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
        job = Job(
            "segment", run.volume, (row.finding.target,), row.plane, (index,), window=run.job.window, describe=False
        )
        if self.session.start(job):
            self.started = self.session.runs[-1]
            self.link.gateway.add_labels(self.started, source)

    def finish(self, run: Run) -> None:
        """Paint the end of a run that was started here."""
        if run is self.started:
            self.started = None
            self.link.repaint()
