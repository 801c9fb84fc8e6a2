"""Records of drawn discs in two data sets, one of them a volume, and systems that answer about them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data import records as record_files
from train.data.records import QuestionRecord, Record, region_record, resize_picture
from train.evaluation.prediction_files import ANSWER_FILE, MASK_FILE, mask_row
from unibiomed_core.tasks import NO_FINDINGS, SEG
from unibiomed_core.types import CroppedMask, Phrase, Prediction, Prompt

SIDE = 48


def disc(row: int, column: int, radius: int = 8) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def picture(mask: NDArray[np.bool_], seed: int = 0) -> bytes:
    grey = np.random.default_rng(seed).integers(10, 60, (SIDE, SIDE), np.uint8)
    grey[mask] = 200
    return resize_picture(np.repeat(grey[..., None], 3, axis=2), 0)


def polyp(number: int, split: str, shown: bool = True) -> Record:
    """A picture of its own patient; without a polyp it says that there is none."""
    mask = disc(16 + number, 24) if shown else np.zeros((SIDE, SIDE), bool)
    return Record(
        f"polyps/p{number}", "polyps", split, f"patient{number}", "endoscopy", "", picture(mask, number), (SIDE, SIDE),
        regions=(region_record("polyp", mask),) if shown else (), absent=() if shown else ("polyp",),
        findings_known=True, questions=(QuestionRecord("Is there a polyp?", "Yes" if shown else "No", True),),
    )  # fmt: skip


def liver(number: int, split: str, group: str = "scan", shown: bool = True) -> Record:
    """A slice of twice the size and 0.5 mm, so that a record's pixel is 1 mm."""
    mask = disc(24, 20, 10) if shown else np.zeros((SIDE, SIDE), bool)
    return Record(
        f"livers/{group}/{number}", "livers", split, group, "ct", "", picture(mask, number), (2 * SIDE, 2 * SIDE),
        (0.5, 0.5), f"livers/{group}", number,
        regions=(region_record("liver", mask),) if shown else (), absent=() if shown else ("liver",),
    )  # fmt: skip


def write_records(folder: Path) -> Path:
    """A folder with ``train.parquet`` and ``test.parquet``."""
    train = [*(polyp(n, "train", n % 3 != 0) for n in range(6)), *(liver(n, "train", "old", n < 4) for n in range(5))]
    test = [*(polyp(n, "test", n != 2) for n in range(4)), *(liver(n, "test", shown=n > 0) for n in range(3))]
    record_files.save(train, folder / "train.parquet")
    record_files.save(test, folder / "test.parquet")
    return folder


class Oracle:
    """Stands in for an engine: knows the mask of each picture, moves it, and says set sentences.

    Args:
        records: What it may be asked about.
        moved: Columns that its masks lie to the right of the truth.
        says: Task -> raw answer.
    """

    def __init__(self, records: Any, moved: int = 0, says: dict[str, str] | None = None) -> None:
        self.info = SimpleNamespace(targets={})
        self.calls = 0
        self.says = says or {}
        self._moved = moved
        self._known = {r.pixels().tobytes(): r for r in records}

    def free(self) -> None:
        pass

    def predict(self, slices: Any, prompts: Any, window: Any) -> list[tuple[Prediction, ...]]:
        self.calls += 1
        return [tuple(self._answer(piece, prompt) for prompt in prompts) for piece in slices]

    def _answer(self, piece: Any, prompt: Prompt) -> Prediction:
        record = self._known.get(piece.pixels.tobytes())
        masks = record.masks() if record else {}
        raw = self.says.get(prompt.task, f"It is {SEG}. {NO_FINDINGS}.")
        phrases: tuple[Phrase, ...] = ()
        if prompt.task == "segment":
            mask = np.roll(masks.get(prompt.target, np.zeros((SIDE, SIDE), bool)), self._moved, axis=1)
            cropped = CroppedMask.from_full(mask) if mask.any() else None
            phrases = (Phrase(prompt.target, 0, 1, 0.9 if mask.any() else 0.1, cropped, prompt.target),)
        return Prediction(prompt, "axial", 0, raw, raw, phrases)


def write_masks(folder: Path, records: Any, moved: int = 0) -> Path:
    """Prediction files as another system that only segments would write them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / MASK_FILE).open("w", encoding="utf-8") as file:
        for record in records:
            masks = record.masks()
            for target in (*masks, *record.absent):
                mask = np.roll(masks.get(target, np.zeros((SIDE, SIDE), bool)), moved, axis=1)
                file.write(json.dumps(mask_row(record, target, mask, float(mask.any()))) + "\n")
    return folder


def write_answers(folder: Path, rows: list[dict[str, Any]]) -> None:
    about = {"dataset": "d", "modality": "ct", "group": "g"}
    with (folder / ANSWER_FILE).open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(json.dumps({**about, "id": f"d/{number}", "group": f"g{number}", **row}) + "\n")
