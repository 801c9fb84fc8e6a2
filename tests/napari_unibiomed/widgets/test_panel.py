"""The findings panel beside a viewer model, with a scripted engine: both directions of every link.

Rows and texts have tests of their own, and so has the panel's dock frame.
"""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QPoint, Qt, QUrl
from qtpy.QtWidgets import QApplication

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.findings.rows import COLUMNS, Column, FindingRow
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.session import session as sessions
from napari_unibiomed.session.session import Session
from napari_unibiomed.session.shared_findings import findings_of
from napari_unibiomed.widgets.panel import FindingsPanel
from napari_unibiomed.widgets.row_actions import entries
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.napari_unibiomed.hand_runs import nested_run
from tests.patience import GUARD_MS
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.types import NOTICE

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

FOUND = {
    "liver": dict.fromkeys((1, 2, 4), (10, 10, 26, 30)),
    "spleen": {2: (14, 14, 20, 22)},
}
"""The spleen lies on the liver; slice 3 is a gap of the liver."""


@dataclass
class Desk:
    """A viewer with an image, a panel and a session that is ready."""

    viewer: Any
    panel: FindingsPanel
    engine: FakeEngine
    image: Any
    qtbot: Any

    def run(self, *targets: str, found: Any = None, kind: Any = "report") -> Run:
        """Run to the end and paint the layer, as the dock does."""
        if found is not None:
            self.engine.found = found
        volume = self.image.metadata["unibiomed"]["volume"]
        assert self.panel.session.start(Job(kind, volume, RunRequest.segment(*targets)))
        run = self.panel.session.runs[-1]
        layer = self.panel.gateway.add_labels(run, self.image)
        self.qtbot.waitUntil(lambda: not self.panel.session.phase.busy, timeout=GUARD_MS)
        self.panel.gateway.update_labels(layer, run)
        return run

    @property
    def model(self) -> Any:
        return self.panel.model

    @property
    def layer(self) -> Any:
        return self.panel.link.layer

    def cell(self, place: int, column: Column = Column.FINDING) -> Any:
        return self.panel.table.proxy.index(place, COLUMNS.index(column))

    def texts(self, column: Column) -> list[str]:
        return [self.cell(place, column).data() for place in range(self.panel.table.proxy.rowCount())]


@pytest.fixture
def desk(qtbot: Any) -> Iterator[Desk]:
    viewer = ViewerModel()
    engine = FakeEngine(found=FOUND)
    sessions._sessions[id(viewer)] = session = Session(load_engine=engine.load)
    panel = FindingsPanel(viewer)
    qtbot.addWidget(panel)
    image = LayerGateway(viewer).add_image(ct())
    yield Desk(viewer, panel, engine, image, qtbot)
    panel.cleanup()
    session.close()
    sessions._sessions.pop(id(viewer), None)


def test_states_are_said_and_never_left_empty(desk: Desk) -> None:
    panel = desk.panel
    assert "Findings appear here after a run." in panel.state.text()
    assert panel.stack.currentWidget() is panel.state
    desk.run("liver", found={})
    assert panel.state.text().startswith("No finding was produced in 6 slices.")
    desk.run("liver", "spleen", found=FOUND)
    assert panel.stack.currentWidget() is panel.table
    assert panel.counts.text() == "2 structures"
    panel.filter.setText("kidney")
    assert "0 of 2 shown" in panel.state.text()
    panel.state.linkActivated.emit("clear")
    assert (panel.filter.text(), panel.stack.currentWidget()) == ("", panel.table)


def test_rows_appear_slice_by_slice(desk: Desk) -> None:
    desk.engine._held.clear()
    session = desk.panel.session
    assert session.start(Job("report", desk.image.metadata["unibiomed"]["volume"], RunRequest.segment("liver")))
    assert "slice by slice" in desk.panel.state.text()
    desk.engine.let(3)
    desk.qtbot.waitUntil(lambda: desk.texts(Column.SLICES) == ["1–2"], timeout=GUARD_MS)
    assert desk.texts(Column.FLAGS) == ["in work"]
    desk.engine.let_all()
    desk.qtbot.waitUntil(lambda: not session.phase.busy, timeout=GUARD_MS)
    assert desk.texts(Column.SLICES) == ["1–2, 4"]


def test_a_row_selects_its_label_and_a_label_its_row(desk: Desk) -> None:
    desk.run("liver", "spleen")
    assert desk.model.selection is None
    desk.panel.table.setCurrentIndex(desk.cell(1))
    assert (desk.model.selection, desk.layer.selected_label) == (2, 2)
    assert [layer.name for layer in desk.viewer.layers].count("UniBiomed outline") == 1
    assert "spleen" in desk.panel.card.title.text()
    desk.layer.selected_label = 1
    assert desk.model.selection == 1
    assert desk.panel.table.currentIndex().row() == 0
    desk.layer.selected_label = 9  # a number of the user's own brush stays selected
    assert desk.model.selection is None
    assert desk.layer.selected_label == 9
    assert not desk.panel.card.isVisibleTo(desk.panel)


def test_jumping_and_stepping_skip_the_gap_and_keep_the_zoom(desk: Desk) -> None:
    run = desk.run("liver", "spleen")
    panel, viewer = desk.panel, desk.viewer
    viewer.scene.camera.zoom = 7.0
    panel.table.doubleClicked.emit(desk.cell(1))
    assert panel.gateway.current_index(run.volume, "axial") == 2
    assert viewer.scene.camera.zoom == pytest.approx(7.0)
    assert tuple(viewer.scene.camera.center[1:]) == pytest.approx((16.5, 17.5))
    desk.model.select(1)
    assert panel.card.place.text() == "axial slice 2 · 2 of 3"
    panel.card.forth.click()
    assert panel.gateway.current_index(run.volume, "axial") == 4
    assert not panel.card.forth.isEnabled()
    panel.card.back.click()
    assert panel.card.place.text() == "axial slice 2 · 2 of 3"
    desk.qtbot.waitUntil(lambda: sum(not shot.isHidden() for shot in panel.card.shots) == 2, timeout=GUARD_MS)
    assert [shot.text() for shot in panel.card.shots[:2]] == ["1 first, largest", "4 last"]
    panel.card.shots[1].click()
    assert panel.gateway.current_index(run.volume, "axial") == 4


def test_keys_reject_rename_and_jump(desk: Desk) -> None:
    run = desk.run("liver", "spleen")
    table = desk.panel.table
    table.setCurrentIndex(desk.cell(0, Column.SLICES))
    desk.qtbot.keyClick(table, Qt.Key.Key_Delete)
    assert desk.model.row(1).rejected
    assert desk.panel.counts.text() == "2 structures, 1 rejected"
    assert desk.panel.gateway.hidden(desk.layer) == {1}
    desk.panel.hide_rejected.setChecked(True)
    assert desk.texts(Column.FINDING) == ["spleen"]
    desk.panel.undo.click()
    assert not desk.model.row(1).rejected
    assert desk.model.selection == 1
    assert table.model().setData(desk.cell(1), "  splenule ")
    assert desk.texts(Column.FINDING) == ["splenule", "liver"], "a name that nobody knows may be abnormal"
    assert desk.model.selection == 1
    assert table.currentIndex().row() == 1, "the selection goes with its row"
    assert sorted(desk.layer.features["finding"])[1:] == ["liver", "splenule"]
    table.setCurrentIndex(desk.cell(0))
    desk.qtbot.keyClick(table, Qt.Key.Key_Return)
    assert desk.panel.gateway.current_index(run.volume, "axial") == 2


def test_the_tick_takes_a_finding_off_the_canvas(desk: Desk) -> None:
    desk.run("liver", "spleen")
    number = desk.cell(1, Column.NUMBER)
    assert desk.panel.table.model().setData(number, Qt.CheckState.Unchecked, Qt.ItemDataRole.CheckStateRole)
    assert desk.panel.gateway.hidden(desk.layer) == {2}
    assert "hidden" in desk.texts(Column.FLAGS)[1]


def test_sorting_is_by_value(desk: Desk) -> None:
    desk.run("liver", "spleen")
    size = COLUMNS.index(Column.SIZE)
    desk.panel.table.sortByColumn(size, Qt.SortOrder.AscendingOrder)
    assert desk.texts(Column.FINDING) == ["spleen", "liver"]
    desk.panel.table.sortByColumn(size, Qt.SortOrder.DescendingOrder)
    assert desk.texts(Column.FINDING) == ["liver", "spleen"]


def test_the_order_of_the_report_comes_back_with_the_kind_and_parts_are_indented_in_it(desk: Desk) -> None:
    nested = nested_run()
    desk.model.set_run(nested)
    in_order = ["lung tumour", "consolidation", "liver", "\u2003spleen", "\u2003\u2003kidney", "stomach"]
    assert desk.texts(Column.FINDING) == in_order
    assert desk.texts(Column.KIND) == ["abnormal", "unsure", *["structure"] * 4]
    desk.panel.table.sortByColumn(COLUMNS.index(Column.FINDING), Qt.SortOrder.AscendingOrder)
    names = ["consolidation", "kidney", "liver", "lung tumour", "spleen", "stomach"]
    assert desk.texts(Column.FINDING) == names
    desk.panel.table.sortByColumn(COLUMNS.index(Column.KIND), Qt.SortOrder.AscendingOrder)
    assert desk.texts(Column.FINDING) == in_order
    assert desk.cell(3).data(Qt.ItemDataRole.EditRole) == "spleen", "what is edited is the name alone"
    assert "Part of No. 3" in desk.cell(3).data(Qt.ItemDataRole.ToolTipRole)


def test_what_is_edited_stands_at_its_new_place_in_the_table(desk: Desk) -> None:
    desk.model.set_run(nested_run())
    desk.model.reject(3)
    assert desk.texts(Column.FINDING)[2:] == ["liver", "spleen", "\u2003kidney", "stomach"], "no whole any more"
    desk.model.rename(6, "lung tumour")
    assert desk.texts(Column.FINDING)[:3] == ["lung tumour", "consolidation", "lung tumour"]
    assert desk.texts(Column.KIND)[:3] == ["abnormal", "unsure", "abnormal"]
    desk.model.undo()
    desk.model.undo()
    assert desk.texts(Column.FINDING)[2:] == ["liver", "\u2003spleen", "\u2003\u2003kidney", "stomach"]


def test_the_models_own_words_are_shown_when_they_are_asked_for(desk: Desk) -> None:
    desk.model.set_run(nested_run())
    text = desk.panel.text
    desk.qtbot.waitUntil(lambda: "Impression" in text.toPlainText(), timeout=GUARD_MS)
    assert "The model's own words, unedited (show)" in text.toPlainText()
    assert "pancreas" not in text.toPlainText()
    text.anchorClicked.emit(QUrl("fold:words"))
    assert "pancreas" in text.toPlainText()
    assert text.toPlainText().endswith(NOTICE)
    desk.model.reject(1)
    desk.qtbot.waitUntil(lambda: "rejected" in text.toPlainText(), timeout=GUARD_MS)
    assert "pancreas" in text.toPlainText(), "what was opened stays open"
    text.anchorClicked.emit(QUrl("fold:words"))
    assert "pancreas" not in text.toPlainText()


def test_words_of_the_report_lead_to_the_finding_and_back(desk: Desk) -> None:
    run = desk.run("liver", "spleen")
    desk.panel.refresh_text()
    shown = desk.panel.text.toHtml()
    assert 'href="finding:1"' in shown
    assert "underline" in shown
    desk.panel.text.finding_clicked.emit(2)
    assert desk.model.selection == 2
    assert desk.panel.gateway.current_index(run.volume, "axial") == 2
    desk.panel.text.finding_hovered.emit(1)
    assert (desk.layer.selected_label, desk.model.selection) == (1, 2)
    desk.panel.text.finding_hovered.emit(None)
    assert (desk.layer.selected_label, desk.model.selection) == (2, 2)


def test_painting_measures_the_finding_anew_and_undo_takes_it_back(desk: Desk) -> None:
    run = desk.run("liver", "spleen")
    before = desk.model.row(1).voxel_count
    image = hashlib.sha256(np.ascontiguousarray(desk.image.data)).hexdigest()
    painted = np.where(np.arange(36).reshape(6, 6) >= 0)
    desk.layer.data_setitem((np.full(36, 3), painted[0] + 30, painted[1] + 30), 1)
    desk.qtbot.waitUntil(lambda: desk.model.row(1).edited, timeout=GUARD_MS)
    row = desk.model.row(1)
    # The spleen covers a part of the liver, which stays the liver's.
    assert row.voxel_count == before + 36
    assert row.slices == "1–4"
    assert not desk.model.row(2).edited
    assert desk.panel.undo.isEnabled()
    desk.panel.refresh_text()
    assert "painted on and measured again" in " ".join(desk.panel.text.toPlainText().split())
    desk.panel.undo.click()
    assert desk.model.row(1).voxel_count == before
    assert int((np.asarray(desk.layer.data)[3] == 1).sum()) == 0
    assert hashlib.sha256(np.ascontiguousarray(desk.image.data)).hexdigest() == image
    assert run.report.findings[0].mask.count == before, "the run itself is never changed"


def test_an_undone_stroke_is_noticed(desk: Desk) -> None:
    desk.run("liver", "spleen")
    before = desk.model.row(2).voxel_count
    desk.layer.data_setitem((np.array([4]), np.array([40]), np.array([40])), 2)
    desk.qtbot.waitUntil(lambda: desk.model.row(2).voxel_count == before + 1, timeout=GUARD_MS)
    desk.layer.undo()
    desk.qtbot.waitUntil(lambda: desk.model.row(2).voxel_count == before, timeout=GUARD_MS)


def test_painting_over_another_finding_takes_from_it(desk: Desk) -> None:
    desk.run("liver", "spleen")
    before = {n: desk.model.row(n).voxel_count for n in (1, 2)}
    desk.layer.data_setitem((np.array([2]), np.array([16]), np.array([16])), 1)
    desk.qtbot.waitUntil(lambda: desk.model.row(2).edited, timeout=GUARD_MS)
    assert {n: desk.model.row(n).voxel_count for n in (1, 2)} == {1: before[1] + 1, 2: before[2] - 1}


def test_a_number_that_is_no_finding_is_said(desk: Desk) -> None:
    desk.run("liver", "spleen")
    desk.layer.data_setitem((np.array([2]), np.array([40]), np.array([40])), 7)
    desk.qtbot.waitUntil(lambda: "Label 7 is no finding" in desk.panel.message.text(), timeout=GUARD_MS)
    assert not any(row.edited for row in desk.model.rows)


def test_recolouring_reaches_chips_and_links(desk: Desk) -> None:
    from napari.utils.colormaps import DirectLabelColormap

    desk.run("liver", "spleen")
    desk.layer.colormap = DirectLabelColormap(color_dict={None: "white", 0: "transparent", 1: "#ff00ff", 2: "#00ffff"})
    assert desk.cell(0, Column.NUMBER).data(Qt.ItemDataRole.DecorationRole).name() == "#ff00ff"
    assert desk.model.row(2).colour.lower() == "#00ffff"


def test_runs_keep_their_edits_and_go_with_undo(desk: Desk) -> None:
    first = desk.run("liver", "spleen")
    desk.model.reject(2)
    second = desk.run("liver")
    assert desk.model.run is second
    texts = [desk.panel.runs.itemText(n) for n in range(2)]
    assert texts == [first.entry, second.entry]
    assert texts[1].startswith("2 · Report: liver · 20")
    assert second.entry in desk.panel.runs.toolTip()
    desk.panel.runs.setCurrentIndex(0)
    assert desk.model.run is first
    assert desk.model.row(2).rejected
    assert desk.layer.metadata["unibiomed"]["run"] is first
    desk.panel.session.undo_last_run()
    assert desk.panel.runs.count() == 1
    desk.panel.session.undo_last_run()
    assert "Findings appear here" in desk.panel.state.text()


def test_the_menu_copies_makes_a_layer_and_saves(desk: Desk, tmp_path: Path) -> None:
    desk.run("liver", "spleen")
    actions, model = desk.panel.actions_of_row, desk.model
    words = [entry[0].split("\t")[0] for entry in entries(model.row(2), model, actions, lambda: None)]
    assert words == [
        "Jump to it", "Show only this", "Copy measurements", "Make own layer", "Save mask…", "Re-run on this slice",
        "Rename", "Reject",
    ]  # fmt: skip
    actions.copy(2)
    assert "Finding: spleen" in QApplication.clipboard().text()
    actions.own_layer(2)
    own = desk.viewer.layers["phantom spleen"]
    assert set(np.unique(own.data)) == {0, 2}
    actions.write_mask(2, tmp_path / "spleen.nii.gz")
    assert (tmp_path / "spleen.nii.gz").exists()
    assert "Written" in desk.panel.message.text()
    actions.write_mask(2, tmp_path / "spleen.txt")
    assert desk.panel.message.text().startswith("✕")
    desk.panel._on_menu(desk.panel.table.visualRect(desk.cell(0)).center() + QPoint(0, 0))


def test_a_row_can_be_run_again_on_its_slice(desk: Desk) -> None:
    desk.run("liver", "spleen")
    desk.panel.actions_of_row.jump(2)
    desk.panel.actions_of_row.run_again(2)
    desk.qtbot.waitUntil(lambda: not desk.panel.session.phase.busy, timeout=GUARD_MS)
    run = desk.panel.session.runs[-1]
    assert (run.job.kind, run.job.request.indices) == ("segment", (2,))
    assert [prompt.target for prompt in run.job.request.prompts] == ["spleen"]
    assert set(np.unique(desk.layer.data)) == {0, 1}


def test_a_closed_image_is_said(desk: Desk) -> None:
    desk.run("liver", "spleen")
    desk.viewer.layers.clear()
    desk.panel.actions_of_row.jump(1)
    assert "The image was closed" in desk.panel.message.text()
    assert desk.panel.link.layer is None
    assert desk.texts(Column.FINDING) == ["liver", "spleen"]


def test_a_narrow_panel_scrolls_to_every_column_with_the_name_in_view(desk: Desk) -> None:
    """ux 6: a narrow table never showed volume, diameters, mean, presence and flags."""
    desk.run("liver", "spleen")
    table = desk.panel.table
    desk.panel.resize(300, 600)
    desk.panel.show()
    table.fit_columns()
    assert not any(table.isColumnHidden(n) for n in range(len(COLUMNS)))
    bar = table.horizontalScrollBar()
    assert bar.maximum() > 0
    assert not table.frozen.isVisible()
    bar.setValue(bar.maximum())
    last = len(COLUMNS) - 1
    assert table.columnViewportPosition(last) + table.columnWidth(last) <= table.viewport().width()
    assert table.frozen.isVisible()
    shown = [n for n in range(len(COLUMNS)) if not table.frozen.isColumnHidden(n)]
    assert shown == [0, COLUMNS.index(Column.FINDING)]
    table.rename(table.model().index(0, last))
    assert bar.value() == 0  # the name is edited where nothing lies over it
    assert not table.frozen.isVisible()
    desk.panel.resize(1400, 600)
    QApplication.processEvents()
    assert bar.maximum() == 0
    assert desk.panel.minimumSizeHint().height() < 700


@pytest.mark.parametrize(("slices", "hidden"), [("–", True), ("3–5", False)])
def test_columns_without_a_word_take_no_room(desk: Desk, slices: str, hidden: bool) -> None:
    table = desk.panel.table
    desk.panel.resize(1400, 600)
    table.table.rows = [FindingRow(1, "polyp", slices)]
    table.fit_columns()
    for column in (Column.SLICES, Column.SIDE):
        assert table.isColumnHidden(COLUMNS.index(column)) is hidden
    assert table.isColumnHidden(COLUMNS.index(Column.DIAMETERS))


def test_cleanup_leaves_no_connection(desk: Desk) -> None:
    desk.run("liver", "spleen")
    desk.panel.cleanup()
    heard = (desk.layer, desk.panel.table.proxy.rowCount())
    findings_of(desk.panel.session).reject(1)
    assert heard == (None, 2)
    assert not len(desk.panel.model.changed)
    assert not len(desk.panel.model.selected)


def test_a_panel_that_ended_is_freed(desk: Desk) -> None:
    desk.run("liver")
    panel = FindingsPanel(desk.viewer)
    held = weakref.ref(panel)
    panel.cleanup()
    panel.deleteLater()
    del panel
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    assert held() is None
