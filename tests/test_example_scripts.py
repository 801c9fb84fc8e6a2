"""Every example runs as its first line says, and leaves what it promises."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed_core.samples import sample_path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_in_the_table() -> None:
    rows = (EXAMPLES / "README.md").read_text("utf-8").splitlines()
    assert {f.name for f in EXAMPLES.glob("*.py")} == {row.split("`")[1] for row in rows if row.startswith("| `")}


def test_report_of_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "report_of_a_picture.py", tmp_path)
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["narrative"] in capsys.readouterr().out


def test_many_files_go_on_after_a_bad_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    shutil.copy(sample_path("dermoscopy"), folder / "b.jpg")
    run(monkeypatch, "many_files.py", folder, "dermoscopy", tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["b.csv"]
    assert "a.png" in capsys.readouterr().err


def test_own_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from train.data.records import load

    for number in range(6):
        values = np.zeros((40, 50), np.uint8)
        values[5:20, 5:30] = 255
        for folder, pixels in (("images", values), ("masks", values if number else values * 0)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "out").mkdir()
    run(monkeypatch, "own_converter.py", tmp_path / "images", tmp_path / "masks", "disc", "fundus", tmp_path / "out")
    records = [record for split in ("train", "test") for record in load(tmp_path / "out" / f"{split}.parquet")]
    assert len(records) == 6
    assert sum(record.absent == ("disc",) for record in records) == 1
    assert all(record.masks()["disc"].any() for record in records if record.regions)
