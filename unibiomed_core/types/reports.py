"""What a run over an image says: findings, absences, what was shown, and the report of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from unibiomed_core.types.answers import CroppedMask
from unibiomed_core.types.images import Note, Plane, ToldBy

NOTICE = "Research use only. Not a medical device. Findings are machine generated and need expert review."


@dataclass(frozen=True, slots=True)
class Measurements:
    """Size and intensity of a finding; lengths are None where the file tells no size in mm."""

    voxel_count: int
    volume_ml: float | None
    area_mm2: float | None
    longest_axial_diameter_mm: float | None
    perpendicular_diameter_mm: float | None
    intensity_mean: float | None
    intensity_sd: float | None
    intensity_unit: str
    slice_first: int
    slice_last: int
    slice_largest: int
    side: Literal["left", "right", "both", "midline", "unknown"]
    touches_edge: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """What one row stands for where it stands for many: a population of like things, or a network.

    Args:
        instances: How many single things, told apart also where they touch; None for a network.
        mean_area: Mean area of one, in ``unit`` squared; None for a network.
        sd_area: Standard deviation of the areas.
        density: Instances on a square of ``density_side`` by ``density_side``; None for a network.
        fraction: Share of the picture's area that they cover, 0..1.
        length: Length of the network's centre line in ``unit``; None for a population.
        unit: "mm" or "px": of lengths, and squared of areas.
        density_side: 1 in millimetres, 100 in pixels.
    """

    instances: int | None
    mean_area: float | None
    sd_area: float | None
    density: float | None
    fraction: float
    length: float | None
    unit: Literal["mm", "px"]
    density_side: int


CheckCode = Literal["mask", "picture", "open", "region", "neighbours"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one way of looking again says of a finding.

    Args:
        code: "mask": the mask decoder's own score; "picture": a first look at the whole slice; "open": what is named
            when the slice is asked about openly; "region": the name that is given to the finding's box; "neighbours":
            whether the next slices carry it too.
        agrees: Whether it speaks for the finding.
        score: 0..1, where it is a matter of degree.
    """

    code: CheckCode
    agrees: bool
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a finding is believed.

    Args:
        found_by: Names of the tasks that marked it: "segment" is a search by name, "disease" an open question.
        checks: Those that could be made.
        fitted: Whether the finding's presence was made of the checks by a rule that was fitted on held-out patients.
    """

    found_by: tuple[str, ...]
    checks: tuple[Check, ...]
    fitted: bool = False

    @property
    def agreeing(self) -> int:
        """How many checks speak for the finding."""
        return sum(check.agrees for check in self.checks)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a volume or picture as a person counts it: an organ, a lesion, or a population or network of them.

    Args:
        number: Its value in the labels image, from 1.
        phrase: The words the model used or was asked with.
        target: Name the slices were linked by.
        presence: 0..1, how sure the model is that it is there.
        mask: 3D mask in canonical (Z, Y, X) order.
        slices: Canonical indices of the slices that carry it, ascending.
        flags: Any of "one_slice", "touches_edge", "low_score", "unsure", "told_together".
        tally: Where the row stands for many; None where it is one thing.
        within: Number of the row of the whole that it is a part of; None where there is none.
        evidence: Why it is believed; None where nothing was checked.
        description: What the model writes about its box, unedited; empty where it was not asked.
    """

    number: int
    phrase: str
    target: str
    presence: float
    mask: CroppedMask
    plane: Plane
    slices: tuple[int, ...]
    measurements: Measurements
    flags: tuple[str, ...] = ()
    tally: Tally | None = None
    within: int | None = None
    evidence: Evidence | None = None
    description: str = ""


Doubt = Literal["", "no_outline", "not_confirmed"]


@dataclass(frozen=True, slots=True)
class Absence:
    """A target that was looked for and not found: "No findings" as an answer with a number on it.

    Args:
        presence: The highest that any slice gave, 0..1.
        slices_searched: On how many slices it was looked for.
        doubt: Why it is neither found nor absent: its presence reached the threshold but it has "no_outline"; or what
            was outlined was "not_confirmed" by the checks. Empty where it is absent.
    """

    target: str
    presence: float
    slices_searched: int
    doubt: Doubt = ""


@dataclass(frozen=True, slots=True)
class Band:
    """Neighbouring slices that show the same parts of the body.

    Args:
        slice_first: Canonical index.
        slice_last: Canonical index, included.
        parts: (part of the body, share of the model's likelihood), likeliest first; empty where nobody can tell.
    """

    slice_first: int
    slice_last: int
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What an image shows, established before anything was searched.

    Args:
        modality: A name of ``modalities.MODALITIES``.
        modality_by: Who told it: the file, the user, or the model.
        modality_shares: (modality, share of the model's likelihood), likeliest first, whoever told it; empty where the
            model cannot tell.
        bands: Parts of the body along the slices, ascending; empty where they were not asked for.
        slices_looked_at: Canonical indices of the slices that the model was asked about.
    """

    modality: str
    modality_by: ToldBy
    modality_shares: tuple[tuple[str, float], ...] = ()
    bands: tuple[Band, ...] = ()
    slices_looked_at: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The likeliest part of each band, each once, in the order of the slices."""
        return tuple(dict.fromkeys(band.parts[0][0] for band in self.bands if band.parts))


@dataclass(frozen=True, slots=True)
class ReaderEdit:
    """What the person who read a report did with some of its findings.

    Args:
        code: "rejected" findings are left out; "renamed" ones have another target; "redrawn" ones another mask, and
            are measured anew.
        numbers: Numbers of the findings.
    """

    code: Literal["rejected", "renamed", "redrawn"]
    numbers: tuple[int, ...]


Ended = Literal["finished", "cancelled", "failed", "interrupted"]
"""How a run ended: to its end; stopped by the user; by an error; or with its program, before it had an end."""

ENDINGS: tuple[Ended, ...] = get_args(Ended)


@dataclass(frozen=True, slots=True)
class Report:
    """What one run over a volume says. Can be rebuilt from its own JSON (``report.from_json``)."""

    findings: tuple[Finding, ...]
    absences: tuple[Absence, ...]
    narrative: str
    sentences: tuple[tuple[int, str], ...]
    image: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    warnings: tuple[Note, ...]
    slices_done: tuple[int, ...]
    slices_skipped: tuple[int, ...]
    slices_total: int
    seconds: float
    ended: Ended = "finished"
    notice: str = NOTICE
    edits: tuple[ReaderEdit, ...] = ()
    shown: Shown | None = None

    @property
    def complete(self) -> bool:
        """Whether all was examined that was asked for."""
        return self.ended == "finished"

    def renumbered(self, findings: tuple[Finding, ...]) -> Report:
        """The same report with other findings, numbered from 1 in the order given; parts follow their wholes."""
        new = {finding.number: n for n, finding in enumerate(findings, start=1)}
        placed = [replace(f, within=None if f.within is None else new.get(f.within)) for f in findings]
        return replace(self, findings=tuple(replace(f, number=n) for n, f in enumerate(placed, start=1)))
