"""Checks shared by all readers, and the promise that reading stays light and silent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unibiomed_core.errors import ReadError
from unibiomed_core.io import FORMATS, guard, read


def refused(path: Path | str, title: str, words: str) -> None:
    with pytest.raises(ReadError) as caught:
        read(path)
    assert caught.value.title == title
    assert words in str(caught.value)


def test_missing_path(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii.gz", "No such file or folder", "does not exist (its folder exists)")
    refused(str(tmp_path / "a" / "b.png"), "No such file or folder", "its folder does not exist either")


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04" + bytes(200))
    refused(tmp_path / "a.docx", "Unknown file type", ".nii.gz .nii .nrrd")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_refuses_rubbish(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bytes(range(256)) * 8)
    refused(path, "Mislabelled file", f"'a{suffix}'")
    path.write_bytes(b"")
    refused(path, "Empty file", "0 bytes")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    path.chmod(0)
    refused(path, "File cannot be opened", "Permission denied")


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (MemoryError(), "Image too large"),
        (PermissionError(13, "Permission denied"), "File cannot be opened"),
        (EOFError("x"), "Damaged file"),
        (KeyError("x"), "Damaged file"),
        (RuntimeError("Exception thrown in reader: /src/a.cxx:4:\nITK ERROR: IO(0x55): Bad header"), "Damaged file"),
    ],
)
def test_whatever_a_library_raises_is_converted(error: Exception, title: str) -> None:
    with pytest.raises(ReadError) as caught, guard.reading(Path("scan.nii"), "a NIfTI file"):
        raise error
    assert caught.value.title == title
    assert "scan.nii" in str(caught.value)
    assert "a.cxx" not in str(caught.value)


def test_own_errors_pass_unchanged() -> None:
    own = ReadError("Constant image", "every value is 1")
    with pytest.raises(ReadError) as caught, guard.reading(Path("scan.nii"), "a NIfTI file"):
        raise own
    assert caught.value is own


def test_memory_is_checked_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "available_bytes", lambda: 10**6)
    guard.check_memory((50, 50, 50), 4, Path("a.nii"))
    with pytest.raises(ReadError, match=r"100 x 100 x 100 voxels and needs about 0\.0 GB; 0\.0 GB are free"):
        guard.check_memory((100, 100, 100), 4, Path("a.nii"))
    monkeypatch.setattr(guard, "available_bytes", lambda: None)
    guard.check_memory((10**6, 10**6, 10**6), 4, Path("a.nii"))


def test_available_memory_is_plausible() -> None:
    free = guard.available_bytes()
    assert free is None or 10**7 < free < 10**15


def test_quiet_silences_c_libraries_and_gives_the_stream_back(capfd: pytest.CaptureFixture[str]) -> None:
    with guard.quiet():
        os.write(2, b"from C\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_importing_the_readers_loads_no_heavy_package(root: Path) -> None:
    code = (
        "import sys, unibiomed_core.io; "
        "heavy = {'torch', 'SimpleITK', 'nibabel', 'pydicom', 'PIL', 'skimage', 'scipy'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
