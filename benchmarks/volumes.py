"""python benchmarks/volumes.py SHARED OUT [--model NAME] [--volumes N] [--smooth-mm X]: plans over slices, compared.

On CT and MR volumes of the test split below SHARED/data, every plan is run with the same model, targets and device, and
its findings are compared with the masks people drew; seconds are those of one core. Writes ``volumes.md`` and
``volumes.json`` to OUT.

Per volume the model is asked for all that its data set marks and the model was trained on, and for what cannot be in a
picture of that part of the body. Dice is taken in 3D between all voxels of a target's findings and its mask, over pairs
of volume and target where the mask has any; the false-positive volume over the pairs where there is none, those without
a finding counted as 0 mL. The score behind the presence AUC is that of the surest finding, else the one stated with the
absence. Intervals resample volumes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from train.datasets import volumes
from train.datasets.shared_layout import SOURCES, Source
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ConfigError
from unibiomed_core.io import read
from unibiomed_core.metrics.labels import auc
from unibiomed_core.metrics.overlap import dice
from unibiomed_core.metrics.statistics import case_interval
from unibiomed_core.modalities import modality
from unibiomed_core.types import Report, Volume
from unibiomed_core.updates import Done

PLANS: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "all, every 2nd": {"every": 2},
    "all, every 4th": {"every": 4},
    "coarse-to-fine": {"plan": "coarse-to-fine"},
    "propagate": {"plan": "propagate"},
}
MODALITIES = ("ct", "mri")
COLUMNS = (
    "modality", "plan", "slices examined", "CPU s a volume", "3D Dice", "false mL an absent target",
    "absent targets with a finding", "presence AUC",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A volume of the test split with where its targets are."""

    name: str
    dataset: str
    volume: Volume
    truth: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Pair:
    """One target on one volume under one plan."""

    plan: str
    modality: str
    case: str
    target: str
    present: bool
    presence: float
    dice: float | None
    false_ml: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One volume under one plan."""

    plan: str
    modality: str
    case: str
    slices_done: int
    slices_total: int
    cpu_s: float


def test_items(data: Path, wanted: str, count: int) -> Iterator[tuple[Path, Source, Mapping[str, Any]]]:
    """(folder, source, item) of up to ``count`` volumes of a modality: one of each data set in turn, by name."""
    by_dataset = []
    for file in sorted(data.glob("*/dataset.json")):
        about = json.loads(file.read_text("utf-8"))
        rows = []
        for item in sorted(about["items"], key=lambda row: row["id"]):
            kind = item.get("modality") or about["modality"]
            is_volume = item["image"].endswith((".nii", ".nii.gz")) and "mask" in item
            if item["split"] != "test" or not is_volume or file.parent.name not in SOURCES:
                continue
            if modality(kind).name == wanted:
                rows.append((file.parent, SOURCES[file.parent.name], item))
        by_dataset.append(rows)
    in_turn = chain.from_iterable(zip_longest(*by_dataset))
    yield from [row for row in in_turn if row is not None][:count]


def load(folder: Path, source: Source, item: Mapping[str, Any], kind: str, learnt: Sequence[str]) -> Case:
    """A volume, and the mask of every target that is known to be there or not."""
    volume = read(folder / item["image"], kind)
    layer = volumes.read_labels(folder / item["mask"], volume.stored)
    known = {name: np.isin(layer, values) for name, values in source.labels.items()}
    nowhere = np.zeros(volume.shape, bool)
    foreign = volumes.foreign_targets(kind, source.labels, source.body)
    truth = {**known, **dict.fromkeys(foreign, nowhere)}
    return Case(item["id"], folder.name, volume, {name: mask for name, mask in truth.items() if name in learnt})


def run(engine: Engine, case: Case, plan: str, smooth_mm: float) -> tuple[Report, float]:
    """The report of one plan and its CPU seconds, nothing being cached before."""
    engine.free()
    began = time.process_time()
    request = RunRequest.segment(*case.truth, describe=False, smooth_mm=smooth_mm, **PLANS[plan])
    *_, last = engine.run(case.volume, request)
    assert isinstance(last, Done)
    return last.report, time.process_time() - began


def pairs(case: Case, report: Report, plan: str) -> Iterator[Pair]:
    """What a report says of each target, against the mask."""
    voxel_ml = abs(float(np.linalg.det(case.volume.affine[:3, :3]))) / 1000
    absent = {a.target: a.presence for a in report.absences}
    for target, truth in case.truth.items():
        own = [f for f in report.findings if f.target == target]
        found = np.zeros(case.volume.shape, bool)
        for finding in own:
            found[finding.mask.box] |= finding.mask.crop
        there = bool(truth.any())
        presence = max((f.presence for f in own), default=absent.get(target, 0.0))
        overlap = dice(found, truth) if there else None
        wrong = None if there else float(found.sum()) * voxel_ml
        yield Pair(plan, case.volume.modality, case.name, target, there, presence, overlap, wrong)


def interval_text(values: Sequence[float], cases: Sequence[str]) -> str:
    """A mean with its interval; a dash where there is nothing."""
    if not values:
        return "\u2013"
    low, high = case_interval(values, cases)
    mean = f"{np.mean(values):.3f}"
    return mean if math.isnan(low) else f"{mean} ({low:.3f}\u2013{high:.3f})"


def row(plan: str, kind: str, done: Sequence[Run], judged: Sequence[Pair]) -> str:
    """One line of the table."""
    there = [p for p in judged if p.dice is not None]
    gone = [p.false_ml for p in judged if p.false_ml is not None]
    share = sum(r.slices_done for r in done) / sum(r.slices_total for r in done)
    area = auc([p.presence for p in judged], [p.present for p in judged])
    cells = [
        kind.upper(),
        plan,
        f"{100 * share:.0f} %",
        f"{np.mean([r.cpu_s for r in done]):.1f}",
        interval_text([p.dice for p in there if p.dice is not None], [p.case for p in there]),
        f"{np.mean(gone):.2f}" if gone else "\u2013",
        f"{100 * np.mean([ml > 0 for ml in gone]):.0f} %" if gone else "\u2013",
        "\u2013" if math.isnan(area) else f"{area:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(runs: Sequence[Run], judged: Sequence[Pair], left_out: Mapping[str, str]) -> str:
    """The Markdown table, with what it is made of."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    notes = []
    for kind in MODALITIES:
        own = [p for p in judged if p.modality == kind]
        for plan in PLANS:
            done = [r for r in runs if (r.plan, r.modality) == (plan, kind)]
            if done:
                lines.append(row(plan, kind, done, [p for p in own if p.plan == plan]))
        first = [p for p in own if p.plan == "all"]
        names = sorted({p.case for p in first})
        there = sum(p.present for p in first)
        notes.append(
            f"{kind.upper()}: {len(names)} volumes ({', '.join(names)}), {there} pairs of volume and present target, "
            f"{len(first) - there} with an absent one."
        )
    notes += [f"'{plan}' was left out: {why}" for plan, why in left_out.items()]
    return "\n".join([*lines, "", *notes, ""])


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="the folder that holds data/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--volumes", type=int, default=5, help="at most so many of each modality")
    parser.add_argument("--smooth-mm", type=float, default=0.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine.load(asked.model, device="cpu")
    runs: list[Run] = []
    judged: list[Pair] = []
    left_out: dict[str, str] = {}
    for kind in MODALITIES:
        learnt = engine.info.targets.get(kind, ())
        for folder, source, item in test_items(asked.shared / "data", kind, asked.volumes):
            case = load(folder, source, item, kind, learnt)
            if not case.truth:
                continue
            for plan in PLANS:
                try:
                    report, seconds = run(engine, case, plan, asked.smooth_mm)
                except ConfigError as error:
                    left_out[plan] = str(error)
                    continue
                runs.append(Run(plan, kind, case.name, len(report.slices_done), report.slices_total, seconds))
                judged += pairs(case, report, plan)
            print(f"{case.dataset}/{case.name}: {len(case.truth)} targets", flush=True)
    text = table(runs, judged, left_out)
    print(text)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "volumes.md").write_text(text, "utf-8")
    found = {"model": engine.info.provenance(), "runs": [asdict(r) for r in runs], "pairs": [asdict(p) for p in judged]}
    (asked.out / "volumes.json").write_text(json.dumps({**found, "left_out": left_out}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
