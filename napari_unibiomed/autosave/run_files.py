"""How a run lies on the disk: its job as JSON, one compressed file a slice, no pickle, no name of a file or patient."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_unibiomed.jobs import Job
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.request import from_json, prompt_from_json, to_json
from unibiomed_core.errors import ReadError
from unibiomed_core.files import parse_json, read_json, replaced_file
from unibiomed_core.types import Caution, CroppedMask, Phrase, Prediction, Prompt, Region, Report, Volume

VERSION = 1

JOB_VERSION = 2
"""Jobs of the first version are read, too."""

JOB_FILE, REPORT_FILE, NAME_FILE = "job.json", "report.json", "name.json"

Slices = dict[int, tuple[Prediction, ...]]


def write_job(folder: Path, job: Job, model: Mapping[str, Any], total: int) -> None:
    """Begin a folder; the volume itself is not stored."""
    about = {
        "version": JOB_VERSION,
        "kind": job.kind,
        "request": to_json(job.request),
        "within": None if job.within is None else asdict(job.within),
        "label": job.label,
        "model": dict(model),
        "slices_total": total,
    }
    _write(folder / JOB_FILE, lambda out: out.write(json.dumps(about).encode()))


def read_job(folder: Path, volume: Volume) -> tuple[Job, dict[str, Any], int]:
    """The job on a volume, the model's provenance, and the number of slices planned.

    Raises:
        ReadError: The folder holds no job, or one of another version.
    """
    about = read_json(folder / JOB_FILE, title="Saved run cannot be read", expected="a job")
    try:
        if about["version"] not in (1, JOB_VERSION):
            raise ValueError(f"version {about['version']}")
        job = Job(
            kind=about["kind"],
            volume=volume,
            request=from_json(about["request"] if about["version"] == JOB_VERSION else _first_request(about)),
            within=None if about["within"] is None else Region(**about["within"]),
            label=about["label"],
        )
        return job, about["model"], int(about["slices_total"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as cause:
        raise ReadError("Saved run cannot be read", f"{JOB_FILE}: {cause}", f"version {JOB_VERSION}") from cause


def _first_request(about: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a job in the first version of the file, which named targets without their prompts.

    Raises:
        KeyError: A part is missing.
    """
    names = ("plane", "indices", "every", "window", "describe")
    prompts = [asdict(Prompt("segment", ask)) if isinstance(ask, str) else ask for ask in about["asks"]]
    return {"prompts": prompts, **{name: about[name] for name in names}, **about.get("options", {})}


def write_slice(folder: Path, number: int, predictions: tuple[Prediction, ...]) -> None:
    """One slice; a reader sees the whole file or none.

    Args:
        number: Of the file, ascending; the predictions know their slice.
    """
    arrays: dict[str, Any] = {}
    stated = []
    for prediction in predictions:
        phrases = []
        for phrase in prediction.phrases:
            about: dict[str, Any] = {name: getattr(phrase, name) for name in _PHRASE}
            if phrase.mask is not None:
                about["mask"] = {
                    "array": f"mask_{len(arrays)}",
                    "offset": list(phrase.mask.offset),
                    "shape": list(phrase.mask.shape),
                }
                arrays[about["mask"]["array"]] = phrase.mask.crop
            phrases.append(about)
        given = {name: getattr(prediction, name) for name in (*_PREDICTION, "likelihood")}
        given["shares"] = [list(share) for share in prediction.shares]
        given["caution"] = None if prediction.caution is None else asdict(prediction.caution)
        stated.append({**given, "prompt": asdict(prediction.prompt), "phrases": phrases})
    text = np.frombuffer(json.dumps(stated).encode(), np.uint8)
    _write(folder / f"slice_{number:06d}.npz", lambda out: np.savez_compressed(out, predictions=text, **arrays))


def read_slices(folder: Path) -> tuple[Slices, int]:
    """All slices, in the order they were answered, and the number of files that could not be read."""
    found: Slices = {}
    damaged = 0
    for file in sorted(folder.glob("slice_*.npz")):
        try:
            predictions = _read_slice(file)
        except (ReadError, OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            damaged += 1
            continue
        if predictions:
            index = predictions[0].index
            found[index] = found.get(index, ()) + predictions
    return found, damaged


def write_report(folder: Path, report: Report) -> None:
    """The end of a run; name and source of the image are left out."""
    nameless = replace(report, image={**report.image, "name": "", "source": ""}, narrative="")
    _write(folder / REPORT_FILE, lambda out: out.write(json.dumps(reports.to_json(nameless)).encode()))


def read_report(folder: Path, volume: Volume) -> Report | None:
    """The report as it was, on a volume that bears its own name; None where the run did not end.

    Raises:
        ReadError: It is damaged.
    """
    file = folder / REPORT_FILE
    if not file.is_file():
        return None
    stated = read_json(file, title="Saved run cannot be read", expected="a report")
    try:
        report = reports.from_json(stated)
    except ValueError as cause:
        raise ReadError("Saved run cannot be read", f"{REPORT_FILE}: {cause}", "a report") from cause
    named = replace(report, image={**report.image, "name": volume.name, "source": volume.source})
    return replace(named, narrative=reports.narrative(named))


def write_name(folder: Path, name: str, image: str) -> None:
    """What the user called a run. The image's own name, often that of a file, is left out of it.

    Raises:
        OSError: It could not be written.
    """
    parts = name.split(image) if image else [name]
    _write(folder / NAME_FILE, lambda out: out.write(json.dumps({"version": VERSION, "between": parts}).encode()))


def read_name(folder: Path, image: str) -> str:
    """What the user called a run, with the name that its image has now; empty where there is none to be read."""
    try:
        about = read_json(folder / NAME_FILE, title="Saved name cannot be read", expected="a name")
        return image.join(map(str, about["between"]))
    except (ReadError, OSError, KeyError, TypeError):
        return ""


_PHRASE = ("text", "start", "end", "score", "target")
_PREDICTION = ("plane", "index", "text", "raw_text", "truncated", "seconds")


def _read_slice(file: Path) -> tuple[Prediction, ...]:
    with np.load(file) as arrays:
        stated = parse_json(arrays["predictions"].tobytes(), file.name)
        return tuple(
            Prediction(
                prompt=prompt_from_json(given["prompt"]),
                phrases=tuple(
                    Phrase(
                        **{name: phrase[name] for name in _PHRASE},
                        mask=None if "mask" not in phrase else _mask(arrays, phrase["mask"]),
                    )
                    for phrase in given["phrases"]
                ),
                **{name: given[name] for name in _PREDICTION},
                likelihood=given.get("likelihood"),  # slices of earlier versions have none of these
                caution=_caution(given.get("caution")),
                shares=tuple((name, share) for name, share in given.get("shares", ())),
            )
            for given in stated
        )


def _caution(about: Mapping[str, Any] | None) -> Caution | None:
    return None if about is None else Caution(about["code"], tuple(about["subjects"]))


def _mask(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> CroppedMask:
    return CroppedMask(arrays[about["array"]], tuple(about["offset"]), tuple(about["shape"]))


def _write(file: Path, write: Callable[[BinaryIO], object]) -> None:
    with replaced_file(file) as aside, aside.open("wb") as out:
        write(out)
