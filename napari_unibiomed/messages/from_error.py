"""What the plugin says to people: title, what it means, what to do. Every case has its function here and its test.

A message stays until the next action. Its kind is told by an icon and a word, never by colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

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
    """The message for an exception: one of the cases above where it is one, else its own words."""
    if not isinstance(exception, UniBiomedError):
        return something_went_wrong(exception)
    for title, make in _CASES.items():
        if exception.title.startswith(title) and (message := make(exception)) is not None:
            return message
    action = "" if _COMMAND_LINE.search(exception.action) else exception.action
    expected = f"Expected: {_sentence(exception.expected)}" if exception.expected else ""
    meaning = " ".join(part for part in (_sentence(exception.found), expected) if part)
    return Message("error", exception.title, meaning, _sentence(action), details=str(exception))


def _memory(error: UniBiomedError) -> Message | None:
    free, needed = _numbers(error.found.partition(" has ")[2]), _numbers(error.expected)
    if not free or not needed:
        return None
    make = not_enough_memory if error.found.startswith("cpu") else not_enough_gpu_memory
    return make(needed[0] / 1024, free[0] / 1024)


def _not_found(error: UniBiomedError) -> Message | None:
    if "not finished" in error.found:
        return download_stopped(None, "An earlier download was not finished.")
    return weights_not_found("offline" in error.found) if "safetensors" not in error.expected else None


def _download(error: UniBiomedError) -> Message:
    percent = re.search(r"(\d+) %", error.title)
    return download_stopped(int(percent[1]) if percent else None)


def _box(error: UniBiomedError) -> Message | None:
    sides = _numbers(error.found)
    return box_too_small(int(sides[0]), int(sides[1])) if len(sides) == 2 else None


_CASES: Mapping[str, Callable[[UniBiomedError], Message | None]] = {
    "Out of memory": _memory,
    "Weights not found": _not_found,
    "Weights damaged": lambda error: weights_do_not_fit(error.found),
    "These weights do not fit this model": lambda error: weights_do_not_fit(error.found),
    "Download stopped": _download,
    "Offline mode is on": lambda error: offline_mode_on(),
    "Box too small": _box,
}
"""Start of an error's title -> its message; None where its words are better."""


_COMMAND_LINE = re.compile(r"unibiomed [a-z]|--[a-z]")
"""Actions that are for the command line only."""


def _numbers(text: str) -> Sequence[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
