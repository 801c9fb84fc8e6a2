"""python train/evaluate.py: what is asked, what is written, comparisons, joined tables, wrong use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.scored_records import SIDE, Oracle, disc, picture, write_masks, write_records
from train import evaluate
from train.data import records as record_files
from train.data.records import Record, RecordSet, RegionRecord, region_record
from train.evaluation import compare, tables
from train.evaluation.mask_scores import score
from train.evaluation.predict import predict, roi_question
from train.evaluation.prediction_files import ANSWER_FILE, ANSWER_VALUES, MASK_FILE, MASK_VALUES, rows
from train.evaluation.tables import RUN_FILE
from train.training.initialise import train_tokenizer
from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.model.presets import toy
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import save
from unibiomed_core.tasks import TASKS


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def test_set(folder: Path) -> RecordSet:
    return record_files.load(folder / "test.parquet")


@pytest.fixture(scope="module")
def training(folder: Path) -> RecordSet:
    return record_files.load(folder / "train.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model with random weights that takes free text."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer([t.instruction + t.example_answer for t in TASKS.values()] * 3, 480)
    config = toy(tokenizer.get_vocab_size())
    processor = Processor(config, tokenizer)
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("model")
    save(UniBiomed(config, processor.ids).eval(), processor, out, dtype="float32")
    return out


def test_every_annotation_is_asked(test_set: RecordSet, tmp_path: Path) -> None:
    oracle: Any = Oracle(test_set)
    asked = predict(oracle, test_set, tmp_path, silent)
    masks = list(rows(tmp_path / MASK_FILE, MASK_VALUES))
    answers = list(rows(tmp_path / ANSWER_FILE, ANSWER_VALUES))
    assert (asked.records, asked.masks, asked.answers) == (7, len(masks), len(answers))
    assert [(m["id"], m["target"], m["present"]) for m in masks if not m["present"]] == [
        ("polyps/p2", "polyp", False),
        ("livers/scan/0", "liver", False),
    ]
    tasks = [a["task"] for a in answers]
    assert {t: tasks.count(t) for t in sorted(set(tasks))} == {
        "disease": 4, "report": 4, "roi_class": 5, "roi_describe": 5, "vqa_closed": 4
    }  # fmt: skip
    assert next(m for m in masks if m["dataset"] == "livers")["spacing_mm"] == [1.0, 1.0]


def test_pictures_that_are_asked_alike_share_a_call(test_set: RecordSet, tmp_path: Path) -> None:
    oracle: Any = Oracle(test_set)
    predict(oracle, [r for r in test_set if r.dataset == "livers"], tmp_path, silent)
    assert oracle.calls == 1 + 2  # three slices at once, then two boxes


def test_the_truth_of_disease_is_findings_alone(tmp_path: Path) -> None:
    lungs, nodule = disc(20, 14), disc(30, 34, 4)
    sick = Record(
        "x/1", "x", "test", "1", "xray", "", picture(nodule, 1), (SIDE, SIDE), findings_known=True,
        regions=(region_record("lung fields", lungs), region_record("consolidation", nodule)),
    )  # fmt: skip
    well = Record(
        "x/2", "x", "test", "2", "xray", "", picture(lungs, 2), (SIDE, SIDE), findings_known=True,
        regions=(region_record("lung fields", lungs),), absent=("consolidation",),
    )  # fmt: skip
    oracle: Any = Oracle([sick, well])
    predict(oracle, [sick, well], tmp_path, silent)
    found = {r["id"]: r["truths"] for r in rows(tmp_path / ANSWER_FILE, ANSWER_VALUES) if r["task"] == "disease"}
    assert found == {"x/1": ["consolidation in chest x-ray"], "x/2": ["no findings"]}


def test_every_target_whose_piece_has_the_box_is_a_right_name() -> None:
    whole = disc(20, 20) | disc(40, 40, 4)
    record = Record(
        "h/1", "h", "test", "1", "mri", "", picture(whole), (SIDE, SIDE),
        regions=(
            region_record("hippocampus", disc(20, 20)), region_record("anterior hippocampus", whole),
            RegionRecord("posterior hippocampus", box=(12, 12, 28, 28)), region_record("brain tumour", disc(21, 20)),
        ),
    )  # fmt: skip
    found = roi_question(record)
    assert found is not None
    region, names, sentence, origin = found
    assert region.box == (12, 12, 28, 28)
    assert sorted(names) == [
        f"{n} in brain mri" for n in ("anterior hippocampus", "hippocampus", "posterior hippocampus")
    ]
    assert origin == "rule"
    assert sentence.endswith(".")
    assert roi_question(record) == found
    assert roi_question(Record("h/2", "h", "test", "2", "mri", "", picture(whole), (SIDE, SIDE))) is None


def test_targets_that_were_not_learnt_are_counted(test_set: RecordSet, tmp_path: Path) -> None:
    oracle: Any = Oracle(test_set)
    oracle.info.targets = {"endoscopy": ("polyp",)}
    asked = predict(oracle, test_set, tmp_path, silent)
    assert dict(asked.left_out) == {"not learnt: liver (ct)": 3}
    assert {r["target"] for r in rows(tmp_path / MASK_FILE, MASK_VALUES)} == {"polyp"}


def test_noise_takes_the_place_of_pictures_and_the_comparison_tells(
    test_set: RecordSet, training: RecordSet, tmp_path: Path
) -> None:
    for name, image in (("seen", "as is"), ("noise", "noise")):
        oracle: Any = Oracle(test_set)
        predict(oracle, test_set, tmp_path / name, silent, image)
        (tmp_path / name / RUN_FILE).write_text(json.dumps({"image": image}), "utf-8")
        score(tmp_path / name, training)
    table = compare.compare(tmp_path / "seen", tmp_path / "noise")
    whole = next(r for r in table["measures"] if r["measure"] == "Dice" and r["dataset"] == "all")
    assert (whole["first"], whole["second"], whole["cases"], whole["questions"]) == (1.0, 0.0, 4, 5)
    assert whole["p"] < 0.05
    assert any(line.startswith("Dice: 1.00 with the picture, 0.00") and "looks" in line for line in table["ablation"])
    assert any(line.startswith("vqa_closed") and "not shown to matter" in line for line in table["ablation"])
    turned = compare.compare(tmp_path / "noise", tmp_path / "seen")
    assert turned["ablation"] == table["ablation"]
    assert "Does the model look?" in compare.markdown(table, "command")


def test_pairs_are_cases_that_both_runs_have(test_set: RecordSet, training: RecordSet, tmp_path: Path) -> None:
    score(write_masks(tmp_path / "a", test_set), training)
    score(write_masks(tmp_path / "b", list(test_set)[1:], moved=3), training)
    table = compare.compare(tmp_path / "a", tmp_path / "b")
    whole = next(r for r in table["measures"] if r["measure"] == "Dice" and r["dataset"] == "all")
    assert (whole["questions"], whole["unmatched"], whole["cases"]) == (4, 1, 3)
    assert whole["difference"] < 0
    livers = next(r for r in table["measures"] if r["measure"] == "Dice" and r["dataset"] == "livers")
    assert np.isnan(livers["p"])  # one patient
    assert "cannot be told" in compare.markdown(table, "command")
    assert "ablation" not in table
    score(write_masks(tmp_path / "c", [r for r in test_set if r.dataset == "livers"]), training)
    score(write_masks(tmp_path / "d", [r for r in test_set if r.dataset == "polyps"]), training)
    with pytest.raises(DataError, match="share no question"):
        compare.compare(tmp_path / "c", tmp_path / "d")


def test_systems_are_joined_over_what_all_were_asked(test_set: RecordSet, training: RecordSet, tmp_path: Path) -> None:
    ours = score(write_masks(tmp_path / "a", test_set), training)
    theirs = score(write_masks(tmp_path / "b", [r for r in test_set if r.dataset == "polyps"], moved=4), training)
    table = tables.joined({"ours": ours, "u-net": theirs})
    assert table["common_targets"] == 1
    assert table["macro"]["ours"]["dice"] == 1.0
    assert table["macro"]["u-net"]["dice"] == pytest.approx(theirs["masks"][0]["dice"])
    text = tables.joined_markdown(table, "command")
    assert "| livers (ct) | liver | 1.00 | - |" in text
    assert "| polyps (endoscopy) | polyp | **1.00** |" in text


def test_the_whole_command(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(model), str(folder), "out", "limit=4"]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"`python train/evaluate.py {model} {folder} out limit=4`" in text
    assert "4 evenly spaced records only" in text
    assert "4 of 4 records predicted" in capsys.readouterr().out
    run = json.loads((tmp_path / "out" / RUN_FILE).read_text())
    assert run["complete"]
    assert len(run["weights_sha256"]) == 64
    assert evaluate.main(["score", "out", str(folder)]) == 0
    assert (tmp_path / "out" / "table.md").read_text() == text
    assert evaluate.main([str(model), str(folder), "noise", "limit=4", "image=noise"]) == 0
    assert evaluate.main(["compare", "out", "noise"]) == 0
    assert "Does the model look?" in (tmp_path / "noise" / "comparison.md").read_text()
    assert evaluate.main(["scorecard", "card", "ours=out", "noise=noise"]) == 0
    assert json.loads((tmp_path / "card" / "scorecard.json").read_text())["systems"] == ["ours", "noise"]
    assert {p.name for p in (tmp_path / "card").glob("*.png")} == {
        "bars_by_modality.png", "radar_over_tasks.png", "boxes_by_dataset.png"
    }  # fmt: skip


def test_a_stopped_run_keeps_whole_rows(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unibiomed_core.engine.engine import Engine

    original, calls = Engine.predict, []

    def stops(self: Engine, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Engine, "predict", stops)
    assert evaluate.main([str(model), str(folder), str(tmp_path / "out")]) == evaluate.STOPPED
    assert "Stopped." in capsys.readouterr().out
    assert list(rows(tmp_path / "out" / MASK_FILE, MASK_VALUES))
    monkeypatch.undo()
    assert evaluate.main(["score", str(tmp_path / "out"), str(folder)]) == 0
    assert "Stopped early" in (tmp_path / "out" / "table.md").read_text()


def test_wrong_use_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([]) == 2
    assert evaluate.main(["compare", "a"]) == 2
    assert evaluate.main(["score", str(tmp_path), str(folder)]) == 1
    assert "Predictions not found" in capsys.readouterr().err
    assert evaluate.main(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert evaluate.main(["scorecard", str(tmp_path), "ours"]) == 1
    assert "NAME=OUT" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="without a value"):
        evaluate.settings(["limit"])
    for wrong in ("limt=3", "limit=few", "image=black"):
        with pytest.raises(ConfigError, match="Unknown setting"):
            evaluate.settings([wrong])


def test_predictions_of_other_records_are_refused(
    folder: Path, test_set: RecordSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores of one test set beside the training shapes and pictures of another would look like scores."""
    oracle: Any = Oracle(test_set)
    predict(oracle, test_set, tmp_path / "out", silent)
    other = write_records(tmp_path / "other")
    record_files.save(list(test_set)[:3], other / "test.parquet")
    assert evaluate.main(["score", str(tmp_path / "out"), str(other)]) == 1
    assert "rows of" in (told := capsys.readouterr().err)
    assert "such as 'polyps/p3'" in told
    (tmp_path / "out" / RUN_FILE).write_text(json.dumps({"records_sha256": "0" * 64}))
    with pytest.raises(DataError, match="SHA-256 000000000000"):
        evaluate.scored(tmp_path / "out", folder)


def test_a_comparison_over_different_records_says_so(test_set: RecordSet, training: RecordSet, tmp_path: Path) -> None:
    oracle: Any = Oracle(test_set)
    for name in "ab":
        predict(oracle, test_set, tmp_path / name, silent)
        score(tmp_path / name, training)
        (tmp_path / name / RUN_FILE).write_text(json.dumps({"records_sha256": name}))
    table = compare.compare(tmp_path / "a", tmp_path / "b")
    assert table["other_records"]
    assert "different files of records" in compare.markdown(table, "")
    (tmp_path / "b" / RUN_FILE).write_text(json.dumps({"records_sha256": "a"}))
    assert "other_records" not in compare.compare(tmp_path / "a", tmp_path / "b")
