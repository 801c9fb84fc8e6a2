"""How a run ends: what was answered becomes findings and a report, whether it was finished, stopped, or failed.

Nothing here needs the model, so the same is done after an error, and for a run that is found on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unibiomed_core import report as reports
from unibiomed_core import vocabulary
from unibiomed_core.engine.volume import counting, nesting, plans, postprocessing
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.checks import Checked, checked
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.engine.volume.plans import Route
from unibiomed_core.engine.volume.postprocessing import Selection
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import Window, choose_window
from unibiomed_core.model.config import Presence
from unibiomed_core.phrases import Unknown, lookup
from unibiomed_core.report.text import unknown_text
from unibiomed_core.types import Ended, Finding, Note, Prediction, Prompt, Report, Shown, Volume


@dataclass(frozen=True, slots=True)
class Examined:
    """What was asked of a volume, and what was answered until now.

    Args:
        prompts: What the model was asked on each slice.
        unknown: Targets of the request that it could not be asked for.
        aggregation: Grows while the run goes on.
        shown: What the image shows; None where that was not established.
    """

    volume: Volume
    request: RunRequest
    prompts: Sequence[Prompt]
    unknown: Sequence[Unknown]
    route: Route
    aggregation: Aggregation = field(default_factory=Aggregation)
    shown: Shown | None = None

    @property
    def selection(self) -> Selection:
        """What of the masks is kept."""
        return Selection(self.request.least_presence, self.request.min_area_mm2, self.request.link_slices)


@dataclass(frozen=True, slots=True)
class Found:
    """Linked, chosen and smoothed where asked for.

    Args:
        things: Largest first.
        specks_dropped: Mask pieces that linking left out as too small.
        notes: What was left out.
    """

    things: tuple[LinkedMask, ...]
    specks_dropped: int = 0
    notes: Sequence[Note] = ()


def window_of(volume: Volume, request: RunRequest) -> Window:
    """The window that is asked for, else the modality's."""
    return request.window or choose_window(volume)


def find(examined: Examined, ended: Ended) -> Found:
    """The things in what was answered until now."""
    volume, request, selection = examined.volume, examined.request, examined.selection
    route, aggregation = examined.route, examined.aggregation

    # A refined plan has left no slice out between two with a finding, unless it ended early.
    step = 1 if route.plan.further and ended == "finished" else route.step
    linked, specks = selection.link(aggregation.masks, volume, request.plane, visited=aggregation.done, every=step)
    if selection.link_slices:  # else the pieces of each slice are wanted as they are
        linked, scraps = counting.counted(linked, volume)
        linked = nesting.without_strays(nesting.without_doubles(linked))
        specks += scraps.total()
    linked, notes = selection.keep(linked)
    return Found(postprocessing.smooth_all(linked, volume, request.smooth_mm), specks, notes)


def unchecked(found: Found) -> Checked:
    """All that was found, where nothing was checked."""
    return Checked(found.things, (None,) * len(found.things), {}, ("",) * len(found.things))


def measured(examined: Examined, stands: Checked) -> tuple[tuple[Finding, ...], dict[str, float]]:
    """The findings of what stands, abnormal ones first, parts behind their wholes, numbered from 1.

    Returns:
        Them, and target -> presence of what did not stand: the checks' own, and what lies on the other side of the
        body than its name says.
    """
    volume = examined.volume
    rows = counting.with_tallies(findings(stands.kept, volume), volume)
    told = zip(rows, stands.evidence, stands.descriptions, strict=True)
    rows = tuple(replace(f, evidence=e, description=text) for f, e, text in told)
    misplaced = [f for f in rows if _on_other_side(f, volume.modality)]
    dismissed = dict(stands.dismissed)
    for f in misplaced:
        dismissed[f.target] = max(f.presence, dismissed.get(f.target, 0.0))
    return nesting.arranged([f for f in rows if f not in misplaced], volume.modality), dismissed


def _on_other_side(finding: Finding, modality: str) -> bool:
    entry = vocabulary.find(finding.target, modality)
    sides = {entry.side if entry else None, finding.measurements.side}
    return sides == {"left", "right"}


def finish(
    examined: Examined,
    found: Found,
    rows: Sequence[Finding],
    dismissed: Mapping[str, float],
    *,
    ended: Ended,
    model: Mapping[str, Any],
    seconds: float,
    sentences: Iterable[tuple[int, str]] = (),
) -> Report:
    """The report of a run.

    Args:
        rows: The findings of what stands.
        dismissed: Target -> presence of what does not.
        ended: How the run ended.
        model: Provenance of the model that answered; plain values.
        seconds: Wall time of the run.
        sentences: (canonical slice index, the model's own text).
    """
    volume, request, route = examined.volume, examined.request, examined.route
    aggregation = examined.aggregation
    notes: list[Note] = []
    if examined.unknown:
        about = {"names": [one.name for one in examined.unknown]}
        notes.append(Note("unknown_targets", unknown_text(examined.unknown), about))
    if route.skipped and not route.first_pass:
        notes.append(Note("nothing_shown", "No slice shows more than air, so none was examined."))
    return reports.build(
        volume=volume,
        window=None if volume.is_rgb else window_of(volume, request),
        plane=request.plane,
        findings=rows,
        absences=aggregation.absences(examined.prompts, rows, volume.modality, _rule(model), dismissed),
        model=model,
        settings=_settings(examined),
        slices_done=aggregation.done,
        slices_skipped=route.skipped,
        seconds=seconds,
        sentences=sentences,
        truncated=aggregation.truncated,
        specks_dropped=found.specks_dropped,
        warnings=[*notes, *aggregation.warnings, *found.notes, *aggregation.contest_notes(volume)],
        ended=ended,
        shown=examined.shown,
    )


def _rule(model: Mapping[str, Any]) -> Presence:
    """The thresholds of a model by its provenance."""
    own = model.get("presence_thresholds")
    return Presence(
        threshold=float(model.get("presence_threshold", 0.5)), thresholds=own if isinstance(own, Mapping) else {}
    )


def finish_answered(
    volume: Volume,
    request: RunRequest,
    answered: Mapping[int, tuple[Prediction, ...]],
    *,
    ended: Ended,
    model: Mapping[str, Any],
    seconds: float,
    learnt: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """The report that a run over these slices gives; what a run warned of while it went on is not known any more.

    Args:
        answered: Canonical slice index -> what was answered.
        learnt: Modality -> targets that the model was trained on, for what to ask instead of those it does not know.

    Raises:
        PromptError: The request cannot have been run on this volume.
    """
    asked = list(dict.fromkeys(prediction.prompt for given in answered.values() for prediction in given))
    left_out = [prompt.target for prompt in request.prompts if prompt not in asked and prompt.target]
    unknown = [_unknown(name, volume.modality, learnt or {}) for name in dict.fromkeys(left_out)]
    window = window_of(volume, request)
    route = plans.route(request.plan, volume, request.plane, window, request.every, request.indices)
    examined = Examined(volume, request, asked, unknown, route)
    for index, given in answered.items():
        examined.aggregation.take(index, given, volume.modality)
    found = find(examined, ended)
    # Without the model no box is named, and its own rule is not known: the checks that were made are counted.
    stands = checked(found.things, examined.aggregation, volume.modality, None) if request.check else unchecked(found)
    rows, dismissed = measured(examined, stands)
    return finish(examined, found, rows, dismissed, ended=ended, model=model, seconds=seconds)


def _unknown(name: str, modality: str, learnt: Mapping[str, Sequence[str]]) -> Unknown:
    """A target that was not asked for; without the model's targets, nothing can be offered in its place."""
    given = lookup(name, modality, learnt)
    if isinstance(given, Unknown):
        return given
    return Unknown(name, "not_learnt" if vocabulary.find(name, modality) else "not_in_vocabulary", ())


def _settings(examined: Examined) -> dict[str, Any]:
    """What a report states of the request, with the step that was in fact taken."""
    request, prompts = examined.request, examined.prompts
    unknown = [asdict(one) for one in examined.unknown]
    return {
        "tasks": sorted({prompt.task for prompt in prompts}),
        "targets": [prompt.target for prompt in prompts if prompt.target],
        "questions": [prompt.question for prompt in prompts if prompt.question],
        **({"unknown_targets": unknown} if unknown else {}),
        "plane": request.plane,
        "plan": request.plan,
        "every": examined.route.step,
        "indices": None if request.indices is None else list(request.indices),
        "smooth_mm": request.smooth_mm,
        **examined.selection.stated(),
        "describe": request.describe,
        "check": request.check,
    }
