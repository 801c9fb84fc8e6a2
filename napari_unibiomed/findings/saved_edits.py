"""What a user did with the findings of a run, kept beside it on the disk: JSON and packed masks, no pickle."""

from __future__ import annotations

import json
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_unibiomed.autosave.run_files import write_name
from napari_unibiomed.findings.edits import measured_again, redraw
from napari_unibiomed.findings.rows import FindingRow, named, row_of
from napari_unibiomed.findings.streaming import collect
from napari_unibiomed.jobs import Run
from unibiomed_core.errors import ReadError
from unibiomed_core.files import parse_json, replaced_file
from unibiomed_core.types import CroppedMask, Finding, Volume

VERSION = 1
EDITS_FILE = "edits.npz"


@dataclass(frozen=True, slots=True, eq=False)
class KeptEdit:
    """How one row differs from what the model gave.

    Args:
        finding: Measured on the mask that the user painted; None where nobody painted.
        was: Name and voxel count before any edit, by which the row is known again.
    """

    phrase: str
    rejected: bool
    edited: bool
    finding: Finding | None
    was: tuple[str, int | None]


Edits = Mapping[int, KeptEdit]
"""By the number of the row."""


def edits_of(run: Run, rows: Iterable[FindingRow]) -> Edits:
    """The edits of those rows that have any."""
    found = {} if run.report is None else {finding.number: finding for finding in run.report.findings}
    changed = [row for row in rows if row.rejected or row.edited]
    return {row.number: _edit(row, found.get(row.number)) for row in changed}


def apply(edits: Edits, rows: dict[int, FindingRow], volume: Volume) -> None:
    """Bring rows that were just collected, in place, to where the user had them; others stay."""
    for number, edit in edits.items():
        if number in rows:
            row = rows[number]
            drawn = row if edit.finding is None else redraw(row, row_of(edit.finding, volume)).after
            rows[number] = replace(named(drawn, edit.phrase), rejected=edit.rejected, edited=edit.edited)


def write(folder: Path, edits: Edits) -> None:
    """Keep the edits of a run in place of earlier ones; none at all leave no file.

    Raises:
        OSError: The folder cannot be written.
    """
    file = folder / EDITS_FILE
    if not edits:
        file.unlink(missing_ok=True)
        return
    arrays: dict[str, Any] = {}
    stated = []
    for number, edit in edits.items():
        about: dict[str, Any] = {"number": number, "phrase": edit.phrase, "was": edit.was}
        about |= {"rejected": edit.rejected, "edited": edit.edited}
        if edit.finding is not None:
            mask = edit.finding.mask
            arrays[f"mask_{number}"] = np.packbits(mask.crop)
            about["mask"] = {"offset": mask.offset, "box": mask.crop.shape}
        stated.append(about)
    text = np.frombuffer(json.dumps({"version": VERSION, "rows": stated}).encode(), np.uint8)
    with replaced_file(file) as aside, aside.open("wb") as out:
        np.savez_compressed(out, edits=text, **arrays)


def read(folder: Path, run: Run) -> Edits:
    """The edits of a run that was restored, painted masks measured; empty where there are none.

    Raises:
        ReadError: They are damaged, or belong to other findings.
    """
    file = folder / EDITS_FILE
    if not file.is_file():
        return {}
    try:
        rows = collect(run).rows
        with np.load(file) as arrays:
            about = parse_json(arrays["edits"].tobytes(), EDITS_FILE, title="Saved edits cannot be read")
            if about["version"] != VERSION:
                raise ValueError(f"version {about['version']}")
            return {int(a["number"]): _read_edit(a, arrays, rows[a["number"]], run.volume) for a in about["rows"]}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as cause:
        raise ReadError("Saved edits cannot be read", f"{EDITS_FILE}: {cause}", "edits of this run") from cause


class EditsWriter:
    """Writes edits in a thread of its own, since the model thread may be at work for long.

    Of each folder the newest edits wait at most, however fast they come.
    """

    def __init__(self) -> None:
        self._waiting: dict[Path, Edits] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unibiomed-edits")

    def put(self, folder: Path, edits: Edits, on_trouble: Callable[[OSError], None]) -> None:
        """Have edits written soon.

        Args:
            on_trouble: Told, in the writing thread, what is wrong. Not held longer than that.
        """
        with self._lock:
            under_way = folder in self._waiting
            self._waiting[folder] = edits
        if not under_way:
            self._thread.submit(self._write, folder, on_trouble)

    def put_name(self, folder: Path, name: str, image: str, on_trouble: Callable[[OSError], None]) -> None:
        """Have the name of a run written soon.

        Args:
            image: Name of its image, which is left out.
            on_trouble: As for :meth:`put`.
        """
        self._thread.submit(self._guarded, folder, partial(write_name, folder, name, image), on_trouble)

    def end(self) -> None:
        """Let the thread end after what waits; does not wait for it."""
        self._thread.shutdown(wait=False)

    def _write(self, folder: Path, on_trouble: Callable[[OSError], None]) -> None:
        with self._lock:
            edits = self._waiting.pop(folder)
        self._guarded(folder, partial(write, folder, edits), on_trouble)

    def _guarded(self, folder: Path, write: Callable[[], None], on_trouble: Callable[[OSError], None]) -> None:
        try:
            write()
        except OSError as error:
            if folder.is_dir():  # else the run was deleted meanwhile, and its edits with it
                on_trouble(error)


def _edit(row: FindingRow, original: Finding | None) -> KeptEdit:
    painted = row.finding if row.finding is not original else None
    return KeptEdit(row.phrase, row.rejected, row.edited, painted, _name(row, original))


def _name(row: FindingRow, original: Finding | None) -> tuple[str, int | None]:
    if original is not None:
        return original.phrase, original.measurements.voxel_count
    return ("" if row.answer is None else row.answer.text), None


def _read_edit(about: Mapping[str, Any], arrays: Mapping[str, Any], row: FindingRow, volume: Volume) -> KeptEdit:
    was = (about["was"][0], about["was"][1])
    if was != _name(row, row.finding):
        raise ValueError(f"row {row.number} is another finding")
    painted = None
    if "mask" in about:
        if row.finding is None:
            raise ValueError(f"row {row.number} has no mask")
        painted = measured_again(row.finding, _mask(about["mask"], arrays[f"mask_{row.number}"], volume), volume)
    return KeptEdit(str(about["phrase"]), about["rejected"] is True, about["edited"] is True, painted, was)


def _mask(about: Mapping[str, Any], packed: Any, volume: Volume) -> CroppedMask:
    offset, box = tuple(map(int, about["offset"])), tuple(map(int, about["box"]))
    inside = all(o >= 0 and 0 < n <= whole - o for o, n, whole in zip(offset, box, volume.shape, strict=True))
    count = int(np.prod(box))
    if not inside or packed.dtype != np.uint8 or packed.size != -(-count // 8):
        raise ValueError(f"a mask of {box} at {offset}")
    return CroppedMask(np.unpackbits(packed, count=count).reshape(box).astype(bool), offset, volume.shape)
