"""Runs are kept while they go on, and offered again when the same image is opened.

They lie in the cache folder under a hash of the image's content, not its name. Every finished slice is on the disk
before the next one begins, so that a killed process loses the slice in work at most.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unibiomed.autosave import run_files
from napari_unibiomed.jobs import Job, Run, RunAnswer, limited
from napari_unibiomed.settings import Settings
from unibiomed_core.engine.volume.finish import finish_answered
from unibiomed_core.errors import PromptError, ReadError
from unibiomed_core.types import Prediction, Report, Volume
from unibiomed_core.updates import Done, Progress, SliceDone, Update


@dataclass(frozen=True, slots=True)
class Saved:
    """A run on the disk.

    Args:
        name: As in a list of runs: what the user called it, else what was asked.
        done: Slices answered, of ``total`` planned.
        began: When it was begun, in seconds since 1970.
        size: Of its files, in bytes.
    """

    folder: Path
    name: str
    done: int
    total: int
    began: float = 0.0
    size: int = 0


class Keeping:
    """One run that is being kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written = len(list(folder.glob("slice_*.npz")))

    def keep(self, predictions: tuple[Prediction, ...]) -> None:
        """One slice.

        Raises:
            OSError: It could not be written.
        """
        run_files.write_slice(self.folder, self._written, predictions)
        self._written += 1

    def end(self, report: Report) -> None:
        """The run came to its end.

        Raises:
            OSError: It could not be written.
        """
        run_files.write_report(self.folder, report)


class Autosave:
    """The runs of one cache folder.

    Args:
        root: Made when the first run is kept.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashed: tuple[Volume, str] | None = None

    def begin(self, job: Job, model: Mapping[str, Any], total: int, folder: Path | None = None) -> Keeping:
        """Keep a run, beside earlier ones on the same image, until the user deletes it.

        Args:
            folder: Where a run that is taken up again lies already.

        Raises:
            OSError: The folder cannot be written.
        """
        if folder is not None and folder.is_dir():
            return Keeping(folder)
        image = self.root / self.key(job.volume)
        new = image / f"run_{time.time_ns():020d}"
        new.mkdir(mode=0o700, parents=True)
        run_files.write_job(new, job, model, total)
        return Keeping(new)

    def kept(self, volume: Volume) -> list[Saved]:
        """The runs that were kept of an image with this very content and have a finished slice, newest first."""
        found = []
        for folder in sorted((self.root / self.key(volume)).glob("run_*"), reverse=True):
            done = len(list(folder.glob("slice_*.npz")))
            try:
                job, _, total = run_files.read_job(folder, volume)
                size = sum(file.stat().st_size for file in folder.iterdir())
            except (ReadError, OSError):
                continue
            if done:
                name = run_files.read_name(folder, volume.name) or job.name
                found.append(Saved(folder, name, done, total, _began(folder), size))
        return found

    def restorable(self, volume: Volume) -> Saved | None:
        """The newest of :meth:`kept`; None where there is none."""
        return next(iter(self.kept(volume)), None)

    def restore(self, saved: Saved, volume: Volume, number: int) -> Run:
        """The run as it was. One that was interrupted is cancelled, with findings from its finished slices.

        Raises:
            ReadError: It cannot be read.
        """
        job, model, total = run_files.read_job(saved.folder, volume)
        predictions, damaged = run_files.read_slices(saved.folder)
        if not predictions:
            raise ReadError("Saved run cannot be read", f"{damaged} damaged slices", "at least one whole slice")
        run = Run(job, number, model=model, predictions=predictions, slices_total=total, folder=saved.folder)
        run.began = saved.began
        run.title = run_files.read_name(saved.folder, volume.name)
        run.renamed = bool(run.title)
        run.seconds = sum(p.seconds for given in predictions.values() for p in given)
        if job.kind in ("ask", "roi"):
            run.answers = [RunAnswer.of(p) for given in predictions.values() for p in given]
        report = run_files.read_report(saved.folder, volume)
        if report is None and job.kind != "roi":
            report = _interrupted(run)
        if report is not None:
            run.report = limited(report, job)
            run.findings = list(run.report.findings)
            run.seconds = report.seconds
        run.cancelled = run.places_done < total if report is None else not report.complete
        run.complete = not run.cancelled
        return run

    def discard(self, folder: Path) -> None:
        """Delete a kept run."""
        shutil.rmtree(folder, ignore_errors=True)

    def key(self, volume: Volume) -> str:
        """Hash of an image's content, grid and modality; the last one is remembered. Takes a second per gigabyte."""
        if self._hashed is None or self._hashed[0] is not volume:
            digest = hashlib.blake2b(digest_size=16)
            about = (volume.voxels.shape, volume.voxels.dtype.str, volume.modality, volume.intensity_unit)
            digest.update(repr((*about, volume.affine.tolist())).encode())
            for plane in volume.voxels:
                digest.update(np.ascontiguousarray(plane).data)
            self._hashed = volume, digest.hexdigest()
        return self._hashed[1]


def _interrupted(run: Run) -> Report:
    """The report of a run that has no end on the disk.

    Raises:
        ReadError: The request that was read cannot have been run on this image.
    """
    asked, answered = run.job.request, run.predictions
    try:
        return finish_answered(run.volume, asked, answered, ended="interrupted", model=run.model, seconds=run.seconds)
    except PromptError as cause:
        raise ReadError("Saved run cannot be read", cause.found, cause.expected) from cause


def _began(folder: Path) -> float:
    """When a run was begun, in seconds since 1970: its folder is named so, in nanoseconds."""
    digits = folder.name.partition("_")[2]
    return int(digits) / 1e9 if digits.isdecimal() else folder.stat().st_mtime


def autosave_of(settings: Settings) -> Autosave | None:
    """Where the preferences want runs to be kept; None where they do not."""
    if not settings.autosave:
        return None
    return Autosave(Path(settings.autosave_folder) if settings.autosave_folder else cache_folder())


def cache_folder() -> Path:
    """The user's cache folder for kept runs."""
    from platformdirs import user_cache_path

    return user_cache_path("unibiomed") / "runs"


class Keeper:
    """Keeps one run as its updates come in, in the model thread. A disk that is full stops the keeping, not the run.

    Args:
        autosave: None keeps nothing.
        folder: Where a run that is taken up again lies already.
        on_folder: Told where the run lies, once.
        on_trouble: Told what is wrong, once.
    """

    def __init__(
        self,
        autosave: Autosave | None,
        folder: Path | None,
        on_folder: Callable[[Path], None],
        on_trouble: Callable[[OSError], None],
    ) -> None:
        self._autosave, self._folder = autosave, folder
        self._on_folder, self._on_trouble = on_folder, on_trouble
        self._keeping: Keeping | None = None

    def take(self, update: Update, job: Job, model: Mapping[str, Any]) -> None:
        """Keep what an update brings; it is on the disk when this returns."""
        if self._autosave is None:
            return
        try:
            match update:
                case Progress(total=total) if self._keeping is None and total:
                    self._keeping = self._autosave.begin(job, model, total, self._folder)
                    self._on_folder(self._keeping.folder)
                case SliceDone(predictions=predictions) if self._keeping is not None:
                    self._keeping.keep(predictions)
                case Done(report) if self._keeping is not None and report.complete:
                    self._keeping.end(report)
        except OSError as error:
            self._autosave = None
            self._on_trouble(error)
