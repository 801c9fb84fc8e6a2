"""The command line: every command on small images, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.alike import same_masks
from tests.patience import GUARD_S, until_line
from tests.unibiomed_core.cli.cli_kit import (
    ROOT,
    answer,
    call,
    command_line,
    images,
    picky_folder,
    succeeded,
    toy_folder,
)
from tests.unibiomed_core.engine.toy import body
from unibiomed_core.types import NOTICE

__all__ = ["images", "picky_folder", "toy_folder"]


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
    assert any("left out for a presence below 1: liver" in warning["text"] for warning in none["warnings"])


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
    assert given["slices"]["done"] == [0, 1, 2, 3, 4]
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
    succeeded(call(*base, "--slice", 1, "--out", tmp_path / "one"))
    given = answer(tmp_path / "one")
    assert given["slice"] == {
        "plane": "axial", "number": 1, "total": 5, "counting": "from 0, as on napari's slider", "middle": False
    }  # fmt: skip
    whole = nibabel.load(tmp_path / "all" / "mask_01_liver.nii.gz").get_fdata()
    alone = nibabel.load(tmp_path / "one" / given["masks"][0]).get_fdata()
    assert alone.any()
    assert same_masks(alone[..., 3], whole[..., 3]), "slice 1 is the second from above; the file counts upwards"
    assert not np.delete(alone, 3, axis=2).any()


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
    assert "Coronal slice 24, the middle one" in result.stderr
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
            assert same_masks(np.asarray(Image.open(tmp_path / mask)) == 255, published)


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


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom unibiomed_core.cli import main as cli\n"
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


HELD_IN_WORK = """
import sys
from pathlib import Path
from tests.patience import until
from unibiomed_core.engine.engine import Engine
predict, calls = Engine.predict, []
def held(self, slices, *rest):
    if len(slices) > 1:  # else it is asked what the slice shows
        calls.append(len(slices))
    if len(calls) == 3:
        print("the third batch is in work", file=sys.stderr, flush=True)
        until(Path({go_on!r}).exists, "the signal")
    return predict(self, slices, *rest)
Engine.predict = held
"""

HELD_IN_LOADING = """
import sys
from tests.patience import until
class Held:
    def find_spec(self, name, path=None, target=None):
        if name == "unibiomed_core.engine.engine":
            print("loading", file=sys.stderr, flush=True)
            until(lambda: False, "the signal")
sys.meta_path.insert(0, Held())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_on_a_running_report_keeps_what_is_done(toy_folder: str, tmp_path: Path) -> None:
    count, out, go_on = 24, tmp_path / "out", tmp_path / "go-on"
    voxels = np.stack([body(32, seed) for seed in range(count)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "ct.nii")
    words = ["report", tmp_path / "ct.nii", "--targets", "liver", "--model", toy_folder, "--out", out]
    running = command_line(*words, before=HELD_IN_WORK.format(go_on=str(go_on)))
    try:
        until_line(running.stderr, "the third batch is in work")
        running.send_signal(signal.SIGINT)
        go_on.touch()
        _, errors = running.communicate(timeout=GUARD_S)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Stopping after this slice" in errors
    written = json.loads((out / "report.json").read_text("utf-8"))
    done = written["slices"]["done_indices"]
    assert written["cancelled"]
    assert len(done) == 12, "three batches of four, the one that was in work included"
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
    assert given["slices"]["done"] == [0, 1, 2, 3], "slices start at the head, where this file ends"
    mask = np.asarray(nibabel.load(tmp_path / given["masks"][0]).dataobj)
    assert mask[..., 1:].any(axis=(0, 1)).all()
    assert not mask[..., :1].any()


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_before_anything_is_done_writes_nothing(images: Path, tmp_path: Path) -> None:
    running = command_line("report", images / "ct.nii.gz", "--out", tmp_path / "out", before=HELD_IN_LOADING)
    try:
        until_line(running.stderr, "loading")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=GUARD_S)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "nothing was written" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
