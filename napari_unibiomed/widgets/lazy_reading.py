"""Reading a lazy layer in a thread of its own, so that the window never computes it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.messages.message import Message
from unibiomed_core.errors import UniBiomedError
from unibiomed_core.updates import CancelToken

if TYPE_CHECKING:
    from napari.layers import Image

THREAD_NAME = "unibiomed-lazy-layer"
READING = Message(
    "info",
    "Reading the layer",
    "Its values are loaded or computed slice by slice, beside the window.",
    "Wait, or choose another image to stop it.",
)


class LazyReading(QObject):
    """One layer at a time; what is begun later stops what was begun before.

    Attributes:
        finished: The token of the reading, and the values or the error that it ended with.
    """

    finished = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.token = CancelToken()

    def begin(self, layer: Image, choice: Mapping[int, int]) -> None:
        """Read what is chosen of a layer in another thread.

        Raises:
            ReadError: It would not fit into memory; nothing was begun.
        """
        self.stop()
        lazy_layers.check_fits(layer, choice)
        self.token = token = CancelToken()
        data, name = lazy_layers.finest(layer), str(layer.name)

        def work() -> None:
            found: NDArray[Any] | UniBiomedError | None
            try:
                found = lazy_layers.read_slices(data, choice, name, lambda: token.cancelled)
            except UniBiomedError as error:
                found = error
            if not token.cancelled:
                with suppress(RuntimeError):  # the window was closed meanwhile
                    self.finished.emit(token, found)

        threading.Thread(target=work, name=THREAD_NAME, daemon=True).start()

    def stop(self) -> None:
        """Read no further block."""
        self.token.cancel()

    def close(self) -> None:
        """Stop, and let go of who listens: Qt holds listeners where Python's collector doesn't see them."""
        self.stop()
        self.finished.disconnect()
        self.deleteLater()
