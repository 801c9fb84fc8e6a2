"""Plain JSON values against a JSON Schema: the part of draft 2020-12 that documents of this package use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MOST_LEVELS = 64
"""Values inside values; what people and programs write stays far below, and what walks through them may recurse."""

LARGEST_WHOLE = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly (RFC 8259, section 6)."""


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "", root: Mapping[str, Any] | None = None) -> str:
    """Where and how ``value`` first differs from ``schema``, or "" where it fits.

    Stricter than the draft in three points, which no rule can state: NaN and infinity, which Python reads, are no
    numbers; 1.0 is no integer; and nothing goes beyond :data:`LARGEST_WHOLE` or :data:`MOST_LEVELS`.

    Args:
        schema: Its keywords may be ``type``, ``const``, ``enum``, ``minimum``, ``maximum``, ``items``, ``minItems``,
            ``maxItems``, ``properties``, ``required``, ``additionalProperties`` and ``$ref`` into ``$defs``.
        where: The value's place in the document, as "findings[0].mask".
        root: The schema that has the ``$defs``; ``schema`` itself if None.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    place = where or "the document"
    kind = _kind(value)
    if kind == "none of JSON":
        return f"{place} is no number that JSON has, or one of too many digits"
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if kind not in wanted and not (kind == "integer" and "number" in wanted):
            return f"{place} is of type {kind}, not {' or '.join(wanted)}"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(kind == _kind(one) and value == one for one in allowed):
        return f"{place} is none of {', '.join(map(repr, allowed))}"
    if kind in {"integer", "number"}:
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return "" if low <= value <= high else f"{place} is {value!r}, not from {low} to {high}"
    if kind == "array":
        return _array(value, schema, where, root)
    return _object(value, schema, where, root) if kind == "object" else ""


def _array(value: Any, schema: Mapping[str, Any], where: str, root: Mapping[str, Any]) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        return f"{where or 'the document'} has {len(value)} items, not from {low} to {high}"
    inner = schema.get("items", {})
    return _first(((item, inner, f"{where}[{number}]") for number, item in enumerate(value)), where, root)


def _object(value: Any, schema: Mapping[str, Any], where: str, root: Mapping[str, Any]) -> str:
    known = schema.get("properties", {})
    start = f"{where}." if where else ""
    for name in schema.get("required", ()):
        if name not in value:
            return f"the field '{start}{name}' is missing"
    if schema.get("additionalProperties") is False and (more := [name for name in value if name not in known]):
        return f"there is a field '{start}{str(more[0])[:40]}'"
    return _first(
        ((item, known.get(name, {}), f"{start}{str(name)[:40]}") for name, item in value.items()), where, root
    )


def _first(inner: Any, where: str, root: Mapping[str, Any]) -> str:
    """What is wrong with the first item that is."""
    if where.count(".") + where.count("[") >= MOST_LEVELS:
        return f"{where[:60]}... is nested too deeply"
    return next((found for item, schema, place in inner if (found := mismatch(item, schema, place, root))), "")


def _kind(value: Any) -> str:
    """The name that JSON Schema has for a value's type; "none of JSON" for numbers that are not kept by all readers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer" if abs(value) <= LARGEST_WHOLE else "none of JSON"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "none of JSON"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, Mapping) else "none of JSON"
