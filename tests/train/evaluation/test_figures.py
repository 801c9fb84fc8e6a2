"""The figures show what the files say, in an order that no score decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.scored_records import write_answers, write_masks, write_records
from train.data import records as record_files
from train.evaluation import figures
from train.evaluation.mask_scores import score


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, record_files.RecordSet]:
    folder = write_records(tmp_path_factory.mktemp("records"))
    test_set = record_files.load(folder / "test.parquet")
    out = write_masks(tmp_path_factory.mktemp("out"), test_set, moved=2)
    write_answers(out, [{"task": "roi_class", "truths": ["liver"], "answer": "liver", "raw": "liver"}])
    return out, score(out, record_files.load(folder / "train.parquet")), test_set


def test_four_pictures_are_drawn(scored: tuple[Path, dict, record_files.RecordSet]) -> None:
    out, table, test_set = scored
    made = figures.draw_all(out, table, test_set)
    assert [p.name for p in made] == [
        "bars_by_modality.png",
        "radar_over_tasks.png",
        "boxes_by_dataset.png",
        "sheet.png",
    ]
    for path in made:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200
        assert (pixels < 100).mean() > 0.001  # something is drawn


def test_several_systems_share_a_picture(scored: tuple[Path, dict, record_files.RecordSet], tmp_path: Path) -> None:
    out, table, _ = scored
    without_words = {**table, "answers": [], "texts": []}
    for path in (
        figures.bars_by_modality({"ours": table, "u-net": without_words}, tmp_path / "bars.png"),
        figures.radar_over_tasks({"ours": table, "u-net": without_words}, tmp_path / "radar.png"),
        figures.boxes_by_dataset({"ours": out, "u-net": out}, tmp_path / "boxes.png"),
    ):
        assert path.is_file()


def test_the_sheet_takes_the_first_by_name(scored: tuple[Path, dict, record_files.RecordSet]) -> None:
    out, _, _ = scored
    assert [row["id"] for row in figures.first_rows(out)] == ["livers/scan/1", "polyps/p0"]


def test_masks_are_seen_on_the_sheet(scored: tuple[Path, dict, record_files.RecordSet], tmp_path: Path) -> None:
    out, _, test_set = scored
    pixels = np.asarray(Image.open(figures.sheet(out, test_set, tmp_path / "sheet.png")).convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 60).mean()
    orange = (pixels[..., 0] - pixels[..., 2] > 60).mean()
    assert blue > 0.005
    assert orange > 0.005
