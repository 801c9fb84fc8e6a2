"""Every named layout of volumes on a tiny tree as the data set comes, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.train.datasets.tiny_layouts_folders import (
    AFFINE,
    SLICES,
    block,
    case_trees,
    label_map,
    save_nifti,
    voxels,
    write_case,
)
from train.data.records import Record
from train.datasets import case_folders
from train.datasets.case_patterns import PATTERNS
from train.datasets.request import ConversionRequest, Summary
from unibiomed_core.errors import DataError

TREES = case_trees()
OWN = {"first": (1,), "second": (2,)}


def converted(root: Path, summary: Summary | None = None, **job: object) -> list[Record]:
    summary = summary if summary is not None else Summary()
    return list(case_folders.convert(ConversionRequest(root, "tiny", side=0, **job), summary))  # type: ignore[arg-type]


# Layout -> (ids without the data set's name, modalities, targets, splits; "" where patients decide)
EXPECTED: Mapping[str, tuple[set[str], set[str], set[str], set[str]]] = {
    "AMOS": (
        {"amos_0004", "amos_0507", "amos_0008"},
        {"ct", "mri"},
        {"spleen", "liver", "prostate or uterus"},
        {"train", "test"},
    ),
    "WORD": (
        {"word_0002", "word_0001", "word_0014"},
        {"ct"},
        {"liver", "right femoral head"},
        {"train", "test"},
    ),
    "BTCV": ({"0001", "0002"}, {"ct"}, {"liver", "left adrenal gland"}, set()),
    "FLARE22": ({"FLARE22_Tr_0001", "FLARE22_Tr_0002"}, {"ct"}, {"liver", "left kidney"}, set()),
    "AbdomenCT-1K": ({"Case_00001", "Case_00002"}, {"ct"}, {"liver", "kidney", "pancreas"}, set()),
    "KiTS": ({"case_00001", "case_00002"}, {"ct"}, {"kidney", "kidney tumour", "kidney cyst"}, set()),
    "LiTS": ({"1", "2"}, {"ct"}, {"liver", "liver tumour"}, set()),
    "CHAOS": (
        {"CT/1", "MR/1/InPhase", "MR/1/OutPhase", "MR/1/T2SPIR"},
        {"ct", "mri"},
        {"liver", "right kidney", "left kidney", "spleen"},
        set(),
    ),
    "ACDC": (
        {f"{p}_frame{f}" for p in ("patient001", "patient101") for f in ("01", "12")},
        {"mri"},
        {"right ventricular cavity", "left ventricular myocardium", "left ventricular cavity"},
        {"train", "test"},
    ),
    "CAMUS": (
        {f"patient0001_{v}_{t}" for v in ("2CH", "4CH") for t in ("ED", "ES")},
        {"ultrasound"},
        {"left ventricular cavity", "left ventricular myocardium", "left atrium"},
        set(),
    ),
    "BraTS to 2021": (
        {f"BraTS2021_00000/{s}" for s in ("t1", "t1ce", "t2", "flair")},
        {"mri"},
        {"brain tumour", "tumour core", "enhancing tumour", "peritumoural oedema"},
        set(),
    ),
    "BraTS from 2023": (
        {f"BraTS-GLI-00000-000/{s}" for s in ("t1n", "t1c", "t2w", "t2f")},
        {"mri"},
        {"brain tumour", "tumour core", "enhancing tumour", "peritumoural oedema"},
        set(),
    ),
    "TotalSegmentator, AbdomenAtlas": (
        {"s0000", "s0001"},
        {"ct", "mri"},
        {"liver", "right kidney", "left upper lobe", "left adrenal gland"},
        {"train", "test"},
    ),
    "AutoPET": ({"PETCT_1/05-02-2000-NA", "PETCT_2/05-02-2000-NA"}, {"pet"}, {"tumour"}, set()),
    "COVID-19-20": ({"volume-covid19-A-0001", "volume-covid19-A-0002"}, {"ct"}, {"covid-19 infection"}, set()),
    "SLIVER07": ({"001", "002"}, {"ct"}, {"liver"}, set()),
    "image and _seg": ({"case1", "case2"}, {"ct"}, set(OWN), set()),
    "image and label": ({"case1", "case2"}, {"ct"}, set(OWN), set()),
    "images and labels": ({"scan1", "scan2"}, {"ct"}, set(OWN), set()),
}


def test_every_layout_has_a_tree() -> None:
    assert TREES.keys() == PATTERNS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", PATTERNS)
def test_a_tree_of_each_layout(name: str, tmp_path: Path) -> None:
    if name == "CHAOS":
        pytest.importorskip("pydicom")
    TREES[name](tmp_path)
    assert case_folders.fits(tmp_path)
    own = OWN if all(not p.labels and "*" not in p.mask for p in PATTERNS[name]) else {}
    summary = Summary()
    records = converted(tmp_path, summary, labels=own)
    ids, modalities, targets, splits = EXPECTED[name]
    assert summary.refused == []
    assert {r.volume for r in records} == {f"tiny/{i}" for i in ids}
    assert len({r.id for r in records}) == len(records)
    assert {r.modality for r in records} == modalities
    assert {x.target for r in records for x in r.regions} == targets
    assert all(x.target not in r.absent for r in records for x in r.regions)
    if splits:
        assert {r.split for r in records} == splits
    assert all((tmp_path / r.source).exists() for r in records)


def write_kits(root: Path, number: int, **mask: object) -> Path:
    folder = root / f"case_{number:05}"
    save_nifti(folder / "imaging.nii.gz", voxels(number))
    save_nifti(folder / "segmentation.nii.gz", **{"values": label_map((1, 2, 3)), **mask})  # type: ignore[arg-type]
    return folder


def test_masks_lie_where_the_file_has_them_and_air_is_left_out(tmp_path: Path) -> None:
    write_kits(tmp_path, 0)
    records = converted(tmp_path)
    # The first stored slice is air and is the last canonical one.
    assert [r.slice for r in records] == list(range(SLICES))
    whole = block(0) | block(1) | block(2)
    for record in records:
        shown = {
            "kidney": whole[record.slice],
            "kidney tumour": block(1)[record.slice],
            "kidney cyst": block(2)[record.slice],
        }
        assert record.masks().keys() == {t for t, m in shown.items() if m.any()}
        assert set(record.absent) == {t for t, m in shown.items() if not m.any()}
        for target, mask in record.masks().items():
            np.testing.assert_array_equal(mask, shown[target])
        for region in record.regions:
            rows, columns = np.nonzero(shown[region.target])
            assert region.box == (columns.min(), rows.min(), columns.max(), rows.max())
    first = records[0]
    assert (first.size, first.spacing_mm, first.source) == ((20, 24), (1.0, 1.0), "case_00000/imaging.nii.gz")
    assert (first.id, first.group, first.dataset) == ("tiny/case_00000/0", "case_00000", "tiny")


def test_a_dicom_series_and_its_pictures_are_the_same_patient_as_a_nifti_file(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    TREES["CHAOS"](tmp_path)
    ct = [r for r in converted(tmp_path) if r.volume == "tiny/CT/1"]
    np.testing.assert_array_equal(
        np.stack([r.masks().get("liver", np.zeros((20, 24), bool)) for r in ct]), block(0)[:SLICES]
    )
    mr = [r for r in converted(tmp_path) if r.volume == "tiny/MR/1/OutPhase"]
    for number, target in enumerate(("liver", "right kidney", "left kidney", "spleen")):
        found = np.stack([r.masks().get(target, np.zeros((20, 24), bool)) for r in mr])
        np.testing.assert_array_equal(found, block(number)[[r.slice for r in mr]])


def test_files_of_targets_lie_where_they_are(tmp_path: Path) -> None:
    TREES["TotalSegmentator, AbdomenAtlas"](tmp_path)
    records = [r for r in converted(tmp_path) if r.volume == "tiny/s0000"]
    for number, target in enumerate(("liver", "right kidney", "left upper lobe", "left adrenal gland")):
        found = np.stack([r.masks().get(target, np.zeros((20, 24), bool)) for r in records])
        np.testing.assert_array_equal(found, block(number)[:SLICES])
    assert all("brain" in r.absent for r in records)
    few = converted(tmp_path, labels={"kidney_right": ()})
    assert {x.target for r in few for x in r.regions} | {t for r in few for t in r.absent} == {"right kidney"}


def test_the_source_divides_and_keeps_patients_together(tmp_path: Path) -> None:
    TREES["ACDC"](tmp_path)
    assert {(r.group, r.split) for r in converted(tmp_path)} == {("patient001", "train"), ("patient101", "test")}


def test_a_lone_training_folder_divides_nothing(tmp_path: Path) -> None:
    for number in range(1, 15):
        name = f"{number:04}.nii.gz"
        write_case(tmp_path, f"Training/img/img{name}", f"Training/label/label{name}", (6,))
    assert {r.split for r in converted(tmp_path, step=5)} == {"train", "test"}


def test_the_jobs_labels_win_and_every_nth_slice_is_taken(tmp_path: Path) -> None:
    write_kits(tmp_path, 0)
    records = converted(tmp_path, labels={"renal mass": (2, 3)}, step=2)
    assert [r.slice for r in records] == [0, 2]
    assert {x.target for r in records for x in r.regions} == {"renal mass"}


def refused(root: Path, **job: object) -> str:
    """The reason of the only refusal, where another case is converted all the same."""
    write_kits(root, 7)
    summary = Summary()
    records = converted(root, summary, **job)
    assert {r.group for r in records} == {"case_00007"}
    assert len(summary.refused) == 1
    return f"{summary.refused[0][0]}: {summary.refused[0][1]}"


def test_an_image_without_mask_is_refused(tmp_path: Path) -> None:
    (write_kits(tmp_path, 0) / "segmentation.nii.gz").unlink()
    assert refused(tmp_path).startswith("tiny/case_00000/imaging.nii.gz: Image without mask.")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_kits(tmp_path, 0, values=label_map((1,))[..., :4])
    assert "Mask of another size. 'segmentation.nii.gz' is 24 x 20 x 4. Expected: the image's 24 x 20 x 5" in refused(
        tmp_path
    )


@pytest.mark.parametrize("affine", [np.diag([1, 1, 2.5, 1.0]), np.diag([-1, 1, 2, 1.0]), AFFINE + 2 * np.eye(4, k=3)])
def test_a_mask_on_another_grid_is_refused(tmp_path: Path, affine: np.ndarray) -> None:
    write_kits(tmp_path, 0, affine=affine)
    assert "Mask on another grid" in refused(tmp_path)


def test_rounding_in_a_header_is_no_other_grid(tmp_path: Path) -> None:
    write_kits(tmp_path, 0, affine=AFFINE * 1.0001)
    summary = Summary()
    assert converted(tmp_path, summary)
    assert summary.refused == []


@pytest.mark.parametrize("name", ["imaging", "segmentation"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    file = write_kits(tmp_path, 0) / f"{name}.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "Damaged file" in refused(tmp_path)


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    file = write_kits(tmp_path, 0) / "segmentation.nii.gz"
    raw = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(raw)[:-8] + bytes(8))
    assert "Damaged file" in refused(tmp_path)


def test_an_unknown_label_value_is_refused_by_name(tmp_path: Path) -> None:
    write_kits(tmp_path, 0, values=label_map((1, 9, 11)))
    assert "Unknown label value. 'segmentation.nii.gz' holds 9, 11. Expected: one of 0, 1, 2, 3." in refused(tmp_path)


def test_label_values_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    write_kits(tmp_path, 0, values=label_map((1, 1), np.float32) * 0.5)
    assert "Label values that are not whole numbers" in refused(tmp_path)


def test_whole_label_values_of_any_type_are_read(tmp_path: Path) -> None:
    for number, dtype in enumerate((np.float32, np.float64, np.int16, np.int32)):
        write_kits(tmp_path, number, values=label_map((1, 2, 3), dtype))
    summary = Summary()
    assert len({r.group for r in converted(tmp_path, summary)}) == 4
    assert summary.refused == []


def test_two_images_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    write_kits(tmp_path / "a", 0)
    write_kits(tmp_path / "b", 0)
    summary = Summary()
    assert len(converted(tmp_path, summary)) == SLICES
    assert "Two images of one case" in summary.refused[0][1]


def test_a_folder_without_such_volumes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", "utf-8")
    assert not case_folders.fits(tmp_path)
    with pytest.raises(DataError, match="Unknown data layout"):
        converted(tmp_path)


def test_labels_that_nothing_names_are_an_error(tmp_path: Path) -> None:
    TREES["images and labels"](tmp_path)
    with pytest.raises(DataError, match="Labels without names"):
        converted(tmp_path)
