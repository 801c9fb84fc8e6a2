"""The published 2D folders: train/, train_mask/, train.json and the same for test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_text import (
    COLUMNS,
    ROWS,
    box_mask,
    converted,
    picture,
    save_mask,
    truncate,
    write_json,
)
from train.datasets import medtrinity, published_2d
from unibiomed_core.errors import DataError


def annotation(number: int, image: str, mask: str | None, *sentences: str, **more: Any) -> dict[str, Any]:
    said = [{"raw": s, "sent": s.lower()} for s in sentences]
    return {"id": number, "image_id": number, "file_name": image, "mask_file": mask, "sentences": said, **more}


def write(root: Path, split: str, names: list[str], annotations: list[dict[str, Any]]) -> Path:
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    write_json(root / f"{split}.json", {"images": images, "annotations": annotations})
    (root / f"{split}_mask").mkdir(exist_ok=True)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ["AMOS-0001-10.png", "AMOS-0001-11.png", "AMOS-0002-10.png", "AMOS-0002-11.png"]
    for seed, name in enumerate(names):
        picture(tmp_path / "train" / name, seed)
    save_mask(tmp_path / "train_mask" / "liver.png", box_mask(5, 6, 20, 15))
    colour = np.dstack([box_mask(30, 8, 40, 20), box_mask(0, 0, 59, 39), box_mask(0, 0, 59, 39)])
    save_mask(tmp_path / "train_mask" / "tumor.png", colour)
    save_mask(tmp_path / "train_mask" / "tumor2.png", box_mask(45, 8, 50, 20))
    save_mask(tmp_path / "train_mask" / "nothing.png", box_mask(0, 0, -1, -1))
    write(
        tmp_path,
        "train",
        names,
        [
            annotation(0, names[0], "liver.png", "Liver in abdomen CT.", "hepatic region in abdomen CT"),
            annotation(1, names[0], "tumor.png", "Tumor in liver in abdominal CT", caption="A dense mass."),
            annotation(2, names[0], "tumor2.png", "tumor in liver in abdominal CT", caption="A second one."),
            annotation(3, names[1], None, "No findings in abdomen CT"),
            annotation(4, names[2], "nothing.png", "pancreas tumor in abdomen CT"),
            annotation(5, names[3], "nothing.png", "spleen in abdomen CT"),
        ],
    )
    picture(tmp_path / "test" / "AMOS-0003-1.png", 9)
    save_mask(tmp_path / "test_mask" / "s.png", box_mask(1, 2, 9, 12))
    test = [annotation(0, "AMOS-0003-1.png", "s.png", "spleen in abdomen MRI")]
    return write(tmp_path, "test", ["AMOS-0003-1.png"], test)


def test_annotations_of_a_picture_are_one_record(tree: Path) -> None:
    records, refused = converted(published_2d.convert, tree)
    assert not refused
    assert len(records) == 5
    record = records["tiny/train/AMOS-0001-10.png"]
    liver, tumour = record.regions
    assert (liver.target, liver.box, liver.caption, liver.anatomy) == ("liver", (5, 6, 20, 15), "", "")
    assert (tumour.target, tumour.box) == ("tumor in liver", (30, 8, 50, 20))
    assert tumour.caption == "A dense mass. A second one."
    assert tumour.anatomy == "abdominal"
    assert record.masks()["tumor in liver"].sum() == 11 * 13 + 6 * 13
    assert (record.size, record.modality, record.source) == ((ROWS, COLUMNS), "ct", "train/AMOS-0001-10.png")
    assert not record.findings_known


def test_splits_are_the_files_and_volumes_the_groups(tree: Path) -> None:
    records, _ = converted(published_2d.convert, tree)
    test = records["tiny/test/AMOS-0003-1.png"]
    assert (test.split, test.group, test.volume, test.slice) == ("test", "AMOS-0003", "tiny/AMOS-0003", 1)
    assert test.modality == "mri"
    assert [r.group for r in records.values()] == ["AMOS-0001"] * 2 + ["AMOS-0002"] * 2 + ["AMOS-0003"]
    assert {r.split for i, r in records.items() if "/train/" in i} == {"train"}


def test_no_findings_and_masks_of_zeros(tree: Path) -> None:
    records, _ = converted(published_2d.convert, tree)
    said = records["tiny/train/AMOS-0001-11.png"]
    assert (said.regions, said.absent, said.findings_known) == ((), (), True)
    zeros = records["tiny/train/AMOS-0002-10.png"]
    assert (zeros.regions, zeros.absent, zeros.findings_known) == ((), ("pancreas tumor",), True)
    organ = records["tiny/train/AMOS-0002-11.png"]
    assert (organ.regions, organ.absent, organ.findings_known) == ((), ("spleen",), False)


def test_what_is_broken_is_refused_with_its_reason(tmp_path: Path) -> None:
    names = [f"p{n}.png" for n in range(7)]
    for seed, name in enumerate(names[:6]):
        picture(tmp_path / "train" / name, seed)
    truncate(tmp_path / "train" / names[1])
    save_mask(tmp_path / "train_mask" / "small.png", box_mask(2, 2, 8, 8, (20, 30)))
    save_mask(tmp_path / "train_mask" / "right.png", box_mask(2, 2, 12, 12))
    rows = [
        annotation(0, names[0], "small.png", "polyp in colon endoscope"),
        annotation(1, names[1], "right.png", "polyp in colon endoscope"),
        annotation(2, names[2], None, "polyp in colon endoscope"),
        annotation(3, names[3], "gone.png", "polyp in colon endoscope"),
        annotation(4, names[5], "right.png", "polyp in colon endoscope"),
        annotation(5, names[6], "right.png", "polyp in colon endoscope"),
        annotation(6, "never.png", "right.png", "polyp in colon endoscope"),
    ]
    records, refused = converted(published_2d.convert, write(tmp_path, "train", names, rows))
    assert list(records) == ["tiny/train/p5.png"]
    assert records["tiny/train/p5.png"].modality == "endoscopy"
    assert records["tiny/train/p5.png"].group == "train/p5.png"
    assert "small.png has 20 x 30 rows x columns" in refused["tiny/train/p0.png"]
    assert "Damaged file" in refused["tiny/train/p1.png"]
    assert "Image without mask" in refused["tiny/train/p2.png"]
    assert "gone.png" in refused["tiny/train/p3.png"]
    assert "Image without annotation" in refused["tiny/train/p4.png"]
    assert "p6.png" in refused["tiny/train/p6.png"]
    assert "never.png" in refused["tiny/train/annotation 6"]
    assert len(refused) == 7


def test_a_picture_cannot_show_a_finding_and_none(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "a.png", 1)
    save_mask(tmp_path / "test_mask" / "m.png", box_mask(2, 2, 12, 12))
    rows = [annotation(0, "a.png", "m.png", "polyp"), annotation(1, "a.png", None, "No findings")]
    records, refused = converted(published_2d.convert, write(tmp_path, "test", ["a.png"], rows), modality="endoscopy")
    assert not records
    assert "polyp" in refused["tiny/test/a.png"]


def test_what_is_too_small_after_resizing_is_neither_there_nor_absent(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "a.png", 1, (80, 80))
    save_mask(tmp_path / "test_mask" / "m.png", box_mask(2, 2, 5, 5, (80, 80)))
    write(tmp_path, "test", ["a.png"], [annotation(0, "a.png", "m.png", "polyp in colon endoscopy")])
    records, _ = converted(published_2d.convert, tmp_path, side=20, findings_known=True)
    record = records["tiny/test/a.png"]
    assert (record.regions, record.absent, record.findings_known) == ((), (), False)
    records, _ = converted(published_2d.convert, tmp_path, side=160, findings_known=True)
    assert records["tiny/test/a.png"].regions[0].box == (4, 4, 11, 11)


def test_a_json_of_another_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither train.json nor test.json"):
        converted(published_2d.convert, tmp_path)
    (tmp_path / "train.json").write_text('{"images": [', "utf-8")
    with pytest.raises(DataError, match=r"train.json"):
        converted(published_2d.convert, tmp_path)
    write_json(tmp_path / "train.json", {"images": [{"file_name": "a.png"}], "annotations": [{"file": "a.png"}]})
    with pytest.raises(DataError, match=r"annotations\[0\] has file. Expected: file_name, sentences"):
        converted(published_2d.convert, tmp_path)


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    save_mask(tmp_path / "d" / "train_mask" / "m.png", box_mask(2, 2, 12, 12))
    source = write(tmp_path / "d", "train", ["../../a.png"], [annotation(0, "../../a.png", "m.png", "polyp")])
    records, refused = converted(published_2d.convert, source)
    assert not records
    assert "relative path inside the folder" in refused["tiny/train/../../a.png"]


def test_layout_is_told_from_others(tree: Path, tmp_path: Path) -> None:
    assert published_2d.fits(tree)
    assert not medtrinity.fits(tree)
    assert not published_2d.fits(tmp_path / "train")
