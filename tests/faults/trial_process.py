"""Reads damaged files, one after the other, in a process that may die of it; started by ``trials.py``.

Every case has two seconds of processor time and 256 MB of memory beyond what reading the sound file takes. A line of
JSON on the standard output says which case begins and how it ended.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Allocators that reserve address space in advance would use up the limit.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"

from tests.faults.sound_files import FORMATS, Format, case_of, written
from unibiomed_core.errors import UniBiomedError

CPU_SECONDS = 2.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
MORE_BYTES = 256 << 20


def main(formats: Mapping[str, Format] = FORMATS) -> None:
    """Serve requests ``{"format": ..., "first": ..., "count": ...}``, one a line, until the input ends."""
    lines, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for request in sys.stdin:
        asked = json.loads(request)
        for answer in run(formats[asked["format"]], asked["format"], asked["first"], asked["count"]):
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


def run(form: Format, name: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sounds = form.make()
        for sound in sounds:
            for _ in range(2):  # what is loaded at the first use belongs to no case
                form.read(written(sound.files, sound.target, folder / "sound", sound.folder))
        gc.collect()
        for case in range(first, first + count):
            sound, mutator, files = case_of(sounds, name, case)
            path = written(files, sound.target, folder / str(case), sound.folder)
            yield {"case": case, "mutator": mutator}
            yield {"case": case, **outcome(form, path)}
            shutil.rmtree(folder / str(case), ignore_errors=True)
        yield {"done": True}


def outcome(form: Format, path: Path) -> dict[str, Any]:
    """How reading ``path`` ends: "read", "refused" (our error), or what must not happen, with where it came from."""
    seconds, before = _seconds(), _reset_peak()
    found: dict[str, Any] = {"outcome": "read"}
    try:
        with limits():
            form.read(path)
    except UniBiomedError as error:
        found = {"outcome": "memory" if _out_of_memory(error) else "refused", "why": str(error)[:300]}
    except AssertionError as error:
        found = {"outcome": "wrong result", "why": _where(error)}
    except MemoryError as error:
        found = {"outcome": "memory", "why": _where(error)}
    except Exception as error:
        found = {"outcome": "stray error", "why": _where(error)}
    return {**found, "seconds": round(_seconds() - seconds, 4), "bytes": max(0, _peak() - before)}


@contextmanager
def limits() -> Iterator[None]:
    """The process dies of SIGPROF after too much processor time, and has MemoryError for too large an allocation."""
    try:
        import resource
    except ImportError:  # Windows has neither; the cases are read all the same
        yield
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MORE_BYTES, unlimited[1]))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


def _out_of_memory(error: BaseException) -> bool:
    """Whether one of our errors hides that an allocation failed."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        # "allocate" alone would be met in the "BitsAllocated" of many a message about DICOM.
        told = any(words in text for words in ("bad_alloc", "not allocate", "to allocate", "out of memory"))
        if told or isinstance(seen, MemoryError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/tests/" not in f.filename.replace(os.sep, "/")] or list(frames)
    near = next((f for f in reversed(own) if "unibiomed" in f.filename or "train" in f.filename), own[-1])
    return f"{type(error).__name__}: {str(error)[:160]} ({Path(near.filename).name}:{near.lineno})"


def _children() -> list[int]:
    """Processes that this one has started, as the one that decodes pixels; they count too."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _seconds() -> float:
    """Processor time of this process and its children, living and ended."""
    ticks = 0.0
    for pid in _children():
        try:
            after = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(after[11]) + int(after[12])
        except (OSError, IndexError):  # it has just ended
            continue
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + ticks / _TICKS_PER_SECOND


def _status(key: str, pid: int | str = "self") -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _reset_peak() -> int:
    """Memory in use now, from which the peak is counted."""
    for pid in ("self", *_children()):
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            continue
    return _peak()


def _peak() -> int:
    return sum(_status("VmHWM", pid) for pid in ("self", *_children()))


if __name__ == "__main__":
    main()
