"""JSON files of users and other tools: one reader, whatever they begin with, and one error that says where it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unibiomed_core.errors import ReadError, UniBiomedError

MOST_BYTES = 2 << 30
"""Size of a file that is read at all; the largest public annotation files have a quarter of it."""


def read_json(
    path: Path,
    wrong: type[UniBiomedError] = ReadError,
    title: str = "JSON cannot be read",
    expected: str = "a complete JSON file",
    most_bytes: int = MOST_BYTES,
) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    Args:
        wrong: The error that is raised.
        title: Its title.
        expected: What the file should be.
        most_bytes: A larger file is refused unread.

    Raises:
        UniBiomedError: Of the kind ``wrong``: the file is missing, no file, too large, in no Unicode encoding, or no
            JSON; the message names it with the line and column.
    """
    try:
        if not path.is_file():
            raise wrong(title, f"{path.name}: there is no such file", expected)
        if (size := path.stat().st_size) > most_bytes:
            raise wrong(title, f"{path.name} has {size:,} bytes", f"{expected} of at most {most_bytes:,}")
        return parse_json(path.read_bytes(), path.name, wrong, title, expected)
    except OSError as cause:
        raise wrong(title, f"{path.name}: {cause.strerror or cause}", expected) from cause


def parse_json(
    content: bytes,
    name: str,
    wrong: type[UniBiomedError] = ReadError,
    title: str = "JSON cannot be read",
    expected: str = "a complete JSON file",
) -> Any:
    """As :func:`read_json`, of bytes that are there already.

    Args:
        name: Of the file, for the message.
    """
    try:
        return json.loads(content.decode(json.detect_encoding(content)))
    except json.JSONDecodeError as cause:
        found = f"{name}, line {cause.lineno}, column {cause.colno}: {cause.msg}"
    except UnicodeDecodeError as cause:
        found = f"{name}: byte {cause.start} is no {cause.encoding} text"
    except RecursionError:
        found = f"{name}: it is nested too deeply"
    except ValueError as cause:  # a number of thousands of digits
        found = f"{name}: {cause}"
    raise wrong(title, found, expected)
