"""The paper's kinds of figures as PNG: bars by modality, radar over tasks, boxes by data set, a sheet of cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed_core.metrics.overlap import dice
from unibiomed_core.modalities import modality

from ..data.records import Record
from ..plots import write_figure
from .mask_scores import by_dataset, read_scores
from .prediction_files import MASK_FILE, MASK_VALUES, Row, decode, rows
from .tables import joined, shared_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHEET_ROWS = 24
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito 2008: told apart by colour-blind readers too."""

TRIVIAL = "#999999"

Table = Mapping[str, Any]


def draw_all(folder: Path, table: Table, records: Sequence[Record]) -> list[Path]:
    """All four figures of one scored folder, written into it."""
    return [
        bars_by_modality({folder.name: table}, folder / "bars_by_modality.png"),
        radar_over_tasks({folder.name: table}, folder / "radar_over_tasks.png"),
        boxes_by_dataset({folder.name: folder}, folder / "boxes_by_dataset.png"),
        sheet(folder, records, folder / "sheet.png"),
    ]


def bars_by_modality(tables: Mapping[str, Table], path: Path) -> Path:
    """Mean Dice over the targets of each modality, with their standard deviation and each target as a dot."""
    masks = shared_rows(tables)
    groups = {name: _by_modality(rows, "dice") for name, rows in masks.items()}
    shapes = _by_modality(next(iter(masks.values())), "dice_mean_shape")
    kinds = sorted({kind for found in groups.values() for kind in found})
    drawn = [*groups.items(), ("mean shape", shapes)]
    figure, axes = _figure(max(6.0, 1.2 * len(kinds) + 2), 4.0)
    width = 0.8 / len(drawn)
    for number, (name, found) in enumerate(drawn):
        colour = TRIVIAL if name == "mean shape" else COLOURS[number % len(COLOURS)]
        at = np.arange(len(kinds)) + (number - (len(drawn) - 1) / 2) * width
        values = [found.get(kind, []) for kind in kinds]
        means = [float(np.mean(v)) if v else 0.0 for v in values]
        axes.bar(at, means, width * 0.92, color=colour, label=name)
        several = [i for i, v in enumerate(values) if len(v) > 1]
        spread = [float(np.std(values[i])) for i in several]
        axes.errorbar(
            at[several], [means[i] for i in several], spread, fmt="none", ecolor="black", elinewidth=0.8, capsize=2
        )
        for x, dots in zip(at, values, strict=True):
            axes.scatter([x] * len(dots), dots, s=7, color="black", alpha=0.45, zorder=3, linewidths=0)
    counts = [len(next(iter(groups.values())).get(kind, [])) for kind in kinds]
    axes.set_xticks(
        range(len(kinds)), [f"{modality(k).label}\n({c})" for k, c in zip(kinds, counts, strict=True)], fontsize=8
    )
    axes.set_ylim(0, 1)
    axes.set_ylabel("Dice, pictures that show the target")
    axes.set_title("Mean and s.d. over the targets of a modality (how many)", fontsize=10)
    axes.legend(fontsize=8, frameon=False, ncols=len(drawn), loc="upper right")
    return write_figure(figure, path, 150)


def _by_modality(masks: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in masks:
        if not np.isnan(row[name]):
            found[row["modality"]].append(row[name])
    return found


def radar_over_tasks(tables: Mapping[str, Table], path: Path) -> Path:
    """One spoke a task, each from 0 at the centre to 1; a system that cannot do a task ends at the centre there."""
    overall = joined(tables)["macro"]
    spokes = {name: _tasks(table, overall[name]) for name, table in tables.items()}
    names = list(dict.fromkeys(task for found in spokes.values() for task in found))
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    figure, axes = _figure(6.5, 5.5, polar=True)
    for number, (name, found) in enumerate(spokes.items()):
        values = [found.get(task, 0.0) for task in names]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([*angles, angles[0]], [*values, values[0]], color=colour, lw=1.6, label=name)
        axes.fill(angles, values, color=colour, alpha=0.12)
    labels = names
    if len(spokes) == 1:
        labels = [f"{task}\n{next(iter(spokes.values()))[task]:.2f}" for task in names]
    axes.set_xticks(angles, labels, fontsize=8)
    axes.tick_params(axis="x", pad=18)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["0.25", "0.5", "0.75", "1"], fontsize=7, color="grey")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(-0.25, 1.12))
    return write_figure(figure, path, 150)


def _tasks(table: Table, overall: Mapping[str, float]) -> dict[str, float]:
    found = {"macro Dice": overall["dice"], "presence AUC": overall["presence_auc"]}
    labels = {
        "roi_class": "ROI class", "disease": "disease", "vqa_closed": "closed VQA", "image_class": "picture class"
    }  # fmt: skip
    whole = {row["task"]: row for row in table["answers"] if row["modality"] == "all"}
    found |= {f"{label}\naccuracy": whole[task]["accuracy"] for task, label in labels.items() if task in whole}
    for row in table["texts"]:
        if row["modality"] == "all" and row["task"] in {"report", "roi_describe"}:
            found[f"{row['task'].replace('roi_describe', 'region text')}\nROUGE-L"] = row["nothing_dropped"]["rouge_l"]
    return {name: value for name, value in found.items() if not np.isnan(value)}


def boxes_by_dataset(folders: Mapping[str, Path], path: Path) -> Path:
    """Dice of every picture that shows its target: box from quartile to quartile, whiskers to 1.5 box lengths."""
    found = {name: dict(by_dataset(read_scores(folder))) for name, folder in folders.items()}
    sets = sorted({dataset for scores in found.values() for dataset in scores})
    figure, axes = _figure(8.0, max(3.0, (0.22 * len(found) + 0.16) * len(sets) + 1.2))
    height = 0.8 / len(found)
    for number, (name, scores) in enumerate(found.items()):
        kept = [(place, scores[dataset]) for place, dataset in enumerate(sets) if dataset in scores]
        boxes = axes.boxplot(
            [[s.dice for s in values] for _, values in kept],
            positions=[-place + ((len(found) - 1) / 2 - number) * height for place, _ in kept],
            widths=height * 0.8, orientation="horizontal", patch_artist=True, manage_ticks=False,
            flierprops={"markersize": 2}, medianprops={"color": "black"},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=COLOURS[number % len(COLOURS)], alpha=0.75)
        axes.plot([], [], color=COLOURS[number % len(COLOURS)], lw=6, label=name)
    counts = [len(next(scores[d] for scores in found.values() if d in scores)) for d in sets]
    axes.set_yticks([-n for n in range(len(sets))], [f"{d} ({c})" for d, c in zip(sets, counts, strict=True)])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0.5 - len(sets), 0.5)
    axes.set_xlabel("Dice, pictures that show the target (how many)")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(found))
    return write_figure(figure, path, 150)


def sheet(folder: Path, records: Sequence[Record], path: Path) -> Path:
    """Picture, truth and prediction of the first test pictures of each data set in order of names, never by score.

    The first data sets in order of names, one row each; the first target in order of names that the picture shows.
    """
    chosen = first_rows(folder)
    wanted = {row["id"] for row in chosen}
    pictures = {record.id: record.pixels() for record in records if record.id in wanted}
    columns = 2 if len(chosen) > 4 else 1
    lines = max(1, -(-len(chosen) // columns))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * columns, 2.15 * lines), layout="constrained")
    grid = figure.subplots(lines, 3 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, row in enumerate(chosen):
        line, column = number % lines, number // lines * 3
        truth, predicted = decode(row["size"], row["truth"]), decode(row["size"], row["mask"])
        titles = (
            f"{row['dataset']}\n{row['target']} ({modality(row['modality']).label})",
            "truth",
            f"Dice {dice(predicted, truth):.2f}",
        )
        for place, (title, mask) in enumerate(zip(titles, (None, truth, predicted), strict=True)):
            axes = grid[line, column + place]
            axes.imshow(pictures[row["id"]])
            if mask is not None and mask.any():
                axes.contourf(mask, levels=[0.5, 1.5], colors=[COLOURS[place - 1]], alpha=0.35)
                axes.contour(mask, levels=[0.5], colors=[COLOURS[place - 1]], linewidths=1.0)
            axes.set_title(title, fontsize=7)
    return write_figure(figure, path, 100)


def first_rows(folder: Path) -> list[Row]:
    """For each of the first data sets in order of names: the first picture by id, its first target by name."""
    first: dict[str, Row] = {}
    for row in rows(folder / MASK_FILE, MASK_VALUES):
        if not row["present"]:
            continue
        best = first.get(row["dataset"])
        if best is None or (row["id"], row["target"]) < (best["id"], best["target"]):
            first[row["dataset"]] = row
    return [first[name] for name in sorted(first)][:SHEET_ROWS]


def _figure(width: float, height: float, polar: bool = False) -> tuple[Figure, Axes]:
    """A figure that pyplot knows nothing of: no window, and nothing kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot(projection="polar" if polar else None)
    if not polar:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
