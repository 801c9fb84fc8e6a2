"""python train/evaluate.py report: items are read and reported on whole, kept line by line, scored and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.train.evaluation.drawn_reports import case_of, told
from tests.train.tiny_data import write_tree
from train import evaluate
from train.evaluation import reports
from train.evaluation.report_cases import cases, truth_of
from unibiomed_core import io
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ConfigError, DataError, PromptError, ReadError
from unibiomed_core.types import Volume
from unibiomed_core.updates import Done, Progress, Update

TARGETS = {
    "endoscopy": "polyp", "ultrasound": "breast lesion", "ct": "soft-tissue sarcoma", "dermoscopy": "skin lesion",
    "mri": "brain tumour",
}  # fmt: skip


class Bright:
    """Stands in for an engine: marks what is bright as the target of the modality, on the first ``most`` items."""

    def __init__(self, sha256: str = "a" * 64, most: int = 99) -> None:
        self.info = SimpleNamespace(name="bright", sha256=sha256)
        self.asked: list[tuple[str, bool]] = []
        self._most = most

    def run(self, volume: Volume, request: RunRequest) -> Iterator[Update]:
        if len(self.asked) == self._most:
            raise KeyboardInterrupt
        self.asked.append((volume.name, request.describe))
        yield Progress(0, 1)
        if volume.name == "p7" and volume.modality == "endoscopy":
            raise PromptError("Nothing to look for", "this one")
        bright = volume.voxels.max(axis=3) > 150 if volume.is_rgb else volume.voxels > 100
        target = TARGETS[volume.modality]
        rows = [(target, 0.9, bright)] if bright.any() else []
        yield Done(told(volume.modality, *rows, absent={} if rows else {target: 0.1}, volume=volume))

    def with_modality(self, volume: Volume) -> Volume:
        """Pictures in colour are endoscopies; noise, which is brightest, is nothing."""
        if volume.modality:
            return volume
        if volume.voxels.max() > 220:
            raise ReadError("Modality not told", volume.name)
        return replace(volume, modality="endoscopy" if volume.is_rgb else "ultrasound", modality_by="model")

    def free(self) -> None:
        pass


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data")


def with_engine(monkeypatch: pytest.MonkeyPatch, engine: Bright) -> Bright:
    monkeypatch.setattr(Engine, "load", lambda model: engine)
    return engine


def lines(out: Path, name: str = reports.REPORT_FILE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]


def test_whole_items_are_reported_on_scored_and_shown(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, out = with_engine(monkeypatch, Bright()), tmp_path / "out"
    assert evaluate.main(["report", "mini", str(data), str(out)]) == 0
    # Only the first of a set is described in words: these are not measured, and the sheet shows them.
    assert engine.asked == [("p6", True), ("p7", False), ("p6", True), ("p7", False), ("v2_CT", True)]
    assert [row["id"].split("/")[1] for row in lines(out)] == ["p6", "p7", "p6", "p7", "v2_CT", "q2"]
    found = {row["id"]: row for row in lines(out, reports.SCORE_FILE)}
    normal = found["busi-breast-us/p6"]
    assert (normal["normal"], normal["false_rows"], normal["targets"][0]["found"]) == ("class", 0, False)
    assert found["soft-tissue-sarcoma-pet-ct-mr/v2_CT"]["volume"] is True
    assert found["soft-tissue-sarcoma-pet-ct-mr/v2_CT"]["targets"][0]["dice"] == 1

    table = json.loads((out / "table.json").read_text("utf-8"))
    assert list(table["failures"]) == ["kvasir-seg/p7", "vqa-rad/q2"]
    assert "Modality not told" in table["failures"]["vqa-rad/q2"]
    everything = table["groups"]["all"]
    # Three of the four that show a lesion have it told; the failed one has it missed.
    assert (everything["reports"], everything["recall"]["value"], everything["precision"]["value"]) == (6, 0.75, 1)
    assert found["kvasir-seg/p7"]["modality_right"] is True
    shown = sorted(file.name for file in (out / reports.SHEET).iterdir())
    assert shown == ["busi-breast-us.html", "index.html", "kvasir-seg.html", "soft-tissue-sarcoma-pet-ct-mr.html"]
    said = capsys.readouterr().out
    assert "1 of 6: busi-breast-us/p6" in said
    assert (out / "table.md").read_text("utf-8").strip() in said
    assert json.loads((out / "run.json").read_text("utf-8"))["complete"] is True
    assert str(tmp_path) not in (out / reports.REPORT_FILE).read_text("utf-8")


def test_a_run_that_was_stopped_or_killed_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    with_engine(monkeypatch, Bright(most=2))
    assert evaluate.main(["report", "mini", str(data), str(out)]) == evaluate.STOPPED
    assert len(lines(out)) == 2
    with (out / reports.REPORT_FILE).open("a", encoding="utf-8") as file:
        file.write('{"id": "kvasir-seg/p6", "rep')  # what a kill leaves of a line

    engine = with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(out)]) == 0
    assert [name for name, _ in engine.asked] == ["p6", "p7", "v2_CT"]
    with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(whole)]) == 0
    assert lines(out, reports.SCORE_FILE) == lines(whole, reports.SCORE_FILE)


def test_a_finished_run_is_scored_again_without_the_engine_working(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(monkeypatch, Bright())
    for _ in range(2):
        assert evaluate.main(["report", "mini", str(data), str(tmp_path / "out")]) == 0
        with_engine(monkeypatch, Bright(most=0))


def test_another_model_or_evaluation_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(out), "limit=1"]) == 0
    before = (out / reports.REPORT_FILE).read_bytes()
    with_engine(monkeypatch, Bright("b" * 64))
    assert evaluate.main(["report", "mini", str(data), str(out), "limit=1"]) == 1
    assert "Folder with another model" in capsys.readouterr().err
    assert (out / reports.REPORT_FILE).read_bytes() == before
    (out / "run.json").write_text('{"image": "as is"}', "utf-8")
    assert evaluate.main(["report", "mini", str(data), str(out), "limit=1"]) == 1
    assert "Folder with another kind of evaluation" in capsys.readouterr().err


def test_items_that_cannot_be_read_are_left_out_and_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "kvasir-seg/images/p6.png").write_bytes(b"no picture")
    (data / "kvasir-seg/images/p7.png").unlink()
    (data / "busi-breast-us/masks/p6.png").write_bytes(b"no mask")
    with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert told.count("items left out:") == 3
    assert "Missing picture" in told
    table = json.loads((tmp_path / "out/table.json").read_text("utf-8"))
    assert (table["groups"]["all"]["reports"], list(table["failures"])) == (3, ["vqa-rad/q2"])

    (tmp_path / "file").write_text("", "utf-8")
    assert evaluate.main(["report", "mini", str(data), str(tmp_path / "file")]) == 1
    assert "Output is not a folder" in capsys.readouterr().err


def test_a_modality_that_the_engine_gets_wrong_or_cannot_tell_is_not_right(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = json.loads((data / "kvasir-seg/dataset.json").read_text("utf-8"))
    (data / "kvasir-seg/dataset.json").write_text(json.dumps(about | {"modality": "dermoscopy"}), "utf-8")
    about = json.loads((data / "vqa-rad/dataset.json").read_text("utf-8"))
    (data / "vqa-rad/dataset.json").write_text(json.dumps(about | {"modality": "MRI"}), "utf-8")
    with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(tmp_path / "out")]) == 0
    right = {row["id"]: row["modality_right"] for row in lines(tmp_path / "out", reports.SCORE_FILE)}
    assert (right["kvasir-seg/p7"], right["vqa-rad/q2"]) == (False, False)
    assert right["soft-tissue-sarcoma-pet-ct-mr/v2_CT"] is None

    with_engine(monkeypatch, Bright())
    assert evaluate.main(["report", "mini", str(data), str(tmp_path / "told"), "modality=told"]) == 0
    right = {row["id"]: row["modality_right"] for row in lines(tmp_path / "told", reports.SCORE_FILE)}
    assert set(right.values()) == {None}


def test_wrong_settings_and_folders_are_refused(data: Path, tmp_path: Path) -> None:
    for wrong in ("limit=few", "image=noise", "modality=ct", "limit"):
        with pytest.raises(ConfigError):
            reports.settings([wrong])
    assert reports.settings(["limit=3", "modality=told"]) == reports.ReportSettings(3, "told")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no dataset\.json"):
        cases(tmp_path / "empty")
    about = json.loads((data / "vqa-rad/dataset.json").read_text("utf-8"))
    about["items"] = [item | {"split": "train"} for item in about["items"]]
    (data / "vqa-rad/dataset.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(DataError, match="Nothing to report on"):
        cases(data / "vqa-rad")
    del about["items"][0]["image"]
    (data / "vqa-rad/dataset.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(DataError, match="lacks image"):
        cases(data)


def test_a_limit_spreads_over_each_set_and_keeps_its_first_item(data: Path) -> None:
    for folder in (data / "kvasir-seg", data / "busi-breast-us"):
        about = json.loads((folder / "dataset.json").read_text("utf-8"))
        about["items"] = [item | {"split": "test"} for item in about["items"]][::-1]
        (folder / "dataset.json").write_text(json.dumps(about), "utf-8")
    picked = [case for case in cases(data, 3) if case.dataset == "kvasir-seg"]
    assert [(case.id, case.first) for case in picked] == [
        ("kvasir-seg/p0", True), ("kvasir-seg/p2", False), ("kvasir-seg/p5", False)
    ]  # fmt: skip


def truth_for(data: Path, name: str, **item: Any) -> Any:
    (case,) = (c for c in cases(data) if c.id == name)
    case = replace(case, item=case.item | item)
    return truth_of(case, io.read(case.image, case.modality))


def test_what_is_known_of_an_item(data: Path) -> None:
    normal = truth_for(data, "busi-breast-us/p6")
    assert (normal.present, normal.normal, normal.lesions) == ({"breast lesion": False}, "class", ("breast lesion",))
    # Not called normal, and the set would show a lesion.
    assert truth_for(data, "busi-breast-us/p6", text={"image_class": "benign"}).normal == "annotation"
    sick = truth_for(data, "busi-breast-us/p7")
    assert (sick.present, sick.normal) == ({"breast lesion": True}, "")
    limb = truth_for(data, "soft-tissue-sarcoma-pet-ct-mr/v2_CT")
    assert "liver" in limb.foreign
    assert "soft-tissue sarcoma" not in limb.foreign
    assert limb.masks["soft-tissue sarcoma"].sum() == 8 * 10 * 3


def test_specks_are_neither_there_nor_absent(data: Path) -> None:
    from PIL import Image

    mask = np.zeros((60, 80), np.uint8)
    mask[:2, :5] = 1
    Image.fromarray(mask).save(data / "busi-breast-us/masks/p6.png")
    known = truth_for(data, "busi-breast-us/p6", text={})
    assert (known.present, known.lesions, known.normal) == ({}, (), "")


def test_boxes_say_what_is_there_and_how_many(data: Path) -> None:
    folder = data / "kvasir-seg"
    folder.rename(data / "bccd-blood-cells")
    about = json.loads((data / "bccd-blood-cells/dataset.json").read_text("utf-8"))
    about["modality"] = "pathology"
    for item in about["items"]:
        del item["mask"]
        item |= {"size": [80, 60], "boxes": [[1, 0, 0, 9, 9], [1, 20, 20, 30, 30], [3, 5, 5, 9, 9]]}
    (data / "bccd-blood-cells/dataset.json").write_text(json.dumps(about), "utf-8")
    known = truth_for(data, "bccd-blood-cells/p6")
    assert known.present == {"red blood cell": True, "platelet": True}
    assert {t: (c.number, c.origin) for t, c in known.counts.items()} == {
        "red blood cell": (2, "source"), "platelet": (1, "source")
    }  # fmt: skip
    assert (known.masks, known.lesions, known.normal) == ({}, (), "")


def test_the_parts_of_the_body_that_are_right() -> None:
    assert case_of("mri", body=("heart",)).parts == {"heart", "chest"}
    assert case_of("ct", body=("neck", "head")).parts == {"neck", "head"}
    assert case_of("ct", anatomy="abdomen").parts == {"abdomen"}
    assert case_of("ct", anatomy="leg of lamb").parts == case_of("ct").parts == frozenset()
