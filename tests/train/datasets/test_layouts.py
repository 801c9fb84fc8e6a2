"""Which layout a folder is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import (
    case_trees,
    disc,
    label_map,
    picture,
    save_picture,
    voxels,
    write_nnunet,
)
from tests.train.tiny_data import write_tree
from train.datasets.layouts import LAYOUTS, detect
from train.datasets.request import ConversionRequest, Summary
from unibiomed_core.errors import DataError

NAMES = {
    "shared", "nnunet", "case-folders", "image-masks", "published-2d", "radgenome", "medtrinity", "published-3d",
    "coco", "image-text",
}  # fmt: skip


def test_all_layouts_stand_in_the_table() -> None:
    assert LAYOUTS.keys() == NAMES
    assert all(layout.about for layout in LAYOUTS.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_its_converter_and_refuses_a_folder_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", "utf-8")
    assert LAYOUTS[name].fits(tmp_path) is False
    with pytest.raises(DataError):
        next(LAYOUTS[name].convert(ConversionRequest(tmp_path, "tiny", modality="ct"), Summary()))


def test_the_shared_layout_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path, 2)
    assert detect(tmp_path) == detect(tmp_path / "kvasir-seg") == "shared"


@pytest.mark.parametrize("name", case_trees())
def test_volumes_of_public_data_sets_are_told(name: str, tmp_path: Path) -> None:
    if name == "CHAOS":
        pytest.importorskip("pydicom")
    case_trees()[name](tmp_path)
    assert detect(tmp_path) == "case-folders"


@pytest.mark.parametrize("about", [None, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}])
def test_nnunet_is_told_with_and_without_its_description(tmp_path: Path, about: dict[str, object] | None) -> None:
    files = {"imagesTr/liver_0_0000.nii.gz": voxels(), "labelsTr/liver_0.nii.gz": label_map((1,))}
    assert detect(write_nnunet(tmp_path, about, files)) == "nnunet"


def test_pictures_with_masks_are_told_and_converted(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", disc().astype(np.uint8))
    name = detect(tmp_path)
    assert name == "image-masks"
    job = ConversionRequest(tmp_path, "tiny", modality="ultrasound", labels={"nerve": (1,)})
    (record,) = LAYOUTS[name].convert(job, Summary())
    assert [x.target for x in record.regions] == ["nerve"]


def test_an_unknown_folder_is_an_error_that_says_what_is_there_and_what_could_be(tmp_path: Path) -> None:
    for number in range(15):
        (tmp_path / f"note{number:02}.txt").write_text("nothing", "utf-8")
    with pytest.raises(DataError, match="Unknown data layout") as error:
        detect(tmp_path)
    text = str(error.value)
    assert "note00.txt, note01.txt" in text
    assert "note11.txt and 3 more" in text
    assert all(f"\n  {name}: " in text for name in NAMES)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Data folder not found"):
        detect(tmp_path / "none")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds nothing"):
        detect(tmp_path)
