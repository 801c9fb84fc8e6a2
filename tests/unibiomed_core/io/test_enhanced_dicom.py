"""DICOM as scanners write it today and as old programs did: enhanced objects, other compressions, no preamble."""

from __future__ import annotations

from collections.abc import Sequence as Values
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unibiomed_core.io.conftest import SeriesWriter
from unibiomed_core.errors import ReadError
from unibiomed_core.io import read
from unibiomed_core.io.guard import sniff

CT, MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
PIXELS = np.random.default_rng(5).integers(0, 2000, (5, 18, 20)).astype(np.uint16)
HTJ2K = "1.2.840.10008.1.2.4.201"


def item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def sequence(*items: Any) -> Any:
    from pydicom.sequence import Sequence

    return Sequence(items)


def frame(z_mm: float, slope: float = 1.0, intercept: float = -1024.0, **more: Any) -> Any:
    """The functional groups of one axial frame."""
    return item(
        PlanePositionSequence=sequence(item(ImagePositionPatient=[-10, -20, z_mm])),
        PixelValueTransformationSequence=sequence(
            item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
        ),
        **more,
    )


def shared() -> Any:
    return item(
        PlaneOrientationSequence=sequence(item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])),
        PixelMeasuresSequence=sequence(item(PixelSpacing=[1.1, 0.9], SliceThickness=2.5)),
    )


def enhanced(series: SeriesWriter, name: str, pixels: np.ndarray, frames: Values[Any], **tags: Any) -> Path:
    """One file of several frames; rows and columns are those of a frame."""
    path = series.slice(
        name,
        pixels[0],
        None,
        RescaleSlope=None,
        RescaleIntercept=None,
        NumberOfFrames=len(pixels),
        PixelData=pixels.tobytes(),
        PerFrameFunctionalGroupsSequence=sequence(*frames),
        SharedFunctionalGroupsSequence=sequence(shared()),
        **tags,
    )
    return path


@pytest.mark.parametrize("sop_class", [CT, "1.2.840.10008.5.1.4.1.1.2.2"], ids=["enhanced", "legacy converted"])
def test_many_frames_in_one_file_are_a_volume(series: SeriesWriter, sop_class: str) -> None:
    """bugs 07: refused as "Multi-frame DICOM"; frames are sorted by their place and not by their number."""
    series.sop_class = sop_class
    order = [3, 0, 4, 1, 2]
    path = enhanced(series, "e.dcm", PIXELS[order], [frame(5 + 2.5 * k) for k in order])
    volume = read(path)
    assert (volume.modality, volume.intensity_unit, volume.is_2d) == ("ct", "HU", False)
    assert volume.spacing_mm == pytest.approx((2.5, 1.1, 0.9))
    assert np.array_equal(volume.voxels, PIXELS[::-1].astype(int) - 1024)
    assert volume.stored.affine[:3, 3] == pytest.approx((10, 20, 5))
    assert np.array_equal(read(series.folder).voxels, volume.voxels)


def test_one_frame_in_each_file_is_a_volume_too(series: SeriesWriter) -> None:
    """bugs 07: one enhanced frame was a picture without position."""
    series.sop_class = CT
    for k in range(5):
        path = enhanced(series, f"{k}.dcm", PIXELS[k : k + 1], [frame(5 + 2.5 * k)])
    assert np.array_equal(read(series.folder).voxels, PIXELS[::-1].astype(int) - 1024)
    one = read(path)
    assert not one.is_2d
    assert one.orientation_known
    assert one.spacing_mm == pytest.approx((2.5, 1.1, 0.9))


def test_every_frame_has_its_own_scale(series: SeriesWriter) -> None:
    series.sop_class, series.modality = MR, "MR"
    frames = [frame(2.5 * k, slope=1 + 0.25 * k, intercept=float(k)) for k in range(5)]
    volume = read(enhanced(series, "e.dcm", PIXELS, frames))
    scale = np.arange(5).reshape(-1, 1, 1)
    # Values are kept in float32, of 24 bits.
    assert volume.voxels == pytest.approx((PIXELS * (1 + 0.25 * scale) + scale)[::-1], rel=1e-6)
    assert volume.modality == "mri"


@pytest.mark.parametrize(
    ("group", "name", "value", "words"),
    [
        ("MREchoSequence", "EffectiveEchoTime", float, "2 values of echo time"),
        ("FrameContentSequence", "TemporalPositionIndex", int, "2 values of time point"),
        ("FrameContentSequence", "StackID", str, "2 stacks"),
    ],
)
def test_several_volumes_in_one_file_are_refused_by_what_they_differ_in(
    series: SeriesWriter, group: str, name: str, value: type, words: str
) -> None:
    series.sop_class, series.modality = MR, "MR"
    frames = [frame(2.5 * (k // 2), **{group: sequence(item(**{name: value(k % 2 + 1)}))}) for k in range(4)]
    with pytest.raises(ReadError, match=words) as caught:
        read(enhanced(series, "e.dcm", PIXELS[:4], frames))
    assert caught.value.title == "More than one volume"


def test_compressed_frames_are_read_or_named(series: SeriesWriter) -> None:
    import pydicom
    from pydicom.encaps import encapsulate

    series.sop_class = CT
    path = enhanced(series, "e.dcm", PIXELS, [frame(2.5 * k) for k in range(5)])
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(path)
    assert np.array_equal(read(path).voxels, PIXELS[::-1].astype(int) - 1024)
    data.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(60)] * 5)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    data.save_as(path)
    with pytest.raises(ReadError) as caught:
        read(path)
    # Where a decoder is installed, these frames are damaged; where none is, that is said.
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).is_available
    assert caught.value.title == ("Damaged file" if decoder else "Unsupported transfer syntax")


def test_groups_that_are_missing_are_damage(series: SeriesWriter) -> None:
    with pytest.raises(ReadError, match="5 frames and functional groups for 4"):
        read(enhanced(series, "e.dcm", PIXELS, [frame(2.5 * k) for k in range(4)]))
    cut = enhanced(series, "c.dcm", PIXELS, [frame(2.5 * k) for k in range(5)])
    cut.write_bytes(cut.read_bytes()[:-400])
    with pytest.raises(ReadError, match="Damaged file"):
        read(cut)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (HTJ2K, ("High-Throughput JPEG 2000", "pylibjpeg-openjpeg")),
        ("1.2.840.10008.1.2.4.100", ("MPEG2", "film")),
        ("1.3.46.670589.33.1.4.1", ("private transfer syntax", "uncompressed")),
    ],
)
def test_a_compression_that_is_unknown_here_is_not_called_damage(
    series: SeriesWriter, syntax: str, words: tuple[str, ...]
) -> None:
    """bugs 08."""
    import pydicom
    from pydicom.encaps import encapsulate

    path = series.slice("a.dcm", PIXELS[0], (0, 0, 0))
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    with pytest.raises(ReadError) as caught:
        read(path)
    assert caught.value.title == "Unsupported transfer syntax"
    assert syntax in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_files_without_a_preamble_are_read(series: SeriesWriter, suffix: str) -> None:
    """bugs 14: "Mislabelled file"."""
    pixels = series.axial()
    whole = read(series.folder)
    for file in list(series.folder.iterdir()):
        file.with_suffix(suffix).write_bytes(file.read_bytes()[132:])
        if suffix != file.suffix:
            file.unlink()
    volume = read(series.folder)
    assert np.array_equal(volume.voxels, whole.voxels)
    assert np.array_equal(volume.voxels, pixels[::-1].astype(int) - 1024)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_and_head_are_read(series: SeriesWriter, implicit: bool) -> None:
    import pydicom
    from pydicom.filewriter import dcmwrite

    path = series.slice("a.dcm", PIXELS[0], (0, 0, 0))
    data = pydicom.dcmread(path)
    del data.file_meta
    data.preamble = None
    dcmwrite(path, data, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert sniff(path.read_bytes()[:600]) == "dicom"
    assert np.array_equal(read(path).voxels[0], PIXELS[0].astype(int) - 1024)


@pytest.mark.parametrize(
    "content", [b"\x08\x00" * 300, b"\x08\x00\x05\x00CS\x10\x00" + b"x" * 500, b"\x02\x00" + bytes(500)]
)
def test_what_only_begins_like_dicom_is_none(content: bytes) -> None:
    assert sniff(content) != "dicom"
