"""What a stage tells of itself: log.jsonl, TensorBoard scalars and one line on the screen; FLOPs and their peak."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unibiomed_core.errors import DataError, WriteError
from unibiomed_core.files import parse_json, replaced_file

LOG = "log.jsonl"
CPU_SIDE, GPU_SIDE = 1024, 8192
PEAK_SECONDS = 0.3


class StageProgress:
    """The progress of one stage; made and called in the main process only.

    Args:
        folder: The stage's folder; its name is the stage's.
        start: Step that the stage goes on from; what the log says of later ones is cut off.
        log_every: Steps between two lines.
        tensorboard: Whether scalars are also written for TensorBoard, into ``folder``/tensorboard.
        flops_per_step: Counted FLOPs of one process's step, forward and backward; may be set as an attribute once a
            step was counted. Without it, or without the peak, no utilisation is told.
        peak_flops: Measured FLOP/s of one process's device.

    Raises:
        DataError: The log is damaged before its last line.
        WriteError: The log cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        *,
        start: int,
        log_every: int,
        say: Callable[[str], None],
        tensorboard: bool,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
    ) -> None:
        self.folder, self.total_steps, self.log_every, self.say = folder, total_steps, log_every, say
        self.flops_per_step, self.peak_flops = flops_per_step, peak_flops
        cut_log(folder / LOG, start)
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Steps after the one resumed from were written by the process that died; TensorBoard hides them.
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._start, self._last, self._samples = start, start, 0
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._began = self._since = monotonic()

    def step(self, step: int, losses: Mapping[str, float], learning_rate: float, samples: int) -> None:
        """Take in one finished step; every ``log_every`` steps and at the last one a line is written.

        Args:
            step: Steps done, this one included.
            losses: Parts of the loss; a part that this step lacks does not count into that part's mean.
            samples: Samples of all processes in this step.

        Raises:
            WriteError: The log cannot be written.
        """
        self._samples += samples
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if step % self.log_every == 0 or step == self.total_steps:
            self._line(step, learning_rate)

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Log what a validation gave: losses under their own names, scores from 0 to 1 under other names.

        Raises:
            WriteError: The log cannot be written.
        """
        self._write({"step": step, "scores": dict(scores)})
        self._scalars(step, {f"validation/{name}": value for name, value in scores.items()})
        told = "  ".join(f"{name} {_number(value)}" for name, value in scores.items())
        self.say(f"{self.folder.name} {step}/{self.total_steps}  validation: {told}")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _line(self, step: int, learning_rate: float) -> None:
        now = monotonic()
        seconds = max(now - self._since, 1e-9)
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        rate = self._samples / seconds
        numbers = {"learning_rate": learning_rate, "samples_per_second": rate}
        parts = [f"{name} {_number(value)}" for name, value in means.items()]
        told = [f"{self.folder.name} {step}/{self.total_steps}", " ".join(parts), f"{rate:.3g} samples/s"]
        if self.flops_per_step and self.peak_flops:
            used = self.flops_per_step * (step - self._last) / seconds / self.peak_flops
            numbers["share_of_peak"] = used
            told.append(f"{used:.0%} of peak".replace("%", " %"))
        # From the whole session, because saving and validating take their share of the time left, too.
        left = (self.total_steps - step) * (now - self._began) / (step - self._start)
        told.append(f"{_duration(left)} left")
        self._write({"step": step, "steps": step - self._last, "losses": means, **numbers})
        self._scalars(step, {f"loss/{name}": value for name, value in means.items()} | numbers)
        self.say("  ".join(filter(None, told)))
        self._last, self._since, self._samples = step, now, 0
        self._sums.clear()
        self._counts.clear()

    def _write(self, line: dict[str, Any]) -> None:
        file = self.folder / LOG
        try:
            with file.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError as cause:
            raise WriteError("Log not written", f"{file}: {cause}", "a folder with space") from cause

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def read_log(file: Path) -> list[dict[str, Any]]:
    """Lines of a log; a last one that a kill cut in the middle is left out.

    Raises:
        DataError: Another line cannot be read.
    """
    if not file.is_file():
        return []
    lines = file.read_text("utf-8", "replace").splitlines(keepends=True)
    whole = lines if not lines or lines[-1].endswith("\n") else lines[:-1]
    wanted = f"one JSON object a line; move {file} away to begin another"
    return [
        parse_json(line.encode(), f"{file.name}, line {number}", DataError, "Log cannot be read", wanted)
        for number, line in enumerate(whole, 1)
    ]


def cut_log(file: Path, step: int) -> None:
    """Keep the lines up to ``step``; the others are written again by the steps that follow.

    Raises:
        DataError: The log is damaged before its last line.
        WriteError: The folder cannot be written.
    """
    kept = [line for line in read_log(file) if line["step"] <= step]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(file) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    except OSError as cause:
        raise WriteError("Log not written", f"{file}: {cause}", "a folder with space") from cause


def count_flops(step: Callable[[], object]) -> float:
    """FLOPs that ``step`` executes (forward, backward, recomputation), as torch counts its matrix products.

    The step runs once, with the results it has without counting.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some large square matrix products on ``device``, in about half a second."""
    side = CPU_SIDE if device.type == "cpu" else GPU_SIDE
    generator = torch.Generator(device).manual_seed(0)
    matrix = torch.rand(side, side, generator=generator, device=device).to(dtype)

    def seconds() -> float:
        began = monotonic()
        torch.mm(matrix, matrix)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return monotonic() - began

    seconds()  # the first one pays for loading the kernel
    began, fastest = monotonic(), seconds()
    while monotonic() - began < PEAK_SECONDS:
        fastest = min(fastest, seconds())
    return 2.0 * side**3 / fastest


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
