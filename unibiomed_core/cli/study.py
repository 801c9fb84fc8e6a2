"""What the commands that look at an image share: open it, load the model, answer, write, and stop when asked to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unibiomed_core.cli import terminal
from unibiomed_core.errors import ConfigError
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.report.text import COUNTING, answer_text, checked_slice, unknown_text
from unibiomed_core.types import NOTICE, PLANES, Plane, Prediction, Prompt, Report, Volume
from unibiomed_core.updates import CancelToken, Done, Progress, SliceDone, Update

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine
    from unibiomed_core.modalities import Window


@dataclass(frozen=True, slots=True)
class Study:
    """An image that was read, and how its slices are taken."""

    volume: Volume
    window: Window
    plane: Plane

    def with_modality(self, engine: Engine) -> Study:
        """The same with the modality that the model sees, where nobody told it.

        Raises:
            ReadError: The model cannot tell it either; the likely ones are offered.
        """
        from unibiomed_core.modalities import choose_window

        if self.volume.modality:
            return self
        volume = engine.with_modality(self.volume)
        label, share = MODALITIES[volume.modality].label, volume.modality_shares[0][1]
        terminal.note(f"The model sees {label} ({share:.2f}); where that is wrong, name another with --modality.")
        return replace(self, volume=volume, window=choose_window(volume))

    def index(self, number: int | None) -> int:
        """The canonical index of a slice number that was asked for; the middle slice for None.

        Raises:
            PromptError: There is no such slice.
        """
        middle = self.volume.slice_count(self.plane) // 2
        return middle if number is None else checked_slice(self.volume, self.plane, number)


Offline = Annotated[bool, typer.Option("--offline", help="Open no network connection at all.")]


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """The arguments and options that these commands have in common, as the command line offers them.

    Args:
        plane: Empty for the plane of the acquisition.
    """

    path: Annotated[Path, typer.Argument(metavar="PATH", help="Image file, or a folder of one DICOM series.")]
    out_dir: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")]
    model: Annotated[str, typer.Option(help="Preset name, folder with weights, or hub id that was downloaded.")] = (
        "mini"
    )
    modality: Annotated[str, typer.Option(help="Where the file does not tell: ct, mri, pet, xray, ...")] = ""
    plane: Annotated[str, typer.Option(metavar="|".join(PLANES), help="Plane of the slices; else as acquired.")] = ""
    window: Annotated[
        str, typer.Option(metavar="PRESET", help="CT window, e.g. 'lung'; the default is soft tissue.")
    ] = ""
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")] = "auto"
    dtype: Annotated[str, typer.Option(metavar="auto|float32|bfloat16|float16|int8", help="Precision.")] = "auto"
    offline: Offline = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are in the folder.")] = False

    def open(self, names: Callable[[Volume], Sequence[str]] | None = None) -> Study:
        """Read the image, check all that can be wrong without a model, and claim the folder until the command ends.

        Args:
            names: The files that will be written; None for those of an answer.

        Raises:
            ReadError: The image cannot be read.
            ConfigError: Modality, plane or window are unknown or do not fit the image.
            WriteError: Results are there already, the output folder cannot be written, or somebody writes into it now.
        """
        from unibiomed_core.io import read
        from unibiomed_core.io.export import check_free, claimed
        from unibiomed_core.io.export.answer import answer_names
        from unibiomed_core.modalities import choose_window

        if self.plane not in ("", *PLANES):
            raise ConfigError("Unknown plane", f"'{self.plane}'", f"one of {', '.join(PLANES)}")
        volume = read(self.path, self.modality, undecided=True)
        if volume.is_2d and self.plane not in ("", "axial"):
            raise ConfigError(
                "Plane of a picture", f"'{self.plane}' was given for a 2D picture", "a volume",
                command="Leave --plane out.",
            )  # fmt: skip
        # What the model is to tell comes after it was loaded; a picture of 8 bits has the same window then.
        window = choose_window(volume if volume.modality else replace(volume, modality="xray"), self.window)
        taken = answer_names(self.out_dir) if names is None else names(volume)
        terminal.hold(claimed(self.out_dir))
        check_free(self.out_dir, taken, overwrite=self.overwrite)
        _check_writable(self.out_dir)
        # "axial" is the one plane of a picture.
        return Study(volume, window, next((p for p in PLANES if p == self.plane), volume.default_plane))

    def engine(self) -> Engine:
        """The model, loaded.

        Raises:
            WeightsError: It is not here, or damaged.
            DeviceError: Device or precision are not available.
        """
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        with terminal.status(f"Loading model '{self.model}'"):
            from unibiomed_core.engine.engine import Engine

            engine = Engine.load(self.model, device=self.device, dtype=self.dtype, offline=self.offline)
        needed, free = engine.memory_needed_bytes / 2**20, engine.placement.free_bytes / 2**20
        if needed > free:
            terminal.note(
                f"This may need about {needed:,.0f} MiB on {engine.info.device}, and {free:,.0f} MiB are free. "
                "If memory runs out, the run goes on with fewer slices at once, or stops with a message."
            )
        return engine


def _check_writable(out_dir: Path) -> None:
    """Refuse a folder that cannot be written before minutes of work, not after; leaves nothing behind.

    Raises:
        WriteError: As ``export.staged``.
    """
    from unibiomed_core.io.export import staged

    with staged(next(folder for folder in (out_dir, *out_dir.absolute().parents) if folder.exists()), ()):
        pass


def wording(engine: Engine, task: str) -> str:
    """The instruction of a task as the model has it, for questions that are sent verbatim."""
    from unibiomed_core.tasks import TASKS

    return engine.config.wording.get(task, TASKS[task].instruction)


def answer_slice(
    job: StudyOptions,
    study: Study,
    index: int,
    prompts: Callable[[Engine, Study], Sequence[Prompt]],
    settings: Mapping[str, Any],
    *,
    chosen: bool,
) -> bool:
    """Answer on one slice, write the answer and show it; False where some targets are unknown to the model.

    Args:
        prompts: Made once the model is known.
        chosen: The user named the slice; else it is the middle one.
    """
    from unibiomed_core.engine.prompts import without_unknown
    from unibiomed_core.io.export.answer import of_slice, write_answer

    engine = job.engine()
    began = time.perf_counter()
    study = study.with_modality(engine)
    known, unknown = without_unknown(prompts(engine, study), study.volume.modality, engine.config)
    (predictions,) = engine.predict([study.volume.slice(index, study.plane)], known, study.window)
    answer = of_slice(predictions, study.volume)
    place = None
    if not study.volume.is_2d:
        total = study.volume.slice_count(study.plane)
        place = {"plane": study.plane, "number": index, "total": total, "counting": COUNTING, "middle": not chosen}
        how = "" if chosen else ", the middle one; --slice chooses another"
        terminal.note(f"{study.plane.capitalize()} slice {index}{how} (0 to {total - 1}, counted {COUNTING}).")
    warnings = [note.text for note in study.volume.notes]
    if unknown:
        warnings.append(unknown_text(unknown))
    if answer.truncated:
        warnings.append("The answer was cut at the length limit; --max-new-tokens allows a longer one.")
    about = {
        "slice": place,
        "model": engine.info.provenance(),
        "seconds": time.perf_counter() - began,
        "cancelled": False,
        "unknown_targets": [asdict(one) for one in unknown],
        "settings": _settings(study, settings),
        "warnings": warnings,
    }
    files = write_answer(answer, study.volume, study.plane, job.out_dir, about, overwrite=job.overwrite)
    show(answer_text(answer.text, answer.likelihood, answer.caution), files, warnings)
    return not unknown


def answer_volume(
    job: StudyOptions, study: Study, prompts: Sequence[Prompt], settings: Mapping[str, Any]
) -> tuple[CancelToken, bool]:
    """Answer on all slices that show something, write one answer for all of them and show it.

    Returns:
        The token that Ctrl-C sets, and whether the model knows all targets.
    """
    from unibiomed_core.engine.volume.request import RunRequest
    from unibiomed_core.io.export.answer import of_slices, write_answer

    engine = job.engine()
    study = study.with_modality(engine)
    request = RunRequest(tuple(prompts), plane=study.plane, window=study.window, describe=False, check=False)
    with stoppable() as cancel:
        stream = engine.run(study.volume, request, cancel=cancel)
        report, predictions = follow(stream)
        answer = of_slices(predictions, study.volume, study.plane)
        # These masks are what the model gave, with their small pieces and without sides: that is said of findings only.
        warnings = [note.text for note in report.warnings if note.code not in ("specks_dropped", "midline_uncertain")]
        about = {
            "slices": {
                "plane": study.plane,
                "done": list(report.slices_done),
                "skipped": list(report.slices_skipped),
                "total": report.slices_total,
                "counting": COUNTING,
            },
            "model": dict(report.model),
            "seconds": report.seconds,
            "cancelled": not report.complete,
            "unknown_targets": report.settings.get("unknown_targets", []),
            "settings": _settings(study, settings),
            "warnings": warnings,
        }
        files = write_answer(answer, study.volume, study.plane, job.out_dir, about, overwrite=job.overwrite)
    show(answer.text, files, warnings)
    return cancel, "unknown_targets" not in report.settings


def _settings(study: Study, settings: Mapping[str, Any]) -> dict[str, Any]:
    window = study.window
    shown = None if study.volume.is_rgb else {"name": window.name, "low": window.low, "high": window.high}
    return {**settings, "plane": study.plane, "window": shown}


def follow(stream: Iterator[Update]) -> tuple[Report, list[Prediction]]:
    """Run a stream to its end and show its progress; gives the report and all predictions."""
    predictions: list[Prediction] = []
    with terminal.steps("slices") as step:
        for update in stream:
            match update:
                case Progress(done, total, seconds_left):
                    step(done, total, seconds_left)
                case SliceDone(predictions=given):
                    predictions.extend(given)
                case Done(report):
                    return report, predictions
    raise RuntimeError("the stream ended without a report")


@contextmanager
def stoppable() -> Iterator[CancelToken]:
    """A token that the first Ctrl-C sets; the second one ends the program at once."""
    token = CancelToken()

    def stop(signum: int, frame: FrameType | None) -> None:
        token.cancel()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Not through Python's streams, which the signal may have met in the middle of a write.
        os.write(2, b"\nStopping after this slice; Ctrl-C again quits at once.\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield token
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


def show(text: str, files: Sequence[Path], warnings: Iterable[str] = ()) -> None:
    """The result for people: words, warnings, where the files are, and the notice."""
    if text:
        terminal.say(text)
    for warning in warnings:
        terminal.note(f"Note: {warning}")
    terminal.say(f"Written to {files[0].parent}: {', '.join(file.name for file in files)}")
    if NOTICE not in text:
        terminal.say(NOTICE)
