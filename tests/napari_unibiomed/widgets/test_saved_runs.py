"""The list of kept runs: what it tells, brings back without a model, and deletes after a question (ux 11)."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari.layers")
from napari_unibiomed.jobs import Job, moment_text
from napari_unibiomed.messages.message import Link
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.patience import GUARD_S
from unibiomed_core.engine.volume.request import RunRequest

__all__ = ["open_dock"]

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

LIVER = {"liver": dict.fromkeys(range(2, 6), (10, 10, 30, 30))}


def with_three_kept(open_dock: Open) -> Any:
    """A new window on an image of which three runs were kept, the report first."""
    before = open_dock(FakeEngine(LIVER))
    volume = ct(8, 64)
    before.session.set_image(volume)
    small = [Job("segment", volume, RunRequest.segment(name, indices=(3,))) for name in ("liver", "spleen")]
    for job in (Job("report", volume), *small):
        assert before.session.start(job)
        before.until_idle()
    before.session.close()
    after = open_dock(FakeEngine(LIVER), image=ct(8, 64))
    after.until(lambda: len(after.session.saved_runs) == 3)
    return after


def test_a_finished_report_outlives_small_runs_and_comes_back_without_a_model(open_dock: Open) -> None:
    """ux 10 and ux 11: after Restore, Undo, Save and Export were grey until a model was loaded."""
    from napari_unibiomed.widgets.saved_runs import SavedRuns

    kit = with_three_kept(open_dock)
    assert "3 earlier runs were saved" in kit.dock.run.message.text()
    assert not kit.dock.output.saved.isHidden()
    assert kit.dock.output.saved.text().startswith("Saved runs…  (3, ")
    kit.dock.run.message.linkActivated.emit(Link.SAVED_RUNS.name)
    (dialog,) = kit.dock.findChildren(SavedRuns)
    rows = [[dialog.table.item(r, c).text() for c in range(4)] for r in range(dialog.table.rowCount())]
    assert [row[1:3] for row in rows] == [
        ["Segment: spleen", "1 of 1"],
        ["Segment: liver", "1 of 1"],
        ["Report", "8 of 8"],
    ]
    assert all(row[0].startswith("20") and row[3].endswith("B") for row in rows)
    dialog.table.selectRow(2)
    dialog.restore.click()
    kit.until(lambda: kit.session.runs)
    kit.until_idle()
    assert kit.session.info is None  # no model was loaded
    assert not kit.engine.loads
    for button in (kit.dock.output.undo, kit.dock.output.save, kit.dock.output.export):
        assert button.isEnabled()
    assert kit.dock.running.layers.layer_of(kit.session.runs[0]).data.any()
    kit.dock.output.undo.click()
    assert not kit.session.runs


def test_a_name_that_was_given_comes_back_with_its_run(open_dock: Open) -> None:
    """A renamed run was "… report" again after Restore. The folder does not learn how the file was called."""
    from napari_unibiomed import commands

    before = open_dock(FakeEngine(LIVER, held=True, load_held=True), image=ct(8, 64, "Secret^Name"))
    assert before.dock.run_report()
    early = before.dock.running.layers.layer_of(before.session.runs[0])
    early.name = "named while the model is loaded"
    before.engine.let_load()
    before.engine.let_all()
    before.until_idle()
    before.dock.run_report()
    before.until_idle()
    layer = before.dock.running.layers.layer_of(before.session.runs[1])
    assert layer.name == "Secret^Name report"
    layer.name = "Secret^Name second look"
    before.session.close()
    folders = [run.folder for run in before.session.runs]
    before.until(lambda: all((folder / "name.json").is_file() for folder in folders))
    assert not any(b"Secret" in file.read_bytes() for folder in folders for file in folder.iterdir())

    after = open_dock(FakeEngine(LIVER), image=ct(8, 64, "thigh"))
    after.until(lambda: len(after.session.saved_runs) == 2)
    assert [saved.name for saved in after.session.saved_runs] == [
        "thigh second look",
        "named while the model is loaded",
    ]
    assert "thigh second look" in after.dock.run.message.text()
    for saved in tuple(after.session.saved_runs):
        assert after.session.restore_saved(saved)
        after.until_idle()
        after.until(lambda saved=saved: saved.folder in {run.folder for run in after.session.runs})
    layers = [after.dock.running.layers.layer_of(run) for run in after.session.runs]
    assert [layer.name for layer in layers] == ["thigh second look", "named while the model is loaded"]
    panel = commands.open_panel(after.viewer)
    begun = [run.began for run in before.session.runs][::-1]
    assert [run.began for run in after.session.runs] == pytest.approx(begun, abs=GUARD_S)
    shown = [panel.runs.itemText(n) for n in range(2)]
    assert shown == [run.entry for run in after.session.runs]
    assert shown[0] == f"1 · thigh second look · {moment_text(after.session.runs[0].began)}"


def test_deleting_asks_first(open_dock: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtpy.QtWidgets import QMessageBox

    from napari_unibiomed.widgets.saved_runs import SavedRuns

    kit = with_three_kept(open_dock)
    folders = [saved.folder for saved in kit.session.saved_runs]
    asked: list[str] = []
    answer = [QMessageBox.StandardButton.No]

    def question(parent: object, title: str, text: str) -> Any:
        asked.append(text)
        return answer[0]

    monkeypatch.setattr(QMessageBox, "question", question)
    dialog = SavedRuns(kit.session, kit.dock)
    dialog.delete.click()
    assert "Segment: spleen" in asked[0]
    assert len(dialog.listed) == 3
    answer[0] = QMessageBox.StandardButton.Yes
    dialog.delete.click()
    kit.until(lambda: not folders[0].exists())
    assert len(dialog.listed) == 2
    assert folders[2].exists()
    dialog.delete_all.click()
    assert "all 2 saved runs" in asked[2]
    kit.until(lambda: not any(folder.exists() for folder in folders))
    assert dialog.table.rowCount() == 0
    assert not dialog.delete_all.isEnabled()
    assert kit.dock.output.saved.isHidden()
    dialog.close()
