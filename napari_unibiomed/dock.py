"""The dock: choose an image, press Report, see the findings. Thin: decisions are in ``state`` and ``layers``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_unibiomed.geometry import KEY, volume_of
from napari_unibiomed.layers import LayerGateway
from napari_unibiomed.state import LoadEngine, Phase, Session, Status, load_embedded
from unibiomed_core.errors import UniBiomedError
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.types import NOTICE, Report, Volume

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

CHOOSE = "choose…"


class _Bridge(QObject):
    """Carries statuses from the model thread to the window's."""

    status = Signal(object)


class ReportDock(QWidget):
    """Load a sample or choose an image layer, and report on it.

    Args:
        viewer: napari passes its own.
        load_engine: Makes the engine in the model thread; tests pass another one.
    """

    def __init__(self, viewer: Viewer, load_engine: LoadEngine = load_embedded) -> None:
        super().__init__()
        self.gateway = LayerGateway(viewer)
        self._job: tuple[Image, Volume] | None = None
        self._bridge = _Bridge(self)
        self._bridge.status.connect(self._show, Qt.ConnectionType.QueuedConnection)
        self.session = Session(self._bridge.status.emit, load_engine)
        self._build()
        viewer.layers.events.inserted.connect(self._refresh)
        viewer.layers.events.removed.connect(self._refresh)
        # The widget outlives a closed dock frame; the session must not keep the widget alive in turn.
        session, events, refresh = self.session, viewer.layers.events, self._refresh

        def clean(*_: object) -> None:
            session.close()
            events.inserted.disconnect(refresh)
            events.removed.disconnect(refresh)

        self.destroyed.connect(clean)
        self._refresh()

    def _build(self) -> None:
        self.sample = QComboBox()
        self.sample.setToolTip("Open one of the shipped images.")
        self.load_button = QPushButton("Load sample")
        self.image = QComboBox()
        self.image.setToolTip("The image layer the report is about. It is never changed.")
        self.modality = QComboBox()
        self.modality.addItem(CHOOSE, "")
        for row in MODALITIES.values():
            self.modality.addItem(row.label, row.name)
        self.modality.setToolTip("What kind of image it is; filled in where the file says so.")
        self.report_button = QPushButton("Report")
        self.report_button.setToolTip("Look for everything the model knows in this modality, slice by slice.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop after the slice in work and keep what is done.")
        self.progress = QProgressBar()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.findings = QTextBrowser()
        self.findings.setPlaceholderText("Findings appear here after a run.")
        notice = QLabel(NOTICE)
        notice.setWordWrap(True)
        for name, widget in {
            "Sample": self.sample, "Image": self.image, "Modality": self.modality, "Report": self.report_button,
            "Cancel": self.cancel_button, "Load sample": self.load_button, "Progress": self.progress,
            "Message": self.message, "Findings": self.findings,
        }.items():  # fmt: skip
            widget.setAccessibleName(name)

        for box in (self.sample, self.image, self.modality):
            # A long name must not widen the dock; the whole name is in the list.
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(12)
        form = QFormLayout()
        form.addRow("Sample", self.sample)
        form.addRow("", self.load_button)
        form.addRow("Image", self.image)
        form.addRow("Modality", self.modality)
        body = QWidget()
        column = QVBoxLayout(body)
        column.addLayout(form)
        for widget in (self.report_button, self.cancel_button, self.progress, self.message):
            column.addWidget(widget)
        column.addWidget(self.findings, 1)
        column.addWidget(notice)
        area = QScrollArea()
        area.setWidget(body)
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(300)

        from unibiomed_core.samples import samples

        for sample in samples().values():
            self.sample.addItem(sample.title, sample.name)
        self.load_button.clicked.connect(self._load_sample)
        self.image.currentIndexChanged.connect(self._image_chosen)
        self.report_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self._cancel)
        self._enable(Phase.READY)
        self.message.setText("Choose an image and press Report.")

    def run(self) -> None:
        """Report on the chosen image."""
        layer = self.image.currentData()
        try:
            if layer is None:
                raise UniBiomedError("No image", "no image layer is open", "an image", "Open one or load a sample.")
            kind = self.modality.currentData()
            if not kind:
                raise UniBiomedError("Modality unknown", "the file does not tell it", "a choice", "Choose it above.")
            volume = volume_of(layer, kind)
        except UniBiomedError as error:
            self.message.setText(f"▲ {error}")
            return
        self._job = (layer, volume)
        self.findings.clear()
        if self.session.start(volume):
            self._enable(Phase.LOADING)

    def _cancel(self) -> None:
        self.session.cancel()
        self.message.setText("Cancelling…")
        self._enable(self.session.phase)

    def _load_sample(self) -> None:
        from unibiomed_core.io import read
        from unibiomed_core.samples import samples

        sample = samples()[self.sample.currentData()]
        try:
            self.gateway.add_image(read(sample.path, sample.modality))
        except UniBiomedError as error:
            self.message.setText(f"✕ {error}")

    def _refresh(self, *_: Any) -> None:
        """Keep the chooser in step with the layers; the choice stays where its layer is still there."""
        chosen = self.image.currentData()
        layers = list(self.gateway.images())
        self.image.blockSignals(True)
        self.image.clear()
        for layer in layers:
            self.image.addItem(layer.name, layer)
        if chosen in layers and self.session.phase.busy:
            self.image.setCurrentIndex(layers.index(chosen))
        self.image.blockSignals(False)
        self._image_chosen()

    def _image_chosen(self, *_: Any) -> None:
        layer = self.image.currentData()
        volume = layer.metadata.get(KEY, {}).get("volume") if layer is not None else None
        if volume is not None:
            self.modality.setCurrentIndex(self.modality.findData(volume.modality))

    def _show(self, status: Status) -> None:
        """Take a status; runs in the window's thread."""
        icon = {Phase.FAILED: "✕ ", Phase.DONE: "● "}.get(status.phase, "")
        self.message.setText(icon + status.message)
        self.progress.setRange(0, status.total)
        self.progress.setValue(status.done)
        if status.report is not None and self._job is not None:
            layer, volume = self._job
            if self.gateway.holds(layer):
                job = SimpleNamespace(volume=volume, label="", plane="axial")
                run: Any = SimpleNamespace(job=job, report=status.report, predictions={})
                self.gateway.add_labels(run, layer)
            else:
                self.message.setText("▲ The image was closed. Findings are listed below; no layer was added.")
            self._list(status.report)
        self._enable(status.phase)

    def _list(self, report: Report) -> None:
        self.findings.setPlainText(report.narrative)

    def _enable(self, phase: Phase) -> None:
        self.report_button.setEnabled(not phase.busy)
        self.load_button.setEnabled(not phase.busy)
        self.cancel_button.setVisible(phase.busy)
        self.cancel_button.setEnabled(phase is not Phase.CANCELLING)
        self.progress.setVisible(phase.busy)
