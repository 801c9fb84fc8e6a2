"""The report as JSON: a versioned layout that gives the report back exactly."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from unibiomed_core.errors import ReadError
from unibiomed_core.files import read_json
from unibiomed_core.json_schema import mismatch
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.report.sections import TITLES, is_abnormal, line_text, sections
from unibiomed_core.types import (
    ENDINGS,
    PLANES,
    Absence,
    Band,
    Check,
    CheckCode,
    CroppedMask,
    Doubt,
    Evidence,
    Finding,
    Measurements,
    Note,
    ReaderEdit,
    Report,
    Shown,
    Tally,
    ToldBy,
)  # fmt: skip

SCHEMA = "unibiomed.report"
VERSION = 2
"""Reports of the first version are read, too."""

MASK_ENCODING = "base64(zlib(packbits))"
"""Crop in C order, eight voxels a byte, most significant bit first, the last byte padded with zeros."""

MOST_SLICES = 1 << 20
"""Along an axis, of voxels too: above what image formats can say, and few enough to be counted one by one."""

MOST_VOXELS = 1 << 31
"""Of a mask's crop, which is unpacked to a byte each: twice a scan of 1024 x 1024 x 1024."""

_MOST = 3.5e38
"""Voxels are float32 at most, and so is what is measured of them."""

_WHOLE: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_MEASURE: Mapping[str, Any] = {"type": ["number", "null"], "minimum": 0, "maximum": _MOST}
_SLICE: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": MOST_SLICES}

_MEASUREMENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "voxel_count": ("voxel_count", _WHOLE),
    "volume_ml": ("volume_ml", _MEASURE),
    "area_mm2": ("area_mm2", _MEASURE),
    "longest_axial_diameter_mm": ("longest_axial_diameter_mm", _MEASURE),
    "perpendicular_diameter_mm": ("perpendicular_diameter_mm", _MEASURE),
    "intensity_mean": ("intensity_mean", {"type": ["number", "null"], "minimum": -_MOST, "maximum": _MOST}),
    "intensity_sd": ("intensity_sd", _MEASURE),
    "intensity_unit": ("intensity_unit", {"type": "string"}),
    "slice_first_index": ("slice_first", _SLICE),
    "slice_last_index": ("slice_last", _SLICE),
    "slice_largest_index": ("slice_largest", _SLICE),
    "side": ("side", {"enum": ["left", "right", "both", "midline", "unknown"]}),
    "touches_edge": ("touches_edge", {"type": "boolean"}),
}
"""JSON key -> (field of Measurements, its JSON Schema)."""

_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TALLY: dict[str, tuple[str, dict[str, Any]]] = {
    "instances_count": ("instances", {"type": ["integer", "null"], "minimum": 0}),
    "mean_area": ("mean_area", _NUMBER),
    "sd_area": ("sd_area", _NUMBER),
    "density": ("density", _NUMBER),
    "fraction_0_to_1": ("fraction", {"type": "number", "minimum": 0, "maximum": 1}),
    "length": ("length", _NUMBER),
    "unit": ("unit", {"enum": ["mm", "px"]}),
    "density_side": ("density_side", {"type": "integer", "minimum": 1}),
}
"""Key -> field of a tally, and its rule."""


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
        "cancelled": not report.complete,
        "ended": report.ended,
        "warnings": [{"code": n.code, "text": n.text, "values": dict(n.values)} for n in report.warnings],
        "edits": [{"code": edit.code, "finding_numbers": list(edit.numbers)} for edit in report.edits],
        "shown": None if report.shown is None else _shown_to_json(report.shown),
        "narrative": report.narrative,
        "sections": [
            {
                "code": section.code,
                "title": section.title,
                "text": [line_text(line) for line in section.lines],
                "finding_numbers": [f.number for f in section.findings],
            }
            for section in sections(report)
        ],
        "sentences": [{"slice_index": index, "text": text} for index, text in report.sentences],
        "findings": [
            {
                "number": f.number,
                "target": f.target,
                "phrase": f.phrase,
                "section": "abnormal" if is_abnormal(f.target or f.phrase, report.image["modality"]) else "structures",
                "within_number": f.within,
                "presence_0_to_1": f.presence,
                "plane": f.plane,
                "slice_indices": list(f.slices),
                "flags": list(f.flags),
                "measurements": {key: getattr(f.measurements, name) for key, (name, _) in _MEASUREMENTS.items()},
                **({} if f.tally is None else {"tally": _tally_to_json(f.tally)}),
                "evidence": None if f.evidence is None else _evidence_to_json(f.evidence),
                "description": f.description,
                "mask": mask_to_json(f.mask),
            }
            for f in report.findings
        ],
        "absences": [
            {
                "target": a.target,
                "presence_0_to_1": a.presence,
                "slices_searched_count": a.slices_searched,
                "doubt": a.doubt,
            }
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
    if data.get("version") == 1:
        data = _from_first(data)
    if data.get("version") != VERSION:
        told = str(data.get("version"))[:40]
        raise ReadError("Report of another version", f"version {told}", expected, "Update UniBiomed.")
    if wrong := mismatch(data, schema()):
        raise ReadError("Damaged report", wrong, expected, "Write the report again.")
    report = Report(
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
                tally=_tally_from_json(f.get("tally")),
                within=f["within_number"],
                evidence=_evidence_from_json(f["evidence"]),
                description=f["description"],
            )
            for f in data["findings"]
        ),
        absences=tuple(
            Absence(a["target"], a["presence_0_to_1"], a["slices_searched_count"], a["doubt"]) for a in data["absences"]
        ),
        narrative=data["narrative"],
        sentences=tuple((s["slice_index"], s["text"]) for s in data["sentences"]),
        image=data["image"],
        model=data["model"],
        settings=data["settings"],
        warnings=tuple(Note(note["code"], note["text"], note["values"]) for note in data["warnings"]),
        slices_done=tuple(data["slices"]["done_indices"]),
        slices_skipped=tuple(data["slices"]["skipped_indices"]),
        slices_total=data["slices"]["total_count"],
        seconds=data["wall_time_s"],
        # Reports that were written before this had a code could only be stopped.
        ended=data.get("ended", "cancelled" if data["cancelled"] else "finished"),
        notice=data["notice"],
        # Reports that were written before readers' edits had a field of their own have none.
        edits=tuple(ReaderEdit(edit["code"], tuple(edit["finding_numbers"])) for edit in data.get("edits", ())),
        shown=None if data["shown"] is None else _shown_from_json(data["shown"]),
    )
    shape = tuple(report.image["shape_voxels_zyx"])
    if other := next((f for f in report.findings if f.mask.shape != shape), None):
        found = f"the mask of finding {other.number} is one of {other.mask.shape} voxels, the image has {shape}"
        raise ReadError("Damaged report", found, expected, "Write the report again.")
    return report


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
    """The mask that :func:`mask_to_json` wrote; its fields and their types are those of :func:`schema`.

    Raises:
        ReadError: The data are damaged or do not fit the shapes.
    """
    offset, crop_shape, shape = (tuple(data[key]) for key in ("offset_voxels", "crop_shape_voxels", "shape_voxels"))
    count = math.prod(crop_shape)
    inside = all(o + n <= size for o, n, size in zip(offset, crop_shape, shape, strict=True))
    if not inside or count > MOST_VOXELS:
        raise ReadError("Damaged report", f"a mask of {crop_shape} voxels at {offset}", f"one that lies in {shape}")
    size = (count + 7) // 8
    try:
        # Never more bytes than the shape needs: a forged report cannot fill the memory.
        bits = zlib.decompressobj().decompress(base64.b64decode(data["data"], validate=True), size + 1)
    except (ValueError, zlib.error) as error:  # base64 raises two kinds of ValueError
        raise ReadError("Damaged report", "a mask cannot be unpacked", MASK_ENCODING) from error
    if len(bits) != size:
        raise ReadError("Damaged report", f"a mask holds {len(bits)} bytes", f"{size} bytes")
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=count)
    return CroppedMask(flat.view(bool).reshape(crop_shape), offset, shape)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    text, flag, free = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
    whole, index = dict(_WHOLE), dict(_SLICE)
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

    triple = array(index, minItems=3, maxItems=3)
    mask = record(
        {
            "offset_voxels": triple,
            "crop_shape_voxels": triple,
            "shape_voxels": triple,
            "encoding": {"const": MASK_ENCODING},
            "data": {"type": "string", "contentEncoding": "base64"},
        }
    )
    check = record(
        {
            "code": {"enum": list(get_args(CheckCode))},
            "agrees": flag,
            "score_0_to_1": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        }
    )
    evidence = record({"found_by": array(text), "fitted": flag, "checks": array(check)})
    share = record({"name": text, "share_0_to_1": score})
    band = record({"slice_first_index": index, "slice_last_index": index, "parts": array(share)})
    shown = record(
        {
            "modality": {"enum": list(MODALITIES)},
            "modality_by": {"enum": list(get_args(ToldBy))},
            "modality_shares": array(share),
            "bands": array(band),
            "slices_looked_at_indices": array(index),
        }
    )
    section = record(
        {
            "code": {"enum": list(TITLES)},
            "title": text,
            "text": array(text),
            "finding_numbers": array(whole),
        }
    )
    finding = record(
        {
            "number": {"type": "integer", "minimum": 1},
            "target": text,
            "phrase": text,
            "presence_0_to_1": score,
            "plane": {"enum": list(PLANES)},
            "slice_indices": array(index, minItems=1),
            "flags": array(text),
            "section": {"enum": ["abnormal", "structures"]},
            "within_number": {"type": ["integer", "null"], "minimum": 1},
            "evidence": evidence | {"type": ["object", "null"]},
            "description": text,
            "measurements": record({key: dict(rule) for key, (_, rule) in _MEASUREMENTS.items()}),
            "tally": record({key: dict(rule) for key, (_, rule) in _TALLY.items()}),
            "mask": {"$ref": "#/$defs/mask"},
        },
        optional=("tally",),
    )
    window = record({"name": text, "low": {"type": "number"}, "high": {"type": "number"}})
    # What a report's text and its files are made of; more is told of the image, and may be added to.
    image = {
        "type": "object",
        "properties": {
            "name": text,
            "source": text,
            "modality": {"enum": list(MODALITIES)},
            "shape_voxels_zyx": triple,
            "is_2d": flag,
            "orientation_known": flag,
            "plane": {"enum": list(PLANES)},
            "acquisition_plane": {"enum": [*PLANES, None]},
            "window": window | {"type": ["object", "null"]},
            "window_unit": text,
        },
    }
    image["required"] = list(image["properties"])
    settings = {
        "type": "object",
        "properties": {
            "plan": text,
            "every": {"type": "integer", "minimum": 1, "maximum": MOST_SLICES},
            "unknown_targets": array(record({"name": text, "code": text, "nearest": array(text)})),
        },
    }
    edit = record({"code": {"enum": ["rejected", "renamed", "redrawn"]}, "finding_numbers": array(whole)})
    return record(
        {
            "schema": {"const": SCHEMA},
            "version": {"const": VERSION},
            "notice": text,
            "image": image,
            "model": free,
            "settings": settings,
            "slices": record({"total_count": index, "done_indices": array(index), "skipped_indices": array(index)}),
            "wall_time_s": {"type": "number", "minimum": 0},
            "cancelled": flag,
            "ended": {"enum": list(ENDINGS)},
            "warnings": array(record({"code": text, "text": text, "values": free})),
            "edits": array(edit),
            "shown": shown | {"type": ["object", "null"]},
            "narrative": text,
            "sections": array(section),
            "sentences": array(record({"slice_index": index, "text": text})),
            "findings": array({"$ref": "#/$defs/finding"}),
            "absences": array(
                record(
                    {
                        "target": text,
                        "presence_0_to_1": score,
                        "slices_searched_count": whole,
                        "doubt": {"enum": list(get_args(Doubt))},
                    }
                )
            ),
        },
        ("edits", "ended"),
        **{
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "UniBiomed report",
            "$defs": {"mask": mask, "finding": finding},
        },
    )


def _tally_to_json(tally: Tally) -> dict[str, Any]:
    return {key: getattr(tally, name) for key, (name, _) in _TALLY.items()}


def _tally_from_json(stored: Mapping[str, Any] | None) -> Tally | None:
    return None if stored is None else Tally(**{name: stored[key] for key, (name, _) in _TALLY.items()})


def _evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    checks = [{"code": c.code, "agrees": c.agrees, "score_0_to_1": c.score} for c in evidence.checks]
    return {"found_by": list(evidence.found_by), "fitted": evidence.fitted, "checks": checks}


def _evidence_from_json(stored: Mapping[str, Any] | None) -> Evidence | None:
    if stored is None:
        return None
    checks = tuple(Check(c["code"], c["agrees"], c["score_0_to_1"]) for c in stored["checks"])
    return Evidence(tuple(stored["found_by"]), checks, stored["fitted"])


def _shown_to_json(shown: Shown) -> dict[str, Any]:
    return {
        "modality": shown.modality,
        "modality_by": shown.modality_by,
        "modality_shares": _shares_to_json(shown.modality_shares),
        "bands": [
            {
                "slice_first_index": band.slice_first,
                "slice_last_index": band.slice_last,
                "parts": _shares_to_json(band.parts),
            }
            for band in shown.bands
        ],
        "slices_looked_at_indices": list(shown.slices_looked_at),
    }


def _shown_from_json(stored: Mapping[str, Any]) -> Shown:
    return Shown(
        stored["modality"],
        stored["modality_by"],
        _shares_from_json(stored["modality_shares"]),
        tuple(
            Band(band["slice_first_index"], band["slice_last_index"], _shares_from_json(band["parts"]))
            for band in stored["bands"]
        ),
        tuple(stored["slices_looked_at_indices"]),
    )


def _shares_to_json(shares: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"name": name, "share_0_to_1": share} for name, share in shares]


def _shares_from_json(stored: list[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    return tuple((one["name"], one["share_0_to_1"]) for one in stored)


def _from_first(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first version of the layout as the second; what is damaged in it stays so, for the schema to refuse.

    It knew no parts and wholes, no evidence, and stated warnings without a code.
    """
    try:
        modality = str(data["image"]["modality"])
        threshold = float({**data["settings"], **data["model"]}.get("presence_threshold", 0.5))
        newer = {"within_number": None, "evidence": None, "description": ""}
        return {
            **data,
            "version": VERSION,
            "warnings": [{"code": "", "text": text, "values": {}} for text in data["warnings"]],
            "shown": None,
            "sections": [],
            "findings": [
                {
                    **f,
                    **newer,
                    "section": "abnormal" if is_abnormal(f["target"] or f["phrase"], modality) else "structures",
                }
                for f in data["findings"]
            ],
            "absences": [
                {**a, "doubt": "no_outline" if a["presence_0_to_1"] >= threshold else ""} for a in data["absences"]
            ],
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {**data, "version": VERSION}
