"""What is asked of the model, and the record of how one job went. Plain data: no widget, no thread, no file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from unibiomed_core import report as reports
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import with_labels
from unibiomed_core.types import Caution, CroppedMask, Finding, Plane, Prediction, Prompt, Region, Report, Volume

JobKind = Literal["report", "segment", "ask", "roi"]

KIND_WORDS: dict[JobKind, str] = {"report": "Report", "segment": "Segment", "ask": "Ask", "roi": "Region"}

LONGEST_NAME = 60
"""Characters of a layer's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request, bound to the volume it was made for.

    Args:
        request: What is asked, of which slices, and how masks become findings. Every prompt of a "roi" job carries its
            region, and each is asked on the slice of its own region; slices and options are not used then.
        within: Keep only findings that meet this box.
        label: How a list of runs names it; empty for a name made of kind and prompts.
    """

    kind: JobKind
    volume: Volume
    request: RunRequest = field(default_factory=RunRequest)
    within: Region | None = None
    label: str = ""

    @property
    def words(self) -> str:
        """What is asked, for people: targets and questions, each once; empty for a report on all that is known."""
        asked = [prompt.target or prompt.question for prompt in self.request.prompts]
        return ", ".join(dict.fromkeys(word for word in asked if word))

    @property
    def name(self) -> str:
        """For people: the label, or the kind with what was asked."""
        if self.label:
            return self.label
        return f"{KIND_WORDS[self.kind]}: {self.words}" if self.words else KIND_WORDS[self.kind]


def layer_name(job: Job, image: str, taken: Collection[str] = ()) -> str:
    """What the layer of a run is called: image, task and targets, with a number where the name is taken already.

    Args:
        image: Name of the image layer.
        taken: Names of layers that are there.
    """
    told = job.words if job.kind == "segment" and job.words else KIND_WORDS[job.kind].lower()
    name = f"{image} {job.label or told}"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 1].rstrip(' ,')}\u2026"
    return unused_name(name, taken)


def unused_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken already."""
    numbers = (f"{name} {number}" for number in count(2))
    return name if name not in taken else next(numbered for numbered in numbers if numbered not in taken)


@dataclass(frozen=True, slots=True, eq=False)
class RunAnswer:
    """The answer to one question or about one box.

    Args:
        text: Clean text for people.
        raw: As generated.
        score: Highest score of its phrases, else the likelihood of a closed answer, 0..1; None where it has neither.
        index: Canonical slice index across ``plane``.
        region: The box asked about, None for a question about the whole slice.
        masks: 2D masks that the answer marks, on its slice.
    """

    prompt: Prompt
    text: str
    raw: str
    score: float | None
    seconds: float
    plane: Plane
    index: int
    region: Region | None = None
    truncated: bool = False
    masks: tuple[CroppedMask, ...] = ()
    caution: Caution | None = None

    @classmethod
    def of(cls, prediction: Prediction) -> RunAnswer:
        """The answer that a prediction holds."""
        return cls(
            prompt=prediction.prompt,
            text=with_labels(prediction.text),
            raw=prediction.raw_text,
            score=max((phrase.score for phrase in prediction.phrases), default=prediction.likelihood),
            seconds=prediction.seconds,
            plane=prediction.plane,
            index=prediction.index,
            region=prediction.prompt.region,
            truncated=prediction.truncated,
            masks=prediction.masks,
            caution=prediction.caution,
        )


@dataclass(slots=True, eq=False)
class Run:
    """How one job goes: filled in by the session, slice by slice, and kept after it ended.

    Args:
        number: From 1, in the order of the session's runs.
        model: Provenance of the model, as in a report.
        predictions: Canonical slice index -> predictions in the order of the prompts.
        findings: While slices come in, empty; then linked and measured, largest first.
        report: None until the stream ended, and for "roi" jobs.
        slices_total: Number of slices planned; 0 until it is known.
        seconds: Wall time so far, of all its parts where it was resumed.
        cancelled: It was stopped, by the user or by an error; the rest can be resumed.
        complete: It went to its end.
        answers: For "ask" and "roi" jobs, in the order of the slices and prompts.
        folder: Where it is kept on the disk; None where it is not.
        title: What its layer is called, and what the user renamed it to; empty for a run without a layer.
        began: When it was begun, in seconds since 1970; None where that is not known.
        renamed: The user gave it its title, which is kept with it.
    """

    job: Job
    number: int
    model: Mapping[str, Any] = field(default_factory=dict)
    predictions: dict[int, tuple[Prediction, ...]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    report: Report | None = None
    slices_total: int = 0
    seconds: float = 0.0
    cancelled: bool = False
    complete: bool = False
    answers: list[RunAnswer] = field(default_factory=list)
    folder: Path | None = None
    title: str = ""
    renamed: bool = False
    began: float | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.title or self.job.name

    @property
    def entry(self) -> str:
        """For a list of runs: number, name and when it was begun. Runs are told apart by this and not by colours."""
        return " \u00b7 ".join(
            [str(self.number), self.name, *([] if self.began is None else [moment_text(self.began)])]
        )

    @property
    def volume(self) -> Volume:
        return self.job.volume

    @property
    def slices_done(self) -> list[int]:
        """Canonical indices of the slices answered so far, ascending."""
        return sorted(self.predictions)

    @property
    def places_done(self) -> int:
        """Number of slices answered; boxes may lie on slices of several planes that have one index."""
        return len({(p.plane, p.index) for given in self.predictions.values() for p in given})

    def take(self, index: int, predictions: tuple[Prediction, ...]) -> None:
        """Keep what one slice says."""
        earlier = self.predictions.get(index, ())
        self.predictions[index] = predictions if self.job.kind != "roi" else earlier + predictions
        if self.job.kind in ("ask", "roi"):
            self.answers += [RunAnswer.of(prediction) for prediction in predictions]


def meets(finding: Finding, region: Region) -> bool:
    """Whether a finding has a voxel inside a box on the box's slice."""
    axis = ("axial", "coronal", "sagittal").index(region.plane)
    box: list[tuple[int, int]] = [(region.y0, region.y1 + 1), (region.x0, region.x1 + 1)]
    box.insert(axis, (region.index, region.index + 1))
    mask = finding.mask
    inside = tuple(
        slice(max(0, low - start), max(0, high - start)) for (low, high), start in zip(box, mask.offset, strict=True)
    )
    return bool(mask.crop[inside].any())


def limited(report: Report, job: Job) -> Report:
    """A report with those findings only that meet the box of the job, where it has one."""
    if job.within is None:
        return report
    kept = report.renumbered(tuple(finding for finding in report.findings if meets(finding, job.within)))
    return replace(kept, narrative=reports.narrative(kept))


def moment_text(seconds: float) -> str:
    """``2026-11-29 10:32``: local date and time of a moment, given in seconds since 1970."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
