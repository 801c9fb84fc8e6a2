"""COCO instance files: polygons and run lengths, categories united, splits by file name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.train.datasets.tiny_layouts_text import COLUMNS, ROWS, box_mask, converted, picture, truncate, write_json
from train.datasets import coco
from train.datasets.outlines import outline
from unibiomed_core.errors import DataError

CATEGORIES = [{"id": 1, "name": "Polyp"}, {"id": 5, "name": "Snare"}, {"id": 9, "name": "never used"}]


def polygon(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1 + 1, y0, x1 + 1, y1 + 1, x0, y1 + 1]]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed COCO counts: column by column, background first."""
    flat = (mask.T.reshape(-1) > 0).astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


def image(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": ROWS, "width": COLUMNS, **more}


def annotation(number: int, picture_id: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": picture_id, "category_id": category, "segmentation": segmentation, **more}


def document(images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """annotations/instances_*.json with pictures in a folder a split."""
    for seed, name in enumerate(["train2017/a.jpg", "train2017/b.jpg", "val2017/c.jpg", "test2017/a.jpg"]):
        picture(tmp_path / name, seed)
    packed = coco_mask.encode(np.asfortranarray(box_mask(40, 20, 50, 30)))
    packed["counts"] = packed["counts"].decode()
    train = [
        annotation(0, 1, 1, polygon(5, 6, 15, 16)),
        annotation(1, 1, 1, {"size": [ROWS, COLUMNS], "counts": run_lengths(box_mask(30, 6, 35, 16))}, iscrowd=1),
        annotation(2, 1, 5, packed),
    ]
    folder = tmp_path / "annotations"
    write_json(folder / "instances_train2017.json", document([image(1, "a.jpg"), image(2, "b.jpg")], train))
    write_json(
        folder / "instances_val2017.json", document([image(1, "c.jpg")], [annotation(0, 1, 1, polygon(1, 1, 9, 9))])
    )
    test = [annotation(0, 1, 1, [], bbox=[4, 6, 10, 12]), annotation(1, 1, 1, [], bbox=[30, 6, 5, 5])]
    write_json(folder / "instances_test2017.json", document([image(1, "a.jpg")], test))
    write_json(folder / "captions_train2017.json", {"images": [], "annotations": []})
    return tmp_path


def test_annotations_of_a_category_are_one_region(tree: Path) -> None:
    records, refused = converted(coco.convert, tree, modality="endoscopy")
    assert not refused
    record = records["tiny/train2017/a.jpg"]
    polyp, snare = record.regions
    assert (polyp.target, polyp.box) == ("polyp", (5, 6, 35, 16))
    assert (snare.target, snare.box) == ("snare", (40, 20, 50, 30))
    assert record.masks()["polyp"].sum() == 11 * 11 + 6 * 11
    assert record.absent == ()
    assert (record.source, record.modality) == ("train2017/a.jpg", "endoscopy")


def test_categories_in_use_are_absent_where_they_are_not(tree: Path) -> None:
    records, _ = converted(coco.convert, tree, modality="endoscopy", findings_known=True)
    record = records["tiny/train2017/b.jpg"]
    assert (record.regions, record.absent, record.findings_known) == ((), ("polyp", "snare"), True)


def test_splits_come_from_the_names_of_the_files(tree: Path) -> None:
    records, _ = converted(coco.convert, tree)
    assert {i: r.split for i, r in records.items()} == {
        "tiny/test2017/a.jpg": "test", "tiny/train2017/a.jpg": "train", "tiny/train2017/b.jpg": "train",
        "tiny/val2017/c.jpg": "train",
    }  # fmt: skip
    assert records["tiny/test2017/a.jpg"].group != records["tiny/train2017/a.jpg"].group
    (tree / "annotations" / "instances_test2017.json").unlink()
    records, _ = converted(coco.convert, tree)
    assert records["tiny/val2017/c.jpg"].split == "test"


def test_boxes_without_a_segmentation_are_regions_of_their_own(tree: Path) -> None:
    records, _ = converted(coco.convert, tree)
    found = [(r.target, r.counts, r.box) for r in records["tiny/test2017/a.jpg"].regions]
    assert found == [("polyp", b"", (4, 6, 13, 17)), ("polyp", b"", (30, 6, 34, 10))]


def test_a_json_beside_its_pictures(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "valid")):
        picture(tmp_path / folder / "x.png", number)
        rows = [annotation(0, 0, 1, polygon(3, 3, 20, 20))]
        write_json(tmp_path / folder / "_annotations.coco.json", document([image(0, "x.png")], rows))
    assert coco.fits(tmp_path)
    records, _ = converted(coco.convert, tmp_path)
    assert {i: r.split for i, r in records.items()} == {"tiny/train/x.png": "train", "tiny/valid/x.png": "test"}


def test_what_is_broken_is_refused_with_its_reason(tmp_path: Path) -> None:
    for number in range(7):
        picture(tmp_path / "images" / f"p{number}.png", number)
    truncate(tmp_path / "images" / "p1.png")
    images = [image(n, f"p{n}.png") for n in range(7)] + [image(7, "gone.png"), image(8, "p0.png")]
    images[2]["height"] = ROWS + 1
    rows = [
        annotation(0, 3, 1, {"size": [ROWS, 7], "counts": [10, 5]}),
        annotation(1, 4, 1, [[1, 2, 3, 4, 5]]),
        annotation(2, 5, 1, {"size": [ROWS, COLUMNS], "counts": [10, 5]}),
        annotation(3, 6, 1, None, bbox=[50, 30, 20, 20]),
    ]
    write_json(tmp_path / "labels.json", document(images, rows))
    records, refused = converted(coco.convert, tmp_path)
    assert list(records) == ["tiny/images/p0.png"]
    assert "Damaged file" in refused["tiny/labels/p1.png"]
    assert "Mask of another size" in refused["tiny/labels/p2.png"]
    assert "Mask of another size" in refused["tiny/labels/p3.png"]
    assert "Mask not usable" in refused["tiny/labels/p4.png"]
    assert "run lengths of 15 pixels" in refused["tiny/labels/p5.png"]
    assert "Box not usable" in refused["tiny/labels/p6.png"]
    assert "Missing picture" in refused["tiny/labels/gone.png"]
    assert "described by another entry, too" in refused["tiny/labels/p0.png"]


def test_packed_run_lengths_must_fill_the_picture() -> None:
    rng = np.random.default_rng(4)
    mask = (rng.random((ROWS, COLUMNS)) < rng.random((1, COLUMNS))).astype(np.uint8)
    packed = coco_mask.encode(np.asfortranarray(mask))["counts"]
    drawn = outline({"size": [ROWS, COLUMNS], "counts": packed}, (ROWS, COLUMNS)).mask
    assert drawn is not None
    assert (drawn == mask).all()
    for damaged in (packed[:-3], packed[:40], b"", "0", "zzzz"):
        with pytest.raises(DataError, match="Damaged mask"):
            outline({"size": [ROWS, COLUMNS], "counts": damaged}, (ROWS, COLUMNS))


def test_unknown_labels_and_missing_columns_are_errors(tmp_path: Path) -> None:
    assert not coco.fits(tmp_path)
    with pytest.raises(DataError, match="no JSON"):
        converted(coco.convert, tmp_path)
    write_json(tmp_path / "train.json", document([image(0, "a.png")], [annotation(0, 0, 77, [])]))
    with pytest.raises(DataError, match="category 77"):
        converted(coco.convert, tmp_path)
    write_json(tmp_path / "train.json", document([image(0, "a.png")], [{"image_id": 0}]))
    with pytest.raises(DataError, match=r"train.json, annotations\[0\] has image_id. Expected: image_id, category_id"):
        converted(coco.convert, tmp_path)
