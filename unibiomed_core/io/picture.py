"""PNG, JPEG and TIFF pictures, through Pillow. Pixels keep the order they are stored in, so that masks fit the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard
from unibiomed_core.io.stored import Stored

_KINDS = {
    ".png": ("png", "a PNG picture", "PNG"),
    ".jpg": ("jpeg", "a JPEG picture", "JPEG"),
    ".jpeg": ("jpeg", "a JPEG picture", "JPEG"),
    ".tif": ("tiff", "a TIFF picture", "TIFF"),
    ".tiff": ("tiff", "a TIFF picture", "TIFF"),
}
_ORIENTATION = 274
"""EXIF and TIFF tag; 1 is as stored."""

_BITS_PER_SAMPLE = 258
_GREY = {"L", "I", "F", "I;16", "I;16B", "I;16L"}


def load(path: Path) -> Stored:
    """A picture; ``values`` are (H, W) of 8 or 16 bits or float, or (H, W, 3) uint8.

    Raises:
        ReadError: It is no such picture, is damaged, has several pages, is partly transparent, or is too large.
    """
    from PIL import Image

    magic, kind_name, pillow_format = _KINDS[path.suffix.lower()]
    guard.check_kind(path, magic, kind_name)
    notes: list[str] = []
    with guard.reading(path, kind_name), guard.quiet(), warnings.catch_warnings():
        # Pillow warns about a picture twice its limit's half and only raises above it: both are refused here.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=[pillow_format])
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ReadError(
                "Image too large",
                f"'{path.name}' has more than {Image.MAX_IMAGE_PIXELS} pixels",
                f"at most {Image.MAX_IMAGE_PIXELS} pixels",
                "Crop the region of interest, or export it at a lower magnification.",
            ) from error
        with image:
            _check_pages(image, path, notes)
            guard.check_memory((image.height, image.width, len(image.getbands())), 4, path)
            deep_colour = _bits(path, image) > 8 and len(image.getbands()) > 1
            values = _values(_as_stored(image, notes), path, notes)
    if deep_colour:
        notes.append("The picture has 16 bits for each colour and is read with 8.")
    return Stored(values, None, spatial_unit="px", orientation_known=False, notes=tuple(notes))


def _check_pages(image: Any, path: Path, notes: list[str]) -> None:
    pages = int(getattr(image, "n_frames", 1))
    if pages > 1 and image.format == "MPO":
        notes.append(f"The file holds {pages} pictures; the main one is read.")
    elif pages > 1:
        raise ReadError(
            "Picture stack",
            f"'{path.name}' holds {pages} pages",
            "one picture in a file",
            "Save a volume as NIfTI, NRRD or DICOM (which tell its spacing), or one page as its own picture.",
        )


def _bits(path: Path, image: Any) -> int:
    """Bits of one sample as stored; Pillow reduces deep colour to 8 bits without saying so."""
    if image.format == "PNG":
        return guard.head_of(path)[24]  # IHDR: width, height, then the bit depth
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) if image.format == "TIFF" else 8


def _as_stored(image: Any, notes: list[str]) -> Any:
    """The decoded picture in stored order; a display orientation is noted and not applied."""
    from PIL import Image

    orientation = int(image.getexif().get(_ORIENTATION, 1))
    is_tiff = image.format == "TIFF"
    image.load()
    if orientation in range(2, 9):
        notes.append("The file asks viewers to turn or mirror the picture; its stored pixel order is kept.")
        if is_tiff:
            # Pillow turns TIFF, and only TIFF, by itself; this is the inverse of that turn.
            turn = Image.Transpose
            inverse = {
                2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
                6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270,
            }  # fmt: skip
            return image.transpose(inverse[orientation])
    return image


def _values(image: Any, path: Path, notes: list[str]) -> NDArray[Any]:
    """(H, W) or (H, W, 3) of any mode that has one meaning."""
    if image.has_transparency_data:
        grey = image.mode in {"L", "LA", "La", "1"}
        image = image.convert("LA" if grey else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        clear = int((alpha < 255).sum())
        if clear:
            raise ReadError(
                "Transparent picture",
                f"{clear} pixels of '{path.name}' are partly or wholly transparent",
                "an opaque picture, as what shows through is not in the file",
                "Flatten it onto its background and save it again.",
            )
        notes.append("The picture's alpha channel is opaque throughout and was left out.")
        return np.asarray(image.convert("L" if grey else "RGB"))
    if image.mode in _GREY:
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "P":
        notes.append("The palette's colours were looked up.")
        return np.asarray(image.convert("RGB"))
    if image.mode in {"RGB", "YCbCr"}:
        return np.asarray(image.convert("RGB"))
    if image.mode == "CMYK":
        notes.append("The picture is in CMYK (print colours) and was converted to RGB.")
        return np.asarray(image.convert("RGB"))
    raise ReadError(
        "Unsupported colour mode",
        f"'{path.name}' is in mode {image.mode}",
        "grey, palette, RGB or RGBA",
        "Convert it to RGB.",
    )
