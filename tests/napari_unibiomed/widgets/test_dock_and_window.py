"""The dock in step with what goes on around it: selected image, names of layers, a small screen, the end (ux 12-20)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unibiomed import commands

pytest.importorskip("napari.layers")
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QStyle, QStyleOptionComboBox

from napari_unibiomed.messages.message import Link
from napari_unibiomed.runs.preflight import slice_count
from napari_unibiomed.session.phases import status_line
from napari_unibiomed.widgets.image_section import step_words
from napari_unibiomed.widgets.lifetime import frame_of
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, FakeInfo, ct

__all__ = ["open_dock"]

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

LIVER = {"liver": dict.fromkeys(range(2, 6), (10, 10, 30, 30))}
GUARD_S = 300
HORIZONTAL = Qt.Orientation.Horizontal


def test_the_dock_follows_the_image_that_is_selected_in_napari(open_dock: Open) -> None:
    """ux 12: a second and third image opened, and the dock stayed on the old one."""
    kit = open_dock(image=ct(8, 64, "first"))
    second = kit.dock.gateway.add_image(ct(6, 48, "second"))
    assert kit.dock.image.layer is second
    assert kit.session.volume.shape[0] == 6
    kit.viewer.layers.selection.active = kit.viewer.layers["first"]
    assert kit.dock.image.layer.name == "first"
    kit.viewer.add_labels(np.zeros((8, 64, 64), int), name="mine")  # no image: nothing changes
    assert kit.dock.image.layer.name == "first"


def test_an_image_that_was_chosen_in_the_dock_stays_until_it_follows_again(open_dock: Open) -> None:
    kit = open_dock(image=ct(8, 64, "first"))
    second = kit.dock.gateway.add_image(ct(6, 48, "second"))
    chooser = kit.dock.image.image
    chooser.setCurrentIndex(chooser.findText("first"))
    chooser.activated.emit(chooser.currentIndex())  # as a click in the list does
    assert not kit.dock.image.follow.isChecked()
    kit.viewer.layers.selection.active = None
    kit.viewer.layers.selection.active = second
    assert kit.dock.image.layer.name == "first"
    kit.dock.image.follow.click()
    assert kit.dock.image.layer is second


def test_a_run_holds_its_image_and_says_so(open_dock: Open) -> None:
    """ux 12: never another image in the middle of a run; the selected one is taken when it is done."""
    kit = open_dock(FakeEngine(LIVER, held=True), image=ct(8, 64, "first"))
    assert kit.dock.run_report()
    kit.engine.wait_until_in_work()
    second = kit.dock.gateway.add_image(ct(6, 48, "second"))
    assert kit.dock.image.layer.name == "first"
    assert kit.session.volume.shape[0] == 8
    assert kit.dock.image.summary.toolTip() == "first until the run ends"
    kit.engine.let_all()
    kit.until_idle()
    assert kit.session.runs[0].complete
    assert kit.dock.image.layer is second


def test_a_kind_that_was_told_is_kept_for_its_layer(open_dock: Open) -> None:
    kit = open_dock()
    plain = kit.viewer.add_image(np.random.default_rng(0).integers(0, 255, (4, 32, 32)), name="plain")
    kit.dock.image.kind.choose("mri")
    kit.dock.gateway.add_image(ct(6, 48, "second"))
    assert kit.dock.image.modality == "ct"
    kit.viewer.layers.selection.active = plain
    assert kit.dock.image.modality == "mri"


def test_layers_are_named_after_image_and_task_and_renaming_reaches_the_panel(open_dock: Open) -> None:
    """Runs piled up as "findings [1]", "[2]"."""

    kit = open_dock(FakeEngine(LIVER), image=ct(8, 64, "thigh"))
    kit.dock.run_report()
    kit.until_idle()
    kit.dock.run_report()
    kit.until_idle()
    kit.dock.choose_task("segment")
    kit.dock.task.prompt.setEditText("liver")
    kit.dock.run_task()
    kit.until_idle()
    layers = [kit.dock.running.layers.layer_of(run) for run in kit.session.runs]
    assert [layer.name for layer in layers] == ["thigh report", "thigh report 2", "thigh liver"]
    layers[1].name = "second look"
    panel = commands.open_panel(kit.viewer)
    assert [panel.runs.itemText(n) for n in range(3)] == [run.entry for run in kit.session.runs]
    names = ["1 · thigh report · 20", "2 · second look · 20", "3 · thigh liver · 20"]
    assert all(run.entry.startswith(name) for run, name in zip(kit.session.runs, names, strict=True))
    assert [layer.colormap.color_dict[1].tolist() for layer in layers] == 3 * [
        layers[0].colormap.color_dict[1].tolist()
    ]


def test_resume_takes_the_old_message_away_at_once(open_dock: Open) -> None:
    """ux 17"""
    kit = open_dock(FakeEngine(LIVER, held=True), image=ct(8, 64))
    kit.dock.run_report()
    kit.engine.wait_until_in_work()
    kit.dock.cancel_run()
    kit.engine.let(1)
    kit.until_idle()
    assert "Cancelled" in kit.dock.run.message.text()
    kit.dock.run.message.linkActivated.emit(Link.RESUME.name)
    assert kit.session.phase.busy
    assert "Cancelled" not in kit.dock.run.message.text()
    kit.engine.let_all()
    kit.until_idle()


def test_the_estimate_counts_as_the_run_and_takes_the_pace_of_its_own_kind(open_dock: Open) -> None:
    """ux 18: the time of a report was guessed from a question, and the slices with those that show air only."""
    volume = ct(9, 64)
    volume.voxels[:2] = -1000
    kit = open_dock(FakeEngine(LIVER), image=volume)
    assert kit.dock.run.estimate.text() == "7 axial slices"
    kit.dock.choose_task("ask")
    kit.dock.task.prompt.setEditText("What is it?")
    kit.dock.run_task()
    kit.until_idle()
    kit.dock.choose_task("report")
    assert kit.dock.run.estimate.text() == "7 axial slices"  # a question is no measure of a report
    kit.dock.run_report()
    kit.until_idle()
    assert kit.dock.run.estimate.text().startswith("7 axial slices · about ")
    assert slice_count(kit.session.runs[-1].job) == 7


@pytest.mark.parametrize(
    ("label", "words"),
    [("-3", "Page, time or channel"), ("axis 0", "Page, time or channel"), ("axis -3", "Page, time or channel"),
     ("", "Page, time or channel"), ("T", "T"), ("time", "time"), ("echo 2", "echo 2")],
)  # fmt: skip
def test_the_chooser_of_a_page_is_named_for_people(label: str, words: str) -> None:
    """ux 19: the page chooser of a TIFF was labelled "-3"."""
    assert step_words(label) == words


def test_pages_of_a_stack_can_be_chosen_by_name(open_dock: Open) -> None:
    """ux 19"""
    kit = open_dock()
    kit.viewer.add_image(np.random.default_rng(0).integers(0, 255, (5, 40, 50, 3), dtype=np.uint8), rgb=True)
    assert kit.dock.image.step_words.text() == "Page, time or channel"
    assert kit.dock.image.step.text() == "0 of 4"


def test_a_model_that_is_not_in_memory_is_no_step_of_its_own(open_dock: Open) -> None:
    """Friction 10: "No model loaded" and Load looked like a required step."""
    kit = open_dock(image=ct(8, 64))
    kit.until(lambda: kit.dock.model.folded)
    assert kit.dock.model.summary.toolTip() == "mini (inside the package), loads when needed"
    assert kit.dock.run.run.isEnabled()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_by_the_scroll_bar_of_a_small_window(open_dock: Open, theme: str) -> None:
    """ux 13: at 1366 x 768 the scroll bar covered the right 12 pixels of the dock."""
    kit = open_dock(FakeEngine(LIVER), show=True, image=ct(8, 64))
    kit.viewer.theme = theme
    kit.viewer.window.resize(1366, 768)
    for section in (kit.dock.model, kit.dock.image):
        section.set_folded(False)
    kit.until(kit.dock.image.plane.isVisible)
    chooser, option = kit.dock.image.plane, QStyleOptionComboBox()
    chooser.initStyleOption(option)
    style = QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, chooser
    words = chooser.fontMetrics().horizontalAdvance(chooser.currentText())
    assert words <= chooser.style().subControlRect(*style).width()  # it was "plane: automati"
    state = kit.dock.run.summary
    assert state.fontMetrics().horizontalAdvance(status_line(kit.session.phase)) <= state.width()
    for task in ("report", "segment", "ask", "roi"):
        kit.dock.choose_task(task)
        kit.dock.task.advanced.toggle.setChecked(True)
        body, view, bar = kit.dock.area.widget(), kit.dock.area.viewport(), kit.dock.area.verticalScrollBar()
        kit.until(
            lambda body=body, view=view: body.width() <= view.width() and body.minimumSizeHint().width() <= view.width()
        )
        assert view.width() + bar.width() * bar.isVisible() <= kit.dock.width()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_table_shows_every_measurement_at_1366_by_768(open_dock: Open, theme: str) -> None:
    """ux 6: tabbed, the panel could not be wider than 340 pixels; later, mean, score and flags needed a scroll."""
    from napari_unibiomed import commands
    from napari_unibiomed.findings.rows import COLUMNS, Column

    found = {"soft-tissue sarcoma": dict.fromkeys(range(68), (0, 0, 40, 30)), "lesion": {12: (8, 8, 28, 20)}}
    engine = FakeEngine(found, info=FakeInfo(default_targets={"ct": tuple(found)}))
    kit = open_dock(engine, show=True, image=ct(68, 64))
    kit.viewer.theme = theme
    kit.viewer.window.resize(1366, 768)
    kit.dock.run_report()
    kit.until_idle()
    panel = commands.open_panel(kit.viewer)
    table, bar = panel.table, panel.table.horizontalScrollBar()
    kit.until(lambda: panel.isVisible() and table.isVisible() and len(table.table.rows) == 2)
    main = frame_of(panel).parentWidget()
    kit.until(lambda: panel.width() > main.width() // 3)  # it takes what the canvas can spare
    assert main.width() <= 1366
    assert frame_of(kit.dock) in main.tabifiedDockWidgets(frame_of(panel))
    assert not any(table.isColumnHidden(n) for n in range(len(COLUMNS)))
    kit.until(lambda: bar.maximum() == 0)
    for number, column in enumerate(COLUMNS):
        cut = table.columnWidth(number) < table.sizeHintForColumn(number)
        assert not cut or column is Column.FLAGS, column  # whose whole text is in the tooltip
        title = table.horizontalHeader().fontMetrics().horizontalAdvance(table.model().headerData(number, HORIZONTAL))
        assert table.columnWidth(number) > title, column
    narrow = panel.width()
    main.resizeDocks([frame_of(panel)], [narrow + 100], HORIZONTAL)
    kit.until(lambda: panel.width() > narrow + 50)  # the tab beside it does not hold it narrow


@pytest.mark.parametrize("picture_first", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_a_picture_stays_whole_when_docks_take_room_unless_the_user_moved_the_camera(
    open_dock: Open, picture_first: bool, moved: bool
) -> None:
    """At 1366 x 768 a whole picture was cut at both sides when the panel opened."""
    picture = np.add.outer(np.arange(400.0), np.arange(600.0))
    kit = open_dock(show=True, before=lambda viewer: viewer.add_image(picture) if picture_first else None)
    viewer = kit.viewer
    viewer.window.resize(1366, 768)
    if not picture_first:
        viewer.add_image(picture)
    camera, main = viewer.scene.camera, frame_of(kit.dock).parentWidget()
    kit.until(lambda: main.width() == 1366 and viewer.canvas.size[1] + kit.dock.width() < 1366)
    if moved:
        camera.zoom, camera.center = 1.3 * camera.zoom, (0, 150, 200)
    before = camera.zoom, camera.center[1:]
    commands.open_panel(viewer)
    kit.until(lambda: viewer.canvas.size[1] < main.width() // 2)  # it takes what the canvas can spare
    if moved:
        assert (camera.zoom, camera.center[1:]) == (pytest.approx(before[0]), pytest.approx(before[1]))
        return
    kit.until(lambda: camera.zoom * 600 <= viewer.canvas.size[1])
    assert camera.zoom * 600 > 0.9 * viewer.canvas.size[1], "as large as there is room for"
    assert camera.center[1:] == pytest.approx((199.5, 299.5))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("one window of two", id="its dock ends with the window"),
        pytest.param("program", id="quit without a closed window", marks=pytest.mark.slow),
        pytest.param("last window", id="both", marks=pytest.mark.slow),
    ],
)
def test_a_process_ends_when_its_window_is_closed_during_a_run(how: str, tmp_path: Path) -> None:
    """ux 20: the process went on with the run. Now it stops after the slice in work, and finished slices are kept.

    Two things stop it: the end of the dock's frame closes the session, and the end of the program stops the job.
    """
    about = {"XDG_CACHE_HOME": str(tmp_path), "NAPARI_CONFIG": str(tmp_path / "napari.yaml")}
    script = [sys.executable, str(Path(__file__).with_name("end_in_a_run.py")), how]
    done = subprocess.run(
        script, env={**os.environ, **about}, capture_output=True, text=True, timeout=GUARD_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[-3:] == ["stopped", "ended", ""]
    assert 3 <= len(list(tmp_path.rglob("slice_*.npz"))) <= 5  # of 500
