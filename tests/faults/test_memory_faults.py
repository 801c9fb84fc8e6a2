"""Memory that runs out at every stage of a run: less at once, or a message; and nothing is held after a stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests.alike import same_findings
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume import finish as finish_module
from unibiomed_core.engine.volume import postprocessing as selection_module
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import DeviceError
from unibiomed_core.types import Prompt, Report
from unibiomed_core.updates import CancelToken, Done, Progress, SliceDone

TARGETS = ("liver", "spleen", "aorta")
STAGES = ("encode", "tiles", "read", "decode")


def finish(engine: Engine, count: int = 5, **options: Any) -> Report:
    *_, last = engine.run(
        ct_volume(count, size=32), RunRequest.segment(*TARGETS, **{"describe": False, "check": False, **options})
    )
    assert isinstance(last, Done)
    return last.report


def limited(engine: Engine, stage: str, most: int) -> list[int]:
    """Let a stage fail for more than ``most`` rows at once; returns the numbers of rows that were tried."""
    tried: list[int] = []
    holder, name, row = {
        "encode": (engine.model.grounder, "encode", 0),
        "tiles": (engine.model, "encode_tiles", 0),
        "read": (engine.model, "embed", 0),
        "decode": (engine.model.grounder, "decode", 1),
    }[stage]
    original: Callable[..., Any] = getattr(holder, name)

    def failing(*given: Any, **named: Any) -> Any:
        tried.append(len(given[row]))
        if len(given[row]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*given, **named)

    setattr(holder, name, failing)
    return tried


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_goes_on_with_less_and_gives_the_same(stage: str) -> None:
    expected = finish(toy_engine())
    engine = toy_engine(batch_size=4)
    tried = limited(engine, stage, 2)
    report = finish(engine)
    assert max(tried) > 2
    assert tried[-1] <= 2
    assert same_findings(report, expected)
    assert report.slices_done == tuple(range(5))
    assert any("Memory ran out; the run went on with" in note.text for note in report.warnings)


def test_one_slice_with_many_targets_goes_on_with_fewer_targets() -> None:
    expected = finish(toy_engine())
    engine = toy_engine(batch_size=1)
    limited(engine, "decode", 1)
    report = finish(engine)
    assert same_findings(report, expected)
    assert "Memory ran out; the run went on with 1 prompt at once." in [note.text for note in report.warnings]


@pytest.mark.parametrize("stage", STAGES)
def test_where_nothing_fits_the_message_is_ours_and_nothing_is_held(stage: str) -> None:
    engine = toy_engine(batch_size=2)
    limited(engine, stage, 0)
    with pytest.raises(DeviceError, match=r"Out of memory.*MiB free") as caught:
        finish(engine)
    assert caught.value.code == "out_of_memory"
    assert caught.value.values["device"] == "cpu"
    assert {type(caught.value.values[name]) for name in ("free_bytes", "needed_bytes")} == {int}
    assert engine.features.held_bytes == 0


@pytest.mark.parametrize("stage", ["link", "findings"])
@pytest.mark.parametrize("times", [1, 2])
def test_linking_is_tried_again_without_cached_features(
    stage: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = toy_engine()
    place = selection_module if stage == "link" else finish_module
    original, left, held = getattr(place, stage), [times], []

    def failing(*given: Any, **named: Any) -> Any:
        held.append(engine.features.held_bytes)
        if left[0]:
            left[0] -= 1
            raise MemoryError
        return original(*given, **named)

    monkeypatch.setattr(place, stage, failing)
    if times == 1:
        assert same_findings(finish(engine), finish(toy_engine()))
        assert held[0] > 0
        assert held[1] == 0
    else:
        with pytest.raises(DeviceError, match="Out of memory"):
            finish(engine)


def test_findings_outlive_a_description_that_does_not_fit() -> None:
    engine = toy_engine()
    predict = engine.predict

    def failing(slices: Sequence[Any], prompts: Sequence[Prompt], window: Any) -> Any:
        if prompts[0].task == "report":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(slices, prompts, window)

    engine.predict = failing  # type: ignore[method-assign]
    report = finish(engine, describe=True)
    assert same_findings(report, finish(toy_engine()))
    assert report.sentences == ()
    assert "description_memory" in [note.code for note in report.warnings]


@pytest.mark.parametrize("task", ["part", "roi_class"])
def test_a_report_outlives_checks_that_do_not_fit(task: str) -> None:
    engine = toy_engine()
    predict = engine.predict

    def failing(slices: Sequence[Any], prompts: Sequence[Prompt], window: Any) -> Any:
        if prompts[0].task == task:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(slices, prompts, window)

    engine.predict = failing  # type: ignore[method-assign]
    lesions = RunRequest.segment("lesion", describe=False)
    *_, last = engine.run(ct_volume(3, size=32), lesions)
    assert isinstance(last, Done)
    assert [f.target for f in last.report.findings] == ["lesion"] * len(last.report.findings) != []
    assert [n.code for n in last.report.warnings if n.code == "checks_memory"] == ["checks_memory"]
    assert (last.report.shown is None) is (task == "part")


@pytest.mark.parametrize("kind", [Progress, SliceDone])
@pytest.mark.parametrize("nth", [1, 3])
def test_cancel_at_any_update_ends_within_a_batch_and_holds_nothing(kind: type, nth: int) -> None:
    engine, cancel, seen = toy_engine(batch_size=2), CancelToken(), []
    at_cancel = 0
    for update in engine.run(
        ct_volume(9, size=32), RunRequest.segment(*TARGETS, describe=False, check=False), cancel=cancel
    ):
        seen.append(update)
        if isinstance(update, kind) and sum(isinstance(u, kind) for u in seen) == nth and not cancel.cancelled:
            cancel.cancel()
            at_cancel = engine.counts.grounding_encodes
    assert isinstance(seen[-1], Done)
    assert seen[-1].report.ended == "cancelled"
    assert engine.counts.grounding_encodes == at_cancel, "what runs is the batch that was running"
    assert engine.features.held_bytes == 0


def test_a_stream_that_is_dropped_holds_nothing() -> None:
    engine = toy_engine()
    stream = engine.run(ct_volume(9, size=32), RunRequest.segment(*TARGETS, describe=False, check=False))
    while not isinstance(next(stream), SliceDone):
        pass
    assert engine.features.held_bytes > 0
    stream.close()  # type: ignore[attr-defined]
    assert engine.features.held_bytes == 0


SOAK = """
import resource, sys
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.updates import Progress
request = RunRequest.segment("liver", describe=False, check=False)
for update in toy_engine(batch_size=10).run(ct_volume({slices}, size=20), request):
    if isinstance(update, Progress) and update.done in ({slices} // 4, {slices}):
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of a process is not told there")
@pytest.mark.parametrize("slices", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_slices_grow_by_less_than_a_hundredth(slices: int) -> None:
    """Resident peak of a process after a quarter of the slices and after all, each with a mask that is kept."""
    code = SOAK.format(slices=slices)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = (int(line) for line in done.stdout.split())
    assert late <= 1.01 * early, f"{late} KiB after {slices} slices, {early} KiB after a quarter"
