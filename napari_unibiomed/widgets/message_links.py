"""What happens when something in a message is clicked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from napari_unibiomed.messages.message import Link, Message
from napari_unibiomed.widgets.section import to_clipboard

if TYPE_CHECKING:
    from napari_unibiomed.widgets.image_section import ImageSection
    from napari_unibiomed.widgets.model_section import ModelSection
    from napari_unibiomed.widgets.running import Running

COPIED = Message(
    "info",
    "Details copied",
    "They are on the clipboard and may name files.",
    "Paste them into an issue of the project after a look at them.",
)


class MessageLinks:
    """One method for every link that our messages can have.

    Args:
        show_saved: Opens the list of kept runs.
    """

    def __init__(
        self, running: Running, image: ImageSection, model: ModelSection, show_saved: Callable[[], object]
    ) -> None:
        self._running, self._image, self._model = running, image, model
        self._calls: Mapping[Link, Callable[[], object]] = {
            Link.RESUME: running.resume,
            Link.RESTORE: running.session.restore_saved,
            Link.DISCARD: running.undo,
            Link.SAVED_RUNS: show_saved,
            Link.RETRY: running.retry,
            Link.COPY_DETAILS: self._copy_details,
            Link.USE_PERCENTILES: image.window_box.use_percentiles,
            Link.CHOOSE_FOLDER: model.ask_for_folder,
            Link.CHOOSE_ANOTHER_FOLDER: model.ask_for_folder,
            Link.LET_MODEL_TELL: running.look,
            Link.DOWNLOAD: lambda: model.download_requested.emit(model.choice),
        }

    def follow(self, link: Link) -> None:
        """Do what a link says."""
        self._calls[link]()

    def _copy_details(self) -> None:
        details = "\n\n".join(message.details or message.text for message in self._running.section.shown)
        to_clipboard(details)
        self._running.say(COPIED)
