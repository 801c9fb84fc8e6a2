"""The tutorial, walked in a real window with the embedded model: open the CT sample, report, jump, draw a box, export.

What each step does in detail is tested beside it, with a scripted engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unibiomed import commands

pytest.importorskip("napari.layers")
from tests.alike import alike_files
from tests.napari_unibiomed.dock_kit import ROOT
from tests.patience import GUARD_MS
from unibiomed_core.samples import samples

pytestmark = [
    pytest.mark.window,
    pytest.mark.filterwarnings("ignore"),  # napari, npe2 and pydantic warn of one another's changes
]


@pytest.fixture
def walk(make_napari_viewer: Any, npe2pm: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a sample by napari's own menu action and the dock by the plugin's; returns viewer, dock and waiting."""

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with npe2pm.tmp_plugin(manifest=ROOT / "napari_unibiomed" / "napari.yaml"):

        def begin(sample: str) -> tuple[Any, Any, Any]:
            viewer = make_napari_viewer(show=True)
            viewer.window.resize(1366, 768)
            viewer.open_sample("napari-unibiomed", sample)
            dock = commands.open_dock(viewer)

            def run(start: Any) -> None:
                assert start()
                qtbot.waitUntil(lambda: not dock.session.phase.busy, timeout=GUARD_MS)

            return viewer, dock, run

        yield begin


def command_line(arguments: list[str]) -> None:
    from typer.testing import CliRunner

    from unibiomed_core.cli.main import app

    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def double_click(qtbot: Any, table: Any, number: int) -> None:
    from qtpy.QtCore import Qt

    rows = range(table.model().rowCount())
    index = next(index for row in rows if table.number_at(index := table.model().index(row, 1)) == number)
    where = table.visualRect(index).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)


def test_from_the_sample_to_a_report_that_lies_on_the_grid_of_its_file(walk: Any, qtbot: Any, tmp_path: Path) -> None:
    import nibabel

    from napari_unibiomed.session.phases import Phase
    from napari_unibiomed.session.shared_findings import findings_of

    viewer, dock, run = walk("ct")
    source = viewer.layers[0]
    before = np.array(source.data, copy=True)
    run(dock.run_report)
    assert dock.session.phase is Phase.DONE, dock.run.message.text()
    model = findings_of(dock.session)
    with_masks = [row for row in model.rows if row.slice_largest is not None]
    assert with_masks, "the embedded model finds the sarcoma of the CT sample"
    assert any(layer.name.endswith(" report") for layer in viewer.layers[1:])

    panel = commands.open_panel(viewer)
    viewer.dims.set_current_step(0, 0)
    row = with_masks[0]
    double_click(qtbot, panel.table, row.number)
    assert viewer.dims.current_step[0] == row.slice_largest
    assert model.selection == row.number

    dock.draw_box()
    (boxes,) = [layer for layer in viewer.layers if "ROI" in layer.name]
    z, y, x = row.slice_largest, *(int(v) for v in np.argwhere(row.finding.mask.full()[row.slice_largest]).mean(0))
    corners = [[z, y - 12, x - 12], [z, y - 12, x + 12], [z, y + 12, x + 12], [z, y + 12, x - 12]]
    boxes.add(np.array(corners, float), shape_type="rectangle")
    run(dock.run_task)
    assert dock.session.runs[-1].answers
    assert dock.session.runs[-1].answers[0].text
    assert dock.session.runs[-1].answers[0].text in dock.run.answer.text()

    model.set_run(dock.session.runs[0])
    assert dock.saving.write(tmp_path / "out", ("json", "html", "csv", "masks", "pdf"))
    written, read = nibabel.load(tmp_path / "out" / "findings.nii.gz"), nibabel.load(samples()["ct"].path)
    assert written.shape == read.shape
    assert np.array_equal(written.affine, read.affine)
    assert set(np.unique(written.dataobj)) == {0, *(f.number for f in dock.session.runs[0].report.findings)}
    assert "Research use only" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert np.array_equal(source.data, before)


@pytest.mark.parametrize("sample", [pytest.param("mri", marks=pytest.mark.slow), "xray-tuberculosis"])
def test_window_and_command_line_write_the_same_report_and_masks(sample: str, walk: Any, tmp_path: Path) -> None:
    _, dock, run = walk(sample)
    run(dock.run_report)
    assert dock.saving.write(tmp_path / "window", ("json", "csv", "masks"))
    command_line(["report", str(samples()[sample].path), "--modality", samples()[sample].modality,
                  "--out", str(tmp_path / "line"), "--offline"])  # fmt: skip
    names = {file.name for file in (tmp_path / "window").iterdir()}
    assert names >= {"report.json", "findings.csv", "labels.json"}
    alike_files(tmp_path / "window", tmp_path / "line", names)
