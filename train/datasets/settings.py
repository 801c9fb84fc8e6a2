"""The ``name=value`` words of a conversion: which there are, what a value has to be, and what it becomes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed_core import vocabulary
from unibiomed_core.errors import ConfigError
from unibiomed_core.files import read_json
from unibiomed_core.modalities import modality

from ..config import named_value


def _whole(lowest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = int(value)
        if number < lowest:
            raise ValueError(value)
        return number

    return read


def _yes_no(value: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[value.lower()]


def _parts(value: str) -> tuple[str, ...]:
    parts = tuple(word.strip() for word in value.lower().split(","))
    if not set(parts) <= set(vocabulary.PARTS):
        raise ValueError(value)
    return parts


_LABELS = 'a JSON file of {"target": [values]}'


def _labels(value: str) -> Mapping[str, tuple[int, ...]]:
    """Target -> values from a JSON file of {"target": value or [values]}."""
    table = read_json(Path(value), ConfigError, "Table of labels cannot be read", _LABELS)
    return {str(k): tuple(int(x) for x in (v if isinstance(v, list) else [v])) for k, v in table.items()}


SETTINGS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "side": ("side", _whole(0), "a whole number of pixels, 0 for the source's own size"),
    "modality": ("modality", lambda value: modality(value).name, "a modality"),
    "licence": ("licence", str, "words"),
    "body": ("body", _parts, f"parts of the body, separated by commas, of {', '.join(vocabulary.PARTS)}"),
    "step": ("step", _whole(1), "a whole number from 1"),
    "name": ("dataset", str, "a name"),
    "findings_known": ("findings_known", _yes_no, "yes or no"),
    "labels": ("labels", _labels, _LABELS),
}
"""Name on the command line -> field of the job, reader, and what a value has to be."""


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``name=value`` words as fields of a job.

    Raises:
        ConfigError: A name is unknown (the nearest are offered) or a value has another type.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, value = named_value(setting)
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=3, cutoff=0.3)
            raise ConfigError("Unknown setting", f"'{name}'", f"nearest: {', '.join(near or SETTINGS)}")
        field, reader, expected = SETTINGS[name]
        try:
            values[field] = reader(value)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as cause:
            raise ConfigError("Setting of another type", f"{name}={value}", expected) from cause
    return values
