"""Waiting and measuring in tests, so that they hold on a slow or busy machine. The only file here that reads a clock.

Tests wait for something that happens (an event, a line, a file, a count), never for a time to pass. A time-out only
guards against hanging: it is GUARD_S everywhere. What has to be quick is asserted as a count of work, or as a ratio of
processor times that were measured side by side in one process.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

GUARD_S = 300.0
"""How long anything is waited for, in seconds, before a test says that it hangs. Nothing that works comes near it."""

GUARD_MS = int(1000 * GUARD_S)
"""The same for Qt, which counts milliseconds."""

_BETWEEN_LOOKS_S = 0.002


def until(condition: Callable[[], object], what: str) -> None:
    """Look again and again until a condition holds, for what nobody signals: a file, the state of another process.

    Raises:
        AssertionError: It did not hold within GUARD_S; ``what`` says what was waited for.
    """
    ends = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < ends, f"waited {GUARD_S:.0f} s for {what}"
        time.sleep(_BETWEEN_LOOKS_S)


def until_file(path: Path, what: str = "", process: subprocess.Popen[str] | None = None) -> None:
    """Until a process has written to a file; a process that ended before it did is told of at once."""

    def there() -> bool:
        found = path.is_file() and path.stat().st_size > 0
        assert found or process is None or process.poll() is None, f"the process ended before {what or path.name}"
        return found

    until(there, what or path.name)


def until_line(stream: IO[str] | None, pattern: str) -> str:
    """Read lines of a process until one matches from its beginning, and return it; those after it stay in the stream.

    Raises:
        AssertionError: The stream ended first; the lines that came are told.
    """
    assert stream is not None, "the stream was not opened as a pipe"
    seen = []
    for line in stream:
        if re.match(pattern, line):
            return line
        seen.append(line)
    raise AssertionError(f"no line matched {pattern!r}:\n{''.join(seen)[-3000:]}")


def unit_of_work() -> None:
    """A fixed piece of Python and numpy, about 6 ms of a common processor: what processor times are measured in."""
    numbers = np.arange(200_000, dtype=np.float64)[::-1].copy()
    numbers.sort()
    sum(number * number for number in range(60_000))


class Beats:
    """Processor times that the calling thread spent between one beat and the next; ``beat`` is what a timer calls.

    Time of the wall would also count what other threads and programs do.
    """

    def __init__(self) -> None:
        self.spans_s: list[float] = []
        self._last = time.thread_time()

    def beat(self) -> None:
        now = time.thread_time()
        self.spans_s.append(now - self._last)
        self._last = now

    def units(self, but: int) -> float:
        """The longest span but so many, as a multiple of ``unit_of_work``: a busy machine may spoil a few."""
        return sorted(self.spans_s)[-1 - but] / _least(unit_of_work)


def _least(call: Callable[[], object], rounds: int = 7) -> float:
    found = []
    for _ in range(rounds):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return min(found)


def times_as_long(work: Callable[[], object], reference: Callable[[], object], rounds: int = 7) -> float:
    """Processor time of ``work`` in this thread as a multiple of that of ``reference``.

    Both run in turn, and the least of each counts: a busy machine only ever adds, and it adds to both.
    """
    found = [(_least(work, 1), _least(reference, 1)) for _ in range(rounds)]
    ours, theirs = (min(times) for times in zip(*found, strict=True))
    return ours / max(theirs, 1e-9)
