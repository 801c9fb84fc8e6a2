"""Scores of prediction files whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.train.scored_records import disc, liver, polyp, write_answers, write_masks, write_records
from train.data import records as record_files
from train.data.records import RecordSet
from train.evaluation.baselines import baselines
from train.evaluation.mask_scores import macro, read_scores, score
from train.evaluation.prediction_files import MASK_FILE, mask_row, to_json, with_nan
from train.evaluation.tables import failures, markdown
from unibiomed_core.errors import DataError
from unibiomed_core.metrics.overlap import dice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def training(folder: Path) -> RecordSet:
    return record_files.load(folder / "train.parquet")


@pytest.fixture(scope="module")
def test_set(folder: Path) -> RecordSet:
    return record_files.load(folder / "test.parquet")


def test_right_masks_score_one(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    table = score(write_masks(tmp_path / "right", test_set), training)
    assert [(r["target"], r["present"], r["absent"], r["cases"]) for r in table["masks"]] == [
        ("liver", 2, 1, 1),
        ("polyp", 3, 1, 4),
    ]
    for row in table["masks"]:
        assert row["dice"] == row["dice_with_empty"] == row["iou"] == row["surface_dice"] == row["presence_auc"] == 1.0
        assert row["hausdorff_95"] == 0.0
    assert table["summary"]["macro_dice"] == table["summary"]["presence_auc_macro"] == 1.0
    assert table["answers"] == table["texts"] == []


def test_moved_masks_score_what_their_overlap_is(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    table = score(write_masks(tmp_path / "moved", test_set, moved=3), training)
    polyps = next(r for r in table["masks"] if r["target"] == "polyp")
    wanted = dice(np.roll(disc(20, 24), 3, axis=1), disc(20, 24))
    assert polyps["dice"] == pytest.approx(wanted)
    # Three shown, one empty in truth and prediction, which counts as 1.
    assert polyps["dice_with_empty"] == pytest.approx((3 * wanted + 1) / 4)
    assert polyps["dice_with_empty_empty_mask"] == 0.25
    assert polyps["unit"] == "px"
    livers = next(r for r in table["masks"] if r["target"] == "liver")
    assert livers["unit"] == "mm"
    assert livers["hausdorff_95"] == pytest.approx(3.0, abs=0.5)  # records' pixels of 1 mm
    assert 0 < livers["surface_dice"] < 1


def test_marks_where_nothing_is_count_only_where_nothing_is_dropped(training: RecordSet, tmp_path: Path) -> None:
    scan = [liver(n, "test", shown=n < 2) for n in range(4)]
    rows = [mask_row(r, "liver", disc(24, 20, 10), 0.9) for r in scan]
    (tmp_path / MASK_FILE).write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    (row,) = score(tmp_path, training)["masks"]
    assert row["dice"] == row["volume_dice_shown"] == 1.0
    assert row["dice_with_empty"] == 0.5
    assert row["volumes"] == 1
    assert row["volume_dice"] == pytest.approx(2 / 3)  # 2 * 2 discs of 4 and 2
    assert row["volume_surface_dice"] == pytest.approx(2 / 3)  # 4 contours of 6 meet another one
    assert row["presence_accuracy"] == 0.5


def test_macro_counts_every_data_set_alike() -> None:
    rows = [{"dataset": "a", "dice": 1.0}, {"dataset": "a", "dice": 0.0}, {"dataset": "b", "dice": 1.0}]
    assert macro([*rows, {"dataset": "c", "dice": float("nan")}], "dice") == 0.75


def test_baselines_come_from_training_alone(training: RecordSet, test_set: RecordSet) -> None:
    trivial = baselines(training)
    shape = trivial.shape(("livers", "ct", "liver"), (48, 48))
    assert shape is not None
    assert dice(shape, disc(24, 20, 10)) > 0.9  # every training liver is the same disc
    assert trivial.shape(("livers", "ct", "spleen"), (48, 48)) is None
    assert trivial.usually_present(("livers", "ct", "liver"))
    assert trivial.answer("roi_class", "any", "ct") == "liver in abdomen ct"
    assert trivial.answer("disease", "any", "endoscopy") == "polyp in colon endoscopy"
    assert trivial.answer("vqa_closed", "any", "endoscopy") == "yes"
    assert trivial.answer("report", "any", "endoscopy").startswith("polyp. a ")
    assert trivial.answer("vqa_open", "any", "endoscopy") == ""


def test_mean_shapes_fit_pictures_of_any_size(training: RecordSet) -> None:
    shape = baselines(training).shape(("livers", "ct", "liver"), (30, 90))
    assert shape is not None
    assert shape.shape == (30, 90)
    assert np.nonzero(shape)[1].mean() == pytest.approx(90 * 20 / 48, abs=2)


def test_rows_are_whole_or_an_error(training: RecordSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        score(tmp_path, training)
    (tmp_path / MASK_FILE).write_text('{"id": "a", "mask": ""}\n', "utf-8")
    with pytest.raises(DataError, match="lacks dataset"):
        score(tmp_path, training)
    (tmp_path / MASK_FILE).write_text('{"id": "a", \n', "utf-8")
    with pytest.raises(DataError, match="line 1"):
        score(tmp_path, training)


def test_a_mask_row_is_about_what_the_record_says() -> None:
    record = polyp(1, "test")
    with pytest.raises(DataError, match="says nothing of 'liver'"):
        mask_row(record, "liver", disc(9, 9), 1.0)
    with pytest.raises(DataError, match="another size"):
        mask_row(record, "polyp", np.zeros((4, 4), bool), 1.0)


def test_answers_by_our_rule_and_the_published_one(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    out = write_masks(tmp_path, test_set)
    two = ["hippocampus in brain mri", "anterior hippocampus in brain mri"]
    write_answers(
        out,
        [
            {"task": "roi_class", "truths": two, "answer": two[1], "raw": two[1]},
            {"task": "roi_class", "truths": ["left kidney in abdomen ct"], "answer": "right kidney in abdomen ct",
             "raw": ""},
            {"task": "disease", "truths": ["polyp"], "answer": "polyp.", "raw": "It is [SEG]. polyp.<|end|>"},
            {"task": "disease", "truths": ["polyp", "tumour"], "answer": "polyp.", "raw": "[SEG]. polyp.<|end|>"},
            {"task": "disease", "truths": ["polyp"], "answer": "a polyp.", "raw": "[SEG]. a polyp.<|end|>"},
        ],
    )  # fmt: skip
    table = score(out, training)
    found = {r["task"]: r for r in table["answers"] if r["modality"] == "all"}
    assert found["roi_class"]["accuracy"] == 0.5  # any piece of the same box is right, the other side is not
    assert found["roi_class"]["accuracy_published"] == 0.5  # the first truth only, but any side
    assert found["disease"]["accuracy"] == pytest.approx(2 / 3)
    assert found["disease"]["accuracy_published"] == 1.0
    assert found["disease"]["published_left_out"] == 1


def test_texts_drop_nothing_unless_published(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    out = write_masks(tmp_path, test_set)
    said = "a small polyp in the centre"
    rows = [{"truths": [said], "answer": said, "raw": f"<p> {said} </p> [SEG]"}, {"truths": [""], "answer": said,
            "raw": said}, {"truths": [said], "answer": "", "raw": "<|end|>"}]  # fmt: skip
    write_answers(out, [{"task": "report", **row} for row in rows])
    row = next(r for r in score(out, training)["texts"] if r["modality"] == "all")
    assert row["published"]["count"] == 2
    assert row["published"]["rouge_l"] == 0.5
    assert row["nothing_dropped"]["count"] == 3
    assert row["nothing_dropped"]["rouge_l"] == pytest.approx(1 / 3)
    assert row["nothing_dropped"]["bleu"][0] == pytest.approx(0.5)  # 6 of 12 words, lengths alike
    # No report of this modality was trained on: nothing is copied, which fits the item without a reference.
    assert row["copied"]["rouge_l"] == pytest.approx(1 / 3)


def test_tables_say_what_fails_and_by_which_rule(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    table = score(write_masks(tmp_path, test_set, moved=20), training)
    text = markdown(table)
    assert "| livers (ct) | liver | 2 / 1 |" in text
    assert "fails: Dice" in text
    assert "both empty it is 1" in text
    assert with_nan(json.loads(to_json(table)))["masks"][0]["dice"] == table["masks"][0]["dice"]
    assert "NaN" not in to_json(table)


def test_scores_come_back_as_they_were(training: RecordSet, test_set: RecordSet, tmp_path: Path) -> None:
    score(write_masks(tmp_path, test_set, moved=3), training)
    found = read_scores(tmp_path)
    assert len(found) == len(test_set)
    assert np.isnan([s.hausdorff_95 for s in found if not s.present]).all()


def test_a_row_that_does_not_beat_its_baseline_is_named() -> None:
    row = {
        "present": 3, "absent": 2, "dice": 0.2, "dice_empty_mask": 0.0, "dice_mean_shape": 0.5,
        "presence_accuracy": 0.6, "presence_majority": 0.6,
    }  # fmt: skip
    assert failures(row) == ["fails: Dice", "fails: presence"]
    assert failures({**row, "dice": 0.6, "presence_accuracy": 0.8}) == []
