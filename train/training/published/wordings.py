"""What the published training asks and how it answers: as many patterns a task as it has.

The instructions in ``tasks.py`` and the answers are the published strings; the other questions keep to the published
patterns (what is asked, what is named, which form the answer shall have) in words of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unibiomed_core.tasks import IMAGE, TASKS

from ...data.questions import DISEASE_ANSWERS, SEGMENT_ANSWERS

_WITH_MASKS = "Please respond with interleaved segmentation masks for the corresponding parts."

_SEGMENT = (
    ("Please segment {target}", "."),
    ("Segment {target}", "."),
    ("Can you segment {target}", "?"),
    ("What is {target}? Give a segmentation mask", "."),
    ("What is{target}? Show a segmentation mask", "."),  # the missing space is published
    ("Where is {target}", "?"),
    ("Where is {target}? Show its mask", "."),
    ("Highlight {target} with a segmentation mask", "."),
)
_ABNORMAL = (
    "Can we observe any signs of abnormality{where}?",
    "Is there any sign of disease{where}?",
    "Is anything abnormal{where}?",
    "Can an abnormality be seen{where}?",
    "Does the image show an abnormality{where}?",
    "What is abnormal{where}?",
    "Are there abnormal regions{where}?",
    "Which abnormality is there{where}?",
)
_REPORT = (
    "Please diagnose this image. Highlight the region with interleaved segmentation masks.",
    TASKS["report"].instruction.removeprefix(IMAGE),
    "Please write a brief report of this image. Highlight the region with interleaved segmentation masks.",
    "Please give a brief description of this image. Highlight the region with interleaved segmentation masks.",
)
_REGION = (
    TASKS["roi_class"].instruction.removeprefix(f"{IMAGE}\n"),
    "What is the <region>?",
    "What does the <region> show?",
    "What can be seen in the <region>?",
    "Which structure is the <region>?",
    "Identify the <region> in the picture.",
    "Please identify the <region>.",
    "Name what the <region> shows.",
    "Please name the <region> in the picture.",
)
_DETAIL = (
    "describe the region <region> in the image in detail",
    "give a detailed description of the region <region>",
    "explain in detail what the region <region> shows",
    "tell in detail what can be seen in the region <region>",
    "write a detailed description of the region <region> in the image",
    "report the details of the region <region>",
    "describe everything that the region <region> shows",
    "say in detail how the region <region> looks",
    "describe the content of the region <region> in detail",
    "characterise the region <region> of the image in detail",
)


def _asked(sentence: str) -> str:
    return f"{IMAGE}\n{sentence}"


QUESTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "segment": tuple(_asked(text + end) for text, mark in _SEGMENT for end in (mark, "")),
        "volume": tuple(f"{IMAGE}{text}{mark}" for text, mark in _SEGMENT),
        "disease": tuple(_asked(f"{text.replace('{where}', '')} {_WITH_MASKS}") for text in _ABNORMAL),
        "grounded_vqa": tuple(_asked(f"{t.replace('{where}', ' in {anatomy}')} {_WITH_MASKS}") for t in _ABNORMAL),
        "report": tuple(map(_asked, _REPORT)),
        "roi_class": tuple(map(_asked, _REGION)),
        "region_report": tuple(
            _asked(text)
            for base in _DETAIL
            for text in (f"{base[0].upper()}{base[1:]}.", f"Please {base}.", f"Can you {base}?")
        ),
    }
)
"""Role of a sample -> questions, all equally likely; the image mark stands before a newline, but for volumes."""

ANSWERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "segment": SEGMENT_ANSWERS,
        "volume": SEGMENT_ANSWERS,
        "disease": DISEASE_ANSWERS,
        "grounded_vqa": ("<p> {phrase}. </p> [SEG]",),
        "report": ("<p> {phrase}. {report} </p> [SEG]",),
        "roi_class": ("{phrase}",),
        "region_report": ("{report}",),
    }
)

NEWLINE_BEFORE_ANSWER = frozenset({"grounded_vqa", "report", "volume"})
"""Roles whose chat text has the newline between user and assistant, and one after the answer, that carries no loss."""
