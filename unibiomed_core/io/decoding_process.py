"""The process that decodes: it answers requests of ``decoding.py`` until its input ends, each within bounds."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.io import decoding, guard, pillow

SPARE_BYTES = 128 << 20
"""Address space for decoders' tables, beyond what several copies of the values need."""

_COPIES = 8
"""Of the values as the header tells them: rescaled ones may be float64, and libraries convert in steps."""

_TOO_MUCH = "it needs more memory than an image of its size has"

Answer = tuple[dict[str, Any], NDArray[Any], Any]
"""Plain values, an array, and the object in whose memory it lies, if that is not its own."""


def serve() -> None:
    """Answer requests until the input ends."""
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        said, values, owner = _answer(json.loads(line))
        answers.write(json.dumps(said).encode() + b"\n")
        if values.size:
            answers.write(values.reshape(-1).view(np.uint8).data)
        answers.flush()
        del values, owner  # while the process waits, an image's memory is free


def _answer(request: dict[str, Any]) -> Answer:
    expected = request["expected_bytes"]
    nothing = np.empty(0, np.uint8)
    try:
        _PREPARED[request["task"].split()[0]]()
        with _limits(expected):
            told, values, owner = _TASKS[request["task"]](Path(request["path"]), **request["options"])
            if values.nbytes > _COPIES * expected or values.dtype.kind not in "iufb":
                raise ValueError(f"its values are {values.shape} of {values.dtype}")
            values = np.ascontiguousarray(values)
        return {"told": told, "shape": values.shape, "dtype": values.dtype.str}, values, owner
    except MemoryError:
        return {"error": _TOO_MUCH}, nothing, None
    except Exception as error:
        text = guard.first_sentence(str(error)) or type(error).__name__
        return {"error": _TOO_MUCH if "bad_alloc" in text else text}, nothing, None


def dicom_image(path: Path, pixel_type: str | int | None, stored_bytes: int) -> Answer:
    """An image, rescaled, by GDCM: (1, row, column[, channel]), and SimpleITK's number of its type.

    Args:
        pixel_type: Such a number, "float32", or None for the file's own.
        stored_bytes: Of pixels that are not compressed; else 0. GDCM gives what the memory held before where some lack.
    """
    import pydicom
    import SimpleITK

    if stored_bytes:
        with guard.BoundedFile(path) as file:
            found = len(pydicom.dcmread(file, force=True, specific_tags=["PixelData"]).get("PixelData") or b"")
        if found < stored_bytes:
            raise ValueError(f"it has {found} bytes of pixels and not {stored_bytes}")

    reader = _reader(path, "GDCMImageIO")
    if pixel_type is not None:
        reader.SetOutputPixelType(SimpleITK.sitkFloat32 if pixel_type == "float32" else pixel_type)
    image = reader.Execute()
    return {"pixel_type": int(image.GetPixelID())}, SimpleITK.GetArrayViewFromImage(image), image


def dicom_frames(path: Path) -> Answer:
    """All frames of an object as stored, by pydicom: (frame, row, column[, channel]), or fewer axes."""
    import pydicom

    with guard.BoundedFile(path) as file:
        return {}, pydicom.pixels.pixel_array(pydicom.dcmread(file, force=True)), None


def itk_header(path: Path, image_io: str) -> Answer:
    """What ITK finds in the header of an NRRD or MetaImage file; no values are read."""
    import SimpleITK

    reader = _reader(path, image_io)
    reader.ReadImageInformation()
    bits = re.search(r"(\d+)-bit", SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()))
    told = {
        "size": [int(n) for n in reader.GetSize()],
        "channels": int(reader.GetNumberOfComponents()),
        # The spacing and direction as stored: reading the values flips negative spacing without a word.
        "spacing_mm": list(reader.GetSpacing()),
        "direction": list(reader.GetDirection()),
        "origin": list(reader.GetOrigin()),
        "itemsize": int(bits.group(1)) // 8 if bits else 8,
        "space": reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else "",
    }
    return told, np.empty(0, np.uint8), None


def itk_values(path: Path, image_io: str) -> Answer:
    """The values (k, j, i) of an NRRD or MetaImage file."""
    import SimpleITK

    image = _reader(path, image_io).Execute()
    return {}, SimpleITK.GetArrayViewFromImage(image), image


def picture_header(path: Path) -> Answer:
    """What :func:`pillow.header` finds in a file of any format."""
    return pillow.header(path, ""), np.empty(0, np.uint8), None


def tiff_page(path: Path, offset: int) -> Answer:
    """The pixels of the TIFF page whose directory is at ``offset``; whether its compression is "unsupported" here."""
    return _of_page(path, offset, lambda page: page.asarray(maxworkers=1))


def tiff_means(path: Path, offset: int, factor: int) -> Answer:
    """As :func:`tiff_page`, reduced: means of squares of ``factor`` pixels."""
    from unibiomed_core.io import large_picture

    return _of_page(path, offset, lambda page: large_picture.means_of(page, factor))


def tiff_region(path: Path, offset: int, rows: tuple[int, int], columns: tuple[int, int]) -> Answer:
    """As :func:`tiff_page`, a part of it: (row, column, channel)."""
    from unibiomed_core.io import large_picture

    return _of_page(path, offset, lambda page: large_picture.part_of(page, rows, columns))


def _of_page(path: Path, offset: int, decode: Callable[[Any], NDArray[Any]]) -> Answer:
    import tifffile

    with tifffile.TiffFile(path) as file:
        file.filehandle.seek(offset)
        try:
            return {"unsupported": False}, decode(tifffile.TiffPage(file, 0)), None
        except ValueError as error:
            # How tifffile names a codec that it knows of, or does not, and has not.
            if any(word in str(error) for word in ("COMPRESSION", "imagecodecs", "PREDICTOR")):
                return {"unsupported": True}, np.empty(0, np.uint8), None
            raise


_TASKS: Mapping[str, Callable[..., Answer]] = MappingProxyType(
    {
        "dicom image": dicom_image,
        "dicom frames": dicom_frames,
        "itk header": itk_header,
        "itk values": itk_values,
        "picture": pillow.values,
        "picture header": picture_header,
        "picture means": pillow.means,
        "picture region": pillow.region,
        "tiff page": tiff_page,
        "tiff means": tiff_means,
        "tiff region": tiff_region,
    }
)


_PREPARED: Mapping[str, Callable[[], object]] = MappingProxyType(
    {
        "dicom": lambda: (import_module("SimpleITK"), import_module("pydicom")),
        "itk": lambda: import_module("SimpleITK"),
        "picture": pillow.load_plugins,
        "tiff": lambda: import_module("tifffile"),
    }
)
"""First word of a task -> what loads its libraries: it takes longer, and more memory, than one file may."""


def _reader(path: Path, image_io: str) -> Any:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    return reader


@contextmanager
def _limits(expected_bytes: int) -> Iterator[None]:
    """The process dies after too much processor time, and has MemoryError for too large an allocation.

    Where the system has no such limits (Windows; macOS for memory), the other side's guard of time remains.
    """
    try:
        import resource
        import signal
    except ImportError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + SPARE_BYTES + _COPIES * expected_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most if before[1] < 0 else min(most, before[1]), before[1]))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, decoding.seconds(expected_bytes))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    serve()
