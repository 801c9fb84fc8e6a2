"""The one lasting thread that owns the network: loading, freeing and downloading happen there and nowhere else.

A fresh thread for every call would be several times slower, since warm-up caches are kept by thread.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from napari_unibiomed import model_choice
from napari_unibiomed.model_choice import Download, LoadEngine, ModelChoice
from napari_unibiomed.settings import Settings
from unibiomed_core.errors import Cancelled
from unibiomed_core.updates import CancelToken

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

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
        memory = model_choice.memory_text(info.device)
        self.line = model_choice.model_line(info.name, info.device, info.dtype, memory)
        return self.engine

    def drop(self) -> None:
        """Free the model and give its memory back."""
        self.line = ""
        if self.engine is not None:
            self.engine.free()
            self.engine = None
            gc.collect()
            model_choice.give_back_memory()

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
