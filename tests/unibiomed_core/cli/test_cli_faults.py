"""The command line: every way it can be used wrongly, what it says of models and machine, and what it never does."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from tests.unibiomed_core.cli.cli_kit import call, images, picky_folder, refused, succeeded, toy_folder
from unibiomed_core import diagnostics
from unibiomed_core.cli import terminal
from unibiomed_core.types import NOTICE

__all__ = ["images", "picky_folder", "toy_folder"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "missing.nii.gz"], ["No such file or folder", "missing.nii.gz", "expected: .*image file"]),
        (["report", "{images}"], ["Error: ", "expected: "]),
        (["report", "{ct}", "--targets", "livr"], ["Unknown target", "nearest: liver"]),
        (["report", "{ct}", "--targets", "aorta"], ["Target not learnt", "'aorta'"]),
        (["report", "{ct}", "--every", "0"], ["Step out of range"]),
        (["report", "{ct}", "--plan", "corse-to-fine"], ["Unknown plan", "nearest: coarse-to-fine"]),
        (["report", "{ct}", "--plan", "key-slices", "--every", "2"], ["Step without a use"]),
        (["report", "{ct}", "--plan", "propagate"], ["No memory parts", "Take another plan"]),
        (["report", "{ct}", "--smooth-mm", "-1"], ["Smoothing out of range"]),
        (["report", "{ct}", "--least-presence", "1.5"], ["Presence out of range", "0 to 1"]),
        (["report", "{ct}", "--min-area-mm2", "-1"], ["Area out of range", "0 or more"]),
        (["report", "{ct}", "--plane", "oblique"], ["Unknown plane", "axial, coronal, sagittal"]),
        (["report", "{ct}", "--window", "beans"], ["Unknown window", "soft tissue"]),
        (["report", "{ct}", "--modality", "taste"], ["Unknown modality", "ct, mri"]),
        (["report", "{ct}", "--device", "abacus"], ["Device not available", "cpu"]),
        (["report", "{ct}", "--dtype", "int3"], ["Unknown precision", "bfloat16"]),
        (["segment", "{ct}", "livr"], ["Unknown target", "nearest: liver"]),
        (["segment", "{ct}", "liver", "--slice", "5"], ["No such slice", "0 to 4"]),
        (["segment", "{ct}", "liver", "--slice", "-1"], ["No such slice"]),
        (["segment", "{ct}", " "], ["Empty target"]),
        (["segment", "{png}", "liver", "--modality", "ct", "--plane", "coronal"], ["Plane of a picture"]),
        (["segment", "{png}", "liver", "--modality", "ct", "--slice", "2"], ["No such slice"]),
        (["segment", "{png}", "liver", "--modality", "ct", "--window", "lung"], ["Hounsfield"]),
        (["ask", "{ct}", ""], ["Empty question"]),
        (["ask", "{ct}", "", "--prompt-exact"], ["Empty question"]),
        (["ask", "{ct}", "x" * 100_000], ["Question too long", "100000 characters"]),
        (["ask", "{ct}", "is\x07it\x1b[31m?"], ["Control characters", r"U\+0007, U\+001B"]),
        (["ask", "{ct}", "li\udcffver"], ["Control characters", r"U\+DCFF"]),
        (["ask", "{ct}", "well?", "--max-new-tokens", "0"], ["Answer length out of range"]),
        (["ground", "{ct}", ""], ["Empty sentence"]),
        (["ground", "{ct}", "nothing that is known"], ["Nothing to ground"]),
        (["ground", "{ct}", "x\x00liver"], ["Control characters"]),
        (["roi", "{ct}", "--box", "30", "10", "10", "30"], ["Box inverted", "columns 30 to 10"]),
        (["roi", "{ct}", "--box", "-1", "10", "20", "30"], ["Box outside the image", "columns -1 to 20"]),
        (["roi", "{ct}", "--box", "10", "10", "48", "30"], ["Box outside the image", "columns 0 to 47"]),
        (["roi", "{ct}", "--box", "10", "10", "16", "30"], ["Box too small", "7 x 21"]),
    ],
)  # fmt: skip
def test_wrong_use_is_told_in_one_block(
    images: Path, picky_folder: str, tmp_path: Path, words: list[str], message: list[str]
) -> None:
    places = {"{ct}": str(images / "ct.nii.gz"), "{png}": str(images / "ct.png"), "{images}": str(images)}
    result = call(*(places.get(w, w) for w in words), "--model", picky_folder, "--out", tmp_path / "out")
    refused(result, *message)
    assert "\x1b" not in result.output
    assert not (tmp_path / "out").exists(), "an error leaves nothing behind"


@pytest.mark.parametrize("command", [("report",), ("segment", "liver"), ("ask", "Is it?"), ("roi",)])
def test_a_modality_that_nothing_tells_is_told_by_the_model_or_asked_for(
    command: tuple[str, ...], toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unibiomed_core.engine.volume import scene

    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    name, *words = command
    given = [*words, "--box", 4, 4, 20, 20] if name == "roi" else words
    arguments = [name, tmp_path / "scan.png", *given, "--model", toy_folder, "--out"]

    monkeypatch.setattr(scene, "_modality_shares", lambda *_: {"ct": 0.3, "mri": 0.4, "pet": 0.3})
    refused(call(*arguments, tmp_path / "undecided"), "--modality", r"mri \(0.40\), ct \(0.30\), pet \(0.30\)")
    assert not list(tmp_path.glob("undecided/*"))

    monkeypatch.setattr(scene, "_modality_shares", lambda *_: {"ct": 0.2, "pathology": 0.8})
    told = call(*arguments, tmp_path / "told")
    assert told.exit_code == 0, told.output
    assert "The model sees pathology (0.80" in told.output


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_file_name_need_not_be_text(images: Path, toy_folder: str, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/ct_\xff.png")
    shutil.copy(images / "ct.png", odd)
    succeeded(call("report", odd, "--model", toy_folder, "--targets", "liver", "--out", tmp_path / "out"))
    assert r"ct_\xff.png" in json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["image"]["source"]


def test_existing_results_stay_unless_overwriting_is_allowed(images: Path, toy_folder: str, tmp_path: Path) -> None:
    for command, file in (("report", "findings.csv"), ("segment", "answer.json"), ("segment", "mask_07_aorta.nii.gz")):
        out = tmp_path / file
        out.mkdir()
        (out / file).write_text("precious", "utf-8")
        targets = ["--targets", "liver"] if command == "report" else ["liver"]
        words = [command, images / "ct.nii.gz", *targets, "--model", toy_folder, "--out", out]
        refused(call(*words), "Files exist already", re.escape(file))
        assert (out / file).read_text("utf-8") == "precious"
        succeeded(call(*words, "--overwrite"))
    assert (tmp_path / "answer.json" / "answer.json").read_text("utf-8") != "precious"


def test_a_full_disk_is_told_and_nothing_is_lost(
    images: Path, toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["segment", images / "ct.png", "liver", "--modality", "ct", "--model", toy_folder, "--overwrite"]
    succeeded(call(*words, "--out", tmp_path))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unibiomed_core.io.export.answer.write_mask", full)
    refused(call(*words, "--out", tmp_path), "Disk full")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_told_before_the_model_is_loaded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    words = ["report", images / "ct.nii.gz", "--model", "no such model", "--out"]
    (tmp_path / "file").write_text("x", "utf-8")
    refused(call(*words, tmp_path / "file"), "Output is not a folder")
    refused(call(*words, tmp_path / "file" / "below"), "Output is not a folder")
    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    refused(call(*words, tmp_path / "out"), "Folder cannot be written")
    assert not (tmp_path / "out").exists()


def test_broken_weights_are_told(images: Path, toy_folder: str, tmp_path: Path) -> None:
    def with_model(folder: object) -> Result:
        return call("segment", images / "ct.nii.gz", "liver", "--offline", "--model", folder, "--out", tmp_path / "out")

    refused(with_model("no/such-model"), "no/such-model")
    (tmp_path / "empty").mkdir()
    refused(with_model(tmp_path / "empty"), "Weights not found")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"x")
    refused(with_model(tmp_path / "pickle"), "pytorch_model.bin", "safetensors")
    flipped = tmp_path / "flipped"
    shutil.copytree(toy_folder, flipped)
    data = bytearray((flipped / "model.safetensors").read_bytes())
    data[-5] ^= 255
    (flipped / "model.safetensors").write_bytes(data)
    refused(with_model(flipped), "Weights damaged", "checksum")
    assert not (tmp_path / "out").exists()


def test_an_error_nobody_foresaw_shows_its_first_line_and_no_traceback(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the dog ate it\nand more")

    monkeypatch.setattr("unibiomed_core.engine.engine.Engine.load", broken)
    words = ["ask", images / "ct.nii.gz", "well?", "--out", tmp_path / "out"]
    result = call(*words)
    refused(result, "Something went wrong", "the dog ate it", "UNIBIOMED_DEBUG=1")
    assert "and more" not in result.stderr
    monkeypatch.setenv("UNIBIOMED_DEBUG", "1")
    assert "Traceback" in call(*words).stderr


def test_a_broken_torchvision_is_named_with_its_cure(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("unibiomed_core.engine.engine.Engine.load", broken)
    refused(
        call("ask", images / "ct.nii.gz", "well?", "--out", tmp_path / "out"),
        "Broken torchvision", "pip uninstall torchvision",
    )  # fmt: skip
    stub = tmp_path / "torchvision"
    stub.mkdir()
    (stub / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "nms does not exist" in diagnostics.torchvision_problem()
    result = succeeded(call("info"))
    assert "pip uninstall torchvision" in result.stderr


def test_offline_opens_no_socket(
    images: Path, toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    words = ["ask", images / "ct.nii.gz", "well?", "--max-new-tokens", 2, "--offline", "--out", tmp_path / "out"]
    succeeded(call(*words, "--model", toy_folder))
    refused(call(*words, "--overwrite", "--model", "somebody/some-model"), "somebody/some-model")


def test_info_names_versions_and_devices() -> None:
    result = succeeded(call("info"))
    for name in ("python", "torch", "transformers", "napari", "device cpu"):
        assert f"{name}: " in result.stdout
    assert NOTICE in result.stdout


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_models_lists_sizes_licences_and_places(empty_cache: Path) -> None:
    result = succeeded(call("models"))
    assert re.search(
        r"unibiomed-1b: .*\n  size: about 4 GB\n  licence: .+\n  where: not here; unibiomed models download",
        result.stdout,
    )


def test_models_lists_what_an_embedded_model_was_trained_on(
    picky_folder: str, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(picky_folder, tmp_path / "package" / "assets" / "tiny")
    monkeypatch.setattr(diagnostics, "files", lambda _: tmp_path / "package")
    result = succeeded(call("models"))
    assert re.search(r"tiny: inside the package\n  size: 1\.\d MB\n  licence: not stated", result.stdout)
    assert "  ct: liver, spleen, pancreas\n" in result.stdout
    assert str(tmp_path / "package" / "assets" / "tiny") in result.stdout
    assert "weights tiny: 1." in succeeded(call("info")).stdout


def test_a_download_shows_its_size_and_where_it_went(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetched(name: str, on_progress: Any, *, offline: bool) -> Path:
        assert (name, offline) == ("unibiomed-1b", False)
        on_progress(0, 4_200_000_000)
        on_progress(4_200_000_000, 4_200_000_000)
        return tmp_path

    monkeypatch.setattr("unibiomed_core.model.hub.download", fetched)
    result = succeeded(call("models", "download", "unibiomed-1b"))
    assert "MB 0/4200\nMB 4200/4200\n" in result.stderr
    assert f"unibiomed-1b is in {tmp_path}" in result.stdout


def test_downloads_that_cannot_be_are_told(empty_cache: Path) -> None:
    refused(call("models", "download", "unibiomed-1b", "--offline"), "Offline mode is on")
    refused(call("models", "download", "nonsense"), "'nonsense' is no preset", "unibiomed-1b")


def test_no_markup_of_other_people_is_interpreted(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("[bold]liver[/bold] [SEG] " + "long " * 60)
    terminal.show_error("[red]title[/red]", found="[SEG] [/]", expected="", action="")
    captured = capsys.readouterr()
    assert captured.out == "[bold]liver[/bold] [SEG] " + "long " * 60 + "\n"
    assert captured.err == "Error: [red]title[/red]\nfound: [SEG] [/]\n"
