"""A phantom with a marked left side, and writers for the formats that the readers are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from unibiomed_core.types import Volume

LEFT_MARK = 20000


@dataclass(frozen=True)
class Phantom:
    """``values`` (x, y, z) grow towards Right, Anterior, Superior; every value is unique; x < 3 is marked as left."""

    values: NDArray[np.int16]
    affine: NDArray[np.float64]

    def image(self) -> nibabel.Nifti1Image:
        return nibabel.Nifti1Image(self.values, self.affine)


def make_phantom(tilt: tuple[float, float, float] = (0, 0, 0)) -> Phantom:
    values = np.arange(20 * 18 * 17, dtype=np.int16).reshape(20, 18, 17) - 1000
    values[:3] += LEFT_MARK
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() * (0.9, 1.1, 2.5)
    affine[:3, 3] = (-31.5, 12.25, 100.0)
    return Phantom(values, affine)


def check_same_place(volume: Volume, phantom: Phantom, atol_mm: float = 1e-3) -> None:
    """Every canonical voxel has the value that the phantom has at the same patient mm; the mark is at high X."""
    index = np.indices(volume.shape).reshape(3, -1)
    homogeneous = np.vstack([index, np.ones(index.shape[1])])
    mm = volume.affine @ homogeneous
    place = (np.linalg.inv(phantom.affine) @ mm)[:3]
    nearest = np.rint(place).astype(int)
    assert np.abs(phantom.affine[:3, :3] @ (place - nearest)).max() < atol_mm
    assert np.array_equal(volume.voxels.reshape(-1), phantom.values[tuple(nearest)])
    marked = np.nonzero(volume.voxels >= LEFT_MARK - 1000)[2]
    assert marked.size == 3 * 18 * 17
    assert marked.min() == volume.shape[2] - 3
    assert np.array_equal(volume.stored.to_canonical(volume.stored.to_stored(volume.voxels)), volume.voxels)


@pytest.fixture
def nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as NIfTI; ``edit`` may change the header after all else was set."""

    def write(
        values: NDArray[Any],
        affine: NDArray[np.float64] | None = None,
        name: str = "scan_ct.nii.gz",
        edit: Callable[[Any], None] | None = None,
    ) -> Path:
        image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
        path = tmp_path / name
        nibabel.save(image, path)
        if edit is not None:
            import gzip

            raw = path.read_bytes()
            block = gzip.decompress(raw) if name.endswith(".gz") else raw
            header = nibabel.Nifti1Header(block[:348], check=False)
            edit(header)
            block = header.binaryblock + block[348:]
            path.write_bytes(gzip.compress(block) if name.endswith(".gz") else block)
        return path

    return write


@dataclass
class SeriesWriter:
    """Writes DICOM slices; attributes are the defaults of every file and can be set before."""

    folder: Path
    modality: str = "CT"
    sop_class: str = "1.2.840.10008.5.1.4.1.1.2"
    series: str = "1.2.826.0.1.3680043.8.498.1"
    number: int = 2
    description: str = "Thorax"
    slope: float = 1.0
    intercept: float = -1024.0
    spacing_mm: tuple[float, float] = (1.1, 0.9)
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)

    def slice(self, name: str, pixels: NDArray[Any], position: tuple[float, ...] | None, **tags: Any) -> Path:
        """One file; ``position`` in LPS mm or None for a picture; further DICOM tags by keyword, None deletes."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = self.sop_class
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = self.modality, self.series, "1.2.3"
        data.SeriesNumber, data.SeriesDescription = self.number, self.description
        data.PatientName, data.PatientID = "Secret^Name", "secret-id"
        data.Rows, data.Columns = pixels.shape[:2]
        data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            data.PlanarConfiguration = 0
        bits = pixels.dtype.itemsize * 8
        data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        if position is not None:
            data.ImagePositionPatient = [f"{p:.6g}" for p in position]
            data.ImageOrientationPatient = [f"{o:.8g}"[:16] for o in self.orientation]
            data.PixelSpacing, data.SliceThickness = list(self.spacing_mm), 2.5
        data.RescaleSlope, data.RescaleIntercept = tags.pop("slope", self.slope), tags.pop("intercept", self.intercept)
        data.PixelData = np.ascontiguousarray(pixels).tobytes()
        for tag, value in tags.items():
            if value is None:
                delattr(data, tag)
            else:
                setattr(data, tag, value)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / name
        data.save_as(path, enforce_file_format=True)
        return path

    def axial(self, count: int = 6, z_mm: list[float] | None = None, **tags: Any) -> NDArray[np.uint16]:
        """An axial series of noise; returns the pixels (slice, row, column)."""
        pixels = np.random.default_rng(3).integers(0, 2000, (count, 18, 20)).astype(np.uint16)
        for k in range(count):
            place = (-10.0, -20.0, z_mm[k] if z_mm else 5.0 + 2.5 * k)
            # File names run against the positions, so that sorting by name would be seen.
            self.slice(f"im{99 - k}.dcm", pixels[k], place, **tags)
        return pixels


@pytest.fixture
def series(tmp_path: Path) -> SeriesWriter:
    return SeriesWriter(tmp_path / "series")
