"""The answer to a question: ``answer.json`` and one mask file for each phrase that has one.

A mask is a PNG of 0 and 255 at the picture's size, or a NIfTI on the volume's own grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.files import staged
from unibiomed_core.io.export.json_file import dump
from unibiomed_core.io.export.nifti import write_labels
from unibiomed_core.io.export.png import write_mask
from unibiomed_core.modalities import with_labels
from unibiomed_core.report.text import number_text, slices_text
from unibiomed_core.types import NOTICE, Caution, CroppedMask, Plane, Prediction, Prompt, Volume

ANSWER_FILE = "answer.json"
SCHEMA, VERSION = "unibiomed.answer", 1

SlicedMask = tuple[int, CroppedMask]
"""A canonical slice index and the 2D mask on that slice."""


@dataclass(slots=True)
class Answer:
    """What predictions say together.

    Args:
        text: Clean text for people.
        raw_text: As generated, special tokens kept; several answers stand on lines of their own.
        phrases: Plain values for the JSON; ``text[start:end]`` of the answer's text.
        masks: File name -> slices of the mask, in the order of the phrases.
        truncated: Canonical indices of slices on which the length limit cut an answer.
        likelihood: As in ``Prediction``, of an answer to one question.
        caution: As in ``Prediction``.
    """

    text: str = ""
    raw_text: str = ""
    phrases: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[str, list[SlicedMask]] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    likelihood: float | None = None
    caution: Caution | None = None

    def add(self, text: str, start: int, end: int, score: float, mask: list[SlicedMask] | None, suffix: str) -> None:
        """A further phrase; its mask's file is numbered and named after it."""
        name = None
        if mask is not None:
            words = re.sub(r"[^a-z0-9]+", "_", text.lower())[:40].strip("_")
            name = "_".join(part for part in (f"mask_{len(self.masks) + 1:02d}", words) if part) + suffix
            self.masks[name] = mask
        self.phrases.append({"text": text, "start": start, "end": end, "mask": name, "score": score})


def of_slice(predictions: Sequence[Prediction], volume: Volume) -> Answer:
    """The answers on one slice, one after the other; each phrase keeps its own mask."""
    answer = Answer(raw_text="\n".join(p.raw_text for p in predictions))
    for prediction in predictions:
        shift = len(answer.text) + 1 if answer.text else 0
        said = with_labels(prediction.text)
        answer.text = f"{answer.text} {said}" if answer.text else said
        for phrase in prediction.phrases:
            mask = None if phrase.mask is None else [(prediction.index, phrase.mask)]
            start, end = phrase.start + shift, phrase.end + shift
            answer.add(phrase.text, start, end, phrase.score, mask, mask_suffix(volume))
        if prediction.truncated:
            answer.truncated.append(prediction.index)
    if len(predictions) == 1:
        answer.likelihood, answer.caution = predictions[0].likelihood, predictions[0].caution
    return answer


def of_slices(predictions: Sequence[Prediction], volume: Volume, plane: Plane) -> Answer:
    """The answers on many slices, summed up to one phrase a prompt, with the union of its masks.

    Equal raw texts of one prompt are given once. The volume in mL is the number of voxels times their size; a phrase's
    score is its highest over the slices.
    """
    answer = Answer()
    raw_texts: list[str] = []
    answer.truncated = sorted({p.index for p in predictions if p.truncated})
    by_prompt: dict[Prompt, list[Prediction]] = {}
    for prediction in predictions:
        by_prompt.setdefault(prediction.prompt, []).append(prediction)
    for number, (prompt, given) in enumerate(by_prompt.items(), start=1):
        named = (phrase.target for p in given for phrase in p.phrases if prompt.target and phrase.target)
        name = next(named, prompt.target or f"prompt {number}")
        score = max((phrase.score for p in given for phrase in p.phrases), default=0.0)
        masks = [(p.index, mask) for p in given for mask in p.masks]
        raw_texts.extend(dict.fromkeys(p.raw_text for p in given))
        start = len(answer.text) + 1 if answer.text else 0
        sentence = name + _where(masks, len(given), score, volume, plane)
        answer.text = f"{answer.text} {sentence}" if answer.text else sentence
        answer.add(name, start, start + len(name), score, masks or None, mask_suffix(volume))
    answer.raw_text = "\n".join(raw_texts)
    return answer


def _where(masks: list[SlicedMask], searched: int, score: float, volume: Volume, plane: Plane) -> str:
    if not masks:
        return f": not found on {searched} slice{'s'[: searched != 1]} (presence {score:.2f})."
    size = ""
    if volume.spatial_unit == "mm":
        voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
        size = f", {number_text(int(_stack(masks, volume, plane).sum()) * voxel_ml)} mL"
    return f": {slices_text(plane, sorted({i for i, _ in masks}))}{size} (presence {score:.2f})."


def mask_suffix(volume: Volume) -> str:
    return ".png" if volume.is_2d else ".nii.gz"


def answer_names(out_dir: Path) -> list[str]:
    """What an answer would replace or mix with in a folder: its JSON, and the masks of an earlier answer."""
    earlier = sorted(path.name for path in out_dir.glob("mask_*")) if out_dir.is_dir() else []
    return [ANSWER_FILE, *earlier]


def write_answer(
    answer: Answer,
    volume: Volume,
    plane: Plane,
    out_dir: Path | str,
    about: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write an answer and its masks into a folder, all of them or none.

    Args:
        about: Further plain values for the JSON: model, seconds, slices, settings, warnings.
        overwrite: Replace files of the same names; others in the folder are never touched.

    Returns:
        The files written, ``answer.json`` first.

    Raises:
        WriteError: A file of these names exists, or the folder cannot be written.
    """
    data = {
        "schema": SCHEMA,
        "version": VERSION,
        "notice": NOTICE,
        "text": answer.text,
        "raw_text": answer.raw_text,
        "phrases": answer.phrases,
        "masks": list(answer.masks),
        "truncated": bool(answer.truncated),
        "likelihood_0_to_1": answer.likelihood,
        "caution": None if answer.caution is None else asdict(answer.caution),
        "modality": volume.modality,
        "image": {
            "name": volume.name,
            "source": volume.source,
            "stored_shape": list(volume.stored.shape),
            "is_2d": volume.is_2d,
            f"spacing_{volume.spatial_unit}_zyx": list(volume.spacing_mm),
        },
        **about,
    }
    names = [ANSWER_FILE, *answer.masks]
    save: Callable[[list[SlicedMask], Path], None] = (
        (lambda mask, path: write_mask(_stack(mask, volume, plane)[0], path))
        if volume.is_2d
        else (lambda mask, path: write_labels(_stack(mask, volume, plane), volume, path))
    )
    with staged(out_dir, names, overwrite=overwrite) as folder:
        dump(data, folder / ANSWER_FILE)
        for name, mask in answer.masks.items():
            save(mask, folder / name)
    return [Path(out_dir) / name for name in names]


def _stack(mask: list[SlicedMask], volume: Volume, plane: Plane) -> NDArray[np.bool_]:
    """(Z, Y, X) boolean array with the slices of a mask put in place."""
    whole = np.zeros(volume.shape, bool)
    slices = np.moveaxis(whole, volume.plane_axis(plane), 0)
    for index, piece in mask:
        slices[index][piece.box] |= piece.crop
    return whole
