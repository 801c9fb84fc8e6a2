"""Progress: lines, means, utilisation, resume; counted FLOPs; curves and overlays as pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from train.training import progress
from train.training.curves import _losses, _scores, draw_curves, smoothed
from train.training.progress import StageProgress, count_flops, measured_peak, read_log
from train.training.validate import PREDICTED_COLOUR, TRUTH_COLOUR, OverlayRow, overlay_sheet
from unibiomed_core.errors import DataError, WriteError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass only when a test lets them."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_a_line_tells_means_rate_utilisation_and_time_left(tmp_path: Path, clock: list[float]) -> None:
    said: list[str] = []
    stage = StageProgress(
        tmp_path / "grounding", 450, start=0, log_every=50, say=said.append, tensorboard=False,
        flops_per_step=6e9, peak_flops=25e9,
    )  # fmt: skip
    for step in range(1, 51):
        clock[0] += 2.0
        losses = {"mask": 0.02 * (1 + step % 2), "dice": 0.5}
        stage.step(step, losses if step % 5 else {"dice": 0.5}, 1e-3, samples=8)
    assert said == ["grounding 50/450  mask 0.0300 dice 0.5  4 samples/s  12 % of peak  13 min left"]
    (line,) = read_log(tmp_path / "grounding" / "log.jsonl")
    assert line["losses"] == pytest.approx({"mask": 0.03, "dice": 0.5})  # 40 of 50 steps have a mask
    assert (line["step"], line["steps"], line["learning_rate"]) == (50, 50, 1e-3)
    assert line["share_of_peak"] == pytest.approx(0.12)
    clock[0] += 50.0
    stage.scores(50, {"dice": 0.71})
    assert said[-1] == "grounding 50/450  validation: dice 0.71"


def test_each_line_stands_for_its_own_steps_and_the_last_step_has_one(tmp_path: Path, clock: list[float]) -> None:
    said: list[str] = []
    stage = StageProgress(tmp_path, 7, start=0, log_every=3, say=said.append, tensorboard=False)
    for step in range(1, 8):
        clock[0] += 1.0 if step < 4 else 0.5
        stage.step(step, {"text": float(step)}, 1e-3, samples=step)
    lines = read_log(tmp_path / "log.jsonl")
    assert [(line["step"], line["steps"], line["losses"]["text"]) for line in lines] == [
        (3, 3, 2),
        (6, 3, 5),
        (7, 1, 7),
    ]
    assert [line["samples_per_second"] for line in lines] == pytest.approx([2, 10, 14])
    assert "peak" not in said[0]
    assert said[0].endswith("4 s left")
    assert said[-1].endswith("0 s left")


def test_resume_cuts_the_log_so_that_no_step_is_doubled_or_missing(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    whole = StageProgress(tmp_path, 20, start=0, log_every=2, say=lambda line: None, tensorboard=False)
    for step in range(1, 14):
        whole.step(step, {"text": 1.0}, 1e-3, 4)
        if step in (5, 10, 12):
            whole.scores(step, {"dice": 0.5})
    with log.open("a", encoding="utf-8") as handle:
        handle.write('{"step": 14, "los')  # killed in the middle of a line
    resumed = StageProgress(tmp_path, 20, start=10, log_every=2, say=lambda line: None, tensorboard=False)
    assert [line["step"] for line in read_log(log)] == [2, 4, 5, 6, 8, 10, 10]
    for step in range(11, 21):
        resumed.step(step, {"text": 1.0}, 1e-3, 4)
    losses = [line for line in read_log(log) if "losses" in line]
    assert [line["step"] for line in losses] == list(range(2, 21, 2))
    assert sum(line["steps"] for line in losses) == 20


def test_a_damaged_log_or_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n', "utf-8")
    with pytest.raises(DataError, match="Log cannot be read"):
        read_log(tmp_path / "log.jsonl")
    with pytest.raises(WriteError, match="Log not written"):
        StageProgress(tmp_path / "log.jsonl" / "x", 2, start=0, log_every=1, say=lambda line: None, tensorboard=False)


def test_tensorboard_has_the_scalars_and_hides_what_a_resume_replaces(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, until in ((0, 4), (2, 6)):
        stage = StageProgress(tmp_path, 6, start=start, log_every=1, say=lambda line: None, tensorboard=True)
        for step in range(start + 1, until + 1):
            stage.step(step, {"text": step + start / 10}, 1e-3, 4)
        stage.scores(until, {"dice": 0.5})
        stage.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss/text", "learning_rate", "samples_per_second", "validation/dice"} <= set(board.Tags()["scalars"])
    found = [(event.step, round(event.value, 3)) for event in board.Scalars("loss/text")]
    assert found == [(1, 1.0), (2, 2.0), (3, 3.2), (4, 4.2), (5, 5.2), (6, 6.2)]


def test_flops_are_those_of_forward_and_backward() -> None:
    linear = nn.Linear(16, 32)
    picture = torch.randn(4, 16)
    forward = 2 * 4 * 16 * 32
    assert count_flops(lambda: linear(picture)) == forward
    assert count_flops(lambda: linear(picture).sum().backward()) == 2 * forward  # no gradient of the input is made
    picture.requires_grad_(True)
    assert count_flops(lambda: linear(picture).sum().backward()) == 3 * forward


def test_counting_changes_no_gradient() -> None:
    """A run that is resumed counts a step that the uninterrupted run did not count."""

    def gradients(counted: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        network = nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.GELU(), layer, nn.LayerNorm(32))
        picture = torch.randn(2, 8, 32)

        def step() -> None:
            network(picture).square().mean().backward()

        if counted:
            assert count_flops(step) > 1e5
        else:
            step()
        return [p.grad for p in network.parameters() if p.grad is not None]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(one, other)


def test_the_peak_is_that_of_the_fastest_product_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves with every look at it, and by less from the fourth product on."""
    monkeypatch.setattr(progress, "CPU_SIDE", 16)
    looks, now = 0, 0.0

    def monotonic() -> float:
        nonlocal looks, now
        looks, now = looks + 1, now + (0.02 if looks < 8 else 0.01)
        return now

    monkeypatch.setattr(progress, "monotonic", monotonic)
    before = torch.get_rng_state()
    peak = measured_peak(torch.device("cpu"), torch.float32)
    assert peak == pytest.approx(2 * 16**3 / 0.01)
    assert looks <= 8 + (progress.PEAK_SECONDS + 0.1) / 0.01, "it ends when its time is over"
    assert torch.equal(torch.get_rng_state(), before)


def test_curves_have_a_panel_for_each_stage_that_has_lines(tmp_path: Path) -> None:
    assert draw_curves(tmp_path, ["grounding", "language"]) is None
    sizes = []
    for name in ("grounding", "language"):
        (tmp_path / name).mkdir()
        lines = [{"step": s, "losses": {"mask": 3.0 / s}} for s in range(1, 40)] + [
            {"step": 39, "scores": {"dice": 0.4}}
        ]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        path = draw_curves(tmp_path, ["grounding", "language", "joint"])
        assert path == tmp_path / "curves.png"
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, "curves are drawn"
        sizes.append(picture.shape)
    assert sizes[1][1] > 1.5 * sizes[0][1]
    assert not list(tmp_path.glob("*.new"))


def test_validation_losses_share_the_axis_of_the_losses_and_scores_have_their_own() -> None:
    panel = Figure().subplots()
    lines = [{"step": 1, "losses": {"mask": 3.0}}, {"step": 1, "scores": {"mask": 4.0, "presence AUC": 0.8}}]
    _losses(panel, lines)
    right = _scores(panel, lines)
    raw, _, validation = panel.lines
    assert (validation.get_label(), validation.get_color()) == ("mask (validation)", raw.get_color())
    assert [line.get_label() for line in right] == ["presence AUC (validation)"]
    assert right[0].axes.get_ylim() == (0, 1)


def test_the_smoothed_curve_is_a_running_mean() -> None:
    values = np.arange(100.0) % 2
    assert np.allclose(smoothed(values)[5:-5], 0.5, atol=0.11)
    assert smoothed(np.array([3.0])).tolist() == [3.0]


def disc(row: int, column: int) -> np.ndarray:
    rows, columns = np.mgrid[:60, :80]
    return (rows - row) ** 2 + (columns - column) ** 2 < 15**2


def colours(path: Path) -> dict[str, int]:
    """How many pixels are close to the colour of each outline."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = {name: [int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in (TRUTH_COLOUR, PREDICTED_COLOUR)}
    return {name: int((np.abs(pixels - colour).max(axis=-1) < 40).sum()) for name, colour in wanted.items()}


def test_overlays_show_both_outlines(tmp_path: Path) -> None:
    picture = np.full((60, 80, 3), 120, np.uint8)
    nothing = np.zeros((60, 80), bool)
    both = overlay_sheet([OverlayRow(picture, disc(30, 40), disc(28, 44), "drawn: disc")], tmp_path / "both.png")
    missed = overlay_sheet([OverlayRow(picture, disc(30, 40), nothing, "drawn: disc")], tmp_path / "missed.png")
    assert colours(both)[TRUTH_COLOUR] > colours(both)[PREDICTED_COLOUR] / 3 > 30
    assert colours(missed)[TRUTH_COLOUR] > 100
    assert colours(missed)[PREDICTED_COLOUR] == 0
    edge = overlay_sheet([OverlayRow(picture, disc(0, 0), ~nothing, "edge")] * 3, tmp_path / "a" / "edge.png")
    assert Image.open(edge).size[0] > 1.8 * Image.open(both).size[0]


def test_overlays_refuse_sizes_that_differ_and_nothing_at_all(tmp_path: Path) -> None:
    row = OverlayRow(np.zeros((60, 80, 3), np.uint8), disc(3, 3), disc(3, 3).T, "drawn: disc")
    with pytest.raises(DataError, match=r"\(80, 60\)"):
        overlay_sheet([row], tmp_path / "sheet.png")
    with pytest.raises(DataError, match="Empty sheet"):
        overlay_sheet([], tmp_path / "sheet.png")
    assert os.listdir(tmp_path) == []
