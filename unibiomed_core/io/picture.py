"""PNG, JPEG and TIFF pictures, through Pillow; grey TIFF through tifffile, which keeps every depth and sign.

A picture that asks to be shown turned or mirrored (EXIF or TIFF orientation) is read as it is shown, masks alike.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard, large_picture, tiff
from unibiomed_core.io.stored import Stored
from unibiomed_core.types import Note

_KINDS = {
    ".png": ("png", "a PNG picture", "PNG"),
    ".jpg": ("jpeg", "a JPEG picture", "JPEG"),
    ".jpeg": ("jpeg", "a JPEG picture", "JPEG"),
    ".tif": ("tiff", "a TIFF picture", "TIFF"),
    ".tiff": ("tiff", "a TIFF picture", "TIFF"),
}
_BITS_PER_SAMPLE = 258
_HIGHEST_DEFLATE_RATIO = 1032
_MOST_JPEG_PIXELS_PER_BYTE = 512
"""A block of 64 pixels has a code of its own for its mean, of one bit at least."""

_GREY = {"L", "I", "F", "I;16", "I;16B", "I;16L"}


def load(path: Path) -> Stored:
    """A picture; ``values`` are (H, W) of 8 or 16 bits or float, or (H, W, 3) uint8.

    Raises:
        ReadError: It is no such picture, is damaged, has several pages, is partly transparent, or is too large.
    """
    from PIL import Image

    magic, kind_name, pillow_format = _KINDS[path.suffix.lower()]
    guard.check_kind(path, magic, kind_name)
    notes: list[Note] = []
    with guard.reading(path, kind_name), guard.quiet(), warnings.catch_warnings():
        # Pillow warns about a picture twice its limit's half and only raises above it: both are refused here.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        most = int(Image.MAX_IMAGE_PIXELS or 0)
        if pillow_format == "TIFF" and most and np.prod(large_picture.size(path, magic)[:2], dtype=object) > most:
            return large_picture.load(path, magic, most)
        if pillow_format == "TIFF" and (grey := tiff.grey(path, notes, most)) is not None:
            return Stored(_bytes_of_bits(grey), None, spatial_unit="px", orientation_known=False, notes=tuple(notes))
        try:
            image = Image.open(guard.BoundedFile(path), formats=[pillow_format])
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            return large_picture.load(path, magic, most)
        with image:
            if pillow_format != "TIFF":
                _check_pages(image, path, notes)
            guard.check_memory((image.height, image.width, len(image.getbands())), 4, path)
            _check_promise(image, path)
            deep_colour = _bits(path, image) > 8 and len(image.getbands()) > 1
            values = _values(_upright(image, notes), path, notes)
    if deep_colour:
        notes.append(Note("bits_reduced", "The picture has 16 bits for each colour and is read with 8."))
    return Stored(values, None, spatial_unit="px", orientation_known=False, notes=tuple(notes))


def load_mask(path: Path, colours: bool = False) -> tuple[NDArray[Any], tuple[Note, ...]]:
    """A picture whose values are labels, in any format that Pillow or tifffile reads; turned as :func:`load` turns it.

    Args:
        colours: Give (H, W, 3) uint8, looked up where the picture has a palette.

    Returns:
        (H, W) grey values, palette indices, or 0 and 1 of one bit; (H, W, C) of a colour picture, alpha included. And
        what the reader has to say of it.

    Raises:
        ReadError: The picture is damaged, too large, or is none.
    """
    from PIL import Image

    notes: list[Note] = []
    most = int(Image.MAX_IMAGE_PIXELS or 0)
    with guard.reading(path, "a picture"), guard.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if guard.sniff(guard.head_of(path)) == "tiff" and (grey := tiff.grey(path, notes, most)) is not None:
            if not colours:
                return grey, tuple(notes)
            if grey.dtype in (np.dtype(np.uint8), np.dtype(np.bool_)):
                return np.repeat(_bytes_of_bits(grey)[..., np.newaxis], 3, axis=2), tuple(notes)
        try:
            image = Image.open(guard.BoundedFile(path))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise guard.too_many_pixels(path, most) from error
        with image:
            guard.check_memory((image.height, image.width, len(image.getbands())), 4, path)
            _check_promise(image, path)
            upright = _upright(image, notes)
            return np.asarray(upright.convert("RGB") if colours else upright), tuple(notes)


def _bytes_of_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Pictures of one bit as 0 and 255."""
    return np.where(values, 255, 0).astype(np.uint8) if values.dtype == np.bool_ else values


def _check_promise(image: Any, path: Path) -> None:
    """Refuse a PNG or JPEG of more pixels than its bytes can hold, before there is room made for them."""
    pixels, size = image.width * image.height, path.stat().st_size
    told = pixels * len(image.getbands()) * _bits(path, image) // 8
    too_few = {
        "PNG": told > _HIGHEST_DEFLATE_RATIO * size,
        "JPEG": pixels > _MOST_JPEG_PIXELS_PER_BYTE * size,
        "MPO": pixels > _MOST_JPEG_PIXELS_PER_BYTE * size,
    }
    if too_few.get(image.format):
        raise guard.damaged(path, "a picture", f"it has too few bytes for {image.width} x {image.height} pixels")


def _check_pages(image: Any, path: Path, notes: list[Note]) -> None:
    pages = int(getattr(image, "n_frames", 1))
    if pages > 1 and image.format == "MPO":
        notes.append(Note("further_pictures", f"The file holds {pages} pictures; the main one is read."))
    elif pages > 1:
        raise guard.picture_stack(path, pages)


def _bits(path: Path, image: Any) -> int:
    """Bits of one sample as stored; Pillow reduces deep colour to 8 bits without saying so."""
    if image.format == "PNG":
        return guard.head_of(path)[24]  # IHDR: width, height, then the bit depth
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) if image.format == "TIFF" else 8


def _upright(image: Any, notes: list[Note]) -> Any:
    """The decoded picture as the file asks viewers to show it.

    Masks are drawn on the picture as it is shown: annotation tools turn it by this tag, and write masks without one.
    """
    from PIL import ImageOps

    orientation = int(image.getexif().get(tiff.ORIENTATION, 1))
    is_tiff = image.format == "TIFF"
    image.load()
    if orientation not in range(2, 9):
        return image
    notes.append(tiff.TURNED)
    # Pillow turns TIFF, and only TIFF, by itself.
    return image if is_tiff else ImageOps.exif_transpose(image)


def _values(image: Any, path: Path, notes: list[Note]) -> NDArray[Any]:
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
        notes.append(Note("alpha_dropped", "The picture's alpha channel is opaque throughout and was left out."))
        return np.asarray(image.convert("L" if grey else "RGB"))
    if image.mode in _GREY:
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "P":
        notes.append(Note("palette", "The palette's colours were looked up."))
        return np.asarray(image.convert("RGB"))
    if image.mode in {"RGB", "YCbCr"}:
        return np.asarray(image.convert("RGB"))
    if image.mode == "CMYK":
        notes.append(Note("cmyk", "The picture is in CMYK (print colours) and was converted to RGB."))
        return np.asarray(image.convert("RGB"))
    raise ReadError(
        "Unsupported colour mode",
        f"'{path.name}' is in mode {image.mode}",
        "grey, palette, RGB or RGBA",
        "Convert it to RGB.",
    )
