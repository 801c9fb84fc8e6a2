"""What a session does in its model thread, and how what it finds gets to the listeners' thread."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unibiomed.autosave.autosave import Keeper, Saved, autosave_of
from napari_unibiomed.findings import saved_edits
from napari_unibiomed.findings.saved_edits import Edits, EditsWriter
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.messages.catalogue import download_text
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.session import models
from napari_unibiomed.session.models import Download, LoadEngine, ModelChoice
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.state import SessionState
from napari_unibiomed.settings import Settings
from unibiomed_core.engine.volume.finish import finish_answered
from unibiomed_core.errors import Cancelled, PromptError, ReadError
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import Plane, Prediction, Prompt, Volume
from unibiomed_core.updates import CancelToken, Done, Progress, SliceDone, Update

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

log = logging.getLogger(__name__)

Deliver = Callable[[Callable[[], None]], None]


class SessionWork(SessionState):
    """The state with its thread. Every method below ``_post`` runs in the model thread and changes no state itself."""

    def __init__(self, deliver: Deliver, load_engine: LoadEngine, settings: Settings, download: Download) -> None:
        super().__init__(settings)
        self.deliver = deliver
        self.closed = False
        self._autosave = autosave_of(settings)
        self._edits = EditsWriter()
        self._model = ModelThread(load_engine, download)
        self._cancel = CancelToken()

    def _submit(self, phase: Phase, work: Callable[[CancelToken], None]) -> bool:
        cancel = self._cancel = CancelToken()
        self._be(phase)
        self._model.submit(lambda: self._guarded(work, cancel))
        return True

    def keep_edits(self, run: Run, edits: Edits) -> None:
        """Take what the user did with the findings of a run that ended, in place of what was known before."""
        if self.closed or run is self._in_work:
            return
        self.kept_edits[run.number] = edits
        if self._autosave is not None and run.folder is not None:
            self._edits.put(run.folder, edits, self._edits_not_kept)

    def keep_name(self, run: Run) -> None:
        """Keep the name that the user gave a run, as soon as the run itself is kept."""
        if not self.closed and run.renamed and run.folder is not None:
            self._edits.put_name(run.folder, run.title, run.volume.name, self._edits_not_kept)

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        """Have something called in the listeners' thread, unless the session was closed by then."""

        def call() -> None:
            if not self.closed:
                callback(*arguments)

        if not self.closed:
            self.deliver(call)

    def _guarded(self, work: Callable[[CancelToken], None], cancel: CancelToken) -> None:
        """Whatever happens ends in words and in a phase that is not busy."""
        try:
            work(cancel)
        except Cancelled:
            self._post(self._stopped)
        except Exception as error:
            # Neither names of files nor prompts belong in a log; the message has the details.
            log.error("%s in the model thread", type(error).__name__)
            self._post(self._failed, error)

    def _load(self, cancel: CancelToken) -> None:
        self._get_model(cancel)
        self._post(self._rest, None)

    def _get_model(self, cancel: CancelToken) -> None:
        self._post(self._dropped)
        info = self._model.load(self.choice, self.settings, cancel).info
        cpu_only = info.device == "cpu" and models.torch_has_no_gpu_support()
        self._post(self._loaded, info, self._model.line, cpu_only)

    def _drop(self) -> None:
        self._model.drop()
        self._post(self._dropped)
        self._post(self._rest, None)

    def _fetch(self, choice: ModelChoice, cancel: CancelToken) -> None:
        def tell(done: int, total: int, seconds: float) -> None:
            # In thousands: Qt's progress bars count to 2**31.
            self._post(self.progressed.emit, download_text(done, total, seconds), done // 1000, total // 1000)

        self._model.fetch(choice, tell, cancel)
        self._post(self._fetched, choice)
        self._load(cancel)

    def _look(self, volume: Volume, cancel: CancelToken) -> None:
        engine = self._loaded_engine(cancel)
        self._post(self._be, Phase.LOOKING)
        seen: Volume | ReadError
        try:
            seen = engine.with_modality(volume)
        except ReadError as undecided:
            if undecided.code != "modality_not_told":
                raise
            seen = undecided
        if cancel.cancelled:
            self._post(self._rest, None)
        else:
            self._post(self._looked, volume, seen)

    def _loaded_engine(self, cancel: CancelToken) -> Engine:
        if self._model.engine is None:
            self._get_model(cancel)
        engine = self._model.engine
        assert engine is not None  # else loading would have raised
        return engine

    def _work(self, run: Run, known: dict[int, tuple[Prediction, ...]], before_s: float, cancel: CancelToken) -> None:
        engine = self._loaded_engine(cancel)
        model = engine.info.provenance()
        keeper = self._keeper(run)
        began, had, answered = time.monotonic(), len(known), dict(known)
        self._post(self._running, run, model)
        try:
            for update in updates(engine, run.job, known, cancel):
                seconds = time.monotonic() - began
                if isinstance(update, SliceDone):
                    if update.index in known:
                        continue
                    answered[update.index] = answered.get(update.index, ()) + update.predictions
                keeper.take(update, run.job, model)
                self._post(self._take, run, update, seconds, had)
        except Exception:
            if answered and run.job.kind != "roi":
                seconds = before_s + time.monotonic() - began
                report = finish_answered(
                    run.volume, run.job.request, answered, ended="failed", model=model, seconds=seconds,
                    learnt=engine.info.targets,
                )  # fmt: skip
                self._post(self._take, run, Done(report), seconds, had)
            raise
        self._post(self._ended, run, time.monotonic() - began, had)

    def _keeper(self, run: Run) -> Keeper:
        def kept(folder: Path) -> None:
            self._post(self._lies_in, run, folder)

        def trouble(error: OSError) -> None:
            self._post(self._show, notices.not_kept(catalogue.first_sentence(error)))

        return Keeper(self._autosave, run.folder, kept, trouble)

    def _lies_in(self, run: Run, folder: Path) -> None:
        run.folder = folder
        self.keep_name(run)  # it may have been renamed while the model was loaded

    def _edits_not_kept(self, error: OSError) -> None:
        self._post(self._show, notices.edits_not_kept(catalogue.first_sentence(error)))

    def _read_kept(self, volume: Volume, tell: Callable[[list[Saved], Volume], None]) -> None:
        """Which runs of this image were kept."""
        if self._autosave is not None and not self.closed:
            self._post(tell, self._autosave.kept(volume), volume)

    def _bring_back(self, saved: Saved, volume: Volume, number: int) -> None:
        if self._autosave is None:
            return
        try:
            run = self._autosave.restore(saved, volume, number)
        except ReadError as error:
            self._post(self._show, from_error(error))
            return
        try:
            edits = saved_edits.read(saved.folder, run)
        except ReadError as error:
            self._post(self._restored, run, {}, notices.edits_lost(error.found))
        else:
            self._post(self._restored, run, edits)

    def _delete(self, folder: Path) -> None:
        if self._autosave is not None:
            self._autosave.discard(folder)


THREAD_NAME = "unibiomed-model"

BETWEEN_TELLINGS_S = 0.1
"""Bytes of a download are told no more often than this."""

OnBytes = Callable[[int, int, float], None]
"""Bytes done, bytes in all, seconds gone."""


class ModelThread:
    """All methods but :meth:`submit` and :meth:`end` are called in the thread itself."""

    def __init__(self, load_engine: LoadEngine, download: Download) -> None:
        self.engine: Engine | None = None
        self.line = ""
        """The model for people; empty while there is none."""
        self._load_engine, self._download = load_engine, download
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=THREAD_NAME)

    def submit(self, work: Callable[[], None]) -> None:
        """Let the thread do something, after what it does now."""
        self._thread.submit(work)

    def end(self) -> None:
        """Free the model after the work in hand and let the thread end; does not wait."""
        try:
            self._thread.submit(self.drop)
        except RuntimeError as error:
            # Viewers that live until the interpreter ends are finalized when no thread takes work any more.
            if "shutdown" not in str(error):
                raise
        self._thread.shutdown(wait=False)

    def load(self, choice: ModelChoice, settings: Settings, cancel: CancelToken) -> Engine:
        """Load a model in place of the one before, which is freed first: two may not fit into memory.

        Raises:
            Cancelled: That was asked for meanwhile; no model is held then.
            WeightsError: As the engine's ``load``.
            DeviceError: As the engine's ``load``.
        """
        self.drop()
        self.engine = self._load_engine(choice, settings)
        if cancel.cancelled:
            self.drop()
            raise Cancelled(0, 0)
        info = self.engine.info
        memory = models.memory_text(info.device)
        self.line = models.model_line(info.name, info.device, info.dtype, memory)
        return self.engine

    def drop(self) -> None:
        """Free the model and give its memory back."""
        self.line = ""
        if self.engine is not None:
            self.engine.free()
            self.engine = None
            gc.collect()
            models.give_back_memory()

    def fetch(self, choice: ModelChoice, on_bytes: OnBytes, cancel: CancelToken) -> None:
        """Download a published model.

        Raises:
            Cancelled: That was asked for meanwhile.
            WeightsError: As the hub's ``download``.
        """
        began, told = time.monotonic(), 0.0

        def tell(done: int, total: int) -> None:
            nonlocal told
            if cancel.cancelled:
                raise Cancelled(0, 0)
            now = time.monotonic()
            if done >= total or now - told >= BETWEEN_TELLINGS_S:
                told = now
                on_bytes(done, total, now - began)

        self._download(choice.name, tell)


Known = Mapping[int, tuple[Prediction, ...]]
"""Slice index -> what was answered before the run was stopped."""


def updates(engine: Engine, job: Job, known: Known, cancel: CancelToken) -> Iterator[Update]:
    """Do a job. Questions about boxes end without a report.

    Raises:
        PromptError: Something that is asked cannot be used.
        DeviceError: Memory does not suffice.
    """
    if job.kind == "roi":
        return _boxes(engine, job, known, cancel)
    return engine.run(job.volume, job.request, cancel=cancel, known=known)


def _boxes(engine: Engine, job: Job, known: Known, cancel: CancelToken) -> Iterator[Update]:
    """Each box on its own slice; all boxes of a slice at once. ``known`` are slices that need no answer any more.

    Raises:
        PromptError: A prompt has no box.
    """
    began = time.monotonic()
    by_slice: dict[tuple[Plane, int], list[Prompt]] = {}
    for prompt in job.request.prompts:
        if prompt.region is None:
            raise PromptError("No region", "a question about a box was given without one", "a box", "Draw a box.")
        by_slice.setdefault((prompt.region.plane, prompt.region.index), []).append(prompt)
    answered = {
        (prediction.plane, prediction.index) for predictions in known.values() for prediction in predictions
    }.intersection(by_slice)
    left = [place for place in by_slice if place not in answered]
    window = job.request.window or choose_window(job.volume)
    yield Progress(len(answered), len(by_slice))
    for number, (plane, index) in enumerate(left, start=1):
        if cancel.cancelled:
            return
        prompts = by_slice[plane, index]
        (predictions,) = engine.predict([job.volume.slice(index, plane)], prompts, window)
        yield SliceDone(index, predictions)
        seconds_left = (time.monotonic() - began) / number * (len(left) - number)
        yield Progress(len(answered) + number, len(by_slice), seconds_left)
