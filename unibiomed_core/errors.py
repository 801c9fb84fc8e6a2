"""One family of exceptions: each message says what was found, what was expected and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class UniBiomedError(Exception):
    """Base of every error that a user can cause or cure.

    Args:
        title: A short name of the case; the troubleshooting list uses it as a heading.
        found: What was met, with the file or value named.
        expected: What would have been accepted.
        action: The next step for the user.
        command: The next step at the command line; a window leaves it out.
        code: The case, for code that acts on it: the words above are for people only. None takes the class's own.
        values: What the case is about, for whoever says it in other words.
    """

    code: str = "other"

    def __init__(
        self,
        title: str,
        found: str,
        expected: str = "",
        action: str = "",
        *,
        command: str = "",
        code: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.title = title
        self.found = found
        self.expected = expected
        self.action = action
        self.command = command
        self.code = code or type(self).code
        self.values = dict(values or {})
        parts = [f"{title}.", found]
        if expected:
            parts.append(f"Expected: {expected}")
        parts += [step for step in (action, command) if step]
        super().__init__(" ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts))


class ReadError(UniBiomedError):
    """A file or folder cannot be read as an image."""

    code = "not_readable"


class WriteError(UniBiomedError):
    """A result cannot be written; nothing that existed before was changed."""

    code = "not_writable"


class PromptError(UniBiomedError):
    """A question, target or region cannot be used."""

    code = "wrong_prompt"


class WeightsError(UniBiomedError):
    """A weights folder is missing, incomplete, damaged or of another model."""

    code = "weights_do_not_fit"


class DeviceError(UniBiomedError):
    """The chosen device or precision is not available, or its memory does not suffice."""

    code = "device_not_available"


class DataError(UniBiomedError):
    """A training data set or record cannot be used."""

    code = "wrong_data"


class ConfigError(UniBiomedError):
    """A setting has an unknown name or a value that does not fit."""

    code = "wrong_setting"


class Cancelled(UniBiomedError):
    """The user stopped the work; what was finished before is kept."""

    code = "cancelled"

    def __init__(self, done: int, total: int) -> None:
        super().__init__("Cancelled", f"Stopped after {done} of {total} slices; what was finished is kept")
