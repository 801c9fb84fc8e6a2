"""From a folder to records: settings, one streaming pass, leakage, bounded refusals, full disks, the summary."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.tiny_data import write_tree
from train import prepare as command
from train.data import records as record_files
from train.data.counts import SAVED_REFUSALS, RecordCounts, is_abnormality, summary_of, summary_text
from train.data.leakage import LeakageCheck, check_leakage
from train.data.records import QuestionRecord, Record, RegionRecord, resize_picture
from train.datasets.registry import registry
from train.datasets.request import ConversionRequest, Summary
from train.datasets.settings import read_settings
from train.prepare import job_of, main, prepare, write_records
from unibiomed_core.errors import ConfigError, DataError, WriteError
from unibiomed_core.vocabulary import PARTS

WRITTEN = ["summary.json", "test.parquet", "train.parquet"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def quiet(line: str) -> None:
    """Where nobody reads progress."""


def made(number: int, split: str = "train", **changes: Any) -> Record:
    grey = np.full((16, 16, 3), number % 250, np.uint8)
    grey[0, 0] = number // 250
    record = Record(
        f"drawn/{number}", "drawn", split, str(number), "ct", "none", resize_picture(grey, 0), (16, 16), regions=()
    )
    return replace(record, **changes)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def converter_of(records: list[Record], refused: int = 0) -> Callable[..., Any]:
    """A layout's converter that gives these records and refuses so many items."""

    def convert(job: ConversionRequest, summary: Summary) -> Any:
        for number in range(refused):
            summary.refuse(f"item {number}", f"drawn badly {number % 2}")
        yield from records

    return convert


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Writes records that a made-up layout "drawn" gives to a folder ``out``."""
    from train.datasets import layouts

    def write(records: list[Record], refused: int = 0, say: Callable[[str], None] = quiet) -> dict[str, Any]:
        layout = SimpleNamespace(convert=converter_of(records, refused))
        monkeypatch.setattr(layouts, "LAYOUTS", {"drawn": layout})
        return write_records("drawn", ConversionRequest(tmp_path, "drawn"), tmp_path / "out", say)

    return write


# ---- the command --------------------------------------------------------------------------------------------------


def test_a_folder_of_data_sets_becomes_records(tree: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepare(tree, tmp_path, 64, lines.append)
    assert names(tmp_path) == WRITTEN
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    training, test = (record_files.load(tmp_path / f"{s}.parquet") for s in ("train", "test"))
    assert summary["splits"] == {"train": len(training), "test": len(test)}
    assert summary["records"]["kvasir-seg/train"] == 6
    assert {r.split for r in training} == {"train"}
    assert {r.split for r in test} == {"test"}
    assert all(r.stored_size == (64, 64) for r in test)
    assert "training and" in lines[-1]


def test_the_command_runs_as_a_file(tree: Path, tmp_path: Path, root: Path) -> None:
    words = [sys.executable, str(root / "train" / "prepare.py"), "auto", str(tree / "kvasir-seg"), str(tmp_path)]
    done = subprocess.run([*words, "side=32", "name=polyps"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "endoscopy" in done.stdout
    assert "6 training and 2 test records, 0 refused" in done.stdout
    assert record_files.load(tmp_path / "train.parquet")[0].dataset == "polyps"


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert main(["shared", str(tree), str(tmp_path / folder), "side=32"]) == 0
    for name in WRITTEN:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_error_is_one_line_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["auto", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Data folder not found.")
    assert told.count("\n") == 1


def test_help_and_too_few_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["auto"]) == 2
    assert "findings_known=" in capsys.readouterr().out


# ---- data set and settings ----------------------------------------------------------------------------------------


def test_a_registry_name_brings_its_own_settings(tmp_path: Path) -> None:
    layout, job = job_of("msd03-liver", tmp_path, ["side=128", "step=3"])
    assert layout == "nnunet"
    assert (job.dataset, job.side, job.step, job.modality) == ("msd03-liver", 128, 3, "ct")
    assert job.labels["liver tumour"] == (2,)
    assert job.findings_known
    assert job.licence == "CC BY-SA 4.0"


def test_settings_win_over_the_registry(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"liver": 1, "tumour": [2, 3]}')
    words = [f"labels={tmp_path / 'labels.json'}", "findings_known=no", "name=mine", "modality=MR", "licence=my own"]
    _, job = job_of("msd03-liver", tmp_path, words)
    assert job == ConversionRequest(
        tmp_path, "mine", 256, "mri", "my own", {"liver": (1,), "tumour": (2, 3)}, ("abdomen",), False, 1
    )


def test_a_data_set_may_show_several_parts_of_the_body(tmp_path: Path) -> None:
    _, job = job_of("msd03-liver", tmp_path, ["body=Chest, abdomen"])
    assert job.body == ("chest", "abdomen")
    assert all(set(row.body) <= set(PARTS) for row in registry().values())


def test_a_data_set_without_converter_says_what_to_do_and_is_read_when_that_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pylidc"):
        job_of("lidc-idri", tmp_path, [])
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    layout, job = job_of("lidc-idri", tmp_path, [])
    assert (layout, job.labels) == ("nnunet", {"lung nodule": (1,)})


@pytest.mark.parametrize(
    ("dataset", "settings", "told"),
    [
        ("msd03-livr", [], "msd03-liver"),
        ("nn-unet", [], "nnunet"),
        ("shared", ["sidd=64"], "nearest: side"),
        ("shared", ["side"], "name=value"),
        ("shared", ["side=big"], "whole number"),
        ("shared", ["side=-1"], "whole number"),
        ("shared", ["step=0"], "whole number"),
        ("shared", ["findings_known=perhaps"], "yes or no"),
        ("shared", ["labels=nowhere.json"], "JSON file"),
        ("shared", ["modality=smell"], "is not a modality"),
        ("shared", ["body=tummy"], "head, neck, chest"),
    ],
)
def test_wrong_words_are_told(tmp_path: Path, dataset: str, settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        job_of(dataset, tmp_path, settings)


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"liver": "one"}', '{"liver": null}'])
def test_a_labels_file_of_another_shape_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ConfigError, match="JSON file"):
        read_settings([f"labels={tmp_path / 'labels.json'}"])


def test_a_folder_in_no_layout_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError):
        prepare(tmp_path, tmp_path / "out", 64, quiet)
    assert not (tmp_path / "out").exists()


# ---- what stops a conversion --------------------------------------------------------------------------------------


def test_damaged_items_beyond_the_bound_are_an_error(tmp_path: Path) -> None:
    broken = write_tree(tmp_path / "tree")
    (broken / "kvasir-seg" / "images" / "p0.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="kvasir-seg/p0"):
        prepare(broken, tmp_path / "out", 64, quiet)
    assert names(tmp_path / "out") == []


def test_a_few_refused_are_counted_with_their_reasons(drawn: Callable[..., dict[str, Any]]) -> None:
    records = [made(n, "test" if n % 5 == 0 else "train") for n in range(147)]
    summary = drawn(records, refused=3)
    assert summary["refused_count"] == 3
    assert summary["refused_by_reason"] == {"drawn badly 0": 2, "drawn badly 1": 1}
    assert summary["refused"][0] == ["item 0", "drawn badly 0"]
    with pytest.raises(DataError, match=r"4 beside 147 records.*item 0: drawn badly 0; item 1.*item 2.*MOST_REFUSED"):
        drawn(records, refused=4)


@pytest.mark.parametrize("there", ["train", "test"])
def test_a_source_that_puts_all_into_one_split_is_told(drawn: Callable[..., dict[str, Any]], there: str) -> None:
    lacking = {"train": "test", "test": "train"}[there]
    with pytest.raises(DataError, match=f"the source puts all 2 into '{there}'. Expected: some for '{lacking}'"):
        drawn([made(0, there), made(1, there)])


def test_a_split_of_another_name_is_told(drawn: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="'validation'"):
        drawn([made(0, "validation")])


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"id": "drawn/0"}, "1 ids in both splits, e.g. drawn/0"),
        ({"group": "0"}, "1 patients or groups in both splits, e.g. drawn/0"),
        ({"image": made(0).image}, "1 pictures in both splits, e.g. the picture of drawn/1"),
        ({"split": "train", "id": "drawn/0"}, "1 ids repeated in one split, e.g. drawn/0"),
    ],
)
def test_leakage_stops_the_conversion(
    drawn: Callable[..., dict[str, Any]], tmp_path: Path, second: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=f"Leakage between splits.*{told}"):
        drawn([made(0), made(1, "test", **second)] if "split" not in second else [made(0), made(1, **second)])
    assert names(tmp_path / "out") == []


def test_leakage_is_seen_whichever_split_comes_first() -> None:
    for order in (["train", "test"], ["test", "train"]):
        check = LeakageCheck()
        for number, split in enumerate(order):
            check.add(made(number, split, group="same"), split)
        with pytest.raises(DataError, match="1 patients"):
            check.finish()


def test_what_two_splits_may_share() -> None:
    twins = [made(0, image=made(9).image, group="a"), made(1, image=made(9).image, group="a")]
    check_leakage(twins, [made(2, "test", group="a", dataset="another")])
    with pytest.raises(DataError, match=r"2 ids in both.*1 patients.*1 pictures"):
        check_leakage(iter(twins), iter(twins))


@pytest.mark.parametrize("where", ["write_table", "close"])
def test_a_full_disk_leaves_what_stood_there(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import pyarrow.parquet as parquet

    prepare(tree, tmp_path / "out", 32, quiet)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in WRITTEN}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, where, full)
    with pytest.raises(WriteError, match="No space left"):
        prepare(tree, tmp_path / "out", 48, quiet)
    assert names(tmp_path / "out") == WRITTEN
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in before.items())


def test_a_place_that_is_no_folder_is_told(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteError, match="out"):
        prepare(tree, tmp_path / "out", 32, quiet)


# ---- progress and summary -----------------------------------------------------------------------------------------


def test_records_stream_and_progress_is_told(
    drawn: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SAY_EVERY", 4)
    lines: list[str] = []
    drawn([made(n, "test" if n == 8 else "train") for n in range(9)], say=lines.append)
    assert lines[1:] == ["4 records, 0 refused", "8 records, 0 refused"]


def test_the_summary_counts_as_the_papers_tables_do() -> None:
    counts = RecordCounts()
    both = (RegionRecord("liver", b"x"), RegionRecord("liver tumor", b"y", caption="a dark mass"))
    counts.add(made(0, regions=both, findings_known=True, caption="A report."))
    counts.add(made(1, regions=(RegionRecord("liver", b"x"),), absent=("liver tumor",), findings_known=True))
    asked = (QuestionRecord("Is it?", "yes", True), QuestionRecord("What?", "a liver", False))
    counts.add(made(2, "test", modality="", questions=asked))
    counts.add(made(3, regions=(RegionRecord("polyp", box=(0, 0, 3, 3)),), modality="endoscopy"))
    summary = summary_of(counts, [("a", "torn")] * (SAVED_REFUSALS + 5))
    assert summary["by_modality"] == {
        "ct": {"images": 2, "triplets": 3},
        "endoscopy": {"images": 1, "triplets": 1},
        "not stated": {"images": 1, "triplets": 0},
    }
    assert summary["by_task"] == {
        "disease": 2, "modality": 3, "part": 1, "report": 2, "roi": 4, "segmentation": 3, "vqa": 2,
    }  # fmt: skip
    assert {m: row["part"] for m, row in summary["surely_absent"]["drawn"].items()} == {
        "ct": 0, "endoscopy": 1, "not stated": 0,
    }  # fmt: skip
    sure = summary["surely_absent"]["drawn"]["ct"]
    assert sure["near"] == 1
    assert (sure["pictures"], sure["far"] > 0, sure["other"] > sure["far"]) == (2, True, True)
    assert summary["by_target"] == {"drawn": {"ct": {"liver": 2, "liver tumor": 1}, "endoscopy": {"polyp": 1}}}
    assert summary["by_abnormality"] == {"liver tumor": 1, "no findings": 1, "polyp": 1}
    assert summary["splits"] == {"train": 3, "test": 1}
    assert len(summary["refused"]) == SAVED_REFUSALS
    assert summary["refused_by_reason"] == {"torn": SAVED_REFUSALS + 5}
    text = summary_text(json.loads(json.dumps(summary)))
    assert "total            4         4" in text
    assert "no findings       1" in text
    assert text.endswith("refused 1005 x: torn")


@pytest.mark.parametrize(
    ("target", "modality", "abnormal"),
    [
        ("polyp", "endoscopy", True),
        ("liver", "ct", False),
        ("lung tumor", "ct", True),
        ("covid-19 infection", "xray", True),
        ("femoral head", "ct", False),
    ],
)
def test_what_counts_as_an_abnormality(target: str, modality: str, abnormal: bool) -> None:
    assert is_abnormality(target, modality) is abnormal


def test_a_picture_keeps_its_own_size_where_the_side_is_0(tmp_path: Path, tree: Path) -> None:
    assert main(["shared", str(tree / "kvasir-seg"), str(tmp_path), "side=0"]) == 0
    record = record_files.load(tmp_path / "train.parquet")[0]
    assert record.stored_size == record.size == Image.open(tree / "kvasir-seg" / "images" / "p0.png").size[::-1]
