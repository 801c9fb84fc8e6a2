"""Findings become a report, and a report a label image. No model inside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.errors import WriteError
from unibiomed_core.measure import body_is_cut
from unibiomed_core.modalities import Window
from unibiomed_core.report.sections import narrative
from unibiomed_core.report.text import slices_text
from unibiomed_core.types import Absence, CroppedMask, Ended, Finding, Note, Plane, Report, Shown, Volume

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")


def build(
    *,
    volume: Volume,
    window: Window | None,
    plane: Plane,
    findings: Sequence[Finding],
    absences: Sequence[Absence],
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    slices_done: Iterable[int],
    slices_skipped: Iterable[int],
    seconds: float,
    sentences: Iterable[tuple[int, str]] = (),
    truncated: Iterable[int] = (),
    specks_dropped: int = 0,
    warnings: Iterable[Note] = (),
    ended: Ended = "finished",
    shown: Shown | None = None,
) -> Report:
    """The report of one run over one volume, narrative included.

    Args:
        window: The intensity window the model was given, None where the picture went in as it is.
        plane: Plane of all slice indices here.
        absences: Targets looked for and not found.
        model: Provenance: name, licence, size, hash, device and the like; plain values.
        settings: The user's choices; plain values.
        slices_done: Canonical indices of the slices the model answered for.
        slices_skipped: Canonical indices left out because they show no body.
        seconds: Wall time of the run.
        sentences: (canonical slice index, the model's own text).
        truncated: Slices on which the length limit cut the answer.
        specks_dropped: Mask pieces that linking left out as too small.
        warnings: What else has to be said of the run.
        ended: How the run ended.
        shown: What the image shows, where that was established.

    Raises:
        TypeError: ``model`` or ``settings`` hold a value that JSON cannot.
    """
    stated = [*volume.notes, *warnings]
    cut = sorted(set(truncated))
    axis = volume.plane_axis(plane)
    image = {
        "name": volume.name,
        "source": volume.source,
        "modality": volume.modality,
        "shape_voxels_zyx": list(volume.shape),
        f"spacing_{volume.spatial_unit}_zyx": list(volume.spacing_mm),
        "spatial_unit": volume.spatial_unit,
        "intensity_unit": volume.intensity_unit,
        "is_rgb": volume.is_rgb,
        "is_2d": volume.is_2d,
        "orientation_known": volume.orientation_known,
        "affine_canonical_zyx_to_ras": volume.affine.tolist(),
        "stored_shape_voxels": list(volume.stored.shape),
        "plane": plane,
        "acquisition_plane": volume.acquisition_plane,
        # The file's own index, for other programs: along this stored axis, and counted backwards where reversed.
        "slice_axis_stored": None if volume.is_2d else int(volume.stored.axes[axis]),
        "slice_numbers_reversed": bool(not volume.is_2d and volume.stored.flips[axis]),
        "window": None if window is None else {"name": window.name, "low": window.low, "high": window.high},
        "window_unit": "intensity" if volume.is_rgb else volume.intensity_unit,
    }
    total = volume.slice_count(plane)
    if cut:
        where = "" if volume.is_2d else f" on {slices_text(plane, cut)}"
        text = f"The answer was cut at the length limit{where}; its last sentence may be missing."
        stated.append(Note("answer_truncated", text, {"slice_indices": cut}))
    if specks_dropped:
        pieces = "1 mask piece was" if specks_dropped == 1 else f"{specks_dropped} mask pieces were"
        stated.append(Note("specks_dropped", f"{pieces} too small to be kept as a finding.", {"count": specks_dropped}))
    if volume.is_2d or not volume.orientation_known:
        relative = False
    else:
        relative = any(f.measurements.side not in ("unknown", _named_side(f)) for f in findings) and body_is_cut(volume)
    if relative:
        text = (
            "The body reaches the left or right edge of the image, so the midline that sides are told by may not be "
            "the patient's: read left and right as left and right of what is shown."
        )
        stated.append(Note("midline_uncertain", text))
    report = Report(
        findings=tuple(findings),
        absences=tuple(absences),
        narrative="",
        sentences=tuple((int(i), str(text)) for i, text in sentences),
        image=_plain(image),
        model=_plain(model),
        settings=_plain(settings),
        warnings=tuple(stated),
        slices_done=tuple(sorted(set(slices_done))),
        slices_skipped=tuple(sorted(set(slices_skipped))),
        slices_total=total,
        seconds=float(seconds),
        ended=ended,
        shown=shown,
    )
    return replace(report, narrative=narrative(report))


def _named_side(finding: Finding) -> str | None:
    entry = vocabulary.find(finding.target)
    return entry.side if entry else None


def labels(report: Report, volume: Volume) -> NDArray[np.uint16]:
    """(Z, Y, X) label image in canonical order: 0 background, else the finding's number; smaller ones lie on top.

    Raises:
        WriteError: A number does not fit into 16 bits.
        ValueError: A mask lies on another grid than the volume's.
    """
    picture = np.zeros(volume.shape, np.uint16)
    for finding in sorted(report.findings, key=lambda f: -f.mask.count):
        if finding.number > np.iinfo(np.uint16).max:
            raise WriteError("Too many findings", f"finding number {finding.number}", "at most 65535 in a label image")
        if finding.mask.shape != volume.shape:
            raise ValueError(f"mask of shape {finding.mask.shape} on a volume of shape {volume.shape}")
        paint(picture, finding.mask, finding.number)
    return picture


def paint(picture: NDArray[Any], mask: CroppedMask, value: int) -> None:
    """Set the voxels of a mask in place."""
    picture[mask.box][mask.crop] = value


def colour(number: int) -> str:
    """#RRGGBB of a finding's number, the same in the window and in every file: the Okabe-Ito colours, then again."""
    return OKABE_ITO[(number - 1) % len(OKABE_ITO)]


def _plain(value: Any) -> Any:
    """A copy of plain values only, so that a report survives its JSON unchanged.

    Raises:
        TypeError: A value is of another kind, or a number is not finite.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not a finite number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a report cannot hold a {type(value).__name__}")
