"""From what the dock's controls say to a job: which slices, which phrases, which prompts. No Qt, no layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from napari_unibiomed.canvas.boxes import Box, box_prompts
from napari_unibiomed.jobs import Job, JobKind
from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.report import checked_slice
from unibiomed_core.tasks import check_text
from unibiomed_core.types import Plane, Prompt, Region, Volume

Span = Literal["all", "current", "range"]

PLANS: dict[str, str] = {"all": "every slice in turn", "coarse-to-fine": "coarse, then fine"}
"""Plans over slices that every model can follow, and their words."""

WITH_FINDINGS: tuple[JobKind, ...] = ("report", "segment")
"""Tasks whose masks become findings."""

AROUND = 5
"""Slices on either side of the shown one that "From view" takes."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Which slices are asked about, as people choose them.

    Args:
        span: All that show something, the one that is shown, or a range.
        first: First slice number of a range, as napari's slider counts; ``last`` is taken too.
        every: Step between slices.
    """

    span: Span = "all"
    first: int = 0
    last: int = 0
    every: int = 1


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What the task section says.

    Args:
        text: Phrases to segment, separated by commas or lines, or a question.
        describe: Let the model describe key slices in its own words.
        max_new_tokens: Longest answer.
        options: How slices are planned and masks become findings; the rest of this request is made from the above.
    """

    task: JobKind = "report"
    text: str = ""
    slices: Slices = Slices()
    describe: bool = True
    max_new_tokens: int = 256
    options: RunRequest = field(default_factory=RunRequest)


def phrases_in(text: str) -> tuple[str, ...]:
    """The phrases of a list, in order, each once."""
    parts = (re.sub(r"\s+", " ", part).strip() for part in re.split(r"[,;\n]", text))
    return tuple(dict.fromkeys(part for part in parts if part))


def offered_targets(modality: str, learnt: Sequence[str] = ()) -> tuple[str, ...]:
    """Phrases to offer: those a model was trained on for the modality, else the vocabulary's."""
    return tuple(learnt) or tuple(target.name for target in vocabulary.for_modality(modality))


def suggestions(targets: Sequence[str]) -> dict[str, str]:
    """What is offered while somebody types -> the phrase it gives: each target, and "synonym (target)"."""
    found = {name: name for name in targets}
    for name in targets:
        entry = vocabulary.targets().get(name)
        for synonym in entry.synonyms if entry else ():
            if vocabulary.normalise(synonym) != vocabulary.normalise(name):
                found.setdefault(f"{synonym} ({name})", name)
    return found


STARTERS = (
    "What can be seen in this image?",
    "Is there any abnormality in this image?",
    "Which organs can be seen in this image?",
)
"""Questions to begin with."""


def chosen_indices(slices: Slices, volume: Volume, plane: Plane, current: int | None) -> tuple[int, ...] | None:
    """Canonical indices of the chosen slices; None for all that show something.

    Args:
        current: Canonical index of the slice that is shown, None where it is not known.

    Raises:
        PromptError: A slice number does not exist, or no slice is shown.
    """
    if volume.is_2d or slices.span == "all":
        return None
    if slices.span == "current":
        if current is None:
            raise PromptError(
                "No slice is shown", "the viewer is in 3D", "a 2D view", "Switch to 2D or choose a range."
            )
        return (current,)
    ends = [checked_slice(volume, plane, number) for number in (slices.first, slices.last)]
    return tuple(range(min(ends), max(ends) + 1, slices.every))


def range_around(index: int, volume: Volume, plane: Plane) -> tuple[int, int]:
    """Slice numbers of the range around a shown slice, lower one first."""
    return max(0, index - AROUND), min(index + AROUND, volume.slice_count(plane) - 1)


def prompts_of(wishes: TaskOptions, boxes: Sequence[Box]) -> tuple[Prompt, ...]:
    """The prompts of a task; none for a report, which looks for all that the model knows.

    Raises:
        PromptError: There is no phrase, no question or no box, or it cannot be used.
    """
    if wishes.task == "report":
        return ()
    if wishes.task == "segment":
        phrases = phrases_in(wishes.text)
        check_text(wishes.text if phrases else "", "phrase")
        return tuple(Prompt("segment", target=phrase) for phrase in phrases)
    if wishes.task == "ask":
        question = check_text(wishes.text, "question").strip()
        return (Prompt("vqa", question=question, max_new_tokens=wishes.max_new_tokens),)
    if not boxes:
        raise PromptError("No box", "no box is drawn on this image", "a box", "Press Draw box and drag one.")
    return tuple(prompt for box in boxes for prompt in box_prompts(box.region))


def usable_options(wishes: TaskOptions, volume: Volume) -> RunRequest:
    """The options that mean something for a task: none for questions, no plan beside single slices or in a picture."""
    if wishes.task not in WITH_FINDINGS:
        return RunRequest()
    if volume.is_2d:
        return RunRequest(least_presence=wishes.options.least_presence, min_area_mm2=wishes.options.min_area_mm2)
    return wishes.options if wishes.slices.span == "all" else replace(wishes.options, plan="all")


def make_job(
    wishes: TaskOptions,
    volume: Volume,
    plane: Plane,
    window: Window | None,
    *,
    current: int | None = None,
    boxes: Sequence[Box] = (),
) -> Job:
    """The job that the controls describe.

    Args:
        plane: Slices are taken across it; boxes bring their own.
        current: Canonical index of the slice that is shown.

    Raises:
        PromptError: Something to ask is missing, or a slice does not exist.
    """
    prompts = prompts_of(wishes, boxes)
    roi = wishes.task == "roi"
    request = replace(
        usable_options(wishes, volume),
        prompts=prompts,
        plane=boxes[0].region.plane if roi else plane,
        indices=None if roi else chosen_indices(wishes.slices, volume, plane, current),
        every=1 if roi or wishes.slices.span == "current" else wishes.slices.every,
        window=window,
        describe=wishes.describe and wishes.task == "report",
    )
    return Job(wishes.task, volume, request)


def segment_in_box(phrase: str, region: Region, volume: Volume, window: Window | None) -> Job:
    """The job that turns the class of a box into a mask: the phrase on the box's slice, only what meets the box.

    Raises:
        PromptError: The answer gave no phrase.
    """
    if not phrase:
        raise PromptError("No phrase", "the answer names nothing that could be segmented", "a name", "Ask again.")
    request = RunRequest.segment(phrase, plane=region.plane, indices=(region.index,), window=window, describe=False)
    return Job("segment", volume, request, within=region)
