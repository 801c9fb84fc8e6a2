"""Slices as pictures with outlined masks, for the HTML report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.modalities import AS_IS, Window, to_rgb
from unibiomed_core.types import CroppedMask, Plane, Slice, Volume

KEY_PX = (256, 480)
WHOLE_PX = (512, 1024)
"""Long side of a key slice and of a whole picture: smaller ones are enlarged, larger ones reduced, to these."""

CLOSE_UP_MARGIN_MM = 12.0
CLOSE_UP_FRACTION = 0.45
"""A close-up is drawn where the finding's box is smaller than this share of both sides of the slice."""

EDGE_LETTERS: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Patient directions at the left, right, upper and lower edge of a canonical slice."""

_EDGE_PX = 3
"""Room for the outline around a mask's box."""

Outline = tuple[NDArray[np.bool_], str, bool]
"""2D mask on the slice, #RRGGBB, and whether it is the one the picture is about."""


def model_picture(view: Slice, window: Window | None) -> NDArray[np.uint8]:
    """The RGB picture (H, W, 3) uint8 that goes to the model for a slice, before the model's own resizing."""
    return to_rgb(view.pixels, window or AS_IS)


def slice_mask(mask: CroppedMask, axis: int, index: int) -> NDArray[np.bool_]:
    """The 2D mask of a 3D one on slice ``index`` across ``axis``; all False where it does not meet the slice."""
    sizes = [n for i, n in enumerate(mask.shape) if i != axis]
    flat = np.zeros(sizes, bool)
    inside = index - mask.offset[axis]
    if 0 <= inside < mask.crop.shape[axis]:
        box = tuple(s for i, s in enumerate(mask.box) if i != axis)
        flat[box] = np.take(mask.crop, inside, axis=axis)
    return flat


def draw(
    view: Slice,
    window: Window | None,
    outlines: Iterable[Outline],
    numbers: Iterable[tuple[str, tuple[float, float]]] = (),
    crop: tuple[slice, slice] | None = None,
    long_side_px: tuple[int, int] = KEY_PX,
) -> NDArray[np.uint8]:
    """A slice in true proportions with outlines: 2 px wide for what it is about, 1 px for the rest.

    Args:
        numbers: Texts and their (row, column) on the slice.
        crop: Rows and columns to show; None for all.
        long_side_px: Smallest and largest long side of the result.

    Returns:
        (h, w, 3) uint8.
    """
    from PIL import Image, ImageDraw
    from skimage.segmentation import find_boundaries

    rows, columns = crop or (slice(0, view.shape[0]), slice(0, view.shape[1]))
    picture = model_picture(view, window)[rows, columns]
    size_mm = picture.shape[0] * view.spacing_mm[0], picture.shape[1] * view.spacing_mm[1]
    long_side = int(np.clip(max(picture.shape[:2]), *long_side_px))
    height, width = (max(1, round(long_side * side / max(size_mm))) for side in size_mm)
    drawn = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)).copy()
    scale = height / picture.shape[0], width / picture.shape[1]
    for mask, colour, main in sorted(outlines, key=lambda outline: outline[2]):
        shown = CroppedMask.from_full(mask[rows, columns])
        if not shown.count:
            continue
        # Only the mask's own box is enlarged: a page may hold hundreds of outlines.
        top, left = (max(0, int(part.start * s) - _EDGE_PX) for part, s in zip(shown.box, scale, strict=True))
        bottom, right = (
            min(n, int(np.ceil(part.stop * s)) + _EDGE_PX)
            for part, s, n in zip(shown.box, scale, (height, width), strict=True)
        )
        source = left / scale[1], top / scale[0], right / scale[1], bottom / scale[0]
        grown = Image.fromarray(np.where(mask[rows, columns], np.uint8(255), np.uint8(0)))
        # Enlarged smoothly and cut at a half, so that outlines of coarse masks are not staircases.
        grown = grown.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=source)
        edge = find_boundaries(np.asarray(grown) >= 128, mode="thick" if main else "inner")
        drawn[top:bottom, left:right][edge] = _rgb(colour)
    if not (texts := list(numbers)):
        return drawn
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    for text, (row, column) in texts:
        at = (column - columns.start + 0.5) * scale[1], (row - rows.start + 0.5) * scale[0]
        pen.text(at, text, fill="white", anchor="mm", stroke_width=2, stroke_fill="black", font_size=13)
    return np.asarray(canvas)


def close_up(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> tuple[slice, slice] | None:
    """Rows and columns around a small mask, about square; None where a close-up would show little more."""
    cropped = CroppedMask.from_full(mask)
    box_mm = [n * s for n, s in zip(cropped.crop.shape, spacing_mm, strict=True)]
    whole_mm = [n * s for n, s in zip(mask.shape, spacing_mm, strict=True)]
    if not cropped.count or any(b > CLOSE_UP_FRACTION * w for b, w in zip(box_mm, whole_mm, strict=True)):
        return None
    half_mm = max(box_mm) / 2 + max(CLOSE_UP_MARGIN_MM, max(box_mm) / 2)
    window = []
    for part, size, step in zip(cropped.box, mask.shape, spacing_mm, strict=True):
        middle, half = (part.start + part.stop) / 2, half_mm / step
        window.append(slice(max(0, int(middle - half)), min(size, int(np.ceil(middle + half)))))
    return window[0], window[1]


def data_uri(picture: NDArray[Any], lossless: bool = False) -> str:
    """A picture as a ``data:`` address: PNG where every value counts, else JPEG without chroma subsampling."""
    from PIL import Image

    buffer = io.BytesIO()
    if lossless:
        Image.fromarray(picture).save(buffer, format="PNG")
    else:
        Image.fromarray(picture).save(buffer, format="JPEG", quality=88, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def letters(volume: Volume, plane: Plane) -> tuple[str, str, str, str] | None:
    """Patient directions at the picture's edges; None where the file tells no orientation."""
    return EDGE_LETTERS[plane] if volume.orientation_known and not volume.is_2d else None


def _rgb(colour: str) -> tuple[int, ...]:
    """The colour as R, G, B, with white mixed in where it would be hard to see on dark tissue."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    dark = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 128
    return tuple(round(0.65 * c + 0.35 * 255) if dark else c for c in rgb)
