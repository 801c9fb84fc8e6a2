"""Tables that give a picture questions and answers, or a caption or report: one row of ``LAYOUTS`` a source.

All rows of a picture, over all tables, become one record. A picture that is asked about in both splits goes to the test
split with all of its questions, so that nothing that is tested was seen (VQA-RAD's own division shares pictures).
A report of a volume (CT-RATE) is attached to the middle axial slice, the key slice of this converter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unibiomed_core.errors import DataError
from unibiomed_core.io import FORMATS, guard, read
from unibiomed_core.modalities import choose_window, to_rgb

from ..data.records import QuestionRecord, Record
from . import tables
from .annotations import modality_name
from .names import Names
from .radgenome import ct_rate_volume
from .request import ConversionRequest, Summary
from .source_files import made_or_refused, split_words
from .volumes import frame_of, picture_record

_SHOWN = 6
"""Tables that an error describes."""


@dataclass(frozen=True)
class TextLayout:
    """The column names of one source.

    Args:
        image: Column with the picture's file name, or with its bytes (``{"bytes", "path"}``).
        question: Column of the question; empty where there are none. ``answer`` goes with it.
        kind: Column that says "closed" or "open"; where there is none, yes and no are closed answers.
        choices: Columns of the answers to choose from, which a letter as the answer stands for.
        captions: Columns whose texts make the caption, in this order.
        folders: Folders below the source where the pictures are.
        told: Other columns that must be there for a table to be this source's.
        language: Column of the language, where a row is taken if it is "en".
        modality_column: Column of the modality.
        modality: The modality of all pictures.
        split: Column with a word that begins with "test" in rows of the test split.
    """

    image: str
    question: str = ""
    answer: str = ""
    kind: str = ""
    choices: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("images",)
    told: tuple[str, ...] = ()
    language: str = ""
    modality_column: str = ""
    modality: str = ""
    split: str = ""

    def columns(self) -> set[str]:
        named = {self.image, self.question, self.answer, self.kind, self.language, self.modality_column, self.split}
        return (named | {*self.choices, *self.captions, *self.told}) - {""}


LAYOUTS: Mapping[str, TextLayout] = {
    "VQA-RAD": TextLayout("image_name", "question", "answer", kind="answer_type", split="phrase_type",
                      folders=("VQA_RAD Image Folder", "images")),
    "SLAKE": TextLayout("img_name", "question", "answer", kind="answer_type", language="q_lang",
                    modality_column="modality", folders=("imgs",)),
    "PMC-VQA": TextLayout("Figure_path", "Question", "Answer", choices=("Choice A", "Choice B", "Choice C", "Choice D"),
                      folders=("images", "images_2", "figures")),
    "CT-RATE": TextLayout(
        "VolumeName", captions=("Findings_EN", "Impressions_EN"), modality="ct", folders=("volumes",)
    ),
    "Path-VQA": TextLayout("image", "question", "answer"),
    "MedTrinity captions": TextLayout("file_name", captions=("caption",)),
    "captions": TextLayout("image", captions=("caption",)),
    "reports": TextLayout("image", captions=("report",)),
}  # fmt: skip
"""Source -> its columns; the first whose columns are all there is taken. "Path-VQA" fits any table of these columns."""


@dataclass
class _Picture:
    """What the tables say of one picture."""

    layout: TextLayout
    table: Path
    splits: set[str] = field(default_factory=set)
    modality: str = ""
    questions: list[QuestionRecord] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def layout_of(columns: tuple[str, ...]) -> TextLayout | None:
    """The first layout whose columns are all there."""
    return next((layout for layout in LAYOUTS.values() if layout.columns() <= set(columns)), None)


def fits(source: Path) -> bool:
    """Whether the first row of a table in the folder, or one level down, has the columns of a layout."""
    return any(layout_of(tables.columns(path)) for path in _tables(source))


def why_not(source: Path) -> str:
    """Tables that have none of the columns, for a message; empty where there is neither text table nor workbook."""
    told = [tables.told(path) for path in _tables(source) if path.suffix.lower() in {".csv", ".tsv"}]
    told += [f"{path.name}: a workbook; save its sheet as CSV" for path in sorted(source.glob("*")) if _workbook(path)]
    return "; ".join(told[:_SHOWN]) + " (wanted: image and caption, report, or question and answer)" if told else ""


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record a picture; see ``Converter``. The group is the picture, or the patient of a CT-RATE volume."""
    with TemporaryDirectory() as folder:
        finder = _Finder(job.source, Path(folder), summary)
        for name, about in _gather(job, finder, summary).items():
            item = f"{job.dataset}/{name}"
            yield from made_or_refused(summary, item, partial(_record, job, finder, name, about))


def _workbook(path: Path) -> bool:
    return path.suffix.lower() in {".xlsx", ".xls", ".ods"}


def _tables(source: Path) -> list[Path]:
    found = (*source.glob("*"), *source.glob("*/*"))
    return sorted(path for path in found if path.suffix.lower() in tables.SUFFIXES and path.is_file())


def _gather(job: ConversionRequest, finder: _Finder, summary: Summary) -> dict[str, _Picture]:
    """Picture -> what all tables say of it, in the order of the tables."""
    files = _tables(job.source)
    found = {path: tables.columns(path) for path in files}
    layouts = {path: layout for path, columns in found.items() if (layout := layout_of(columns))}
    if not layouts:
        has = "; ".join(tables.told(path) for path in files[:_SHOWN])
        wanted = " or ".join(sorted({", ".join(sorted(layout.columns())) for layout in LAYOUTS.values()}))
        raise DataError("Missing column", has[:400] or f"no table in {job.source.name}", wanted)
    for path in files:
        if path not in layouts and found[path]:
            summary.refuse(f"{job.dataset}/{path.name}", f"Not read, its columns are {', '.join(found[path])[:200]}")
    splits = split_words([path.relative_to(job.source).as_posix() for path in layouts])
    pictures: dict[str, _Picture] = {}
    for (path, layout), split in zip(layouts.items(), splits, strict=True):
        for number, row in enumerate(tables.rows(path, summary), 1):
            where = f"{job.dataset}/{path.name}/row {number}"
            if missing := layout.columns() - row.keys():
                raise DataError("Missing column", f"row {number} of {path.name}", ", ".join(sorted(missing)))
            if None in row or not row[layout.image]:
                summary.refuse(where, "More values than columns" if None in row else "No picture is named")
            elif not layout.language or row[layout.language] == "en":
                about = pictures.setdefault(finder.name(row[layout.image]), _Picture(layout, path))
                _take(about, layout, row, split, where, summary)
    return pictures


def _take(
    about: _Picture, layout: TextLayout, row: Mapping[str, Any], split: str, where: str, summary: Summary
) -> None:
    """Add one row to its picture."""
    if layout.split:
        split = "test" if str(row[layout.split]).startswith("test") else "train"
    about.splits.add(split)
    about.modality = about.modality or modality_name(str(row.get(layout.modality_column, ""))) or layout.modality
    if layout.question:
        question, answer = str(row[layout.question] or "").strip(), _answer(layout, row)
        if not question or not answer:
            summary.refuse(where, "A question without an answer" if question else "An answer without a question")
            return
        told = str(row[layout.kind] or "").strip().lower() if layout.kind else ""
        closed = told == "closed" if told else answer.lower() in {"yes", "no"}
        asked = QuestionRecord(question, answer, closed)
        if asked not in about.questions:
            about.questions.append(asked)
    caption = " ".join(text for c in layout.captions if (text := str(row[c] or "").strip()))
    if layout.captions and not caption:
        summary.refuse(where, "An empty caption or report")
    elif caption and caption not in about.captions:
        about.captions.append(caption)


def _answer(layout: TextLayout, row: Mapping[str, Any]) -> str:
    """The answer as text; a letter is the choice that it stands for, without its letter."""
    value = row[layout.answer]
    answer = "" if value is None else str(value).strip()
    letters = "ABCDEFGH"[: len(layout.choices)]
    if layout.choices and len(answer) == 1 and answer in letters:
        choice = str(row[layout.choices[letters.index(answer)]] or "").strip()
        return re.sub(rf"^{answer}\s*[:.)]\s*", "", choice)
    return answer


def _record(job: ConversionRequest, finder: _Finder, name: str, about: _Picture) -> Record:
    if not about.questions and not about.captions:
        raise DataError("Picture without text", name, "a question with its answer, a caption or a report")
    path = finder.path(name, about)
    modality = about.modality or job.modality
    volume = read(path, modality or "xray")
    finder.summary.note_reader(volume.notes, name)
    index = volume.shape[0] // 2
    rgb = to_rgb(volume.voxels[index], choose_window(volume))
    scan = ct_rate_volume(name) if about.layout.modality == "ct" else None
    group = scan[0] if scan else name
    split = "test" if "test" in about.splits else max(about.splits)
    spacing = volume.spacing_mm[1:] if volume.spatial_unit == "mm" else (0.0, 0.0)
    source = path.relative_to(job.source).as_posix() if path.is_relative_to(job.source) else about.table.name

    split = job.split(split, group)
    frame = frame_of(job, name, group=group, split=split, modality=modality, targets=None, source=source)
    return picture_record(
        frame, rgb, job.side,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        volume="" if volume.is_2d else frame.id,
        slice=-1 if volume.is_2d else index,
        questions=tuple(about.questions),
        caption=" ".join(about.captions),
    )  # fmt: skip


class _Finder:
    """Finds the pictures that tables name; pictures inside a table are laid out as files for the time being.

    Args:
        source: The source's folder.
        aside: An empty folder for pictures that are bytes in a table.
        summary: Gets notes on names that are spelt otherwise.
    """

    def __init__(self, source: Path, aside: Path, summary: Summary) -> None:
        self._source = source
        self._aside = aside
        self.summary = summary
        self._names = Names(source, summary)

    def name(self, value: Any) -> str:
        """The name of a picture, for its id; the SHA-256 of the bytes where they stand in the table."""
        if not isinstance(value, dict):
            return str(value)
        data = value.get("bytes")
        if not data:
            return str(value.get("path"))
        suffix = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif"}.get(guard.sniff(data[:600]), ".bin")
        file = self._aside / f"{hashlib.sha256(data).hexdigest()[:32]}{suffix}"
        if not file.exists():
            file.write_bytes(data)
        return file.name

    def path(self, name: str, about: _Picture) -> Path:
        """Where a picture is.

        Raises:
            DataError: It is nowhere below the source, or the name fits several files.
        """
        if Path(name).name == name and (self._aside / name).is_file():
            return self._aside / name
        folders = (about.table.parent, self._source, *(self._source / f for f in about.layout.folders))
        found = self._names.look(name, folders) or self._names.anywhere(name, tuple(FORMATS))
        if found is None:
            raise DataError("Missing picture", f"there is no {name}", "one file of this name")
        return found
