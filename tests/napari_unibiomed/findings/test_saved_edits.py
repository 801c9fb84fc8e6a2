"""A user's edits on the disk: what comes back, what is refused, and what happens when a run goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.patience import GUARD_S

pytest.importorskip("psygnal")
from napari_unibiomed.findings import saved_edits
from napari_unibiomed.findings.export import edited_report
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.saved_edits import EDITS_FILE, EditsWriter
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.session.session import Session
from napari_unibiomed.session.shared_findings import findings_of
from napari_unibiomed.settings import Settings
from tests.hand_volumes import cropped
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.napari_unibiomed.hand_runs import a_run, an_answer, masks
from tests.napari_unibiomed.session_kit import Watch
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ReadError
from unibiomed_core.report import to_json
from unibiomed_core.types import CroppedMask, Region

FOUND = {"liver": dict.fromkeys((1, 2, 4), (10, 10, 26, 30)), "spleen": {2: (14, 14, 20, 22)}}


@pytest.fixture(autouse=True)
def no_word_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have loaded a torch for the CPU, which is said when a model is loaded."""
    monkeypatch.setattr("napari_unibiomed.session.models.torch_has_no_gpu_support", lambda: False)


@pytest.fixture
def opened() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def session_at(folder: Path, opened: list[Session], engine: FakeEngine | None = None) -> tuple[Session, Watch]:
    engine = engine or FakeEngine(found=FOUND)
    opened.append(Session(load_engine=engine.load, settings=Settings(autosave_folder=str(folder))))
    return opened[-1], Watch(opened[-1])


def edited(model: FindingsModel) -> None:
    """A rejected and renamed first row, and a second one that was painted on."""
    model.reject(1)
    model.rename(1, "big liver")
    painted = np.zeros(model.run.volume.shape, bool)
    painted[2:4, 14:20, 14:23] = True
    model.remeasure(2, CroppedMask.from_full(painted))


def state_of(model: FindingsModel) -> list[Any]:
    return [
        (r.number, r.phrase, r.rejected, r.edited, r.voxel_count, r.volume_ml, r.mean, r.slices, r.finding.mask.count)
        for r in model.rows
    ]


def written(session: Session) -> None:
    """Wait until the thread that writes edits has done what it was given."""
    arrived = threading.Event()
    session._edits._thread.submit(arrived.set)
    assert arrived.wait(GUARD_S)


def ran_and_edited(folder: Path, opened: list[Session]) -> tuple[Run, FindingsModel]:
    session, watch = session_at(folder, opened)
    model = findings_of(session)
    session.start(Job("report", ct(6), RunRequest.segment("liver", "spleen")))
    watch.until(lambda: watch.finished and not session.phase.busy)
    edited(model)
    written(session)
    return session.runs[0], model


def restored(folder: Path, opened: list[Session], engine: FakeEngine | None = None) -> tuple[Session, Watch]:
    session, watch = session_at(folder, opened, engine)
    session.set_image(ct(6))
    watch.until(lambda: session.saved is not None)
    assert session.restore_saved()
    watch.until(lambda: watch.finished and "Restored" in watch.titles)
    return session, watch


@pytest.mark.parametrize("early", [True, False])
def test_a_restored_run_has_its_edits(tmp_path: Path, opened: list[Session], early: bool) -> None:
    run, model = ran_and_edited(tmp_path, opened)
    session, watch = session_at(tmp_path, opened)
    if early:
        findings_of(session)
    session.set_image(ct(6))
    watch.until(lambda: session.saved is not None)
    assert session.restore_saved()
    watch.until(lambda: "Restored" in watch.titles)
    again = findings_of(session)
    assert state_of(again) == state_of(model)
    assert again.row(1).rejected
    assert again.undo_words == ""
    assert np.array_equal(again.row(2).finding.mask.full(), model.row(2).finding.mask.full())
    assert to_json(edited_report(again.run, again.rows)) == to_json(edited_report(run, model.rows))
    assert watch.titles == ["Restored"]


def test_an_edit_that_was_taken_back_does_not_come_back(tmp_path: Path, opened: list[Session]) -> None:
    run, model = ran_and_edited(tmp_path, opened)
    assert run.folder is not None
    assert (run.folder / EDITS_FILE).is_file()
    while model.undo_words:
        model.undo()
    written(opened[0])
    assert not (run.folder / EDITS_FILE).exists()
    session, _ = restored(tmp_path, opened)
    assert not any(row.rejected or row.edited for row in findings_of(session).rows)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", None])
def test_damaged_edits_are_told_and_the_run_comes_without_them(
    tmp_path: Path, opened: list[Session], damage: bytes | None
) -> None:
    run, _ = ran_and_edited(tmp_path, opened)
    assert run.folder is not None
    file = run.folder / EDITS_FILE
    file.write_bytes(file.read_bytes()[:-40] if damage is None else damage)
    session, watch = restored(tmp_path, opened)
    watch.until(lambda: "Saved edits cannot be read" in watch.titles)
    rows = findings_of(session).rows
    assert [(row.phrase, row.rejected, row.edited) for row in rows] == [
        ("liver", False, False),
        ("spleen", False, False),
    ]


def test_a_run_that_goes_on_drops_its_edits_and_says_so(tmp_path: Path, opened: list[Session]) -> None:
    engine = FakeEngine(found=FOUND, held=True)
    session, watch = session_at(tmp_path, opened, engine)
    model = findings_of(session)
    session.start(Job("report", ct(6), RunRequest.segment("liver", "spleen")))
    for _ in range(3):
        engine.wait_until_in_work()
        engine.let(1)
    engine.wait_until_in_work()
    session.cancel()
    engine.let_all()
    watch.until(lambda: watch.finished and not session.phase.busy)
    (run,) = session.runs
    assert run.cancelled
    model.reject(2)
    written(session)
    assert run.folder is not None
    again, again_watch = restored(tmp_path, opened)
    assert findings_of(again).row(2).rejected
    assert again.resume()
    again_watch.until(lambda: again.runs[0].complete and not again.phase.busy)
    assert "Edits dropped" in again_watch.titles
    assert not any(row.rejected for row in findings_of(again).rows)
    written(again)
    assert not (run.folder / EDITS_FILE).exists()


def test_a_run_without_edits_goes_on_without_a_word(tmp_path: Path, opened: list[Session]) -> None:
    session, watch = session_at(tmp_path, opened)
    findings_of(session)
    session.start(Job("report", ct(6), RunRequest.segment("liver")))
    watch.until(lambda: watch.finished and not session.phase.busy)
    session.runs[0].complete = False
    assert session.resume()
    watch.until(lambda: session.runs[0].complete and not session.phase.busy)
    assert "Edits dropped" not in watch.titles


def test_answers_about_boxes_keep_their_edits(tmp_path: Path) -> None:
    run = a_run(report=None, kind="roi")
    run.answers = [an_answer("liver", Region(2, 2, 9, 9, "axial", 3))]
    model = FindingsModel()
    model.set_run(run)
    model.rename(1, "lobe")
    saved_edits.write(tmp_path, saved_edits.edits_of(run, model.rows))
    again = FindingsModel()
    again.kept_edits = {run.number: saved_edits.read(tmp_path, run)}
    again.set_run(run)
    assert again.row(1).phrase == "lobe"
    assert again.row(1).edited


def test_edits_of_other_findings_are_refused(tmp_path: Path) -> None:
    run = a_run()
    model = FindingsModel()
    model.set_run(run)
    model.remeasure(2, cropped(masks(run.volume)[0]))
    saved_edits.write(tmp_path, saved_edits.edits_of(run, model.rows))
    assert set(saved_edits.read(tmp_path, run)) == {2}
    other = a_run()
    other.report = other.report.renumbered(other.report.findings[::-1])
    with pytest.raises(ReadError, match="row 2 is another finding"):
        saved_edits.read(tmp_path, other)


def test_a_mask_outside_of_the_image_is_refused(tmp_path: Path) -> None:
    run = a_run()
    model = FindingsModel()
    model.set_run(run)
    whole = np.ones((1, 50, 50), bool)
    model.remeasure(2, cropped(masks(run.volume)[0]))
    edits = saved_edits.edits_of(run, model.rows)
    object.__setattr__(edits[2].finding, "mask", CroppedMask(whole, (11, 0, 0), run.volume.shape))
    saved_edits.write(tmp_path, edits)
    with pytest.raises(ReadError, match="Saved edits cannot be read"):
        saved_edits.read(tmp_path, run)


def test_only_the_newest_edits_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def slow(folder: Path, edits: saved_edits.Edits) -> None:
        begun.set()
        assert go.wait(GUARD_S)
        done.append(edits)

    monkeypatch.setattr(saved_edits, "write", slow)
    writer = EditsWriter()
    writer.put(tmp_path, {1: None}, pytest.fail)
    assert begun.wait(GUARD_S)
    for number in range(2, 9):
        writer.put(tmp_path, {number: None}, pytest.fail)
    go.set()
    writer._thread.shutdown(wait=True)
    assert done == [{1: None}, {8: None}]


def test_a_disk_that_cannot_be_written_is_said_and_a_deleted_run_is_not(tmp_path: Path) -> None:
    run = a_run()
    model = FindingsModel()
    model.set_run(run)
    model.reject(1)
    heard: list[OSError] = []
    writer = EditsWriter()
    (tmp_path / "edits.npz.new").mkdir()
    writer.put(tmp_path, saved_edits.edits_of(run, model.rows), heard.append)
    writer.put(tmp_path / "deleted", saved_edits.edits_of(run, model.rows), heard.append)
    writer._thread.shutdown(wait=True)
    assert len(heard) == 1
    assert not (tmp_path / EDITS_FILE).exists()
