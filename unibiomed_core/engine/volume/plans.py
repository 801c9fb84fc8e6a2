"""Which slices of a volume are examined, in what order, and how the rest follow: one table of plans."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from unibiomed_core.errors import PromptError
from unibiomed_core.measure import AIR_HU
from unibiomed_core.modalities import Window
from unibiomed_core.types import Plane, Slice, Volume

EMPTY_LEVEL = 0.05
"""A pixel shows something when it lies above the window's low end by more than this share of the window; in HU, when
it is above the window's low end and above air."""

EMPTY_FRACTION = 0.002
"""A slice with no larger share of such pixels is skipped: 23 x 23 of 512 x 512, less than the crown of a head."""

COARSE_MM = 6.0
COARSE_STEPS = (2, 4)
"""A coarse pass leaves about this much between two slices, and takes every second to every fourth of them."""

KEY_SLICES = 5
"""Slices of the plan for text: enough to see each part of a volume once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One way through a volume.

    Args:
        about: What it does, in one line for people.
        step: (``every`` as asked, slice spacing in mm) -> step of the first pass.
        parts: The first pass takes the middles of so many equal parts instead of steps; 0 steps.
        further: First pass, those of it on which something was found, and step -> slices that come after it.
        follows: "memory": SAM 2's memory carries masks from the first pass to the slices between; "published": the
            published model's path over all slices, the only one without a first pass.
        takes_every: Whether ``every`` may be given.
    """

    about: str
    step: Callable[[int, float], int]
    parts: int = 0
    further: Callable[[Sequence[int], Collection[int], int], list[int]] | None = None
    follows: Literal["", "memory", "published"] = ""
    takes_every: bool = True


def as_asked(every: int, spacing_mm: float) -> int:
    """The step that was asked for."""
    return every


def coarse(every: int, spacing_mm: float) -> int:
    """The step that was asked for; else the one that leaves about ``COARSE_MM`` between slices."""
    least, most = COARSE_STEPS
    return every if every > 1 else min(most, max(least, round(COARSE_MM / spacing_mm)))


def stepped(slices: Sequence[int], step: int) -> list[int]:
    """Every ``step``-th, from the middle of the first step on."""
    return list(slices[(len(slices) - 1) % step // 2 :: step])


def spread(slices: Sequence[int], parts: int) -> list[int]:
    """The middles of equal parts."""
    return [int(part[len(part) // 2]) for part in np.array_split(np.asarray(slices), parts) if len(part)]


def around(first_pass: Sequence[int], positive: Collection[int], step: int) -> list[int]:
    """The slices between a positive slice of the first pass and its neighbours there, ascending.

    Beyond the first and last slice of the pass, ``step`` - 1 slices; the caller leaves out what does not exist.
    """
    found: set[int] = set()
    ends = [first_pass[0] - step, *first_pass, first_pass[-1] + step] if first_pass else []
    for before, here, after in zip(ends, ends[1:], ends[2:], strict=False):
        if here in positive:
            found.update(range(before + 1, here), range(here + 1, after))
    return sorted(found)


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "all": Plan("every slice that shows something, or every Nth", as_asked),
        "coarse-to-fine": Plan("every few slices, then all around those with a finding", coarse, further=around),
        "key-slices": Plan(
            "five slices over the volume, for questions in words", as_asked, KEY_SLICES, takes_every=False
        ),
        "propagate": Plan(
            "every few slices; SAM 2's memory carries what is found to those between, in both directions",
            coarse,
            further=around,
            follows="memory",
        ),
        "published-video": Plan(
            "the published model's path: it looks at the first five slices, SAM 2's memory does the rest",
            as_asked,
            follows="published",
            takes_every=False,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Route:
    """A plan on one volume.

    Args:
        first_pass: Canonical slice indices, ascending.
        usable: Slices that a further pass may take.
        skipped: Slices that show nothing and would have been examined else.
        step: Step of the first pass.
    """

    plan: Plan
    first_pass: tuple[int, ...]
    usable: frozenset[int]
    skipped: tuple[int, ...]
    step: int

    def further(self, positive: Collection[int]) -> list[int]:
        """Slices to be examined after the first pass, given those of it on which something was found."""
        if self.plan.further is None:
            return []
        return [i for i in self.plan.further(self.first_pass, positive, self.step) if i in self.usable]


def find(name: str) -> Plan:
    """A plan by name.

    Raises:
        PromptError: There is none of that name; the nearest is offered.
    """
    if name not in PLANS:
        near = difflib.get_close_matches(name.lower(), PLANS, n=1, cutoff=0.0)
        raise PromptError("Unknown plan", f"'{name}'", f"one of {', '.join(PLANS)}; nearest: {near[0]}")
    return PLANS[name]


def route(
    name: str, volume: Volume, plane: Plane, window: Window, every: int = 1, indices: Sequence[int] | None = None
) -> Route:
    """The slices of a plan.

    Args:
        indices: Exactly these slices instead, empty ones included; with the plan "all" only.

    Raises:
        PromptError: The plan is unknown, a number is out of range, or step or slices do not go with the plan.
    """
    plan, count = find(name), volume.slice_count(plane)
    if every < 1:
        raise PromptError("Step out of range", f"every {every}th slice", "a step of at least 1")
    if every > 1 and not plan.takes_every:
        raise PromptError("Step without a use", f"every {every}th slice with the plan '{name}'", "no step")
    if indices is not None:
        if name != "all":
            raise PromptError("Two plans", f"single slices and the plan '{name}'", "one of both")
        wrong = [i for i in indices if not 0 <= i < count]
        if wrong:
            raise PromptError("No such slice", f"index {wrong[0]}", f"0 to {count - 1}")
        chosen = tuple(sorted(set(indices)))
        return Route(plan, chosen, frozenset(chosen), (), 1)
    step = plan.step(every, volume.spacing_mm[volume.plane_axis(plane)])
    if volume.is_2d or plan.follows == "published":
        return Route(plan, tuple(range(count)), frozenset(range(count)), (), 1)
    in_hu = volume.intensity_unit == "HU"
    planned = stepped(range(count), step)
    # A slice that no pass can reach need not be looked at.
    reached = range(count) if plan.further or plan.parts else planned
    empty = {i for i in reached if shows_nothing(volume.slice(i, plane), window, in_hu)}
    usable = [i for i in reached if i not in empty]
    first = spread(usable, plan.parts) if plan.parts else [i for i in planned if i not in empty]
    return Route(plan, tuple(first), frozenset(usable), tuple(sorted(empty)), step)


def shows_nothing(piece: Slice, window: Window, in_hu: bool) -> bool:
    """Whether a slice is constant or shows air only (``EMPTY_LEVEL``, ``EMPTY_FRACTION``)."""
    pixels = piece.pixels
    if pixels.min() == pixels.max():
        return True
    level = max(window.low, AIR_HU) if in_hu else window.low + EMPTY_LEVEL * (window.high - window.low)
    return bool(np.count_nonzero(pixels > level) <= EMPTY_FRACTION * pixels.size)
