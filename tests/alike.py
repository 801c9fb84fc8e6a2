"""Comparing what two engines, processes or runs computed. Equal down to the last digit they need not be.

With the same weights, two engines add in another order: a library takes other instructions for memory that lies
elsewhere, and other ones on another processor. Scores then differ by about 1e-7. CLOSE leaves room for many layers and
is far below what a wrong prompt, picture or weight does; a pixel whose logit is that near 0 may fall on either side.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from unibiomed_core.types import Report

CLOSE = 1e-4
SHARE_OF_PIXELS = 0.002
"""Of the pixels that either mask has; one pixel may always differ."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def close(expected: float | Sequence[float]) -> Any:
    """To compare a score, or several, with: ``assert score == close(other)``."""
    return pytest.approx(expected, rel=CLOSE, abs=CLOSE)


def same_masks(one: ArrayLike, other: ArrayLike) -> bool:
    """Whether two masks or label arrays of one shape are equal, but for a pixel or a few on an edge."""
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return False
    most = max(1.0, SHARE_OF_PIXELS * np.count_nonzero((a != 0) | (b != 0)))
    return bool(np.count_nonzero(a != b) <= most)


def same_findings(one: Report, other: Report) -> bool:
    """Whether two reports found the same targets on the same slices, with masks that are alike."""
    names, others = ([(f.target, f.slices) for f in report.findings] for report in (one, other))
    return names == others and all(
        same_masks(a.mask.full(), b.mask.full()) for a, b in zip(one.findings, other.findings, strict=True)
    )


def differences(one: Any, other: Any, rel: float = 0.01, where: str = "") -> Iterator[str]:
    """What differs in two JSON values, numbers inside of texts included, as lines; nothing where they are alike.

    Args:
        rel: What numbers may differ by, as a share of the larger one: a pixel is that much of a small mask.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            yield f"{where}: only one has {sorted(one.keys() ^ other.keys())}"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], rel, f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{where}: {len(one)} and {len(other)} values"
        for number, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, rel, f"{where}[{number}]")
    elif isinstance(one, str) and isinstance(other, str) and one != other:
        numbers = [[float(n) for n in _NUMBER.findall(text)] for text in (one, other)]
        if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
            yield f"{where}: {one!r} and {other!r}"
        else:
            yield from differences(*numbers, rel, where)
    elif type(one) in (int, float) and type(other) in (int, float):
        if not math.isclose(one, other, rel_tol=rel, abs_tol=CLOSE):
            yield f"{where}: {one} and {other}"
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"


def alike_files(one: Path, other: Path, names: Iterable[str]) -> None:
    """Assert that files of two exports hold the same: JSON, CSV and masks. How long a run took is its own."""
    for name in names:
        a, b = _content(one / name), _content(other / name)
        assert type(a) is type(b), name
        if isinstance(a, np.ndarray):
            assert same_masks(a, b), name
        else:
            assert not list(differences(a, b)), name


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        value = json.loads(file.read_text("utf-8"))
        assert value.pop("wall_time_s", 1) > 0 if isinstance(value, dict) else True
        return value
    if file.suffix == ".csv":
        return list(csv.reader(file.read_text("utf-8").splitlines()))
    if file.suffix == ".png":
        return np.asarray(Image.open(file))
    return np.asarray(nibabel.load(file).dataobj)
