"""Errors of the core as messages: by their code where the plugin has words of its own for a case, else as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from napari_unibiomed.messages.catalogue import (
    _sentence,
    box_too_small,
    download_stopped,
    not_enough_gpu_memory,
    not_enough_memory,
    offline_mode_on,
    something_went_wrong,
    weights_do_not_fit,
    weights_not_found,
)
from napari_unibiomed.messages.message import Message
from unibiomed_core.errors import UniBiomedError


def from_error(exception: BaseException) -> Message:
    """The message for an exception: the catalogue's where it has one for the error's code, else the error's own words.

    Steps for the command line are left out.
    """
    if not isinstance(exception, UniBiomedError):
        return something_went_wrong(exception)
    if make := _CASES.get(exception.code):
        return make(exception)
    expected = f"Expected: {_sentence(exception.expected)}" if exception.expected else ""
    meaning = " ".join(part for part in (_sentence(exception.found), expected) if part)
    return Message("error", exception.title, meaning, _sentence(exception.action), details=str(exception))


def _memory(error: UniBiomedError) -> Message:
    make = not_enough_memory if error.values["device"] == "cpu" else not_enough_gpu_memory
    return make(error.values["needed_bytes"] / 2**30, error.values["free_bytes"] / 2**30)


_CASES: Mapping[str, Callable[[UniBiomedError], Message]] = {
    "out_of_memory": _memory,
    "weights_not_found": lambda error: weights_not_found(error.values.get("offline", False)),
    "weights_do_not_fit": lambda error: weights_do_not_fit(error.found),
    "download_unfinished": lambda error: download_stopped(None, "An earlier download was not finished."),
    "download_stopped": lambda error: download_stopped(error.values["percent"]),
    "offline": lambda error: offline_mode_on(),
    "box_too_small": lambda error: box_too_small(error.values["width_px"], error.values["height_px"]),
}
"""An error's code -> its message."""
