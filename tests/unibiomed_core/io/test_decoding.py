"""Files that bring their decoder down cost one file: the program lives on, and the next file is read."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image, ImageFile

from tests.faults.sound_files import dicom_files, written
from tests.unibiomed_core.io.conftest import SeriesWriter
from unibiomed_core.errors import ReadError
from unibiomed_core.io import decoding, decoding_process, guard, large_picture, read
from unibiomed_core.io.picture import load_mask

NOISE = np.random.default_rng(2).integers(0, 500, (16, 18, 20)).astype(np.int16)


def decoder() -> Any:
    """The process that decodes, if it lives."""
    process = decoding._DECODER._process
    return process if process is not None and process.poll() is None else None


def nrrd(path: Path, **changed: str) -> Path:
    fields = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "20 18 16",
        "space directions": "(1,0,0) (0,1,0) (0,0,2)", "kinds": "domain domain domain", "endian": "little",
        "encoding": "raw", "space origin": "(0,0,0)",
    } | {name.replace("_", " "): text for name, text in changed.items()}  # fmt: skip
    head = "NRRD0004\n" + "".join(f"{name}: {text}\n" for name, text in fields.items()) + "\n"
    path.write_bytes(head.encode() + NOISE.tobytes())
    return path


def test_one_process_reads_all_files(tmp_path: Path) -> None:
    first = read(nrrd(tmp_path / "ct_a.nrrd"), "ct")
    process = decoder()
    second = read(nrrd(tmp_path / "ct_b.nrrd"), "ct")
    assert process is not None
    assert decoder() is process
    assert np.array_equal(first.voxels, second.voxels)
    assert np.array_equal(first.stored.to_stored(first.voxels), NOISE.T)


def test_a_header_that_kills_the_parser_costs_one_file(tmp_path: Path) -> None:
    """A line of 5,000 digits writes over the stack of ITK's parser of NRRD."""
    bad = nrrd(tmp_path / "ct_bad.nrrd", space_origin="9" * 5000)
    with pytest.raises(ReadError, match=r"Damaged file.*ct_bad\.nrrd"):
        read(bad, "ct")
    assert np.ptp(read(nrrd(tmp_path / "ct_good.nrrd"), "ct").voxels) > 400


@pytest.mark.parametrize("compression", ["lzw", "jpeg2000", "zstd"])
def test_codecs_of_grey_tiff_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE[0].astype(np.uint16), compression=compression, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    monkeypatch.setattr(tifffile.TiffPage, "segments", None)
    assert np.array_equal(read(path, "xray").voxels[0], NOISE[0])
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * length + data[start + length :])
    with pytest.raises(ReadError, match=r"Damaged file.*a\.tif"):
        read(path, "xray")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif"])
@pytest.mark.parametrize("large", [False, True])
def test_no_compressed_picture_is_decoded_in_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, large: bool
) -> None:
    path = tmp_path / f"a.{suffix}"
    smooth = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    options = {"compression": "tiff_deflate"} if suffix == "tif" else {}
    Image.fromarray(np.stack([smooth, smooth.T.reshape(90, 120), 255 - smooth], axis=2)).save(path, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    for owner, name in ((ImageFile.ImageFile, "load"), (Image.Image, "load"), (Image, "open")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("it was decoded here"))
    if not large:
        assert np.array_equal(load_mask(path, colours=True)[0], expected)
    if large:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
        monkeypatch.setattr(large_picture, "MOST_PIXELS", 3_000)
    if suffix != "gif":
        volume = read(path, "pathology")
        assert volume.voxels.shape == ((1, 45, 60, 3) if large else (1, 90, 120, 3))
        assert np.abs(volume.voxels[0].mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_codec_that_dies_costs_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.dstack([NOISE[0].astype(np.uint8)] * 3)).save(path)
    exchange = decoding._exchange

    def dies(process: Any, request: dict[str, Any]) -> Any:
        process.kill()
        process.wait()
        return exchange(process, request)

    monkeypatch.setattr(decoding, "_exchange", dies)
    for reader in (lambda: read(path, "pathology"), lambda: load_mask(path)):
        with pytest.raises(ReadError, match="brings its decoder down"):
            reader()
    monkeypatch.undo()
    assert read(path, "pathology").shape == (1, 18, 20)


def test_a_file_that_keeps_its_decoder_too_long_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process waits and takes no processor time; the one that is started next has its whole time again."""
    path = tmp_path / "a.png"
    Image.fromarray(NOISE[0].astype(np.uint8)).save(path)
    read(path, "xray")
    os.kill(decoder().pid, signal.SIGSTOP)
    monkeypatch.setattr(decoding, "GUARD_SECONDS", 0.01 - decoding.seconds(4 * 18 * 20))
    with pytest.raises(ReadError, match="brings its decoder down"):
        read(path, "xray")
    monkeypatch.undo()
    assert read(path, "xray").shape == (1, 18, 20)


def test_a_decoder_that_has_died_is_started_again(tmp_path: Path) -> None:
    good = nrrd(tmp_path / "ct.nrrd")
    read(good, "ct")
    dead = decoder()
    dead.kill()
    dead.wait()
    read(good, "ct")
    assert decoder().pid != dead.pid


def test_a_decoder_that_dies_of_a_file_is_told_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = nrrd(tmp_path / "ct.nrrd")
    monkeypatch.setattr(decoding, "_exchange", lambda process, request: process.kill())
    with pytest.raises(ReadError, match=r"Damaged file.*brings its decoder down"):
        read(good, "ct")
    monkeypatch.undo()
    read(good, "ct")


def test_a_question_that_is_broken_off_leaves_no_answer_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = nrrd(tmp_path / "ct.nrrd")
    exchange = decoding._exchange

    def broken_off(process: Any, request: dict[str, Any]) -> Any:
        exchange(process, request)
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "_exchange", broken_off)
    with pytest.raises(KeyboardInterrupt):
        read(good, "ct")
    monkeypatch.undo()
    assert np.ptp(read(good, "ct").voxels) > 400


def test_threads_take_turns(tmp_path: Path) -> None:
    paths = [nrrd(tmp_path / f"ct_{n}.nrrd", sizes=f"20 18 {n}") for n in range(2, 10)]
    shapes: dict[int, tuple[int, ...]] = {}
    threads = [
        threading.Thread(target=lambda n=n, p=p: shapes.update({n: read(p, "ct").shape}))
        for n, p in enumerate(paths, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == {n: (n, 18, 20) for n in range(2, 10)}


def test_a_header_that_lies_gets_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "ct.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE), str(path), useCompression=True)
    path.write_bytes(path.read_bytes().replace(b"sizes: 20 18 16", b"sizes: 20 18 99999"))
    with pytest.raises(ReadError, match="Damaged file"):
        read(path, "ct")


def test_the_damaged_slice_of_a_compressed_series_is_named(series: SeriesWriter) -> None:
    import pydicom
    from pydicom.uid import RLELossless

    series.axial()
    for file in series.folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    read(series.folder)
    bad = sorted(series.folder.iterdir())[2]
    content = bad.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    bad.write_bytes(content[: start + 100])
    with pytest.raises(ReadError, match=bad.name.replace(".", r"\.")):
        read(series.folder)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(series: SeriesWriter) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    series.axial()
    file = sorted(series.folder.iterdir())[0]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(file)
    read(file)
    content = file.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = zlib.decompress(content[end:], -15)
    body = packer.compress(body) + packer.compress(b"\0" * (100 << 20)) + packer.flush()
    file.write_bytes(content[:end] + body)
    with pytest.raises(ReadError, match="inflate to more than"):
        read(file)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded and told on Linux only")
def test_threads_of_a_library_leave_a_file_its_address_space(tmp_path: Path) -> None:
    """Each reserved a heap as large as the bound, and sound files were refused now and then."""
    (sound,) = dicom_files("jpeg-2000")
    path = written(sound.files, sound.target, tmp_path / "sound", sound.folder)
    decoding._DECODER.close()
    sizes = []
    for _ in range(4):
        read(path)
        told = Path(f"/proc/{decoder().pid}/status").read_text("ascii").splitlines()
        sizes.append({line.split(":")[0]: int(line.split()[1]) << 10 for line in told if line.startswith("Vm")})
    assert sizes[-1]["VmPeak"] - sizes[0]["VmSize"] < decoding_process.SPARE_BYTES // 2


def test_no_more_is_read_than_there_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with guard.BoundedFile(tmp_path / "a") as file:
        assert file.read(1) == b"a"
        assert file.read(1 << 62) == b"bc"
        assert file.read(5) == b""
        file.seek(1)
        assert file.read() == b"bc"


@pytest.mark.parametrize("length", [1 << 31, 0xFFFFFFF0])
def test_a_dicom_length_beyond_the_file_is_damage_and_takes_no_memory(series: SeriesWriter, length: int) -> None:
    series.axial()
    file = sorted(series.folder.iterdir())[0]
    content = bytearray(file.read_bytes())
    at = content.index(b"\xe0\x7f\x10\x00")
    content[at + 8 : at + 12] = length.to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(ReadError, match="Damaged file"):
        read(file)


def test_a_png_chunk_beyond_the_file_takes_no_memory(tmp_path: Path) -> None:
    """All pixels are there, so they are read; the length alone is wrong."""
    path = tmp_path / "a.png"
    Image.fromarray(NOISE[0].astype(np.uint8)).save(path)
    content = path.read_bytes()
    at = content.index(b"IDAT")
    path.write_bytes(content[: at - 4] + (1 << 31).to_bytes(4, "big") + content[at:])
    tracemalloc.start()
    try:
        volume = read(path, "xray")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(volume.voxels[0], NOISE[0].astype(np.uint8))
    assert peak < 64 << 20


@pytest.mark.parametrize("big", [False, True])
def test_tiff_directories_in_a_circle_are_damage(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE[0], photometric="minisblack", bigtiff=big)
    assert read(path, "xray").shape == (1, 18, 20)
    content = bytearray(path.read_bytes())
    order, size, count, entry = ("<Q", 8, 8, 20) if big else ("<I", 4, 2, 12)
    start = struct.unpack_from(order, content, size)[0]
    tags = int.from_bytes(content[start : start + count], "little")
    struct.pack_into(order, content, start + count + tags * entry, start)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="circle"):
        read(path, "xray")
