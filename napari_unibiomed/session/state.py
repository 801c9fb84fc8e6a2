"""What is known about model, job and runs, and the signals that tell of its changes. No widget, no thread.

The methods that change it are called by :class:`napari_unibiomed.session.session.Session`, in the listeners' thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_unibiomed.autosave.autosave import Saved
from napari_unibiomed.findings.saved_edits import Edits
from napari_unibiomed.jobs import JobKind, Run, limited, meets
from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.messages.catalogue import progress_text
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import Message
from napari_unibiomed.runs import outcome
from napari_unibiomed.session.models import EMBEDDED, ModelChoice
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.settings import Settings
from unibiomed_core.errors import ReadError
from unibiomed_core.types import Volume
from unibiomed_core.updates import Done, FindingFound, Progress, SliceDone, Update


class SessionState:
    """Evented record of what is going on."""

    phase_changed = Signal(Phase)
    progressed = Signal(str, int, int)
    """Text, done, total."""
    slice_done = Signal(Run, int)
    """Run and canonical slice index; slices that a resumed run already had are not told again."""
    finding_found = Signal(Run, object)
    finished = Signal(Run)
    """The run came to its end, was cancelled, or failed with some slices done; its report is there."""
    message_shown = Signal(Message)
    saved_found = Signal(Saved)
    """A run of the chosen image lies on the disk; a message offers it too."""
    saved_listed = Signal()
    """``saved_runs`` is another list now."""
    restored = Signal(Run)
    """A kept run was brought back; ``finished`` follows."""
    looked = Signal(object, object)
    """A picture whose modality nobody told, and the same with the one that the model sees or the error instead."""
    model_changed = Signal()
    runs_changed = Signal()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.choice = EMBEDDED
        self.info: Any = None
        """What is known about the loaded model (``ModelInfo``); None while there is none."""
        self.model_line = ""
        """``● Ready – name, GPU 0, bf16, 5.1 of 24 GB``; empty while no model is loaded."""
        self.runs: list[Run] = []
        self.current: Run | None = None
        self.kept_edits: dict[int, Edits] = {}
        """Number of a run -> what the user did with its findings."""
        self.volume: Volume | None = None
        self.saved_runs: list[Saved] = []
        """Kept runs of the chosen image that can be brought back, newest first; those that are open are left out."""
        self.messages: list[Message] = []
        """What was said since the last action; the last one is what matters most."""
        self.pace: dict[JobKind, float] = {}
        """Seconds a slice, by kind of job, as measured with the model that is loaded."""
        self._taken_off: set[Path] = set()
        """Folders of kept runs that are brought back or deleted; a list that was read before may name them still."""
        self._retry: Callable[[], bool] | None = None
        self._busy: Phase | None = None
        self._outcome: Phase | None = None
        self._told = Phase.NO_MODEL
        self._in_work: Run | None = None
        self._image_closed = False

    @property
    def phase(self) -> Phase:
        """Where the work stands."""
        if self._busy is not None:
            return self._busy
        if self._outcome is Phase.FAILED:
            return Phase.FAILED
        if self.info is None:
            return Phase.NO_MODEL
        if self.volume is None:
            return Phase.NO_IMAGE
        return self._outcome or Phase.READY

    # Phases and messages

    def _be(self, busy: Phase) -> None:
        """At work. A job that is being cancelled stays so until it ends."""
        if not (self._busy is Phase.CANCELLING and busy.busy):
            self._busy = busy
        self._tell_phase()

    def _rest(self, ended: Phase | None) -> None:
        self._busy, self._outcome, self._in_work, self._image_closed = None, ended, None, False
        self._tell_phase()

    def _tell_phase(self) -> None:
        phase = self.phase
        if phase is not self._told:
            self._told = phase
            self.phase_changed.emit(phase)

    def _show(self, *shown: Message) -> None:
        for message in shown:
            self.messages.append(message)
            self.message_shown.emit(message)

    # The model

    def _dropped(self) -> None:
        self.info, self.model_line, self.pace = None, "", {}
        self.model_changed.emit()
        self._tell_phase()

    def _fetched(self, choice: ModelChoice) -> None:
        self.choice = replace(choice, here=True)
        self._be(Phase.LOADING)

    def _loaded(self, info: Any, line: str, cpu_only: bool) -> None:
        self.info, self.model_line = info, line
        self.model_changed.emit()
        if cpu_only:
            self._show(catalogue.running_on_cpu())

    def _looked(self, asked: Volume, seen: Volume | ReadError) -> None:
        self._rest(None)
        self.looked.emit(asked, seen)

    # Runs

    def _began(self, run: Run) -> None:
        """A run is new, or is taken up again."""
        if run not in self.runs:
            self.runs.append(run)
        run.findings.clear()
        run.report, run.cancelled, run.complete = None, False, False
        self.current = self._in_work = run
        self.runs_changed.emit()

    def _forget(self, run: Run) -> None:
        self.runs.remove(run)
        self.kept_edits.pop(run.number, None)
        self.current = self.runs[-1] if self.runs else None
        self.runs_changed.emit()

    def _running(self, run: Run, model: Mapping[str, Any]) -> None:
        run.model = model
        self._be(Phase.RUNNING)

    def _take(self, run: Run, update: Update, seconds: float, known: int) -> None:
        """One update of a run.

        Args:
            seconds: Since the run was begun or taken up again.
            known: Slices that it had before.
        """
        match update:
            case Progress(done, total):
                run.slices_total = total
                computed = done - known
                left = seconds / computed * (total - done) if computed > 0 else None
                self.progressed.emit(progress_text(done, total, seconds, left), done, total)
            case SliceDone(index, predictions):
                run.take(index, predictions)
                self.slice_done.emit(run, index)
            case FindingFound(finding):
                if run.job.within is None or meets(finding, run.job.within):
                    run.findings.append(finding)
                    self.finding_found.emit(run, finding)
            case Done(report):
                run.report = limited(report, run.job)
                run.findings[:] = run.report.findings
                run.cancelled = not report.complete

    def _ended(self, run: Run, seconds: float, known: int) -> None:
        """The stream of a run is over."""
        computed = len(run.slices_done) - known
        if computed > 0:
            self.pace[run.job.kind] = seconds / computed
        run.seconds += seconds
        if run.report is None:
            run.cancelled = run.places_done < run.slices_total
        run.complete = not run.cancelled
        image_closed = self._image_closed and run.cancelled
        if run.slices_done:
            self.finished.emit(run)
        else:
            self._forget(run)
        self._show(*([catalogue.image_closed()] if image_closed else outcome.closing_messages(run)))
        self._rest(Phase.DONE if run.slices_done else None)

    def _stopped(self) -> None:
        """Loading or downloading was cancelled."""
        self._drop_empty_run()
        self._show(notices.loading_cancelled())
        self._rest(None)

    def _failed(self, error: Exception) -> None:
        run = self._in_work
        if run is not None and run.predictions:
            run.cancelled = True
            self.finished.emit(run)
        self._drop_empty_run()
        self._show(from_error(error))
        self._rest(Phase.FAILED)

    def _drop_empty_run(self) -> None:
        """A run that failed or was stopped before its first slice leaves nothing in the list."""
        if self._in_work is not None and not self._in_work.predictions:
            self._forget(self._in_work)

    # Kept runs

    @property
    def saved(self) -> Saved | None:
        """The newest kept run of the chosen image that can be brought back."""
        return self.saved_runs[0] if self.saved_runs else None

    def _offer(self, kept: list[Saved], volume: Volume) -> None:
        """Kept runs of an image that was just chosen."""
        self._list(kept, volume)
        saved = self.saved
        if volume is self.volume and saved is not None:
            self.saved_found.emit(saved)
            if not self.phase.busy:
                self._show(notices.can_be_restored(saved.name, saved.done, saved.total, len(self.saved_runs)))

    def _list(self, kept: list[Saved], volume: Volume) -> None:
        if volume is self.volume:
            opened = {run.folder for run in self.runs} | self._taken_off
            self.saved_runs = [saved for saved in kept if saved.folder not in opened]
            self.saved_listed.emit()

    def _restored(self, run: Run, edits: Edits, *trouble: Message) -> None:
        self.kept_edits[run.number] = edits
        self.runs.append(run)
        self.current = run
        self.runs_changed.emit()
        self.restored.emit(run)
        self.finished.emit(run)
        self._show(notices.restored(run.name, run.places_done, run.slices_total), *trouble)
        if not self.phase.busy:
            self._rest(Phase.DONE)
