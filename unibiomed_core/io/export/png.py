"""PNG masks and label pictures at the size of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Write a 2D mask as 0 and 255 in 8-bit grey; written directly, so stand inside a ``staged`` block."""
    from PIL import Image

    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(path, format="PNG")


def write_labels(labels: NDArray[Any], path: Path) -> None:
    """Write 2D label numbers as grey values: 8 bit, or 16 bit where a number exceeds 255."""
    from PIL import Image

    wide = labels.size and int(labels.max()) > 255
    Image.fromarray(labels.astype(np.uint16 if wide else np.uint8)).save(path, format="PNG")
