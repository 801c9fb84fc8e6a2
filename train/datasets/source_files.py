"""Files of a source folder, read with checks: JSON, pictures, masks, and which file belongs to which split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError
from unibiomed_core.files import read_json
from unibiomed_core.io import FORMATS, guard, picture, read
from unibiomed_core.modalities import choose_window, to_rgb

from ..data.records import Record
from .request import Summary
from .volumes import UNREADABLE

LOSSY = (".jpg", ".jpeg")

HALF = 128
"""From here on a pixel of a black-and-white JPEG mask is white; around an edge compression leaves grey and specks."""

_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val",
                "validation": "val", "test": "test", "testing": "test"}  # fmt: skip


def read_annotations(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: It is missing, cannot be opened or is no JSON.
    """
    return read_json(path, DataError, "Annotations cannot be read")


def rows_of(document: Any, key: str, columns: Sequence[str], path: Path) -> list[Mapping[str, Any]]:
    """The list ``document[key]``, each row of which has ``columns``.

    Raises:
        DataError: The list or a column is missing; the message names the file and what it has instead.
    """
    rows = list_of(document, key, path.name)
    for number, row in enumerate(rows):
        require(row, columns, f"{path.name}, {key}[{number}]")
    return rows


def require(row: Any, columns: Sequence[str], where: str) -> None:
    """Refuse an annotation that lacks a column.

    Raises:
        DataError: It does; the message names the place, what is there and what is needed.
    """
    if not isinstance(row, dict) or any(c not in row for c in columns):
        has = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError("Missing column", f"{where} has {has[:200] or 'nothing'}", ", ".join(columns))


def object_of(row: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """``row[key]``, which is an object of named entries.

    Raises:
        DataError: It is missing or something else.
    """
    require(row, (key,), where)
    if not isinstance(row[key], dict):
        raise DataError("Unknown annotation layout", f"{where}: '{key}' is a {type(row[key]).__name__}", "an object")
    value: Mapping[str, Any] = row[key]
    return value


def list_of(row: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """``row[key]``, which is a list.

    Raises:
        DataError: It is missing or something else.
    """
    require(row, (key,), where)
    if not isinstance(row[key], list):
        raise DataError("Unknown annotation layout", f"{where}: '{key}' is a {type(row[key]).__name__}", "a list")
    value: list[Any] = row[key]
    return value


def read_picture(path: Path, modality: str, summary: Summary | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, as the model sees it.

    Args:
        modality: A name of ``modalities.MODALITIES``, or empty; an 8-bit picture is then read as it is.
        summary: Gets what the reader had to assume.

    Raises:
        ReadError: The picture is missing, truncated, mislabelled, constant or too small.
        DataError: It is a volume.
    """
    volume = read(path, modality or "xray")
    if not volume.is_2d:
        raise DataError("A volume for a picture", f"{path.name} is {volume.shape}", "one PNG, JPEG or TIFF picture")
    if summary is not None:
        summary.note_reader(volume.notes, path.name)
    return to_rgb(volume.voxels[0], choose_window(volume))


def read_mask(path: Path, shape: tuple[int, ...], summary: Summary | None = None) -> NDArray[np.bool_]:
    """(H, W) bool: the first channel, foreground where it is above zero, in a JPEG from ``HALF`` on.

    Args:
        shape: (H, W) of the picture it belongs to.
        summary: Gets a note on a JPEG.

    Raises:
        ReadError: The file is missing or cannot be read.
        DataError: It is no picture, or is not of the picture's size; a mask is never resized to fit.
    """
    guard.existing(path)
    if FORMATS.get(path.suffix.lower()) != "picture":
        raise DataError("Mask of unknown type", f"{path.name}", "a PNG, JPEG or TIFF picture")
    values = picture.load(path).values
    values = values[..., 0] if values.ndim == 3 else values
    if values.shape != tuple(shape[:2]):
        found, wanted = (" x ".join(map(str, s)) for s in (values.shape, shape[:2]))
        raise DataError("Mask of another size", f"{path.name} has {found} rows x columns", f"the picture's {wanted}")
    if path.suffix.lower() not in LOSSY:
        return np.asarray(values > 0)
    if summary is not None:
        summary.note("jpeg_mask", path.name)
    return np.asarray(values >= HALF)


def made_or_refused(summary: Summary, item: str, make: Callable[[], Record]) -> Iterator[Record]:
    """A record, or none where it cannot be made; the summary then has the reason."""
    try:
        record = make()
    except UNREADABLE as cause:
        summary.refuse(item, cause)
    else:
        yield record


def split_files(source: Path, train: str, test: str) -> list[tuple[str, Path]]:
    """(split, file) of the annotation files that are there.

    Where there is only the training file, the source has no division and the split is empty: patients decide.

    Raises:
        DataError: There is none.
    """
    found = [(split, source / name) for split, name in (("train", train), ("test", test)) if (source / name).is_file()]
    if not found:
        raise DataError("Unknown data layout", f"neither {train} nor {test} in {source.name}", f"{train} and {test}")
    return [("", found[0][1])] if [split for split, _ in found] == ["train"] else found


def split_words(names: Sequence[str]) -> list[str]:
    """The split of each file by a word in its path: "train", "test", or "" where no word tells.

    A validation file is training data where there is a test file beside it, and the test split where there is none.
    """
    told = []
    for name in names:
        words = [_SPLIT_WORDS[w] for w in re.split(r"[^a-z]+", name.lower()) if w in _SPLIT_WORDS]
        told.append(words[-1] if words else "")
    validation = "train" if "test" in told else "test"
    return [validation if word == "val" else word for word in told]
