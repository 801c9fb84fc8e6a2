"""What flows through the product: frozen records of numpy arrays and plain values.

None of them does input or output and none touches a device. Axis order is always (Z, Y, X): Z grows towards
Inferior, Y towards Posterior, X towards Left. World coordinates are millimetres in the RAS+ convention of NIfTI
(x towards Right, y towards Anterior, z towards Superior).
"""

from unibiomed_core.types.answers import Caution, CroppedMask, Phrase, Prediction, Prompt
from unibiomed_core.types.images import PLANES, Note, Plane, Region, Slice, StoredOrder, ToldBy, Volume
from unibiomed_core.types.reports import (
    ENDINGS,
    NOTICE,
    Absence,
    Band,
    Check,
    CheckCode,
    Doubt,
    Ended,
    Evidence,
    Finding,
    Measurements,
    ReaderEdit,
    Report,
    Shown,
    Tally,
)

__all__ = [
    "ENDINGS",
    "NOTICE",
    "PLANES",
    "Absence",
    "Band",
    "Caution",
    "Check",
    "CheckCode",
    "CroppedMask",
    "Doubt",
    "Ended",
    "Evidence",
    "Finding",
    "Measurements",
    "Note",
    "Phrase",
    "Plane",
    "Prediction",
    "Prompt",
    "ReaderEdit",
    "Region",
    "Report",
    "Shown",
    "Slice",
    "StoredOrder",
    "Tally",
    "ToldBy",
    "Volume",
]
