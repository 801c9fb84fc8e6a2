"""A run over a volume: its updates, what is skipped, cancelling, memory, and saying that nothing was found."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.alike import same_findings
from tests.unibiomed_core.engine.toy import SOFT_TISSUE, body, ct_volume, rgb_picture, segment, toy_engine
from unibiomed_core import report as reports
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.plans import shows_nothing
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import DeviceError, PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Presence
from unibiomed_core.types import Prediction, Prompt, Report, Slice, Volume
from unibiomed_core.updates import CancelToken, Done, FindingFound, Progress, SliceDone, Update


@pytest.fixture
def engine() -> Engine:
    return toy_engine()


def absent(**changes: Any) -> Engine:
    """An engine that finds nothing, whatever it is asked."""
    return toy_engine(presence=Presence("object", 1.01), **changes)


def finish(engine: Engine, volume: Volume, *targets: str, cancel: CancelToken | None = None, **request: Any) -> Report:
    given = {"prompts": tuple(segment(*(targets or ("liver",)))), "describe": False, "check": False, **request}
    *_, last = engine.run(volume, RunRequest(**given), cancel=cancel)
    assert isinstance(last, Done)
    return last.report


def test_the_stream_has_its_order() -> None:
    engine = toy_engine(batch_size=1)
    updates = list(
        engine.run(ct_volume(5, empty=(0,)), RunRequest.segment("liver", "spleen", describe=False, check=False))
    )
    kinds = [type(u) for u in updates]
    found = kinds.count(FindingFound)
    assert kinds == [Progress, *[SliceDone, Progress] * 4, *[FindingFound] * found, Done]
    assert [u.done for u in updates if isinstance(u, Progress)] == [0, 1, 2, 3, 4]
    slices = [u for u in updates if isinstance(u, SliceDone)]
    assert [u.index for u in slices] == [1, 2, 3, 4]
    assert all([p.phrases[0].target for p in u.predictions] == ["liver", "spleen"] for u in slices)
    report = updates[-1].report  # type: ignore[union-attr]
    assert [u.finding for u in updates if isinstance(u, FindingFound)] == list(report.findings)
    assert found > 0
    first, last = (u for u in updates if isinstance(u, Progress) and u.done in (0, 4))
    assert (first.seconds_left, last.seconds_left) == (None, 0.0)


def test_findings_are_made_of_the_masks_of_the_slices(engine: Engine) -> None:
    volume = ct_volume(4)
    updates = list(engine.run(volume, RunRequest.segment("liver", describe=False, check=False)))
    drawn = np.zeros(volume.shape, bool)
    for update in updates:
        if isinstance(update, SliceDone):
            for mask in update.predictions[0].masks:
                drawn[update.index] |= mask.full()
    report = updates[-1].report  # type: ignore[union-attr]
    labels = reports.labels(report, volume) > 0
    assert not (labels & ~drawn).any()
    assert labels.sum() > 0.9 * drawn.sum(), "all but specks"
    assert {f.target for f in report.findings} == {"liver"}
    assert report.model["name"] == "toy"
    assert report.settings["targets"] == ["liver"]
    assert reports.to_json(report)["findings"]


def test_empty_slices_are_skipped_and_named(engine: Engine) -> None:
    report = finish(engine, ct_volume(6, empty=(0, 1, 5)))
    assert (report.slices_done, report.slices_skipped) == ((2, 3, 4), (0, 1, 5))
    assert engine.counts.vision_encodes == 3


def test_slices_named_by_the_user_are_never_skipped(engine: Engine) -> None:
    report = finish(engine, ct_volume(6, empty=(0,)), indices=(3, 0))
    assert (report.slices_done, report.slices_skipped) == ((0, 3), ())
    with pytest.raises(PromptError, match=r"No such slice.*index 6"):
        finish(engine, ct_volume(6), indices=(6,))


def test_a_volume_of_air_is_an_answer_too(engine: Engine) -> None:
    report = finish(engine, ct_volume(3, empty=(0, 1, 2)))
    assert (report.findings, report.absences, report.slices_done) == ((), (), ())
    assert [note.code for note in report.warnings] == ["nothing_shown"]


@pytest.mark.parametrize(
    ("pixels", "window", "in_hu", "empty"),
    [
        (np.full((64, 64), 7), SOFT_TISSUE, True, True),
        (np.where(np.arange(4096).reshape(64, 64) == 9, 900, -1000), SOFT_TISSUE, True, True),
        (body(64), SOFT_TISSUE, True, False),
        (body(64), Window("lung", -1350, 150), True, False),
        (np.random.default_rng(0).normal(-990, 8, (64, 64)), Window("lung", -1350, 150), True, True),
        (np.random.default_rng(0).uniform(0, 4, (64, 64)), Window("percentiles", 0, 100), False, True),
        (np.random.default_rng(0).uniform(0, 80, (64, 64)), Window("percentiles", 0, 100), False, False),
    ],
)
def test_what_counts_as_empty(pixels: np.ndarray, window: Window, in_hu: bool, empty: bool) -> None:
    assert shows_nothing(Slice(pixels, "axial", 0, (1, 1), "ct"), window, in_hu) is empty


@pytest.mark.parametrize(
    ("every", "visited"), [(1, (0, 1, 2, 3, 4, 5, 6)), (2, (0, 2, 4, 6)), (3, (0, 3, 6)), (4, (1, 5))]
)
def test_every_nth_slice(engine: Engine, every: int, visited: tuple[int, ...]) -> None:
    assert finish(engine, ct_volume(7), every=every).slices_done == visited
    with pytest.raises(PromptError, match="Step out of range"):
        finish(engine, ct_volume(3), every=0)


def test_other_planes(engine: Engine) -> None:
    volume = ct_volume(24, size=40)
    report = finish(engine, volume, plane="coronal", indices=(18, 20, 22))
    assert report.slices_done == (18, 20, 22)
    assert all(f.mask.shape == volume.shape and f.plane == "coronal" for f in report.findings)
    assert {i for f in report.findings for i in f.slices} <= set(range(18, 23))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_cancel_ends_within_one_batch_and_keeps_what_is_done(batch_size: int) -> None:
    engine = toy_engine(batch_size=batch_size)
    cancel = CancelToken()
    updates: list[Update] = []
    for update in engine.run(ct_volume(8), RunRequest.segment("liver"), cancel=cancel):
        updates.append(update)
        if isinstance(update, SliceDone):
            cancel.cancel()
    report = updates[-1].report  # type: ignore[union-attr]
    assert report.ended == "cancelled"
    assert report.slices_done == tuple(range(batch_size))
    assert engine.counts.grounding_encodes == batch_size
    assert report.findings
    assert report.sentences == (), "a cancelled run does not go on to write"
    assert "Stopped by the user" in report.narrative


def test_cancelled_before_the_start(engine: Engine) -> None:
    cancel = CancelToken(True)
    report = finish(engine, ct_volume(3), cancel=cancel)
    assert (report.ended, report.slices_done, report.absences) == ("cancelled", (), ())


def test_no_findings_is_an_answer_with_a_number() -> None:
    report = finish(absent(), ct_volume(4, empty=(3,)), "liver", "hepar", "spleen")
    assert report.findings == ()
    assert [(a.target, a.slices_searched) for a in report.absences] == [("liver", 3), ("spleen", 3)]
    assert all(0 < a.presence < 1 for a in report.absences)
    assert "Looked for and not found\nStructures: liver (presence 0." in report.narrative


def test_an_open_question_without_findings_is_stated_too() -> None:
    report = finish(absent(), ct_volume(2), prompts=(Prompt("disease", max_new_tokens=4),))
    assert [a.target for a in report.absences] == ["abnormality"]


def test_default_targets_are_the_model_s_own_and_a_model_of_free_text_is_asked_openly() -> None:
    own = toy_engine(targets={"ct": ("liver", "spleen", "aorta")}, default_targets={"ct": ("aorta",)})
    assert finish(own, ct_volume(1), prompts=()).settings["targets"] == ["aorta"]
    trained = toy_engine(targets={"ct": ("liver", "spleen")})
    assert finish(trained, ct_volume(1), prompts=()).settings["targets"] == ["liver", "spleen"]
    free = finish(toy_engine(), ct_volume(1), prompts=()).settings
    assert (free["targets"], free["tasks"]) == ([], ["disease", "report"]), "nothing because it is in the vocabulary"


def test_an_unknown_target_stops_the_run_before_any_slice() -> None:
    engine = toy_engine(targets={"ct": ("liver",)})
    with pytest.raises(PromptError, match=r"Unknown target.*liver"):
        finish(engine, ct_volume(2), "livver")
    assert engine.counts.vision_encodes == 0


def test_key_slices_are_described_in_the_model_s_words(engine: Engine) -> None:
    asked: list[tuple[int, str]] = []
    predict = engine.predict

    def spy(slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window) -> list[tuple[Prediction, ...]]:
        answers = predict(slices, [replace(p, max_new_tokens=5) for p in prompts], window)
        asked.extend((s.index, p.task) for s in slices for p in prompts)
        return answers

    engine.predict = spy  # type: ignore[method-assign]
    report = finish(engine, ct_volume(5), "liver", "spleen", describe=True)
    described = [index for index, task in asked if task == "report"]
    assert described == list(dict.fromkeys(f.measurements.slice_largest for f in report.findings))[:3]
    assert [index for index, _ in report.sentences] == described
    assert all(text for _, text in report.sentences)
    assert "answer_truncated" in [note.code for note in report.warnings]


def test_a_picture_takes_the_same_path() -> None:
    engine = toy_engine()
    picture = rgb_picture()
    report = finish(engine, picture, "nuclei", describe=True)
    assert report.slices_done == (0,)
    assert report.findings
    assert all(f.mask.shape == (1, 40, 56) for f in report.findings)
    assert all(f.measurements.volume_ml is None for f in report.findings)
    assert report.image["window"] is None
    nothing = finish(absent(), picture, "nuclei", describe=True)
    assert nothing.findings == ()
    assert [a.slices_searched for a in nothing.absences] == [1]


def run_out(engine: Engine, limit: int, error: Exception) -> list[int]:
    """Let SAM 2's encoder fail for more than ``limit`` pictures at once; returns the sizes that were tried."""
    tried: list[int] = []
    encode = engine.model.grounder.encode

    def failing(pixels: torch.Tensor) -> Any:
        tried.append(len(pixels))
        if len(pixels) > limit:
            raise error
        return encode(pixels)

    engine.model.grounder.encode = failing  # type: ignore[method-assign]
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_goes_on_with_smaller_batches(error: Exception) -> None:
    engine = toy_engine(batch_size=4)
    expected = finish(toy_engine(), ct_volume(7))
    tried = run_out(engine, 2, error)
    report = finish(engine, ct_volume(7))
    assert tried == [4, 2, 2, 2, 1]
    assert report.slices_done == tuple(range(7))
    assert "Memory ran out; the run went on with 2 slices at once." in [note.text for note in report.warnings]
    assert same_findings(report, expected)


def test_out_of_memory_for_one_slice_is_our_error() -> None:
    engine = toy_engine(batch_size=2)
    run_out(engine, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(DeviceError, match=r"Out of memory.*MiB free.*one slice"):
        finish(engine, ct_volume(3))


def test_other_errors_are_not_taken_for_memory(engine: Engine) -> None:
    run_out(engine, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        finish(engine, ct_volume(3))


def test_batches_give_the_same_report() -> None:
    one, four = (finish(toy_engine(batch_size=n), ct_volume(6), "liver", "spleen") for n in (1, 4))
    assert same_findings(one, four)


PEAKS = """
import resource, sys
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.volume.request import RunRequest
engine, request = toy_engine(), RunRequest.segment("liver", "spleen", describe=False, check=False)
for count in (30, {slices}):
    for _ in engine.run(ct_volume(count, size=64), request):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("slices", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_peak_memory_of_the_process_stays_flat_as_slices_grow(slices: int) -> None:
    """Resident peak after a run of 30 slices and then after one of many, in a process of its own."""
    code = PEAKS.format(slices=slices)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    few, many = (int(line) for line in result.stdout.split())
    assert many <= 1.3 * few, f"{many} KiB at {slices} slices, {few} KiB at 30"


def test_a_slice_leaves_nothing_but_boolean_crops_behind() -> None:
    """The libraries' own share hides small leaks in the test above; here only what Python and numpy hold counts."""
    engine = toy_engine(batch_size=1)
    size, targets = 128, ("liver", "spleen")
    held: list[int] = []
    tracemalloc.start()
    try:
        for update in engine.run(ct_volume(21, size), RunRequest.segment(*targets, describe=False, check=False)):
            if isinstance(update, Progress):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    a_slice = (held[-1] - held[1]) / (len(held) - 2)
    assert a_slice < 1.25 * len(targets) * size * size, "one byte a pixel and target, and a little for the records"
