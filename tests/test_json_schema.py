"""What a schema refuses is refused with its place; an independent validator of JSON Schema says the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from unibiomed_core.json_schema import LARGEST_WHOLE, MOST_LEVELS, mismatch

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "share": {"type": ["number", "null"]},
        "side": {"enum": ["left", 1, None]},
        "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "minItems": 1, "maxItems": 2},
        "more": {"type": "object"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": ""},
        {"name": "a", "count": 9, "share": None, "side": None, "places": [{"x": 1}, {"x": 0.5, "y": []}]},
        {"name": "a", "share": 1, "side": 1, "more": {"a": [[{"b": None}]]}},
    ],
)
def test_what_fits(value: Any) -> None:
    assert mismatch(value, SCHEMA) == ""
    jsonschema.validate(value, SCHEMA)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "the document is of type array, not object"),
        ({}, "the field 'name' is missing"),
        ({"name": 1}, "name is of type integer, not string"),
        ({"name": "a", "other": 1}, "there is a field 'other'"),
        ({"name": "a", "count": True}, "count is of type boolean, not integer"),
        ({"name": "a", "count": -1}, "count is -1, not from 0 to 9"),
        ({"name": "a", "share": "1"}, "share is of type string, not number or null"),
        ({"name": "a", "side": True}, "side is none of 'left', 1, None"),
        ({"name": "a", "places": []}, "places has 0 items, not from 1 to 2"),
        ({"name": "a", "places": [{"x": 1}, {}]}, "the field 'places[1].x' is missing"),
        ({"name": "a", "places": [{"x": [1]}]}, "places[0].x is of type array, not number"),
    ],
)
def test_what_differs_is_told_with_its_place(value: Any, told: str) -> None:
    assert mismatch(value, SCHEMA) == told
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), LARGEST_WHOLE + 1, -(10**400)])
def test_numbers_that_not_every_reader_keeps_are_refused_anywhere(number: float) -> None:
    assert "no number that JSON has" in mismatch({"name": "a", "more": {"a": [number]}}, SCHEMA)
    assert "no number that JSON has" in mismatch({"name": "a", "share": number}, SCHEMA)
    assert mismatch({"name": "a", "count": 1.0}, SCHEMA) == "count is of type number, not integer"


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_free_values_are_bounded_in_depth(opened: str, closed: str) -> None:
    def nested(levels: int) -> Any:
        return {"name": "a", "more": {"a": json.loads(opened * levels + "1" + closed * levels)}}

    assert mismatch(nested(MOST_LEVELS - 5), SCHEMA) == ""
    assert "nested too deeply" in mismatch(nested(MOST_LEVELS + 5), SCHEMA)
