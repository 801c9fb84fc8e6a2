"""From what a user asks to what the model is given: checks, wording, known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unibiomed_core import modalities, phrases, vocabulary
from unibiomed_core.errors import PromptError
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.processor import Processor
from unibiomed_core.tasks import END, MODALITY_ANSWERS, NO_FINDINGS, PART_ANSWERS, TASKS, check_text, tag_phrases
from unibiomed_core.types import Prompt, Region, Slice

MIN_BOX_PX = 8


@dataclass(frozen=True, slots=True)
class Question:
    """A checked prompt.

    Args:
        text: What stands between the chat markers, ``<image>`` not yet expanded.
        target: Canonical name that an answer without words of its own stands for; empty where there is none.
        answer: A known answer, with its end mark; None where the model writes, or chooses.
        choices: Closed answers, name -> words with their end mark, of which the model gives the likeliest; empty where
            it writes.
    """

    prompt: Prompt
    text: str
    target: str
    answer: str | None
    choices: Mapping[str, str] = field(default_factory=dict)


def resolve(prompt: Prompt, piece: Slice, processor: Processor) -> Question:
    """Check a prompt against a slice and word it for the model.

    A target is given to the model by the phrase it was trained with ("liver" -> "liver in abdomen CT").

    Raises:
        PromptError: A text is empty, too long or holds control characters; the task or target is unknown; a region is
            missing, lies on another slice or outside of it, is inverted or too small.
    """
    if prompt.task not in TASKS:
        raise PromptError("Unknown task", f"'{prompt.task}'", f"one of {', '.join(TASKS)}")
    if prompt.max_new_tokens < 1:
        raise PromptError("Answer length out of range", f"{prompt.max_new_tokens} tokens", "at least 1")
    if prompt.region is not None:
        check_region(prompt.region, piece)
    if prompt.exact:
        check_text(prompt.question, "question")
        return Question(prompt, processor.prompt_input(prompt), prompt.target, processor.known_answer(prompt))
    task, config = TASKS[prompt.task], processor.config
    if prompt.question:
        check_text(prompt.question, "question")
    if task.draws_box and prompt.region is None:
        raise PromptError("No region", f"the task '{task.name}' was given without one", "a box", "Draw a box.")
    wording = config.wording.get(prompt.task, task.instruction)
    target, asked, answer = "", prompt, prompt.answer
    if "{target}" in wording and (prompt.target or not prompt.question):
        check_text(prompt.target, "target")
    if task.name == "segment" and prompt.target:
        target, phrase = known_target(prompt.target, piece.modality, config)
        asked = replace(prompt, target=phrase)
    if task.name == "ground":
        answer = tag_phrases(check_text(answer or "", "text"), piece.modality)
        asked = replace(prompt, answer=answer)
    text = processor.prompt_input(asked)
    if "{question}" in wording and not prompt.question:
        if task.name != "ground":
            check_text("", "question")
        # A text to be grounded stands as the answer to the question that reports are asked with.
        text = config.wording.get("report", TASKS["report"].instruction)
    return Question(prompt, text, target, processor.known_answer(asked), choices(asked, piece.modality, config))


def known_target(name: str, modality: str, config: UniBiomedConfig) -> tuple[str, str]:
    """(canonical name, phrase of the prompt) of a target; see :func:`phrases.lookup`.

    Raises:
        PromptError: The model was not trained on it; the nearest names are offered.
    """
    given = phrases.lookup(name, modality, config.targets)
    if isinstance(given, phrases.Unknown):
        raise phrases.unknown_error([given], config.name, modality, config.targets.get(modality, ()))
    return given


def without_unknown(
    prompts: Sequence[Prompt], modality: str, config: UniBiomedConfig
) -> tuple[list[Prompt], list[phrases.Unknown]]:
    """The prompts without those that name a target which the model cannot be asked for, and these targets.

    Raises:
        PromptError: No prompt is left; all that is unknown is named, and the nearest names are offered.
    """
    left: list[Prompt] = []
    unknown: list[phrases.Unknown] = []
    for prompt in prompts:
        named = prompt.task == "segment" and prompt.target.strip() and not prompt.exact
        given = phrases.lookup(prompt.target, modality, config.targets) if named else None
        if isinstance(given, phrases.Unknown):
            unknown.append(given)
        else:
            left.append(prompt)
    if unknown and not left:
        raise phrases.unknown_error(unknown, config.name, modality, config.targets.get(modality, ()))
    return left, unknown


def check_region(region: Region, piece: Slice) -> None:
    """Check a box against its slice.

    Raises:
        PromptError: It lies on another slice, outside of this one, is inverted, or under ``MIN_BOX_PX`` wide or high.
    """
    if (region.plane, region.index) != (piece.plane, piece.index):
        raise PromptError(
            "Box on another slice",
            f"it belongs to {region.plane} slice index {region.index}",
            f"{piece.plane} slice index {piece.index}",
            "Ask on the slice that the box was drawn on.",
        )
    height, width = piece.shape
    x0, y0, x1, y1 = region.box
    found = f"columns {x0} to {x1}, rows {y0} to {y1}"
    if x1 < x0 or y1 < y0:
        raise PromptError("Box inverted", found, "X0 <= X1 and Y0 <= Y1", "Give the upper left corner first.")
    if x0 < 0 or y0 < 0 or x1 >= width or y1 >= height:
        raise PromptError("Box outside the image", found, f"columns 0 to {width - 1}, rows 0 to {height - 1}")
    width_px, height_px = x1 - x0 + 1, y1 - y0 + 1
    if min(width_px, height_px) < MIN_BOX_PX:
        raise PromptError(
            "Box too small",
            f"{width_px} x {height_px} pixels",
            f"at least {MIN_BOX_PX} x {MIN_BOX_PX} pixels",
            code="box_too_small",
            values={"width_px": width_px, "height_px": height_px},
        )


def choices(prompt: Prompt, modality: str, config: UniBiomedConfig) -> dict[str, str]:
    """Name -> answer of all that a closed question can have, as the model was taught to word it, with the end mark.

    Returns:
        Empty where the model writes: another task, the user's own question or answer, exact prompts, and models that
        list no targets for the modality.
    """
    if prompt.exact or prompt.question or prompt.answer is not None:
        return {}
    known = config.targets.get(modality, ())
    names = [name for name in known if not prompt.among or name in prompt.among]
    match prompt.task:
        case "roi_class":
            return {name: class_answer(name, modality) + END for name in names}
        case "disease" if known:
            findings = [name for name in names if vocabulary.kind_of(name, modality) == "finding"]
            said = {name: class_answer(name, modality) for name in findings} | {NO_FINDINGS: NO_FINDINGS}
            return {name: OPEN_ANSWER.format(phrase=text) + END for name, text in said.items()}
        case "modality":
            return {name: text + END for name, text in MODALITY_ANSWERS.items()}
        case "part":
            return {name: text + END for name, text in PART_ANSWERS.items()}
    return {}


OPEN_ANSWER = "It is [SEG]. {phrase}."
"""How disease recognition is answered, as published."""


def yes_or_no(written: str) -> tuple[str, ...]:
    """The two answers that a written yes or no could have been, in its own letters, itself first; empty for others."""
    given = written.removesuffix(END).strip()
    word = given.rstrip(".")
    other = {"yes": "no", "no": "yes"}.get(word.lower())
    if other is None:
        return ()
    ending = given[len(word) :]
    return f"{given}{END}", f"{other.capitalize() if word[:1].isupper() else other}{ending}{END}"


def class_answer(target: str, modality: str) -> str:
    """A target as an answer, in lower case: "liver in abdomen ct"."""
    entry = vocabulary.targets().get(target)
    return (entry.phrase(modality) if entry else f"{target} in {modalities.modality(modality).label}").lower()
