"""The command line: every command on small images, and every way it can be used wrongly."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from unibiomed_core import cli, diagnostics, terminal
from unibiomed_core.types import NOTICE

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engine"))

from toy import body, toy_engine  # noqa: E402


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights that takes any target."""
    return _saved(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def picky_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights that was "trained" on three targets."""
    return _saved(tmp_path_factory.mktemp("models") / "picky", targets={"ct": ("liver", "spleen", "pancreas")})


def _saved(folder: Path, **changes: Any) -> str:
    from unibiomed_core.model.weights import save

    engine = toy_engine(**changes)
    save(engine.model, engine.processor, folder, "float32")
    return str(folder)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ct.nii.gz`` (48 x 48 x 5, RAS, tilted), ``ct.png`` (56 x 40) and ``air.nii.gz`` (3 slices)."""
    folder = tmp_path_factory.mktemp("images")
    affine = np.array([[2.0, 0, 0, -40], [0, 1.9, -0.9, 3], [0, 0.5, 4.0, 7], [0, 0, 0, 1]])
    voxels = np.stack([body(48, seed) for seed in range(5)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "ct.nii.gz")
    pixels = np.random.default_rng(3).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "ct.png")
    return folder


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def answer(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "answer.json").read_text("utf-8")))


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert re.search(word, result.stderr), f"'{word}' is not in:\n{result.stderr}"


def test_report_of_a_volume(images: Path, toy_folder: str, tmp_path: Path) -> None:
    result = succeeded(
        call("report", images / "ct.nii.gz", "--model", toy_folder, "--targets", "liver,spleen", "--targets", "aorta",
             "--every", 2, "--window", "liver", "--out", tmp_path)
    )  # fmt: skip
    assert {p.name for p in tmp_path.iterdir()} == {
        "report.json", "report.html", "findings.nii.gz", "labels.json", "findings.csv"
    }  # fmt: skip
    written = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert written["settings"]["targets"] == ["liver", "spleen", "aorta"]
    assert written["image"]["window"]["name"] == "liver"
    assert len(written["slices"]["done_indices"]) == 3
    assert NOTICE in json.dumps(written)
    labels, image = nibabel.load(tmp_path / "findings.nii.gz"), nibabel.load(images / "ct.nii.gz")
    assert labels.shape == image.shape
    assert np.allclose(labels.affine, image.affine, atol=1e-5)
    assert "slices 3/3" in result.stderr
    assert result.stdout.count(NOTICE) == 1


def test_a_report_leaves_out_and_does_not_link_where_asked(images: Path, toy_folder: str, tmp_path: Path) -> None:
    base = ["report", images / "ct.nii.gz", "--model", toy_folder, "--targets", "liver"]
    succeeded(call(*base, "--no-link", "--min-area-mm2", 3, "--out", tmp_path / "apart"))
    apart = json.loads((tmp_path / "apart" / "report.json").read_text("utf-8"))
    assert (apart["settings"]["link_slices"], apart["settings"]["min_area_mm2"]) == (False, 3.0)
    assert len(apart["findings"]) >= len(apart["slices"]["done_indices"])
    assert all("one_slice" in finding["flags"] for finding in apart["findings"])
    succeeded(call(*base, "--least-presence", 1, "--out", tmp_path / "none"))
    none = json.loads((tmp_path / "none" / "report.json").read_text("utf-8"))
    assert (none["settings"]["least_presence"], none["findings"]) == (1.0, [])
    assert any("left out for a presence below 1: liver" in warning for warning in none["warnings"])


def test_memory_that_may_not_suffice_is_told_before_the_run(
    images: Path, toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unibiomed_core.engine import devices

    plenty = succeeded(call("segment", images / "ct.png", "liver", "--model", toy_folder, "--out", tmp_path / "a",
                            "--modality", "pathology"))  # fmt: skip
    assert "MiB" not in plenty.output
    monkeypatch.setattr(devices, "free_bytes", lambda device: 100 * 2**20)
    little = succeeded(call("segment", images / "ct.png", "liver", "--model", toy_folder, "--out", tmp_path / "b",
                            "--modality", "pathology"))  # fmt: skip
    assert "100 MiB are free" in little.output


def test_report_of_a_picture(images: Path, toy_folder: str, tmp_path: Path) -> None:
    succeeded(
        call("report", images / "ct.png", "--modality", "pathology", "--model", toy_folder, "--targets", "liver",
             "--out", tmp_path / "new" / "folder")
    )  # fmt: skip
    assert Image.open(tmp_path / "new" / "folder" / "findings.png").size == (56, 40)


def test_segment_a_volume_gives_one_mask_a_target(images: Path, toy_folder: str, tmp_path: Path) -> None:
    succeeded(call("segment", images / "ct.nii.gz", "Hepar", "spleen", "--model", toy_folder, "--out", tmp_path))
    given = answer(tmp_path)
    assert [p["text"] for p in given["phrases"]] == ["liver", "spleen"]
    assert given["masks"] == [p["mask"] for p in given["phrases"]] == ["mask_01_liver.nii.gz", "mask_02_spleen.nii.gz"]
    assert given["raw_text"] == "It is [SEG].<|end|>\nIt is [SEG].<|end|>"
    assert given["slices"]["done"] == [1, 2, 3, 4, 5]
    assert given["notice"] == NOTICE
    image = nibabel.load(images / "ct.nii.gz")
    for phrase in given["phrases"]:
        assert given["text"][phrase["start"] : phrase["end"]] == phrase["text"]
        assert 0 <= phrase["score"] <= 1
        mask = nibabel.load(tmp_path / phrase["mask"])
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine, atol=1e-5)
        assert set(np.unique(mask.get_fdata())) == {0, 1}


def test_a_slice_alone_has_the_mask_it_has_in_the_volume(images: Path, toy_folder: str, tmp_path: Path) -> None:
    base = ["segment", images / "ct.nii.gz", "liver", "--model", toy_folder]
    succeeded(call(*base, "--out", tmp_path / "all"))
    succeeded(call(*base, "--slice", 2, "--out", tmp_path / "one"))
    given = answer(tmp_path / "one")
    assert given["slice"] == {
        "plane": "axial", "number": 2, "total": 5, "counting": "from 1 in the file's own order", "middle": False
    }  # fmt: skip
    whole = nibabel.load(tmp_path / "all" / "mask_01_liver.nii.gz").get_fdata()
    alone = nibabel.load(tmp_path / "one" / given["masks"][0]).get_fdata()
    assert alone.any()
    assert np.array_equal(alone[..., 1], whole[..., 1]), "slice 2 counts from 1 in the order of the file"
    assert not np.delete(alone, 1, axis=2).any()


def test_segment_a_picture(images: Path, toy_folder: str, tmp_path: Path) -> None:
    succeeded(
        call("segment", images / "ct.png", "liver", "spleen", "liver", "--model", toy_folder, "--modality", "ct",
             "--out", tmp_path)
    )  # fmt: skip
    given = answer(tmp_path)
    assert given["text"] == "It is liver. It is spleen."
    assert [given["text"][p["start"] : p["end"]] for p in given["phrases"]] == ["liver", "spleen"]
    assert given["slice"] is None
    for name in given["masks"]:
        mask = np.asarray(Image.open(tmp_path / name))
        assert mask.shape == (40, 56)
        assert set(np.unique(mask)) <= {0, 255}


def test_ask_a_volume_takes_the_middle_slice_and_says_so(images: Path, toy_folder: str, tmp_path: Path) -> None:
    result = succeeded(
        call("ask", images / "ct.nii.gz", "Is the liver healthy?", "--max-new-tokens", 5, "--model", toy_folder,
             "--plane", "coronal", "--out", tmp_path)
    )  # fmt: skip
    given = answer(tmp_path)
    assert "Coronal slice 24 of 48, the middle one" in result.stderr
    assert (given["slice"]["number"], given["slice"]["middle"]) == (24, True)
    assert given["truncated"]
    assert any("--max-new-tokens" in warning for warning in given["warnings"])
    assert given["model"]["name"] == "toy"
    assert given["seconds"] > 0
    assert given["modality"] == "ct"


@pytest.mark.parametrize("describe", [False, True])
def test_roi(images: Path, toy_folder: str, tmp_path: Path, describe: bool) -> None:
    extra = ["--describe"] if describe else []
    succeeded(
        call("roi", images / "ct.png", "--box", 8, 6, 40, 30, *extra, "--max-new-tokens", 4, "--modality", "ct",
             "--model", toy_folder, "--out", tmp_path)
    )  # fmt: skip
    given = answer(tmp_path)
    assert given["settings"]["task"] == ("roi_describe" if describe else "roi_class")
    assert given["settings"]["box_x0_y0_x1_y1_px"] == [8, 6, 40, 30]


def test_roi_takes_a_question_of_its_own(images: Path, toy_folder: str, tmp_path: Path) -> None:
    base = ["roi", images / "ct.png", "--box", 8, 6, 40, 30, "--max-new-tokens", 6, "--modality", "ct"]
    given = {}
    wordings = {
        "built in": [],
        "built in, exact": ["--prompt-exact"],
        "the same": ["--prompt-exact", "--question", "<image>\nWhat is the <region> in the picture?"],
        "other": ["--prompt-exact", "--question", "<image>\nliver?"],
    }
    for name, words in wordings.items():
        succeeded(call(*base, *words, "--model", toy_folder, "--out", tmp_path / name))
        given[name] = answer(tmp_path / name)["raw_text"]
    assert given["built in"] == given["built in, exact"] == given["the same"] != given["other"]


def test_ground_tags_plain_words(images: Path, picky_folder: str, tmp_path: Path) -> None:
    succeeded(
        call("ground", images / "ct.nii.gz", "The liver is large, the spleen is not.", "--slice", 4,
             "--model", picky_folder, "--out", tmp_path)
    )  # fmt: skip
    given = answer(tmp_path)
    assert given["text"] == "The liver is large, the spleen is not."
    assert [p["text"] for p in given["phrases"]] == ["liver", "spleen"]
    assert given["raw_text"].startswith("The <p> liver </p> [SEG] is large")
    assert nibabel.load(tmp_path / given["masks"][0]).shape == (48, 48, 5)


def test_ground_keeps_tags_that_stand_there(images: Path, toy_folder: str, tmp_path: Path) -> None:
    succeeded(
        call("ground", images / "ct.png", "<p> a dark spot </p> [SEG].", "--question", "What is there?",
             "--modality", "ct", "--model", toy_folder, "--out", tmp_path)
    )  # fmt: skip
    assert [p["text"] for p in answer(tmp_path)["phrases"]] == ["a dark spot"]


def parity(shared: Path) -> tuple[Path, dict[str, Any]]:
    folder = shared / "parity" / "tiny-a"
    return folder, json.loads((folder / "expected.json").read_text("utf-8"))


def test_exact_question_writes_what_the_published_system_writes(shared: Path, tmp_path: Path) -> None:
    folder, expected = parity(shared)
    case = expected["greedy"]
    words = [case["text"], "--prompt-exact", "--model", folder, "--modality", "ct", "--max-new-tokens", 16]
    for command in ("ask", "segment"):
        succeeded(call(command, folder / case["image"], *words, "--out", tmp_path / command))
        assert answer(tmp_path / command)["raw_text"] == case["prediction"]


@pytest.mark.parametrize("name", ["one_seg", "two_seg"])
def test_exact_grounding_gives_the_published_masks(shared: Path, tmp_path: Path, name: str) -> None:
    from safetensors import safe_open

    folder, expected = parity(shared)
    case = expected[name]
    succeeded(
        call("ground", folder / case["image"], case["forced_answer"], "--question", case["text"], "--prompt-exact",
             "--model", folder, "--modality", "ct", "--out", tmp_path)
    )  # fmt: skip
    given = answer(tmp_path)
    assert given["raw_text"] == case["prediction"]
    assert len(given["masks"]) == case["num_masks"]
    with safe_open(folder / "expected.safetensors", framework="np") as file:
        for number, mask in enumerate(given["masks"]):
            published = file.get_tensor(f"{name}/mask_{number}")[0] > 0
            assert np.array_equal(np.asarray(Image.open(tmp_path / mask)) == 255, published)


def test_a_literal_backslash_n_stays_one(images: Path, toy_folder: str, tmp_path: Path) -> None:
    base = [
        "ask",
        images / "ct.png",
        "--prompt-exact",
        "--modality",
        "ct",
        "--max-new-tokens",
        6,
        "--model",
        toy_folder,
    ]
    for name, question in (("real", "<image>\nliver?"), ("typed", "<image>\\nliver?")):
        succeeded(call(*base, question, "--out", tmp_path / name))
        assert answer(tmp_path / name)["settings"]["prompts"] == [question]
    assert answer(tmp_path / "real")["raw_text"] != answer(tmp_path / "typed")["raw_text"]


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
        (["segment", "{ct}", "liver", "--slice", "6"], ["No such slice", "1 to 5"]),
        (["segment", "{ct}", "liver", "--slice", "0"], ["No such slice"]),
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


def test_a_modality_that_nothing_tells_is_asked_for(toy_folder: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    refused(call("report", tmp_path / "scan.png", "--model", toy_folder, "--out", tmp_path / "o"), "--modality")


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


def command_line(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "unibiomed_core.cli", *(str(word) for word in words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom unibiomed_core import cli\n"
        "sys.argv = ['unibiomed', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'SimpleITK', 'nibabel', 'skimage', 'napari'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for words in (["--help"], ["report", "missing.png", "--out", "x"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout or "No such file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_on_a_running_report_keeps_what_is_done(toy_folder: str, tmp_path: Path) -> None:
    count = 2000
    voxels = np.stack([body(32, seed) for seed in range(20)] * (count // 20), axis=-1)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "ct.nii")
    out = tmp_path / "out"
    running = command_line("report", tmp_path / "ct.nii", "--targets", "liver", "--model", toy_folder, "--out", out)
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if re.match(r"slices [1-9]", line):
                break
        running.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Stopping after this slice" in errors
    assert time.monotonic() - began < 60
    written = json.loads((out / "report.json").read_text("utf-8"))
    done = written["slices"]["done_indices"]
    assert written["cancelled"]
    assert 1 <= len(done) < count
    labels = np.asarray(nibabel.load(out / "findings.nii.gz").dataobj)
    assert labels.shape == (32, 32, count)
    assert 1 <= labels.any(axis=(0, 1)).sum() <= len(done)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_stops_within_the_batch(
    images: Path, toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unibiomed_core.engine.engine import Engine

    predict = Engine.predict
    seen: list[int] = []

    def interrupted(self: Engine, slices: Any, *rest: Any) -> Any:
        seen.extend(piece.index for piece in slices)
        os.kill(os.getpid(), signal.SIGINT)
        return predict(self, slices, *rest)

    monkeypatch.setattr(Engine, "predict", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    result = call("segment", images / "ct.nii.gz", "liver", "--model", toy_folder, "--out", tmp_path)
    assert result.exit_code == 130, result.output
    assert signal.getsignal(signal.SIGINT) is handler
    given = answer(tmp_path)
    assert seen == [0, 1, 2, 3], "small slices are taken four at a time"
    assert given["cancelled"]
    assert given["slices"]["done"] == [2, 3, 4, 5], "canonical slices start at the head, where this file ends"
    mask = np.asarray(nibabel.load(tmp_path / given["masks"][0]).dataobj)
    assert mask[..., 1:].any(axis=(0, 1)).all()
    assert not mask[..., :1].any()


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_before_anything_is_done_writes_nothing(images: Path, tmp_path: Path) -> None:
    slow = tmp_path / "sitecustomize.py"
    # Loading a model is made to wait, so that the signal certainly meets it.
    slow.write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'unibiomed_core.engine.engine':\n"
        "            print('loading', file=sys.stderr, flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n",
        "utf-8",
    )
    running = command_line(
        "report", images / "ct.nii.gz", "--out", tmp_path / "out", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"
    )
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("loading"):
                break
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "nothing was written" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
