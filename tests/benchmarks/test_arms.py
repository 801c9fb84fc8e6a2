"""Arms train for their share of processor time, are scored on held-out patients only, and are written side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import arms
from train.data import records as record_files
from train.data.records import Record, region_record, resize_picture


def picture(number: int, dataset: str) -> Record:
    """A bright square that moves; an image of its own for every number."""
    mask = np.zeros((64, 64), bool)
    mask[10 + number % 20 : 34 + number % 20, 12:40] = True
    rgb = np.where(mask[..., None], 220, 30).astype(np.uint8).repeat(3, axis=2)
    name = f"{dataset}/{number}"
    return Record(
        name, dataset, "train", name, "endoscopy", "", resize_picture(rgb, 0), (64, 64),
        regions=(region_record("polyp", mask),),
    )  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [picture(n, dataset) for dataset in ("a", "b") for n in range(20)]
    record_files.save(rows, tmp_path / "data" / "train.parquet")
    return tmp_path / "data"


def test_an_arm_is_trained_and_scored_beside_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ("limit_records=0",)
    monkeypatch.setattr(arms, "ARMS", {"one": ("toy", whole), "shared": ("toy", (*whole, "preset=toy_lite0"))})
    monkeypatch.setattr(arms, "STAGE", "grounding")
    scored: list[str] = []
    segment = arms.Grounding.segment
    monkeypatch.setattr(arms.Grounding, "segment", lambda self, r, t: scored.append(r.id) or segment(self, r, t))
    assert arms.main([str(data), str(tmp_path / "out"), "seconds=0.5", "side=64"]) == 0
    found = json.loads((tmp_path / "out" / "arms.json").read_text("utf-8"))
    assert list(found) == ["one", "shared"]
    assert all(arm["steps"] > 0 and 0 <= arm["macro"] <= 1 for arm in found.values())
    held_out = record_files.load(data / "train.parquet").held_out(0.2)
    assert set(scored) == {
        r.id for r, out in zip(record_files.load(data / "train.parquet"), held_out, strict=True) if out
    }
    lines = (tmp_path / "out" / "arms.md").read_text("utf-8").splitlines()
    assert lines[0] == "| data set (pictures) | one | shared |"
    assert [line.split(" |")[0] for line in lines[2:]] == ["| **macro**"] + [
        f"| {name} ({own[1]})" for name, own in found["one"]["sets"].items()
    ]
