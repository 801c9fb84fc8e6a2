"""What the dock knows, without Qt: one lasting model thread, one job at a time, and what it says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING

from unibiomed_core.errors import UniBiomedError
from unibiomed_core.types import Report, Volume
from unibiomed_core.updates import CancelToken, Done, Progress, Update

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

log = logging.getLogger(__name__)

LoadEngine = Callable[[], "Engine"]
Listener = Callable[["Status"], None]


class Phase(Enum):
    """Where the dock stands; each has its own set of enabled controls."""

    READY = "ready"
    LOADING = "loading"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"

    @property
    def busy(self) -> bool:
        return self in {Phase.LOADING, Phase.RUNNING, Phase.CANCELLING}


class Status:
    """One moment of a job; immutable by use, made anew for every change.

    Args:
        message: What people read, in whole sentences.
        report: Only with ``DONE``.
    """

    __slots__ = ("done", "message", "phase", "report", "total")

    def __init__(self, phase: Phase, message: str, done: int = 0, total: int = 0, report: Report | None = None) -> None:
        self.phase, self.message, self.done, self.total, self.report = phase, message, done, total, report


def load_embedded() -> Engine:
    """The embedded model; called in the model thread, where torch is loaded."""
    from unibiomed_core.engine.engine import Engine

    return Engine.load("mini")


class Session:
    """Owns the model thread of one dock.

    Args:
        listener: Called from the model thread with every status; it has to hand it to its own thread.
        load_engine: Makes the engine, once, in the model thread.
    """

    def __init__(self, listener: Listener, load_engine: LoadEngine = load_embedded) -> None:
        self._listener = listener
        self._load_engine = load_engine
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unibiomed-model")
        self._cancel = CancelToken()
        self.phase = Phase.READY

    def start(self, volume: Volume) -> bool:
        """Report on a volume; False where a job is running, which is not queued."""
        if self.phase.busy:
            return False
        self._cancel = CancelToken()
        self.phase = Phase.LOADING
        self._thread.submit(self._run, volume, self._cancel)
        return True

    def cancel(self) -> None:
        """Stop after the slice in work; what is done is kept."""
        if self.phase.busy:
            self._cancel.cancel()
            self.phase = Phase.CANCELLING

    def close(self) -> None:
        """Stop the job and let the thread end; the model is freed with it."""
        self._cancel.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _tell(self, phase: Phase, message: str, done: int = 0, total: int = 0, report: Report | None = None) -> None:
        if not (self.phase is Phase.CANCELLING and phase.busy):
            self.phase = phase
        self._listener(Status(self.phase, message, done, total, report))

    def _run(self, volume: Volume, cancel: CancelToken) -> None:
        try:
            if self._engine is None:
                self._tell(Phase.LOADING, "Loading the model. The first time takes some seconds.")
                self._engine = self._load_engine()
            for update in self._engine.run(volume, cancel=cancel):
                self._take(update)
        except UniBiomedError as error:
            self._tell(Phase.FAILED, str(error))
        except Exception as error:  # a fault of ours must end in words, not in a dead thread
            log.exception("report failed")
            self._tell(Phase.FAILED, f"Something went wrong. {type(error).__name__}: {error}. Nothing was lost.")

    def _take(self, update: Update) -> None:
        if isinstance(update, Progress):
            left = "" if update.seconds_left is None else f" · about {update.seconds_left:.0f} s left"
            self._tell(Phase.RUNNING, f"Slice {update.done} of {update.total}{left}", update.done, update.total)
        elif isinstance(update, Done):
            self._tell(Phase.DONE, closing_words(update.report), report=update.report)


def closing_words(report: Report) -> str:
    """One sentence for the end of a run; an empty result is said, never shown as silence."""
    examined = len(report.slices_done)
    if report.cancelled:
        return f"Cancelled after {examined} slices; they are kept with {len(report.findings)} findings."
    slices = f"{examined} slice" + ("" if examined == 1 else "s")
    if not report.findings:
        return f"No finding was produced in {slices}."
    return f"{len(report.findings)} findings in {slices}, {report.seconds:.0f} s."
