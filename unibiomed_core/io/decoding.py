"""Compressed DICOM pixels are decoded in a process of its own, which a broken codec may take down and this one not.

The process is started with the first compressed file and kept; where it dies, hangs or asks for too much memory, the
file is refused as damaged and the next file has a new one. Requests are lines of JSON on its standard input; answers
are a line of JSON and then the bytes of the array. It ends by itself when its input does, so that a killed program
leaves nothing behind.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard

Task = Literal["image", "frames"]
"""What is asked for: an image, rescaled, by GDCM; or all frames of an enhanced object as stored, by pydicom."""

SECONDS_AT_LEAST, BYTES_PER_SECOND = 1.5, 4_000_000
"""Processor time of one file; the slowest codec (JPEG 2000) makes ten times as many bytes of pixels a second."""

GUARD_SECONDS = 60.0
"""Besides its processor time, for a process that waits: for a disk that spins up, or on a busy machine."""

SPARE_BYTES = 128 << 20
"""Address space for decoders' tables, beyond what several copies of the pixels need."""

_COPIES = 8
"""Of the stored pixels: rescaled values may be float64."""

_KIND = "a DICOM file"


class _Refused(Exception):
    """What the library in the other process said of a file."""


def decoded(task: Task, path: Path, expected_bytes: int, pixel_type: int | None = None) -> tuple[NDArray[Any], int]:
    """The pixels of one compressed file.

    Args:
        expected_bytes: Size of the stored pixels by the header; it bounds time and memory.
        pixel_type: SimpleITK's number of the type wanted, for "image"; None for the file's own.

    Returns:
        (1, row, column[, channel]) for "image", what pydicom gives for "frames"; and SimpleITK's number of its type.

    Raises:
        ReadError: The file is damaged, or the decoder cannot be started.
    """
    request = {
        "task": task, "path": os.path.abspath(path), "expected_bytes": expected_bytes, "pixel_type": pixel_type,
    }  # fmt: skip
    with guard.reading(path, _KIND):
        answer = _DECODER.ask(request, seconds(expected_bytes) + GUARD_SECONDS)
    if answer is None:
        raise guard.damaged(path, _KIND, "its compressed pixels bring their decoder down, or keep it busy for ever")
    return answer


def seconds(expected_bytes: int) -> float:
    """Processor time that the pixels of one file may take."""
    return SECONDS_AT_LEAST + expected_bytes / BYTES_PER_SECOND


class _Decoder:
    """This side of the process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], guard_seconds: float) -> tuple[NDArray[Any], int] | None:
        """The answer, or None where the process died of the request."""
        with self._lock:
            process = self._started()
            # Waiting for a pipe with a time-out differs between systems; a process that is killed ends the wait.
            watch = threading.Timer(guard_seconds, process.kill)
            watch.daemon = True
            watch.start()
            whole = False
            try:
                answer = _exchange(process, request)
                whole = answer is not None
                return answer
            except _Refused:
                whole = True
                raise
            finally:
                watch.cancel()
                if not whole:
                    # Also after Ctrl-C: what it may still send belongs to no later question.
                    self._end()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        # A forked copy of this program must not talk to the decoder of the first one.
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            root = str(Path(__file__).resolve().parents[2])
            known = os.environ.get("PYTHONPATH")
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "unibiomed_core.io.decoding"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join([root, known] if known else [root])},
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError as error:
                raise ReadError(
                    "Decoder cannot be started",
                    f"{sys.executable}: {error.strerror}",
                    "a Python that can be started, to decode compressed pixels",
                    "Free memory, or export the images uncompressed.",
                ) from error
            self._owner = os.getpid()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a request that it never read
                    continue


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[NDArray[Any], int] | None:
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
    rest = memoryview(values).cast("B")
    while rest:
        got = process.stdout.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            return None
        rest = rest[got:]
    return values, int(answer["pixel_type"])


_DECODER = _Decoder()
atexit.register(_DECODER.close)


def serve() -> None:
    """The other side: answer requests until the input ends."""
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            with _limits(request["expected_bytes"]):
                values, pixel_type = _TASKS[request["task"]](request["path"], request["pixel_type"])
                most = _COPIES * request["expected_bytes"]
                if values.nbytes > most or values.dtype.kind not in "iufb" or values.size == 0:
                    raise ValueError(f"its compressed pixels are {values.shape} of {values.dtype}")
                values = np.ascontiguousarray(values)
            told = {"shape": values.shape, "dtype": values.dtype.str, "pixel_type": pixel_type}
        except MemoryError:
            values, told = None, {"error": "its compressed pixels need more memory than an image of its size has"}
        except Exception as error:
            text = guard.first_sentence(str(error)) or type(error).__name__
            if "bad_alloc" in text:
                text = "its compressed pixels need more memory than an image of its size has"
            values, told = None, {"error": text}
        answers.write(json.dumps(told).encode() + b"\n")
        if values is not None:
            answers.write(memoryview(values).cast("B"))
        answers.flush()


def _image(path: str, pixel_type: int | None) -> tuple[NDArray[Any], int]:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(path)
    if pixel_type is not None:
        reader.SetOutputPixelType(pixel_type)
    image = reader.Execute()
    return SimpleITK.GetArrayFromImage(image), int(image.GetPixelID())


def _frames(path: str, _: int | None) -> tuple[NDArray[Any], int]:
    import pydicom

    with guard.BoundedFile(Path(path)) as file:
        return pydicom.pixels.pixel_array(pydicom.dcmread(file, force=True)), 0


_TASKS = {"image": _image, "frames": _frames}


@contextmanager
def _limits(expected_bytes: int) -> Iterator[None]:
    """The process dies after too much processor time, and has MemoryError for too large an allocation.

    Where the system has no such limits (Windows; macOS for memory), the other side's guard of time remains.
    """
    try:
        import resource
        import signal
    except ImportError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + SPARE_BYTES + _COPIES * expected_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most if before[1] < 0 else min(most, before[1]), before[1]))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds(expected_bytes))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    # Loading them takes longer, and more memory, than one file may.
    for library in ("SimpleITK", "pydicom"):
        try:
            __import__(library)
        except ImportError:
            continue
    serve()
