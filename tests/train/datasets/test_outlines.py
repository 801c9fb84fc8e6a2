"""Outlines that annotation tools leave behind: pieces without area, crossings, corners outside, boxes, keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.train.datasets.tiny_layouts_text import COLUMNS, ROWS, picture, write_json
from train.data.records import Record
from train.datasets import coco
from train.datasets.outlines import outline
from train.datasets.request import ConversionRequest, Summary
from unibiomed_core.errors import DataError

SHAPE = (ROWS, COLUMNS)
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def run(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[Record], Summary]:
    """A picture for every annotation but those of image 0, of category 1; two good ones come last."""
    rows = [{"id": n, "category_id": 1, "image_id": n, **row} for n, row in enumerate(rows)]
    rows += [{"id": n, "category_id": 1, "image_id": n, "segmentation": [SQUARE]} for n in (90, 91, 92)]
    numbers = sorted({row["image_id"] for row in rows})
    for number in numbers:
        picture(folder / "images" / f"p{number}.png", number)
    images = [{"id": n, "file_name": f"p{n}.png", "width": COLUMNS, "height": ROWS} for n in numbers]
    write_json(folder / "a.json", {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "polyp"}]})
    summary = Summary()
    return list(coco.convert(ConversionRequest(folder, "tiny", side=0, findings_known=True), summary)), summary


@pytest.mark.parametrize(
    "piece", [[], [5, 5], [1, 1, 2, 2], [1, 1, 2, 2, 3, 3], [4, 4, 4, 4, 4, 4], [1, 1, 9, 1, 1, 1]]
)
def test_a_piece_without_area_is_dropped_and_counted(tmp_path: Path, piece: list[float]) -> None:
    """bugs 21: the good piece beside it stays."""
    good = outline([SQUARE], SHAPE).mask
    found = outline([SQUARE, piece, piece], SHAPE)
    assert found.mask is not None
    assert good is not None
    assert (found.mask == good).all()
    assert (found.dropped, found.cut) == (2, 0)
    records, summary = run(tmp_path, [{"segmentation": [SQUARE, piece]}])
    assert not summary.refused
    assert [r.target for r in records[0].regions] == ["polyp"]
    assert summary.notes["polygon_dropped", ""] == 1


def test_an_outline_that_crosses_itself_is_drawn() -> None:
    found = outline([[0, 0, 20, 20, 20, 0, 0, 20]], SHAPE)
    assert found.mask is not None
    assert 150 < found.mask.sum() < 250  # two triangles of 100 square pixels, with their borders
    assert found.dropped == 0


def test_an_outline_that_leaves_the_picture_is_cut_and_counted() -> None:
    found = outline([[-10, -10, 20, -10, 20, 20, -10, 20], SQUARE], SHAPE)
    assert found.mask is not None
    assert found.mask[:20, :20].all()
    assert found.cut == 1
    assert outline([[-0.5, 0, 20, 0, 20, 20, -0.5, 20]], SHAPE).cut == 0


@pytest.mark.parametrize(
    "wrong",
    [[[0, 0, 1e9, 0, 1e9, 9]], [[0, 0, float("nan"), 1, 5, 5]], [[0, 0, float("inf"), 1, 5, 5]], [[1, 2, 3, 4, 5]],
     [["a", "b", 1, 2, 3, 4]], [[[1, 2], [3, 4], [5, 6]]], "SQUARE", 7, {"counts": [1]}, [[True, 2, 3, 4, 5, 6]]],
)  # fmt: skip
def test_what_is_no_outline_is_refused(wrong: Any) -> None:
    """bugs 21: corners a million pixels off would take the memory along with them."""
    with pytest.raises(DataError, match="Mask not usable"):
        outline(wrong, SHAPE)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ({"size": [COLUMNS, ROWS], "counts": [ROWS * COLUMNS]}, "Mask of another size"),
        ({"size": ROWS, "counts": [ROWS * COLUMNS]}, "Mask of another size"),
        ({"size": [ROWS, COLUMNS], "counts": []}, "Damaged mask"),
        ({"size": [ROWS, COLUMNS], "counts": [3, "a"]}, "Damaged mask"),
        ({"size": [ROWS, COLUMNS], "counts": [-5, ROWS * COLUMNS + 5]}, "Damaged mask"),
        ({"size": [ROWS, COLUMNS], "counts": 7}, "Damaged mask"),
        ({"size": [ROWS, COLUMNS], "counts": "0"}, "Damaged mask"),
    ],
)
def test_run_lengths_of_another_size_or_kind_are_refused(runs: Any, told: str) -> None:
    """bugs 21."""
    with pytest.raises(DataError, match=told):
        outline(runs, SHAPE)


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": [[1, 1, 2, 2]]},
        {"segmentation": [[]]},
        {"segmentation": [[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]},
        {"segmentation": [], "keypoints": [3, 3, 2], "num_keypoints": 1},
        {"segmentation": [], "bbox": [5, 5, 0, 4]},
        {"bbox": []},
    ],
)
def test_an_annotation_without_a_place_is_neither_there_nor_absent(tmp_path: Path, row: dict[str, Any]) -> None:
    """bugs 21: the picture stays, and nothing false is said of it."""
    records, summary = run(tmp_path, [row])
    assert not summary.refused
    assert (records[0].regions, records[0].absent, records[0].findings_known) == ((), (), False)
    assert records[1].findings_known
    assert summary.notes["annotation_dropped", ""] == 1


@pytest.mark.parametrize("box", [[30, 20, -5, 6], [50, 30, 20, 20], [1, 2, 3], "box"])
def test_a_box_that_is_negative_or_outside_refuses_its_picture(tmp_path: Path, box: Any) -> None:
    """bugs 21."""
    _, summary = run(tmp_path, [{"segmentation": [], "bbox": box}])
    assert [reason.split(".")[0] for _, reason in summary.refused] == ["Box not usable"]


def test_a_crowd_and_keypoints_with_a_box_are_regions(tmp_path: Path) -> None:
    crowd = np.zeros(SHAPE, np.uint8, order="F")
    crowd[5:20, 5:20] = 1
    packed = coco_mask.encode(crowd)["counts"].decode()
    rows = [
        {"segmentation": {"size": list(SHAPE), "counts": packed}, "iscrowd": 1},
        {"segmentation": [], "keypoints": [9, 9, 2], "bbox": [4, 4, 10, 10]},
    ]
    records, summary = run(tmp_path, rows)
    assert not summary.notes
    assert records[0].masks()["polyp"].sum() == 15 * 15
    assert records[1].regions[0].box == (4, 4, 13, 13)


def test_annotations_that_mostly_have_no_place_are_an_error(tmp_path: Path) -> None:
    """bugs 21: a file of another kind is not turned into pictures without findings."""
    rows = [{"segmentation": [], "keypoints": [3, 3, 2]} for _ in range(9)]
    with pytest.raises(DataError, match=r"Annotations without a place. 9 of 12"):
        run(tmp_path, rows)


@pytest.mark.parametrize("value", [[1], {"a": 1}, 1.5, None])
def test_ids_that_are_no_ids_are_an_error(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match=r"Unknown annotation layout|Unknown label"):
        run(tmp_path, [{"segmentation": [SQUARE], "category_id": value}])
