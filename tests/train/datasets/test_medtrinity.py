"""The published MedTrinity folder: annotations with a file name and a caption, some with a box."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.datasets.tiny_layouts_text import COLUMNS, ROWS, converted, picture, truncate, write_json
from train.datasets import medtrinity
from train.datasets.annotations import scale_box
from unibiomed_core.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(4):
        picture(tmp_path / "images" / f"m{number}.jpg", number)
    rows = [
        {"id": 0, "file_name": "images/m0.jpg", "caption": "The CT shows a Mass.", "bbox": [6, 4, 12, 8]},
        {"id": 1, "file_name": "images/m1.jpg", "caption": "An MRI of the Brain.", "modality": "MRI"},
        {"id": 2, "file_name": "images/m2.jpg", "caption": "Outside.", "bbox": [50, 4, 12, 8]},
        {"id": 3, "file_name": "images/gone.jpg", "caption": "Nothing there."},
        {"id": 4, "file_name": "images/m3.jpg", "caption": None},
    ]
    write_json(tmp_path / "train.json", {"annotations": rows})
    write_json(tmp_path / "test.json", {"annotations": [{"file_name": "images/m9.jpg", "caption": "Held out."}]})
    picture(tmp_path / "images" / "m9.jpg", 9)
    return tmp_path


def test_captions_keep_their_case_and_boxes_are_regions(tree: Path) -> None:
    records, _ = converted(medtrinity.convert, tree, modality="ct")
    record = records["tiny/images/m0.jpg"]
    assert record.caption == "The CT shows a Mass."
    (region,) = record.regions
    assert (region.target, region.counts, region.box) == ("region of interest", b"", (6, 4, 17, 11))
    assert region.caption == "The CT shows a Mass."
    assert (record.modality, record.split, record.group) == ("ct", "train", "images/m0.jpg")
    assert records["tiny/images/m1.jpg"].regions == ()
    assert records["tiny/images/m1.jpg"].modality == "mri"
    assert records["tiny/images/m9.jpg"].split == "test"


def test_boxes_follow_the_picture_to_its_new_size(tree: Path) -> None:
    records, _ = converted(medtrinity.convert, tree, side=120)
    record = records["tiny/images/m0.jpg"]
    assert (record.size, record.pixels().shape[:2]) == ((ROWS, COLUMNS), (120, 120))
    assert record.regions[0].box == (12, 12, 35, 35)
    assert scale_box([0, 0, 60, 40], (40, 60), 30) == (0, 0, 29, 29)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 0, 4], [-5, 2, 9, 9], ["1", 2, 3, 4], [float("nan"), 1, 2, 3], 7])
def test_boxes_that_are_none_are_refused(box: object) -> None:
    with pytest.raises(DataError, match="Box not usable"):
        scale_box(box, (40, 60), 0)


def test_what_is_broken_is_refused_with_its_reason(tree: Path) -> None:
    truncate(tree / "images" / "m1.jpg")
    records, refused = converted(medtrinity.convert, tree)
    assert list(records) == ["tiny/images/m0.jpg", "tiny/images/m9.jpg"]
    assert "Damaged file" in refused["tiny/images/m1.jpg"]
    assert "[50, 4, 12, 8] in 60 x 40 px" in refused["tiny/images/m2.jpg"]
    assert "gone.jpg" in refused["tiny/images/gone.jpg"]
    assert "Empty caption" in refused["tiny/images/m3.jpg"]


def test_training_file_alone_is_divided(tree: Path) -> None:
    (tree / "test.json").unlink()
    rows = [{"file_name": f"images/d{n}.png", "caption": "A picture."} for n in range(30)]
    for number in range(30):
        picture(tree / "images" / f"d{number}.png", number)
    write_json(tree / "train.json", {"annotations": rows})
    records, _ = converted(medtrinity.convert, tree)
    assert {r.split for r in records.values()} == {"train", "test"}


def test_a_json_of_another_kind_is_an_error_that_names_it(tree: Path) -> None:
    assert medtrinity.fits(tree)
    write_json(tree / "train.json", {"annotations": [{"file_name": "a.png", "text": "x"}]})
    assert not medtrinity.fits(tree)
    with pytest.raises(DataError, match=r"annotations\[0\] has file_name, text. Expected: file_name, caption"):
        converted(medtrinity.convert, tree)
    write_json(tree / "train.json", [])
    with pytest.raises(DataError, match=r"train.json has list"):
        converted(medtrinity.convert, tree)
