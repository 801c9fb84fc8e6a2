"""The report as JSON: a versioned layout that gives the report back exactly."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed_core.errors import ReadError
from unibiomed_core.files import read_json
from unibiomed_core.types import PLANES, Absence, CroppedMask, Finding, Measurements, ReaderEdit, Report

SCHEMA = "unibiomed.report"
VERSION = 1

MASK_ENCODING = "base64(zlib(packbits))"
"""Crop in C order, eight voxels a byte, most significant bit first, the last byte padded with zeros."""

_MEASUREMENTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "voxel_count": ("voxel_count", {"type": "integer", "minimum": 0}),
    "volume_ml": ("volume_ml", {"type": ["number", "null"], "minimum": 0}),
    "area_mm2": ("area_mm2", {"type": ["number", "null"], "minimum": 0}),
    "longest_axial_diameter_mm": ("longest_axial_diameter_mm", {"type": ["number", "null"], "minimum": 0}),
    "perpendicular_diameter_mm": ("perpendicular_diameter_mm", {"type": ["number", "null"], "minimum": 0}),
    "intensity_mean": ("intensity_mean", {"type": ["number", "null"]}),
    "intensity_sd": ("intensity_sd", {"type": ["number", "null"], "minimum": 0}),
    "intensity_unit": ("intensity_unit", {"type": "string"}),
    "slice_first_index": ("slice_first", {"type": "integer", "minimum": 0}),
    "slice_last_index": ("slice_last", {"type": "integer", "minimum": 0}),
    "slice_largest_index": ("slice_largest", {"type": "integer", "minimum": 0}),
    "side": ("side", {"enum": ["left", "right", "both", "midline", "unknown"]}),
    "touches_edge": ("touches_edge", {"type": "boolean"}),
}
"""JSON key -> (field of Measurements, its JSON Schema)."""


def to_json(report: Report) -> dict[str, Any]:
    """A report as plain JSON values; slice indices are canonical, counted from 0, which people see too.

    ``image.slice_axis_stored`` and ``image.slice_numbers_reversed`` lead to the file's own index: along that stored
    axis it is the same number, or ``total_count - 1`` minus it where reversed.
    """
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "notice": report.notice,
        "image": report.image,
        "model": report.model,
        "settings": report.settings,
        "slices": {
            "total_count": report.slices_total,
            "done_indices": list(report.slices_done),
            "skipped_indices": list(report.slices_skipped),
        },
        "wall_time_s": report.seconds,
        "cancelled": report.cancelled,
        "warnings": list(report.warnings),
        "edits": [{"code": edit.code, "finding_numbers": list(edit.numbers)} for edit in report.edits],
        "narrative": report.narrative,
        "sentences": [{"slice_index": index, "text": text} for index, text in report.sentences],
        "findings": [
            {
                "number": f.number,
                "target": f.target,
                "phrase": f.phrase,
                "presence_0_to_1": f.presence,
                "plane": f.plane,
                "slice_indices": list(f.slices),
                "flags": list(f.flags),
                "measurements": {key: getattr(f.measurements, name) for key, (name, _) in _MEASUREMENTS.items()},
                "mask": mask_to_json(f.mask),
            }
            for f in report.findings
        ],
        "absences": [
            {"target": a.target, "presence_0_to_1": a.presence, "slices_searched_count": a.slices_searched}
            for a in report.absences
        ],
    }


def read(path: Path) -> Report:
    """The report in a ``report.json``.

    Raises:
        ReadError: It is missing, no JSON, not a report, of a newer version, or damaged.
    """
    return from_json(read_json(path, ReadError, "Report cannot be read", "a report.json of UniBiomed"))


def from_json(data: Mapping[str, Any]) -> Report:
    """The report that :func:`to_json` wrote.

    Raises:
        ReadError: It is not a report, is of a newer version, or is damaged.
    """
    expected = f"the schema '{SCHEMA}' in version {VERSION}"
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        raise ReadError("Not a UniBiomed report", "the JSON does not name our schema", expected, "Choose report.json.")
    if data.get("version") != VERSION:
        raise ReadError("Report of another version", f"version {data.get('version')!r}", expected, "Update UniBiomed.")
    try:
        return Report(
            findings=tuple(
                Finding(
                    number=f["number"],
                    phrase=f["phrase"],
                    target=f["target"],
                    presence=f["presence_0_to_1"],
                    mask=mask_from_json(f["mask"]),
                    plane=f["plane"],
                    slices=tuple(f["slice_indices"]),
                    measurements=Measurements(**{name: f["measurements"][k] for k, (name, _) in _MEASUREMENTS.items()}),
                    flags=tuple(f["flags"]),
                )
                for f in data["findings"]
            ),
            absences=tuple(
                Absence(a["target"], a["presence_0_to_1"], a["slices_searched_count"]) for a in data["absences"]
            ),
            narrative=data["narrative"],
            sentences=tuple((s["slice_index"], s["text"]) for s in data["sentences"]),
            image=data["image"],
            model=data["model"],
            settings=data["settings"],
            warnings=tuple(data["warnings"]),
            slices_done=tuple(data["slices"]["done_indices"]),
            slices_skipped=tuple(data["slices"]["skipped_indices"]),
            slices_total=data["slices"]["total_count"],
            seconds=data["wall_time_s"],
            cancelled=data["cancelled"],
            notice=data["notice"],
            # Reports that were written before readers' edits had a field of their own have none.
            edits=tuple(ReaderEdit(edit["code"], tuple(edit["finding_numbers"])) for edit in data.get("edits", ())),
        )
    except KeyError as error:
        raise ReadError(
            "Damaged report", f"the field {error} is missing", expected, "Write the report again."
        ) from error
    except TypeError as error:
        raise ReadError("Damaged report", "a field is of another kind", expected, "Write the report again.") from error


def mask_to_json(mask: CroppedMask) -> dict[str, Any]:
    """A mask as offset and shape in voxels and the packed bits of its crop."""
    packed = zlib.compress(np.packbits(mask.crop, axis=None).tobytes(), 6)
    return {
        "offset_voxels": list(mask.offset),
        "crop_shape_voxels": list(mask.crop.shape),
        "shape_voxels": list(mask.shape),
        "encoding": MASK_ENCODING,
        "data": base64.b64encode(packed).decode("ascii"),
    }


def mask_from_json(data: Mapping[str, Any]) -> CroppedMask:
    """The mask that :func:`mask_to_json` wrote.

    Raises:
        ReadError: The data are damaged or do not fit the shapes.
        KeyError: A field is missing.
    """
    offset, crop_shape, shape = (
        tuple(int(n) for n in data[key]) for key in ("offset_voxels", "crop_shape_voxels", "shape_voxels")
    )
    fits = len(offset) == len(crop_shape) == len(shape) and all(
        o >= 0 and n >= 0 and o + n <= size for o, n, size in zip(offset, crop_shape, shape, strict=False)
    )
    if data["encoding"] != MASK_ENCODING or not fits:
        raise ReadError("Damaged report", "a mask has another encoding or lies outside its image", MASK_ENCODING)
    count = int(np.prod(crop_shape, dtype=np.int64))
    size = (count + 7) // 8
    try:
        # Never more bytes than the shape needs: a forged report cannot fill the memory.
        bits = zlib.decompressobj().decompress(base64.b64decode(data["data"], validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ReadError("Damaged report", "a mask cannot be unpacked", MASK_ENCODING) from error
    if len(bits) != size:
        raise ReadError("Damaged report", f"a mask holds {len(bits)} bytes", f"{size} bytes")
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=count)
    return CroppedMask(flat.astype(bool).reshape(crop_shape), offset, shape)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    text, flag, free = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
    whole = {"type": "integer", "minimum": 0}
    score = {"type": "number", "minimum": 0, "maximum": 1}

    def record(properties: dict[str, Any], optional: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        names = [name for name in properties if name not in optional]
        return {
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
            **more,
        }

    def array(items: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"type": "array", "items": items, **more}

    triple = array(whole, minItems=3, maxItems=3)
    mask = record(
        {
            "offset_voxels": triple,
            "crop_shape_voxels": triple,
            "shape_voxels": triple,
            "encoding": {"const": MASK_ENCODING},
            "data": {"type": "string", "contentEncoding": "base64"},
        }
    )
    finding = record(
        {
            "number": {"type": "integer", "minimum": 1},
            "target": text,
            "phrase": text,
            "presence_0_to_1": score,
            "plane": {"enum": list(PLANES)},
            "slice_indices": array(whole),
            "flags": array(text),
            "measurements": record({key: rule for key, (_, rule) in _MEASUREMENTS.items()}),
            "mask": {"$ref": "#/$defs/mask"},
        }
    )
    edit = record({"code": {"enum": ["rejected", "renamed", "redrawn"]}, "finding_numbers": array(whole)})
    return record(
        {
            "schema": {"const": SCHEMA},
            "version": {"const": VERSION},
            "notice": text,
            "image": free,
            "model": free,
            "settings": free,
            "slices": record({"total_count": whole, "done_indices": array(whole), "skipped_indices": array(whole)}),
            "wall_time_s": {"type": "number", "minimum": 0},
            "cancelled": flag,
            "warnings": array(text),
            "edits": array(edit),
            "narrative": text,
            "sentences": array(record({"slice_index": whole, "text": text})),
            "findings": array({"$ref": "#/$defs/finding"}),
            "absences": array(record({"target": text, "presence_0_to_1": score, "slices_searched_count": whole})),
        },
        ("edits",),
        **{
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "UniBiomed report",
            "$defs": {"mask": mask, "finding": finding},
        },
    )
