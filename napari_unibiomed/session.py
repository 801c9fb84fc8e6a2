"""What dock and panel of one window share: one model thread, one job at a time, and the state they show.

Everything that the model thread has to say is handed to ``deliver``, which calls it where the listeners live; only
there are state and runs changed and signals emitted.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable

from napari_unibiomed import messages, model_choice, notices
from napari_unibiomed.controls import Phase
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.model_choice import Download, LoadEngine, ModelChoice
from napari_unibiomed.model_thread import ModelThread
from napari_unibiomed.progress import download_text
from napari_unibiomed.salvage import salvage
from napari_unibiomed.session_state import SessionState
from napari_unibiomed.settings import Settings, read_settings
from napari_unibiomed.work import updates
from unibiomed_core.errors import Cancelled
from unibiomed_core.types import Prediction, Volume
from unibiomed_core.updates import CancelToken, Done, SliceDone

log = logging.getLogger(__name__)

Deliver = Callable[[Callable[[], None]], None]


def call_now(callback: Callable[[], None]) -> None:
    """Call in the thread that asks; for use without a window."""
    callback()


class Session(SessionState):
    """One model thread and one job at a time.

    Args:
        deliver: Called in the model thread with what is to be called in the listeners' thread, in the same order.
        load_engine: Makes an engine, in the model thread; tests pass another one.
        settings: None takes the defaults.
        download: Fetches a published model, in the model thread.
    """

    def __init__(
        self,
        deliver: Deliver = call_now,
        load_engine: LoadEngine = model_choice.load_engine,
        settings: Settings | None = None,
        download: Download = model_choice.fetch,
    ) -> None:
        super().__init__(settings or Settings())
        self.deliver = deliver
        self.closed = False
        self._model = ModelThread(load_engine, download)
        self._cancel = CancelToken()
        self._runs_made = 0
        self._users = 0

    def load_model(self, choice: ModelChoice | None = None) -> bool:
        """Load a model in place of the one before; False where a job is running, which is said."""
        chosen = choice or self.choice
        if not self._may_begin():
            return False
        self.choice = chosen
        self.retry_action = lambda: self.load_model(chosen)
        return self._submit(Phase.LOADING, self._load)

    def unload(self) -> bool:
        """Drop the model and give its memory back; False where a job is running."""
        return self._may_begin() and self._submit(Phase.LOADING, lambda cancel: self._drop())

    def download(self, choice: ModelChoice) -> bool:
        """Fetch a published model and load it. In offline mode no connection is opened, and that is said."""
        if not self._may_begin():
            return False
        if self.settings.offline:
            self._show(messages.offline_mode_on())
            return False
        self.retry_action = lambda: self.download(choice)
        return self._submit(Phase.DOWNLOADING, lambda cancel: self._fetch(choice, cancel))

    def start(self, job: Job) -> bool:
        """Begin a job; a model is loaded first where none is. False where another one runs, which is said."""
        if not self._may_begin():
            return False
        self._runs_made += 1
        return self._begin(Run(job, self._runs_made))

    def resume(self, run: Run | None = None) -> bool:
        """Go on with the slices that a run, by default the current one, did not reach; False where there are none."""
        run = run or self.current
        if run is None or run.complete or not self._may_begin():
            return False
        if self.info is not None and run.model and run.model["sha256"] != self.info.sha256:
            self._show(notices.answered_by_another_model(str(run.model["name"])))
            return False
        return self._begin(run)

    def retry(self) -> bool:
        """Do again what failed; slices that were finished are kept. False where nothing failed."""
        return self.phase is Phase.FAILED and self.retry_action is not None and self.retry_action()

    def cancel(self) -> None:
        """Stop after the slice in work; what is done is kept."""
        if self.phase.busy and self.phase is not Phase.CANCELLING:
            self._cancel.cancel()
            self._be(Phase.CANCELLING)

    def undo_last_run(self) -> Run | None:
        """Take the last run out of the list and return it, so that its layers can go too; None where there is none."""
        if not self.runs or not self._may_begin():
            return None
        run = self.runs[-1]
        self._forget(run)
        self._rest(None)
        return run

    def image_closed(self, volume: Volume) -> None:
        """The layer of an image was removed: a job on it stops, and what is finished is kept."""
        run = self._in_work
        if run is not None and run.volume is volume:
            self._image_closed = True
            self.cancel()

    def attach(self) -> None:
        """One more widget uses this session."""
        self._users += 1

    def detach(self) -> None:
        """A widget ended; the last one closes the session."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def close(self) -> None:
        """Stop the job, let the thread end and free the model. Nothing is delivered any more; may be called twice."""
        if not self.closed:
            self.closed = True
            self._cancel.cancel()
            self._model.end()

    def _may_begin(self) -> bool:
        """Whether something new may be begun; messages of the last action go then."""
        if self.closed:
            return False
        if self.phase.busy:
            name = self.current.job.name if self.phase is Phase.RUNNING and self.current else self.phase.value
            self._show(notices.one_job_at_a_time(name))
            return False
        self.messages.clear()
        return True

    def _begin(self, run: Run) -> bool:
        self._began(run)
        self.retry_action = lambda: self._may_begin() and self._begin(run)
        known, before_s = dict(run.predictions), run.seconds
        phase = Phase.LOADING if self.info is None else Phase.RUNNING
        return self._submit(phase, lambda cancel: self._work(run, known, before_s, cancel))

    def _submit(self, phase: Phase, work: Callable[[CancelToken], None]) -> bool:
        cancel = self._cancel = CancelToken()
        self._be(phase)
        self._model.submit(lambda: self._guarded(work, cancel))
        return True

    # In the model thread

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

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        def call() -> None:
            if not self.closed:
                callback(*arguments)

        if not self.closed:
            self.deliver(call)

    def _load(self, cancel: CancelToken) -> None:
        self._get_model(cancel)
        self._post(self._rest, None)

    def _get_model(self, cancel: CancelToken) -> None:
        self._post(self._dropped)
        info = self._model.load(self.choice, self.settings, cancel).info
        cpu_only = info.device == "cpu" and model_choice.torch_has_no_gpu_support()
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
        self.choice = model_choice.fetched(choice)
        self._post(self._be, Phase.LOADING)
        self._load(cancel)

    def _work(self, run: Run, known: dict[int, tuple[Prediction, ...]], before_s: float, cancel: CancelToken) -> None:
        if self._model.engine is None:
            self._get_model(cancel)
        engine = self._model.engine
        assert engine is not None  # else loading would have raised
        model = engine.info.provenance()
        began, had, answered = time.monotonic(), len(known), dict(known)
        self._post(self._running, run, model)
        try:
            for update in updates(engine, run.job, known, cancel):
                seconds = time.monotonic() - began
                if isinstance(update, SliceDone):
                    if update.index in known:
                        continue
                    answered[update.index] = update.predictions
                self._post(self._take, run, update, seconds, had)
        except Exception:
            if answered and run.job.kind != "roi":
                seconds = before_s + time.monotonic() - began
                report = salvage(run.job, answered, model, seconds, "An error ended the run before all slices.")
                self._post(self._take, run, Done(report), seconds, had)
            raise
        self._post(self._ended, run, time.monotonic() - began, had)


_sessions: dict[int, Session] = {}
"""By the identity of the viewer; an entry goes with its viewer."""


def session_of(viewer: object) -> Session:
    """The session of a viewer's window; a new one where there is none or the last one was closed."""
    key = id(viewer)
    known = _sessions.get(key)
    if known is None:
        weakref.finalize(viewer, _end, key)
    if known is None or known.closed:
        _sessions[key] = Session(settings=read_settings())
    return _sessions[key]


def _end(key: int) -> None:
    _sessions.pop(key).close()
