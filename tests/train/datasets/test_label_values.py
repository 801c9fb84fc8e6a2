"""Label values that a header or a picture format changed a little: rounded and told; those in between are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.train.datasets.tiny_layouts_folders import (
    SLICES,
    disc,
    label_map,
    picture,
    save_nifti,
    save_picture,
    voxels,
    write_nnunet,
)
from train.datasets import image_masks, nnunet
from train.datasets.notes import note_lines, noted
from train.datasets.request import ConversionRequest, Summary
from train.datasets.source_files import read_mask
from train.datasets.volumes import LARGEST_LABEL, whole_numbers
from unibiomed_core.errors import DataError
from unibiomed_core.types import Note

ABOUT = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "file_ending": ".nii.gz"}


def converted(folder: Path, mask: NDArray[Any], stored: Any = None) -> tuple[list[Any], Summary]:
    """One nnU-Net case; ``stored`` is the dtype on the disk, for which nibabel picks a slope of its own."""
    write_nnunet(folder, ABOUT, {"imagesTr/a_0000.nii.gz": voxels()})
    save_nifti(folder / "labelsTr" / "a.nii.gz", mask)
    if stored is not None:
        image = nibabel.Nifti1Image(mask, nibabel.load(folder / "labelsTr" / "a.nii.gz").affine)
        image.header.set_data_dtype(stored)
        nibabel.save(image, folder / "labelsTr" / "a.nii.gz")
    summary = Summary()
    return list(nnunet.convert(ConversionRequest(folder, "tiny", side=0), summary)), summary


@pytest.mark.parametrize("largest", [2, 13, 117])
def test_labels_behind_an_automatic_slope_are_rounded_and_told(tmp_path: Path, largest: int) -> None:
    """bugs 22: 2.0000001 of 2, and 0.9961 of 1, as the slope has them."""
    mask = label_map((1, 2, 1, 2)).astype(np.float64)
    mask[0, 0, 0] = largest  # decides the slope; lies in air
    known = {**ABOUT["labels"], "another": largest} if largest > 2 else ABOUT["labels"]
    write_nnunet(tmp_path, {**ABOUT, "labels": known}, {"imagesTr/a_0000.nii.gz": voxels()})
    image = nibabel.Nifti1Image(mask, np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_data_dtype(np.uint8)
    (tmp_path / "labelsTr").mkdir()
    nibabel.save(image, tmp_path / "labelsTr" / "a.nii.gz")
    stored = np.asarray(nibabel.load(tmp_path / "labelsTr" / "a.nii.gz").dataobj)
    assert not np.array_equal(stored, np.rint(stored)), "the case is not the one meant"
    summary = Summary()
    records = list(nnunet.convert(ConversionRequest(tmp_path, "tiny", side=0), summary))
    assert not summary.refused
    assert len(records) == SLICES
    plain, _ = converted(tmp_path / "plain", label_map((1, 2, 1, 2)))
    same = [[(r.target, r.counts) for r in record.regions] for record in records]
    assert same == [[(r.target, r.counts) for r in record.regions] for record in plain]
    assert summary.notes["labels_rounded", ""] == 1


def test_labels_of_single_precision_arithmetic_are_rounded(tmp_path: Path) -> None:
    """bugs 22."""
    records, summary = converted(tmp_path, (label_map((1, 2, 1, 2)) * np.float32(1.0000001)).astype(np.float32))
    assert len(records) == SLICES
    assert summary.notes["labels_rounded", ""] == 1


@pytest.mark.parametrize("stored", [None, np.uint8], ids=["as it is", "behind a slope"])
def test_interpolated_labels_are_refused(tmp_path: Path, stored: Any) -> None:
    """bugs 22: a mask that was resampled has values in between, and rounding would make labels nobody drew."""
    mask = label_map((1, 2, 1, 2)).astype(np.float32)
    mask[3:5] *= 0.5
    _, summary = converted(tmp_path, mask, stored)
    ((_, reason),) = summary.refused
    assert "not whole numbers" in reason
    assert "nearest neighbours" in reason


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 1, 3]], np.float64), np.uint8),
        (np.array([[0.0, 300.0]], np.float32), np.uint16),
        (np.array([[0, 2**20]], np.int64), np.uint32),
        (np.array([[-1, 2]], np.int16), np.int16),
        (np.array([[False, True]]), np.uint8),
    ],
)
def test_whole_numbers_of_any_kind_become_small_integers(values: NDArray[Any], wanted: Any) -> None:
    summary = Summary()
    found = whole_numbers(values, "m", summary=summary)
    assert found.dtype == wanted
    assert (found == values).all()
    assert not summary.notes


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 0.002, LARGEST_LABEL * 4.0])
def test_values_that_are_no_labels_are_refused(value: float) -> None:
    for others in (0.0, value):
        with pytest.raises(DataError, match="Label values"):
            whole_numbers(np.array([[others, value]]), "m")


# ---- pictures -----------------------------------------------------------------------------------------------------


def pair(folder: Path, mask: NDArray[Any], suffix: str, **options: Any) -> tuple[list[Any], Summary]:
    save_picture(folder / "images" / "a.png", picture(1))
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / f"a{suffix}", **options)
    summary = Summary()
    job = ConversionRequest(folder, "tiny", modality="ultrasound", side=0, labels={"nerve": (1,), "blood vessel": (2,)})
    return list(image_masks.convert(job, summary)), summary


def test_a_float_mask_is_read_and_a_fractional_one_refused(tmp_path: Path) -> None:
    """bugs 22, its siblings."""
    records, summary = pair(tmp_path / "whole", disc().astype(np.float32), ".tif")
    assert not summary.refused
    assert (records[0].masks()["nerve"] == disc()).all()
    _, summary = pair(tmp_path / "soft", disc().astype(np.float32) * 0.4, ".tif")
    assert "not whole numbers" in summary.refused[0][1]


@pytest.mark.parametrize("mode", ["1", "RGB"])
def test_masks_of_two_values_and_of_grey_colours_are_read(tmp_path: Path, mode: str) -> None:
    values = disc() if mode == "1" else np.repeat(disc()[..., np.newaxis], 3, axis=2).astype(np.uint8)
    records, summary = pair(tmp_path, values, ".png")
    assert not summary.refused
    assert (records[0].masks()["nerve"] == disc()).all()


def test_a_jpeg_mask_of_close_values_is_refused_and_of_black_and_white_told(tmp_path: Path) -> None:
    """bugs 22, its siblings: compression makes 7 of 0 and 250 of 255."""
    _, summary = pair(tmp_path / "close", disc().astype(np.uint8), ".jpg")
    assert "too close for JPEG" in summary.refused[0][1]
    white = disc().astype(np.uint8) * 255
    folder = tmp_path / "white"
    save_picture(folder / "images" / "a.png", picture(1))
    save_picture(folder / "masks" / "a.jpg", white, quality=30)
    noisy = np.asarray(Image.open(folder / "masks" / "a.jpg"))
    assert len(np.unique(noisy)) > 2, "the case is not the one meant"
    summary = Summary()
    (record,) = image_masks.convert(
        ConversionRequest(folder, "tiny", modality="ultrasound", side=0, labels={"nerve": ()}), summary
    )
    assert (record.masks()["nerve"] != disc()).mean() < 0.01
    assert summary.notes["jpeg_mask", ""] == 1


def test_a_jpeg_mask_of_the_published_folders_has_no_specks(tmp_path: Path) -> None:
    """bugs 22, its siblings: everything above zero would be foreground."""
    white = disc().astype(np.uint8) * 255
    save_picture(tmp_path / "m.jpg", white, quality=30)
    assert (np.asarray(Image.open(tmp_path / "m.jpg")) > 0).sum() > disc().sum() * 1.2, "the case is not the one meant"
    summary = Summary()
    found = read_mask(tmp_path / "m.jpg", (30, 40), summary)
    assert (found != disc()).mean() < 0.01
    assert summary.notes["jpeg_mask", ""] == 1


def test_what_readers_assume_is_counted_by_what_it_is_not_by_its_values(tmp_path: Path) -> None:
    """bugs 10: the notes of pictures and volumes reach the summary, a line a kind."""
    summary = Summary()
    for number in range(3):
        said = Note("values", f"Values run from {number} to {number + 0.5}."), Note("position", "No position.")
        summary.note_reader(said, f"case{number}")
    assert [(row["detail"], row["count"], row["example"]) for row in noted(summary)] == [
        ("No position.", 3, "case0: No position."),
        ("Values run from N to N.", 3, "case0: Values run from 0 to 0.5."),
    ]
    assert note_lines(noted(summary))[1].startswith("note 3 x: Values run from N to N.; e.g. case0: Values run")
