"""Runs that are kept on the disk: what is lost when the process is killed, and what comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.patience import GUARD_S

pytest.importorskip("psygnal")
from napari_unibiomed.autosave.autosave import Autosave, autosave_of, cache_folder
from napari_unibiomed.autosave.run_files import JOB_FILE, REPORT_FILE, read_job
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.messages.message import Link
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from napari_unibiomed.settings import Settings
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.napari_unibiomed.session_kit import Watch
from unibiomed_core.engine.volume.finish import finish_answered
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ReadError
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.report import to_json
from unibiomed_core.types import Prompt, Region

OPTIONS = RunRequest(plan="coarse-to-fine", smooth_mm=1.0, least_presence=0.3, min_area_mm2=9.0, link_slices=False)
KILLED = """
import sys
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from napari_unibiomed.jobs import Job
from napari_unibiomed.session.session import Session
from napari_unibiomed.settings import Settings
engine = FakeEngine(held=True)
session = Session(load_engine=engine.load, settings=Settings(autosave_folder=sys.argv[1]))
session.start(Job("report", ct(8), label="evening"))
for _ in range(3):
    engine.wait_until_in_work()
    engine.let(1)
engine.wait_until_in_work()
print("the fourth slice is in work", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_word_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have loaded a torch for the CPU, which is said when a model is loaded."""
    monkeypatch.setattr("napari_unibiomed.session.models.torch_has_no_gpu_support", lambda: False)


def test_what_is_saved_of_a_stopped_run_follows_its_options(tmp_path: Path, opened: list[Session]) -> None:
    for options in (RunRequest(), replace(OPTIONS, plan="all"), RunRequest(least_presence=0.95)):
        run = ran(tmp_path, opened, Job("report", ct(4), options))
        assert run.report is not None
        saved = finish_answered(run.volume, options, run.predictions, ended="interrupted", model=run.model, seconds=1.0)
        assert to_json(saved)["findings"] == to_json(run.report)["findings"]
        assert saved.warnings == run.report.warnings
        assert saved.settings.items() >= options.changed.items()


FIRST_VERSION: dict[str, Any] = {
    "version": 1, "kind": "segment", "plane": "coronal", "indices": None, "every": 2, "describe": False,
    "window": asdict(CT_WINDOWS["lung"]), "within": None, "label": "", "model": {}, "slices_total": 3,
    "asks": ["liver", asdict(Prompt("segment", "spleen"))],
}  # fmt: skip


@pytest.mark.parametrize("options", [None, {"smooth_mm": 2.0, "link_slices": False}])
def test_a_job_of_the_first_version_is_read(tmp_path: Path, options: dict[str, Any] | None) -> None:
    """The oldest ones have no options, and name targets without their prompts."""
    about = FIRST_VERSION if options is None else FIRST_VERSION | {"options": options}
    (tmp_path / JOB_FILE).write_text(json.dumps(about), "utf-8")
    job, _, total = read_job(tmp_path, ct(2))
    rest = {"plane": "coronal", "every": 2, "window": CT_WINDOWS["lung"], "describe": False, **(options or {})}
    assert (job.kind, total) == ("segment", 3)
    assert job.request == RunRequest.segment("liver", "spleen", **rest)


@pytest.fixture
def opened() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def session_at(folder: Path, opened: list[Session], engine: FakeEngine | None = None) -> tuple[Session, Watch]:
    opened.append(Session(load_engine=(engine or FakeEngine()).load, settings=Settings(autosave_folder=str(folder))))
    return opened[-1], Watch(opened[-1])


def ran(folder: Path, opened: list[Session], job: Job) -> Run:
    """A finished run, kept in a folder."""
    session, watch = session_at(folder, opened)
    session.start(job)
    watch.until(lambda: watch.finished and not session.phase.busy)
    (run,) = session.runs
    return run


def test_a_killed_process_loses_the_slice_in_work_at_most(tmp_path: Path, opened: list[Session]) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "the fourth slice is in work"
        process.send_signal(signal.SIGKILL)
        assert process.wait(GUARD_S) == -signal.SIGKILL
    engine = FakeEngine()
    session, watch = session_at(tmp_path, opened, engine)
    session.set_image(ct(8, name="another name"))
    watch.until(lambda: session.saved is not None)
    watch.until(lambda: session.messages)
    assert session.messages[-1].text == (
        "● An earlier run was saved. “evening”, 3 of 8 slices, on this image. Restore · Saved runs."
    )
    assert session.messages[-1].links == (Link.RESTORE, Link.SAVED_RUNS)
    restored: list[Run] = []
    session.restored.connect(restored.append)
    assert session.restore_saved()
    watch.until(lambda: watch.finished and session.current is not None and "Restored" in watch.titles)
    (run,) = restored
    assert session.current is run
    assert run.slices_done == [0, 1, 2]
    assert (run.cancelled, run.complete, len(run.findings)) == (True, False, 2)
    assert run.report is not None
    assert run.report.ended == "interrupted"
    assert "Interrupted after 3 of 8 slices" in run.report.narrative
    assert session.resume()
    watch.until(lambda: run.complete)
    watch.until_phase(Phase.DONE)
    assert [index for index, _ in engine.asked] == [3, 4, 5, 6, 7]
    assert session.runs == [run]
    whole = ran(tmp_path / "whole", opened, Job("report", ct(8, name="another name"), label="evening"))
    assert run.report is not None
    assert whole.report is not None
    assert to_json(run.report) | {"wall_time_s": 0} == to_json(whole.report) | {"wall_time_s": 0}


def test_a_finished_run_comes_back_exactly(tmp_path: Path, opened: list[Session]) -> None:
    prompts = RunRequest.segment("liver", "spleen").prompts
    request = replace(OPTIONS, prompts=prompts, every=2, window=CT_WINDOWS["lung"])
    job = Job("segment", ct(6, name="secret"), request, within=Region(0, 0, 47, 47, "axial", 2))
    run = ran(tmp_path, opened, job)
    volume = ct(6, name="secret")
    autosave = Autosave(tmp_path)
    saved = autosave.restorable(volume)
    assert saved is not None
    assert (saved.done, saved.total, saved.name) == (3, 3, "Segment: liver, spleen")
    again = autosave.restore(saved, volume, 7)
    assert again.report is not None
    assert run.report is not None
    assert to_json(again.report) == to_json(run.report)
    assert (again.number, again.complete, again.cancelled) == (7, True, False)
    assert (again.job.request, again.job.within) == (job.request, job.within)
    for index, given in run.predictions.items():
        for old, new in zip(given, again.predictions[index], strict=True):
            assert replace(new, phrases=()) == replace(old, phrases=())
            for phrase, back in zip(old.phrases, new.phrases, strict=True):
                assert replace(back, mask=None) == replace(phrase, mask=None)
                assert phrase.mask is not None
                assert back.mask is not None
                assert np.array_equal(back.mask.full(), phrase.mask.full())


def test_answers_about_boxes_come_back(tmp_path: Path, opened: list[Session]) -> None:
    prompts = tuple(Prompt("roi_class", region=Region(2, 2, 20, 20, "axial", index)) for index in (1, 3))
    run = ran(tmp_path, opened, Job("roi", ct(5), RunRequest(prompts)))
    autosave = Autosave(tmp_path)
    saved = autosave.restorable(ct(5))
    assert saved is not None
    again = autosave.restore(saved, ct(5), 1)
    assert [(a.text, a.region) for a in again.answers] == [(a.text, a.region) for a in run.answers]
    assert len(again.answers) == 2
    assert again.complete
    assert again.report is None


def test_no_name_and_no_path_is_stored(tmp_path: Path, opened: list[Session]) -> None:
    volume = replace(ct(3, name="MUELLER^HANS"), source="scans/MUELLER.nii.gz")
    run = ran(tmp_path, opened, Job("report", volume))
    assert run.report is not None
    assert "MUELLER" in json.dumps(to_json(run.report))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == REPORT_FILE for file in files)
    assert not [file for file in files if b"MUELLER" in file.read_bytes() or "MUELLER" in str(file)]


def test_another_image_and_another_modality_have_no_saved_run(tmp_path: Path, opened: list[Session]) -> None:
    ran(tmp_path, opened, Job("report", ct(4)))
    autosave = Autosave(tmp_path)
    assert autosave.restorable(ct(4)) is not None
    changed = ct(4)
    changed.voxels[2, 5, 5] += 1
    assert autosave.restorable(changed) is None
    assert autosave.restorable(ct(5)) is None
    assert autosave.restorable(replace(ct(4), modality="mri")) is None
    moved = ct(4)
    moved.affine[0, 3] += 1
    assert autosave.restorable(moved) is None


def test_every_run_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    """ux 11: a finished report was gone after later small runs."""
    autosave, volume = Autosave(tmp_path), ct(3)
    (given,) = FakeEngine().predict([volume.slice(0)], [Prompt("segment", "liver")], CT_WINDOWS["lung"])
    jobs = [Job("segment", volume, RunRequest.segment(name)) for name in ("liver", "spleen", "kidney")]
    runs = [autosave.begin(job, {}, 3) for job in jobs]
    assert autosave.kept(volume) == []  # none has a slice
    for keeping in runs:
        keeping.keep(given)
    kept = autosave.kept(volume)
    assert [saved.name for saved in kept] == ["Segment: kidney", "Segment: spleen", "Segment: liver"]
    assert autosave.restorable(volume) == kept[0]
    assert [(saved.done, saved.total) for saved in kept] == [(1, 3)] * 3
    assert all(saved.size == sum(f.stat().st_size for f in saved.folder.iterdir()) for saved in kept)
    assert kept[0].began > kept[1].began > kept[2].began > 1.7e9
    autosave.discard(kept[1].folder)
    assert autosave.kept(volume) == [kept[0], kept[2]]


def test_runs_that_an_earlier_version_kept_are_still_read(tmp_path: Path, opened: list[Session]) -> None:
    run = ran(tmp_path, opened, Job("report", ct(4)))
    assert run.folder is not None
    about = json.loads((run.folder / "job.json").read_text("utf-8"))
    asked = about.pop("request")
    names = ("plane", "indices", "every", "window", "describe")
    about |= {"version": 1, "asks": asked["prompts"], **{name: asked[name] for name in names}}
    (run.folder / "job.json").write_text(json.dumps(about))
    autosave = Autosave(tmp_path)
    (saved,) = autosave.kept(ct(4))
    assert autosave.restore(saved, ct(4), 1).complete


def test_a_damaged_slice_is_left_to_be_computed_again(tmp_path: Path, opened: list[Session]) -> None:
    ran(tmp_path, opened, Job("report", ct(4)))
    autosave = Autosave(tmp_path)
    saved = autosave.restorable(ct(4))
    assert saved is not None
    (saved.folder / REPORT_FILE).unlink()
    (saved.folder / "slice_000001.npz").write_bytes(b"PK\x03\x04 cut off")
    run = autosave.restore(saved, ct(4), 1)
    assert run.slices_done == [0, 2, 3]
    assert run.cancelled
    for file in saved.folder.glob("slice_*"):
        file.write_bytes(b"")
    with pytest.raises(ReadError, match="Saved run cannot be read"):
        autosave.restore(saved, ct(4), 1)
    (saved.folder / "job.json").write_text('{"version": 99}')
    assert autosave.restorable(ct(4)) is None


def test_a_disk_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path, opened: list[Session]) -> None:
    (tmp_path / "file").write_text("in the way")
    session, watch = session_at(tmp_path / "file", opened)
    session.set_image(ct(3))
    session.start(Job("report", ct(3)))
    watch.until_phase(Phase.DONE)
    assert watch.titles[0] == "This run is not autosaved"
    assert session.runs[0].complete


def test_undo_deletes_what_was_kept_and_delete_does_so_too(tmp_path: Path, opened: list[Session]) -> None:
    session, watch = session_at(tmp_path, opened)
    volume = ct(3)
    session.set_image(volume)
    session.start(Job("report", volume))
    watch.until_phase(Phase.DONE)
    folder = session.runs[0].folder
    assert folder is not None
    assert folder.is_dir()
    session.undo_last_run()
    _wait(session)
    assert not folder.exists()
    ran(tmp_path, opened, Job("report", volume))
    other, other_watch = session_at(tmp_path, opened)
    other.set_image(volume)
    other_watch.until(lambda: other.messages)
    assert other.delete_saved()
    assert not other.delete_saved()
    _wait(other)
    assert Autosave(tmp_path).restorable(volume) is None


def test_nothing_is_offered_that_is_in_the_list_already(tmp_path: Path, opened: list[Session]) -> None:
    session, watch = session_at(tmp_path, opened)
    volume = ct(3)
    session.start(Job("report", volume))
    watch.until(lambda: watch.finished)
    session.set_image(volume)
    _wait(session)
    assert session.saved is None


def test_preferences_decide_whether_and_where() -> None:
    assert autosave_of(Settings(autosave=False)) is None
    chosen = autosave_of(Settings(autosave_folder="somewhere"))
    assert chosen is not None
    assert chosen.root == Path("somewhere")
    default = autosave_of(Settings())
    assert default is not None
    assert default.root == cache_folder()


def _wait(session: Session) -> None:
    """Until the model thread has done what it was given before."""
    arrived = threading.Event()
    session._model.submit(arrived.set)
    assert arrived.wait(GUARD_S)
