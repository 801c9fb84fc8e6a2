"""Small sound files of every format, their layouts, and how each is read: what the damage is done to."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import layouts, mutations
from tests.faults.mutations import Layout
from unibiomed_core.types import Report, Volume

LARGEST_RESULT_BYTES = 1 << 26
"""The sound files hold a few kilobytes of values; so much more is nothing that damage could have brought to light."""


@dataclass(frozen=True)
class Sound:
    """One sound file, or a folder of files of which one is damaged.

    Args:
        files: Name -> content.
        target: The one that is damaged.
        layout: Of ``opened(files[target])``.
        opened: What is done before the damage (a compressed file is opened).
        closed: What is done after it (checksums are made to fit).
        folder: Read as a folder.
    """

    files: dict[str, bytes]
    target: str
    layout: Layout
    opened: Callable[[bytes], bytes] = bytes
    closed: Callable[[bytes], bytes] = bytes
    folder: bool = False

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Where the target is cut."""
        return mutations.edges_of(self.layout, len(self.opened(self.files[self.target])))

    def cut(self, number: int) -> dict[str, bytes]:
        """The files with the target cut at one of its edges."""
        content = self.opened(self.files[self.target])[: self.edges[number]]
        return {**self.files, self.target: self.closed(content)}

    def damaged(self, case: int, turn: int, seed: str) -> tuple[str, dict[str, bytes]]:
        """The mutator's name, and the files with one of them damaged."""
        name, content = mutations.damage(self.opened(self.files[self.target]), self.layout, case, turn, seed)
        return name, {**self.files, self.target: self.closed(content)}


@dataclass(frozen=True)
class Format:
    """A format of the table.

    Args:
        make: Its sound files; the damage goes round them.
        read: Reads a path as the product does and raises AssertionError where the result cannot be right.
    """

    make: Callable[[], list[Sound]]
    read: Callable[[Path], None]


FIRST_CUT = 1_000_000
"""Case numbers from here on are no seeded damage, but cuts at every edge of every sound file, one after the other."""


def cut_count(format_name: str) -> int:
    """How many cuts a format has."""
    return sum(len(sound.edges) for sound in FORMATS[format_name].make())


def case_of(sounds: list[Sound], format_name: str, case: int) -> tuple[Sound, str, dict[str, bytes]]:
    """The damaged files number ``case``; the mutators, then the sound files, then the turns go round."""
    if case >= FIRST_CUT:
        number = case - FIRST_CUT
        for sound in sounds:
            if number < len(sound.edges):
                return sound, f"cut at byte {sound.edges[number]} of {sound.target}", sound.cut(number)
            number -= len(sound.edges)
        raise IndexError(case)
    round_, count = case // len(mutations.MUTATORS), len(sounds)
    sound = sounds[round_ % count]
    name, files = sound.damaged(case, round_ // count, format_name)
    return sound, name, files


def values(shape: tuple[int, ...] = (20, 24, 18), kind: type = np.int16) -> Any:
    """Smooth with some noise, so that every codec has something to do."""
    grid = np.indices(shape).sum(axis=0)
    noise = np.random.default_rng(5).integers(0, 12, shape)
    return (grid * 4 + noise).astype(kind)


def read_image(path: Path) -> None:
    """As a user opens it; the result is an image that the product could go on with."""
    from unibiomed_core.io import read

    check_volume(read(path, "ct"))


def check_volume(volume: Volume) -> None:
    voxels = volume.voxels
    assert voxels.ndim in (3, 4), voxels.shape
    assert 0 < voxels.nbytes <= LARGEST_RESULT_BYTES, voxels.nbytes
    assert voxels.dtype in (np.uint8, np.int16, np.uint16, np.float32), voxels.dtype
    assert np.isfinite(voxels).all()
    assert volume.affine.shape == (4, 4)
    assert np.isfinite(volume.affine).all()
    assert (np.linalg.norm(volume.affine[:3, :3], axis=0) > 0).all()


def nifti_files(name: str) -> list[Sound]:
    import nibabel

    image = nibabel.Nifti1Image(values(), np.diag([0.9, 1.1, 2.5, 1.0]))
    image.header.set_xyzt_units("mm")
    plain = image.to_bytes()
    layout = layouts.nifti(plain)
    if name.endswith(".nii"):
        return [Sound({name: plain}, name, layout)]
    packed = gzip.compress(plain, 6, mtime=0)
    head = tuple(mutations.Field(at, 1, "number") for at in range(10))
    ends = tuple(mutations.Field(len(packed) - at, 4, "length") for at in (8, 4))
    outer = Layout((*head, *ends), mutations.chunked([0, 10, len(packed) // 2, len(packed) - 8, len(packed)]), 10)
    inner = Sound({name: packed}, name, layout, gzip.decompress, lambda data: gzip.compress(data, 1, mtime=0))
    return [Sound({name: packed}, name, outer), inner]


def itk_files(suffix: str) -> list[Sound]:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values())
    image.SetSpacing((0.9, 1.1, 2.5))
    found = []
    for packed in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scan{suffix}"
            SimpleITK.WriteImage(image, str(path), useCompression=packed)
            files = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
        found.append(Sound(files, path.name, layouts.text_header(files[path.name])))
        if beside := next((n for n in files if n != path.name), None):
            size = len(files[beside])
            found.append(Sound(files, beside, Layout((mutations.Field(0, 2, "number"),), ((0, size // 2),), size)))
    return found


def dicom_files(syntax: str) -> list[Sound]:
    single = dicom_bytes(syntax, 0)
    found = [Sound({"a.dcm": single}, "a.dcm", layouts.dicom(single))]
    if syntax == "explicit":
        files = {f"{n}.dcm": dicom_bytes(syntax, n) for n in range(3)}
        found.append(Sound(files, "1.dcm", layouts.dicom(files["1.dcm"]), folder=True))
        photo = dicom_bytes(syntax, 0, place=False)
        found.append(Sound({"photo.dcm": photo}, "photo.dcm", layouts.dicom(photo)))
    if syntax == "enhanced":
        packed = dicom_bytes("enhanced", 0, compressed=True)
        found.append(Sound({"a.dcm": packed}, "a.dcm", layouts.dicom(packed)))
    if syntax == "deflated":
        import zlib

        start = _end_of_meta(single)

        def opened(data: bytes) -> bytes:
            return data[:start] + zlib.decompress(data[start:], -15)

        def closed(data: bytes) -> bytes:
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            return data[:start] + packer.compress(data[start:]) + packer.flush()

        found.append(Sound({"a.dcm": single}, "a.dcm", layouts.dicom(opened(single)), opened, closed))
    return found


def _end_of_meta(data: bytes) -> int:
    return 144 + int.from_bytes(data[140:144], "little")


def dicom_bytes(syntax: str, number: int, place: bool = True, compressed: bool = False) -> bytes:
    """One CT slice of 32 x 40 in a transfer syntax, a radiograph without ``place``; or three slices in one object."""
    import pydicom.uid as uids
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    kinds = {
        "explicit": uids.ExplicitVRLittleEndian,
        "enhanced": uids.ExplicitVRLittleEndian,
        "deflated": uids.DeflatedExplicitVRLittleEndian,
        "jpeg": uids.JPEGBaseline8Bit,
        "jpeg-ls": uids.JPEGLSLossless,
        "jpeg-2000": uids.JPEG2000Lossless,
        "rle": uids.RLELossless,
    }
    deep = syntax != "jpeg"
    pixels = values((32, 40), np.uint16 if deep else np.uint8) + number
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = kinds[syntax]
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.4.{number}"
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "CT", "1.2.3.5", "1.2.3.6"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 16 if deep else 8
    data.HighBit = data.BitsStored - 1
    if place:
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2.5 * number], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.9, 1.1], 2.5
    data.RescaleSlope, data.RescaleIntercept = 1, -100
    if syntax == "jpeg":
        data.PixelData = encapsulate([_encoded(pixels, "JPEG")])
    elif syntax == "jpeg-2000":
        data.PixelData = encapsulate([_encoded(pixels, "JPEG2000", no_jp2=True)])
    elif syntax == "enhanced":
        _make_enhanced(data, pixels)
        if compressed:
            data.compress(uids.RLELossless)
    else:
        data.PixelData = pixels.tobytes()
        if syntax in {"jpeg-ls", "rle"}:
            data.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
            data.compress(kinds[syntax])
    if syntax in {"jpeg", "jpeg-2000"}:
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _make_enhanced(data: Any, pixels: Any) -> None:
    """Three frames whose place and scale stand in functional groups."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**tags: Any) -> Any:
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return made

    orientation = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    measures = item(PixelSpacing=[0.9, 1.1], SliceThickness=2.5)
    scale = item(RescaleSlope=1, RescaleIntercept=-100, RescaleType="HU")
    shared = item(
        PlaneOrientationSequence=Sequence([orientation]),
        PixelMeasuresSequence=Sequence([measures]),
        PixelValueTransformationSequence=Sequence([scale]),
    )
    places = [item(ImagePositionPatient=[0, 0, 2.5 * number]) for number in range(3)]
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence([item(PlanePositionSequence=Sequence([p])) for p in places])
    data.NumberOfFrames, data.PixelData = 3, np.stack([pixels + number for number in range(3)]).tobytes()


def _encoded(pixels: Any, kind: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_files() -> list[Sound]:
    from PIL.PngImagePlugin import PngInfo

    grey, colour = values((40, 48), np.uint8), np.stack([values((40, 48), np.uint8)] * 3, axis=-1)
    colour[..., 1] //= 2
    told = PngInfo()
    told.add_text("Comment", "made for a test", zip=True)
    made = [
        _encoded(grey, "PNG", pnginfo=told, dpi=(300, 300)),
        _encoded(colour, "PNG"),
        _encoded(values((40, 48), np.uint16), "PNG"),
    ]
    found = [Sound({"a.png": data}, "a.png", layouts.png(data)) for data in made]
    return found + [Sound(s.files, s.target, s.layout, closed=layouts.with_checksums) for s in found]


def jpeg_files() -> list[Sound]:
    from PIL import Image

    grey, colour = values((40, 48), np.uint8), np.stack([values((40, 48), np.uint8)] * 3, axis=-1)
    colour[..., 1] //= 2
    exif = Image.Exif()
    exif[274] = 6
    made = [
        _encoded(grey, "JPEG"),
        _encoded(colour, "JPEG", exif=exif.tobytes(), dpi=(300, 300)),
        _encoded(colour, "JPEG", progressive=True, optimize=True),
    ]
    return [Sound({"a.jpg": data}, "a.jpg", layouts.jpeg(data)) for data in made]


def tiff_files() -> list[Sound]:
    import tifffile

    grey, colour = values((40, 48), np.uint16), np.stack([values((40, 48), np.uint8)] * 3, axis=-1)
    colour[..., 1] //= 2
    made = [_encoded(colour, "TIFF"), _encoded(colour, "TIFF", compression="tiff_lzw")]
    made.append(_encoded(colour, "TIFF", compression="jpeg"))
    # What is grey goes through tifffile and its codecs, all that it has.
    for picture, options in (
        (grey, {}),
        (grey, {"compression": "lzw"}),
        (grey, {"compression": "packbits"}),
        (grey.astype(np.uint8), {"compression": "jpeg"}),
        (grey, {"compression": "jpeg2000"}),
        (grey, {"compression": "zstd", "predictor": True}),
        (grey, {"compression": "lzma"}),
        (grey, {"compression": "jpegxl"}),
        (grey, {"compression": "zlib", "predictor": True}),
        (grey.astype(np.float32), {"tile": (32, 32), "byteorder": ">"}),
        (colour, {"tile": (32, 32), "compression": "zlib"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, picture, photometric="minisblack" if picture.ndim == 2 else "rgb", **options)
        made.append(buffer.getvalue())
    return [Sound({"a.tif": data}, "a.tif", layouts.tiff(data)) for data in made]


def report_files() -> list[Sound]:
    from tests.hand_volumes import canonical_affine, cropped, volume_of
    from unibiomed_core import report as reports
    from unibiomed_core.engine.volume.linking import LinkedMask, findings
    from unibiomed_core.modalities import CT_WINDOWS
    from unibiomed_core.types import Absence

    volume = volume_of(values((18, 24, 20)), canonical_affine((3.0, 1.0, 1.0)))
    mask = np.zeros(volume.shape, bool)
    mask[2:6, 4:14, 5:15] = True
    linked = [LinkedMask("liver", "liver in abdomen CT", 0.9, cropped(mask), "axial", (2, 3, 4, 5), ())]
    report = reports.build(
        volume=volume, window=CT_WINDOWS["soft tissue"], plane="axial", findings=findings(linked, volume),
        absences=[Absence("spleen", 0.02, 8)], model={"name": "mini"}, settings={"every": 1},
        slices_done=range(volume.shape[0]), slices_skipped=[], seconds=3.0, sentences=[(0, "It is a liver.")],
    )  # fmt: skip
    data = layouts.json_like(reports.to_json(report))
    return [Sound({"report.json": data}, "report.json", layouts.json_text(data))]


def read_report(path: Path) -> None:
    import jsonschema

    from unibiomed_core import report as reports

    found = reports.read(path)
    assert isinstance(found, Report)
    again = json.loads(json.dumps(reports.to_json(found), allow_nan=False))
    jsonschema.validate(again, reports.schema())
    assert reports.narrative(found)


def weights_files() -> list[Sound]:
    from tests.unibiomed_core.engine.toy import toy_engine
    from unibiomed_core.model.folder import CONFIG, MANIFEST, TOKENIZER, WEIGHTS
    from unibiomed_core.model.weights import save

    engine = toy_engine()
    with tempfile.TemporaryDirectory() as folder:
        save(engine.model, engine.processor, Path(folder) / "toy")
        files = {p.name: p.read_bytes() for p in (Path(folder) / "toy").iterdir()}
    made = {WEIGHTS: layouts.safetensors, CONFIG: layouts.json_text, TOKENIZER: layouts.json_text}
    found = [Sound(files, name, layout(files[name]), folder=True) for name, layout in made.items()]
    # Without a manifest that tells of the damage, the readers themselves are reached. Most cases are of this kind.
    bare = {name: content for name, content in files.items() if name != MANIFEST}
    return [
        Sound(files, WEIGHTS, layouts.safetensors(files[WEIGHTS]), folder=True),
        Sound(files, MANIFEST, layouts.json_text(files[MANIFEST]), folder=True),
        *(Sound(bare, s.target, s.layout, folder=True) for s in found),
    ]


def read_weights(path: Path) -> None:
    import torch

    from unibiomed_core.model.folder import MANIFEST
    from unibiomed_core.model.weights import load

    model, processor = load(path, verify=(path / MANIFEST).exists())
    assert all(p.dtype == torch.float32 and not p.is_meta for p in model.parameters())
    assert processor.tokenizer.encode("liver").ids


def parquet_files() -> list[Sound]:
    from train.data import records

    rng = np.random.default_rng(1)
    made = [
        records.Record(
            id=f"polyps/{n}", dataset="polyps", split="train", group=f"patient {n}", modality="endoscopy", licence="",
            image=records.resize_picture(rng.integers(0, 255, (16, 16, 3), np.uint8), 0), size=(16, 16),
            regions=(records.region_record("polyp", np.tri(16, dtype=bool)),), absent=("ulcer",),
            questions=(records.QuestionRecord("Is there a polyp?", "Yes", True),), caption="A polyp.",
        )
        for n in range(4)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records.save(made, Path(folder) / "train.parquet")
        data = (Path(folder) / "train.parquet").read_bytes()
    return [Sound({"train.parquet": data}, "train.parquet", layouts.parquet(data))]


def read_parquet(path: Path) -> None:
    from train.data import records

    for record in records.load(path):
        assert isinstance(record.id, str)
        pixels = record.pixels()
        assert pixels.shape[2] == 3
        assert pixels.nbytes <= LARGEST_RESULT_BYTES
        assert all(m.shape == pixels.shape[:2] for m in record.masks().values())


FORMATS: dict[str, Format] = {
    "NIfTI (.nii)": Format(lambda: nifti_files("scan_ct.nii"), read_image),
    "NIfTI (.nii.gz)": Format(lambda: nifti_files("scan_ct.nii.gz"), read_image),
    "NRRD": Format(lambda: itk_files(".nrrd"), read_image),
    "MetaImage (.mha)": Format(lambda: itk_files(".mha"), read_image),
    "MetaImage (.mhd)": Format(lambda: itk_files(".mhd"), read_image),
    "DICOM, uncompressed": Format(lambda: dicom_files("explicit"), read_image),
    "DICOM, deflated": Format(lambda: dicom_files("deflated"), read_image),
    "DICOM, RLE": Format(lambda: dicom_files("rle"), read_image),
    "DICOM, JPEG": Format(lambda: dicom_files("jpeg"), read_image),
    "DICOM, JPEG-LS": Format(lambda: dicom_files("jpeg-ls"), read_image),
    "DICOM, JPEG 2000": Format(lambda: dicom_files("jpeg-2000"), read_image),
    "DICOM, enhanced": Format(lambda: dicom_files("enhanced"), read_image),
    "PNG": Format(png_files, read_image),
    "JPEG": Format(jpeg_files, read_image),
    "TIFF": Format(tiff_files, read_image),
    "report.json": Format(report_files, read_report),
    "Weights (safetensors)": Format(weights_files, read_weights),
    "Records (Parquet)": Format(parquet_files, read_parquet),
}


def written(files: dict[str, bytes], target: str, folder: Path, as_folder: bool) -> Path:
    """The files in a new ``folder``, and the path that is opened; a header that names its data is itself opened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    opened = next((n for n in files if n.endswith(".mhd")), target)
    return folder if as_folder else folder / opened
