"""Decoders that damaged files can bring down run in a process of their own, which this one outlives.

They are ITK's readers of NRRD, MetaImage and DICOM, all codecs of compressed DICOM, tifffile's of compressed TIFF, and
Pillow's. The process is started with the first such file and kept; where it dies, hangs or asks for too much memory,
the file is refused as damaged and the next file has a new one. Requests are lines of JSON on its standard input;
answers are a line of JSON and the bytes of an array. It ends by itself when its input does, so that a killed program
leaves nothing behind.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard

Task = Literal[
    "dicom image",
    "dicom frames",
    "itk header",
    "itk values",
    "picture",
    "picture header",
    "picture means",
    "picture region",
    "tiff page",
    "tiff means",
    "tiff region",
]
"""What is asked for; the functions of ``decoding_process.py`` say what each gives."""

SECONDS_AT_LEAST, BYTES_PER_SECOND = 1.5, 4_000_000
"""Processor time of one file; the slowest codec (JPEG 2000) makes ten times as many bytes of pixels a second."""

GUARD_SECONDS = 60.0
"""Besides its processor time, for a process that waits: for a disk that spins up, or on a busy machine."""


_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}
"""How glibc is to get memory. It would give that of a picture back and get it anew for the next one, which can take
longer than to decode it; so much is kept. And it would reserve 128 MB of address space for a thread of a library, which
is as much as a file may take: sound ones were refused now and then."""


class _Refused(Exception):
    """What the library in the other process said of a file."""


def ask(
    task: Task, path: Path, kind_name: str, expected_bytes: int, **options: str | int | list[int] | None
) -> tuple[dict[str, Any], NDArray[Any]]:
    """What one file holds.

    Args:
        kind_name: How the message names it.
        expected_bytes: Size of the values by the file's header; it bounds time and memory.

    Returns:
        Plain values, and the array; of no elements where the task has none.

    Raises:
        ReadError: The file is damaged, or the process cannot be started.
    """
    request = {"task": task, "path": os.path.abspath(path), "expected_bytes": expected_bytes, "options": options}
    with guard.reading(path, kind_name):
        answer = _DECODER.ask(request, seconds(expected_bytes) + GUARD_SECONDS)
    if answer is None:
        raise guard.damaged(path, kind_name, "it brings its decoder down, or keeps it busy without an end")
    return answer


def seconds(expected_bytes: int) -> float:
    """Processor time that one file may take."""
    return SECONDS_AT_LEAST + expected_bytes / BYTES_PER_SECOND


class _Decoder:
    """This side of the process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: _Watch | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], guard_seconds: float) -> tuple[dict[str, Any], NDArray[Any]] | None:
        """The answer, or None where the process died of the request."""
        with self._lock:
            process = self._started()
            assert self._watch is not None
            self._watch.kill_in(guard_seconds)
            whole = False
            try:
                answer = _exchange(process, request)
                whole = answer is not None
                return answer
            except _Refused:
                whole = True
                raise
            finally:
                self._watch.kill_in(math.inf)
                if not whole:
                    # Also after Ctrl-C: what it may still send belongs to no later question.
                    self._end()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        # A forked copy of this program must not talk to the decoder of the first one.
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._end()
            root = str(Path(__file__).resolve().parents[2])
            known = os.environ.get("PYTHONPATH")
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "unibiomed_core.io.decoding_process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_MEMORY | os.environ | {"PYTHONPATH": os.pathsep.join([root, known] if known else [root])},
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError as error:
                raise ReadError(
                    "Decoder cannot be started",
                    f"{sys.executable}: {error.strerror}",
                    "a Python that can be started, to decode the file",
                    "Free memory, or convert the file to NIfTI.",
                ) from error
            self._owner = os.getpid()
            self._watch = _Watch(self._process)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        if self._watch is not None:
            self._watch.kill_in(0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a request that it never read
                    continue


class _Watch:
    """Kills a process that keeps a request too long.

    Waiting for a pipe with a time-out differs between systems; a process that is killed ends the wait. There is one
    thread for all requests, as to start one takes as long as to decode a small picture.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._until = self._sleeps_until = math.inf
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="unibiomed-decoder", daemon=True).start()

    def kill_in(self, seconds: float) -> None:
        """Kill the process then, unless this is called again before."""
        with self._changed:
            self._until = time.monotonic() + seconds
            if self._until < self._sleeps_until:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while (left := self._until - time.monotonic()) > 0 and self._process.poll() is None:
                self._sleeps_until = self._until
                self._changed.wait(None if math.isinf(left) else left)
        self._process.kill()


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[Any]] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        return None
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    if "error" in answer:
        raise _Refused(answer["error"])
    values = np.empty(answer["shape"], np.dtype(answer["dtype"]))
    rest = values.reshape(-1).view(np.uint8).data
    while rest:
        got = process.stdout.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            return None
        rest = rest[got:]
    return answer["told"], values


_DECODER = _Decoder()
atexit.register(_DECODER.close)
