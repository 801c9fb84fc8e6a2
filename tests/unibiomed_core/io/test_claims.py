"""Two writers of one folder: the second is refused, nothing is mixed, and a killed one blocks nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import GUARD_S
from tests.unibiomed_core.cli.cli_kit import ROOT, call, images, refused, succeeded, toy_folder
from unibiomed_core.errors import WriteError
from unibiomed_core.io.export import claimed, staged

__all__ = ["images", "toy_folder"]

NAMES = ("report.json", "findings.csv")
WRITER = """
import sys
from unibiomed_core.io.export import staged
with staged(sys.argv[1], ("report.json", "findings.csv"), overwrite=True) as aside:
    (aside / "report.json").write_text("first")
    print("in work", flush=True)
    sys.stdin.readline()
    (aside / "findings.csv").write_text("first")
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of writing two files into ``out``."""
    words = [sys.executable, "-c", WRITER, str(tmp_path / "out")]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "in work"
        yield process
        process.kill()


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text("utf-8") for name in NAMES}


def write(folder: Path) -> None:
    with staged(folder, NAMES, overwrite=True) as aside:
        for name in NAMES:
            (aside / name).write_text("second", "utf-8")


def test_the_second_writer_is_refused_and_the_first_one_ends_whole(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(WriteError, match=r"Folder in use.*another report or answer is being written"):
        write(tmp_path / "out")
    write(tmp_path / "beside")
    writer.communicate("go on\n", timeout=GUARD_S)
    assert contents(tmp_path / "out") == dict.fromkeys(NAMES, "first")
    write(tmp_path / "out")
    assert contents(tmp_path / "out") == dict.fromkeys(NAMES, "second")


def test_a_killed_writer_blocks_nobody(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    writer.kill()
    writer.wait(timeout=GUARD_S)
    write(tmp_path / "out")
    assert contents(tmp_path / "out") == dict.fromkeys(NAMES, "second")


def test_a_command_is_refused_before_any_work_and_lets_go_at_its_end(
    writer: subprocess.Popen[str], images: Path, toy_folder: str, tmp_path: Path
) -> None:
    words = ["report", images / "ct.nii.gz", "--targets", "liver", "--model", toy_folder, "--overwrite", "--out"]
    result = call(*words, tmp_path / "out")
    refused(result, "Folder in use")
    assert "slices" not in result.stderr
    writer.communicate("go on\n", timeout=GUARD_S)
    for _ in range(2):
        succeeded(call(*words, tmp_path / "out"))
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert not [name for name in names if "lock" in name], "nothing but results lies among the results"


def test_one_thread_may_claim_a_folder_twice(tmp_path: Path) -> None:
    with claimed(tmp_path):
        write(tmp_path)
    assert contents(tmp_path) == dict.fromkeys(NAMES, "second")
