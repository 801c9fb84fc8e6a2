"""The published RadGenome folders: train_parse.json and test_parse.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.datasets.tiny_layouts_text import box_mask, converted, picture, save_mask, truncate, write_json
from train.datasets import radgenome
from unibiomed_core.errors import DataError


def entry(image: str, mask: str, abnormality: str, anatomy: str, report: str) -> dict[str, str]:
    return {"abnormality": abnormality, "anatomy": anatomy, "report": report, "image_file": image, "mask_file": mask}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, name in enumerate(["train_1_a_1-33", "train_1_b_1-4", "train_20_a_2-7", "other"]):
        picture(tmp_path / "images" / f"{name}.png", number)
    picture(tmp_path / "images" / "valid_3_a_1.png", 8)
    save_mask(tmp_path / "masks" / "e.png", box_mask(4, 6, 20, 16))
    save_mask(tmp_path / "masks" / "l.png", box_mask(30, 6, 40, 16))
    save_mask(tmp_path / "masks" / "zeros.png", box_mask(0, 0, -1, -1))
    save_mask(tmp_path / "masks" / "large.png", box_mask(4, 6, 20, 16, (50, 60)))
    train = [
        entry("images/train_1_a_1-33.png", "masks/e.png", "Hiatal hernia", "Esophagus", "A sliding type hernia."),
        entry("images/train_1_a_1-33.png", "masks/l.png", "Nodule", "Lung", "A 4 mm nodule is seen."),
        entry("images/train_1_b_1-4.png", "masks/e.png", "No findings.", "Esophagus", "The esophagus is normal."),
        entry("images/train_20_a_2-7.png", "masks/large.png", "Effusion", "Pleura", "Some fluid."),
        entry("images/other.png", "masks/zeros.png", "Effusion", "Pleura", "Some fluid."),
        entry("images/gone.png", "masks/e.png", "Effusion", "Pleura", "Some fluid."),
    ]
    write_json(tmp_path / "train_parse.json", {str(n): e for n, e in enumerate(train)})
    test = entry("images/valid_3_a_1.png", "masks/e.png", "Dilatation", "Esophagus", "It is dilated.")
    write_json(tmp_path / "test_parse.json", {"0": test})
    return tmp_path


def test_entries_become_regions_with_report_and_anatomy(tree: Path) -> None:
    records, _ = converted(radgenome.convert, tree)
    record = records["tiny/images/train_1_a_1-33.png"]
    hernia, nodule = record.regions
    assert (hernia.target, hernia.anatomy, hernia.box) == ("hiatal hernia", "esophagus", (4, 6, 20, 16))
    assert hernia.caption == "A sliding type hernia."
    assert (nodule.target, nodule.anatomy, nodule.caption) == ("lesion", "lung", "A 4 mm nodule is seen.")
    assert record.caption == "A sliding type hernia. A 4 mm nodule is seen."
    assert (record.modality, record.findings_known, record.split) == ("ct", True, "train")


def test_no_findings_has_no_region(tree: Path) -> None:
    records, _ = converted(radgenome.convert, tree)
    record = records["tiny/images/train_1_b_1-4.png"]
    assert (record.regions, record.findings_known, record.caption) == ((), True, "The esophagus is normal.")


def test_patient_volume_and_slice_come_from_the_name(tree: Path) -> None:
    records, _ = converted(radgenome.convert, tree)
    first, second = records["tiny/images/train_1_a_1-33.png"], records["tiny/images/train_1_b_1-4.png"]
    assert first.group == second.group == "train_1"
    assert (first.volume, first.slice) == ("tiny/train_1_a_1", 33)
    test = records["tiny/images/valid_3_a_1.png"]
    assert (test.group, test.volume, test.slice, test.split) == ("valid_3", "tiny/valid_3_a_1", -1, "test")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a/train_12_a_2.nii.gz", ("train_12", "train_12_a_2", -1)),
        ("train_12_ab_2_slice_7.png", ("train_12", "train_12_ab_2", 7)),
        ("train_12_a_2_007.png", ("train_12", "train_12_a_2", 7)),
        ("constrain_1_a_2.png", None),
        ("p7.png", None),
    ],
)
def test_names_of_ct_rate(name: str, place: tuple[str, str, int] | None) -> None:
    assert radgenome.ct_rate_volume(name) == place


def test_what_is_broken_is_refused_with_its_reason(tree: Path) -> None:
    truncate(tree / "images" / "valid_3_a_1.png")
    records, refused = converted(radgenome.convert, tree)
    assert len(records) == 2
    assert "Mask of another size" in refused["tiny/images/train_20_a_2-7.png"]
    assert "Empty mask" in refused["tiny/images/other.png"]
    assert "gone.png" in refused["tiny/images/gone.png"]
    assert "Damaged file" in refused["tiny/images/valid_3_a_1.png"]


def test_training_file_alone_is_divided_by_patient(tree: Path) -> None:
    (tree / "test_parse.json").unlink()
    records, _ = converted(radgenome.convert, tree)
    assert len({(r.group, r.split) for r in records.values()}) == len({r.group for r in records.values()})


def test_a_json_of_another_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    assert not radgenome.fits(tmp_path)
    write_json(tmp_path / "test_parse.json", {"7": {"abnormality": "x", "report": "y"}})
    assert radgenome.fits(tmp_path)
    with pytest.raises(DataError, match=r"test_parse.json, entry 7 has abnormality, report. Expected: .*image_file"):
        converted(radgenome.convert, tmp_path)
