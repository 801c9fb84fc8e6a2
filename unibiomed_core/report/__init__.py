"""Findings become a report: how it is built, its words, its JSON. This page names what is public."""

from unibiomed_core.report.build import build, colour, labels, paint
from unibiomed_core.report.json import from_json, read, schema, to_json
from unibiomed_core.report.text import (
    COUNTING,
    EDITED,
    FLAG_WORDS,
    answer_text,
    caution_text,
    checked_slice,
    counting_text,
    edit_text,
    finding_text,
    narrative,
    number_text,
    presence_words,
    ranges_text,
    slices_text,
    told_apart,
)

__all__ = [
    "COUNTING",
    "EDITED",
    "FLAG_WORDS",
    "answer_text",
    "build",
    "caution_text",
    "checked_slice",
    "colour",
    "counting_text",
    "edit_text",
    "finding_text",
    "from_json",
    "labels",
    "narrative",
    "number_text",
    "paint",
    "presence_words",
    "ranges_text",
    "read",
    "schema",
    "slices_text",
    "to_json",
    "told_apart",
]
