"""Pictures with mask pictures in the layouts of public data sets on tiny trees, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.train.datasets.tiny_layouts_folders import disc, picture, save_picture
from train.data.records import Record
from train.datasets import image_masks
from train.datasets.picture_pairs import MASK_FOLDERS, find_pairs
from train.datasets.request import ConversionRequest, Summary
from unibiomed_core.errors import DataError

OTHER = disc(20, 30, 6)


def converted(root: Path, summary: Summary | None = None, **job: Any) -> list[Record]:
    job = {"modality": "endoscopy", "side": 0, **job}
    return list(
        image_masks.convert(ConversionRequest(root, "tiny", **job), summary if summary is not None else Summary())
    )


def all_of(root: Path, **job: Any) -> list[Record]:
    """Converted, and nothing was refused."""
    summary = Summary()
    records = converted(root, summary, **job)
    assert summary.refused == []
    return records


def grey(mask: NDArray[np.bool_], value: int = 255) -> NDArray[np.uint8]:
    return (mask * value).astype(np.uint8)


def two_labels(first: int = 1, second: int = 2) -> NDArray[np.uint8]:
    """(30, 40): a disc of each value; they do not touch."""
    values = grey(disc(), first)
    values[OTHER] = second
    return values


def colours(first: tuple[int, int, int], second: tuple[int, int, int]) -> NDArray[np.uint8]:
    values = np.zeros((30, 40, 3), np.uint8)
    values[disc()] = first
    values[OTHER] = second
    return values


def check(record: Record, **masks: NDArray[np.bool_]) -> None:
    """The record shows these targets (spaces for underscores), at these places, and no other."""
    found = record.masks()
    assert found.keys() == {name.replace("_", " ") for name in masks}
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name.replace("_", " ")], mask)


@pytest.mark.parametrize("folder", [*sorted(MASK_FOLDERS - {"1stmanual"}), "Ground_Truth", "1st_manual", "Masks"])
@pytest.mark.parametrize("end", ["", "_mask", "_segmentation"])
def test_pictures_and_masks_side_by_side(tmp_path: Path, folder: str, end: str) -> None:
    save_picture(tmp_path / "images/a.jpg", picture(1, colour=True))
    save_picture(tmp_path / folder / f"a{end}.png", grey(disc()))
    (record,) = all_of(tmp_path, labels={"polyp": (1,)}, licence="own", findings_known=True)
    check(record, polyp=disc())
    assert (record.id, record.group, record.source) == ("tiny/images/a", "images/a", "images/a.jpg")
    assert (record.size, record.spacing_mm, record.licence) == ((30, 40), (0.0, 0.0), "own")
    assert record.findings_known


def test_label_values_from_the_job(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", two_labels())
    save_picture(tmp_path / "images/b.png", picture(2))
    save_picture(tmp_path / "masks/b.png", grey(disc(), 2))
    table = {"nerve": (1,), "vessel": (2,), "both": (1, 2), "bone": (3,)}
    first, second = all_of(tmp_path, labels=table, modality="ultrasound")
    check(first, nerve=disc(), blood_vessel=OTHER, both=disc() | OTHER)
    assert first.absent == ("bone",)
    check(second, blood_vessel=disc(), both=disc())
    assert second.absent == ("nerve", "bone")


def test_zero_may_be_a_target_where_the_background_is_named(tmp_path: Path) -> None:
    values = np.full((30, 40), 255, np.uint8)
    values[disc()] = 128
    values[disc(radius=4)] = 0
    save_picture(tmp_path / "images/a.png", picture(1, colour=True))
    save_picture(tmp_path / "masks/a.png", values)
    table = {"optic disc": (0, 128), "optic cup": (0,), "background": (255,)}
    (record,) = all_of(tmp_path, labels=table, modality="fundus")
    check(record, optic_disc=disc(), optic_cup=disc(radius=4))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photograph_is_turned_to_the_mask_that_was_drawn_on_it(tmp_path: Path, orientation: int) -> None:
    """bugs 10: square, with an EXIF orientation, it lay as stored under an upright mask, and nothing said so."""
    shown = np.random.default_rng(3).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    mask = np.zeros((40, 40), np.uint8)
    mask[2:12, 5:30] = 1
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.ascontiguousarray(np.rot90(shown, 2 if orientation == 3 else 1))).save(
        tmp_path / "images/a.png", exif=exif
    )
    save_picture(tmp_path / "masks/a.png", mask)
    summary = Summary()
    (record,) = converted(tmp_path, summary, labels={"polyp": (1,)})
    np.testing.assert_array_equal(record.pixels(), shown)
    check(record, polyp=mask > 0)
    assert any("turn or mirror" in str(key) for key in summary.notes)


def test_palette_pictures_give_their_indices(tmp_path: Path) -> None:
    save_picture(tmp_path / "JPEGImages/a.jpg", picture(1, colour=True))
    (tmp_path / "SegmentationClass").mkdir()
    mask = Image.fromarray(two_labels(1, 2))
    mask.putpalette([0, 0, 0, 255, 0, 0, 255, 0, 9] + [0] * 759)
    mask.save(tmp_path / "SegmentationClass/a.png")
    assert Image.open(tmp_path / "SegmentationClass/a.png").mode == "P"
    (record,) = all_of(tmp_path, labels={"one": (1,), "two": (2,)})
    check(record, one=disc(), two=OTHER)


@pytest.mark.parametrize("file", ["labels.json", "class_dict.csv"])
def test_colours_by_a_table_in_the_source(tmp_path: Path, file: str) -> None:
    if file == "labels.json":
        table = {"background": [0, 0, 0], "neoplastic polyp": [255, 0, 0], "other polyp": [0, 255, 0]}
        (tmp_path / file).write_text(json.dumps(table), "utf-8")
    else:
        rows = "name,r,g,b\nBackground,0,0,0\nneoplastic polyp,255,0,0\nother polyp,0,255,0\n"
        (tmp_path / file).write_text(rows, "utf-8")
    save_picture(tmp_path / "images/a.png", picture(1, colour=True))
    save_picture(tmp_path / "masks/a.png", colours((255, 0, 0), (0, 255, 0)))
    check(all_of(tmp_path)[0], neoplastic_polyp=disc(), other_polyp=OTHER)
    save_picture(tmp_path / "masks/a.png", colours((255, 0, 0), (0, 0, 255)))
    summary = Summary()
    assert converted(tmp_path, summary) == []
    assert "Unknown label value. 'a.png' holds 255." in summary.refused[0][1]


def test_values_by_a_table_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"one": 40, "two": 80}), "utf-8")
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", two_labels(40, 80))
    check(all_of(tmp_path)[0], one=disc(), two=OTHER)


def test_jpeg_masks_take_the_nearest_value_or_colour(tmp_path: Path) -> None:
    save_picture(tmp_path / "train/a.jpeg", picture(1, colour=True))
    save_picture(tmp_path / "train_gt/a.jpeg", colours((255, 0, 0), (0, 255, 0)), quality=95, subsampling=0)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "train_gt/a.jpeg")))) > 10
    (tmp_path / "labels.json").write_text(json.dumps({"red": [255, 0, 0], "green": [0, 255, 0]}), "utf-8")
    check(all_of(tmp_path)[0], red=disc(), green=OTHER)
    check(all_of(tmp_path, labels={"polyp": ()})[0], polyp=disc() | OTHER)
    save_picture(tmp_path / "train_gt/a.jpeg", two_labels(100, 200), quality=95)
    check(all_of(tmp_path, labels={"one": (100,), "two": (200,)})[0], one=disc(), two=OTHER)
    summary = Summary()
    assert converted(tmp_path, summary, labels={"one": (1,), "two": (2,)}) == []
    assert "Label values too close for JPEG" in summary.refused[0][1]


def test_one_folder_a_target(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_picture(tmp_path / f"images/{name}.png", picture(1, colour=True))
        save_picture(tmp_path / f"masks/optic_disc/{name}.png", grey(disc()))
    save_picture(tmp_path / "masks/exudate/a.png", grey(OTHER, 1))
    save_picture(tmp_path / "masks/exudate/b.png", grey(OTHER, 0))
    first, second = all_of(tmp_path, modality="fundus")
    check(first, optic_disc=disc(), exudate=OTHER)
    check(second, optic_disc=disc())
    assert second.absent == ("exudate",)
    (chosen, _) = all_of(tmp_path, modality="fundus", labels={"exudate": ()})
    check(chosen, exudate=OTHER)


def test_folders_that_name_their_target_in_parts_that_divide(tmp_path: Path) -> None:
    for part, number in (("Train", 1), ("Val", 2), ("Test", 3)):
        for kind in ("COVID-19", "Normal"):
            home = tmp_path / part / kind
            save_picture(home / f"images/{kind}_{number}.png", picture(number))
            save_picture(home / f"lung masks/{kind}_{number}.png", grey(disc()))
            save_picture(home / f"infection masks/{kind}_{number}.png", grey(OTHER, 255 * (kind == "COVID-19")))
    records = all_of(tmp_path, modality="xray")
    assert {r.id.split("/")[1]: r.split for r in records} == {"Train": "train", "Val": "train", "Test": "test"}
    check(records[0], lung_fields=disc(), infection=OTHER)
    assert {r.absent for r in records if "Normal" in r.id} == {("infection",)}


@pytest.mark.parametrize("inside", [True, False])
def test_folders_of_parts_divide_inside_and_outside(tmp_path: Path, inside: bool) -> None:
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            folder = tmp_path / kind / part if inside else tmp_path / part / kind
            save_picture(folder / "a.png", picture(1) if kind == "images" else grey(disc()))
    assert [r.split for r in all_of(tmp_path, labels={"polyp": ()})] == ["train", "test"]


def test_several_data_sets_are_called_by_their_folders(tmp_path: Path) -> None:
    for name in ("polyp", "wound"):
        save_picture(tmp_path / name / "images/a.png", picture(1))
        save_picture(tmp_path / name / "masks/a.png", grey(disc(), 7))
    first, second = all_of(tmp_path)
    check(first, polyp=disc())
    check(second, wound=disc())


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    home = tmp_path / "breast lesion"
    save_picture(home / "benign/benign (1).png", picture(1))
    save_picture(home / "benign/benign (1)_mask.png", grey(disc()))
    save_picture(home / "benign/benign (1)_mask_1.png", grey(OTHER))
    save_picture(home / "normal/normal (1).png", picture(2))
    save_picture(home / "normal/normal (1)_mask.png", np.zeros((30, 40), np.uint8))
    first, second = all_of(home, modality="ultrasound")
    check(first, breast_lesion=disc() | OTHER)
    assert (first.source, second.absent) == ("benign/benign (1).png", ("breast lesion",))
    assert len({first.group, second.group}) == 2


def test_a_patients_folder_keeps_its_pictures_together(tmp_path: Path) -> None:
    for patient in ("TCGA_CS_4941", "TCGA_DU_5849"):
        for number in (1, 2):
            stem = tmp_path / "kaggle_3m" / patient / f"{patient}_{number}"
            save_picture(stem.with_suffix(".tif"), picture(number, colour=True))
            save_picture(stem.with_name(stem.name + "_mask.tif"), grey(disc()))
    records = all_of(tmp_path, modality="mri", labels={"brain tumour": (255,)})
    assert len(records) == 4
    assert {r.group for r in records} == {"kaggle_3m/TCGA_CS_4941", "kaggle_3m/TCGA_DU_5849"}
    check(records[0], brain_tumour=disc())


def test_contours_beside_originals(tmp_path: Path) -> None:
    save_picture(tmp_path / "SSM2_orig.jpg", picture(1, colour=True))
    save_picture(tmp_path / "SSM2_contour.png", grey(disc()))
    check(all_of(tmp_path, modality="dermoscopy", labels={"skin lesion": ()})[0], skin_lesion=disc())


def test_numbered_pieces_are_one_target_where_that_is_said(tmp_path: Path) -> None:
    save_picture(tmp_path / "train/Images/a.png", picture(1, colour=True))
    save_picture(tmp_path / "train/Annotation/a.png", two_labels())
    check(all_of(tmp_path, modality="pathology", labels={"gland": ()})[0], gland=disc() | OTHER)
    summary = Summary()
    assert converted(tmp_path, summary, modality="pathology") == []
    assert "Unknown label value. 'a.png' holds 1, 2 and nothing names them" in summary.refused[0][1]


def refused(root: Path, **job: Any) -> str:
    """The reason of the only refusal; the other picture is converted all the same."""
    save_picture(root / "images/good.png", picture(9))
    save_picture(root / "masks/good.png", grey(disc()))
    summary = Summary()
    (record,) = converted(root, summary, **{"labels": {"polyp": ()}, **job})
    assert record.id == "tiny/images/good"
    assert len(summary.refused) == 1
    return f"{summary.refused[0][0]}: {summary.refused[0][1]}"


def test_one_without_the_other_is_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    assert refused(tmp_path).startswith("tiny/images/a.png: Image without mask.")
    (tmp_path / "images/a.png").rename(tmp_path / "masks/b.png")
    assert refused(tmp_path).startswith("tiny/masks/b.png: Mask without image.")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", grey(disc())[:, :39])
    assert "Mask of another size. 'a.png' is (30, 39). Expected: the image's (30, 40)" in refused(tmp_path)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_truncated_pictures_are_refused(tmp_path: Path, folder: str) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", picture(3))
    file = tmp_path / folder / "a.png"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "Damaged file" in refused(tmp_path)


def test_an_unknown_label_value_is_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", two_labels(1, 3))
    assert "Unknown label value. 'a.png' holds 3. Expected: one of 0, 1, 255." in refused(
        tmp_path, labels={"polyp": (1,)}
    )
    assert "Unknown label value. 'a.png' holds 1, 3. Expected: one of 0, 2, 255." in refused(
        tmp_path, labels={"polyp": (2, 255)}
    )


def test_colours_without_a_table_are_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", colours((255, 0, 0), (0, 255, 0)))
    assert "Colours instead of labels" in refused(tmp_path, labels={"polyp": (200, 255)})


def test_two_pictures_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/good.jpg", picture(1))
    assert "Two pictures of one name" in refused_first(tmp_path)


def refused_first(root: Path) -> str:
    save_picture(root / "images/good.png", picture(9))
    save_picture(root / "masks/good.png", grey(disc()))
    summary = Summary()
    assert len(converted(root, summary, labels={"polyp": ()})) == 1
    return summary.refused[0][1]


@pytest.mark.parametrize(
    ("job", "title"),
    [
        ({"modality": "", "labels": {"polyp": ()}}, "Modality not told"),
        ({"labels": {"one": (1,), "two": ()}}, "Labels without values"),
    ],
)
def test_a_job_that_tells_too_little_is_an_error(tmp_path: Path, job: dict[str, Any], title: str) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", grey(disc()))
    with pytest.raises(DataError, match=title):
        converted(tmp_path, **job)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "red"}', '{"a": [1, 2]}', '{"a": 1, "b": [1, 2, 3]}', '{"a": 300}'])
def test_a_table_that_cannot_be_used_is_an_error(tmp_path: Path, text: str) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    save_picture(tmp_path / "masks/a.png", grey(disc()))
    (tmp_path / "labels.json").write_text(text, "utf-8")
    with pytest.raises(DataError, match="Table of labels cannot be read"):
        converted(tmp_path)


def test_other_folders_are_an_error(tmp_path: Path) -> None:
    save_picture(tmp_path / "images/a.png", picture(1))
    assert not image_masks.fits(tmp_path)
    with pytest.raises(DataError, match="Unknown data layout"):
        converted(tmp_path)
    save_picture(tmp_path / "masks/a.png", grey(disc()))
    assert image_masks.fits(tmp_path)


def test_pictures_that_are_no_part_of_the_layout_are_left_out() -> None:
    names = ["preview.png", "images/a.png", "masks/a.png", "images/.b.png"]
    pairs = find_pairs([PurePosixPath(n) for n in names if "/." not in n])
    assert [(p.image, dict(p.masks)) for p in pairs] == [("images/a.png", {"": ("masks/a.png",)})]
