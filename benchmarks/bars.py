"""What is measured against which bar, and how a table of it looks: lines, JSON, and a picture of bars."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value beside its bar.

    Args:
        where: "CPU", "GPU", or "count" for what is the same everywhere.
        least: The value has to be at least the bar; otherwise at most.
        parts: What the value is made of, for those who ask where it goes.
    """

    id: str
    what: str
    where: str
    value: float
    bar: float
    least: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.least else self.value <= self.bar

    @property
    def used(self) -> float:
        """Share of what the bar allows: at most 1 where it is met."""
        return self.bar / max(self.value, 1e-9) if self.least else self.value / self.bar if self.bar else self.value


def table(rows: Sequence[Row]) -> str:
    """One line a row, the parts of a value below it."""
    widest = max(len(row.what) for row in rows)
    lines = [f"{'id':4} {'where':6} {'what':{widest}} {'value':>10} {'bar':>10}  met"]
    for row in rows:
        bar = f"{'>=' if row.least else '<='} {row.bar:g}"
        lines.append(
            f"{row.id:4} {row.where:6} {row.what:{widest}} {row.value:10.3f} {bar:>10}  {'yes' if row.met else 'NO'}"
        )
        lines += [f"{'':12}{name:{widest - 1}} {value:10.3f}" for name, value in row.parts.items()]
    return "\n".join(lines)


def write(rows: Sequence[Row], out: Path) -> None:
    """``benchmarks.json`` and ``benchmarks.png``."""
    out.mkdir(parents=True, exist_ok=True)
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }
    rows_as_values = [{**asdict(row), "met": row.met} for row in rows]
    text = json.dumps({"machine": machine, "rows": rows_as_values}, indent=1)
    (out / "benchmarks.json").write_text(text + "\n", "utf-8")
    draw(rows, out / "benchmarks.png")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Each value as a share of its bar on a logarithmic axis; what reaches past 1 misses its bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 0.35 * len(rows) + 1.2), layout="constrained")
    names = [f"{row.id} {row.where}: {row.what}" for row in rows]
    shares = [max(row.used, 0.01) for row in rows]
    axes.barh(range(len(rows)), shares, color=["#3b7a57" if row.met else "#b03a2e" for row in rows])
    for place, row in enumerate(rows):
        sign = ">=" if row.least else "<="
        axes.text(shares[place] * 1.05, place, f"{row.value:.3g} ({sign} {row.bar:g})", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.01, 10 ** math.ceil(math.log10(max([*shares, 1.0]) * 1.5)))
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("share of what the bar allows")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
