"""The published 3D folders: meta_train.json and meta_test.json with slices and expressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.datasets.tiny_layouts_text import box_mask, converted, picture, save_mask, truncate, write_json
from train.datasets import published_3d
from unibiomed_core.errors import DataError


def write(root: Path, volume: str, split: str, expressions: dict[str, Any], slices: int = 11) -> Path:
    """A volume of slices ``<volume>-1.png`` to ``<volume>-11.png``, listed in the order of their names as text."""
    names = sorted(f"{volume}-{n}.png" for n in range(1, slices + 1))
    for seed, name in enumerate(names):
        picture(root / volume / name, seed)
    write_json(root / f"meta_{split}.json", {"volumes": {volume: {"slices": names, "expressions": expressions}}})
    return root


def expression(root: Path, volume: str, phrase: str, boxes: dict[str, tuple[int, int, int, int]]) -> dict[str, Any]:
    """Masks in ``masks/<volume>/``; each key of ``boxes`` is a file's stem."""
    for stem, box in boxes.items():
        save_mask(root / "masks" / volume / f"{stem}.png", box_mask(*box))
    return {
        "exp": phrase,
        "mask_file": [f"masks/{volume}/{stem}.png" for stem in boxes],
        "img_file": [f"{volume}/{stem}.png" for stem in boxes],
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tumour = {"lung_001-10": (30, 5, 40, 15), "lung_001-11": (31, 5, 40, 15)}
    lung = {"lung_001-1_lung": (2, 2, 12, 12), "lung_001-10_lung": (3, 2, 12, 12), "lung_001-2_lung": (0, 0, -1, -1)}
    return write(
        tmp_path,
        "lung_001",
        "train",
        {
            "0": expression(tmp_path, "lung_001", "lung tumor in chest CT", tumour),
            "1": expression(tmp_path, "lung_001", "Can you segment the lung in this CT?", lung),
        },
    )


def test_each_slice_is_one_record_with_its_phrases(tree: Path) -> None:
    records, refused = converted(published_3d.convert, tree)
    assert not refused
    assert len(records) == 11
    tenth = records["tiny/lung_001/lung_001-10.png"]
    assert {r.target: r.box for r in tenth.regions} == {"lung tumour": (30, 5, 40, 15), "lung": (3, 2, 12, 12)}
    assert tenth.absent == ()
    assert (tenth.modality, tenth.volume, tenth.group, tenth.slice) == ("ct", "tiny/lung_001", "lung_001", 9)


def test_masks_are_joined_by_the_whole_name_of_a_slice(tree: Path) -> None:
    """The published trap: by its beginning, slice 1 would also get the masks of slices 10 and 11."""
    records, _ = converted(published_3d.convert, tree)
    first = records["tiny/lung_001/lung_001-1.png"]
    assert {r.target: r.box for r in first.regions} == {"lung": (2, 2, 12, 12)}
    assert first.absent == ("lung tumour",)
    assert first.masks()["lung"].sum() == 11 * 11


def test_phrases_without_a_mask_or_with_zeros_are_absent(tree: Path) -> None:
    records, _ = converted(published_3d.convert, tree)
    assert records["tiny/lung_001/lung_001-2.png"].absent == ("lung tumour", "lung")
    assert records["tiny/lung_001/lung_001-7.png"].absent == ("lung tumour", "lung")


def test_slices_are_numbered_in_the_order_of_their_numbers(tree: Path) -> None:
    records, _ = converted(published_3d.convert, tree)
    assert [r.slice for r in records.values()] == list(range(11))
    assert records["tiny/lung_001/lung_001-2.png"].slice == 1
    every_fifth, _ = converted(published_3d.convert, tree, step=5)
    assert [r.slice for r in every_fifth.values()] == [0, 5, 10]


def test_a_name_that_goes_on_after_an_underscore_is_the_longest_slice(tmp_path: Path) -> None:
    stems = {"c_1_2_liver": (2, 2, 12, 12)}
    root = tmp_path
    for seed, name in enumerate(("c_1.png", "c_1_2.png")):
        picture(root / "c" / name, seed)
    about = {"slices": ["c_1.png", "c_1_2.png"], "expressions": {"0": expression(root, "c", "liver", stems)}}
    write_json(root / "meta_test.json", {"volumes": {"c": about}})
    records, _ = converted(published_3d.convert, root, modality="ct")
    assert records["tiny/c/c_1.png"].absent == ("liver",)
    assert records["tiny/c/c_1_2.png"].regions[0].target == "liver"
    assert {r.split for r in records.values()} == {"test"}


def test_what_is_broken_is_refused_with_its_reason(tree: Path) -> None:
    truncate(tree / "lung_001" / "lung_001-1.png")
    (tree / "lung_001" / "lung_001-2.png").unlink()
    (tree / "masks" / "lung_001" / "lung_001-11.png").unlink()
    save_mask(tree / "masks" / "lung_001" / "lung_001-10.png", box_mask(2, 2, 9, 9, (20, 20)))
    save_mask(tree / "masks" / "lung_001" / "lung_001-99.png", box_mask(2, 2, 9, 9))
    volumes = published_3d.read_annotations(tree / "meta_train.json")
    expressions = volumes["volumes"]["lung_001"]["expressions"]
    expressions["0"]["mask_file"].append("masks/lung_001/lung_001-99.png")
    expressions["2"] = {"exp": "Where is it?", "mask_file": [], "img_file": []}
    write_json(tree / "meta_train.json", volumes)
    records, refused = converted(published_3d.convert, tree)
    assert len(records) == 7
    assert "Damaged file" in refused["tiny/lung_001/lung_001-1.png"]
    assert "lung_001-2.png" in refused["tiny/lung_001/lung_001-2.png"]
    assert "Mask of another size" in refused["tiny/lung_001/lung_001-10.png"]
    assert "lung_001-11.png" in refused["tiny/lung_001/lung_001-11.png"]
    assert "No slice" in refused["tiny/lung_001/masks/lung_001/lung_001-99.png"]
    assert "no known target" in refused["tiny/lung_001/expression 2"]


def test_a_json_of_another_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    assert not published_3d.fits(tmp_path)
    write_json(tmp_path / "meta_test.json", {"volumes": {"v": {"slices": []}}})
    assert published_3d.fits(tmp_path)
    with pytest.raises(DataError, match=r"meta_test.json, volume v has slices. Expected: expressions"):
        converted(published_3d.convert, tmp_path)
    write_json(tmp_path / "meta_test.json", {"volumes": ["v"]})
    with pytest.raises(DataError, match="'volumes' is a list"):
        converted(published_3d.convert, tmp_path)
