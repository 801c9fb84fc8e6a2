"""The session without a window: loading, running, cancelling, failing, resuming, undoing and closing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("psygnal")
from napari_unibiomed.jobs import Job
from napari_unibiomed.session.models import EMBEDDED, ModelChoice
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session, session_of
from napari_unibiomed.session.worker import THREAD_NAME
from napari_unibiomed.settings import Settings
from tests.napari_unibiomed.fake_engine import FakeEngine, FakeInfo, ct
from tests.napari_unibiomed.session_kit import Watch
from tests.patience import GUARD_S
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import DeviceError, WeightsError
from unibiomed_core.report import to_json
from unibiomed_core.types import Note, Prompt, Region
from unibiomed_core.updates import LESS_MEMORY

Make = Callable[..., tuple[Session, Watch]]


def model_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.fixture(autouse=True)
def no_word_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have loaded a torch for the CPU, which is said when a model is loaded."""
    monkeypatch.setattr("napari_unibiomed.session.models.torch_has_no_gpu_support", lambda: False)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Session] = []

    def session(engine: FakeEngine, **more: Any) -> tuple[Session, Watch]:
        settings = more.pop("settings", Settings(autosave=False))
        made.append(Session(load_engine=engine.load, settings=settings, **more))
        return made[-1], Watch(made[-1])

    yield session
    for each in made:
        each.close()
    for thread in model_threads():
        thread.join(GUARD_S)


def test_a_report_streams_in_and_ends_in_words(make: Make) -> None:
    engine = FakeEngine()
    session, watch = make(engine)
    session.set_image(ct(6))
    assert session.phase is Phase.NO_MODEL
    assert session.start(Job("report", ct(6)))
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is session.runs[-1]
    assert run is not None
    assert run.complete
    assert watch.slices == run.slices_done == [0, 1, 2, 3, 4, 5]
    assert [f.target for f in watch.findings] == [f.target for f in run.findings] == ["liver", "spleen"]
    assert watch.finished == [run]
    assert watch.phases == [Phase.LOADING, Phase.RUNNING, Phase.DONE]
    assert session.messages[-1].text.startswith("● 2 structures measured in 6 slices, 0:0")
    assert watch.progress[0] == ("0 of 6 slices · 0:00 gone", 0, 6)
    assert watch.progress[-1][1:] == (6, 6)
    assert session.pace["report"] > 0


def test_the_model_is_loaded_once_and_lives_in_one_thread(make: Make) -> None:
    engine = FakeEngine()
    session, watch = make(engine)
    session.set_image(ct(2))
    for _ in range(3):
        session.start(Job("report", ct(2)))
        watch.until_phase(Phase.DONE)
    assert engine.loads == [(EMBEDDED, session.settings)]
    assert engine.threads == {f"{THREAD_NAME}_0"}
    assert [run.number for run in session.runs] == [1, 2, 3]


def test_a_second_job_is_refused_and_not_queued(make: Make) -> None:
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    session.set_image(ct(2))
    session.start(Job("report", ct(2)))
    engine.wait_until_in_work()
    for refused in (
        session.start(Job("segment", ct(2), RunRequest.segment("liver"))),
        session.load_model(),
        session.unload(),
        session.resume(),
        session.undo_last_run(),
        session.download(EMBEDDED),
    ):
        assert not refused
        assert session.messages[-1].text == (
            "▲ One job at a time. “Report” is still going on. Wait for it or cancel it."
        )
    engine.let_all()
    watch.until_phase(Phase.DONE)
    assert len(session.runs) == 1
    assert len(engine.asked) == 2


def test_cancel_keeps_what_is_done_and_resume_finishes_it(make: Make) -> None:
    volume = ct(6)
    whole, whole_watch = make(FakeEngine())
    whole.set_image(volume)
    whole.start(Job("report", volume))
    whole_watch.until_phase(Phase.DONE)
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    session.set_image(volume)
    session.start(Job("report", volume))
    engine.wait_until_in_work()
    engine.let(2)
    for _ in range(2):
        engine.wait_until_in_work()  # the third slice is in work
    session.cancel()
    assert session.phase is Phase.CANCELLING
    session.cancel()
    engine.let(1)
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is not None
    assert (run.cancelled, run.complete, run.slices_done) == (True, False, [0, 1, 2])
    assert run.report is not None
    assert run.report.ended == "cancelled"
    assert len(run.findings) == 2
    assert session.messages[-1].text == "▲ Cancelled after 3 of 6 slices. 3 slices are kept. Resume · Discard."
    engine.let_all()
    assert session.resume()
    watch.until(lambda: run.complete)
    watch.until_phase(Phase.DONE)
    assert session.runs == [run]
    assert [index for index, _ in engine.asked] == [0, 1, 2, 3, 4, 5]
    assert watch.slices == [0, 1, 2, 3, 4, 5]
    assert not session.resume()
    expected = whole.current
    assert expected is not None
    assert expected.report is not None
    assert to_json(run.report) | {"wall_time_s": 0} == to_json(expected.report) | {"wall_time_s": 0}


def test_a_run_is_never_finished_by_another_model(make: Make) -> None:
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    session.start(Job("report", ct(3)))
    engine.wait_until_in_work()
    session.cancel()
    engine.let_all()
    watch.until(lambda: watch.finished)
    watch.until_phase(Phase.NO_IMAGE)
    engine.info = FakeInfo(name="other", sha256="1" * 64)
    session.load_model(ModelChoice("other", "folder", "other"))
    watch.until(lambda: session.info is engine.info and not session.phase.busy)
    assert not session.resume()
    assert session.messages[-1].title == "Another model is loaded"


def test_cancel_while_loading_leaves_no_model_and_no_run(make: Make) -> None:
    engine = FakeEngine(load_held=True)
    session, watch = make(engine)
    session.set_image(ct(2))
    session.start(Job("report", ct(2)))
    assert engine.loading.wait(GUARD_S)
    assert session.phase is Phase.LOADING
    session.cancel()
    assert session.phase is Phase.CANCELLING
    engine.let_load()
    watch.until_phase(Phase.NO_MODEL)
    assert session.runs == []
    assert session.current is None
    assert engine.asked == []
    assert engine.freed == 1
    assert watch.titles == ["Loading cancelled"]
    session.start(Job("report", ct(2)))
    watch.until_phase(Phase.DONE)


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (ZeroDivisionError("shapes"), "Something went wrong"),
        (
            DeviceError(
                "Out of memory",
                "100 MiB free",
                "9,000 MiB",
                code="out_of_memory",
                values={"device": "cuda", "free_bytes": 100 << 20, "needed_bytes": 9000 << 20},
            ),
            "Not enough GPU memory",
        ),
        (WeightsError("Weights damaged", "the checksum differs", "y"), "These weights do not fit this model"),
    ],
)
def test_an_error_in_the_thread_ends_in_words_and_loses_nothing(make: Make, error: Exception, title: str) -> None:
    engine = FakeEngine(failures={3: error})
    session, watch = make(engine)
    session.set_image(ct(6))
    session.start(Job("report", ct(6)))
    watch.until_phase(Phase.FAILED)
    run = session.current
    assert run is not None
    assert run.slices_done == [0, 1, 2]
    assert run.cancelled
    assert run.report is not None
    assert run.report.ended == "failed"
    assert "Ended by an error after 3 of 6 slices" in run.report.narrative
    assert [f.target for f in run.findings] == ["liver", "spleen"]
    assert watch.finished == [run]
    assert watch.titles == [title]
    assert session.retry()
    watch.until_phase(Phase.DONE)
    assert session.runs == [run]
    assert run.complete
    assert [index for index, _ in engine.asked] == [0, 1, 2, 3, 3, 4, 5]
    assert not session.retry()


def test_loading_that_fails_is_said_and_can_be_tried_again(make: Make) -> None:
    engine = FakeEngine(load_fails=WeightsError("Weights not found", "not here", "y", code="weights_not_found"))
    session, watch = make(engine)
    session.set_image(ct(2))
    session.start(Job("report", ct(2)))
    watch.until_phase(Phase.FAILED)
    assert session.runs == []
    assert watch.titles == ["Weights not found"]
    assert session.retry()
    watch.until_phase(Phase.DONE)
    assert len(session.runs) == 1


def test_a_target_that_is_not_learnt_fails_before_any_slice(make: Make) -> None:
    session, watch = make(FakeEngine())
    session.set_image(ct(2))
    session.start(Job("segment", ct(2), RunRequest.segment("nonsense")))
    watch.until_phase(Phase.FAILED)
    assert session.runs == []
    assert watch.titles == ["Target not learnt"]


def test_a_listener_that_fails_does_not_leave_a_spinner(make: Make) -> None:
    session, watch = make(FakeEngine())
    session.set_image(ct(2))

    def fail(*_: object) -> None:
        raise RuntimeError("a widget broke")

    session.slice_done.connect(fail)
    session.start(Job("report", ct(2)))
    watch.until_phase(Phase.FAILED)
    session.slice_done.disconnect(fail)
    assert session.retry()
    watch.until_phase(Phase.DONE)


def test_undo_takes_the_last_run_whatever_is_shown(make: Make) -> None:
    session, watch = make(FakeEngine())
    session.set_image(ct(2))
    for _ in range(2):
        session.start(Job("report", ct(2)))
        watch.until_phase(Phase.DONE)
    first, second = session.runs
    session.set_image(ct(3))
    assert session.undo_last_run() is second
    assert session.current is first
    assert session.undo_last_run() is first
    assert session.undo_last_run() is None
    assert session.phase is Phase.READY
    session.start(Job("report", ct(2)))
    watch.until_phase(Phase.DONE)
    assert session.runs[0].number == 3  # numbers are never used twice


def test_an_empty_result_and_a_missing_mask_are_said(make: Make) -> None:
    session, watch = make(FakeEngine(found={"liver": {1: (4, 4, 20, 20)}}, truncated=[2]))
    session.set_image(ct(4))
    session.start(Job("segment", ct(4), RunRequest.segment("liver", "liver lesion")))
    watch.until_phase(Phase.DONE)
    assert watch.titles[0].startswith("1 structure measured in 4 slices")
    assert watch.titles[1:] == ["No mask for “liver lesion”", "Answer truncated"]
    session.start(Job("segment", ct(4), RunRequest.segment("spleen")))
    watch.until(lambda: len(watch.finished) == 2)
    watch.until_phase(Phase.DONE)
    assert watch.titles[0] == "No mask for “spleen”"
    session.start(Job("report", ct(1)))
    watch.until(lambda: len(watch.finished) == 3)
    watch.until_phase(Phase.DONE)
    assert watch.titles == ["No finding was produced in 1 slice"]


def test_less_memory_is_said(make: Make) -> None:
    ran_out = Note(LESS_MEMORY, "Memory ran out; the run went on with 1 slice at once.")
    session, watch = make(FakeEngine(warnings=[ran_out]))
    session.set_image(ct(2))
    session.start(Job("report", ct(2)))
    watch.until_phase(Phase.DONE)
    assert watch.titles[-1] == "Continued with less memory"


def test_questions_give_answers(make: Make) -> None:
    session, watch = make(FakeEngine(answers={"vqa": "a mass"}))
    session.set_image(ct(4))
    session.start(Job("ask", ct(4), RunRequest((Prompt("vqa", question="What is it?"),), indices=(2,))))
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is not None
    assert [(a.text, a.index, a.region) for a in run.answers] == [("a mass", 2, None)]
    assert run.report is not None
    assert watch.titles[0].startswith("1 answer, 0:0")


def test_boxes_are_asked_each_on_its_own_slice(make: Make) -> None:
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    session.set_image(ct(4))
    regions = [Region(2, 2, 20, 20, "axial", 1), Region(2, 2, 20, 20, "axial", 1), Region(0, 0, 40, 3, "coronal", 7)]
    prompts = tuple(Prompt("roi_class", region=region) for region in regions)
    session.start(Job("roi", ct(4), RunRequest(prompts)))
    engine.wait_until_in_work()
    session.cancel()
    engine.let(1)
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is not None
    assert (len(run.answers), run.cancelled) == (2, True)
    engine.let_all()
    session.resume()
    watch.until(lambda: run.complete)
    watch.until_phase(Phase.DONE)
    assert [(len(prompts), index) for index, prompts in engine.asked] == [(2, 1), (1, 7)]
    assert [a.region for a in run.answers] == regions
    assert run.report is None


def test_a_box_limits_what_is_kept(make: Make) -> None:
    found = {"lesion": {1: (4, 4, 14, 14), 2: (4, 4, 14, 14), 5: (30, 30, 44, 44)}}
    session, watch = make(FakeEngine(found=found))
    volume = ct(7)
    session.set_image(volume)
    job = Job("segment", volume, RunRequest.segment("lesion"), within=Region(0, 0, 10, 10, "axial", 2))
    session.start(job)
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is not None
    assert [f.slices for f in run.findings] == [(1, 2)]
    assert [f.number for f in run.findings] == [1]
    assert run.report is not None
    assert run.report.findings == tuple(run.findings)
    assert "Slices 6" not in run.report.narrative


def test_an_image_that_is_closed_stops_its_job_only(make: Make) -> None:
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    volume = ct(4)
    session.set_image(volume)
    session.start(Job("report", volume))
    engine.wait_until_in_work()
    session.image_closed(ct(4))
    assert session.phase is Phase.RUNNING
    session.image_closed(volume)
    session.set_image(None)
    engine.let_all()
    watch.until_phase(Phase.NO_IMAGE)
    run = session.current
    assert run is not None
    assert run.slices_done == [0]
    assert watch.titles[-1] == "The image was closed"


def test_a_model_takes_the_place_of_the_one_before(make: Make) -> None:
    engine = FakeEngine()
    session, watch = make(engine)
    assert session.model_line == ""
    session.load_model()
    watch.until_phase(Phase.NO_IMAGE)
    assert session.model_line == "● Ready – fake, CPU, fp32"
    other = ModelChoice("somewhere", "folder", "fine-tuned")
    session.load_model(other)
    watch.until(lambda: len(engine.loads) == 2 and session.phase is Phase.NO_IMAGE)
    assert session.choice is other
    assert engine.freed == 1  # the first one, before the second was loaded
    session.unload()
    watch.until_phase(Phase.NO_MODEL)
    assert session.info is None
    assert session.model_line == ""


def test_a_torch_without_gpu_support_is_said_once_a_model_is_loaded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unibiomed.session.models.torch_has_no_gpu_support", lambda: True)
    session, watch = make(FakeEngine(info=FakeInfo(parameters=1_100_000_000)))
    session.load_model()
    watch.until_phase(Phase.NO_IMAGE)
    assert session.messages[-1].text.startswith("▲ Running on CPU. The installed PyTorch has no GPU support.")
    other, other_watch = make(FakeEngine(info=FakeInfo(device="cuda:0")))
    other.load_model()
    other_watch.until_phase(Phase.NO_IMAGE)
    assert other.messages == []


def test_signals_are_emitted_where_deliver_calls(make: Make) -> None:
    posted: list[Callable[[], None]] = []
    session, _ = make(FakeEngine(), deliver=posted.append)
    threads: set[str] = set()
    for signal in (session.slice_done, session.finished, session.progressed, session.runs_changed):
        signal.connect(lambda *_: threads.add(threading.current_thread().name))
    done: list[object] = []
    session.finished.connect(done.append)
    session.start(Job("report", ct(3)))
    arrived = threading.Event()
    session._model.submit(arrived.set)
    assert arrived.wait(GUARD_S)
    assert session.phase is Phase.LOADING  # nothing changes by itself
    for call in posted:
        call()
    assert len(done) == 1
    assert threads == {threading.current_thread().name}


def test_closing_in_the_middle_of_a_slice_ends_the_thread_and_tells_nobody() -> None:
    engine = FakeEngine(held=True)
    session = Session(load_engine=engine.load, settings=Settings(autosave=False))
    watch = Watch(session)
    session.start(Job("report", ct(5)))
    engine.wait_until_in_work()
    (thread,) = model_threads()
    told = len(watch.slices)
    session.close()
    session.close()
    engine.let(1)
    thread.join(GUARD_S)
    assert not thread.is_alive()
    assert engine.freed >= 1
    assert len(engine.asked) == 1
    assert (len(watch.slices), watch.finished) == (told, [])
    assert not session.start(Job("report", ct(5)))
    assert not session.load_model()
    session.set_image(ct(2))


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_opening_and_closing_many_times_leaves_no_thread(times: int) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    for _ in range(times):
        engine = FakeEngine()
        session = Session(load_engine=engine.load, settings=Settings(autosave=False))
        watch = Watch(session)
        session.set_image(ct(2))
        session.start(Job("report", ct(2)))
        watch.until_phase(Phase.DONE)
        mine = model_threads()
        session.close()
        for thread in mine:
            thread.join(GUARD_S)
        assert engine.freed == 1
    assert {thread.ident for thread in threading.enumerate()} == before


class Viewer:
    """As far as a session is concerned."""


def test_a_viewer_has_one_session_until_it_is_closed() -> None:
    viewer, other = Viewer(), Viewer()
    session = session_of(viewer)
    assert session_of(viewer) is session
    assert session_of(other) is not session
    session.attach()
    session.attach()
    session.detach()
    assert not session.closed
    session.detach()
    assert session.closed
    again = session_of(viewer)
    assert again is not session
    del viewer
    gc.collect()
    assert again.closed
    session_of(other).close()
