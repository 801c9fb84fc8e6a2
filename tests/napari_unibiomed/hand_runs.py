"""Runs made by hand on a small CT: two findings, one on one slice; no engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_unibiomed.jobs import Job, JobKind, Run, RunAnswer
from tests.hand_volumes import canonical_affine, cropped, volume_of
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.types import Absence, Check, Evidence, Phrase, Prediction, Prompt, Region, Report, Volume


def small_volume(reverse: bool = False) -> Volume:
    """CT, 12 slices of 40 x 48; stored with slices growing towards Superior where ``reverse``."""
    stored = np.random.default_rng(3).normal(40, 10, (12, 40, 48)).astype(np.int16)
    affine = canonical_affine((3.0, 1.0, 1.0))
    if reverse:
        affine[2, 0] = 3.0
    return volume_of(stored, affine)


def masks(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """A liver on slices 3, 4, 6 and 7 (none on 5), and a lesion inside it on slice 6."""
    large, small = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    large[3:5, 10:30, 2:20] = True
    large[6, 8:32, 2:20] = True
    large[7, 10:30, 2:20] = True
    small[6, 15:20, 10:14] = True
    return large, small


def a_report(volume: Volume, **changes: Any) -> Report:
    large, small = masks(volume)
    things = (
        LinkedMask("liver", "liver in abdomen CT", 0.97, cropped(large), "axial", (3, 4, 6, 7), ((3, 0.97),)),
        LinkedMask("liver tumour", "liver tumour", 0.41, cropped(small), "axial", (6,), ((6, 0.41),), ("one_slice",)),
    )
    given: dict[str, Any] = {
        "volume": volume,
        "window": CT_WINDOWS["soft tissue"],
        "plane": "axial",
        "findings": findings(things, volume),
        "absences": [Absence("spleen", 0.04, 10)],
        "model": {"name": "mini", "licence": "Apache-2.0", "device": "cpu"},
        "settings": {"every": 1},
        "slices_done": range(1, 11),
        "slices_skipped": [0, 11],
        "seconds": 12.5,
        "sentences": [(6, "Liver tumour near the pancreas.")],
    }
    return reports.build(**(given | changes))


def a_run(
    volume: Volume | None = None,
    number: int = 1,
    report: Report | str | None = "made",
    kind: JobKind = "report",
    **request: Any,
) -> Run:
    """A finished run; with ``report=None`` one that is still going on."""
    volume = volume or small_volume()
    made = a_report(volume) if isinstance(report, str) else report
    asked = Job(kind, volume, RunRequest(**{"window": CT_WINDOWS["soft tissue"], **request}))
    found = list(made.findings) if made else []
    model = {"name": "mini", "device": "cpu", "dtype": "float32"}
    return Run(asked, number, model=model, findings=found, report=made, seconds=12.5)


def nested_run(number: int = 1) -> Run:
    """A finished run as the engine numbers it: two abnormal rows, of which the second is unsure; then structures, the
    kidney within the spleen and that within the liver."""
    volume = small_volume()
    large, small = map(cropped, masks(volume))
    names = ("lung tumour", "consolidation", "liver", "spleen", "kidney", "stomach")
    things = [
        LinkedMask(name, name, 0.9, small if n < 2 else large, "axial", (6,) if n < 2 else (3, 4, 6, 7), ())
        for n, name in enumerate(names)
    ]
    rows = list(findings(things, volume))
    agree = (Check("mask", True, 0.9), Check("region", True, 0.8), Check("neighbours", False))
    differ = (Check("mask", True, 0.9), Check("region", False, 0.2), Check("neighbours", False))
    rows[0] = replace(rows[0], evidence=Evidence(("segment",), agree), description="a small round opacity")
    rows[1] = replace(rows[1], evidence=Evidence(("segment",), differ), flags=("unsure", *rows[1].flags))
    rows[3], rows[4] = replace(rows[3], within=3), replace(rows[4], within=4)
    return a_run(
        volume, number, a_report(volume, findings=tuple(rows), absences=[Absence("pleural effusion", 0.1, 10)])
    )


def an_answer(text: str, region: Region, score: float | None = 0.8) -> RunAnswer:
    """What a model says about a box."""
    prompt = Prompt("roi_class", region=region)
    return RunAnswer(prompt, text, f"{text}<|im_end|>", score, 1.25, region.plane, region.index, region)


def predictions_on(volume: Volume, index: int) -> tuple[Prediction, ...]:
    """What a model says about one slice: the masks of :func:`masks` there."""
    found = []
    for name, whole in zip(("liver", "liver tumour"), masks(volume), strict=True):
        if whole[index].any():
            phrase = Phrase(name, 0, len(name), 0.9, cropped(whole[index]), name)
            found.append(Prediction(Prompt("segment", name), "axial", index, name, f"{name} [SEG]", (phrase,)))
    return tuple(found)
