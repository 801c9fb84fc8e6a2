"""Tiny pictures and masks for trees in the layouts of published sources: drawn, not real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.records import Record
from train.datasets.request import ConversionRequest, Converter, Summary

ROWS, COLUMNS = 40, 60


def picture(path: Path, seed: int, size: tuple[int, int] = (ROWS, COLUMNS), colour: bool = False) -> Path:
    """A picture of noise, (H, W) by ``size``; each seed gives another."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (*size, 3) if colour else size, np.uint8)).save(path)
    return path


def box_mask(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (ROWS, COLUMNS)) -> NDArray[np.uint8]:
    """(H, W) with 255 in the corners given, both included."""
    mask = np.zeros(size, np.uint8)
    mask[y0 : y1 + 1, x0 : x1 + 1] = 255
    return mask


def save_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def truncate(path: Path) -> None:
    """Cut the second half of a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")


def converted(convert: Converter, source: Path, **settings: Any) -> tuple[dict[str, Record], dict[str, str]]:
    """Records by id and reasons by refused item; the pictures keep their own size unless ``side`` is given."""
    summary = Summary()
    records = list(convert(ConversionRequest(source, "tiny", **{"side": 0, **settings}), summary))
    by_id = {record.id: record for record in records}
    assert len(by_id) == len(records), "an id stands twice"
    return by_id, dict(summary.refused)
