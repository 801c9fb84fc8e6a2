"""What a report asks of a model that nobody told what to look for: one row for each kind of model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.plans import spread
from unibiomed_core.engine.volume.scene import likely_parts, slices_of
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.tasks import TASKS
from unibiomed_core.types import Prompt, Shown, Volume

Kind = Literal["learnt targets", "free text"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How one kind of model is asked.

    Args:
        about: In one line, for people.
        searches: Whether the targets that it has learnt are searched by name, where they can be shown.
        outlines_openly: Whether the masks of open answers are findings; else these answers speak for or against what
            was found by name.
        reports_on: So many slices of a volume are asked for a grounded report, spread over it.
    """

    about: str
    searches: bool
    outlines_openly: bool
    reports_on: int


STRATEGIES: Mapping[Kind, Strategy] = MappingProxyType(
    {
        "learnt targets": Strategy(
            "named searches for what belongs to the part of the body shown; open questions, scored, check them",
            searches=True,
            outlines_openly=False,
            reports_on=0,
        ),
        "free text": Strategy(
            "open questions lead; anatomy is searched only where the user names it",
            searches=False,
            outlines_openly=True,
            reports_on=5,
        ),
    }
)


def kind_of_model(config: UniBiomedConfig) -> Kind:
    """A model that lists its targets was trained on these alone; any other takes words as they come."""
    return "learnt targets" if config.targets else "free text"


def unasked(config: UniBiomedConfig, volume: Volume) -> list[Prompt]:
    """What a model is asked on each slice where the user named nothing, before it is known what the image shows.

    Empty where the model has no targets for the modality.
    """
    strategy = STRATEGIES[kind_of_model(config)]
    if not strategy.searches:
        return [Prompt("disease"), Prompt("report")]
    names = config.default_targets.get(volume.modality) or config.targets.get(volume.modality, ())
    return [Prompt("segment", name) for name in names]


def open_questions(config: UniBiomedConfig, volume: Volume, shown: Shown | None) -> list[Prompt]:
    """The open question that checks what is found by name, among the findings that can be shown."""
    strategy = STRATEGIES[kind_of_model(config)]
    if strategy.outlines_openly:
        return []
    names = nameable(config, volume, shown)
    among = tuple(name for name in names if vocabulary.kind_of(name, volume.modality) == "finding")
    return [Prompt("disease", among=among)] if among else []


def nameable(config: UniBiomedConfig, volume: Volume, shown: Shown | None) -> tuple[str, ...]:
    """The names that a box can be given: targets of the modality that can be shown."""
    parts = frozenset(part for band in shown.bands for part in likely_parts(band)) if shown else frozenset()
    names = config.targets.get(volume.modality, ())
    return tuple(name for name in names if vocabulary.can_be_shown(name, volume.modality, parts))


def reports(prompts: Sequence[Prompt], config: UniBiomedConfig, slices: Sequence[int]) -> dict[Prompt, frozenset[int]]:
    """Grounded report -> the few slices, spread over a volume, that it is asked on."""
    most = STRATEGIES[kind_of_model(config)].reports_on
    return {prompt: frozenset(spread(slices, most)) for prompt in prompts if prompt.task == "report" and most}


def places(
    prompts: Sequence[Prompt], volume: Volume, shown: Shown, indices: Iterable[int]
) -> dict[Prompt, frozenset[int]]:
    """Prompt -> the slices that it is asked on, for searches that nobody asked for by name."""
    return {
        prompt: frozenset(slices_of(prompt.target, volume.modality, shown, indices))
        for prompt in prompts
        if TASKS[prompt.task].gives_masks and prompt.target
    }
