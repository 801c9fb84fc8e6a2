"""The folded part of the task section: how slices are planned and masks become findings."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFormLayout, QSizePolicy, QToolButton, QWidget

from napari_unibiomed.runs.requests import PLANS
from napari_unibiomed.widgets.section import Chooser, describe
from unibiomed_core.engine.volume.request import RunRequest

TITLE = "Advanced"


class AdvancedOptions(QWidget):
    """The controls; ``toggle`` folds them, says how many differ from the usual, and is placed by the owner."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.toggle = QToolButton()
        self.toggle.setAutoRaise(True)
        self.toggle.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.toggle.clicked.connect(lambda: self._fold(self._unfolded))
        self.plan = Chooser()
        self.plan.fill([(words, name) for name, words in PLANS.items()])
        self.smooth_mm = _number(20.0, 0.5, 1, " mm", "off")
        self.least_presence = _number(1.0, 0.05, 2, "", "any")
        self.min_area_mm2 = _number(100_000.0, 1.0, 1, " mm\u00b2", "specks only")
        self.link_slices = QCheckBox("link across slices")
        self.link_slices.setChecked(True)
        describe(self.plan, "Slice plan", "Coarse, then fine: some slices first, then those around what was found.")
        describe(self.smooth_mm, "Smoothing", "Smooth each finding in 3D; its size stays the same.")
        describe(self.least_presence, "Least presence", "Leave out findings with a lower presence; they are counted.")
        describe(self.min_area_mm2, "Smallest area", "Leave out pieces of a slice that are smaller.")
        describe(self.link_slices, "Link across slices", "Off: the pieces of each slice are findings of their own.")
        self.form = QFormLayout(self)
        self.form.setContentsMargins(8, 0, 0, 0)
        self.form.setSpacing(3)
        for words, widget in (
            ("slices", self.plan),
            ("smoothing", self.smooth_mm),
            ("presence from", self.least_presence),
            ("area from", self.min_area_mm2),
        ):
            self.form.addRow(words, widget)
        self.form.addRow(self.link_slices)
        self.plan.currentIndexChanged.connect(self._on_changed)
        self.link_slices.toggled.connect(self._on_changed)
        for box in (self.smooth_mm, self.least_presence, self.min_area_mm2):
            box.valueChanged.connect(self._on_changed)
        self._unfolded, self._offered = False, True
        self._fold(True)

    @property
    def options(self) -> RunRequest:
        """What the controls say; the usual where nothing was changed."""
        return RunRequest(
            plan=self.plan.currentData(),
            smooth_mm=self.smooth_mm.value(),
            least_presence=self.least_presence.value(),
            min_area_mm2=self.min_area_mm2.value() or None,
            link_slices=self.link_slices.isChecked(),
        )

    def offer(self, offered: bool, *, picture: bool, all_slices: bool) -> None:
        """Show what means something: nothing for questions, no plan beside single slices or in a picture."""
        self._offered = offered
        self.form.setRowVisible(self.plan, all_slices and not picture)
        self.form.setRowVisible(self.smooth_mm, not picture)
        self.form.setRowVisible(self.link_slices, not picture)
        self._show()

    def _fold(self, folded: bool) -> None:
        self._unfolded = not folded
        self._show()

    def _on_changed(self) -> None:
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        count = len(self.options.changed)
        words = f"{TITLE}: {count} set" if count else TITLE
        self.toggle.setText(f"{'▾' if self._unfolded else '▸'} {words}")
        describe(self.toggle, words, "Slice plan, smoothing, least presence, smallest area, linking. Fold or unfold.")
        self.toggle.setVisible(self._offered)
        self.setVisible(self._offered and self._unfolded)


def _number(most: float, step: float, decimals: int, suffix: str, none: str) -> QDoubleSpinBox:
    """A number from 0 on, whose 0 is said in a word."""
    box = QDoubleSpinBox()
    box.setRange(0.0, most)
    box.setSingleStep(step)
    box.setDecimals(decimals)
    box.setSuffix(suffix)
    box.setSpecialValueText(none)
    return box
