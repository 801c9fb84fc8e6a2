"""nnU-Net's raw data, both versions, and the Medical Segmentation Decathlon on tiny trees, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import (
    AFFINE,
    SLICES,
    block,
    disc,
    label_map,
    picture,
    save_nifti,
    save_picture,
    voxels,
    write_nnunet,
)
from train.data.records import Record
from train.datasets import nnunet
from train.datasets.request import ConversionRequest, Summary, split_of
from unibiomed_core.errors import DataError

VERSION_2: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
DECATHLON: dict[str, Any] = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}


def version_2(root: Path, **changes: Any) -> Path:
    files = {}
    for case in ("scan_001", "scan_002"):
        files[f"imagesTr/{case}_0000.nii.gz"] = voxels()
        files[f"labelsTr/{case}.nii.gz"] = label_map((1, 2))
    return write_nnunet(root, VERSION_2 | changes, files)


def converted(root: Path, summary: Summary | None = None, **job: Any) -> list[Record]:
    return list(
        nnunet.convert(ConversionRequest(root, "tiny", side=0, **job), summary if summary is not None else Summary())
    )


def test_version_2(tmp_path: Path) -> None:
    summary = Summary()
    records = converted(version_2(tmp_path), summary, body=("abdomen",), licence="none", findings_known=True)
    assert summary.refused == []
    assert [r.id for r in records] == [f"tiny/scan_00{n}/{z}" for n in (1, 2) for z in range(SLICES)]
    for record in records:
        shown = {"liver": block(0)[record.slice], "tumour": block(1)[record.slice]}
        assert set(record.masks()) == {t for t, m in shown.items() if m.any()}
        assert set(record.absent) == {t for t, m in shown.items() if not m.any()}
        for target, mask in record.masks().items():
            np.testing.assert_array_equal(mask, shown[target])
    first = records[0]
    assert (first.modality, first.group, first.licence, first.findings_known) == ("ct", "scan_001", "none", True)
    assert (first.volume, first.source) == ("tiny/scan_001", "imagesTr/scan_001_0000.nii.gz")
    assert first.split == split_of("tiny", "scan_001")
    assert "soft-tissue sarcoma" in first.foreign
    assert "spleen" not in first.foreign


def test_the_same_call_gives_the_same_records(tmp_path: Path) -> None:
    version_2(tmp_path)
    assert converted(tmp_path) == converted(tmp_path)


def test_regions_of_several_values_and_voxels_that_nobody_annotated(tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3}
    root = version_2(tmp_path, labels=labels, regions_class_order=[1, 2])
    save_nifti(root / "labelsTr/scan_001.nii.gz", label_map((1, 2, 3)))
    summary = Summary()
    records = [r for r in converted(root, summary, findings_known=True) if r.group == "scan_001"]
    assert summary.refused == []
    for record in records:
        unsure = block(2)[record.slice].any()
        assert record.findings_known is not unsure
        assert not (unsure and record.absent)
        whole = (block(0) | block(1))[record.slice]
        assert ("whole tumor" in record.masks()) == whole.any()
        if whole.any():
            np.testing.assert_array_equal(record.masks()["whole tumor"], whole)
    assert {x.target for r in records for x in r.regions} == {"whole tumor", "core"}
    assert any(r.findings_known for r in records)
    assert not all(r.findings_known for r in records)


def test_the_decathlon_with_four_channels_in_a_file(tmp_path: Path) -> None:
    channels = np.stack([voxels(n, hounsfield=False) for n in range(4)], axis=3)
    files = {"imagesTr/BRATS_001.nii.gz": channels, "labelsTr/BRATS_001.nii.gz": label_map((1, 2, 3))}
    root = write_nnunet(tmp_path, DECATHLON, files)
    (root / "imagesTr/._BRATS_001.nii.gz").write_bytes(b"of another system")
    save_nifti(root / "imagesTs/BRATS_485.nii.gz", channels)
    summary = Summary()
    records = converted(root, summary)
    assert summary.refused == []
    assert {r.volume for r in records} == {f"tiny/BRATS_001/{c}" for c in ("FLAIR", "T1w", "t1gd", "T2w")}
    assert {r.modality for r in records} == {"mri"}
    assert {x.target for r in records for x in r.regions} == {
        "peritumoural oedema",
        "non-enhancing tumor",
        "enhancing tumour",
    }
    assert len({r.image for r in records}) == len(records) == 4 * SLICES
    assert len({r.split for r in records}) == 1
    by_slice = {tuple(x.counts for x in r.regions) for r in records if r.slice == SLICES - 1}
    assert len(by_slice) == 1


def test_channels_in_files_of_their_own_and_other_modalities(tmp_path: Path) -> None:
    names = {"0": "CT", "1": "PET", "2": "PET"}
    files = {f"imagesTr/p1_000{n}.nii.gz": voxels(n, hounsfield=n == 0) for n in range(3)}
    root = write_nnunet(tmp_path, VERSION_2 | {"channel_names": names}, files | {"labelsTr/p1.nii.gz": label_map((1,))})
    summary = Summary()
    records = converted(root, summary)
    assert summary.refused == []
    assert {(r.volume, r.modality) for r in records} == {
        ("tiny/p1/CT", "ct"),
        ("tiny/p1/PET-1", "pet"),
        ("tiny/p1/PET-2", "pet"),
    }


def test_labels_of_the_test_part_make_the_test_split(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    save_nifti(root / "imagesTs/scan_009_0000.nii.gz", voxels())
    assert "scan_009" not in {r.group for r in converted(root)}
    save_nifti(root / "labelsTs/scan_009.nii.gz", label_map((1,)))
    assert {(r.group, r.split) for r in converted(root)} == {
        ("scan_001", "train"),
        ("scan_002", "train"),
        ("scan_009", "test"),
    }


def test_pictures(tmp_path: Path) -> None:
    about = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "polyp": 1}}
    root = write_nnunet(tmp_path, about | {"file_ending": ".png"}, {})
    save_picture(root / "imagesTr/frame_1_0000.png", picture(1, colour=True))
    save_picture(root / "labelsTr/frame_1.png", disc().astype(np.uint8))
    (record,) = converted(root, modality="endoscopy")
    assert (record.id, record.volume, record.slice) == ("tiny/frame_1", "", -1)
    np.testing.assert_array_equal(record.masks()["polyp"], disc())
    with pytest.raises(DataError, match="Modality not told"):
        converted(root)


def test_without_a_description_the_job_tells(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    (root / "dataset.json").unlink()
    records = converted(root, labels={"hepar": (1, 2)}, modality="ct")
    assert {x.target for r in records for x in r.regions} == {"liver"}
    with pytest.raises(DataError, match="Labels without names"):
        converted(root, modality="ct")
    with pytest.raises(DataError, match="Modality not told"):
        converted(root, labels={"liver": (1, 2)})


def test_the_jobs_labels_win_but_the_sources_values_stay_known(tmp_path: Path) -> None:
    summary = Summary()
    records = converted(version_2(tmp_path), summary, labels={"liver tumour": (2,)})
    assert summary.refused == []
    assert {x.target for r in records for x in r.regions} == {"liver tumour"}


def refused(root: Path) -> str:
    """The reason of the only refusal; the other case is converted all the same."""
    summary = Summary()
    assert {r.group for r in converted(root, summary)} >= {"scan_002"}
    assert len(summary.refused) == 1
    return f"{summary.refused[0][0]}: {summary.refused[0][1]}"


def test_an_image_without_mask_and_a_mask_without_image_are_refused(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    (root / "labelsTr/scan_001.nii.gz").unlink()
    assert refused(root).startswith("tiny/scan_001: Image without mask.")
    save_nifti(root / "labelsTr/scan_001.nii.gz", label_map((1,)))
    (root / "imagesTr/scan_001_0000.nii.gz").unlink()
    assert refused(root).startswith("tiny/scan_001: Mask without image.")


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    mask = root / "labelsTr/scan_001.nii.gz"
    save_nifti(mask, label_map((1, 5)))
    assert "Unknown label value. 'scan_001.nii.gz' holds 5. Expected: one of 0, 1, 2" in refused(root)
    save_nifti(mask, label_map((1,))[:20])
    assert "Mask of another size" in refused(root)
    save_nifti(mask, label_map((1,)), np.diag([1, 1, 3, 1.0]))
    assert "Mask on another grid" in refused(root)


@pytest.mark.parametrize("name", ["imagesTr/scan_001_0000", "labelsTr/scan_001"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    file = version_2(tmp_path) / f"{name}.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "Damaged file" in refused(tmp_path)


def test_damaged_channels_are_refused(tmp_path: Path) -> None:
    channels = np.stack([voxels(n, hounsfield=False) for n in range(4)], axis=3)
    files = {f"imagesTr/scan_00{n}.nii.gz": channels for n in (1, 2, 3)}
    files |= {f"labelsTr/scan_00{n}.nii.gz": label_map((1,)) for n in (1, 2, 3)}
    root = write_nnunet(tmp_path, DECATHLON, files)
    broken = root / "imagesTr/scan_001.nii.gz"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert "Damaged file" in refused(root)
    save_nifti(broken, channels[..., :2])
    assert "Unknown channels. 'scan_001.nii.gz' has 2. Expected: FLAIR, T1w, t1gd, T2w" in refused(root)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    root = version_2(tmp_path, channel_names={"0": "T1", "1": "T2"})
    shifted = AFFINE + 3 * np.eye(4, k=3)
    save_nifti(root / "imagesTr/scan_001_0001.nii.gz", voxels(5), shifted)
    assert "Channels on different grids" in refused(root)


def test_other_folders_are_an_error(tmp_path: Path) -> None:
    assert not nnunet.fits(tmp_path)
    with pytest.raises(DataError, match="Unknown data layout"):
        converted(tmp_path)
    assert nnunet.fits(version_2(tmp_path))


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps({"labels": {"liver": "one"}}), json.dumps({"labels": [1]})])
def test_descriptions_that_cannot_be_used_are_an_error(tmp_path: Path, text: str) -> None:
    root = version_2(tmp_path)
    (root / "dataset.json").write_text(text, "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        converted(root)
