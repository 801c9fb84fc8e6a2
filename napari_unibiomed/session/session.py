"""What dock and panel of one window share: one model thread, one job at a time, and the state that they show.

Everything that the model thread has to say is handed to ``deliver``, which calls it where the listeners live; only
there are state and runs changed and signals emitted.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial

from napari_unibiomed.autosave.autosave import Saved
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.session import models
from napari_unibiomed.session.models import Download, LoadEngine, ModelChoice
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.worker import Deliver, SessionWork
from napari_unibiomed.settings import Settings, read_settings
from unibiomed_core.types import Volume


def call_now(callback: Callable[[], None]) -> None:
    """Call in the thread that asks; for use without a window."""
    callback()


class Session(SessionWork):
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
        load_engine: LoadEngine = models.load_engine,
        settings: Settings | None = None,
        download: Download = models.fetch,
    ) -> None:
        super().__init__(deliver, load_engine, settings or Settings(), download)
        self._runs_made = 0
        self._users = 0

    def load_model(self, choice: ModelChoice | None = None) -> bool:
        """Load a model in place of the one before; False where a job is running, which is said."""
        chosen = choice or self.choice
        if not self._may_begin():
            return False
        self.choice = chosen
        self._retry = lambda: self.load_model(chosen)
        return self._submit(Phase.LOADING, self._load)

    def unload(self) -> bool:
        """Drop the model and give its memory back; False where a job is running."""
        return self._may_begin() and self._submit(Phase.LOADING, lambda cancel: self._drop())

    def download(self, choice: ModelChoice) -> bool:
        """Fetch a published model and load it. In offline mode no connection is opened, and that is said."""
        if not self._may_begin():
            return False
        if self.settings.offline:
            self._show(catalogue.offline_mode_on())
            return False
        self.choice = choice
        self._retry = lambda: self.download(choice)
        return self._submit(Phase.DOWNLOADING, lambda cancel: self._fetch(choice, cancel))

    def look(self, volume: Volume) -> bool:
        """Let the model tell the modality of a picture; ``looked`` has its answer. A model is loaded first if need be.

        Args:
            volume: With an empty modality.

        Returns:
            False where a job is running, which is said.
        """
        if not self._may_begin():
            return False
        self._retry = lambda: self.look(volume)
        phase = Phase.LOADING if self.info is None else Phase.LOOKING
        return self._submit(phase, lambda cancel: self._look(volume, cancel))

    def start(self, job: Job) -> bool:
        """Begin a job; a model is loaded first where none is. False where another one runs, which is said."""
        if not self._may_begin():
            return False
        return self._begin(Run(job, self._next_number(), began=time.time()))

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
        return self.phase is Phase.FAILED and self._retry is not None and self._retry()

    def cancel(self) -> None:
        """Stop after the slice in work; what is done is kept."""
        if self.phase.busy and self.phase is not Phase.CANCELLING:
            self._cancel.cancel()
            self._be(Phase.CANCELLING)

    def undo_last_run(self) -> Run | None:
        """Take the last run out of the list and return it, so that its layers can go too; None where there is none.

        What was kept of it on the disk goes with it.
        """
        if not self.runs or not self._may_begin():
            return None
        run = self.runs[-1]
        self._forget(run)
        self._rest(None)
        if run.folder is not None:
            folder = run.folder
            self._model.submit(lambda: self._delete(folder))
        return run

    def set_image(self, volume: Volume | None) -> None:
        """The image that is chosen now; a running job keeps the one it was started with.

        A run of the same image that was kept earlier is looked for, and offered by a message.
        """
        same = volume is not None and self.volume is not None and same_image(volume, self.volume)
        if volume is self.volume or self.closed:
            return
        self.volume = volume
        if same:
            return
        self.saved_runs = []
        self.saved_listed.emit()
        if not self.phase.busy:
            self._rest(None)
        if volume is not None:
            self._model.submit(lambda: self._read_kept(volume, self._offer))

    def list_saved(self) -> None:
        """Have ``saved_runs`` read anew; ``saved_listed`` tells when that is done."""
        volume = self.volume
        if volume is not None and not self.closed:
            self._model.submit(lambda: self._read_kept(volume, self._list))

    def restore_saved(self, saved: Saved | None = None) -> bool:
        """Bring back a kept run of the chosen image, by default the newest; ``restored`` tells when it is there."""
        saved, volume = saved or self.saved, self.volume
        if saved is None or volume is None or not self._may_begin():
            return False
        self._take_off((saved,))
        number = self._next_number()
        self._model.submit(lambda: self._bring_back(saved, volume, number))
        return True

    def delete_saved(self, which: Sequence[Saved] | None = None) -> bool:
        """Delete kept runs of the chosen image from the disk, by default the newest; False where there is none."""
        chosen = tuple(which) if which is not None else tuple(self.saved_runs[:1])
        if not chosen or not self._may_begin():
            return False
        self._take_off(chosen)
        for saved in chosen:
            self._model.submit(partial(self._delete, saved.folder))
        return True

    def _take_off(self, which: Sequence[Saved]) -> None:
        self._taken_off |= {saved.folder for saved in which}
        self.saved_runs = [saved for saved in self.saved_runs if saved.folder not in self._taken_off]
        self.saved_listed.emit()

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

    def stop_for_exit(self) -> None:
        """The program ends: the job stops after the slice in work, so that the thread can be waited for."""
        self._cancel.cancel()

    def close(self) -> None:
        """Stop the job, let the thread end and free the model. Nothing is delivered any more; may be called twice."""
        if not self.closed:
            self.closed = True
            self._cancel.cancel()
            self._edits.end()
            self._model.end()

    def _may_begin(self) -> bool:
        """Whether something new may be begun; messages of the last action go then."""
        if self.closed:
            return False
        if self.phase.busy:
            going_on = self.phase.value if self._in_work is None else self._in_work.job.name
            self._show(notices.one_job_at_a_time(going_on))
            return False
        self.messages.clear()
        return True

    def _begin(self, run: Run) -> bool:
        edited = bool(self.kept_edits.get(run.number))
        if edited:
            self.keep_edits(run, {})
        self._began(run)
        if edited:
            self._show(notices.edits_dropped())
        self._retry = lambda: self._may_begin() and self._begin(run)
        known, before_s = dict(run.predictions), run.seconds
        phase = Phase.LOADING if self.info is None else Phase.RUNNING
        return self._submit(phase, lambda cancel: self._work(run, known, before_s, cancel))

    def _next_number(self) -> int:
        self._runs_made += 1
        return self._runs_made


def same_image(one: Volume, other: Volume) -> bool:
    """Whether two volumes are the same voxels in memory, seen as the same modality."""
    return (
        one.voxels.shape == other.voxels.shape
        and one.voxels.ctypes.data == other.voxels.ctypes.data
        and one.modality == other.modality
    )


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
