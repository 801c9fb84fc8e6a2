"""Tiny trees in the layouts of public data sets: volumes of 24 x 20 x 5 voxels and pictures of 40 x 30, all drawn.

A volume's first stored slice is air; its values lie in four blocks, of which :func:`block` gives the places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHAPE = (24, 20, 5)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
BLOCKS = (
    (slice(3, 10), slice(2, 8), slice(1, 2)),
    (slice(12, 20), slice(2, 8), slice(1, 3)),
    (slice(3, 10), slice(11, 18), slice(3, 5)),
    (slice(12, 20), slice(11, 18), slice(3, 4)),
)
SLICES = SHAPE[2] - 1
"""Slices that are not air."""


def label_map(values: Sequence[int], dtype: Any = np.uint8) -> NDArray[Any]:
    """(i, j, k): the n-th value stands in the n-th block."""
    layer = np.zeros(SHAPE, dtype)
    for value, place in zip(values, BLOCKS, strict=False):
        layer[place] = value
    return layer


def canonical(stored: NDArray[Any]) -> NDArray[Any]:
    """(i, j, k) towards Right, Anterior, Superior -> (z, y, x) towards Inferior, Posterior, Left, written out."""
    return stored.transpose(2, 1, 0)[::-1, ::-1, ::-1]


def voxels(seed: int = 0, *, hounsfield: bool = True) -> NDArray[np.int16]:
    """(i, j, k): tissue with a first slice of air."""
    values = np.random.default_rng(seed).integers(0, 200, SHAPE).astype(np.int16)
    values[..., 0] = -1000 if hounsfield else 0
    values[0, 0, 1:] = -1000 if hounsfield else 1
    values[0, 1, 1:] = 900
    return values


def save_nifti(path: Path, values: NDArray[Any], affine: NDArray[np.float64] = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def write_case(root: Path, image: str, mask: str, values: Sequence[int], *, hounsfield: bool = True) -> None:
    """An image and its label map, as NIfTI or MetaImage."""
    seed = sum(image.encode())
    for name, data in ((image, voxels(seed, hounsfield=hounsfield)), (mask, label_map(values))):
        if name.endswith(".mhd"):
            _save_mhd(root / name, data)
        elif not (root / name).exists():
            save_nifti(root / name, data)


def _save_mhd(path: Path, values: NDArray[Any]) -> None:
    """The same grid as :func:`save_nifti`: ITK counts towards Left and Posterior."""
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))


def write_target_files(root: Path, image: str, folder: str, targets: Iterable[str], *, hounsfield: bool = True) -> None:
    """An image and one file a target; the n-th target stands in the n-th block, those after the fourth are empty."""
    save_nifti(root / image, voxels(sum(image.encode()), hounsfield=hounsfield))
    for number, target in enumerate(targets):
        mask = np.zeros(SHAPE, np.uint8)
        if number < len(BLOCKS):
            mask[BLOCKS[number]] = 1
        save_nifti(root / folder / f"{target}.nii.gz", mask)


def write_series(folder: Path, modality: str, ground: Path, colours: Sequence[int]) -> None:
    """A DICOM series of which the names run against the positions, and one mask PNG a file in the order of names."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    values, labels = voxels(4, hounsfield=modality == "CT"), label_map(colours)
    folder.mkdir(parents=True)
    ground.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for number, k in enumerate(reversed(range(SHAPE[2]))):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{2 if modality == 'CT' else 4}"
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = modality, series, "1.2.3"
        # LPS: the first row and column are what NIfTI counts last, so that both are the same patient.
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2.0 * k], [-1, 0, 0, 0, -1, 0]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows, data.Columns, data.SamplesPerPixel = SHAPE[1], SHAPE[0], 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.ascontiguousarray(values[..., k].T).tobytes()
        data.save_as(folder / f"IMG-{number:04}.dcm", enforce_file_format=True)
        Image.fromarray(np.ascontiguousarray(labels[..., k].T)).save(ground / f"IMG-{number:04}.png")


def write_nnunet(root: Path, about: Mapping[str, Any] | None, files: Mapping[str, NDArray[Any]]) -> Path:
    """``dataset.json`` and NIfTI files by path."""
    root.mkdir(parents=True, exist_ok=True)
    if about is not None:
        (root / "dataset.json").write_text(json.dumps(about), "utf-8")
    for name, values in files.items():
        save_nifti(root / name, values)
    return root


def block(number: int) -> NDArray[np.bool_]:
    """(z, y, x) of one block."""
    mask = np.zeros(SHAPE, bool)
    mask[BLOCKS[number]] = True
    return canonical(mask)


def picture(seed: int, *, colour: bool = False) -> NDArray[np.uint8]:
    """(30, 40[, 3]) of noise."""
    return np.random.default_rng(seed).integers(30, 200, (30, 40, 3) if colour else (30, 40), np.uint8)


def disc(row: int = 12, column: int = 14, radius: int = 8) -> NDArray[np.bool_]:
    """(30, 40)."""
    rows, columns = np.mgrid[:30, :40]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def save_picture(path: Path, values: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def case_trees() -> Mapping[str, Callable[[Path], None]]:
    """Layout of ``case_patterns.PATTERNS`` -> writer of a tree as the data set comes."""

    def cases(*rows: tuple[str, str, Sequence[int]], hounsfield: bool = True) -> Callable[[Path], None]:
        def write(root: Path) -> None:
            for image, mask, values in rows:
                write_case(root, image, mask, values, hounsfield=hounsfield)

        return write

    def brats(folder: str, mark: str, sequences: Sequence[str], enhancing: int) -> Callable[[Path], None]:
        stem = f"{folder}/{folder}{mark}"
        return cases(
            *((f"{stem}{s}.nii.gz", f"{stem}seg.nii.gz", (1, 2, enhancing)) for s in sequences), hounsfield=False
        )

    def chaos(root: Path) -> None:
        sets = root / "Train_Sets"
        write_series(sets / "CT/1/DICOM_anon", "CT", sets / "CT/1/Ground", (255,))
        for phase in ("InPhase", "OutPhase"):
            write_series(
                sets / "MR/1/T1DUAL/DICOM_anon" / phase, "MR", sets / "MR/1/T1DUAL/Ground", (63, 126, 189, 252)
            )
        write_series(sets / "MR/1/T2SPIR/DICOM_anon", "MR", sets / "MR/1/T2SPIR/Ground", (63, 126, 189, 252))

    def totalsegmentator(root: Path) -> None:
        targets = ("liver", "kidney_right", "lung_upper_lobe_left", "adrenal_gland_left", "brain")
        write_target_files(root, "s0000/ct.nii.gz", "s0000/segmentations", targets)
        write_target_files(root, "s0001/mri.nii.gz", "s0001/segmentations", targets, hounsfield=False)
        rows = "image_id;age;gender;split\ns0000;60;m;train\ns0001;50;f;test\n"
        (root / "meta.csv").write_text(rows, "utf-8-sig")

    def plain(image: str, mask: str, values: Sequence[int] = (1, 2)) -> Callable[[Path], None]:
        return cases(*((image.format(n), mask.format(n), values) for n in (1, 2)))

    return {
        "AMOS": cases(
            ("amos22/imagesTr/amos_0004.nii.gz", "amos22/labelsTr/amos_0004.nii.gz", (1, 6, 15)),
            ("amos22/imagesTr/amos_0507.nii.gz", "amos22/labelsTr/amos_0507.nii.gz", (1, 6, 15)),
            ("amos22/imagesVa/amos_0008.nii.gz", "amos22/labelsVa/amos_0008.nii.gz", (1, 6)),
        ),
        "WORD": cases(
            ("WORD-V0.1.0/imagesTr/word_0002.nii.gz", "WORD-V0.1.0/labelsTr/word_0002.nii.gz", (1, 16)),
            ("WORD-V0.1.0/imagesVal/word_0001.nii.gz", "WORD-V0.1.0/labelsVal/word_0001.nii.gz", (1, 16)),
            ("WORD-V0.1.0/imagesTs/word_0014.nii.gz", "WORD-V0.1.0/labelsTs/word_0014.nii.gz", (1, 16)),
        ),
        "BTCV": plain("RawData/Training/img/img000{}.nii.gz", "RawData/Training/label/label000{}.nii.gz", (6, 13)),
        "FLARE22": plain(
            "FLARE22Train/images/FLARE22_Tr_000{}_0000.nii.gz", "FLARE22Train/labels/FLARE22_Tr_000{}.nii.gz", (1, 13)
        ),
        "AbdomenCT-1K": plain("AbdomenCT-1K-ImagePart1/Case_0000{}_0000.nii.gz", "Mask/Case_0000{}.nii.gz", (1, 2, 4)),
        "KiTS": plain("dataset/case_0000{}/imaging.nii.gz", "dataset/case_0000{}/segmentation.nii.gz", (1, 2, 3)),
        "LiTS": plain("Training Batch 1/volume-{}.nii", "Training Batch 1/segmentation-{}.nii"),
        "CHAOS": chaos,
        "ACDC": cases(
            *(
                (f"{part}/{p}/{p}_frame{f}.nii.gz", f"{part}/{p}/{p}_frame{f}_gt.nii.gz", (1, 2, 3))
                for part, p in (("training", "patient001"), ("testing", "patient101"))
                for f in ("01", "12")
            ),
            hounsfield=False,
        ),
        "CAMUS": cases(
            *(
                (f"{stem}.nii.gz", f"{stem}_gt.nii.gz", (1, 2, 3))
                for stem in (
                    f"database_nifti/patient0001/patient0001_{view}_{t}"
                    for view in ("2CH", "4CH")
                    for t in ("ED", "ES")
                )
            ),
            hounsfield=False,
        ),
        "BraTS to 2021": brats("BraTS2021_00000", "_", ("t1", "t1ce", "t2", "flair"), 4),
        "BraTS from 2023": brats("BraTS-GLI-00000-000", "-", ("t1n", "t1c", "t2w", "t2f"), 3),
        "TotalSegmentator, AbdomenAtlas": totalsegmentator,
        "AutoPET": plain("PETCT_{}/05-02-2000-NA/SUV.nii.gz", "PETCT_{}/05-02-2000-NA/SEG.nii.gz", (1,)),
        "COVID-19-20": plain("Train/volume-covid19-A-000{}_ct.nii.gz", "Train/volume-covid19-A-000{}_seg.nii.gz", (1,)),
        "SLIVER07": plain("liver-orig00{}.mhd", "liver-seg00{}.mhd", (1,)),
        "image and _seg": plain(
            "{}/case{}_ct.nii.gz".replace("{}", "{0}"), "{}/case{}_seg.nii.gz".replace("{}", "{0}")
        ),
        "image and label": plain("case{}/image.nii.gz", "case{}/label.nii.gz"),
        "images and labels": plain("images/scan{}.nii.gz", "labels/scan{}.nii.gz"),
    }
