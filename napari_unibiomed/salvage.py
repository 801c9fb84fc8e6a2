"""Findings and report from the slices that a run finished, without a model: after an error, and after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_unibiomed.jobs import Job
from unibiomed_core import report as reports
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import Prediction, Report


def salvage(
    job: Job, predictions: Mapping[int, tuple[Prediction, ...]], model: Mapping[str, Any], seconds: float, why: str
) -> Report:
    """The report that a run would give if it had been cancelled now.

    Args:
        predictions: Canonical slice index -> what was answered.
        model: Provenance of the model that answered.
        why: What ended the run, one sentence for the report's warnings.
    """
    from unibiomed_core.engine.volume import plans, postprocessing
    from unibiomed_core.engine.volume.aggregation import Aggregation
    from unibiomed_core.engine.volume.linking import findings
    from unibiomed_core.engine.volume.postprocessing import Selection

    volume, options, aggregation = job.volume, job.options, Aggregation()
    selection = Selection(options.least_presence, options.min_area_mm2, options.link_slices)
    step = plans.find(options.plan).step(job.every, volume.spacing_mm[volume.plane_axis(job.plane)])
    for index, given in predictions.items():
        aggregation.take(index, given, volume.modality)
    linked, specks = selection.link(aggregation.masks, volume, job.plane, visited=aggregation.done, every=step)
    linked, left_out = selection.keep(linked)
    found = findings(postprocessing.smooth_all(linked, volume, options.smooth_mm), volume)
    prompts = list(dict.fromkeys(p.prompt for given in predictions.values() for p in given))
    return reports.build(
        volume=volume,
        window=None if volume.is_rgb else job.window or choose_window(volume),
        plane=job.plane,
        findings=found,
        absences=aggregation.absences(prompts, found, volume.modality),
        model=model,
        settings={
            "tasks": sorted({prompt.task for prompt in prompts}),
            "targets": [prompt.target for prompt in prompts if prompt.target],
            "questions": [prompt.question for prompt in prompts if prompt.question],
            "plane": job.plane,
            "every": job.every,
            "indices": None if job.indices is None else list(job.indices),
            **options.changed,
        },
        slices_done=aggregation.done,
        slices_skipped=(),
        seconds=seconds,
        truncated=aggregation.truncated,
        specks_dropped=specks,
        warnings=[why, *left_out, *aggregation.contest_notes(volume)],
        cancelled=True,
    )
