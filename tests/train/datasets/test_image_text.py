"""Tables of questions, captions and reports, each in the columns and folders of its source."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.train.datasets.tiny_layouts_text import converted, picture, truncate, write_json
from train.datasets import image_text, tables
from unibiomed_core.errors import DataError


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def said(record: Any) -> list[tuple[str, str, bool]]:
    return [(q.question, q.answer, q.closed) for q in record.questions]


def test_vqa_rad(tmp_path: Path) -> None:
    def row(image: str, question: str, answer: Any, kind: str, phrase: str) -> dict[str, Any]:
        return {"qid": 1, "phrase_type": phrase, "image_name": image, "image_organ": "CHEST", "question": question,
                "answer": answer, "answer_type": kind}  # fmt: skip

    for seed, name in enumerate(("synpic1.jpg", "synpic2.jpg")):
        picture(tmp_path / "VQA_RAD Image Folder" / name, seed)
    rows = [
        row("synpic1.jpg", "Is there an effusion?", "Yes", "CLOSED ", "freeform"),
        row("synpic2.jpg", "How many masses?", 3, "OPEN", "freeform"),
        row("synpic1.jpg", "Where is it?", "On the left ", "OPEN", "test_freeform"),
        row("synpic1.jpg", "Where is it?", "On the left", "OPEN", "test_freeform"),
    ]
    write_json(tmp_path / "VQA_RAD Dataset Public.json", rows)
    records, refused = converted(image_text.convert, tmp_path)
    assert not refused
    first = records["tiny/synpic1.jpg"]
    assert said(first) == [("Is there an effusion?", "Yes", True), ("Where is it?", "On the left", False)]
    # The source's own division shares pictures; all of what is known of a tested one is held out.
    assert (first.split, records["tiny/synpic2.jpg"].split) == ("test", "train")
    assert said(records["tiny/synpic2.jpg"]) == [("How many masses?", "3", False)]
    assert (first.modality, first.group, first.slice) == ("", "synpic1.jpg", -1)
    assert first.source == "VQA_RAD Image Folder/synpic1.jpg"


def test_slake_takes_english_questions_and_its_modality(tmp_path: Path) -> None:
    def row(image: str, question: str, answer: str, language: str, kind: str, modality: str) -> dict[str, Any]:
        return {"img_id": 1, "img_name": image, "question": question, "answer": answer, "q_lang": language,
                "location": "Lung", "modality": modality, "answer_type": kind, "base_type": "vqa"}  # fmt: skip

    for seed, name in enumerate(("xmlab1", "xmlab2", "xmlab3")):
        picture(tmp_path / "imgs" / name / "source.jpg", seed)
    english = row("xmlab1/source.jpg", "Is this a chest?", "Yes", "en", "CLOSED", "X-Ray")
    chinese = row("xmlab1/source.jpg", "这是胸部吗?", "是", "zh", "CLOSED", "X-Ray")
    write_json(tmp_path / "train.json", [english, chinese])
    write_json(tmp_path / "validate.json", [row("xmlab2/source.jpg", "What?", "A liver", "en", "OPEN", "CT")])
    write_json(tmp_path / "test.json", [row("xmlab3/source.jpg", "What?", "A brain", "en", "OPEN", "MRI")])
    assert image_text.fits(tmp_path)
    records, refused = converted(image_text.convert, tmp_path)
    assert not refused
    assert said(records["tiny/xmlab1/source.jpg"]) == [("Is this a chest?", "Yes", True)]
    assert {i[5:11]: (r.split, r.modality) for i, r in records.items()} == {
        "xmlab1": ("train", "xray"), "xmlab2": ("train", "ct"), "xmlab3": ("test", "mri"),
    }  # fmt: skip
    (tmp_path / "test.json").unlink()
    records, _ = converted(image_text.convert, tmp_path)
    assert records["tiny/xmlab2/source.jpg"].split == "test"


@pytest.mark.parametrize("letter", [False, True], ids=["first version", "second version"])
def test_pmc_vqa(tmp_path: Path, letter: bool) -> None:
    picture(tmp_path / "images" / "PMC1_F1.jpg", 1)
    picture(tmp_path / "images" / "PMC1_F2.jpg", 2)
    row = {
        "Figure_path": "PMC1_F1.jpg", "Question": "What is the uptake?", "Answer": "B" if letter else "Focal uptake",
        "Choice A": " A:None ", "Choice B": " B:Focal uptake ", "Choice C": "C: x", "Choice D": "D: y",
        "Answer_label": "B",
    }  # fmt: skip
    write_csv(tmp_path / "train.csv", [row])
    held_out = {**row, "Figure_path": "PMC1_F2.jpg"}
    write_csv(tmp_path / "test.csv", [held_out, held_out])
    write_csv(tmp_path / "test_clean.csv", [held_out])
    records, refused = converted(image_text.convert, tmp_path)
    assert not refused
    assert said(records["tiny/PMC1_F1.jpg"]) == [("What is the uptake?", "Focal uptake", False)]
    assert {i: r.split for i, r in records.items()} == {"tiny/PMC1_F1.jpg": "train", "tiny/PMC1_F2.jpg": "test"}
    assert len(records["tiny/PMC1_F2.jpg"].questions) == 1


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_path_vqa_as_files(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "images" / "train" / "train_0001.jpg", 1, colour=True)
    rows = [
        {"image": "train/train_0001.jpg", "question": "is this liver?", "answer": "no"},
        {"image": "train/train_0001.jpg", "question": "what is seen?", "answer": "fibrosis"},
    ]
    if suffix == "csv":
        write_csv(tmp_path / "train.csv", rows)
    else:
        write_json(tmp_path / "train.json", rows)
    records, _ = converted(image_text.convert, tmp_path, modality="pathology")
    record = records["tiny/train/train_0001.jpg"]
    assert said(record) == [("is this liver?", "no", True), ("what is seen?", "fibrosis", False)]
    assert (record.modality, record.split) == ("pathology", "train")
    assert record.pixels().std(axis=2).any(), "colours are kept"


def test_path_vqa_as_parquet_with_pictures_inside(tmp_path: Path) -> None:
    first = picture(tmp_path / "a.jpg", 1, colour=True).read_bytes()
    second = picture(tmp_path / "b.png", 2).read_bytes()
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.png").unlink()
    (tmp_path / "data").mkdir()
    for split, contents in (("train", [first, first]), ("test", [second])):
        images = [{"bytes": data, "path": None} for data in contents]
        questions = [f"is this {n}?" for n in range(len(contents))]
        table = pa.table({"image": images, "question": questions, "answer": ["yes"] * len(contents)})
        parquet.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert image_text.fits(tmp_path)
    records, refused = converted(image_text.convert, tmp_path, modality="pathology")
    assert not refused
    assert sorted((r.split, len(r.questions)) for r in records.values()) == [("test", 1), ("train", 2)]
    assert {r.source for r in records.values()} == {"train-00000-of-00001.parquet", "test-00000-of-00001.parquet"}


@pytest.mark.parametrize("column", ["file_name", "image"], ids=["MedTrinity", "PMC-OA"])
def test_captions_as_json_lines(tmp_path: Path, column: str) -> None:
    for split, name in (("train", "p.png"), ("valid", "q.png"), ("test", "r.png")):
        picture(tmp_path / "images" / name, ord(name[0]))
        line = json.dumps({column: name, "caption": f"A CT of {split}. "})
        (tmp_path / f"{split}.jsonl").write_text(line + "\n\n", "utf-8")
    records, _ = converted(image_text.convert, tmp_path)
    assert {i: (r.split, r.caption) for i, r in records.items()} == {
        "tiny/p.png": ("train", "A CT of train."), "tiny/q.png": ("train", "A CT of valid."),
        "tiny/r.png": ("test", "A CT of test."),
    }  # fmt: skip


def test_ct_rate_reports_go_to_the_middle_slice(tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "valid" / "valid_7" / "valid_7_a"
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(1).integers(-900, 200, (20, 24, 9)).astype(np.int16)
    voxels[..., 4] = 40
    voxels[:, :12, 4] = -1000
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-0.7, -0.5, 3.0, 1.0])), folder / "valid_7_a_1.nii.gz")
    row = {"VolumeName": "valid_7_a_1.nii.gz", "ClinicalInformation_EN": "Cough", "Technique_EN": "No contrast",
           "Findings_EN": "A nodule is seen.", "Impressions_EN": "Nodule."}  # fmt: skip
    reports = tmp_path / "dataset" / "radiology_text_reports"
    write_csv(reports / "validation_reports.csv", [row, {**row, "VolumeName": "valid_8_a_1.nii.gz"}])
    source = tmp_path / "dataset"
    assert image_text.fits(source)
    records, refused = converted(image_text.convert, source)
    record = records["tiny/valid_7_a_1.nii.gz"]
    assert record.caption == "A nodule is seen. Nodule."
    assert (record.slice, record.volume, record.group) == (4, "tiny/valid_7_a_1.nii.gz", "valid_7")
    assert (record.split, record.modality, record.size) == ("test", "ct", (24, 20))
    assert record.spacing_mm == pytest.approx((0.5, 0.7))
    assert set(np.unique(record.pixels())) == {0, 128}, "the slice with two values, in the soft tissue window"
    assert record.source == "valid/valid_7/valid_7_a/valid_7_a_1.nii.gz"
    assert "Missing picture" in refused["tiny/valid_8_a_1.nii.gz"]


def test_pictures_without_a_told_split_are_divided(tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / "images" / f"{number}.png", number)
    write_csv(tmp_path / "reports.csv", [{"image": f"{n}.png", "report": "Normal."} for n in range(30)])
    records, _ = converted(image_text.convert, tmp_path)
    assert {r.split for r in records.values()} == {"train", "test"}


def test_what_is_broken_is_refused_with_its_reason(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / "images" / f"p{number}.png", number)
    truncate(tmp_path / "images" / "p1.png")
    picture(tmp_path / "one" / "twice.png", 6)
    picture(tmp_path / "two" / "twice.png", 7)
    rows = [{"image": f"p{n}.png", "question": "What?", "answer": "a cyst"} for n in range(3)]
    rows[2]["answer"] = ""
    rows += [
        {"image": name, "question": "What?", "answer": "yes"} for name in ("gone.png", "twice.png", "", "../x.png")
    ]
    write_csv(tmp_path / "train.csv", rows)
    with (tmp_path / "train.csv").open("a", encoding="utf-8") as file:
        file.write("p3.png,What?,yes,more\n")
    write_csv(tmp_path / "labels.csv", [{"VolumeName": "v", "label": 1}])
    records, refused = converted(image_text.convert, tmp_path)
    assert list(records) == ["tiny/p0.png"]
    assert "Damaged file" in refused["tiny/p1.png"]
    assert "without an answer" in refused["tiny/train.csv/row 3"]
    assert "Picture without text" in refused["tiny/p2.png"]
    assert "there is no gone.png" in refused["tiny/gone.png"]
    assert "2 files are called twice.png" in refused["tiny/twice.png"]
    assert "No picture is named" in refused["tiny/train.csv/row 6"]
    assert "relative path" in refused["tiny/../x.png"]
    assert "More values than columns" in refused["tiny/train.csv/row 8"]
    assert "VolumeName, label" in refused["tiny/labels.csv"]


def test_tables_without_the_columns_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table"):
        converted(image_text.convert, tmp_path)
    write_csv(tmp_path / "train.csv", [{"picture": "a.png", "question": "What?"}])
    assert not image_text.fits(tmp_path)
    with pytest.raises(
        DataError, match=r"train.csv \(parted by comma, utf-8\): picture, question. Expected: .*answer, image, question"
    ):
        converted(image_text.convert, tmp_path)
    write_json(tmp_path / "test.json", [{"image": "a.png", "caption": "x"}, {"image": "b.png"}])
    with pytest.raises(DataError, match=r"row 2 of test.json. Expected: caption"):
        converted(image_text.convert, tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.json", '[{"image": "a"}, {"im'), ("t.json", '{"image": "a"}'), ("t.json", '["a"]'), ("t.jsonl", "{"),
     ("t.csv", 'image,caption\na,"b'), ("t.parquet", "PAR1")],
)  # fmt: skip
def test_damaged_tables_are_errors_that_name_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=name):
        list(tables.rows(tmp_path / name))
