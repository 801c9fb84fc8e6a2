"""From a source's words to a target, and from its masks to the regions of a record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import modalities
from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.tasks import NO_FINDINGS

from ..data.records import RegionRecord, region_record, resize_mask
from . import volumes
from .volumes import MINIMUM_PIXELS

_INSTRUMENTS = {"endoscope": "endoscopy", "dermoscope": "dermoscopy", "fundus photograph": "fundus"}
"""Words that sources write for a modality and that are no name of it."""


@dataclass(frozen=True)
class SourcePhrase:
    """What a target phrase such as "liver tumor in abdomen CT" says.

    Args:
        target: Canonical name where the vocabulary knows it, else the source's words, lower case.
        anatomy: The body part between "in" and the modality; empty where none.
        modality: A name of ``modalities.MODALITIES``; empty where the phrase does not end with one.
        says_nothing: The phrase says that nothing is wrong.
    """

    target: str
    anatomy: str = ""
    modality: str = ""
    says_nothing: bool = False


def parse_phrase(text: str, modality: str = "") -> SourcePhrase:
    """Take a phrase apart; ``modality`` is the one to use where the phrase names none."""
    clean = " ".join(text.split()).rstrip(" .").lower()
    target, anatomy, told = clean, "", ""
    head, joint, place = clean.rpartition(" in ")
    if joint:
        anatomy, told = _place(place)
        target = head if told else clean
    return SourcePhrase(target_name(target, told or modality), anatomy if told else "", told, NO_FINDINGS in clean)


def _place(text: str) -> tuple[str, str]:
    """("abdomen", "ct") of "abdomen ct"; the modality is empty where the text does not end with one."""
    words = text.split()
    for count in (2, 1):
        tail = " ".join(words[-count:])
        name = modality_name(_INSTRUMENTS.get(tail, tail))
        if name:
            return " ".join(words[:-count]), name
    return "", ""


def modality_name(text: str) -> str:
    """The modality a source's word means, or empty where it means none that is known."""
    try:
        return modalities.modality(text).name
    except ConfigError:
        return ""


def target_name(text: str, modality: str = "") -> str:
    """As :func:`slices.target_name`, and a place that the source names with "in" stays part of the name."""
    clean = " ".join(text.split()).rstrip(" .").lower()
    # The vocabulary would answer "nodule in thyroid" with what a nodule is anywhere.
    return clean if " in " in clean else volumes.target_name(clean, modality)


class Regions:
    """The regions of one picture, target by target; masks of one target are united, its captions follow one another.

    Args:
        side: Side of the record's picture in pixels; 0 for the source's own size.
    """

    def __init__(self, side: int) -> None:
        self._side = side
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._captions: dict[str, list[str]] = {}
        self._anatomies: dict[str, list[str]] = {}

    def add(self, target: str, mask: NDArray[np.bool_], caption: str = "", anatomy: str = "") -> None:
        """Add a (H, W) mask at the source's size; one of zeros says that the target is not there."""
        self._masks[target] = mask | self._masks.get(target, False)
        for texts, text in ((self._captions, caption), (self._anatomies, anatomy)):
            said = texts.setdefault(target, [])
            if text and text not in said:
                said.append(text)

    def present(self) -> tuple[RegionRecord, ...]:
        """Targets that are large enough to see, in the order they were added."""
        small = {target: resize_mask(mask, self._side) for target, mask in self._masks.items()}
        return tuple(
            region_record(target, mask, " ".join(self._captions[target]), " and ".join(self._anatomies[target]))
            for target, mask in small.items()
            if mask.sum() >= MINIMUM_PIXELS
        )

    def asked(self) -> tuple[str, ...]:
        """All targets that were added, there or not."""
        return tuple(self._masks)

    def empty(self) -> tuple[str, ...]:
        """Targets whose masks have no pixel at the source's size."""
        return tuple(target for target, mask in self._masks.items() if not mask.any())

    def all_seen(self) -> bool:
        """Whether every target that is there is large enough; where one is not, no region does not mean no finding."""
        return len(self.present()) + len(self.empty()) == len(self._masks)


def scale_box(box: Any, shape: tuple[int, ...], side: int) -> tuple[int, int, int, int]:
    """A source's box at the size of the record's picture, as (x0, y0, x1, y1) with corners included.

    Args:
        box: [x, y, width, height] in pixels of the source's picture; one pixel beyond its border is cut.
        shape: (H, W) of the source's picture.
        side: Side of the record's picture; 0 keeps the source's size.

    Raises:
        DataError: The box is not four numbers, is empty, or leaves the picture.
    """
    rows, columns = shape[:2]
    numbers = [float(n) for n in box if isinstance(n, int | float)] if isinstance(box, list | tuple) else []
    if len(numbers) == 4:
        x, y, width, height = numbers
        if min(x, y) >= -1 and x + width <= columns + 1 and y + height <= rows + 1 and min(width, height) > 0:
            x0, x1 = _pixels(x, width, columns, side or columns)
            y0, y1 = _pixels(y, height, rows, side or rows)
            return x0, y0, x1, y1
    raise DataError("Box not usable", f"{box} in {columns} x {rows} px", "[x, y, width, height] in pixels, inside")


def _pixels(start: float, length: float, stored: int, wanted: int) -> tuple[int, int]:
    """First and last pixel that a stretch covers once ``stored`` pixels have become ``wanted``."""
    scale = wanted / stored
    first = min(max(int(start * scale), 0), wanted - 1)
    return first, min(max(math.ceil((start + length) * scale) - 1, first), wanted - 1)
