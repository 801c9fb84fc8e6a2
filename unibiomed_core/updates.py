"""The stream of typed updates that every face of the product consumes, and the token that stops it."""

from __future__ import annotations

from dataclasses import dataclass, field

from unibiomed_core.types import Finding, Prediction, Report

LESS_MEMORY = "less_memory"
"""Code of the note on a run that went on with less at once."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` slices; ``seconds_left`` is None until it can be told."""

    done: int
    total: int
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class SliceDone:
    """The predictions of one slice, in the order of the prompts."""

    index: int
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class FindingFound:
    """A linked and measured finding."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Done:
    """The end of the stream; ``report.ended`` tells how it came about."""

    report: Report


Update = Progress | SliceDone | FindingFound | Done


@dataclass(slots=True)
class CancelToken:
    """Shared between who runs and who may stop; setting it is safe from any thread and from a signal handler."""

    cancelled: bool = field(default=False)

    def cancel(self) -> None:
        self.cancelled = True
