"""One family of exceptions: each message says what was found, what was expected and what to do next."""

from __future__ import annotations


class UniBiomedError(Exception):
    """Base of every error that a user can cause or cure.

    Args:
        title: A short name of the case; the troubleshooting list uses it as a heading.
        found: What was met, with the file or value named.
        expected: What would have been accepted.
        action: The next step for the user.
    """

    def __init__(self, title: str, found: str, expected: str = "", action: str = "") -> None:
        self.title = title
        self.found = found
        self.expected = expected
        self.action = action
        parts = [f"{title}.", found]
        if expected:
            parts.append(f"Expected: {expected}")
        if action:
            parts.append(action)
        super().__init__(" ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts))


class ReadError(UniBiomedError):
    """A file or folder cannot be read as an image."""


class WriteError(UniBiomedError):
    """A result cannot be written; nothing that existed before was changed."""


class PromptError(UniBiomedError):
    """A question, target or region cannot be used."""


class WeightsError(UniBiomedError):
    """A weights folder is missing, incomplete, damaged or of another model."""


class DeviceError(UniBiomedError):
    """The chosen device or precision is not available, or its memory does not suffice."""


class DataError(UniBiomedError):
    """A training data set or record cannot be used."""


class ConfigError(UniBiomedError):
    """A setting has an unknown name or a value that does not fit."""


class Cancelled(UniBiomedError):
    """The user stopped the work; what was finished before is kept."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__("Cancelled", f"Stopped after {done} of {total} slices; what was finished is kept")
