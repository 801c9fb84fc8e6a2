"""Section 1: which model, where it computes, and whether it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_unibiomed.session.models import ModelChoice, device_names, folder_choice
from napari_unibiomed.session.phases import Controls, Phase, enabled
from napari_unibiomed.widgets.section import Chooser, Section, describe, row, wrapped_label

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


class ModelSection(Section):
    """Emits what is requested; what the session is at comes in through :meth:`show_phase`."""

    load_requested = Signal(object)
    unload_requested = Signal()
    download_requested = Signal(object)
    placement_changed = Signal(str, str)
    details_requested = Signal()

    def __init__(self, choices: Sequence[ModelChoice], device: str = "auto", dtype: str = "auto") -> None:
        super().__init__("1 Model")
        self._choices = list(choices)
        self._loaded = False
        self._phase = Phase.NO_MODEL
        self.model = Chooser()
        self.device = Chooser()
        self.dtype = Chooser()
        self.load = QPushButton("Load now")
        self.folder = QPushButton("Use folder…")
        self.download = QPushButton("Download")
        self.details = QPushButton("Details")
        self.about = wrapped_label()
        describe(self.model, "Model", "The model that answers.")
        describe(self.device, "Device", "Where it computes. GPUs are listed once a model was loaded.")
        describe(self.dtype, "Precision", "Number format of the weights; auto fits the device.")
        about_load = "A run loads the model by itself. Read the weights now, or give their memory back."
        describe(self.load, "Load or unload the model", about_load)
        describe(self.folder, "Use folder", "Choose a folder with weights, such as that of a fine-tuned model.")
        describe(self.download, "Download the model", "Fetch the weights once; nothing is fetched without this click.")
        describe(self.details, "Model details", "Copy what is known about model, device and versions.")
        self._fill_models(self._choices[0] if self._choices else None)
        self.fill_devices(device)
        self.dtype.fill([(f"precision {name}", name) for name in DTYPES], dtype)
        self.column.addWidget(self.model)
        self.column.addLayout(row(self.device, self.dtype))
        self.column.addLayout(row(self.load, self.folder, self.details))
        self.column.addWidget(self.download)
        self.column.addWidget(self.about)
        self.model.currentIndexChanged.connect(self._on_choice)
        self.device.currentIndexChanged.connect(self._on_placement)
        self.dtype.currentIndexChanged.connect(self._on_placement)
        self.load.clicked.connect(self._on_load)
        self.folder.clicked.connect(self.ask_for_folder)
        self.download.clicked.connect(lambda: self.download_requested.emit(self.choice))
        self.details.clicked.connect(self.details_requested)
        self._on_choice()

    @property
    def choice(self) -> ModelChoice | None:
        """The model that is chosen, loaded or not."""
        chosen: ModelChoice | None = self.model.currentData()
        return chosen

    def set_choices(self, choices: Sequence[ModelChoice]) -> None:
        """Take the models anew, after a download; folders that were added stay."""
        added = [c for c in self._choices if c.kind == "folder" and c not in choices]
        self._choices = [*choices, *added]
        chosen = self.choice
        self._fill_models(next((c for c in self._choices if chosen and c.name == chosen.name), None))
        self._on_choice()

    def add_folder(self, folder: Path) -> None:
        """Offer a folder and choose it."""
        choice = folder_choice(folder)
        self._choices = [*(c for c in self._choices if c.name != choice.name), choice]
        self._fill_models(choice)
        self._on_choice()

    def fill_devices(self, keep: str | None = None) -> None:
        """List the devices that are known by now."""
        keep = keep or self.device.currentData()
        names = list(dict.fromkeys((*device_names(), *([keep] if keep else []))))
        self.device.fill([(f"device {name}", name) for name in names], keep)

    def show_phase(self, phase: Phase, loaded: bool, line: str) -> None:
        """Enable what can be used.

        Args:
            loaded: Whether a model is in memory.
            line: One line about it, the summary.
        """
        self._phase, self._loaded = phase, loaded
        self.set_summary(line)
        for widget in (self.model, self.device, self.dtype):
            widget.setEnabled(enabled(phase, Controls.MODEL))
        self.folder.setEnabled(enabled(phase, Controls.FOLDER))
        self.load.setText("Unload" if loaded else "Load now")
        self._on_choice()

    def _fill_models(self, keep: ModelChoice | None) -> None:
        self.model.fill([(choice.label, choice) for choice in self._choices], keep)

    def _on_choice(self) -> None:
        choice = self.choice
        can_download = choice is not None and choice.can_download
        self.download.setVisible(can_download)
        self.download.setEnabled(can_download and enabled(self._phase, Controls.DOWNLOAD))
        self.load.setEnabled(choice is not None and not can_download and enabled(self._phase, Controls.LOAD))
        self.load.setDefault(False)
        if choice is not None:
            self.download.setText(f"Download {choice.size}")
            self.model.setToolTip(f"{choice.label}. {choice.name}")
            licence = f"Licence: {choice.licence}" if choice.licence else ""
            self.about.setText(" · ".join(part for part in (choice.about, choice.size, licence) if part))

    def _on_load(self) -> None:
        if self._loaded:
            self.unload_requested.emit()
        else:
            self.load_requested.emit(self.choice)

    def ask_for_folder(self) -> None:
        """Let the user choose a folder with weights."""
        name = QFileDialog.getExistingDirectory(self, "A folder with weights")
        if name:
            self.add_folder(Path(name))

    def _on_placement(self) -> None:
        self.placement_changed.emit(self.device.currentData(), self.dtype.currentData())
