"""Loss curves of a run as one picture, and how figures are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from ..plots import write_figure
from .progress import LOG, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SMOOTHED_PART = 0.05
"""Part of a stage's log lines that a point of the smoothed curve is the mean of."""

LOG_FROM_RATIO = 10.0
"""A panel is logarithmic where its largest loss is at least so many times its smallest."""


def draw_curves(run: Path, stages: Sequence[str]) -> Path | None:
    """Write ``run``/curves.png from the stages' logs, one panel a stage; None where no stage has a line yet.

    Faint lines are the logged means, strong ones their running means; dots are validations: on the
    axis of the losses where they have a loss's name, else on the right axis, from 0 to 1.

    Raises:
        DataError: A log is damaged.
        WriteError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    logs = {name: lines for name in stages if (lines := read_log(run / name / LOG))}
    if not logs:
        return None
    figure = Figure(figsize=(5.0 * min(3, len(logs)), 3.6 * -(-len(logs) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(logs) // 3), min(3, len(logs)), squeeze=False).ravel()
    for panel in panels[len(logs) :]:
        panel.set_axis_off()
    for panel, (name, lines) in zip(panels, logs.items(), strict=False):
        panel.set(title=name, xlabel="step", ylabel="loss")
        _losses(panel, lines)
        scores = _scores(panel, lines)
        named = [line for line in (*panel.lines, *scores) if not str(line.get_label()).startswith("_")]
        panel.legend(handles=named, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5, fontsize="x-small")
    return write_figure(figure, run / "curves.png")


def _losses(panel: Axes, lines: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import LogFormatter

    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.get("losses", {}).items():
            curves.setdefault(name, []).append((line["step"], value))
    for number, (name, points) in enumerate(curves.items()):
        steps, values = np.array(points).T
        panel.plot(steps, values, color=f"C{number}", alpha=0.3, linewidth=0.8)
        panel.plot(steps, smoothed(values), color=f"C{number}", linewidth=1.6, label=name)
    values = np.array([value for points in curves.values() for _, value in points])
    if len(values) and values.min() > 0 and values.max() / values.min() >= LOG_FROM_RATIO:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(LogFormatter())
        panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean of a curve, of the same length; its ends repeat the last value on their side."""
    return uniform_filter1d(values, max(1, round(len(values) * SMOOTHED_PART)), mode="nearest")


def _scores(panel: Axes, lines: list[dict[str, Any]]) -> list[Line2D]:
    """Draw what validations gave; returns the lines of the right axis."""
    points = [(line["step"], *item) for line in lines for item in line.get("scores", {}).items()]
    names = list(dict.fromkeys(name for _, name, _ in points))
    losses = {str(line.get_label()): line.get_color() for line in panel.lines}
    right = panel.twinx() if set(names) - set(losses) else None
    if right is not None:
        right.set(ylabel="validation score", ylim=(0, 1))
    for number, name in enumerate(names):
        at, values = zip(*((step, value) for step, other, value in points if other == name), strict=True)
        colour = losses.get(name, f"C{9 - number % 10}")
        axis = panel if name in losses or right is None else right
        axis.plot(at, values, "o:", color=colour, markersize=3, linewidth=1, label=f"{name} (validation)")
    return list(right.lines) if right is not None else []
