"""The layout with one dataset.json a folder, on a drawn tree, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.tiny_data import write_tree
from train.data.records import QuestionRecord, Record
from train.datasets import shared_layout
from train.datasets.request import ConversionRequest, Summary
from unibiomed_core.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", 4)


def converted(root: Path, summary: Summary | None = None, **job: Any) -> list[Record]:
    job = {"dataset": "tiny", "side": 0, **job}
    return list(shared_layout.convert(ConversionRequest(root, **job), summary if summary is not None else Summary()))


def edit(folder: Path, **changes: Any) -> None:
    """Change the description of a data set; a change of ``item`` goes to its first item."""
    about = json.loads((folder / "dataset.json").read_text("utf-8"))
    about["items"][0] |= changes.pop("item", {})
    (folder / "dataset.json").write_text(json.dumps(about | changes), "utf-8")


def test_a_folder_of_data_sets(tree: Path) -> None:
    summary = Summary()
    records = converted(tree, summary)
    assert summary.refused == []
    assert list(dict.fromkeys(r.dataset for r in records)) == [
        "busi-breast-us",
        "kvasir-seg",
        "soft-tissue-sarcoma-pet-ct-mr",
        "vqa-rad",
    ]
    polyp = next(r for r in records if r.dataset == "kvasir-seg")
    with Image.open(tree / "kvasir-seg/masks/p0.png") as mask:
        np.testing.assert_array_equal(polyp.masks()["polyp"], np.asarray(mask) > 0)
    assert (polyp.id, polyp.source, polyp.size) == ("kvasir-seg/p0", "images/p0.png", (60, 80))
    assert (polyp.licence, polyp.modality, polyp.volume) == ("none, drawn for tests", "endoscopy", "")
    assert "liver" not in polyp.foreign
    normal = next(r for r in records if r.dataset == "busi-breast-us" and not r.regions)
    assert (normal.image_class, normal.absent, normal.findings_known) == ("normal", ("breast lesion",), True)


def test_slices_of_volumes_follow_the_row_of_their_data_set(tree: Path) -> None:
    records = [r for r in converted(tree) if r.dataset.startswith("soft")]
    assert {r.slice for r in records} == {0, 4, 8}
    assert {r.volume for r in records} == {f"soft-tissue-sarcoma-pet-ct-mr/v{n}_CT" for n in range(3)}
    assert {tuple(x.target for x in r.regions) for r in records if r.slice == 4} == {("soft-tissue sarcoma",)}
    assert records[0].spacing_mm == (2.0, 2.0)
    assert {"liver", "lung tumour", "subdural haemorrhage"} <= set(records[0].foreign)
    assert not {"left iliopsoas", "colon", "lesion"} & set(records[0].foreign), "a thigh may show the pelvis beside it"


def test_questions_and_pictures_of_unknown_modality(tree: Path) -> None:
    record = next(r for r in converted(tree) if r.dataset == "vqa-rad")
    assert record.questions == (QuestionRecord("Is this a brain?", "Yes", True),)
    assert (record.modality, record.regions, record.absent, record.foreign) == ("", (), (), ())


def test_one_data_set_without_a_row_is_read_by_its_own_labels(tree: Path) -> None:
    folder = (tree / "kvasir-seg").rename(tree / "own-polyps")
    edit(folder, labels={"1": "Colorectal polyp"}, item={"text": {"caption": "a polyp"}})
    records = converted(folder, dataset="mine")
    assert {x.target for r in records for x in r.regions} == {"polyp"}
    assert (records[0].id, records[0].dataset, records[0].caption) == ("mine/p0", "mine", "a polyp")
    assert {r.foreign for r in records} == {()}
    own = converted(folder, labels={"bump": (1,)}, body=("bowel",), findings_known=True)
    assert {x.target for r in own for x in r.regions} == {"bump"}
    assert all(r.findings_known for r in own)


def test_the_pictures_have_the_side_asked_for(tree: Path) -> None:
    record = converted(tree / "kvasir-seg", side=32)[0]
    assert record.pixels().shape == (32, 32, 3)
    assert record.masks()["polyp"].shape == (32, 32)


def test_a_target_under_the_least_size_is_neither_there_nor_absent(tree: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[0, :11] = 1
    Image.fromarray(mask).save(tree / "kvasir-seg/masks/p0.png")
    record = converted(tree / "kvasir-seg")[0]
    assert (record.regions, record.absent) == ((), ())
    mask[0, 11] = 1
    Image.fromarray(mask).save(tree / "kvasir-seg/masks/p0.png")
    assert [x.target for x in converted(tree / "kvasir-seg")[0].regions] == ["polyp"]


def refused(folder: Path) -> str:
    summary = Summary()
    assert len(converted(folder, summary, dataset=folder.name)) == 3
    assert [item for item, _ in summary.refused] == ["kvasir-seg/p0"]
    return summary.refused[0][1]


def test_a_missing_mask_is_refused(tree: Path) -> None:
    (tree / "kvasir-seg/masks/p0.png").unlink()
    assert "Missing mask. there is no masks/p0.png" in refused(tree / "kvasir-seg")


def test_a_mask_of_another_size_is_refused(tree: Path) -> None:
    Image.fromarray(np.zeros((60, 81), np.uint8)).save(tree / "kvasir-seg/masks/p0.png")
    assert "Mask of another size. 'p0.png' is 60 x 81. Expected: the image's 60 x 80" in refused(tree / "kvasir-seg")


@pytest.mark.parametrize("name", ["images", "masks"])
def test_truncated_pictures_are_refused(tree: Path, name: str) -> None:
    file = tree / "kvasir-seg" / name / "p0.png"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "Damaged file" in refused(tree / "kvasir-seg")


def test_an_unknown_label_value_is_refused(tree: Path) -> None:
    Image.fromarray(np.full((60, 80), 3, np.uint8)).save(tree / "kvasir-seg/masks/p0.png")
    assert "Unknown label value. 'p0.png' holds 3" in refused(tree / "kvasir-seg")


def test_a_value_that_the_source_names_is_known(tree: Path) -> None:
    Image.fromarray(np.full((60, 80), 3, np.uint8)).save(tree / "kvasir-seg/masks/p0.png")
    edit(tree / "kvasir-seg", labels={"1": "polyp", "3": "instrument"})
    summary = Summary()
    assert len(converted(tree / "kvasir-seg", summary)) == 4
    assert summary.refused == []


def test_an_item_that_lacks_its_image_is_refused(tree: Path) -> None:
    edit(tree / "kvasir-seg", item={"image": "images/none.png"})
    assert "Missing picture. there is no images/none.png" in refused(tree / "kvasir-seg")


@pytest.mark.parametrize("text", ["{", "[]", '{"items": []}'])
def test_a_description_that_cannot_be_used_is_an_error(tree: Path, text: str) -> None:
    (tree / "kvasir-seg/dataset.json").write_text(text, "utf-8")
    assert not shared_layout.fits(tree / "kvasir-seg")
    with pytest.raises(DataError, match="cannot be read"):
        converted(tree / "kvasir-seg")


def test_other_folders_are_an_error(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not shared_layout.fits(tmp_path / "empty")
    with pytest.raises(DataError, match="Unknown data layout"):
        converted(tmp_path / "empty")
    assert shared_layout.fits(tree)
    assert shared_layout.fits(tree / "kvasir-seg")


def test_boxes_without_masks_are_regions(tree: Path) -> None:
    """Blood cells that were boxed and not outlined: the box is kept at the record's size, a flat one falls away."""
    edit(tree / "kvasir-seg", item={"boxes": [[1, 8, 6, 40, 30], [1, 5, 5, 5, 9]], "size": [80, 60]})
    record = next(r for r in converted(tree, side=40) if r.id == "kvasir-seg/p0")
    boxed = [r for r in record.regions if not r.counts]
    assert [(r.target, r.box) for r in boxed] == [("polyp", (4, 4, 19, 19))]


def test_of_structures_that_an_item_does_not_list_nothing_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shared_layout.Source({"polyp": (1,), "optic disc": (2,)}, "colon", listed_only=True)
    monkeypatch.setattr(shared_layout, "SOURCES", {"kvasir-seg": own})
    edit(tree / "kvasir-seg", item={"labels": [1]})
    record = next(r for r in converted(tree) if r.id == "kvasir-seg/p0")
    assert [r.target for r in record.regions] == ["polyp"]
    assert record.absent == ()


def test_every_label_of_the_shared_data_has_a_name(shared: Path) -> None:
    """A set without a row would be read by its own labels, under names that no other set has."""
    from unibiomed_core import vocabulary

    folders = {p.parent.name for p in (shared / "data").glob("*/dataset.json")}
    assert folders <= shared_layout.SOURCES.keys()
    assert all(t in vocabulary.targets() for source in shared_layout.SOURCES.values() for t in source.labels)
