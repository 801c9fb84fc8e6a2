"""Runs damaged files in processes of their own and counts how each ended; a dead process is one of the outcomes."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GUARD_SECONDS = 300.0
"""For one case; the processor time is limited inside, so only a process that waits for something is met by this."""

GOOD = ("read", "refused")
BAD = ("wrong result", "stray error", "memory", "hang", "crash")
LARGEST_BYTES, SLOWEST_SECONDS = 256 << 20, 2.0

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Tally:
    """Outcomes of one format.

    Attributes:
        outcomes: Name -> number of cases.
        faults: Those that must not be: the case, its mutator, the outcome and why.
        slowest: Seconds of processor time of the slowest case.
        largest: Bytes of the one that took most memory.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.outcomes + other.outcomes,
            self.faults + other.faults,
            max(self.slowest, other.slowest),
            max(self.largest, other.largest),
        )

    def add(self, case: int, mutator: str, found: dict[str, Any]) -> None:
        name = found["outcome"]
        seconds, size = found.get("seconds", 0.0), found.get("bytes", 0)
        if name in GOOD and size > LARGEST_BYTES:
            name = "memory"
        if name in GOOD and seconds > SLOWEST_SECONDS:
            name = "hang"
        self.outcomes[name] += 1
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, size)
        if name not in GOOD:
            self.faults.append(f"case {case} ({mutator}): {name}: {found.get('why', '')}")


class Trials:
    """A process that reads damaged files, started again whenever it has died; used with ``with``.

    Args:
        script: What runs in it; another one in tests of this class.
    """

    def __init__(self, script: Path = Path(__file__).with_name("trial_process.py")) -> None:
        self._script = script
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed at the end)

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self._said.close()

    def run(self, format_name: str, first: int, count: int) -> Tally:
        """Cases ``first`` to ``first + count - 1`` of a format.

        Raises:
            RuntimeError: The process dies before its first case, so that nothing can be said.
        """
        tally, at, last = Tally(), first, first + count
        while at < last:
            current: tuple[int, str] | None = None
            for answer in self._ask({"format": format_name, "first": at, "count": last - at}):
                if "outcome" in answer and current:
                    tally.add(*current, answer)
                    at, current = answer["case"] + 1, None
                elif "case" in answer:
                    current = answer["case"], answer["mutator"]
            if at < last:
                code = self._end()
                if current is None:
                    self._said.seek(0)
                    raise RuntimeError(f"no case of {format_name} was reached ({code}): {self._said.read()[-2000:]}")
                over = {"outcome": "hang", "seconds": SLOWEST_SECONDS} if code in _TIMES_UP else {"outcome": "crash"}
                tally.add(*current, {**over, "why": f"exit code {code}"})
                at = current[0] + 1
        return tally

    def _ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers, until the last or until the process has died."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        while True:
            try:
                line = self._lines.get(timeout=GUARD_SECONDS)
            except queue.Empty:
                process.kill()
                return
            if not line:
                process.wait()
                return
            answer = json.loads(line)
            if "done" in answer:
                return
            yield answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(self._script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            self._lines = queue.Queue()
            threading.Thread(target=_pump, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        return process.returncode


_TIMES_UP = {-int(signal.SIGPROF)} if hasattr(signal, "SIGPROF") else set()


def _pump(stream: Any, lines: queue.Queue[str]) -> None:
    """Lines into a queue, which can be waited for with a guard; an empty one at the end."""
    for line in stream:
        lines.put(line)
    lines.put("")
