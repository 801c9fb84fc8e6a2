"""Save masks and Export report: where to, whether files may be replaced, and what was written."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_unibiomed.findings import painted_masks
from napari_unibiomed.findings.export import export_report, file_names
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import Message
from napari_unibiomed.messages.notices import no_finding
from napari_unibiomed.session.shared_findings import findings_of
from unibiomed_core.errors import UniBiomedError

if TYPE_CHECKING:
    from napari_unibiomed.canvas.layers import LayerGateway
    from napari_unibiomed.jobs import Run
    from napari_unibiomed.session.session import Session

REPORT_FORMATS = ("json", "html", "csv", "masks", "pdf")


class Saving:
    """Writes the run that the findings show, else the last one.

    Args:
        gateway: Of the viewer whose layers show the runs.
        parent: Of the dialogs.
        say: Shows a message.
    """

    def __init__(
        self, session: Session, gateway: LayerGateway, parent: QWidget, say: Callable[[Message], None]
    ) -> None:
        self.session, self.gateway, self._say = session, gateway, say
        self._parent = weakref.ref(parent)

    @property
    def run(self) -> Run | None:
        """The run that is shown where it has a report, else the last one that has."""
        shown = findings_of(self.session).run
        if shown is not None and shown.report is not None:
            return shown
        return next((run for run in reversed(self.session.runs) if run.report is not None), None)

    def save_masks(self) -> None:
        """Ask for a folder and write the masks on the grid of the file."""
        self._ask_and_write(("masks",), "Folder for the masks")

    def export(self) -> None:
        """Ask for a folder and write the whole report."""
        self._ask_and_write(REPORT_FORMATS, "Folder for the report")

    def write(self, folder: Path, formats: Collection[str], *, overwrite: bool = False) -> bool:
        """Write into a folder and say so; False where it could not be done, which is said."""
        from napari_unibiomed.widgets.pdf import write_pdf

        model, run = findings_of(self.session), self.run
        if run is None:
            return False
        try:
            strangers = painted_masks.settle(self.gateway, model, run)
            made = export_report(run, model, folder, formats, overwrite=overwrite, write_pdf=write_pdf)
        except UniBiomedError as error:
            self._say(from_error(error))
            return False
        self._say(Message("info", "Written", f"{', '.join(file.name for file in made)} in {folder.name}."))
        if strangers:
            self._say(no_finding(strangers))
        return True

    def _ask_and_write(self, formats: Collection[str], title: str) -> None:
        parent = self._parent()
        name = QFileDialog.getExistingDirectory(parent, title)
        if not name:
            return
        folder, run = Path(name), self.run
        if run is None:
            return
        taken = [file for file in file_names(run, formats) if (folder / file).exists()]
        if taken:
            question = f"{', '.join(taken)} in {folder.name} will be replaced. Other files stay as they are."
            buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No
            if QMessageBox.question(parent, "Replace files?", question, buttons) != QMessageBox.StandardButton.Yes:
                return
        self.write(folder, formats, overwrite=bool(taken))
