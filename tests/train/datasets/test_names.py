"""Names that annotations spell otherwise than the disk: found, told, never guessed between two, never outside."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import disc, label_map, save_nifti, save_picture, voxels, write_nnunet
from tests.train.datasets.tiny_layouts_folders import picture as grey
from tests.train.datasets.tiny_layouts_text import box_mask, picture, save_mask, write_json
from train.data.records import Record
from train.datasets import coco, image_masks, image_text, layouts, nnunet, published_2d, published_3d, shared_layout
from train.datasets.names import Names
from train.datasets.request import ConversionRequest, Converter, Summary
from unibiomed_core.errors import DataError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


def run(convert: Converter, source: Path, **settings: Any) -> tuple[list[Record], Summary]:
    summary = Summary()
    return list(convert(ConversionRequest(source, "tiny", **settings), summary)), summary


def codes(summary: Summary) -> dict[str, int]:
    return {code: count for (code, _), count in summary.notes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture in images/, one outside of the source that must not be found."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    (source / "images" / "p00.png").write_bytes(b"inside")
    (tmp_path / "p01.png").write_bytes(b"outside")
    return source


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("images/p00.png", ""),
        ("./images/p00.png", ""),
        ("images\\p00.png", "name_backslash"),
        (".\\images\\p00.png", "name_backslash"),
        ("images/P00.PNG", "name_letter_case"),
        ("IMAGES\\P00.png", "name_backslash"),
        (" images/p00.png ", "name_letter_case"),
        ("images%2Fp00.png", "name_percent"),
        ("C:\\study\\images\\p00.png", "name_absolute"),
        ("\\\\server\\share\\images\\p00.png", "name_absolute"),
        ("/mnt/other/source/images/P00.PNG", "name_absolute"),
    ],
)
def test_a_name_in_another_spelling_is_found_and_told(folder: Path, name: str, code: str) -> None:
    """bugs 20."""
    summary = Summary()
    assert Names(folder, summary).find(name, [folder]) == folder / "images" / "p00.png"
    assert codes(summary) == ({code: 1} if code else {})


@pytest.mark.parametrize(
    "name",
    ["../p01.png", "..\\p01.png", "images/../../p01.png", "%2e%2e/p01.png", "..%5Cp01.png", "/a/../p01.png", "", " ",
     "a\0b", None, 3, ["p00.png"]],
)  # fmt: skip
def test_no_name_leaves_the_folder(folder: Path, name: Any) -> None:
    """bugs 20: whatever the spelling."""
    for find in (lambda n: Names(folder).find(n, [folder]), lambda n: Names(folder).anywhere(n, (".png",))):
        with pytest.raises(DataError, match="File name not usable"):
            find(name)


def test_a_file_beside_the_folder_is_not_found_by_its_absolute_path(folder: Path) -> None:
    outside = folder.parent / "p01.png"
    assert outside.is_file()
    assert Names(folder).look(str(outside), [folder]) is None
    inside = folder / "images" / "p00.png"
    summary = Summary()
    assert Names(folder, summary).find(str(inside), [folder]) == inside
    assert not summary.notes


def test_two_candidates_are_refused_and_the_exact_one_is_taken(folder: Path) -> None:
    (folder / "images" / "P00.png").write_bytes(b"another")
    if len(list((folder / "images").iterdir())) == 1:
        pytest.skip("this file system does not tell letter case")
    with pytest.raises(DataError, match=r"Ambiguous picture. 2 files are called .*P00.png, images/p00.png"):
        Names(folder).find("images/P00.PNG", [folder])
    assert Names(folder).find("images/P00.png", [folder]).name == "P00.png"


def test_a_name_longer_than_a_file_system_takes_is_just_not_there(folder: Path) -> None:
    with pytest.raises(DataError, match="Missing picture"):
        Names(folder).find("a" * 5000 + ".png", [folder])


def test_the_first_folder_that_has_a_name_as_it_stands_wins(folder: Path) -> None:
    (folder / "p00.png").write_bytes(b"beside")
    assert Names(folder).find("p00.png", [folder / "images", folder]) == folder / "images" / "p00.png"


# ---- in the layouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["images\\p{}.png", "P{}.PNG", "/data/set/images/p{}.png"])
def test_coco_finds_pictures(tmp_path: Path, spelling: str) -> None:
    """bugs 20."""
    for number in range(3):
        picture(tmp_path / "images" / f"p{number}.png", number)
    images = [{"id": n, "file_name": spelling.format(n), "width": 60, "height": 40} for n in range(3)]
    rows = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [[5, 5, 30, 5, 30, 30]]} for n in range(3)]
    write_json(tmp_path / "a.json", {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "nerve"}]})
    records, summary = run(coco.convert, tmp_path)
    assert not summary.refused
    assert [r.source for r in records] == [f"images/p{n}.png" for n in range(3)]
    assert sum(summary.notes.values()) == 3


@pytest.mark.parametrize("spelling", ["images\\p{}.png", "P{}.PNG", "C:\\x\\deep\\p{}.png", "deep\\P{}.png"])
def test_tables_find_pictures(tmp_path: Path, spelling: str) -> None:
    """bugs 20."""
    place = "elsewhere/deep" if "deep" in spelling else "images"
    for number in range(3):
        picture(tmp_path / place / f"p{number}.png", number)
    lines = [f"{spelling.format(n)},nerve {n}" for n in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *lines]), "utf-8")
    records, summary = run(image_text.convert, tmp_path)
    assert not summary.refused
    assert [r.source for r in records] == [f"{place}/p{n}.png" for n in range(3)]
    assert sum(summary.notes.values()) == 3


def test_the_published_folders_find_pictures_and_masks(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png", 1)
    save_mask(tmp_path / "train_mask" / "m.png", box_mask(2, 2, 12, 12))
    row = {"file_name": "A.PNG", "mask_file": ".\\M.png", "sentences": [{"sent": "polyp in colon endoscopy"}]}
    write_json(tmp_path / "train.json", {"images": [{"file_name": "A.PNG"}], "annotations": [row]})
    (record,), summary = run(published_2d.convert, tmp_path)
    assert [r.target for r in record.regions] == ["polyp"]
    assert codes(summary) == {"name_letter_case": 1, "name_backslash": 1}


def test_the_published_volumes_find_slices_and_masks_and_stay_inside(tmp_path: Path) -> None:
    picture(tmp_path / "case" / "case-1.png", 1)
    save_mask(tmp_path / "masks" / "case-1_liver.png", box_mask(2, 2, 12, 12))
    picture(tmp_path.parent / "outside.png", 2)
    expression = {"0": {"exp": "liver in abdomen CT", "mask_file": ["masks\\Case-1_liver.png"]}}
    volumes = {
        "case": {"slices": ["CASE-1.png"], "expressions": expression},
        "..": {"slices": ["outside.png"], "expressions": {}},
    }
    write_json(tmp_path / "meta_train.json", {"volumes": volumes})
    (record,), summary = run(published_3d.convert, tmp_path)
    assert [r.target for r in record.regions] == ["liver"]
    assert [item for item, _ in summary.refused] == ["tiny/../outside.png"]


def test_the_shared_layout_stays_inside(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for name in ("a.png", "../b.png"):
        picture(source / name, 1)
    items = [{"id": n, "split": "train", "image": name} for n, name in enumerate(("A.png", "../b.png"))]
    about = {"modality": "X-ray", "licence": "none", "items": items}
    write_json(source / "dataset.json", about)
    (record,), summary = run(shared_layout.convert, source)
    assert record.id == "tiny/0"
    assert "File name not usable" in summary.refused[0][1]


# ---- pictures and masks of one name ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (f"{DECOMPOSED}{{}}.png", f"{COMPOSED}{{}}.png"),
        ("p{}.png", "P{}.PNG"),
        ("p{}.jpg", "p{}.jpg.png"),
        (f"{COMPOSED}/{{}}.png", f"{DECOMPOSED}/{{}}.png"),
    ],
)
def test_masks_in_another_spelling_pair_with_their_pictures(tmp_path: Path, image: str, mask: str) -> None:
    """bugs 13."""
    for number in range(3):
        save_picture(tmp_path / "images" / image.format(number), grey(number))
        save_picture(tmp_path / "masks" / mask.format(number), disc().astype(np.uint8))
    assert layouts.detect(tmp_path) == "image-masks"
    job = {"modality": "ultrasound", "labels": {"nerve": (1,)}}
    records, summary = run(image_masks.convert, tmp_path, **job)
    assert not summary.refused
    assert [len(r.regions) for r in records] == [1, 1, 1]
    assert codes(summary) == {"mask_name": 3}


def test_pictures_that_differ_in_letter_case_alone_keep_their_own_masks(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        save_picture(tmp_path / "images" / name, grey(1))
        save_picture(tmp_path / "masks" / name, disc().astype(np.uint8))
    save_picture(tmp_path / "images" / "b.png", grey(2))
    records, summary = run(image_masks.convert, tmp_path, modality="ultrasound", labels={"nerve": (1,)})
    if len(records) == 1:
        pytest.skip("this file system does not tell letter case")
    assert [r.id for r in records] == ["tiny/images/A", "tiny/images/a"]
    assert not summary.notes
    assert [item for item, _ in summary.refused] == ["tiny/images/b.png"]


def test_nnunet_cases_in_another_spelling_pair(tmp_path: Path) -> None:
    """bugs 13."""
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    write_nnunet(tmp_path, about, {})
    for number, name in enumerate((DECOMPOSED, "Case_1")):
        save_nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", voxels(number))
        mask = unicodedata.normalize("NFC", name).lower()
        save_nifti(tmp_path / "labelsTr" / f"{mask}.nii.gz", label_map((1,)))
    records, summary = run(nnunet.convert, tmp_path)
    assert not summary.refused
    assert {len(r.regions) for r in records} >= {1}
    assert codes(summary)["mask_name"] == 2


# ---- what a folder lacks ---------------------------------------------------------------------------------------------


def test_a_folder_that_is_nearly_a_layout_is_told_what_did_not_pair(tmp_path: Path) -> None:
    """bugs 13: not a list of layouts with the one it is in."""
    save_picture(tmp_path / "images" / "a.png", grey(1))
    save_picture(tmp_path / "masks" / "b.png", grey(2))
    with pytest.raises(DataError, match=r"image-masks: 1 pictures and 1 masks.* such as images/a.png and masks/b.png"):
        layouts.detect(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.csv", "picture;text\na.png;b\n", r"t.csv \(parted by semicolon, utf-8\): picture, text"),
        ("t.xlsx", "PK", "image-text: t.xlsx: a workbook; save its sheet as CSV"),
        ("a.json", json.dumps({"images": [], "annotations": []}), "coco: a.json has no list 'categories'"),
        ("imagesTr/a_0000.nii.gz", "", "nnunet: there is imagesTr and not the other"),
        ("images/a.nii.gz", "", "case-folders: images/a.nii.gz is named as an image .* no labels/a.nii.gz"),
    ],
)
def test_a_folder_that_lacks_one_thing_is_told_which(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError, match=f"(?s)is nearly in:.*{told}"):
        layouts.detect(tmp_path)
