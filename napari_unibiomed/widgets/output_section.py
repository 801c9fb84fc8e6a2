"""Section 5: what can be done with the last run."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_unibiomed.messages.catalogue import size_text
from napari_unibiomed.session.phases import Controls, Phase, enabled
from napari_unibiomed.shortcuts import with_keys
from napari_unibiomed.widgets.section import Section, describe, row


class OutputSection(Section):
    """Five buttons, each a request."""

    undo_requested = Signal()
    save_requested = Signal()
    export_requested = Signal()
    panel_requested = Signal()
    saved_requested = Signal()

    def __init__(self) -> None:
        super().__init__("5 Output", foldable=False)
        self.undo = QPushButton("Undo last run")
        self.save = QPushButton("Save masks…")
        self.export = QPushButton("Export report…")
        self.panel = QPushButton("Open findings")
        self.saved = QPushButton("Saved runs…")
        describe(
            self.undo, "Undo last run", with_keys("Take away the last run, whatever slice is shown", "undo_last_run")
        )
        describe(self.save, "Save masks", "Write the masks as NIfTI on the image's own grid.")
        describe(self.export, "Export report", "Write JSON, HTML, CSV and masks into a folder.")
        describe(self.saved, "Saved runs", "List the runs of this image on the disk: restore or delete them.")
        describe(self.panel, "Open findings", "Show the table of findings and the report.")
        self.column.addLayout(row(self.undo, self.panel))
        self.column.addLayout(row(self.save, self.export))
        self.column.addWidget(self.saved)
        self.undo.clicked.connect(self.undo_requested)
        self.save.clicked.connect(self.save_requested)
        self.export.clicked.connect(self.export_requested)
        self.panel.clicked.connect(self.panel_requested)
        self.saved.clicked.connect(self.saved_requested)
        self.show_saved(())

    def show_phase(self, phase: Phase, has_run: bool, has_report: bool) -> None:
        """Enable what can be used; without a run there is nothing to undo or to write."""
        self.undo.setEnabled(has_run and enabled(phase, Controls.UNDO))
        self.save.setEnabled(has_report and enabled(phase, Controls.SAVE))
        self.export.setEnabled(has_report and enabled(phase, Controls.EXPORT))
        self.panel.setEnabled(enabled(phase, Controls.PANEL))

    def show_saved(self, sizes: Sequence[int]) -> None:
        """Offer the list of kept runs, with how much they take; none hides it.

        Args:
            sizes: Of each run, in bytes.
        """
        self.saved.setText(f"Saved runs…  ({len(sizes)}, {size_text(sum(sizes))})")
        self.saved.setVisible(bool(sizes))
