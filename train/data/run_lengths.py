"""Masks as COCO run lengths, which are checked: a damaged string makes the COCO library write beyond its memory.

Runs go down the columns, of background and foreground in turn. A string has five bits a character, lowest first, with
bit 6 set where more follow and the last one's top bit as sign; from the fourth on each number is the difference to the
one two before. Format: ``rleToString`` of the COCO API.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unibiomed_core.errors import DataError

_LONGEST = 7
"""Characters of one number; 35 bits count more pixels than a picture has."""


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """(H, W) bool -> COCO run lengths."""
    return bytes(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"])


def decode_mask(packed: str | bytes, size: Sequence[int]) -> NDArray[np.bool_]:
    """COCO run lengths -> (H, W) bool.

    Raises:
        DataError: They are damaged, or those of a mask of another size.
    """
    return filled(unpacked(packed), size)


def filled(counts: NDArray[np.int64], size: Sequence[int]) -> NDArray[np.bool_]:
    """(N,) lengths of the runs -> (H, W) bool.

    Raises:
        DataError: One is negative, or they do not fill the mask.
    """
    pixels = math.prod(size)
    if counts.size == 0 or counts.min() < 0 or counts.max() > pixels or counts.sum() != pixels:
        raise DataError("Damaged mask", f"run lengths of {counts.sum()} pixels", f"{pixels} pixels, none below 0")
    foreground = np.arange(counts.size) % 2 == 1
    return np.repeat(foreground, counts).reshape(size[1], size[0]).T


def unpacked(packed: str | bytes) -> NDArray[np.int64]:
    """(N,) the lengths in a COCO string.

    Raises:
        DataError: It is none.
    """
    raw = packed.encode() if isinstance(packed, str) else packed
    bits = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not bits.size or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        raise DataError("Damaged mask", "run lengths that are cut or hold strange characters", "a whole COCO string")
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise DataError("Damaged mask", f"a run length of {lengths.max()} characters", f"at most {_LONGEST}")
    places = np.arange(bits.size) - np.repeat(starts, lengths)
    counts = np.add.reduceat((bits & 31) << 5 * places, starts) - ((bits[ends] & 16) << 5 * lengths - 4)
    counts[1::2], counts[2::2] = np.cumsum(counts[1::2]), np.cumsum(counts[2::2])
    return counts
