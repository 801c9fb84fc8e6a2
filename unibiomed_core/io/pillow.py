"""What Pillow makes of a picture.

Pixels are decoded in the decoding process alone, as codecs may die of damaged ones. Headers of PNG, JPEG and TIFF are
read by Python code, and so in this process too; some other formats have codecs even for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.io import guard, tiff

Wanted = Literal["image", "labels", "colours"]

Answer = tuple[dict[str, Any], NDArray[Any], Any]
"""Plain values, an array, and nothing, as the array has its own memory."""

_BITS_PER_SAMPLE = 258
PLAIN = {"L", "RGB", "I;16"}
"""Modes of pictures that are reduced, or read by parts."""

_GREY = {"L", "I", "F", "I;16", "I;16B", "I;16L"}
_COLOURS = {"P", "RGB", "YCbCr", "CMYK"}


def load_plugins() -> None:
    """Import what opens the usual formats, and lift Pillow's own bound of size; who asks has looked at it."""
    from PIL import Image, TiffImagePlugin  # noqa: F401

    Image.preinit()
    Image.MAX_IMAGE_PIXELS = None


def header(path: Path, format_name: str, factor: int = 1) -> dict[str, Any]:
    """Format, mode, size, bands, bits of a sample and pages; no pixel is decoded.

    Args:
        format_name: "PNG", "JPEG" or "TIFF"; empty for any, in the decoding process.
        factor: A JPEG is to be reduced by about this while it is decoded; "decoded" is the size that it then has.
    """
    with _opened(path, format_name) as image:
        told = {
            "format": image.format,
            "mode": image.mode,
            "size": [image.height, image.width],
            "bands": len(image.getbands()),
            "bits": _bits(path, image),
            # Further pages of TIFF are counted elsewhere, those of other formats are left aside.
            "pages": int(getattr(image, "n_frames", 1)) if image.format in {"PNG", "MPO"} else 1,
        }
        progressive = bool(image.info.get("progressive"))
        _reduce(image, factor)
        told["decoded"] = told["size"] if progressive else [image.height, image.width]
    return told


def values(path: Path, format_name: str, wanted: Wanted) -> Answer:
    """The picture as the file asks viewers to show it, and how it came about.

    Masks are drawn on the picture as it is shown: annotation tools turn it by its tag, and write masks without one.

    Args:
        format_name: As :func:`header`.
        wanted: "image" for (H, W) or (H, W, 3) of any mode that has one meaning, "labels" for the values as stored,
            palette indices and alpha included, "colours" for (H, W, 3) uint8.

    Returns:
        As "mode" that of the file, "turned", and for an image: whether it "has_alpha", how many pixels are "clear", and
        whether the mode is "unsupported"; of such and of clear ones there are no values.
    """
    from PIL import ImageOps

    with _opened(path, format_name) as image:
        orientation = int(image.getexif().get(tiff.ORIENTATION, 1))
        image.load()
        told = {"mode": image.mode, "turned": orientation in range(2, 9)}
        # Pillow turns TIFF, and only TIFF, by itself.
        shown = ImageOps.exif_transpose(image) if told["turned"] and image.format != "TIFF" else image
        if wanted == "labels":
            return told, np.asarray(shown), None
        if wanted == "colours":
            return told, np.asarray(shown.convert("RGB")), None
        if image.has_transparency_data:
            return _without_alpha(shown, told)
        told |= {"has_alpha": False, "clear": 0, "unsupported": image.mode not in {"1", *_GREY, *_COLOURS}}
        if told["unsupported"]:
            return told, np.empty(0, np.uint8), None
        if image.mode not in _GREY:
            shown = shown.convert("L" if image.mode == "1" else "RGB")
        return told, np.asarray(shown), None


def means(path: Path, format_name: str, factor: int) -> Answer:
    """The picture as stored, reduced to about 1/``factor`` of its sides, and its "orientation"."""
    with _opened(path, format_name) as image:
        height = image.height
        _reduce(image, factor)
        left = max(1, round(factor / (height / image.height)))
        image.load()
        orientation = int(image.getexif().get(tiff.ORIENTATION, 1))
        # Pillow cannot average 16 bits; as real numbers it can.
        is_deep = image.mode == "I;16"
        found = np.asarray((image.convert("F") if is_deep else image).reduce(left))
        return {"orientation": orientation}, np.rint(found).astype(np.uint16) if is_deep else found, None


def region(path: Path, format_name: str, rows: tuple[int, int], columns: tuple[int, int]) -> Answer:
    """(row, column, channel) of a part of the picture as it is shown, black outside of it, and its whole "size"."""
    from PIL import ImageOps

    with _opened(path, format_name) as image:
        image.load()
        shown = ImageOps.exif_transpose(image)
        found = np.asarray(shown.crop((columns[0], rows[0], columns[1], rows[1])))
        return {"size": [shown.height, shown.width]}, found.reshape(*found.shape[:2], -1), None


def _opened(path: Path, format_name: str) -> Any:
    """Pillow's image without its own bound of size, which holds for a program as a whole."""
    from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

    file = guard.BoundedFile(path)
    if format_name:
        makers = {
            "PNG": PngImagePlugin.PngImageFile,
            "JPEG": JpegImagePlugin.jpeg_factory,
            "TIFF": TiffImagePlugin.TiffImageFile,
        }
        return makers[format_name](file)
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        # Pillow's own message shows the file object.
        raise ValueError("it is of no known format, or its header is damaged") from error


def _reduce(image: Any, factor: int) -> None:
    """Decoders of JPEG reduce by 2, 4 or 8 as they go."""
    if image.format == "JPEG" and factor > 1:
        image.draft(image.mode, (-(-image.width // factor), -(-image.height // factor)))


def _bits(path: Path, image: Any) -> int:
    """Bits of one sample as stored; Pillow reduces deep colour to 8 bits without saying so."""
    if image.format == "PNG":
        return guard.head_of(path)[24]  # IHDR: width, height, then the bit depth
    return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))) if image.format == "TIFF" else 8


def _without_alpha(image: Any, told: dict[str, Any]) -> Answer:
    """The colours of an opaque picture; only the count of other pixels, where some are not."""
    grey = image.mode in {"L", "LA", "La", "1"}
    image = image.convert("LA" if grey else "RGBA")
    clear = int((np.asarray(image.getchannel("A")) < 255).sum())
    told |= {"has_alpha": True, "clear": clear, "unsupported": False}
    found = np.empty(0, np.uint8) if clear else np.asarray(image.convert("L" if grey else "RGB"))
    return told, found, None
