"""DICOM objects that lie beside the images of a study and describe them: left out of a folder's volume, with a note."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

OTHER_OBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "SEG": "segmentation",
        "SR": "structured report",
        "RTSTRUCT": "radiotherapy structure set",
        "RTDOSE": "radiotherapy dose",
        "RTPLAN": "radiotherapy plan",
        "RTRECORD": "radiotherapy treatment record",
        "PR": "presentation state",
        "KO": "key object selection",
        "REG": "registration",
        "FID": "fiducials",
        "RWV": "real world value map",
        "ANN": "annotations",
        "DOC": "document",
    }
)
"""Modality code (PS3.3 C.7.3.1.1.1) -> words. Some of these have rows and columns as images do."""

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, which lists files and is no object of its own."""


def left_out_note(codes: Iterable[str]) -> str:
    """What was left out of a folder, by modality; empty where nothing was.

    Args:
        codes: The modality code of every object.
    """
    counts = Counter(codes)
    if not counts:
        return ""
    told = [
        f"{count} {code} ({OTHER_OBJECTS[code]})" if code in OTHER_OBJECTS else f"{count} {code or 'without modality'}"
        for code, count in sorted(counts.items())
    ]
    return f"Other DICOM objects in the folder were left out: {', '.join(told)}."
