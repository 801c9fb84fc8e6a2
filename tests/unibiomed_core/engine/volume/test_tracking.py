"""Masks that SAM 2's memory carries: where it starts, how far it goes, both ways, and the published path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from tests.alike import same_masks
from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_volume, segment, toy_config, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume import plans, tracking
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.batching import RunContext
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import DeviceError, PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Presence
from unibiomed_core.model.video_memory import Track
from unibiomed_core.types import Prompt, StoredOrder, Volume
from unibiomed_core.updates import CancelToken, Done, SliceDone, Update

LIVER = Prompt("segment", "liver")


def remembering(**changes: Any) -> Engine:
    """A toy engine with memory parts."""
    sizes = replace(toy_config().grounding, memory=True, memory_dim=16, memory_layers=1, memory_mlp=32)
    return toy_engine(grounding=sizes, **changes)


def run(engine: Engine, volume: Volume, prompts: Sequence[Prompt], plan: str, **options: Any) -> list[Update]:
    return list(engine.run(volume, RunRequest(tuple(prompts), describe=False, check=False, plan=plan, **options)))


def test_stretches_end_where_the_model_looked_and_found_nothing() -> None:
    volume = ct_volume(40, size=24)
    context = RunContext(toy_engine(), volume, "axial", [LIVER], SOFT_TISSUE, CancelToken())
    route = plans.route("propagate", volume, "axial", SOFT_TISSUE, every=4)
    aggregation = Aggregation(found={LIVER: {1: 0.5, 13: 0.7, 17: 0.9, 37: 0.6}})
    assert tracking.stretches(context, route, aggregation) == [
        tracking.Stretch(LIVER, (1,), 1, -1, 5),
        tracking.Stretch(LIVER, (13, 17), 17, 9, 21),
        tracking.Stretch(LIVER, (37,), 37, 33, 40),
    ]


def test_many_keys_are_thinned_and_the_best_one_stays() -> None:
    way = tracking.Stretch(LIVER, tuple(range(0, 80, 4)), 36, -1, 80)
    kept = tracking._kept(way)
    assert len(kept) <= tracking.MOST_KEYS
    assert 36 in kept
    assert kept[0] == 0
    assert kept[-1] >= 60


def test_memory_goes_both_ways_and_every_slice_is_told_once() -> None:
    engine = remembering()
    followed: list[int] = []
    follow = Track.follow

    def spy(self: Track, features: Any, place: int) -> Any:
        followed.append(place)
        return follow(self, features, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Track, "follow", spy)
        updates = run(engine, ct_volume(10, size=32), segment("liver", "spleen"), "propagate", every=3)
    told = [u.index for u in updates if isinstance(u, SliceDone)]
    assert sorted(told) == list(range(10))
    assert told[:4] == [0, 3, 6, 9]
    assert told[4:] == sorted(told[4:])
    assert {abs(p) for p in followed} == {1, 2, 4, 5, 7, 8}
    assert sorted(abs(p) for p in followed) == sorted([1, 2, 4, 5, 7, 8] * 2), "once a target, from one side"
    assert any(p < 0 for p in followed) or any(p > 0 for p in followed)
    report = updates[-1].report  # type: ignore[union-attr]
    assert {f.target for f in report.findings} <= {"liver", "spleen"}
    assert report.settings["plan"] == "propagate"


def test_a_slice_that_carries_no_doubt_is_not_asked_in_words_again() -> None:
    engine = remembering()
    run(engine, ct_volume(10, size=32), [LIVER], "propagate", every=3)
    assert engine.counts.prefix_reads == 4, "the slices of the first pass only"


def test_nothing_found_means_nothing_followed() -> None:
    engine = remembering(presence=Presence("object", 1.01))
    updates = run(engine, ct_volume(10, size=32), [LIVER], "propagate", every=3)
    report = updates[-1].report  # type: ignore[union-attr]
    assert report.slices_done == (0, 3, 6, 9)
    assert [a.slices_searched for a in report.absences] == [4]


def test_questions_are_answered_on_the_first_pass_and_add_no_slices() -> None:
    open_ended = Prompt("disease", max_new_tokens=4)
    engine = remembering()
    volume = ct_volume(10, size=32)
    context = RunContext(engine, volume, "axial", [open_ended, LIVER], SOFT_TISSUE, CancelToken())
    route = plans.route("propagate", volume, "axial", SOFT_TISSUE, every=3)
    aggregation = Aggregation(found={open_ended: {0: 0.9, 3: 0.9}, LIVER: {9: 0.9}})
    batches = [batch for batch in tracking.carried(context, route, aggregation) if batch]
    assert [index for batch in batches for index, _ in batch] == [7, 8]
    assert all(p.phrases == () for ((_, (p, _)),) in batches)


def test_only_targets_can_be_followed() -> None:
    engine = remembering()
    with pytest.raises(PromptError, match=r"Nothing to follow.*report"):
        run(engine, ct_volume(4, size=32), [Prompt("report")], "propagate")
    with pytest.raises(PromptError, match=r"Nothing to follow.*report"):
        run(engine, ct_volume(4, size=32), [LIVER, Prompt("report")], "published-video")


@pytest.mark.parametrize("plan", ["propagate", "published-video"])
def test_cancel_ends_within_one_slice(plan: str) -> None:
    cancel, told = CancelToken(), []
    request = RunRequest.segment("liver", describe=False, check=False, plan=plan)
    for update in remembering().run(ct_volume(12, size=32), request, cancel=cancel):
        if isinstance(update, SliceDone):
            told.append(update.index)
            if len(told) == 7:
                cancel.cancel()
    assert isinstance(update, Done)
    assert len(told) == 7
    assert update.report.ended == "cancelled"


@pytest.mark.parametrize("plan", ["propagate", "published-video"])
def test_memory_that_runs_out_while_following_is_our_error(plan: str) -> None:
    engine = remembering()

    def failing(self: Track, features: Any, place: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Track, "follow", failing)
        with pytest.raises(DeviceError, match="Out of memory"):
            run(engine, ct_volume(12, size=32), [LIVER], plan)
    assert engine.features.held_bytes == 0


def test_the_published_path_gives_the_published_masks(shared: Path) -> None:
    folder = shared / "parity" / "tiny-a"
    case = json.loads((folder / "expected.json").read_text())["volume"]
    theirs = load_file(folder / "expected.safetensors")["volume/mask_0"].astype(bool)
    pictures = np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in case["image"]])
    engine = Engine.load(str(folder), device="cpu")
    loose = replace(engine.config, presence=Presence("object", 0.0), wording={"segment": case["text"]})
    engine.config = engine.processor.config = loose
    order = StoredOrder((0, 1, 2), (False, False, False), pictures.shape[:3], np.eye(4))
    volume = Volume(pictures, np.eye(4), "ct", "intensity", "mm", False, order)
    prompt = Prompt("segment", "liver", answer=case["forced_answer"])
    updates = run(engine, volume, [prompt], "published-video", window=Window("as is", 0.0, 255.0))
    masks = [m for u in updates if isinstance(u, SliceDone) for m in u.predictions[0].masks]
    ours = np.stack([m.full() for m in masks])
    assert same_masks(ours[:5], theirs.reshape(ours.shape)[:5])
    assert (ours != theirs.reshape(ours.shape)).mean() <= 1e-3
